"""The moving statistics after a step: the right ones, the suspects, and what is said of them."""

import numpy as np

from gluon_bn.check.sentences import SAYINGS, about_axes, about_part, axes_kind
from gluon_bn.check.suspects import (
    VARIANCES,
    channel_axes,
    forward,
    lineup,
    scale_and_shift,
    statistics,
    subsets,
)

RULES = {
    None: lambda old, new, m: m * old + (1 - m) * new,
    "reversed": lambda old, new, m: (1 - m) * old + m * new,
    "not updated": lambda old, new, m: old,
    "replaced": lambda old, new, m: new,
    "old not weighed": lambda old, new, m: old + (1 - m) * new,
    "new not weighed": lambda old, new, m: m * old + new,
    "old forgotten": lambda old, new, m: (1 - m) * new,
    "old only": lambda old, new, m: m * old,
    "subtracted": lambda old, new, m: m * old - (1 - m) * new,
    "the same weight twice": lambda old, new, m: m * old + m * new,
    "the same weight twice, 1 - m": lambda old, new, m: (1 - m) * (old + new),
    "summed": lambda old, new, m: old + new,
    "twice": lambda old, new, m: m * (m * old + (1 - m) * new) + (1 - m) * new,
    "zero": lambda old, new, m: 0 * old,
}
MOMENTA = (0.9, 0.1, 0.99, 0.01, 0.5, 0.999)
MEANS = ("of the normalized X", "of Y", "the variance", "of the scaled X")
VARS = ("plus epsilon", "root plus epsilon", "inverse root", "of the normalized X", "of Y",
        "the mean", "around the updated mean", "of the scaled X")


def moved(s, faults=(), which="mean"):
    """The moving mean or variance after one call in training, as these faults have it."""
    faults = dict(faults)
    mean, var = statistics(s, faults)
    axes = faults.get("axes", channel_axes(s.X.ndim))
    gamma, beta = scale_and_shift(s, {})
    scaled = gamma * s.X + beta
    old_mean, old_var = s.column(s.moving_mean), s.column(s.moving_var)
    momentum = faults.get("momentum", s.momentum)
    rule = RULES[faults.get("rule")]
    stat = faults.get("what")
    with np.errstate(all="ignore"):
        x = (s.X - mean) / np.sqrt(var + s.eps)
        if which == "mean":
            batch = {None: mean, "of the normalized X": 0 * mean,
                     "of the scaled X": scaled.mean(axes, keepdims=True),
                     "of Y": forward(s).mean(axes, keepdims=True), "the variance": var}[stat]
            return np.squeeze(rule(old_mean, batch, momentum))
        around = momentum * old_mean + (1 - momentum) * mean
        batch = {
            None: var, "plus epsilon": var + s.eps, "root plus epsilon": np.sqrt(var + s.eps),
            "inverse root": 1 / np.sqrt(var + s.eps), "the mean": mean,
            "of the normalized X": x.var(axes, keepdims=True),
            "of Y": forward(s).var(axes, keepdims=True),
            "of the scaled X": scaled.var(axes, keepdims=True),
            "around the updated mean": ((s.X - around) ** 2).mean(axes, keepdims=True)}[stat]
        return np.squeeze(rule(old_var, batch, momentum))


def candidates(ndim, which):
    table = {"rule": [r for r in RULES if r], "momentum": list(MOMENTA)}
    table["what"] = list(MEANS if which == "mean" else VARS)
    if which == "var":
        table["variance"] = list(VARIANCES)
        table["variance axes"] = subsets(ndim)[:5]
    table["axes"] = subsets(ndim)
    table["mean"] = ["sum", "over N", *subsets(ndim)[:5]]
    return lineup(table)


SAID = {
    "reversed": ("momentum reversed", "The weights have changed places. Here momentum is the "
                 "weight of the past, 1 - momentum that of this batch, as in Gluon and TensorFlow "
                 "(in PyTorch and the newer d2l it is the other way round)."),
    "not updated": ("moving statistics not updated", "After a call in training {what} is what it "
                    "was before. Without it, prediction never learns what the data look like."),
    "replaced": ("moving statistics replaced", "{What} is replaced by that of the batch; what "
                 "earlier batches said is lost. It takes a step towards it instead."),
    "old not weighed": ("weights do not sum to one", "The batch is added with its weight, but the "
                        "past keeps its full weight: {what} grows without end."),
    "new not weighed": ("weights do not sum to one", "The batch is added with its full weight. "
                        "The two weights of an average sum to one."),
    "old forgotten": ("past forgotten", "Only the batch's part of the average is kept; the past is "
                      "missing from {what}."),
    "old only": ("batch forgotten", "{What} only shrinks: what is added for the batch is nothing, "
                 "or zero, as the mean of values that are normalized already would be."),
    "subtracted": ("batch subtracted", "The batch's part is subtracted from {what}; it is added."),
    "the same weight twice": ("weights do not sum to one", "Past and batch have the same weight, "
                              "momentum. The two weights of an average sum to one."),
    "the same weight twice, 1 - m": ("weights do not sum to one", "Past and batch have the same "
                                     "weight, 1 - momentum. The two weights of an average sum to "
                                     "one."),
    "summed": ("weights do not sum to one", "Past and batch are summed without weights, so {what} "
               "grows without end."),
    "twice": ("updated twice", "{What} takes two steps towards the batch in one call."),
    "zero": ("moving statistics lost", "{What} is zero after the call."),
    "of the normalized X": ("normalized statistics stored", "What goes into {what} is taken from "
                            "the normalized X (there the mean is 0 and the variance near 1 "
                            "whatever came in). Prediction needs those of X itself."),
    "of Y": ("statistics of Y stored", "What goes into {what} is taken from the output Y. "
             "Prediction needs that of X, what comes in."),
    "of the scaled X": ("gamma and beta before normalizing", "What goes into {what} is taken from "
                        "X after gamma and beta. They come last; the statistics are those of X."),
    "the variance": ("mean and variance swapped", "The variance goes into {what}."),
    "the mean": ("mean and variance swapped", "The mean goes into {what}."),
    "plus epsilon": ("epsilon stored", "Epsilon is stored in {what}, and prediction adds it once "
                     "more. Keep the variance alone."),
    "root plus epsilon": ("std stored", "The root of variance plus epsilon goes into {what}. It "
                          "holds the variance alone; prediction takes the root."),
    "inverse root": ("std stored", "The inverse of the standard deviation goes into {what}. It "
                     "holds the variance."),
    "around the updated mean": ("variance around the moving mean", "The variance that goes into "
                                "{what} is taken around the moving mean. In training it is the "
                                "spread around the mean of this batch."),
}
VARIANCE_SAID = {
    "unbiased": ("unbiased variance stored", "The variance that is stored is divided by m - 1 = "
                 "{m1}, not m = {m}. PyTorch keeps that one; Gluon, d2l and this course keep "
                 "the biased one, which also normalizes the batch (docs/conventions.md)."),
    "std": ("std stored", "The standard deviation goes into {what}. It holds the variance; "
            "prediction takes the root."),
}


def tell(faults, s, which):
    """Names and sentences for what was identified; `which` is 'mean', 'var' or 'both'."""
    what = {"mean": "the moving mean", "var": "the moving variance",
            "both": "each moving statistic"}[which]
    m = s.X.size // s.X.shape[1]
    names, said = [], []
    for slot, choice in faults.items():
        if slot == "axes" and which != "both":
            slot = {"mean": "mean", "var": "variance axes"}[which]
            name, text = about_part(slot, choice, s.X.ndim)
        elif slot == "axes":
            name, text = axes_kind(choice, s.X.ndim), about_axes(choice, s.X.ndim)
        elif slot in ("mean", "variance axes"):
            name, text = about_part(slot, choice, s.X.ndim)
        elif slot == "momentum":
            name, text = "momentum hard-coded", (
                f"The past weighs {choice:g} whatever momentum is passed. Use the argument.")
        elif slot == "variance":
            name, text = VARIANCE_SAID.get(choice) or SAYINGS["variance", choice]
        else:
            name, text = SAID[choice]
        names.append(name)
        said.append(text.format(what=what, What=what[0].upper() + what[1:], m=m, m1=m - 1))
    return names, " And: ".join(said)
