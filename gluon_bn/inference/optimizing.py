"""A trained network made ready for prediction in one call."""

from __future__ import annotations

from collections.abc import Callable

from mxnet import autograd
from mxnet.gluon import Block

from gluon_bn import runtime
from gluon_bn.arguments import Array, accepting
from gluon_bn.inference.folding import NORMS, ScaleShift, as_inputs, check_same, fold_batch_norm
from gluon_bn.inference.networks import all_blocks


def optimize(
    net: Block, example: Array | tuple[Array, ...], say: Callable[[str], object] = print
) -> Block:
    """A copy of the network that predicts the same, faster: folded, hybridized, with memory that is
    planned once.

    `fold_batch_norm` first; then MXNet compiles the copy to a graph, with `static_alloc` and
    `static_shape`; then the copy is compared with the network on `example`. The copy is for
    prediction, not to be trained on, and fastest on batches of one shape (each new shape is planned
    anew, once). The network itself stays as it is.

    Parameters
    ----------
    net : Block
        A network that has been trained, with our layers or Gluon's.
    example : NDArray, or tuple of them
        Its input, in the shape of the batches to come.
    say : function of a string
        What was done is told to it; `lambda line: None` keeps it to itself.

    Returns
    -------
    HybridBlock

    Raises
    ------
    ValueError
        For what `fold_batch_norm` refuses, and if the copy does not predict the same on `example`.

    Examples
    --------
    >>> net = nn.HybridSequential()
    >>> net.add(nn.Dense(2, in_units=3), gluon_bn.BatchNorm(2))
    >>> net.initialize()
    >>> inference.optimize(net, nd.ones((1, 3)), say=lambda line: None)[1]
    Folded()
    """
    inputs = as_inputs(example)
    norms = sum(isinstance(block, NORMS) for block in all_blocks(net))
    fast = fold_batch_norm(net, example)
    scaled = sum(isinstance(block, ScaleShift) for block in all_blocks(fast))
    with autograd.pause(train_mode=False), accepting(*inputs):
        expected = net(*inputs)
        fast.hybridize(static_alloc=True, static_shape=True)
        for _ in range(2):  # the first call draws the graph, the second runs it
            check_same(expected, fast(*inputs))
    runtime.settle()
    say(
        f"{norms} batch norms: {norms - scaled} folded into the layer before, {scaled} computed as "
        "a scale and a shift; one graph with its memory planned; same prediction on the example"
    )
    return fast
