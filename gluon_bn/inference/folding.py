"""A network without batch norm that predicts the same."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
from mxnet import autograd
from mxnet.gluon import Block, HybridBlock, nn
from mxnet.gluon.nn import conv_layers
from mxnet.util import is_np_array

from gluon_bn import runtime
from gluon_bn.arguments import BFLOAT16, Array, accepting
from gluon_bn.blocks import BatchNorm
from gluon_bn.conditional import ConditionalBatchNorm
from gluon_bn.inference.networks import (
    copy_of,
    followed_by,
    layer_by_layer,
    named_blocks,
    replace,
    set_values,
    values,
)

NORMS = (BatchNorm, nn.basic_layers._BatchNorm)


class ScaleShift(HybridBlock):
    """Y = scale X + shift, a value of each per channel: what a batch norm is in prediction.

    For images it is computed as a convolution 1x1 with one channel to a group, which MXNet does in
    the convolutions' own memory layout; multiplying and adding by broadcasting would leave it. Its
    parameters scale and shift have the shape in which they are used: the weight (C, 1, 1, 1) and
    bias (C,) of the convolution, or (1, C, 1).

    Parameters
    ----------
    channels : int, C
    axis : int, that of the channels
    num_dims : int, the rank of X
    dtype : str or type, of scale and shift
    **kwargs : prefix and params

    Examples
    --------
    >>> layer = inference.ScaleShift(2, axis=1, num_dims=2)
    >>> layer.initialize()
    >>> layer.scale.set_data(nd.array([[10, 100]]))
    >>> print(layer(nd.array([[1, 2]])).asnumpy())
    [[ 10. 200.]]
    """

    def __init__(self, channels: int, axis: int, num_dims: int, dtype="float32", **kwargs) -> None:
        super().__init__(**kwargs)
        axis = axis % num_dims
        self._convolution = None
        shapes = [tuple(channels if a == axis else 1 for a in range(num_dims))] * 2
        if axis == 1 and num_dims in (3, 4, 5) and np.dtype(dtype) != np.float16:
            self._convolution = {
                "kernel": (1,) * (num_dims - 2),
                "num_filter": channels,
                "num_group": channels,
            }
            shapes = [(channels,) + (1,) * (num_dims - 1), (channels,)]
        self.channels, self.axis, self.num_dims = channels, axis, num_dims
        self.scale, self.shift = (
            self.params.get(name, shape=shape, init=init, dtype=dtype)
            for name, shape, init in zip(("scale", "shift"), shapes, ("ones", "zeros"))
        )

    def hybrid_forward(self, F, X, scale, shift):
        if self._convolution:
            convolution = F.npx.convolution if is_np_array() else F.Convolution
            return convolution(X, scale, shift, **self._convolution)
        if is_np_array():
            return X * scale + shift
        return F.broadcast_add(F.broadcast_mul(X, scale), shift)

    def __repr__(self):
        return f"ScaleShift({self.channels}, axis={self.axis})"


class _Nothing(HybridBlock):
    """Where a batch norm was whose work the layer before it does now."""

    def hybrid_forward(self, F, X):
        return X

    def __repr__(self):
        return "Folded()"


def fold_batch_norm(net: Block, example: Array | tuple[Array, ...]) -> Block:
    """A copy of the network that predicts the same and has no batch norm.

    In prediction batch norm is a line per channel, y = a x + b with a = gamma / sqrt(var + epsilon)
    and b = beta - a mean. If x = W u + c comes out of a convolution (transposed or not) or a dense
    layer, and nothing else uses x, then y = (a W) u + (a c + b): the layer before takes new weights
    and the batch norm goes. Any other batch norm, in front of a convolution as in DenseNet or
    behind a sum, becomes a `ScaleShift`.

    Which it is, is read off the graph of the network, so it holds through Sequentials, residual
    sums and concatenations, for layers that are called twice and for weights that two layers share.
    The copy can be hybridized, saved and exported; it is for prediction, not to be trained on.

    Parameters
    ----------
    net : Block
    example : an input, X, or a tuple of inputs, on which the copy is compared with the network

    Returns
    -------
    Block

    Raises
    ------
    ValueError : the network cannot be folded
        It has a ConditionalBatchNorm, whose line depends on the label; it is no graph (a Block
        whose `forward` calls mx.nd itself: make it a HybridBlock); a batch norm has no layer of its
        own; or the copy does not predict the same on `example`.

    Examples
    --------
    >>> net = nn.HybridSequential()
    >>> net.add(nn.Dense(2, in_units=3), gluon_bn.BatchNorm(2))
    >>> net.initialize()
    >>> inference.fold_batch_norm(net, nd.ones((1, 3)))[1]
    Folded()
    """
    inputs = as_inputs(example)
    norms = {}
    for name, layer in named_blocks(net):
        if isinstance(layer, ConditionalBatchNorm):
            raise ValueError(
                f"layer {name!r} is a ConditionalBatchNorm: its scale and shift "
                "depend on the label and fit into no weight"
            )
        if isinstance(layer, NORMS):
            norms[name] = layer
    with autograd.pause(train_mode=False):
        with accepting(*inputs):
            expected = net(*inputs)
        runtime.settle()  # values will be read
        seen = _inputs_of(norms, net, inputs)
        lines = {id(layer): _as_line(layer, *seen[id(layer)]) for layer in norms.values()}
        folded = copy_of(net, lines)
        _fold(folded, inputs)
        check_same(expected, folded(*inputs))
    return folded


def as_inputs(example):
    """The inputs of a network, of which an example is one or a tuple."""
    return tuple(example) if isinstance(example, (tuple, list)) else (example,)


def _inputs_of(layers, net, inputs):
    """The number of axes and the type of what enters each layer on the example, by its id."""
    seen = {}
    handles = [
        layer.register_forward_pre_hook(
            lambda block, args: seen.__setitem__(id(block), (args[0].ndim, args[0].dtype))
        )
        for layer in layers.values()
    ]
    try:
        with layer_by_layer(net):
            net(*inputs)
    finally:
        for handle in handles:
            handle.detach()
    for name, layer in layers.items():
        if id(layer) not in seen:
            raise ValueError(f"layer {name!r} was not called on the example")
    return seen


def _as_line(layer, rank, dtype):
    """The ScaleShift that predicts as this batch norm does, and its activation behind it."""
    theirs = not isinstance(layer, BatchNorm)
    scaled = not layer._kwargs["fix_gamma"] if theirs else layer.scale
    shifted = theirs or layer.center  # Gluon adds a beta that center=False fixed
    epsilon = layer._kwargs["eps"] if theirs else layer.epsilon
    axis = layer._kwargs["axis"] if theirs else layer.axis
    activation = ("relu" if layer.fuse_relu else None) if theirs else layer.activation
    # One for each device: in training each has statistics of its own.
    a, gamma = values(layer.running_var), values(layer.gamma)
    a = {
        place: 1 / np.sqrt(var + epsilon) * (gamma[place] if scaled else 1)
        for place, var in a.items()
    }
    mean, beta = values(layer.running_mean), values(layer.beta)
    b = {place: (beta[place] if shifted else 0) - a[place] * mean[place] for place in a}
    dtype = "float32" if dtype == BFLOAT16 else dtype  # MXNet's mixed precision casts by itself
    line = ScaleShift(layer.gamma.shape[0], axis, rank, dtype, prefix=layer.prefix)
    line.initialize(ctx=list(a))
    set_values(line.scale, a)
    set_values(line.shift, b)
    line.exact = a, b
    return followed_by(line, activation)


def _fold(net, inputs):
    """Move each line of the network that directly follows a linear layer into its weights."""
    nodes, users = _graph(net, inputs)
    weights, lines = {}, {}
    for _, block in named_blocks(net):
        if isinstance(block, ScaleShift):
            lines[block.scale.name] = block
        elif type(block) is nn.Dense or isinstance(block, conv_layers._Conv):
            weights.setdefault(block.weight.name, []).append(block)

    def only_user(node):
        return users[node][0] if len(users[node]) == 1 else None

    for number, node in enumerate(nodes):
        if node["op"] != "null" or node["name"] not in lines:
            continue
        line = lines[node["name"]]
        product = only_user(number)
        if product is None:
            continue  # the layer is called twice, its line serves two places
        source = nodes[product]["inputs"][0][0]
        linear = nodes[source]
        if linear["op"] not in ("Convolution", "Deconvolution", "FullyConnected"):
            continue
        parameters = [i for i, *_ in linear["inputs"][1:]]
        owners = weights.get(nodes[parameters[0]]["name"], [])
        if (
            only_user(source) == product
            and len(owners) == 1
            and all(only_user(i) == source for i in parameters)
            and _into(owners[0], line)
        ):
            replace(net, line, _Nothing(prefix=line.prefix))


def _graph(net, inputs):
    """The nodes of the network's graph, and for each the nodes that use it ('end' at the end)."""
    names = ["data"] if len(inputs) == 1 else [f"data{i}" for i in range(len(inputs))]
    try:
        symbols = [mx.sym.var(name) for name in names]
        if is_np_array():
            symbols = [s.as_np_ndarray() for s in symbols]
        out = net(*symbols)
        if isinstance(out, (tuple, list)):
            out = mx.sym.Group([s.as_nd_ndarray() for s in out])
        graph = json.loads(out.tojson())
    except Exception as error:
        raise ValueError(
            "the network cannot be drawn as a graph, so it is unknown which layer follows which: "
            "its Blocks must be HybridBlocks that compute in hybrid_forward(F, X), with F in the "
            f"place of mx.nd ({type(error).__name__}: {str(error).splitlines()[0]})"
        ) from error
    users = [[] for _ in graph["nodes"]]
    for number, node in enumerate(graph["nodes"]):
        if "BatchNorm" in node["op"]:
            raise ValueError(
                f"{node['name']!r} is a batch norm that no BatchNorm layer of the "
                "network computes (F.BatchNorm, or a SymbolBlock); it cannot be found"
            )
        for source, *_ in node["inputs"]:
            users[source].append(number)
    for source, *_ in graph["heads"]:
        users[source].append("end")
    return graph["nodes"], users


def _into(layer, line):
    """Fold the line into the weights of the layer before it; False if it does not fit there."""
    a, b = line.exact
    dense = isinstance(layer, nn.Dense)
    axis = line.num_dims - 1 if dense else layer._kwargs["layout"].find("C")
    if line.axis != axis or set(layer.weight.list_ctx()) != set(a):
        return False

    def scales(a):
        """a, laid out against the weight, whose first axis is that of the outputs."""
        if dense or layer._op_name.lower() == "convolution":
            return a.reshape((-1,) + (1,) * (len(layer.weight.shape) - 1))
        # That of a transposed convolution is (in, out / groups, ...).
        groups = layer._kwargs["num_group"]
        a = np.repeat(a.reshape((groups, -1)), layer.weight.shape[0] // groups, axis=0)
        return a.reshape(a.shape + (1,) * (len(layer.weight.shape) - 2))

    set_values(
        layer.weight,
        {place: weight * scales(a[place]) for place, weight in values(layer.weight).items()},
    )
    if layer.bias is None:
        del layer.bias  # Gluon refuses to change None into a Parameter only if it was one
        layer.bias = layer.params.get(
            "bias", shape=(line.channels,), init="zeros", dtype=layer.weight.dtype
        )
        layer.bias.initialize(ctx=layer.weight.list_ctx())
        if "no_bias" in getattr(layer, "_kwargs", {}):
            layer._kwargs["no_bias"] = False
    set_values(
        layer.bias,
        {place: b[place] + a[place] * bias for place, bias in values(layer.bias).items()},
    )
    return True


def check_same(expected, actual):
    """Raise ValueError unless two networks predicted the same."""
    pairs = zip(*((y if isinstance(y, (tuple, list)) else [y]) for y in (expected, actual)))
    for before, after in pairs:
        y_is_half = before.dtype == np.float16
        before, after = (y.asnumpy().astype("float64") for y in (before, after))
        largest, scale = abs(before - after).max(), abs(before).max()
        tolerance = 2e-2 if y_is_half else 1e-3
        if not largest <= tolerance * max(scale, 1e-3):
            raise ValueError(
                f"the new network predicts something else on the example: the largest "
                f"difference is {largest:.3g}, the largest value {scale:.3g}. Running statistics "
                "that are not finite or have a variance of nearly 0 do this; recalibrate(net, "
                "data) first"
            )
