"""The table of batch_norm, conditional or not: what it shares with others, its two modes, its
moving statistics, and the rows of the labels."""

# A table is read by its rows.
# fmt: off

from gluon_bn.check import mistakes
from gluon_bn.check.mistakes import MEAN, VAR, before, changes

SOURCE = """
def f(X, gamma, beta, moving_mean, moving_var, eps, momentum):
    axes = (0,) if X.ndim == 2 else (0, 2, 3)
    m = X.size // X.shape[1]
    if autograd.is_training():
        mean = X.mean(axis=axes, keepdims=True)
        var = ((X - mean) ** 2).mean(axis=axes, keepdims=True)
        new_mean = momentum * moving_mean + (1 - momentum) * mean
        new_var = momentum * moving_var + (1 - momentum) * var
    else:
        mean, var = moving_mean, moving_var
        new_mean, new_var = moving_mean, moving_var
    X_hat = (X - mean) / nd.sqrt(var + eps)
    Y = gamma * X_hat + beta
    return Y, new_mean, new_var
"""

# --------------------------------------------------------------------------------------- two modes

IN_TRAINING = ("In training X is normalized by the moving {}. There it takes those of the batch it "
               "is in; the moving ones are for prediction. Is the mode asked for too early, when "
               "the layer is made? Or inside autograd.pause(), which switches training off too?")
IN_PREDICTION = ("In prediction X is normalized by the {} of its own batch. Then an answer depends "
                 "on what else is in the batch; the moving ones are there for this.")
CANCELLATION = ("{} is right for ordinary inputs but loses its digits here. A difference of two "
                "large and nearly equal numbers does that, as in E[x^2] - E[x]^2: take the mean "
                "away before squaring.")
MOVED = ("The moving statistics are moved first and X is normalized by the result. In training X "
         "is normalized by the statistics of its own batch, in prediction by the moving ones as "
         "they are.")
EXCHANGED = ("Training and prediction have changed places: the moving statistics are used in "
             "training, those of the batch in prediction. Look at the condition.")
RECORDING = ("Whether autograd records and whether the network trains are two questions. Inside "
             "autograd.train_mode() without record(), and inside record(train_mode=False), yours "
             "takes the wrong one for the other.")
OWN = f"mean = {MEAN}\n        var = {VAR}"
modes = (
    *before("X_hat = ",
            ("moving statistics in training", "mean, var = moving_mean, moving_var",
             IN_TRAINING.format("statistics")),
            ("moving statistics in training", "mean = moving_mean", IN_TRAINING.format("mean")),
            ("moving statistics in training", "var = moving_var", IN_TRAINING.format("variance")),
            ("updated moving statistics used", "mean, var = new_mean, new_var", MOVED)),
    *changes(
        "        mean, var = moving_mean, moving_var",
        ("batch statistics in prediction", f"        {OWN}", IN_PREDICTION.format("statistics")),
        ("batch statistics in prediction", f"        mean, var = {MEAN}, moving_var",
         IN_PREDICTION.format("mean")),
        ("batch statistics in prediction", f"        {OWN}\n        mean = moving_mean",
         IN_PREDICTION.format("variance"))),
    *changes("if autograd.is_training()",
             ("training and prediction exchanged", "if not autograd.is_training()", EXCHANGED),
             ("is_recording for is_training", "if autograd.is_recording()", RECORDING)),
    *changes(
        VAR,
        ("variance around the moving mean", VAR.replace("mean)", "moving_mean)", 1),
         "The variance is taken around the moving mean. In training it is the batch's own mean."),
        ("cancellation", "(X ** 2).mean(axis=axes, keepdims=True) - mean ** 2",
         CANCELLATION.format("Y"))),
    *before("axes = ", *(
        (f"{said} before normalizing", code, f"{said} is applied before X is normalized. The "
         "normalization takes that out again; it belongs after it.") for said, code in (
            ("gamma and beta", "X, gamma, beta = gamma * X + beta, gamma * 0 + 1, beta * 0"),
            ("gamma", "X, gamma = gamma * X, gamma * 0 + 1"),
            ("beta", "X, beta = X + beta, beta * 0")))),
)

# --------------------------------------------------------------------------- the moving statistics


def moving(s):
    """Mistakes of the moving mean, or of the moving variance."""
    past, batch = f"momentum * moving_{s}", "(1 - momentum)"
    average = "(gamma * {0} + beta).mean(axis=axes, keepdims=True)"
    spread = f"((gamma * {{0}} + beta - {average}) ** 2).mean(axis=axes, keepdims=True)"
    form, other = (average, "var") if s == "mean" else (spread, "mean")
    return (
        *changes(
            f"{past} + {batch}",
            ("momentum reversed", f"(1 - momentum) * moving_{s} + momentum",
             "The weights have changed places. Here momentum is the weight of the past, 1 - "
             "momentum that of this batch, as in Gluon and TensorFlow (in PyTorch and the newer "
             "d2l it is the other way round)."),
            *(("momentum hard-coded", f"{weight:g} * moving_{s} + {1 - weight:g}",
               f"The past weighs {weight:g} whatever momentum is passed. Use the argument.")
              for weight in (0.9, 0.1, 0.99, 0.01, 0.5, 0.999)),
            ("moving statistics not updated", f"moving_{s} + 0",
             "After a call in training it is what it was before. Without an update, prediction "
             "never learns what the data look like."),
            ("moving statistics replaced", f"0 * moving_{s} + 1",
             "It is replaced by that of the batch. It takes a step towards it instead."),
            ("weights do not sum to one",
             [f"moving_{s} + {batch}", f"{past} + 1", f"{past} + momentum",
              f"(1 - momentum) * moving_{s} + {batch}", f"moving_{s} + 1"],
             "The weights of past and batch do not sum to one, as those of an average do: momentum "
             "and 1 - momentum."),
            ("past forgotten", f"0 * moving_{s} + {batch}",
             "Only the batch's part of the average is kept; the past is missing."),
            ("batch forgotten", f"{past} + 0",
             "It only shrinks: for the batch nothing is added, or the mean of normalized values."),
            ("batch subtracted", f"{past} - {batch}", "The batch's part is subtracted, not added."),
            ("updated twice", f"momentum ** 2 * moving_{s} + (1 - momentum ** 2)",
             "It takes two steps towards the batch in one call."),
            ("moving statistics lost", f"0 * moving_{s} + 0", "It is zero after the call.")),
        *changes(
            f" * {s}\n",
            ("statistics of Y stored", f" * {form.format('((X - mean) / nd.sqrt(var + eps))')}\n",
             "What is stored is taken from Y. Prediction needs that of X, what comes in."),
            ("gamma and beta before normalizing", f" * {form.format('X')}\n",
             "What is stored is taken from X after gamma and beta; the statistics are those of X."),
            ("mean and variance swapped", f" * {other}\n",
             "The moving mean gets the variance, or the moving variance the mean.")))


stored = changes(
    " * var\n",
    ("unbiased variance stored", " * var * m / (m - 1)\n",
     "The variance that is stored is divided by m - 1 = {m1}, not m = {m}. PyTorch keeps that one; "
     "Gluon, d2l and this course keep the biased one, which also normalizes the batch "
     "(docs/conventions.md)."),
    ("std stored", [" * nd.sqrt(var)\n", " * nd.sqrt(var + eps)\n", " / nd.sqrt(var + eps)\n"],
     "The standard deviation, or its inverse, goes into the moving variance. It holds the variance "
     "alone; prediction takes the root."),
    ("epsilon stored", " * (var + eps)\n",
     "Epsilon is stored in the moving variance, and prediction adds it once more."),
    ("normalized statistics stored", " * (var / (var + eps))\n",
     "What is stored is taken from the normalized X. Prediction needs that of X itself."),
    ("variance around the moving mean",
     " * ((X - new_mean) ** 2).mean(axis=axes, keepdims=True)\n",
     "The variance that is stored is taken around the moving mean, not that of this batch."))

returned = changes(
    "return Y, new_mean, new_var",
    ("mean and variance swapped", "return Y, new_var, new_mean",
     "The moving mean and the moving variance come back in each other's place.")) + changes(
    "        new_mean, new_var = moving_mean, moving_var",
    ("moving statistics updated in prediction",
     f"        {OWN}\n"
     "        new_mean = momentum * moving_mean + (1 - momentum) * mean\n"
     "        new_var = momentum * moving_var + (1 - momentum) * var\n"
     "        mean, var = moving_mean, moving_var",
     "In prediction it moves towards the batch. There the statistics are read, never written: an "
     "answer must not change the next one."))

BATCH_NORM = (*modes, *mistakes.formula, *mistakes.channels, *mistakes.statistics,
              *mistakes.over_axes, *returned, *moving("mean"), *moving("var"), *stored,
              *mistakes.cut)

# ------------------------------------------------------------------------------ the rows of labels

CONDITIONAL_SOURCE = SOURCE.replace("f(X, ", "f(X, labels, ").replace("    axes = ", """\
    rows = (X.shape[0], X.shape[1]) + (1,) * (X.ndim - 2)
    gamma = nd.take(gamma, labels).reshape(rows)
    beta = nd.take(beta, labels).reshape(rows)
    axes = """, 1)

ROWS = (  # (name, how it is said, which rows an example gets: labels, or a table, as text)
    ("labels ignored", "row 0 or the last one, whatever the label", "0 * labels", "0 * labels + 4"),
    ("labels shifted by one", "the row after that of the label", "labels + 1", "(labels + 1) % 5"),
    ("labels shifted by one", "the row before that of the label", "labels - 1", "(labels + 4) % 5"),
    ("one label for all", "the row of one label of the batch", "0 * labels + labels[0]",
     "0 * labels + labels[-1]"),
    ("labels sorted", "a row as if labels were sorted", "nd.take(labels, labels.argsort())"),
    ("labels ignored", "the row of its position in the batch",
     "nd.arange(len(labels), dtype='int32') % 5"),
    ("classes reversed", "the row counted from the end", "4 - labels"),
    ("batch reversed", "the row of the example at the mirrored position", "labels[::-1]"),
    ("labels clipped", "its row, clipped to the last but one", "nd.minimum(labels, 3)"),
    ("labels ignored", "the mean or the sum of all rows",
     "0 * {0} + {0}.mean(axis=0, keepdims=True)", "0 * {0} + {0}.sum(axis=0, keepdims=True)"))


def rows():
    for name, said, wrong in [(name, said, w) for name, said, *wrongs in ROWS for w in wrongs]:
        sentence = f"Of {{}}, an example gets {said}. It should be the row of its own label."
        table = "{0}" in wrong
        both = [f"{p} = {wrong.format(p)}" for p in ("gamma", "beta")]
        both = "; ".join(both) if table else f"labels = {wrong}"
        yield from before("rows = ", (name, both, sentence.format("gamma and beta")))
        for p in ("gamma", "beta"):
            take = f"{wrong.format(p)}, labels" if table else f"{p}, {wrong}"
            yield from changes(f"nd.take({p}, labels)",
                               (name, f"nd.take({take})", sentence.format(p)))


PER_CLASS = """\
        same = nd.broadcast_equal(labels.reshape((-1, 1)), labels.reshape((1, -1)))
        same = same.astype(X.dtype) / same.astype(X.dtype).sum(axis=1, keepdims=True)
        mean = X if X.ndim == 2 else X.mean(axis=(2, 3))
        mean = nd.dot(same, mean).reshape(rows)
        var = (X - mean) ** 2 if X.ndim == 2 else ((X - mean) ** 2).mean(axis=(2, 3))
        var = nd.dot(same, var).reshape(rows)"""
CONDITIONAL = (*rows(), *changes(
    f"        {OWN}",
    ("statistics per class", PER_CLASS,
     "Each class is normalized by statistics of its own. Conditional batch norm shares the "
     "statistics of the whole batch; only gamma and beta belong to a class.")), *BATCH_NORM)
