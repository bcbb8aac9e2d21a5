"""Before a run: random numbers, and the first values of a network."""

import random

import mxnet as mx
import numpy as np

from gluon_bn.arguments import accepting, check_pair
from gluon_bn.checkpoint import named_parameters


def length(data_iter):
    """The number of batches, None if it is unknown."""
    return len(data_iter) if hasattr(data_iter, "__len__") else None


def seed_everything(seed, epoch=0, batch=0):
    """Start the random numbers of MXNet, NumPy and Python.

    Parameters
    ----------
    seed : int
    epoch, batch : int; they choose another stream of numbers of the same seed

    Examples
    --------
    >>> training.seed_everything(0)
    >>> first = nd.random.normal(shape=2).asnumpy().tolist()
    >>> training.seed_everything(0)
    >>> nd.random.normal(shape=2).asnumpy().tolist() == first
    True
    """
    number = int(np.random.SeedSequence([seed, epoch, batch]).generate_state(1)[0] >> 1)
    mx.random.seed(number)
    np.random.seed(number)
    random.seed(number)


def initialize(net, ctx=None):
    """Give every parameter that has no value yet its first one: Xavier's, or the layer's own.

    Parameters
    ----------
    net : Block
    ctx : device, or None for the CPU

    Examples
    --------
    >>> net = nn.Dense(2, in_units=1)
    >>> training.initialize(net)
    >>> net(nd.ones((1, 1))).shape
    (1, 2)
    """
    for parameter in net.collect_params().values():
        try:
            parameter.list_ctx()
        except RuntimeError:
            parameter.initialize(ctx=ctx, default_init=mx.init.Xavier())


def prepare(net, data_iter, ctx):
    """The first values of a network on one device, and for a deferred parameter its shape."""
    initialize(net, ctx)
    places = {place for p in net.collect_params().values() for place in p.list_ctx()}
    if len(places) > 1:
        names = ", ".join(sorted(map(str, places)))
        raise ValueError(
            f"the network is on {len(places)} devices, {names}, and fit trains on "
            f"one: net.collect_params().reset_ctx(mx.{ctx}) moves it there"
        )
    for X, _ in map(check_pair, data_iter):
        with accepting(X):
            net(X[:1].as_in_context(ctx))  # prediction mode: no running statistic moves
        break


def same_start(workers, net, **facts):
    """Give all workers the values of the first one's network.

    Raises WorkersError if the networks or the facts differ.
    """
    parameters = named_parameters(net)
    workers.compare(**facts, parameters=[(name, tuple(p.shape)) for name, p in parameters.items()])
    for name, parameter in parameters.items() if workers.store else ():
        workers.store.broadcast(name, parameter.data(), parameter.data())
