"""The backward pass with deliberate mistakes, and what is said of each; see `suspects`."""

import numpy as np

from gluon_bn.check.sentences import axes_kind, axes_named
from gluon_bn.check.student import upstream
from gluon_bn.check.suspects import channel_axes

# dX = gamma / std * (c dY - a mean(dY) - b x_hat mean(dY x_hat)); right is a = b = c = 1. Each
# choice gives the factor from m, the number of values, v, the variance plus epsilon, and gamma.
FIRST_TERM = {"missing": lambda m, v, g: 0, "not divided": lambda m, v, g: np.sqrt(v),
              "divided by m": lambda m, v, g: 1 / m, "no gamma": lambda m, v, g: 1 / g}
MEAN_TERM = {"missing": lambda m, v, g: 0, "sign": lambda m, v, g: -1,
             "not divided by m": lambda m, v, g: m, "no gamma": lambda m, v, g: 1 / g,
             "not divided": lambda m, v, g: np.sqrt(v), "twice": lambda m, v, g: 2,
             "divided twice": lambda m, v, g: 1 / m, "gamma twice": lambda m, v, g: g}
VAR_TERM = {"missing": lambda m, v, g: 0, "sign": lambda m, v, g: -1,
            "not divided by m": lambda m, v, g: m, "half": lambda m, v, g: 0.5,
            "no gamma": lambda m, v, g: 1 / g, "twice": lambda m, v, g: 2,
            "minus twice": lambda m, v, g: -2, "half, not divided by m": lambda m, v, g: m / 2,
            "power -1/2": lambda m, v, g: v, "power -1": lambda m, v, g: np.sqrt(v),
            "power -2": lambda m, v, g: 1 / np.sqrt(v), "power -5/2": lambda m, v, g: 1 / v,
            "power 3/2": lambda m, v, g: v ** 3, "divided twice": lambda m, v, g: 1 / m,
            "gamma twice": lambda m, v, g: g}
OUTER = {"no gamma": lambda m, v, g: 1 / np.sqrt(v),
         "gamma twice": lambda m, v, g: g * g / np.sqrt(v),
         "divided by gamma": lambda m, v, g: 1 / g / np.sqrt(v),
         "not divided": lambda m, v, g: g + 0 * v, "divided by the variance": lambda m, v, g: g / v,
         "multiplied": lambda m, v, g: g * np.sqrt(v), "sign": lambda m, v, g: -g / np.sqrt(v),
         "divided by m": lambda m, v, g: g / np.sqrt(v) / m,
         "times m": lambda m, v, g: g / np.sqrt(v) * m}
# What stands for m in the two means of dX.
COUNT = {"examples": lambda X: len(X), "positions": lambda X: X.size // (len(X) * X.shape[1]),
         "all values": lambda X: X.size, "one less": lambda X: X.size // X.shape[1] - 1}
UNCENTRED = ("in the sum", "outside", "in both")  # X / std where x_hat belongs
AXES = ((0,), (2, 3), (1, 2, 3), (0, 1, 2, 3), (1,))
DGAMMA = {"X": lambda d, x, X, c: d * X, "X - mean": lambda d, x, X, c: d * c,
          "dbeta": lambda d, x, X, c: d, "sign": lambda d, x, X, c: -d * x,
          "x_hat alone": lambda d, x, X, c: x}


def right(name):
    """The gradient `name` as a function of a situation and faults."""

    def answer(s, faults=()):
        faults, d, X = dict(faults), upstream(s), s.X
        axes = tuple(a for a in faults.get("axes", ()) if a < X.ndim) or channel_axes(X.ndim)
        gamma, m = s.column(s.gamma), int(np.prod([X.shape[a] for a in axes]))
        centred = X - X.mean(axes, keepdims=True)
        var = (centred ** 2).mean(axes, keepdims=True)
        if "variance" in faults:
            var = {"unbiased": var * m / max(m - 1, 1), "std": np.sqrt(var),
                   "mean of squares": (X ** 2).mean(axes, keepdims=True)}[faults["variance"]]
        eps = faults.get("eps", s.eps)
        v = {"no epsilon": var, "epsilon outside": (np.sqrt(var) + eps) ** 2,
             "no root": (var + eps) ** 2}.get(faults.get("divide"), var + eps)
        x = centred / np.sqrt(v)
        how = np.mean if faults.get("sum") == "averaged" else np.sum
        if name == "dbeta":
            term = d * gamma if faults.get("what") == "times gamma" else d
            return how(-term if faults.get("what") == "sign" else term, axes)
        if name == "dgamma":
            term = DGAMMA[faults["what"]](d, x, X, centred) if "what" in faults else d * x
            return how(term * gamma if faults.get("times") else term, axes)

        def factor(slot, table):
            return table[faults[slot]](m, v, gamma) if slot in faults else 1

        a, b = factor("mean term", MEAN_TERM), factor("variance term", VAR_TERM)
        if "count" in faults:
            kind, term = faults["count"]
            wrong = m / COUNT[kind](X)
            a, b = a * (wrong if term != "variance" else 1), b * (wrong if term != "mean" else 1)
        plain = X / np.sqrt(v)
        inside = plain if faults.get("uncentred") in ("in the sum", "in both") else x
        outside = plain if faults.get("uncentred") in ("outside", "in both") else x
        outer = factor("outer", OUTER) if "outer" in faults else gamma / np.sqrt(v)
        return outer * (factor("first term", FIRST_TERM) * d - a * d.mean(axes, keepdims=True)
                        - b * outside * (d * inside).mean(axes, keepdims=True))

    return answer


EPSILON = {"divide": ["no epsilon", "epsilon outside", "no root"], "eps": [1e-5, 1e-12, 1e-3, 1e-8],
           "variance": ["unbiased", "std", "mean of squares"]}
TABLES = {
    "dX": {"mean term": list(MEAN_TERM), "variance term": list(VAR_TERM), "outer": list(OUTER),
           "first term": list(FIRST_TERM), **EPSILON,
           "count": [(kind, term) for kind in COUNT for term in ("both", "mean", "variance")],
           "uncentred": list(UNCENTRED), "axes": list(AXES)},
    "dgamma": {"what": list(DGAMMA), "sum": ["averaged"], "times": ["gamma"], **EPSILON},
    "dbeta": {"what": ["times gamma", "sign"], "sum": ["averaged"]},
}
COUNT_SAID = {"examples": "The number of examples", "positions": "The number of positions, H W,",
              "all values": "The number of all values of X, channels and all,",
              "one less": "A number one less than m"}
# (slot, choice) -> (name of the mistake, sentence).
SAID = {
    ("mean term", "missing"): ("gradient not through the mean",
        "The way through the mean is missing: every x moves the mean, and the mean moves "
        "every y."),
    ("mean term", "sign"): ("sign of the mean term",
        "The part that comes through the mean has the wrong sign."),
    ("mean term", "not divided by m"): ("mean term not divided by m",
        "The part that comes through the mean is m times too large: one x moves the mean by "
        "1/m."),
    ("variance term", "missing"): ("gradient not through the variance",
        "The way through the variance is missing: every x moves the variance, and the "
        "variance scales every y."),
    ("variance term", "sign"): ("sign of the variance term",
        "The part that comes through the variance has the wrong sign. It is a power of a "
        "negative exponent that is differentiated."),
    ("variance term", "not divided by m"): ("variance term not divided by m",
        "The part that comes through the variance is m times too large: the variance is a "
        "mean of m squares."),
    ("first term", "missing"): ("direct way missing",
        "The direct way is missing: x is also used in the normalized value itself, beside "
        "mean and variance."),
    ("first term", "not divided"): ("not divided by the deviation",
        "The part that comes straight from the normalized value lacks a division by the "
        "standard deviation."),
    ("first term", "divided by m"): ("direct way divided by m",
        "The part that comes straight from the normalized value is divided by m. Each y has "
        "one x of its own: nothing is averaged on that way."),
    ("first term", "no gamma"): ("no gamma",
        "gamma is missing in the part that comes straight from the normalized value."),
    ("mean term", "no gamma"): ("no gamma",
        "gamma is missing in the part that comes through the mean."),
    ("variance term", "no gamma"): ("no gamma",
        "gamma is missing in the part that comes through the variance."),
    ("mean term", "gamma twice"): ("gamma twice",
        "gamma is multiplied twice into the part that comes through the mean."),
    ("variance term", "gamma twice"): ("gamma twice",
        "gamma is multiplied twice into the part that comes through the variance."),
    ("mean term", "not divided"): ("not divided by the deviation",
        "The part that comes through the mean lacks a division by the standard deviation."),
    ("outer", "divided by m"): ("divided by m",
        "All of dX is divided by m. Only the parts that come through mean and variance are."),
    ("outer", "times m"): ("times m",
        "All of dX is m times too large."),
    ("uncentred", "in the sum"): ("X for X - mean",
        "In the part that comes through the variance, the sum takes X where its distance from "
        "the mean belongs."),
    ("uncentred", "outside"): ("X for X - mean",
        "What the gradient of the variance is multiplied with is taken from X; it is the "
        "distance of X from its mean."),
    ("uncentred", "in both"): ("X for X - mean",
        "The part that comes through the variance takes X where its distance from the mean "
        "belongs."),
    ("outer", "no gamma"): ("no gamma",
        "gamma is missing in dX. It stands between Y and the normalized values, so the "
        "gradient passes it on the way back."),
    ("outer", "gamma twice"): ("gamma twice",
        "gamma is multiplied into dX twice."),
    ("outer", "divided by gamma"): ("divided by gamma",
        "dX is divided by gamma; it is multiplied, on the way back as on the way there."),
    ("outer", "not divided"): ("not divided by the deviation",
        "dX lacks a division by the standard deviation."),
    ("outer", "divided by the variance"): ("divided by the variance",
        "dX is divided by variance plus epsilon; by its root, once, would be right."),
    ("outer", "multiplied"): ("multiplied by the deviation",
        "dX is multiplied by the standard deviation where it is divided by it."),
    ("outer", "sign"): ("sign turned",
        "Every sign of dX is turned round."),
    ("divide", "no epsilon"): ("no epsilon",
        "There is no epsilon in it: forward and backward divide by the same number."),
    ("divide", "epsilon outside"): ("epsilon outside the root",
        "Epsilon is added outside the root; it stands beside the variance."),
    ("divide", "no root"): ("no root",
        "What stands for the standard deviation is the variance (plus epsilon) itself: the "
        "root is missing."),
    ("variance", "std"): ("std for the variance",
        "The standard deviation stands where the variance belongs: one root too many."),
    ("variance", "mean of squares"): ("mean not subtracted in the variance",
        "The variance is the mean of the squares of X; the mean is not taken away."),
    ("variance", "unbiased"): ("unbiased variance",
        "The variance is divided by m - 1; the forward pass divides by m, so the backward "
        "pass does."),
    ("what", "X"): ("X for x_hat",
        "dgamma takes X itself where gamma multiplies the normalized values."),
    ("what", "X - mean"): ("X - mean for x_hat",
        "dgamma takes X - mean where gamma multiplies the normalized values: the division is "
        "missing."),
    ("what", "dbeta"): ("dbeta for dgamma",
        "dgamma is the sum of dY: that is dbeta. gamma multiplies the normalized values, and "
        "they appear in its gradient."),
    ("what", "sign"): ("sign turned",
        "The sign is turned round."),
    ("what", "x_hat alone"): ("dY missing",
        "dY does not take part in dgamma."),
    ("what", "times gamma"): ("gamma too many",
        "gamma does not take part in dbeta."),
    ("times", "gamma"): ("gamma too many",
        "gamma itself does not take part in dgamma."),
    ("sum", "averaged"): ("mean for the sum",
        "It is averaged over the batch. One parameter serves every value of its channel, so "
        "their gradients add up."),
}


def tell(faults):
    if faults == {"mean term": "missing", "variance term": "missing"}:
        return ("gradient not through mean and variance",), (
            "Mean and variance are treated as constants. Both were computed from X, and the "
            "gradient has to come back through both.")
    names, said = [], []
    for slot, choice in faults.items():
        if slot == "eps":
            name, text = "epsilon hard-coded", f"Epsilon is {choice:g} whatever is passed."
        elif slot == "count":
            where = {"both": "", "mean": ", in the part that comes through the mean",
                     "variance": ", in the part that comes through the variance"}[choice[1]]
            name, text = "another number for m", (
                f"{COUNT_SAID[choice[0]]} stands where m belongs{where}. m counts the values that "
                "the mean of a channel is taken over.")
        elif slot == "axes":
            name, text = axes_kind(choice, 4), (
                f"Sums and means are taken {axes_named(choice, 4)}. They are taken over all that "
                "shares a mean: batch and positions.")
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
