"""Exercise: the backward pass of batch normalization, derived by hand."""

import copy

import numpy as np
from mxnet import autograd

from gluon_bn.check import probes
from gluon_bn.check.calling import Failure
from gluon_bn.check.plain import PlainFunction
from gluon_bn.check.report import Example, Report
from gluon_bn.check.student import upstream
from gluon_bn.check.suspects import channel_axes, identify, lineup, same
from gluon_bn.check.topics import EVIDENCE, UNKNOWN, hint

NAMES = ("dY", "X", "gamma", "eps")


def batch_norm_backward(f):
    """Check f(dY, X, gamma, eps) -> (dX, dgamma, dbeta): the gradients of a loss with respect to
    the inputs of batch norm in training, from its gradient dY with respect to the output.

    A function with these names may also ask for beta, and for the mean and var of the batch. An
    `autograd.Function` (class or instance) works too: made with eps, or with nothing and then of
    epsilon 1e-5, called with (X, gamma, beta). dgamma and dbeta are one value per channel.

    Returns a `Report`, true when all is right.
    """
    report = Report("batch_norm_backward")
    cases = [s for rank in (4, 2) for s in probes.battery(rank, True)[:2]]
    try:
        f, cases = _as_function(f, cases)
        student = PlainFunction(f, NAMES, count=3, extra=("beta", "mean", "var"))
        failures = student.settle([_case(s) for s in cases])
    except Failure as problem:
        return report.does_not_run(problem, probes.SHAPES[4])
    student.say_kind(report)
    for rank in {cases[i].X.ndim for i in failures}:
        i = next(i for i in failures if cases[i].X.ndim == rank)
        report.not_yet(f"X of rank {rank}", f"With X of shape {cases[i].X.shape} it fails: "
                       f"{failures[i]}.", (f"only rank {6 - rank} works",))
    evidence = [(s, student.run(_case(s)).values) for i, s in enumerate(cases) if i not in failures]
    evidence = [(s, _in_order(s, values)) for s, values in evidence]
    if any(order for _, (_, order) in evidence):
        report.not_yet("the order of what is returned", "dX comes first, then dgamma and dbeta; "
                       "yours come in another order.", ("return order",))
    evidence = [(s, values) for s, (values, _) in evidence]
    if _gradients_swapped(evidence):
        report.not_yet("the order of what is returned", "dgamma and dbeta come back in each "
                       "other's place. (To five digits, each is the other.)",
                       ("dgamma and dbeta swapped",))
        evidence = [(s, [v[0], v[2], v[1]]) for s, v in evidence]
    for name, i in (("dbeta", 2), ("dgamma", 1), ("dX", 0)):
        _line(report, student, name, i, evidence)
    student.say_changed(report)
    student.say_types(report, _case(evidence[0][0]))
    return report


def _case(s):
    axes = channel_axes(s.X.ndim)
    return {"dY": upstream(s), "X": s.X, "gamma": s.column(s.gamma), "eps": s.eps,
            "beta": s.column(s.beta), "mean": s.X.mean(axes, keepdims=True),
            "var": s.X.var(axes, keepdims=True)}


def _as_function(f, cases):
    """An `autograd.Function` as a function of (dY, X, gamma, eps)."""
    is_class = isinstance(f, type) and issubclass(f, autograd.Function)
    if not is_class and not isinstance(f, autograd.Function):
        return f, cases
    takes_eps = is_class and f.__init__ is not autograd.Function.__init__

    def make(eps):
        if not is_class:  # MXNet lets one instance be called only once
            again = copy.copy(f)
            again._used = False
            return again
        try:
            return f(eps) if takes_eps else f()
        except TypeError:
            return f()

    def called(dY, X, gamma, eps, beta):
        X, gamma, beta = X.copy(), gamma.copy(), beta.copy()
        for array in (X, gamma, beta):
            array.attach_grad()
        with autograd.record():
            Y = make(eps)(X, gamma, beta)
            Y = Y[0] if isinstance(Y, (tuple, list)) else Y
        Y.backward(dY)
        return X.grad, gamma.grad, beta.grad

    eps = None if takes_eps else getattr(f, "eps", getattr(f, "epsilon", 1e-5))
    return called, [s if eps is None else s.but(eps=float(eps)) for s in cases]


def _in_order(s, values):
    """dX where it is expected, and whether it had to be moved there."""
    if values[0].size == s.X.size:
        return values, False
    big = [i for i in (1, 2) if values[i].size == s.X.size]
    if len(big) != 1:
        return values, False
    return [values[big[0]], *(v for i, v in enumerate(values) if i != big[0])], True


def _gradients_swapped(evidence):
    return all(same(v[1], _answer("dbeta")(s)) and same(v[2], _answer("dgamma")(s))
               for s, v in evidence)


# -------------------------------------------------------------------------- right and suspect

# dX = gamma / std * (dY - a mean(dY) - b x_hat mean(dY x_hat)); right is a = b = 1. Each choice
# gives the factor from m, the number of values, and the variance plus epsilon.
MEAN_TERM = {"missing": lambda m, v: 0, "sign": lambda m, v: -1, "not divided by m": lambda m, v: m,
             "twice": lambda m, v: 2, "divided twice": lambda m, v: 1 / m}
VAR_TERM = {"missing": lambda m, v: 0, "sign": lambda m, v: -1, "not divided by m": lambda m, v: m,
            "half": lambda m, v: 0.5, "twice": lambda m, v: 2, "minus twice": lambda m, v: -2,
            "half, not divided by m": lambda m, v: m / 2, "power -1/2": lambda m, v: v,
            "power -1": lambda m, v: np.sqrt(v), "power -2": lambda m, v: 1 / np.sqrt(v),
            "power -5/2": lambda m, v: 1 / v, "divided twice": lambda m, v: 1 / m}
OUTER = {"no gamma": lambda g, v: 1 / np.sqrt(v), "gamma twice": lambda g, v: g * g / np.sqrt(v),
         "divided by gamma": lambda g, v: 1 / g / np.sqrt(v), "not divided": lambda g, v: g + 0 * v,
         "divided by the variance": lambda g, v: g / v, "multiplied": lambda g, v: g * np.sqrt(v),
         "sign": lambda g, v: -g / np.sqrt(v)}
DGAMMA = {"X": lambda d, x, X, c: d * X, "X - mean": lambda d, x, X, c: d * c,
          "dbeta": lambda d, x, X, c: d, "sign": lambda d, x, X, c: -d * x,
          "x_hat alone": lambda d, x, X, c: x}


def _answer(name):
    """The gradient `name` as a function of a situation and faults."""

    def answer(s, faults=()):
        faults, d, X, axes = dict(faults), upstream(s), s.X, channel_axes(s.X.ndim)
        gamma, m = s.column(s.gamma), X.size // X.shape[1]
        centred = X - X.mean(axes, keepdims=True)
        var = (centred ** 2).mean(axes, keepdims=True)
        if faults.get("variance") == "unbiased":
            var = var * m / (m - 1)
        eps = faults.get("eps", s.eps)
        v = {"no epsilon": var, "epsilon outside": (np.sqrt(var) + eps) ** 2}.get(
            faults.get("divide"), var + eps)
        x = centred / np.sqrt(v)
        how = np.mean if faults.get("sum") == "averaged" else np.sum
        if name == "dbeta":
            term = d * gamma if faults.get("what") == "times gamma" else d
            return how(-term if faults.get("what") == "sign" else term, axes)
        if name == "dgamma":
            term = DGAMMA[faults["what"]](d, x, X, centred) if "what" in faults else d * x
            return how(term * gamma if faults.get("times") else term, axes)
        a = MEAN_TERM[faults["mean term"]](m, v) if "mean term" in faults else 1
        b = VAR_TERM[faults["variance term"]](m, v) if "variance term" in faults else 1
        outer = OUTER[faults["outer"]](gamma, v) if "outer" in faults else gamma / np.sqrt(v)
        return outer * (d - a * d.mean(axes, keepdims=True)
                        - b * x * (d * x).mean(axes, keepdims=True))

    return answer


EPSILON = {"divide": ["no epsilon", "epsilon outside"], "eps": [1e-5, 1e-12, 1e-3, 1e-8],
           "variance": ["unbiased"]}
TABLES = {
    "dX": {"mean term": list(MEAN_TERM), "variance term": list(VAR_TERM), "outer": list(OUTER),
           **EPSILON},
    "dgamma": {"what": list(DGAMMA), "sum": ["averaged"], "times": ["gamma"], **EPSILON},
    "dbeta": {"what": ["times gamma", "sign"], "sum": ["averaged"]},
}
SAID = {
    ("mean term", "missing"): ("gradient not through the mean", "The way through the mean is "
                               "missing: every x moves the mean, and the mean moves every y."),
    ("mean term", "sign"): ("sign of the mean term", "The part that comes through the mean has the "
                            "wrong sign."),
    ("mean term", "not divided by m"): ("mean term not divided by m", "The part that comes through "
                                        "the mean is m times too large: one x moves the mean by "
                                        "1/m."),
    ("variance term", "missing"): ("gradient not through the variance", "The way through the "
                                   "variance is missing: every x moves the variance, and the "
                                   "variance scales every y."),
    ("variance term", "sign"): ("sign of the variance term", "The part that comes through the "
                                "variance has the wrong sign. It is a power of a negative "
                                "exponent that is differentiated."),
    ("variance term", "not divided by m"): ("variance term not divided by m", "The part that comes "
                                            "through the variance is m times too large: the "
                                            "variance is a mean of m squares."),
    ("outer", "no gamma"): ("no gamma", "gamma is missing in dX. It stands between Y and the "
                            "normalized values, so the gradient passes it on the way back."),
    ("outer", "gamma twice"): ("gamma twice", "gamma is multiplied into dX twice."),
    ("outer", "divided by gamma"): ("divided by gamma", "dX is divided by gamma; it is multiplied, "
                                    "on the way back as on the way there."),
    ("outer", "not divided"): ("not divided by the deviation", "dX lacks a division by the "
                               "standard deviation."),
    ("outer", "divided by the variance"): ("divided by the variance", "dX is divided by variance "
                                           "plus epsilon; by its root, once, would be right."),
    ("outer", "multiplied"): ("multiplied by the deviation", "dX is multiplied by the standard "
                              "deviation where it is divided by it."),
    ("outer", "sign"): ("sign turned", "Every sign of dX is turned round."),
    ("divide", "no epsilon"): ("no epsilon", "There is no epsilon in it: forward and backward "
                               "divide by the same number."),
    ("divide", "epsilon outside"): ("epsilon outside the root", "Epsilon is added outside the "
                                    "root; it stands beside the variance."),
    ("variance", "unbiased"): ("unbiased variance", "The variance is divided by m - 1; the forward "
                               "pass divides by m, so the backward pass does."),
    ("what", "X"): ("X for x_hat", "dgamma takes X itself where gamma multiplies the normalized "
                    "values."),
    ("what", "X - mean"): ("X - mean for x_hat", "dgamma takes X - mean where gamma multiplies the "
                           "normalized values: the division is missing."),
    ("what", "dbeta"): ("dbeta for dgamma", "dgamma is the sum of dY: that is dbeta. gamma "
                        "multiplies the normalized values, and they appear in its gradient."),
    ("what", "sign"): ("sign turned", "The sign is turned round."),
    ("what", "x_hat alone"): ("dY missing", "dY does not take part in dgamma."),
    ("what", "times gamma"): ("gamma too many", "gamma does not take part in dbeta."),
    ("times", "gamma"): ("gamma too many", "gamma itself does not take part in dgamma."),
    ("sum", "averaged"): ("mean for the sum", "It is averaged over the batch. One parameter serves "
                          "every value of its channel, so their gradients add up."),
}


def _tell(faults):
    if faults == {"mean term": "missing", "variance term": "missing"}:
        return ("gradient not through mean and variance",), (
            "Mean and variance are treated as constants. Both were computed from X, and the "
            "gradient has to come back through both.")
    names, said = [], []
    for slot, choice in faults.items():
        if slot == "eps":
            name, text = "epsilon hard-coded", f"Epsilon is {choice:g} whatever is passed."
        elif (slot, choice) in SAID:
            name, text = SAID[slot, choice]
        else:
            way = "mean" if slot == "mean term" else "variance"
            name, text = f"{way} term", (
                f"The part that comes through the {way} has a wrong factor "
                f"({choice.replace('power', 'the power of variance plus epsilon:')}). Derive it "
                "once more, step by step.")
        names.append(name)
        said.append(text)
    return tuple(names), " And: ".join(said)


def _line(report, student, name, i, evidence):
    answer = _answer(name)
    got = [(s, values[i]) for s, values in evidence]
    if all(same(g, answer(s), 5e-5) for s, g in got):
        report.ok(name)
        return
    if name != "dX" and any(g.size != s.X.shape[1] for s, g in got):
        shapes = ", ".join(f"{g.shape} for X of shape {s.X.shape}" for s, g in got[::2])
        report.not_yet(name, f"It is of shape {shapes}. There is one {name[1:]} for each channel: "
                       "the gradients of all places where it takes part are added up.",
                       ("not summed over the batch",))
        return
    faults = identify(got, lineup(TABLES[name]), answer, 5e-5)
    example = _example(student, answer, i, name, got[0][0])
    if faults is None:
        report.not_yet(name, hint(got, answer) + UNKNOWN, ("difference",), example)
    else:
        names, why = _tell(faults)
        report.not_yet(name, why + EVIDENCE, names, example)


def _example(student, answer, i, name, last):
    for s in [*probes.small(2, True), *probes.small(4, True), last]:
        try:
            values, _ = _in_order(s, student.run(_case(s)).values)
        except Failure:
            continue
        want, came = answer(s), values[i]
        if not same(came, want, 5e-5):
            shown = {"dY": upstream(s).round(4), "X": s.X, "gamma": s.gamma, "eps": s.eps}
            return Example(shown, want, came.reshape(want.shape) if came.size == want.size
                           else came, name)
    return None
