"""How a function or a layer behaves, right or not: what it does to its inputs, their shape and
type, far from zero, and when it is called again."""

import numpy as np

from gluon_bn.check import probes, topics
from gluon_bn.check.calling import Failure
from gluon_bn.check.report import Example
from gluon_bn.check.suspects import forward, same


def in_place(report, subject):
    """What was passed in is what the caller still has."""
    names = list(dict.fromkeys(n for n, _ in sorted(subject.changed)))
    for name in [n for n in names if not n.startswith("moving")]:
        if name in ("gamma", "beta") and hasattr(subject, "made"):
            report.changed_in_place(name, "the Trainer moves it, along its gradient, and nobody "
                                    "else")
        else:
            report.changed_in_place(name)
    if any(n.startswith("moving") for n in names):
        report.note("the moving statistics that were passed in are changed in place; d2l's "
                    "function leaves them and returns new ones")
    if not names:
        report.ok("the arrays that are passed in are left as they were")


def types_and_shapes(report, subject, ranks):
    """Y has the shape and the type of X."""
    said = len(report.lines)
    for rank in ranks:
        s = subject.adapt(probes.ordinary(rank, labels=subject.labels))
        for training in (True, False):
            try:
                out = subject.run(s.but(training=training), recording=False)
            except Failure:
                continue
            if out.shape != s.X.shape and len(report.lines) == said:
                report.not_yet("Y has the shape of X", f"X of shape {s.X.shape} comes back as Y of "
                               f"shape {out.shape}.", ("shape changed",))
    for dtype in ("float32", "float64", "float16"):
        if not _type(report, subject, ranks[0], dtype):
            break
    if len([line for line in report.lines[said:] if line.status == "not yet"]) == 0:
        report.ok("Y has the shape and the type of X")


def _type(report, subject, rank, dtype):
    """Whether there is nothing to be said about Y's type for X of this type."""
    s = subject.adapt(probes.ordinary(rank, labels=subject.labels))
    for training in (True, False):
        if (rank, training) in subject.failures:
            continue
        try:
            out = subject.run(s.but(training=training), recording=False, dtype=dtype)
        except Failure as problem:
            if dtype == "float16":
                report.note(f"float16: {problem}")
            else:
                report.not_yet(f"X of type {dtype}", f"With arrays of {dtype} it fails: "
                               f"{problem}. Is a new array made somewhere without a type? It is "
                               "float32 then.", ("type changed",))
            return False
        if out.dtype != dtype:
            report.not_yet(f"X of type {dtype}", f"X of type {dtype} comes back as Y of type "
                           f"{out.dtype}.", ("type changed",))
            return False
    return True


def precision(report, subject, ranks):
    """Values around 10,000: E[x^2] - E[x]^2 loses every digit in float32."""
    what = "values around 10,000 with a spread of 1"
    for rank in ranks:
        s = subject.adapt(probes.far_from_zero(rank, subject.labels))
        try:
            got = topics.trained_output(subject, s)
        except Failure as problem:
            report.not_yet(what, f"It fails: {problem}.", (problem.mistake,))
            return
        want = forward(s)
        if got.size == want.size and np.nanmax(np.abs(got.reshape(want.shape) - want)) < 0.3 and (
                not np.isnan(got).any()):
            continue
        report.not_yet(
            what, "Y is right for ordinary inputs but loses its digits here. A difference of two "
            "large and nearly equal numbers does that, as in E[x^2] - E[x]^2: take the mean away "
            "before squaring.", ("cancellation",),
            Example({"X": f"values around 10,000, shape {s.X.shape}"}, want,
                    got.reshape(want.shape) if got.size == want.size else got))
        return
    report.ok(what)


def remembers(report, subject, rank):
    """The same call twice gives the same answer twice."""
    s = subject.adapt(probes.ordinary(rank, labels=subject.labels))
    for training in (True, False):
        try:
            one = subject.run(s.but(training=training), recording=False)
            subject.run(probes.ordinary(rank, seed=5, labels=subject.labels), recording=False)
            two = subject.run(s.but(training=training), recording=False)
        except Failure:
            continue
        pairs = [(one.Y, two.Y), (one.moving_mean, two.moving_mean)]
        if not all(a is None or b is None or same(a, b) for a, b in pairs):
            report.not_yet("the same call again", "The same call gives another answer the second "
                           "time: something is remembered between calls, or random. A function "
                           "keeps nothing; that is the layer's business.", ("remembers",))
            return
