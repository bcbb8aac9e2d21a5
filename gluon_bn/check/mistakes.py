"""The table: mistakes of a normalization, each a line of its right solution that is written
differently. `formula` and `statistics` serve several exercises, whose solutions share these lines:

    mean = X.mean(axis=axes, keepdims=True)
    var = ((X - mean) ** 2).mean(axis=axes, keepdims=True)
    X_hat = (X - mean) / nd.sqrt(var + eps)
    Y = gamma * X_hat + beta

Likely mistakes stand first: pairs are tried of the first of each name and line.
"""

# A table is read by its rows.
# fmt: off

from gluon_bn.check.engine import Mistake

MEAN = "X.mean(axis=axes, keepdims=True)"
VAR = "((X - mean) ** 2).mean(axis=axes, keepdims=True)"
SUM = "((X - mean) ** 2).sum(axis=axes, keepdims=True)"


def changes(right, *entries):
    """Several mistakes of one line: (name, what stands there instead, sentence). Where several
    things in its place are one mistake, a list of them."""
    return tuple(
        Mistake(name, right, wrong, sentence)
        for name, wrongs, sentence in entries
        for wrong in ([wrongs] if isinstance(wrongs, str) else wrongs))


def before(line, *entries):
    """Mistakes that are a line too many, before one that starts so."""
    return changes(f"    {line}", *(
        (name, f"    {more}\n    {line}", sentence) for name, more, sentence in entries))


# ------------------------------------------------------------------------------------- the formula

formula = (
    *changes(
        "nd.sqrt(var + eps)",
        ("no epsilon", "nd.sqrt(var)",
         "Epsilon is missing: a channel constant in a batch has variance 0, and comes out as nan."),
        ("epsilon outside the root", ["(nd.sqrt(var) + eps)", "(nd.sqrt(var) + eps ** 0.5)"],
         "Epsilon is added after the root. It belongs under it, beside the variance."),
        ("no root", ["(var + eps)", "(var + eps) ** 2"],
         "The root of the variance (plus epsilon) is missing. What has the unit of X is the root."),
        ("std for the variance", "nd.sqrt(nd.sqrt(var) + eps)",
         "The standard deviation stands where the variance belongs: one root too many."),
        ("no root, no epsilon", "var", "X is divided by the variance: no root and no epsilon."),
        ("variance squared", "nd.sqrt(var ** 2 + eps)", "The variance is squared once too often."),
        ("epsilon squared", "nd.sqrt(var + eps ** 2)", "Epsilon is squared. It is added as it is."),
        ("epsilon subtracted", "nd.sqrt(var - eps)",
         "Epsilon is subtracted under the root. It is to keep the divisor away from zero."),
        ("epsilon as a bound", "nd.sqrt(nd.maximum(var, eps))",
         "Epsilon is used as a lower bound of the variance. It is added, for every channel."),
        ("epsilon twice", ["nd.sqrt(var + 2 * eps)", "(nd.sqrt(var + eps) + eps)"],
         "Epsilon is in it twice. It is added once, to the variance.")),
    *changes(
        " / nd.sqrt(var + eps)",
        ("epsilon outside the root", " / nd.sqrt(var) + eps",
         "Epsilon is added to the quotient, after the division. Are the parentheses right?"),
        ("multiplied by the deviation", " * nd.sqrt(var + eps)",
         "X is multiplied by the standard deviation. Dividing by it brings the spread to one."),
        ("not divided by the deviation", "",
         "The mean is taken away, but nothing is divided by the standard deviation.")),
    *changes("var + eps", *(
        ("epsilon hard-coded", f"var + {value}", f"Epsilon is {value:g} whatever is passed.")
        for value in (1e-5, 1e-12, 1e-3, 1e-8, 1e-6, 1e-4, 1e-2, 1.0))),
    *changes(
        "X_hat = (X - mean)",
        ("mean not subtracted", "X_hat = X", "The mean is not subtracted before the division."),
        ("mean added", "X_hat = (X + mean)", "The mean is added to X; it is to be taken away."),
        ("sign turned", "X_hat = (mean - X)", "X is subtracted from the mean: all signs turn."),
        ("parentheses", "X_hat = X - mean",
         "Only the mean is divided, not X: a division binds more closely. Are parentheses right?")),
    *before("X_hat = ", (
        "mean and variance swapped", "mean, var = var, mean",
        "Mean and variance have changed places: the variance is subtracted, and the root taken of "
        "the mean. Look at the order in which they are passed on.")),
    *changes(
        "gamma * X_hat + beta",
        ("no gamma", "X_hat + beta", "gamma has no effect: values are shifted, but not scaled."),
        ("no beta", "gamma * X_hat", "beta has no effect: values are scaled, but not shifted."),
        ("gamma and beta swapped", "beta * X_hat + gamma",
         "gamma and beta have changed places. Look at the order in which they are passed on."),
        ("shifted before scaling", "gamma * (X_hat + beta)",
         "beta is added before gamma multiplies, so gamma scales beta as well."),
        ("no gamma, no beta", "X_hat + 0 * gamma",
         "gamma and beta have no effect: the layer cannot undo its normalization (chapter 2)."),
        ("beta subtracted", "gamma * X_hat - beta", "beta is subtracted; it is added."),
        ("divided by gamma", "X_hat / gamma + beta", "Values are divided by gamma; it multiplies."),
        ("gamma added", "X_hat + gamma + beta", "gamma is added like beta; it multiplies."),
        ("one plus gamma", "(1 + gamma) * X_hat + beta",
         "The values are scaled by 1 + gamma. Here gamma starts at one and is the factor itself."),
        ("gamma twice", "gamma * gamma * X_hat + beta", "gamma is multiplied in twice."),
        ("gamma without its sign", "gamma.abs() * X_hat + beta",
         "gamma counts without its sign. It may become negative, and then it turns values round."),
        ("beta twice", "gamma * X_hat + 2 * beta", "beta is added twice.")),
)

FIRST = "All channels get {} of the first one. Each has its own."
channels = changes(  # of gamma and beta where they are laid along axis 1
    "gamma * X_hat + beta",
    ("gamma wrongly broadcast", "gamma.slice_axis(1, 0, 1) * X_hat + beta", FIRST.format("gamma")),
    ("beta wrongly broadcast", "gamma * X_hat + beta.slice_axis(1, 0, 1)", FIRST.format("beta")),
    ("gamma and beta wrongly broadcast", "gamma.slice_axis(1, 0, 1) * X_hat + "
     "beta.slice_axis(1, 0, 1)", FIRST.format("gamma and beta")),
    ("gamma and beta wrongly broadcast", "gamma.flip(axis=1) * X_hat + beta.flip(axis=1)",
     "gamma and beta meet the channels in reverse order."),
    ("gamma and beta wrongly broadcast", "gamma.reshape(-1) * X_hat + beta.reshape(-1)",
     "gamma and beta are laid along the last axis of X. The channels are on axis 1."))

cut = (  # what leaves Y as it is, but not its gradients
    *before("X_hat = ", *(
        (f"gradient not through {said}", code,
         f"No gradient flows through {said}: treated as a constant. It was computed from X, and "
         "the gradient has to go back that way too (chapter 3).")
        for said, code in (("the mean", "mean = mean.detach()"),
                           ("the variance", "var = var.detach()"),
                           ("mean and variance", "mean, var = mean.detach(), var.detach()"))), *(
        (f"no gradient for {name}", f"{name} = {name}.detach()",
         f"The gradient of {name} is zero: it would never be learned. Is it read out of the array "
         "before it is used?") for name in ("gamma", "beta"))),
    *before("axes = ", ("gradient cut", "X = X.detach()",
                        "The gradient of X is zero everywhere: the way from Y back to X is cut.")))

# ---------------------------------------------------------------------------------- the statistics

DIVISOR = "The squared deviations are divided by {}, but m = {{m}} of them were summed."
statistics = (
    *changes(
        VAR,
        ("unbiased variance", f"{SUM} / (m - 1)",
         "The variance is divided by m - 1 = {m1}. Batch norm divides by m = {m}: it wants the "
         "spread of this batch itself, not an estimate for others."),
        ("std for the variance", f"nd.sqrt({VAR})",
         "The standard deviation stands where the variance belongs: one root too many."),
        ("divided by N", f"{SUM} / X.shape[0]", DIVISOR.format("the number of examples")),
        ("variance squared", f"{VAR} ** 2", "The variance is squared once too often."),
        ("sum for the mean", SUM,
         "The squared deviations are summed, not averaged: the division by m = {m} is missing."),
        ("averaged before squaring", "(X - mean).mean(axis=axes, keepdims=True) ** 2",
         "The distances from the mean are averaged first, which gives 0. Square each before."),
        ("mean not squared in the variance", "(X ** 2).mean(axis=axes, keepdims=True) - mean",
         "From the mean of the squares the mean itself is subtracted. Which power of it has the "
         "unit of a square? (Better: take the mean away before squaring.)"),
        ("divided by the channels", f"{SUM} / X.shape[1]",
         DIVISOR.format("the number of channels"))),
    *changes(
        "((X - mean) ** 2)",
        ("mean not subtracted in the variance", "(X ** 2)",
         "The variance is the mean of the squares of X: is the mean taken away before squaring?"),
        ("absolute deviation", "(X - mean).abs()",
         "The absolute distances from the mean are averaged. They are squared before."),
        ("wrong axes: everything", "((X - X.mean()) ** 2)",
         "The variance is taken around one mean of everything, not that of the channel.")),
    *changes(
        MEAN,
        ("sum for the mean", "X.sum(axis=axes, keepdims=True)",
         "Where the mean belongs, the sum is used: the division by m = {m} is missing."),
        ("divided by N", "X.sum(axis=axes, keepdims=True) / X.shape[0]",
         "For the mean, the sum is divided by the number of examples, but m = {m} were summed.")),
)

NAMED: dict = {  # axes -> (kind, how it is said)
    (2, 3): ("wrong axes: per instance",
             "over the pixels of each example (that is instance normalization), axes (2, 3)"),
    (1, 2, 3): ("wrong axes: per example",
                "over each example (that is layer normalization), axes (1, 2, 3)"),
    (0, 1, 2, 3): ("wrong axes: everything",
                   "over everything at once, one for the whole batch, axes (0, 1, 2, 3)"),
    (0,): ("wrong axes: batch only",
           "over the batch only, so that each position of the image has its own, axis 0"),
    (1,): ("wrong axes: over the channels", "over the channels, one for each pixel, axis 1"),
    (0, 1, 2): ("wrong axes",
                "over all axes but the last, as if the channels came last, axes (0, 1, 2)"),
    **{axes: ("wrong axes", f"over axes {axes}") for axes in (
        (0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (0, 1, 3), (2,), (3,))},
}
PAIR = "Batch norm has one pair for each channel, taken over {right}: batch and positions."
over_axes = (
    *changes("(0, 2, 3)", *(
        (name, str(axes), f"Mean and variance are taken {said}. "
         + PAIR.format(right="axes (0, 2, 3)")) for axes, (name, said) in NAMED.items())),
    *changes("(0,)", *(
        (name, axes, f"Mean and variance are taken {said}. " + PAIR.format(right="axis 0"))
        for name, axes, said in (
            ("wrong axes: per example", "(1,)",
             "over each example (that is layer normalization), axis 1"),
            ("wrong axes: everything", "(0, 1)", "over everything at once, axes (0, 1)")))),
    *(Mistake(NAMED[axes][0], right, right.replace("axis=axes", f"axis={code}"),
              f"The {part} is taken {NAMED[axes][1].split(',')[0]}. It is taken over the same as "
              f"the {other}: batch and positions, one value for each channel.")
      for axes, code in (((1, 2, 3), "tuple(range(1, X.ndim))"), ((0,), "0"), ((1,), "1"),
                         ((0, 1, 2, 3), "tuple(range(X.ndim))"), ((2, 3), "(2, 3)"))
      for part, right, other in (("mean", f"mean = {MEAN}", "variance"),
                                 ("variance", "** 2).mean(axis=axes, keepdims=True)", "mean"))),
    *changes(
        "keepdims=True",
        ("statistics wrongly broadcast", "keepdims=False",
         "The mean and variance of the channels are laid along the last axis of X, where "
         "broadcasting puts a vector. The channels are on axis 1: keep the averaged axes.")),
    *changes(
        VAR,
        ("divided by the positions", f"{SUM} / (X.shape[2] * X.shape[3])",
         DIVISOR.format("the number of positions, H W") + " The examples count as well."),
        ("divided by N", f"{VAR} * X.shape[2] * X.shape[3] * X.shape[0] / (X.shape[0] - 1)",
         DIVISOR.format("the number of examples less one"))),
)
