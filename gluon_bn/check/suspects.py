"""The right answer in float64 NumPy, and the same with deliberate mistakes: the suspects.

A recipe has slots: over which axes is averaged, what is taken for the variance, how it is divided,
and so on. `faults` names the slots that are wrong and how, `{"divide": "no epsilon"}`; an empty
dict is the right answer. What a student's function returns is compared with the right answer, then
with each single fault, then with each pair of faults in different slots. A diagnosis is therefore
evidence: these numbers are what one gets with this mistake.
"""

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np


@dataclass(frozen=True)
class Situation:
    """One call of a batch normalization. Arrays are NumPy float64; gamma, beta and the moving
    statistics are vectors (C,), and gamma and beta (K, C) where there are labels."""

    X: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray
    moving_mean: np.ndarray
    moving_var: np.ndarray
    eps: float = 0.1
    momentum: float = 0.7
    training: bool = True
    labels: np.ndarray = None

    def but(self, **changes):
        return replace(self, **changes)

    def column(self, vector):
        """A vector of one value per channel, laid out against X."""
        return vector.reshape((1, -1) + (1,) * (self.X.ndim - 2))


def channel_axes(ndim):
    return tuple(a for a in range(ndim) if a != 1)


# ------------------------------------------------------------------------------------- statistics

LAST = ("last axis", "last axis, var right")
VARIANCES = ("unbiased", "std", "squared", "sum", "over N", "mean of squares", "deviation",
             "around the moving mean", "averaged before squaring", "over N - 1", "over positions",
             "over C", "around everything", "less the mean")


def statistics(s, faults, X=None):
    """Mean and variance of the batch as these faults have them, with ones on the averaged axes."""
    X = s.X if X is None else X
    axes = faults.get("axes", channel_axes(X.ndim))
    if axes == "class":
        return class_statistics(s, faults, X)
    if axes in LAST:  # a vector (C,) that broadcasting lays along the last axis
        mean, var = statistics(s, {k: v for k, v in faults.items() if k != "axes"}, X)
        mean, var = mean.reshape(-1), var.reshape(-1)
        if axes == "last axis":  # in the variance too
            var = spread(X, mean, channel_axes(X.ndim), faults.get("variance"), s).reshape(-1)
        return mean, var
    mean = X.mean(axes, keepdims=True)
    if faults.get("mean") in ("sum", "over N"):
        mean = X.sum(axes, keepdims=True) / (1 if faults["mean"] == "sum" else len(X))
    elif "mean" in faults:
        mean = X.mean(faults["mean"], keepdims=True)
    return mean, spread(X, mean, faults.get("variance axes", axes), faults.get("variance"), s)


def spread(X, mean, axes, kind, s=None):
    """What stands for the variance."""
    n = int(np.prod([X.shape[a] for a in axes]))
    if kind == "mean of squares":
        return (X * X).mean(axes, keepdims=True)
    if kind == "deviation":
        return np.abs(X - mean).mean(axes, keepdims=True)
    if kind == "averaged before squaring":
        return (X - mean).mean(axes, keepdims=True) ** 2
    if kind == "less the mean":
        return (X * X).mean(axes, keepdims=True) - X.mean(axes, keepdims=True)
    if kind == "around the moving mean":
        mean = s.column(s.moving_mean)
    if kind == "around everything":
        mean = X.mean()
    var = ((X - mean) ** 2).mean(axes, keepdims=True)
    if kind == "std":
        return np.sqrt(var)
    return var * {"unbiased": n / max(n - 1, 1), "sum": n, "over N": n / len(X),
                  "over N - 1": n / max(len(X) - 1, 1), "squared": var,
                  "over C": n / X.shape[1],
                  "over positions": n / np.prod(X.shape[2:], initial=1)}.get(kind, 1)


def class_statistics(s, faults, X):
    """Each example by the statistics of the examples that share its label."""
    shape = X.shape[:2] + (1,) * (X.ndim - 2)
    mean, var = np.empty(shape), np.empty(shape)
    for label in set(s.labels.tolist()):
        here = s.labels == label
        m = X[here].mean(channel_axes(X.ndim), keepdims=True)
        mean[here] = m
        var[here] = spread(X[here], m, channel_axes(X.ndim), faults.get("variance"), s)
    return mean, var


# ------------------------------------------------------------------------------------ the formula

DIVIDE = {
    None: lambda d, v, e: d / np.sqrt(v + e),
    "no epsilon": lambda d, v, e: d / np.sqrt(v),
    "epsilon outside": lambda d, v, e: d / (np.sqrt(v) + e),
    "no root": lambda d, v, e: d / (v + e),
    "no root, no epsilon": lambda d, v, e: d / v,
    "epsilon squared": lambda d, v, e: d / np.sqrt(v + e * e),
    "root of epsilon added": lambda d, v, e: d / (np.sqrt(v) + np.sqrt(e)),
    "epsilon subtracted": lambda d, v, e: d / np.sqrt(v - e),
    "maximum": lambda d, v, e: d / np.sqrt(np.maximum(v, e)),
    "multiplied": lambda d, v, e: d * np.sqrt(v + e),
    "not divided": lambda d, v, e: d,
    "squared divisor": lambda d, v, e: d / (v + e) ** 2,
    "epsilon added after": lambda d, v, e: d / np.sqrt(v) + e,
    "epsilon twice": lambda d, v, e: d / np.sqrt(v + 2 * e),
    "epsilon inside and outside": lambda d, v, e: d / (np.sqrt(v + e) + e),
}
PARENTHESES = "only the mean divided"  # X - mean / std
CENTRE = {
    None: lambda x, m: x - m,
    "mean not subtracted": lambda x, m: x,
    "mean added": lambda x, m: x + m,
    "sign turned": lambda x, m: m - x,
}
AFFINE = {
    None: lambda x, g, b: g * x + b,
    "no gamma": lambda x, g, b: x + b,
    "no beta": lambda x, g, b: g * x,
    "no gamma, no beta": lambda x, g, b: x,
    "swapped": lambda x, g, b: b * x + g,
    "shifted, then scaled": lambda x, g, b: g * (x + b),
    "beta subtracted": lambda x, g, b: g * x - b,
    "divided by gamma": lambda x, g, b: x / g + b,
    "gamma added": lambda x, g, b: x + g + b,
    "one plus gamma": lambda x, g, b: (1 + g) * x + b,
    "gamma of the first channel": lambda x, g, b: g[:, :1] * x + b,
    "beta of the first channel": lambda x, g, b: g * x + b[:, :1],
    "both of the first channel": lambda x, g, b: g[:, :1] * x + b[:, :1],
    "gamma twice": lambda x, g, b: g * (g * x) + b,
    "gamma without its sign": lambda x, g, b: abs(g) * x + b,
    "beta twice": lambda x, g, b: g * x + 2 * b,
    "channels in reverse": lambda x, g, b: g[:, ::-1] * x + b[:, ::-1],
}
BEFORE = ("applied before", "gamma before", "beta before")  # scale or shift X, then normalize
EPS = (1e-5, 1e-12, 1e-3, 1e-8, 1e-6, 1e-4, 1e-2, 1.0)
SOURCES = ("the other", "the updated", "the other mean", "the other variance", "swapped")


def rows_right(g, labels):
    return g[labels]


# Which row of gamma and beta an example gets; the number of classes is len(g).
ROWS = {
    None: rows_right,
    "row 0 for all": lambda g, n: g[np.zeros_like(n)],
    "last row for all": lambda g, n: g[np.full_like(n, len(g) - 1)],
    "mean of the rows": lambda g, n: g.mean(0, keepdims=True)[np.zeros_like(n)],
    "sum of the rows": lambda g, n: g.sum(0, keepdims=True)[np.zeros_like(n)],
    "label + 1": lambda g, n: g[(n + 1) % len(g)],
    "label + 1, clipped": lambda g, n: g[np.minimum(n + 1, len(g) - 1)],
    "label - 1": lambda g, n: g[n - 1],
    "label - 1, clipped": lambda g, n: g[np.maximum(n - 1, 0)],
    "first label for all": lambda g, n: g[np.full_like(n, n[0])],
    "last label for all": lambda g, n: g[np.full_like(n, n[-1])],
    "position in the batch": lambda g, n: g[np.arange(len(n)) % len(g)],
    "classes in reverse": lambda g, n: g[len(g) - 1 - n],
    "labels sorted": lambda g, n: g[np.sort(n)],
    "batch in reverse": lambda g, n: g[n[::-1]],
    "clipped to the last but one": lambda g, n: g[np.minimum(n, len(g) - 2)],
}


def scale_and_shift(s, faults):
    """gamma and beta, laid out against X."""
    tail = (1,) * (s.X.ndim - 2)
    if s.labels is None:
        gamma, beta = s.gamma[None], s.beta[None]
    else:
        rows = ROWS[faults.get("rows")]
        part = faults.get("rows of", "both")
        gamma = (rows if part in ("both", "gamma") else rows_right)(s.gamma, s.labels)
        beta = (rows if part in ("both", "beta") else rows_right)(s.beta, s.labels)
    gamma, beta = gamma.reshape(gamma.shape + tail), beta.reshape(beta.shape + tail)
    if faults.get("affine") == "last axis":
        gamma, beta = gamma.reshape(-1), beta.reshape(-1)
    return gamma, beta


def forward(s, faults=(), X=None, mean_of=None, var_of=None):
    """Y, as these faults have it. `mean_of` and `var_of` are the X that the statistics are taken
    from where it is not X itself: for gradients that do not flow through them."""
    faults = dict(faults)
    X = s.X if X is None else X
    gamma, beta = scale_and_shift(s, faults)
    affine = faults.get("affine")
    if affine in BEFORE:
        if affine != "beta before":
            X, gamma = X * gamma, np.ones_like(gamma)
        if affine != "gamma before":
            X, beta = X + beta, np.zeros_like(beta)
    eps = faults.get("eps", s.eps)
    with np.errstate(all="ignore"):
        mean, var = chosen(s, faults, X, mean_of, var_of)
        d = CENTRE[faults.get("centre")](X, mean)
        if faults.get("divide") == PARENTHESES:
            x = X - mean / np.sqrt(var + eps)
        else:
            x = DIVIDE[faults.get("divide")](d, var, eps)
        y = AFFINE[affine if affine in AFFINE else None](x, gamma, beta)
        return np.broadcast_to(y, X.shape)


def chosen(s, faults, X, mean_of=None, var_of=None):
    """The mean and variance that X is normalized by: the batch's in training, else the moving."""
    batch_mean, batch_var = statistics(s, faults, X)
    if mean_of is not None:
        batch_mean = statistics(s, faults, mean_of)[0]
    if var_of is not None:
        batch_var = statistics(s, faults, var_of)[1]
    mean, var = s.column(s.moving_mean), s.column(s.moving_var)
    if faults.get("axes") in LAST:
        mean, var = s.moving_mean, s.moving_var
    if faults.get("variance") in ("std", "squared"):
        var = np.sqrt(var) if faults["variance"] == "std" else var ** 2
    source, training = faults.get("source"), s.training
    if source == "swapped":
        return (batch_var, batch_mean) if training else (var, mean)
    if source == "the updated":
        m = faults.get("momentum", s.momentum)
        return m * mean + (1 - m) * batch_mean, m * var + (1 - m) * batch_var
    mean_from_batch = training != (source in ("the other", "the other mean"))
    var_from_batch = training != (source in ("the other", "the other variance"))
    return batch_mean if mean_from_batch else mean, batch_var if var_from_batch else var


# ----------------------------------------------------------------------------------- who is there


def subsets(ndim):
    """Every way to choose axes, the right one left out and the likely ones first."""
    every = [c for k in range(1, ndim + 1) for c in combinations(range(ndim), k)]
    likely = [tuple(range(1, ndim)), tuple(range(2, ndim)), tuple(range(ndim)), (1,), (0,)]
    every.sort(key=lambda c: likely.index(c) if c in likely else len(likely))
    return [c for c in every if c != channel_axes(ndim)]


def slots(ndim, training, labels=False, square=False):
    """The wrong choices of each slot, the likely ones first."""
    table = {"axes": subsets(ndim) + (list(LAST) if square else []) +
             (["class"] if labels else []),
             "divide": [*(k for k in DIVIDE if k), PARENTHESES], "variance": list(VARIANCES),
             "affine": [k for k in AFFINE if k] + (["last axis"] if square else []),
             "source": list(SOURCES), "centre": [k for k in CENTRE if k], "eps": list(EPS)}
    table["mean"] = ["sum", "over N", *subsets(ndim)[:5]]
    table["variance axes"] = subsets(ndim)[:5]
    if not labels:  # in training, a beta before the normalization is as good as none
        table["affine"] += [k for k in BEFORE if not (training and k == "beta before")]
    if not training:
        table = {"source": table.pop("source"), **table}
    if labels:
        table["rows"] = [k for k in ROWS if k]
    return table


FEW = 8


def lineup(table):
    """Every single fault, then the likely ones (`FEW` in a slot) in pairs in different slots."""
    single = [{slot: choice} for slot, choices in table.items() for choice in choices]
    if "rows" in table:
        single += [{"rows": choice, "rows of": part} for choice in table["rows"]
                   for part in ("gamma", "beta")]
    yield from single
    plain = [{slot: choice} for slot, choices in table.items() for choice in choices[:FEW]]
    for one, other in combinations(plain, 2):
        if one.keys() != other.keys():
            yield {**one, **other}


# ----------------------------------------------------------------------------------------- matching


def same(got, want, digits=2e-5, floor=1e-3):
    """Equal as far as float32 can tell: to about five digits of the largest value, or of `floor`
    where all are smaller."""
    got, want = np.asarray(got, "float64"), np.asarray(want, "float64")
    if got.size != want.size:
        return False
    got = got.reshape(want.shape)
    finite = np.isfinite(want)
    if not (np.isfinite(got) == finite).all():
        return False
    if not finite.all() and not (np.isnan(got) == np.isnan(want)).all():
        return False
    scale = max(np.abs(want[finite]).max(initial=0), floor)
    return bool((np.abs(got[finite] - want[finite]) <= digits * scale).all())


def identify(evidence, candidates, answer=forward, digits=2e-5):
    """The first candidate that gives what was got in every situation; None if there is none.

    evidence: pairs (situation, what the student's code returned).
    """
    for faults in candidates:
        try:
            if all(same(got, answer(s, faults), digits) for s, got in evidence):
                return faults
        except (ValueError, IndexError):  # these faults do not fit these shapes
            continue
    return None


def differences(function, x, h=1e-5):
    """The gradient of the number function(x) by central differences, in float64."""
    x, gradient = np.array(x, dtype="float64"), np.zeros(np.shape(x))
    for i in np.ndindex(*x.shape):
        here = x[i]
        x[i] = here + h
        up = function(x)
        x[i] = here - h
        gradient[i] = (up - function(x)) / (2 * h)
        x[i] = here
    return gradient
