"""The accuracy of a network: `evaluate`, and the counting under it."""

import contextlib

import mxnet as mx
import numpy as np
from mxnet import autograd

from gluon_bn.arguments import accepting, check_data, check_labels, check_pair, check_scores


def evaluate(net, data_iter, ctx=None):
    """The accuracy of `net` on all of `data_iter`: correct answers divided by examples.

    Each example counts once, also in a last batch that is smaller. The network computes in
    prediction mode, with its running statistics, even inside `autograd.record`, and it is given X
    alone, never y. An example whose scores are not numbers counts as wrong.

    Parameters
    ----------
    net : Block from X (N, ...) to scores (N, classes)
    data_iter : batches (X, y), y the class numbers (N,)
    ctx : device, by default that of the network's parameters

    Returns
    -------
    float in [0, 1]

    Raises
    ------
    ValueError : there is no example
    TypeError, ValueError : a batch is no (X, y), or has a label without a score

    Examples
    --------
    >>> scores = nn.Lambda(lambda X: X)
    >>> training.evaluate(scores, [(nd.array([[3, 1], [1, 3]]), nd.array([0, 0]))])
    0.5
    """
    check_data("data_iter", data_iter, passes=1)
    return share([count(net, data_iter, ctx or device_of(net))])


def count(net, data_iter, ctx):
    """`(correct, examples)` of `net` on the batches of `data_iter`."""
    correct = examples = 0
    with autograd.pause(train_mode=False):
        for X, y in map(check_pair, data_iter):
            correct += count_correct(scores_of(net, X.as_in_context(ctx)), y)
            examples += len(y)
    return correct, examples


def share(counts):
    """The accuracy, from the `(correct, examples)` of all who counted."""
    correct, examples = map(sum, zip(*counts))
    if not examples:
        raise ValueError("there is nothing to evaluate: data_iter yielded no batch")
    return correct / examples


def scores_of(net, X):
    """The scores (N, classes) of a network for X, or a sentence why it gives none."""
    with accepting(X):
        return check_scores(net(X), X)


def count_correct(scores, y):
    """How many rows of `scores` are the largest at the class in `y`; classes that are none raise.

    (The loss does not: MXNet takes the last class for a label that is too large.)
    """
    y = check_labels(y, scores, scores.shape[1])
    scores = scores.asnumpy()
    return int(((scores.argmax(axis=1) == y) & ~np.isnan(scores).any(axis=1)).sum())


def device_of(net):
    """The device of the network's parameters; the CPU if they are on none yet."""
    for parameter in net.collect_params().values():
        with contextlib.suppress(RuntimeError):  # not initialized
            return parameter.list_ctx()[0]
    return mx.cpu()
