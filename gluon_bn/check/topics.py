"""Questions that are asked of every batch normalization, and the verdicts on the answers.

`subject.run(situation, ...)` gives an `Outcome`; a function, a Block and their conditional kin are
subjects alike.
"""

from dataclasses import dataclass, field

import numpy as np

from gluon_bn.check import moving, probes, sentences
from gluon_bn.check.calling import Failure
from gluon_bn.check.report import Example
from gluon_bn.check.student import upstream
from gluon_bn.check.suspects import differences, forward, identify, lineup, same, slots

UNKNOWN = ("This is no mistake that is known here, so only the difference can be shown: the "
           "smallest example found is below.")

EVIDENCE = " (To five digits, your numbers are those of this mistake.)"

SWAPPED = (("mean and variance swapped",),
           "The moving mean and the moving variance come back in each other's place.")
NP_VAR = (" (In MXNet 1.9.1 the var() and std() of mx.np pass no gradient at all; a variance put "
          "together from means does.)")


@dataclass
class Verdict:
    """What is to be said about one question; faults is {} if right, None if not understood."""

    ok: bool
    names: tuple = ()
    why: str = ""
    example: Example = None
    faults: dict = field(default_factory=dict)


def say(report, what, verdicts):
    """One line for all ranks where they agree, else one for each that is not right."""
    verdicts = {rank: v for rank, v in verdicts.items() if v is not None}
    wrong = {rank: v for rank, v in verdicts.items() if not v.ok}
    if not verdicts:
        return
    if not wrong:
        report.ok(what)
        return
    first = wrong[max(wrong)]
    if len(wrong) == len(verdicts) and len({v.names for v in wrong.values()}) == 1:
        report.not_yet(what, first.why, first.names, first.example)
        return
    for rank, v in sorted(wrong.items(), reverse=True):
        right = "".join(f" (With X of rank {r} it is right.)" for r in verdicts if r not in wrong)
        report.not_yet(f"{what}, X of rank {rank}", v.why + right, v.names, v.example)


def failure(problem, where):
    return Verdict(False, (problem.mistake,), f"{where} it fails: {problem}.", faults=None)


def hint(evidence, answer=forward):
    """What an unknown difference looks like, where that can be said in a few words."""
    wants = np.concatenate([np.ravel(answer(s)) for s, _ in evidence])
    gots = np.concatenate([np.ravel(g) for _, g in evidence])
    if wants.size != gots.size:
        return "The number of values is not the expected one. "
    finite = np.isfinite(wants) & np.isfinite(gots)
    if (np.isnan(gots) & ~np.isnan(wants)).any():
        return "Some of the values are not numbers (nan). "
    if not finite.all() or not wants.any():
        return ""
    factor = float(wants @ gots / (wants @ wants))
    if same(gots, factor * wants) and abs(factor) > 1e-3:
        return f"Every value is {factor:.4g} times the right one. "
    shift = float(np.mean(gots - wants))
    if same(gots, wants + shift):
        return f"Every value is off by the same {shift:.4g}. "
    if np.abs(gots).max() < 1e-6:
        return "Every value is zero. "
    if all(same(g, answer(s), 1e-3) for s, g in evidence):
        return ("The values are right to about three digits, as those of float16 would be: is a "
                "type of few digits on the way? ")
    return ""


# -------------------------------------------------------------------------------------------- Y


def trained_output(subject, s):
    """Y while autograd records; where it fails only then, which another line says, without."""
    try:
        return subject.run(s).Y
    except Failure:
        return subject.run(s, recording=False).Y


def output(subject, rank, training, recording=None):
    """Is Y right in training, or in prediction?"""
    recording = training if recording is None else recording
    shape = subject.adapt(probes.ordinary(rank, labels=subject.labels)).X.shape
    place = "training" if training else "prediction"
    only = ("X", "labels", "gamma", "beta", "eps") + (
        () if training else ("moving_mean", "moving_var"))

    def run(s):
        return trained_output(subject, s) if recording else subject.run(s, recording=False).Y

    evidence = []
    try:
        for s in probes.battery(rank, training, subject.labels):
            s = subject.adapt(s)
            evidence.append((s, run(s)))
    except Failure as problem:
        said = failure(problem, f"With X of shape {shape}, in {place},")
        if "broadcast" in said.why:
            return laid_wrong(subject, rank, training, said)
        return said
    return compare(run, rank, training, evidence, slots(rank, training, subject.labels), only,
                   subject)


def compare(run, rank, training, evidence, table, only, subject=None):
    """The right answer, a suspect, or a plain difference, with the smallest example."""
    if all(same(got, forward(s)) for s, got in evidence):
        return Verdict(True)
    example = probes.smallest(run, rank, training, only, subject, last=evidence[0][0])
    faults = identify(evidence, lineup(table))
    if faults is None:
        return Verdict(False, ("difference",), hint(evidence) + UNKNOWN, example, None)
    if not getattr(subject, "eps_said", True) and len(faults) > 1:
        told = {k: v for k, v in faults.items() if k != "eps"}  # it never said what it should be
    else:
        told = faults
    names, why = sentences.tell(told, evidence[0][0])
    return Verdict(False, tuple(names), why + EVIDENCE, example, faults)


def laid_wrong(subject, rank, training, said):
    """It fails where shapes do not fit: what does it do where they happen to?"""
    s = probes.ordinary(rank, labels=subject.labels)
    shape = s.X.shape[:-1] + (s.X.shape[1],)
    s = subject.adapt(probes.ordinary(shape=shape, labels=subject.labels).but(training=training))
    try:
        got = subject.run(s, recording=False).Y
    except Failure:
        return said
    faults = identify([(s, got)], lineup(slots(rank, training, subject.labels, square=True)))
    if faults:
        names, why = sentences.tell(faults, s)
        said.names = tuple(names)
        said.why += (f" With X of shape {shape}, where the last axis happens to fit, it runs, and "
                     f"gives what comes of this mistake: {why}")
    return said


# ------------------------------------------------------------------------------ moving statistics


def statistics(subject, rank):
    """Verdicts on the moving mean and variance after a step of training: (mean, var)."""
    pairs = {"mean": [], "var": []}
    for s in probes.battery(rank, True, subject.labels)[:2]:
        s = subject.adapt(s)
        try:
            out = subject.run(s, upstream=upstream(s))
        except Failure:
            out = subject.run(s, recording=False)  # its failure is said elsewhere
        if out.moving_mean is None:
            return None
        pairs["mean"].append((s, out.moving_mean))
        pairs["var"].append((s, out.moving_var))
    swapped = all(same(g, moving.moved(s, which="var")) for s, g in pairs["mean"]) and all(
        same(g, moving.moved(s)) for s, g in pairs["var"])
    if swapped:
        return Verdict(False, *SWAPPED), Verdict(False, *SWAPPED)
    return tuple(_statistic(subject, rank, which, evidence) for which, evidence in pairs.items())


def _statistic(subject, rank, which, evidence):
    def answer(s, faults=()):
        return moving.moved(s, faults, which)

    if all(same(got, answer(s)) for s, got in evidence):
        return Verdict(True)
    faults = identify(evidence, moving.candidates(rank, which), answer)

    def run(s):
        out = subject.run(s, upstream=upstream(s))
        return out.moving_mean if which == "mean" else out.moving_var

    only = ("X", "momentum", "moving_mean" if which == "mean" else "moving_var")
    example = probes.smallest(run, rank, True, only, subject, answer, f"moving_{which}",
                              evidence[0][0])
    if faults is None:
        return Verdict(False, ("difference",), hint(evidence, answer) + UNKNOWN, example, None)
    names, why = moving.tell(faults, evidence[0][0], which)
    return Verdict(False, tuple(names), why + EVIDENCE, example, faults)


def say_statistics(report, pairs, what="after a step of training"):
    """One line for both where mean and variance share a verdict."""
    pairs = {rank: pair for rank, pair in pairs.items() if pair}
    together = all(m.ok == v.ok and m.names == v.names and m.faults == v.faults
                   for m, v in pairs.values())
    if together:
        merged = {}
        for rank, (m, v) in pairs.items():
            if m.faults and not m.ok:
                s = probes.ordinary(rank)
                why = moving.tell(m.faults, s, "both")[1] + EVIDENCE
                m = Verdict(False, m.names, why, v.example, m.faults)
            merged[rank] = m
        say(report, f"moving mean and variance {what}", merged)
    else:
        say(report, f"moving mean {what}", {r: m for r, (m, _) in pairs.items()})
        say(report, f"moving variance {what}", {r: v for r, (_, v) in pairs.items()})


# --------------------------------------------------------------------------------------- gradients

DETACHED = {
    ("mean",): ("gradient not through the mean", "No gradient flows through the mean: it is "
                "treated as a constant. It was computed from X, and the gradient has to go back "
                "that way too (chapter 3)."),
    ("var",): ("gradient not through the variance", "No gradient flows through the variance: it "
               "is treated as a constant. It was computed from X, and the gradient has to go back "
               "that way too (chapter 3)."),
    ("mean", "var"): ("gradient not through mean and variance", "No gradient flows through mean "
                      "and variance: they are treated as constants. Both were computed from X, "
                      "and the gradient has to go back that way too (chapter 3)."),
}


def gradient(s, faults=(), name="X", held=()):
    """The gradient of sum(upstream * Y) by differences; `held` statistics count as constants."""
    up, fixed = upstream(s), {f"{k}_of": s.X for k in held}
    if name == "X":
        return differences(lambda X: float((up * forward(s, faults, X, **fixed)).sum()), s.X)
    return differences(lambda v: float((up * forward(s.but(**{name: v}), faults)).sum()),
                       getattr(s, name))


def gradients(subject, rank, faults, training=True):
    """Do the gradients fit the Y that comes out? `faults` are those already found in Y."""
    s = subject.adapt(probes.ordinary(rank, labels=subject.labels).but(training=training))
    try:
        out = subject.run(s, upstream=upstream(s))
    except Failure as problem:
        return failure(problem, "Inside autograd.record()")
    if out.gradient_failure:
        return failure(out.gradient_failure, "On the way back, in Y.backward(),")
    wrong, names = [], []
    right = gradient(s, faults)
    got = out.gradients["X"]
    if not same(got, right, 1e-4, 1.0):
        said = None
        for held in DETACHED if training else ():
            if same(got, gradient(s, faults, held=held), 1e-4, 1.0):
                said = DETACHED[held]
        if said is None and not got.any():
            said = ("gradient cut", "The gradient of X is zero everywhere: the way from Y back to "
                    "X is cut.")
        said = said or ("difference", "The gradient of X is not that of the Y that comes out: "
                        + (hint([(s, got)], lambda s: right) or
                           "no mistake that is known here gives these numbers."))
        names.append(said[0])
        wrong.append(said[1] + (NP_VAR if "var" in said[1] and subject.kind == "np" else ""))
    for name in [n for n in ("gamma", "beta") if n in out.gradients]:
        right = gradient(s, faults, name)
        got = out.gradients[name]
        if not same(got, right, 1e-4, 1.0):
            cut = not got.any()
            names.append(f"no gradient for {name}" if cut else "difference")
            wrong.append(f"The gradient of {name} is " + (
                "zero: it would never be learned. Is it read out of the array before it is used?"
                if cut else "not that of the Y that comes out."))
    if wrong:
        return Verdict(False, tuple(names), " And: ".join(wrong), faults=None)
    return Verdict(True)
