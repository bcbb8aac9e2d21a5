"""Exercise: the mean and the variance over some axes."""

import numpy as np

from gluon_bn.check import probes
from gluon_bn.check.calling import Failure
from gluon_bn.check.plain import PlainFunction
from gluon_bn.check.report import Example, Report
from gluon_bn.check.sentences import SAYINGS, axes_kind, axes_named
from gluon_bn.check.suspects import (
    VARIANCES,
    channel_axes,
    differences,
    identify,
    lineup,
    same,
    spread,
    subsets,
)
from gluon_bn.check.topics import EVIDENCE, NP_VAR, UNKNOWN, hint


def moments(f):
    """Check f(X, axis) -> (mean, var), as `gluon_bn.moments`; f(X) takes the axes of batch norm,
    all but 1. The averaged axes may be left out of the results or kept as ones.

    Returns a `Report`, true when all is right.
    """
    report = Report("moments")
    try:
        student = PlainFunction(f, ("X", "axis"), count=2, optional=("axis",))
        named = student.function.by_name
        alone = named is not None and "axis" not in named
        cases = _cases(alone)
        failures = student.settle(cases)
    except Failure as problem:
        return report.does_not_run(problem, probes.SHAPES[4])
    student.say_kind(report)
    for i, problem in failures.items():
        report.not_yet(f"X of shape {cases[i]['X'].shape}, axis {cases[i]['axis']}",
                       f"It fails: {problem}.", (problem.mistake,))
    evidence = [(c, student.run(c)) for i, c in enumerate(cases) if i not in failures]
    right = _values(report, student, evidence, alone)
    if right:
        _gradient(report, student, cases[0])
    student.say_changed(report)
    student.say_types(report, evidence[0][0])
    if right:
        _precision(report, student, evidence[0][0]["axis"])
    return report


def _cases(alone):
    """Inputs; a function without `axis` is asked for one value per channel."""
    X4, X2 = probes.ordinary(4).X, probes.ordinary(2).X
    little = probes.exact(probes.ordinary(4, seed=1).X / 128)  # an epsilon shows there
    chosen = [(X4, (0, 2, 3)), (X2, (0,)), (little, (0, 2, 3))]
    if not alone:
        chosen += [(X4, (2, 3)), (X4, (1,))]
    return [{"X": X, "axis": axes} for X, axes in chosen]


# ------------------------------------------------------------------------------ right and suspect


def _pick(axes, ndim, fault):
    """The axes that are averaged over under a fault."""
    if fault is None:
        return axes
    if fault == "all but these":
        return tuple(a for a in range(ndim) if a not in axes) or axes
    if fault == "every axis":
        return tuple(range(ndim))
    if fault == "first only":
        return axes[:1]
    if fault == "last only":
        return axes[-1:]
    if fault == "all but the channels":
        return channel_axes(ndim)
    return tuple(a for a in fault if a < ndim)


AXES = ("all but these", "every axis", "all but the channels", "first only", "last only")
AXES_SAID = {
    "all but these": ("wrong axes: the complement", "The axes that are passed are kept and the "
                      "others averaged away. It is the ones that are passed that go."),
    "every axis": ("wrong axes: everything", "It averages over every axis at once. Only those "
                   "that are passed are averaged away."),
    "all but the channels": ("axis ignored", "It averages over all axes but 1, whatever is passed. "
                             "Use the argument."),
    "first only": ("wrong axes: the first only", "Only the first of the axes is averaged over."),
    "last only": ("wrong axes: the last only", "Only the last of the axes is averaged over."),
}


def _answer(case, faults=(), which="both"):
    """Mean and variance one after the other in one vector, as these faults have them."""
    faults, X = dict(faults), case["X"]
    axes = _pick(case["axis"], X.ndim, faults.get("axes"))
    n = np.prod([X.shape[a] for a in axes])
    mean = X.mean(axes, keepdims=True)
    around = mean
    if "mean" in faults:
        mean = mean * n / (1 if "sum" in faults["mean"] else len(X))
        around = around if "alone" in faults["mean"] else mean
    var = spread(X, around, axes, faults.get("variance")) + faults.get("eps", 0)
    pair = [mean.ravel(), var.ravel()]
    if faults.get("order"):
        pair = pair[::-1]
    return {"both": np.concatenate(pair), "mean": pair[0], "var": pair[1]}[which]


def _values(report, student, evidence, alone):
    what = "mean and variance"
    pairs = [(c, np.concatenate([r.values[0].ravel(), r.values[1].ravel()])) for c, r in evidence]
    wrong = next(((c, r) for c, r in evidence if not _fits(c, r)), None)
    if wrong is None:
        report.ok("mean")
        report.ok("variance")
        return True
    for i in (0, 1):
        if all(_fits(c, r, i) for c, r in evidence):
            report.ok("mean" if i == 0 else "variance")
            what = "variance" if i == 0 else "mean"
    fixed = [a for a in subsets(4) if len(a) < 4]
    table = {"axes": [*AXES, *fixed], "order": ["swapped"],
             "variance": [v for v in VARIANCES if "moving" not in v],
             "mean": ["sum", "over N", "sum alone", "over N alone"],
             "eps": [1e-5, 1e-3, 1e-6, 1e-8, 1e-2]}
    faults = identify(pairs, lineup(table), _answer)
    example = _example(student, wrong[0], alone)
    many = next(((c, r) for c, r in evidence if r.values[0].size != _answer(c, which="mean").size),
                None)
    if faults is None and many:
        (c, r), want = many, _answer(many[0], which="mean").size
        report.not_yet("the shape of mean and variance", f"For X of shape {c['X'].shape} and axis "
                       f"{c['axis']} there is one mean and one variance for each of {want} groups "
                       f"of values; the mean comes back with shape {r.shapes[0]}.",
                       ("shape changed",))
        return False
    if faults is None:
        which = {"mean": 0, "variance": 1}.get(what)
        told = hint(pairs, _answer) if which is None else hint(
            [(c, r.values[which]) for c, r in evidence],
            lambda c: _answer(c, which=("mean", "var")[which]))
        report.not_yet(what, told + UNKNOWN, ("difference",), example)
        return False
    names, said = _tell(faults, wrong[0])
    report.not_yet(what, " And: ".join(said) + EVIDENCE, names, example)
    return False


def _fits(case, result, only=None):
    """Values, and a shape that is X's without the axes, or with ones there."""
    X, axes = case["X"], case["axis"]
    kept = tuple(n for a, n in enumerate(X.shape) if a not in axes)
    for i, which in enumerate(("mean", "var")):
        if only is not None and i != only:
            continue
        squeezed = tuple(n for n in result.shapes[i] if n != 1)
        if squeezed != kept or not same(result.values[i], _answer(case, which=which)):
            return False
    return True


def _tell(faults, case):
    names, said = [], []
    axes, X = case["axis"], case["X"]
    m = int(np.prod([X.shape[a] for a in axes]))
    for slot, choice in faults.items():
        if slot == "axes" and choice in AXES_SAID:
            name, text = AXES_SAID[choice]
        elif slot == "axes":
            name = axes_kind(choice, 4)
            text = (f"It averages {axes_named(choice, 4)}, whatever is passed. The axes that are "
                    "passed are the ones to be averaged away.")
        elif slot == "order":
            name, text = "mean and variance swapped", ("The variance comes back first and the mean "
                                                       "second; it is to be the other way round.")
        elif slot == "eps":
            name, text = "epsilon in the variance", (
                f"{choice:g} is added to the variance. Epsilon belongs to the division that comes "
                "later; the variance stays as it is.")
        elif slot == "mean" and "over N" in choice:
            name, text = "divided by N", (
                "For the mean, the sum is divided by the length of the first axis, but "
                f"{m} values were summed.")
        elif slot == "mean":
            name, text = "sum for the mean", ("The values are summed, not averaged: the division "
                                              f"by their number, {m}, is missing.")
        else:
            name, text = SAYINGS["variance", choice]
            text = text.replace("Batch norm divides", "The biased variance divides")
        names.append(name)
        said.append(text.format(m=m, m1=m - 1))
    return names, said


def _example(student, case, alone):
    """The smallest X that shows it."""
    ndim = case["X"].ndim
    for shape in (*probes.SMALL[ndim], None):
        n = int(np.prod(shape)) if shape else 0
        small = {"X": np.array(probes.NUMBERS[:n], "float64").reshape(shape) if shape
                 else case["X"], "axis": case["axis"]}
        try:
            result = student.run(small)
        except Failure:
            continue
        for i, which in enumerate(("mean", "var")):
            want = _answer(small, which=which)
            if not same(result.values[i], want):
                given = {"X": small["X"]} if alone else {"X": small["X"],
                                                         "axis": str(small["axis"])}
                return Example(given, want, result.values[i], which)
    return None


# ------------------------------------------------------------------------------------ other lines


def _gradient(report, student, case):
    if student.kind == "numpy":
        return
    what = "gradients flow through both"
    shape = _answer(case, which="mean").shape
    weigh = [np.linspace(0.5, 1.5, shape[0]), np.linspace(-1.0, 2.0, shape[0])]
    try:
        got = student.run(case, wrt=("X",), weigh=weigh).gradients["X"]
    except Failure as problem:
        report.not_yet(what, f"Inside autograd.record() it fails: {problem}.", (problem.mistake,))
        return

    def total(X):
        pair = _answer({**case, "X": X})
        return float(np.concatenate(weigh) @ pair)

    if same(got, differences(total, case["X"]), 1e-4):
        report.ok(what)
    else:
        report.not_yet(what, "The gradient of mean and variance with respect to X is not theirs: "
                       "somewhere the way back to X is cut." + (NP_VAR if student.kind == "np"
                                                                    else ""), ("gradient cut",))


def _precision(report, student, axes):
    what = "values around 10,000 with a spread of 1"
    case = {"X": probes.far_from_zero(4).X, "axis": (0, 2, 3)}
    try:
        got = student.run(case).values[1].ravel()
    except Failure as problem:
        report.not_yet(what, f"It fails: {problem}.", (problem.mistake,))
        return
    want = _answer(case, which="var")
    if same(got, want, 0.05):
        report.ok(what)
    else:
        report.not_yet(what, "The variance is right for ordinary inputs but loses its digits here. "
                       "A difference of two large and nearly equal numbers does that, as in "
                       "E[x^2] - E[x]^2: take the mean away before squaring.", ("cancellation",),
                       Example({"X": f"values around 10,000, shape {case['X'].shape}"}, want, got,
                               "var"))
