"""Exercise: the formula gamma (X - mean) / sqrt(var + eps) + beta, with given statistics."""

from gluon_bn.check import probes, sentences
from gluon_bn.check.calling import Failure
from gluon_bn.check.plain import PlainFunction
from gluon_bn.check.report import Report
from gluon_bn.check.suspects import (
    AFFINE,
    CENTRE,
    DIVIDE,
    EPS,
    PARENTHESES,
    differences,
    forward,
    same,
)
from gluon_bn.check.topics import compare, failure, say

NAMES = ("X", "mean", "var", "beta", "gamma", "eps")


def normalize(f):
    """Check f(X, mean, var, beta, gamma, eps) -> Y, in the order of `tf.nn.batch_normalization`.

    Arguments with these names may stand in any order; beta and gamma may be left out by
    a function f(X, mean, var, eps). X has shape (N, C) or (N, C, H, W), the others that of the
    statistics with the averaged axes kept, (1, C) or (1, C, 1, 1).

    Returns a `Report`, true when all is right.
    """
    report = Report("normalize")
    battery = {rank: probes.battery(rank, False) for rank in (4, 2)}
    try:
        student = PlainFunction(f, NAMES, optional=("beta", "gamma"))
        failures = student.settle([_case(b[0]) for b in battery.values()])
    except Failure as problem:
        return report.does_not_run(problem, probes.SHAPES[4])
    student.say_kind(report)
    if student.function.reordered:
        report.note("your arguments are in another order than "
                    f"({', '.join(NAMES)}), so they were passed by name")
    plain = _left_out(student)
    verdicts = {rank: _output(student, rank, [plain(s) for s in b], plain)
                for rank, b in battery.items()}
    say(report, "Y", verdicts)
    if all(v.ok for v in verdicts.values()):
        _gradient(report, student, plain(battery[4][0]))
    if student.extra:
        report.note("more than one value comes back; the first was taken for Y")
    rank = 4 if 0 not in failures else 2
    student.say_changed(report)
    student.say_types(report, _case(battery[rank][0]))
    return report


def _case(s):
    return {"X": s.X, "mean": s.column(s.moving_mean), "var": s.column(s.moving_var),
            "beta": s.column(s.beta), "gamma": s.column(s.gamma), "eps": s.eps}


def _left_out(student):
    """Situations as a function sees them that takes no gamma or no beta."""
    named = student.function.by_name
    gone = [n for n in ("gamma", "beta") if named is not None and n not in named]

    def plain(s):
        return s.but(**{n: getattr(s, n) * 0 + (n == "gamma") for n in gone})

    return plain


class _Plain:
    """What `compare` asks of a subject: to fit a situation to itself."""

    labels = False

    def __init__(self, plain):
        self.adapt = plain


def _output(student, rank, battery, plain):
    def run(s):
        return student.run(_case(plain(s))).values[0]

    try:
        run(battery[0])
    except Failure as problem:
        return failure(problem, f"With X of shape {battery[0].X.shape}")
    table = {"divide": [*(k for k in DIVIDE if k), PARENTHESES], "variance": ["std", "squared"],
             "affine": [k for k in AFFINE if k], "centre": [k for k in CENTRE if k],
             "eps": list(EPS), "source": ["the other", "the other mean", "the other variance",
                                          "swapped"]}
    said = compare(run, rank, False, [(s, run(s)) for s in battery], table,
                   ("X", "gamma", "beta", "moving_mean", "moving_var", "eps"), _Plain(plain))
    if said.faults and said.faults.get("source", "swapped") != "swapped":
        which = {"the other": "mean and variance", "the other mean": "mean",
                 "the other variance": "variance"}[said.faults["source"]]
        rest = {k: v for k, v in said.faults.items() if k != "source"}
        names, more = sentences.tell(rest, battery[0])
        said.names = ("arguments ignored", *names)
        said.why = (f"The {which} passed in have no effect: it computes its own from X. In "
                    "prediction they are given." + (f" And: {more}" if more else ""))
    if said.example:
        given = said.example.given
        said.example.given = {k.replace("moving_", ""): v for k, v in given.items()}
    return said


def _gradient(report, student, s):
    """One gradient is enough: the formula is right, so only a way that is cut can be found."""
    if student.kind == "numpy":
        return
    weigh = probes.exact(probes.ordinary(4, seed=3).X)
    named = student.function.by_name
    wrt = [n for n in ("X", "mean", "var", "beta", "gamma") if named is None or n in named]
    what = "gradients of all arguments"
    try:
        got = student.run(_case(s), wrt=wrt, weigh=[weigh]).gradients
    except Failure as problem:
        report.not_yet(what, f"Inside autograd.record() it fails: {problem}.", (problem.mistake,))
        return
    ours = {"mean": "moving_mean", "var": "moving_var"}
    cut = [n for n in wrt if not same(got[n], differences(
        lambda v, n=n: float((weigh * forward(s.but(**{ours.get(n, n): v}))).sum()),
        getattr(s, ours.get(n, n))), 1e-3)]
    if cut:
        report.not_yet(what, f"The gradient of {', '.join(cut)} is not that of the formula: "
                       "somewhere the way back is cut.", ("gradient cut",))
    else:
        report.ok(what)
