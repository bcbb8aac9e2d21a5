"""Exact statistics of the whole training set, in the place of moving averages."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable

import numpy as np
from mxnet import autograd, nd
from mxnet.gluon import Block

from gluon_bn import functional, runtime
from gluon_bn.arguments import accepting, as_nd, compute_type
from gluon_bn.blocks import BatchNorm
from gluon_bn.conditional import ConditionalBatchNorm
from gluon_bn.inference.networks import (
    GLUONS,
    layer_by_layer,
    named_blocks,
    set_values,
    values,
)
from gluon_bn.relatives import BatchRenorm
from gluon_bn.workers import World


def population_statistics(
    net: Block, data: Iterable, forward: Callable | None = None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The mean and variance of what enters each batch norm layer, over all examples of `data`.

    The method is Algorithm 2 of Ioffe and Szegedy (2015): the layers of the trained network
    normalize by the statistics of their batch, as they did in training, and these are averaged over
    the batches. The average is that of Wu and Johnson (2021, "Rethinking 'Batch' in BatchNorm",
    section 3.3): with n_b values in batch b, N together, mean_b and (biased) var_b::

        mean = sum_b n_b mean_b / N
        var  = sum_b n_b (var_b + (mean_b - mean)^2) / N,

    the exact mean and variance of all values, also when the last batch is short or the batches
    differ. The paper's m / (m - 1) E[var_b] is an unbiased estimate of the same variance from
    batches of m values drawn at random; it leaves out how the batch means scatter and cannot know
    of batches of unequal size.

    Only the batch norm layers are in training mode. The rest predicts, so Dropout drops nothing,
    as it will at test time, and no state moves; weights and statistics are as before when this
    returns. A hybridized network computes layer by layer meanwhile, and stays hybridized. Layers
    with use_global_stats=True keep to their statistics and are left out.

    Parameters
    ----------
    net : Block
    data : iterable of X, or of (X, y), of which X is given to the network
    forward : function forward(net, batch), for networks that want more than X
        For instance `lambda net, batch: net(*batch)` for conditional batch norm.

    Returns
    -------
    dict, name of the layer -> (mean, var), two NumPy arrays (C,) in float64
        The name is that in `save_parameters` files, '1' or '3.0.norm1'; '' if `net` itself is the
        layer.

    Raises
    ------
    TypeError, ValueError : there is no data, no batch norm layer, or one with statistics per class

    Examples
    --------
    >>> layer = gluon_bn.BatchNorm(1)
    >>> layer.initialize()
    >>> batches = [nd.array([[1], [3]]), nd.array([[5], [7]])]
    >>> inference.population_statistics(layer, batches)
    {'': (array([4.]), array([5.]))}
    """
    measured = _measure(net, data, forward, World())
    return {name: totals.result() for name, (_, totals) in measured.items()}


def recalibrate(
    net: Block, data: Iterable, forward: Callable | None = None, workers: World | None = None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Set the running statistics of each batch norm layer to its `population_statistics`.

    For networks whose test accuracy swings while the loss falls: moving averages lag behind weights
    that move fast, exact statistics do not. Everything else in the network stays as it is; training
    may go on afterwards. `BatchRenorm` gets its `running_stddev` too; its renorm_mean and
    renorm_stddev, which serve training, stay. With `zero_debias` the average under the correction
    is set to match.

    Parameters
    ----------
    net, data, forward : as for `population_statistics`
    workers : `gluon_bn.workers.World`, each of which measures its part of each batch, or None
        All of them get the statistics of all the data.

    Returns
    -------
    dict, as `population_statistics` returns it

    Raises
    ------
    TypeError, ValueError : as there, and for statistics that are not finite

    Examples
    --------
    >>> layer = gluon_bn.BatchNorm(1)
    >>> layer.initialize()
    >>> found = inference.recalibrate(layer, [nd.array([[1], [3]]), nd.array([[5], [7]])])
    >>> print(layer.running_mean.data().asnumpy())
    [4.]
    """
    measured = _measure(net, data, forward, workers or World())
    for name, (_, totals) in measured.items():
        if not all(np.isfinite(value).all() for value in totals.result()):
            raise ValueError(
                f"what enters layer {name!r} is not finite on this data, so it has no "
                "mean; the network is left as it was"
            )
    for layer, totals in measured.values():
        mean, var = totals.result()
        set_values(layer.running_mean, mean)
        set_values(layer.running_var, var)
        if isinstance(layer, BatchRenorm):
            set_values(layer.running_stddev, np.sqrt(var + layer.epsilon))
        if getattr(layer, "zero_debias", False):
            set_values(
                layer.running_mean_biased,
                {
                    place: mean * (1 - layer.momentum**steps)
                    for place, steps in values(layer.num_batches).items()
                },
            )
    return {name: totals.result() for name, (_, totals) in measured.items()}


def measured_layers(net):
    """{name: layer} of the batch norm layers whose statistics `recalibrate` would measure."""
    return {
        name: layer
        for name, layer in named_blocks(net)
        if isinstance(layer, (BatchNorm, *GLUONS)) and not _frozen(layer)
    }


class _Totals:
    """The mean and variance of all values so far, batch by batch (Chan et al., 1979)."""

    def __init__(self):
        self.n = 0.0

    def add(self, n, mean, var):
        if self.n == 0:
            self.n, self.mean, self.squares = n, mean, n * var
            return
        far, total = mean - self.mean, self.n + n
        self.squares = self.squares + n * var + far**2 * (self.n * n / total)
        self.mean = self.mean + far * (n / total)
        self.n = total

    def result(self):
        return self.mean, self.squares / self.n

    @classmethod
    def of_all(cls, parts):
        whole = cls()
        for part in parts:
            if part.n:
                whole.add(part.n, *part.result())
        return whole


def _measure(net, data, forward, workers):
    """name -> (layer, its _Totals), in the order of the network."""
    if isinstance(data, nd.NDArray):
        raise TypeError(
            f"data must yield batches, and this is one array, of shape {data.shape}: "
            "put it into a list, [X]"
        )
    layers = measured_layers(net)
    if not layers:
        raise ValueError("the network has no batch norm layer whose statistics could be measured")
    for name, layer in layers.items():
        if getattr(layer, "per_class_statistics", False):
            raise ValueError(
                f"layer {name!r} keeps statistics per class; only those that all "
                "classes share can be recalibrated"
            )
    totals = {name: _Totals() for name in layers}
    if forward is None:

        def forward(net, batch):
            X = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
            if not isinstance(X, nd.NDArray):
                raise TypeError(
                    "a batch must be X or (X, y), X an mx.nd.NDArray or an "
                    f"mx.np.ndarray, got {type(X).__name__}"
                )
            if 0 in X.shape:
                raise ValueError(f"a batch holds nothing to measure: its X has shape {X.shape}")
            with accepting(X):
                return net(X)

    runtime.settle()  # values will be copied
    batches = iter(data)
    first = next(batches, None)
    if first is None:
        raise ValueError("there is nothing to measure: data yielded no batch")
    with autograd.pause(train_mode=False), layer_by_layer(net):
        if any(0 in p.shape or -1 in p.shape for p in net.collect_params().values()):
            forward(net, first)  # the shapes that only the first batch tells
        with _unchanged(layers.values()), contextlib.ExitStack() as stack:
            for name, layer in layers.items():
                stack.enter_context(_measuring(layer, totals[name], workers))
            for batch in itertools.chain([first], batches):
                if workers.size > 1:
                    batch = workers.part(batch if isinstance(batch, (tuple, list)) else [batch])
                forward(net, batch)
                nd.waitall()  # one batch at a time in memory
    if workers.size > 1:
        totals = {name: _Totals.of_all(workers.gather(found)) for name, found in totals.items()}
    return {name: (layers[name], found) for name, found in totals.items() if found.n}


@contextlib.contextmanager
def _measuring(layer, totals, workers):
    """In here the layer normalizes by the batch, and `totals` hears of what enters it."""
    computes = layer.forward
    axis = layer._kwargs["axis"] if isinstance(layer, GLUONS) else layer.axis
    conditional = isinstance(layer, ConditionalBatchNorm)

    def forward(X, *inputs):
        weights = None if conditional or not inputs else as_nd(inputs[0])
        x = compute_type(as_nd(X))
        axes = tuple(a for a in range(x.ndim) if a != axis % x.ndim)
        mean, var = functional.moments(x, axes, weights)
        n = x.size / x.shape[axis]
        if weights is not None:
            n *= float(weights.mean().asscalar())
        if not workers.idle:
            totals.add(n, *(a.asnumpy().astype("float64").reshape(-1) for a in (mean, var)))
        with autograd.train_mode():
            return computes(X, *inputs)

    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward


@contextlib.contextmanager
def _unchanged(layers):
    """What the layers' parameters are at the start of this, they are at its end."""
    before = [
        (array, array.copy())
        for layer in layers
        for p in layer._reg_params.values()
        for array in p.list_data()
    ]
    try:
        yield
    finally:
        for array, value in before:
            array[:] = value


def _frozen(layer):
    return (
        layer._kwargs["use_global_stats"] if isinstance(layer, GLUONS) else layer.use_global_stats
    )
