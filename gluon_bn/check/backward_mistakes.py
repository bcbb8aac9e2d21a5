"""The table of batch_norm_backward."""

# A table is read by its rows.
# fmt: off

from gluon_bn.check.mistakes import NAMED, before, changes, statistics

SOURCE = """
def f(dY, X, gamma, eps):
    axes = (0,) if X.ndim == 2 else (0, 2, 3)
    mean = X.mean(axis=axes, keepdims=True)
    m = X.size // mean.size
    var = ((X - mean) ** 2).mean(axis=axes, keepdims=True)
    v = var + eps
    std = nd.sqrt(v)
    X_hat = (X - mean) / std
    dbeta = dY.sum(axis=axes, keepdims=True)
    dgamma = (dY * X_hat).sum(axis=axes, keepdims=True)
    dX_hat = gamma * dY
    dvar = (dX_hat * (X - mean)).sum(axis=axes, keepdims=True) * -0.5 * v ** -1.5
    dmean = -(dX_hat / std).sum(axis=axes, keepdims=True)
    dX = dX_hat / std + dvar * 2 * (X - mean) / m + dmean / m
    return dX, dgamma, dbeta
"""

DVAR, DMEAN = " + dvar * 2 * (X - mean) / m", " + dmean / m"
SUMMED, DBETA = "(dY * X_hat).sum(axis=axes, keepdims=True)", "dY.sum(axis=axes, keepdims=True)"
COUNTS = (("X.shape[0]", "The number of examples"),
          ("(X.size // X.shape[0] // X.shape[1])", "The number of positions, H W,"),
          ("X.size", "The number of all values of X, channels and all,"),
          ("(m - 1)", "A number one less than m"))
COUNTED = "{} stands where m belongs{}: the count of values that a channel's mean is taken over."
ADDED = "There is one {} for each channel: the gradients of all places where it takes part add up."
AVERAGED = "It is averaged over the batch. A parameter serves all values of a channel: they add up."


def part(way, said):
    return f"The part that comes through the {way} {said}."


def factors(line, way, *numbers):
    """Numbers that a part of dX may be multiplied with by mistake."""
    return changes(line, *(
        (f"{way} term", f"{line} * {number}",
         part(way, f"has a factor too many ({number}). Derive it once more, step by step"))
        for number in numbers))


BACKWARD = (
    *changes(
        f"dX_hat / std{DVAR}{DMEAN}",
        ("gradient not through mean and variance", "dX_hat / std",
         "Mean and variance are treated as constants. The gradient comes back through both.")),
    *changes(
        DVAR,
        ("gradient not through the variance", "",
         "The way through the variance is missing: every x moves it, and it scales every y."),
        ("sign of the variance term", DVAR.replace("+", "-"), part(
            "variance", "has the wrong sign. A power of a negative exponent is differentiated")),
        ("variance term not divided by m", DVAR.replace(" / m", ""), part(
            "variance", "is m times too large: the variance is a mean of m squares")),
        ("gamma twice", f"{DVAR} * gamma", part("variance", "holds gamma twice")),
        ("X for X - mean", " + dvar * 2 * X / m",
         "The gradient of the variance is multiplied with X; it is the distance from the mean.")),
    *factors(DVAR, "variance", "0.5", "2", "-2", "0.5 * m", "1 / m", "v", "v ** 0.5", "v ** -0.5",
             "v ** -1", "v ** 3"),
    *changes(
        DMEAN,
        ("gradient not through the mean", "",
         "The way through the mean is missing: every x moves it, and it moves every y."),
        ("sign of the mean term", " - dmean / m", part("mean", "has the wrong sign")),
        ("mean term not divided by m", " + dmean", part(
            "mean", "is m times too large: one x moves the mean by 1/m")),
        ("gamma twice", f"{DMEAN} * gamma", part("mean", "holds gamma twice"))),
    *factors(DMEAN, "mean", "2", "1 / m"),
    *changes(
        "dmean = -(dX_hat / std)",
        ("no gamma", "dmean = -(dY / std)", part("mean", "lacks gamma")),
        ("not divided by the deviation", "dmean = -dX_hat", part("mean", "lacks / std"))),
    *changes(
        "dvar = (dX_hat * (X - mean))",
        ("no gamma", "dvar = (dY * (X - mean))", part("variance", "lacks gamma")),
        ("X for X - mean", "dvar = (dX_hat * X)", part(
            "variance", "sums X times the gradient where the distance from the mean belongs"))),
    *before("dvar = ", ("X for X - mean", "mean = 0 * mean", part(
        "variance", "takes X where its distance from the mean belongs"))),
    *changes(
        "dX = dX_hat / std",
        ("direct way missing", "dX = 0",
         "The direct way is missing: x also stands in the normalized value itself."),
        ("not divided by the deviation", "dX = dX_hat", part("normalized x", "lacks / std")),
        ("direct way divided by m", "dX = dX_hat / std / m",
         part("normalized x", "is divided by m. On that way nothing is averaged: a y has one x")),
        ("no gamma", "dX = dY / std", part("normalized x", "lacks gamma"))),
    *changes(
        "dX_hat = gamma * dY",
        ("no gamma", "dX_hat = dY",
         "gamma is missing in dX. On the way back from Y the gradient passes it, too."),
        ("gamma twice", "dX_hat = gamma * gamma * dY", "gamma is multiplied into dX twice."),
        ("divided by gamma", "dX_hat = dY / gamma",
         "dX is divided by gamma; it is multiplied, on the way back as on the way there.")),
    *changes(
        "return dX, dgamma, dbeta",
        ("dgamma and dbeta swapped", "return dX, dbeta, dgamma",
         "dgamma and dbeta come back in each other's place."),
        *((name, f"return {factor} * dX, dgamma, dbeta", said) for name, factor, said in (
            ("sign turned", "-1", "Every sign of dX is turned round."),
            ("divided by m", "1 / m",
             "All of dX is divided by m. Only the parts through mean and variance are."),
            ("times m", "m", "All of dX is m times too large."),
            ("not divided by the deviation", "std", "dX lacks a division by the deviation."),
            ("divided by the variance", "1 / std",
             "dX is divided by variance plus epsilon; by its root, once, would be right."),
            ("multiplied by the deviation", "v",
             "dX is multiplied by the standard deviation where it is divided by it.")))),
    *changes(
        "v = var + eps",
        ("no epsilon", "v = var + 0 * eps",
         "There is no epsilon in it: forward and backward divide by the same number."),
        ("epsilon outside the root", "v = (nd.sqrt(var) + eps) ** 2",
         "Epsilon is added outside the root; it stands beside the variance."),
        ("no root", "v = (var + eps) ** 2",
         "What stands for the standard deviation is the variance: the root is missing."),
        *(("epsilon hard-coded", f"v = var + {eps}", f"Epsilon is {eps:g} whatever is passed.")
          for eps in (1e-5, 1e-3))),
    *(mistake for count, said in COUNTS for line, wrong, where in (
        ("m = X.size // mean.size", f"m = X.size // mean.size; m = {count}", ""),
        (DMEAN, DMEAN.replace("/ m", f"/ {count}"), ", in the part through the mean"),
        (DVAR, DVAR.replace("/ m", f"/ {count}"), ", in the part through the variance"))
      for mistake in changes(line, ("another number for m", wrong, COUNTED.format(said, where)))),
    *changes(
        SUMMED,
        ("X for x_hat", SUMMED.replace("X_hat", "X"),
         "dgamma takes X itself where gamma multiplies the normalized values."),
        ("X - mean for x_hat", SUMMED.replace("X_hat", "(X - mean)"),
         "dgamma takes X - mean where gamma multiplies normalized values: a division is missing."),
        ("dbeta for dgamma", SUMMED.replace(" * X_hat", ""),
         "dgamma is the sum of dY: that is dbeta. gamma's holds the normalized values as well."),
        ("dY missing", SUMMED.replace("dY * ", ""), "dY does not take part in dgamma."),
        ("sign turned", f"-{SUMMED}", "The sign is turned round."),
        ("gamma too many", f"gamma * {SUMMED}", "gamma itself does not take part in dgamma."),
        ("mean for the sum", SUMMED.replace("sum", "mean"), AVERAGED),
        ("not summed over the batch", "dY * X_hat", ADDED.format("gamma"))),
    *changes(
        f"dbeta = {DBETA}",
        ("mean for the sum", f"dbeta = {DBETA.replace('sum', 'mean')}", AVERAGED),
        ("gamma too many", f"dbeta = gamma * {DBETA}", "gamma does not take part in dbeta."),
        ("sign turned", f"dbeta = -{DBETA}", "The sign is turned round."),
        ("not summed over the batch", "dbeta = dY", ADDED.format("beta"))),
    *statistics,
    *changes("(0, 2, 3)", *(
        (name, str(axes), f"Sums and means are taken {said}. They are taken over all that shares a "
         "mean: batch and positions.") for axes, (name, said) in list(NAMED.items())[:6])),
)
