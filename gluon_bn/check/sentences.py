"""What each mistake is called and what is said about it: what, why it matters, where to look."""

import numpy as np

from gluon_bn.check.suspects import LAST, channel_axes

# (slot, choice) -> (name of the mistake, sentence). {m}: how many values a statistic is taken over.
SAYINGS = {
    ("divide", "no epsilon"): (
        "no epsilon", "There is no epsilon in it. A channel that is constant in a batch has "
        "variance 0, and without epsilon its output is not a number."),
    ("divide", "epsilon outside"): (
        "epsilon outside the root", "Epsilon is added after the root, to the standard deviation. "
        "It belongs under the root, beside the variance; for small variances the two differ much."),
    ("divide", "no root"): (
        "no root", "X is divided by the variance (plus epsilon) itself. What has the unit of X is "
        "its root, the standard deviation."),
    ("divide", "no root, no epsilon"): (
        "no root, no epsilon", "X is divided by the variance itself: the root is missing, and "
        "epsilon too."),
    ("divide", "epsilon squared"): (
        "epsilon squared", "Epsilon is squared on its way. It is added to the variance as it is."),
    ("divide", "root of epsilon added"): (
        "epsilon outside the root", "Variance and epsilon are rooted one by one. The root is taken "
        "once, of their sum."),
    ("divide", "epsilon subtracted"): (
        "epsilon subtracted", "Epsilon is subtracted under the root. It is there to keep the "
        "divisor away from zero."),
    ("divide", "maximum"): (
        "epsilon as a bound", "Epsilon is used as a lower bound of the variance. In batch norm it "
        "is added, for every channel."),
    ("divide", "multiplied"): (
        "multiplied by the deviation", "X is multiplied by the standard deviation. Dividing by it "
        "is what brings the spread to one."),
    ("divide", "not divided"): (
        "not divided by the deviation", "The mean is taken away but the spread is left as it was: "
        "nothing is divided by the standard deviation."),
    ("divide", "squared divisor"): (
        "no root", "X is divided by the square of variance plus epsilon. Its root belongs there."),
    ("divide", "epsilon added after"): (
        "epsilon outside the root", "Epsilon is added to the quotient, after the division. There "
        "it only shifts the result. Is a pair of parentheses missing?"),
    ("divide", "epsilon twice"): (
        "epsilon twice", "Epsilon is in it twice. It is added to the variance once, in one place."),
    ("divide", "epsilon inside and outside"): (
        "epsilon twice", "Epsilon is added under the root and once more after it. Under the root "
        "is enough."),
    ("divide", "only the mean divided"): (
        "parentheses", "Only the mean is divided by the standard deviation, not X: a division "
        "binds more closely than a subtraction. Are the parentheses right?"),
    ("variance", "unbiased"): (
        "unbiased variance", "The variance is divided by m - 1 = {m1}. Batch norm divides by "
        "m = {m}: it wants the spread of this batch itself, not an estimate for others."),
    ("variance", "std"): (
        "std for the variance", "The standard deviation stands where the variance belongs. One "
        "root too many has been taken."),
    ("variance", "squared"): (
        "variance squared", "The variance is squared once more before it is used."),
    ("variance", "sum"): (
        "sum for the mean", "The squared deviations are summed, not averaged: the division by "
        "m = {m} is missing."),
    ("variance", "over N"): (
        "divided by N", "The squared deviations are divided by the number of examples, but "
        "m = {m} of them were summed."),
    ("variance", "over N - 1"): (
        "divided by N", "The squared deviations are divided by the number of examples less one, "
        "but m = {m} of them were summed."),
    ("variance", "over positions"): (
        "divided by the positions", "The squared deviations are divided by the number of "
        "positions, H W, but m = {m} of them were summed: the examples count as well."),
    ("variance", "over C"): (
        "divided by the channels", "The squared deviations are divided by the number of channels, "
        "but m = {m} of them were summed."),
    ("variance", "around everything"): (
        "wrong axes: everything", "The variance is taken around one mean of everything. It "
        "is about distances from the mean of the same channel."),
    ("variance", "less the mean"): (
        "mean not squared in the variance", "From the mean of the squares the mean itself is "
        "subtracted. Which power of it has the unit of a square? (And better than any difference: "
        "take the mean away before squaring.)"),
    ("variance", "mean of squares"): (
        "mean not subtracted in the variance", "What is used as the variance is the mean of the "
        "squares of X. The variance is about distances from the mean: is the mean taken away "
        "before squaring?"),
    ("variance", "deviation"): (
        "absolute deviation", "What is used as the variance is the mean of the absolute distances "
        "from the mean. They are squared before they are averaged."),
    ("variance", "averaged before squaring"): (
        "averaged before squaring", "The distances from the mean are averaged first, which gives "
        "0, and squared then. Square each, and average the squares."),
    ("variance", "around the moving mean"): (
        "variance around the moving mean", "The variance measures distances from the moving mean. "
        "In training they are taken from the mean of this batch."),
    ("affine", "no gamma"): (
        "no gamma", "gamma has no effect: the normalized values are shifted, but not scaled."),
    ("affine", "no beta"): (
        "no beta", "beta has no effect: the normalized values are scaled, but not shifted."),
    ("affine", "no gamma, no beta"): (
        "no gamma, no beta", "gamma and beta have no effect: the normalized values come out as "
        "they are. The layer could not undo its own normalization (chapter 2)."),
    ("affine", "swapped"): (
        "gamma and beta swapped", "gamma and beta have changed places: gamma is added, beta "
        "multiplies. Look at the order in which they are passed on."),
    ("affine", "shifted, then scaled"): (
        "shifted before scaling", "beta is added before gamma multiplies, so gamma scales beta as "
        "well."),
    ("affine", "beta subtracted"): ("beta subtracted", "beta is subtracted; it is added."),
    ("affine", "divided by gamma"): (
        "divided by gamma", "The normalized values are divided by gamma; it multiplies them."),
    ("affine", "gamma added"): (
        "gamma added", "gamma is added like beta; it multiplies the normalized values."),
    ("affine", "one plus gamma"): (
        "one plus gamma", "The values are scaled by 1 + gamma. Here gamma starts at one and is "
        "the factor itself."),
    ("affine", "gamma of the first channel"): (
        "gamma wrongly broadcast", "All channels get the gamma of the first one. Each has its "
        "own."),
    ("affine", "beta of the first channel"): (
        "beta wrongly broadcast", "All channels get the beta of the first one. Each has its own."),
    ("affine", "both of the first channel"): (
        "gamma and beta wrongly broadcast", "All channels get gamma and beta of the first one. "
        "Each has its own."),
    ("affine", "gamma twice"): ("gamma twice", "gamma is multiplied in twice."),
    ("affine", "gamma without its sign"): (
        "gamma without its sign", "gamma counts without its sign. It may become negative in "
        "training, and then it turns the normalized values round."),
    ("affine", "beta twice"): ("beta twice", "beta is added twice."),
    ("affine", "channels in reverse"): (
        "gamma and beta wrongly broadcast", "gamma and beta meet the channels in reverse order."),
    ("affine", "applied before"): (
        "gamma and beta before normalizing", "gamma and beta are applied to X before it is "
        "normalized. The normalization takes them out again; they belong after it."),
    ("affine", "gamma before"): (
        "gamma before normalizing", "gamma scales X before it is normalized, so the normalization "
        "takes it out again. It belongs after it."),
    ("affine", "beta before"): (
        "beta before normalizing", "beta shifts X before it is normalized, so the normalization "
        "takes it out again. It belongs after it."),
    ("affine", "last axis"): (
        "gamma and beta wrongly broadcast", "gamma and beta are laid along the last axis of X. "
        "The channels are on axis 1."),
    ("centre", "mean not subtracted"): (
        "mean not subtracted", "The mean is not subtracted from X before the division."),
    ("centre", "mean added"): ("mean added", "The mean is added to X; it is to be taken away."),
    ("centre", "sign turned"): (
        "sign turned", "X is subtracted from the mean: every sign comes out turned round."),
    ("source", "the updated"): (
        "updated moving statistics used", "The moving statistics are moved first and X is "
        "normalized by the result. In training X is normalized by the statistics of its own "
        "batch, in prediction by the moving ones as they are."),
    ("source", "swapped"): (
        "mean and variance swapped", "Mean and variance have changed places: the variance is "
        "subtracted, and the root is taken of the mean. Look at the order in which they are passed "
        "on."),
    ("source", "the other mean"): ("mean of the wrong kind", ""),
    ("source", "the other variance"): ("variance of the wrong kind", ""),
}

BASICS = {
    (0,): "over the batch only, so that each position of the image has its own",
    (1,): "over the channels, one for each pixel",
    (2, 3): "over the pixels of each example (that is instance normalization)",
    (1, 2, 3): "over each example (that is layer normalization)",
    (0, 1, 2, 3): "over everything at once, one for the whole batch",
    (0, 1): "over batch and channels",
    (0, 1, 2): "over all axes but the last, as if the channels came last",
    (1, 2): "over axes 1 and 2", (0, 2): "over batch and height", (0, 3): "over batch and width",
}


def axes_named(axes, ndim):
    listed = f"axes {axes}" if len(axes) > 1 else f"axis {axes[0]}"
    if ndim == 4 and tuple(axes) in BASICS:
        return f"{BASICS[tuple(axes)]}, {listed}"
    if ndim == 2:
        return {(1,): "over each example (that is layer normalization), axis 1",
                (0, 1): "over everything at once, axes (0, 1)"}.get(tuple(axes), listed)
    return f"over {listed}"


def axes_kind(axes, ndim):
    if axes in LAST:
        return "statistics wrongly broadcast"
    return {"class": "statistics per class"}.get(
        axes, "wrong axes: per example" if tuple(axes) == tuple(range(1, ndim)) else
        "wrong axes: everything" if len(axes) == ndim else
        "wrong axes: over the channels" if tuple(axes) == (1,) else
        "wrong axes: batch only" if tuple(axes) == (0,) else
        "wrong axes: per instance" if tuple(axes) == tuple(range(2, ndim)) else "wrong axes")


def about_axes(axes, ndim):
    right = channel_axes(ndim)
    right = f"axes {right}" if len(right) > 1 else f"axis {right[0]}"
    if axes in LAST:
        return ("The mean and variance of the channels are laid along the last axis of X, where "
                "broadcasting puts a vector. The channels are on axis 1: keep the averaged axes.")
    if axes == "class":
        return ("Each class is normalized by statistics of its own. Conditional batch norm shares "
                "the statistics of the whole batch; only gamma and beta belong to a class.")
    return (f"Mean and variance are taken {axes_named(axes, ndim)}. Batch norm has one pair for "
            f"each channel, taken over {right}: batch and positions.")


def about_part(slot, choice, ndim):
    """The mean or the variance alone over other axes."""
    if choice == "over N":
        return "divided by N", ("For the mean, the sum is divided by the number of examples, but "
                                "m = {m} values were summed.")
    if choice == "sum":
        return "sum for the mean", ("Where the mean belongs, the sum over the batch is used: the "
                                    "division by m = {m} is missing.")
    what = "mean" if slot == "mean" else "variance"
    right = channel_axes(ndim)
    return axes_kind(choice, ndim), (
        f"The {what} is taken {axes_named(choice, ndim)}. It is taken over the same as the "
        f"{'variance' if what == 'mean' else 'mean'}: axes {right}, one value for each channel.")


ASKED = (" Is the mode asked for too early, when the layer is made? Or inside autograd.pause(), "
         "which switches training off as well?")


def about_source(choice, training):
    whole = {"the other": "", "the other mean": " mean", "the other variance": " variance"}[choice]
    things = whole or " statistics"
    if training:
        return ("moving statistics in training", f"In training X is normalized by the moving"
                f"{things}. There it takes those of the batch it is in; the moving ones are for "
                "prediction." + ASKED)
    return ("batch statistics in prediction", f"In prediction X is normalized by the{things} of "
            "its own batch. Then an answer depends on what else is in the batch; the moving ones "
            "are there for this.")


ROW_SAYINGS = {
    "row 0 for all": ("labels ignored", "row 0, whatever the label"),
    "last row for all": ("labels ignored", "the last row (or that of the largest label), whatever "
                         "its own"),
    "mean of the rows": ("labels ignored", "the mean of all rows, whatever the label"),
    "sum of the rows": ("labels ignored", "the sum of all rows, whatever the label"),
    "label + 1": ("labels shifted by one", "the row after that of the label"),
    "label + 1, clipped": ("labels shifted by one", "the row after that of the label"),
    "label - 1": ("labels shifted by one", "the row before that of the label"),
    "label - 1, clipped": ("labels shifted by one", "the row before that of the label"),
    "first label for all": ("one label for all", "the row of the first label of the batch"),
    "last label for all": ("one label for all", "the row of the last label of the batch"),
    "position in the batch": ("labels ignored", "the row of its position in the batch"),
    "classes in reverse": ("classes reversed", "the row counted from the end"),
    "labels sorted": ("labels sorted", "the row of another example, as if labels were sorted"),
    "batch in reverse": ("batch reversed", "the row of the example at the mirrored position"),
    "clipped to the last but one": ("labels clipped", "its row, clipped to the last but one"),
}


def about_rows(choice, part):
    name, row = ROW_SAYINGS[choice]
    things = "gamma and beta" if part == "both" else part
    return name, (f"Of {things}, an example gets {row}. It should be the row with the number "
                  "of its own label.")


def tell(faults, s):
    """Names and sentences for what was identified in a situation."""
    m = int(np.prod(s.X.shape)) // s.X.shape[1]
    names, said = [], []
    for slot, choice in faults.items():
        if slot == "axes":
            name, text = axes_kind(choice, s.X.ndim), about_axes(choice, s.X.ndim)
        elif slot in ("mean", "variance axes"):
            name, text = about_part(slot, choice, s.X.ndim)
        elif slot == "eps":
            name, text = "epsilon hard-coded", (
                f"Epsilon is {choice:g} whatever is passed. Use the argument.")
        elif slot == "source" and choice not in ("the updated", "swapped"):
            name, text = about_source(choice, s.training)
        elif slot == "rows":
            name, text = about_rows(choice, faults.get("rows of", "both"))
        elif slot == "rows of":
            continue
        else:
            name, text = SAYINGS[slot, choice]
        names.append(name)
        said.append(text.format(m=m, m1=m - 1))
    return names, " And: ".join(said)
