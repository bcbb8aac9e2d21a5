"""The tables of the smaller exercises: moments, normalize, layer_norm, group_norm, recalibrate."""

# A table is read by its rows.
# fmt: off

from gluon_bn.check.batch_norm_mistakes import CANCELLATION
from gluon_bn.check.mistakes import (
    MEAN,
    SUM,
    VAR,
    before,
    changes,
    channels,
    cut,
    formula,
    statistics,
)

SWAPPED = "The variance comes back first and the mean second; it is to be the other way round."

MOMENTS_SOURCE = """
def f(X, axis):
    axes = axis
    m = 1
    for a in axes:
        m = m * X.shape[a]
    mean = X.mean(axis=axes, keepdims=True)
    var = ((X - mean) ** 2).mean(axis=axes, keepdims=True)
    return mean, var
"""
PASSED = " The axes that are passed are the ones to be averaged away."
MOMENTS = (
    *statistics,
    *changes(
        VAR,
        ("divided by N", f"{SUM} / (X.shape[0] - 1)",
         "The squared deviations are divided by the length of the first axis less one, but m = {m} "
         "of them were summed."),
        *(("epsilon in the variance", f"{VAR} + {value}",
           f"{value:g} is added to the variance. Epsilon belongs to the division that comes later.")
          for value in (1e-5, 1e-3, 1e-6, 1e-2)),
        ("cancellation", "(X ** 2).mean(axis=axes, keepdims=True) - mean ** 2",
         CANCELLATION.format("The variance"))),
    *changes("axes = axis", *((name, f"axes = {axes}", f"It averages over {said}.{PASSED}")
                              for name, axes, said in (
        ("wrong axes: the complement", "tuple(a for a in range(X.ndim) if a not in axis)",
         "all axes but those that are passed"),
        ("wrong axes: everything", "tuple(range(X.ndim))", "every axis at once"),
        ("axis ignored", "tuple(a for a in range(X.ndim) if a != 1)",
         "all axes but 1, whatever is passed"),
        ("wrong axes: per example", "tuple(range(1, X.ndim))", "each example, whatever is passed"),
        ("wrong axes: batch only", "(0,)", "the batch only, whatever is passed"),
        ("wrong axes: the first only", "axis[:1]", "the first of the axes only"),
        ("wrong axes: the last only", "axis[-1:]", "the last of the axes only")))),
    *changes(
        "return mean, var",
        ("mean and variance swapped", "return var, mean", SWAPPED),
        ("gradient cut", ["return mean.detach() + 0 * mean, var",
                          "return mean, var.detach() + 0 * var"],
         "The gradient of mean and variance with respect to X is not theirs: somewhere the way "
         "back to X is cut.")),
)

NORMALIZE_SOURCE = """
def f(X, mean, var, beta, gamma, eps):
    axes = (0,) if X.ndim == 2 else (0, 2, 3)
    X_hat = (X - mean) / nd.sqrt(var + eps)
    Y = gamma * X_hat + beta
    return Y
"""
OWN_VAR = f"((X - {MEAN}) ** 2).mean(axis=axes, keepdims=True)"
NORMALIZE = (
    *formula, *channels,
    *before("X_hat = ", *(
        ("arguments ignored", f"mean, var = {pair}",
         f"The {said} passed in have no effect: it computes its own from X. In prediction they are "
         "given.") for pair, said in ((f"{MEAN}, {OWN_VAR}", "mean and variance"),
                                      (f"{MEAN}, var", "mean"), (f"mean, {OWN_VAR}", "variance"))),
        *(("gradient cut", f"{name} = {name}.detach()",
           f"The gradient of {name} is zero: somewhere the way back to it is cut.")
          for name in ("X", "mean", "var", "beta", "gamma"))),
)

LAYER_NORM_SOURCE = """
def f(X, gamma, beta, eps):
    axes = X.ndim - 1
    m = X.shape[-1]
    mean = X.mean(axis=axes, keepdims=True)
    var = ((X - mean) ** 2).mean(axis=axes, keepdims=True)
    X_hat = (X - mean) / nd.sqrt(var + eps)
    Y = gamma * X_hat + beta
    return Y
"""
OF_LAYER = ("Mean and variance are taken {}. Layer norm has one pair for each position of each "
            "example, taken over its channels, the last axis.")
# Without a mode there is no telling a wrong variance from a wrong use of it.
batchless = tuple(m for m in statistics if m.name not in ("std for the variance",
                                                          "variance squared"))
LAYER_NORM = (*formula, *batchless, *cut, *changes("axes = X.ndim - 1", *(
    (name, f"axes = {axes}", OF_LAYER.format(said)) for name, axes, said in (
        ("wrong axes: the batch", "0", "over the batch, axis 0"),
        ("wrong axes: as batch norm", "tuple(range(X.ndim - 1))",
         "over all axes but the last, as batch norm does when the channels come last"),
        ("wrong axes: everything", "tuple(range(X.ndim))", "over everything at once"),
        ("wrong axes: per example", "tuple(range(1, X.ndim))",
         "over all of an example, its positions too"),
        ("wrong axes: the positions", "(1,)", "over the positions, axis 1")))))

GROUP_NORM_SOURCE = """
def f(X, gamma, beta, num_groups, eps):
    shape, groups = X.shape, num_groups
    axes = (2,)
    gamma, beta = [(a + 0 * X).reshape((shape[0], groups, -1)) for a in (gamma, beta)]
    X = X.reshape((shape[0], groups, -1))
    m = X.shape[2]
    mean = X.mean(axis=axes, keepdims=True)
    var = ((X - mean) ** 2).mean(axis=axes, keepdims=True)
    X_hat = (X - mean) / nd.sqrt(var + eps)
    Y = gamma * X_hat + beta
    return Y.reshape(shape)
"""
OF_GROUP = " Group norm has one pair for each group of channels of each example."
GROUP_NORM = (*formula, *batchless, *cut, *changes(
    "groups = X.shape, num_groups",
    ("one group for all", "groups = X.shape, 1",
     "Mean and variance are taken over all channels of an example: that is one group." + OF_GROUP),
    ("one channel a group", "groups = X.shape, X.shape[1]",
     "Each channel is normalized for itself: that is instance norm." + OF_GROUP),
    ("groups and their size exchanged",
     "groups = X.shape, X.shape[1] // num_groups",
     "num_groups is taken for the number of channels in a group. It is that of the groups; each "
     "has C / num_groups channels.")), *changes(
    "axes = (2,)", ("batch averaged, too", "axes = (0, 2)",
                    "Mean and variance are taken over the examples of the batch, too." + OF_GROUP)))

RECALIBRATE_SOURCE = """
def f(batches):
    axes = (0,) if batches[0].ndim == 2 else (0, 2, 3)
    sizes = [X.size / X.shape[1] for X in batches]
    means = [X.mean(axis=axes) for X in batches]
    vars = [((X - m.reshape((1, -1) + (1,) * (X.ndim - 2))) ** 2).mean(axis=axes)
            for X, m in zip(batches, means)]
    mean = sum(n * m for n, m in zip(sizes, means)) / sum(sizes)
    var = sum(n * (v + (m - mean) ** 2) for n, v, m in zip(sizes, vars, means)) / sum(sizes)
    return mean, var
"""
RECALIBRATE = (
    *changes("n * (v + (m - mean) ** 2)",
             ("variance of the means forgotten", "n * v",
              "The variances within the batches are averaged, but the batches' means differ, too: "
              "equation (2) of chapter 11 adds (mean_b - mean)^2 to each."),
             ("unbiased variance", "n * v * n / (n - 1)",
              "The variances of the batches are averaged with the factor n / (n - 1), equation (1) "
              "of chapter 11. It is right on average, for batches drawn at random; the exact one "
              "adds the variance of the means, equation (2)."),
             ("variance of the means subtracted", "n * (v - (m - mean) ** 2)",
              "The variance of the means is subtracted; it is added."),
             ("mean not subtracted in the variance", "n * (v + m ** 2)",
              "That is the mean of the squares. The variance is about distances from the mean."),
             ("variance of the means alone", "n * (m - mean) ** 2",
              "Only the variance of the means is there; the one within the batches is missing."),
             ("std for the variance", "n * (v + (m - mean) ** 2) ** 0.5",
              "Standard deviations are averaged. It is the variances that add up.")),
    *changes("sizes = [X.size / X.shape[1] for X in batches]",
             ("batches not weighted", "sizes = [1 for X in batches]",
              "All batches count the same. One of more values has to count for more: the weight "
              "is n_b / n, equation (2) of chapter 11.")),
    *before("axes = ",
            ("last batch only", "batches = batches[-1:]",
             "Only the last batch is in it. Is the result overwritten in the loop?"),
            ("first batch only", "batches = batches[:1]",
             "Only the first batch is in it. Does the loop return too early?"),
            ("last batch forgotten", "batches = batches[:-1]", "The last batch is left out.")),
    *before("return mean, var", (
        "moving average", "mean, var = 0 * mean, 0 * var + 1\n    for m, v in zip(means, vars):\n"
        "        mean, var = 0.9 * mean + 0.1 * m, 0.9 * var + 0.1 * v",
        "That is the moving average with momentum 0.9, which forgets the first batches. Exact "
        "statistics count all values the same, equation (2) of chapter 11.")),
    *changes("return mean, var", ("mean and variance swapped", "return var, mean", SWAPPED)),
)
