"""After training: better statistics, fewer layers, another library's layer.

    recalibrate(net, train_iter)           # exact statistics instead of moving averages
    fast = fold_batch_norm(net, X)         # the same prediction without any batch norm
    to_gluon(net).export('lenet')          # a symbol file that MXNet loads without this package

All of it takes networks with our `BatchNorm` and with `gluon.nn.BatchNorm`, hybridized or not.
`fold_batch_norm`, `to_gluon` and `from_gluon` return a copy; their argument stays as it is.
"""

import contextlib
import copy
import itertools
import json

import mxnet as mx
import numpy as np
from mxnet import autograd, nd
from mxnet.gluon import Block, HybridBlock, nn
from mxnet.gluon.nn import conv_layers
from mxnet.util import is_np_array

from gluon_bn import functional
from gluon_bn.blocks import BatchNorm, ConditionalBatchNorm
from gluon_bn.hybrid import ArrayBlock, as_nd
from gluon_bn.relatives import BatchRenorm

_GLUONS = (nn.BatchNorm, nn.BatchNormReLU)


# Statistics of the whole training set -------------------------------------------------------------

def population_statistics(net, data, forward=None):
    """The mean and variance of what enters each batch norm layer, over all examples of `data`.

    The method is Algorithm 2 of Ioffe and Szegedy (2015): the layers of the trained network
    normalize by the statistics of their batch, as they did in training, and these are averaged over
    the batches. The average is that of Wu and Johnson (2021, "Rethinking 'Batch' in BatchNorm",
    section 3.3): with n_b values in batch b, N together, mean_b and (biased) var_b,

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

    data : an iterable of X, or of (X, y), of which X is given to the network.
    forward : a function forward(net, batch) for networks that want more than X, for instance
        `lambda net, batch: net(*batch)` for conditional batch norm.

    Returns a dict, name of the layer -> (mean, var), two NumPy arrays (C,) in float64. The name is
    that in `save_parameters` files, '1' or '3.0.norm1'; '' if `net` itself is the layer.

    Raises ValueError if there is no data, no batch norm layer, or one with statistics per class.
    """
    return {name: totals.result() for name, (_, totals) in _measure(net, data, forward).items()}


def recalibrate(net, data, forward=None):
    """Set the running statistics of each batch norm layer to its `population_statistics`.

    For networks whose test accuracy swings while the loss falls: moving averages lag behind weights
    that move fast, exact statistics do not. Everything else in the network stays as it is; training
    may go on afterwards. Returns what `population_statistics` does and raises what it does, and
    ValueError for statistics that are not finite.

    `BatchRenorm` gets its `running_stddev` too; its renorm_mean and renorm_stddev, which serve
    training, stay. With `zero_debias` the average under the correction is set to match.
    """
    measured = _measure(net, data, forward)
    for name, (_, totals) in measured.items():
        if not all(np.isfinite(value).all() for value in totals.result()):
            raise ValueError(f"what enters layer {name!r} is not finite on this data, so it has no "
                             "mean; the network is left as it was")
    for layer, totals in measured.values():
        mean, var = totals.result()
        _set(layer.running_mean, mean)
        _set(layer.running_var, var)
        if isinstance(layer, BatchRenorm):
            _set(layer.running_stddev, np.sqrt(var + layer.epsilon))
        if getattr(layer, "zero_debias", False):
            steps = as_nd(layer.num_batches.list_data()[0]).asnumpy().astype("float64")
            _set(layer.running_mean_biased, mean * (1 - layer.momentum ** steps))
    return {name: totals.result() for name, (_, totals) in measured.items()}


class _Totals:
    """The mean and variance of all values so far, batch by batch (Chan et al., 1979)."""

    def __init__(self):
        self.n = 0.0

    def add(self, n, mean, var):
        if self.n == 0:
            self.n, self.mean, self.squares = n, mean, n * var
            return
        far, total = mean - self.mean, self.n + n
        self.squares = self.squares + n * var + far ** 2 * (self.n * n / total)
        self.mean = self.mean + far * (n / total)
        self.n = total

    def result(self):
        return self.mean, self.squares / self.n


def _measure(net, data, forward):
    """name -> (layer, its _Totals), in the order of the network."""
    layers = {name: layer for name, layer in _named_blocks(net)
              if isinstance(layer, (BatchNorm, *_GLUONS)) and not _frozen(layer)}
    if not layers:
        raise ValueError("the network has no batch norm layer whose statistics could be measured")
    for name, layer in layers.items():
        if getattr(layer, "per_class_statistics", False):
            raise ValueError(f"layer {name!r} keeps statistics per class; only those that all "
                             "classes share can be recalibrated")
    totals = {name: _Totals() for name in layers}
    if forward is None:
        def forward(net, batch):
            return net(batch[0] if isinstance(batch, (tuple, list)) else batch)

    batches = iter(data)
    first = next(batches, None)
    if first is None:
        raise ValueError("there is nothing to measure: data yielded no batch")
    with autograd.pause(train_mode=False), _layer_by_layer(net):
        if any(0 in p.shape or -1 in p.shape for p in net.collect_params().values()):
            forward(net, first)  # the shapes that only the first batch tells
        with _unchanged(layers.values()), contextlib.ExitStack() as stack:
            for name, layer in layers.items():
                stack.enter_context(_measuring(layer, totals[name]))
            for batch in itertools.chain([first], batches):
                forward(net, batch)
                nd.waitall()  # one batch at a time in memory
    return {name: (layers[name], found) for name, found in totals.items() if found.n}


@contextlib.contextmanager
def _measuring(layer, totals):
    """In here the layer normalizes by the batch, and `totals` hears of what enters it."""
    computes = layer.forward
    axis = layer._kwargs["axis"] if isinstance(layer, _GLUONS) else layer.axis
    conditional = isinstance(layer, ConditionalBatchNorm)

    def forward(X, *inputs):
        weights = None if conditional or not inputs else as_nd(inputs[0])
        x = as_nd(X)
        x = x.astype("float32") if x.dtype == np.float16 else x
        axes = tuple(a for a in range(x.ndim) if a != axis % x.ndim)
        mean, var = functional.moments(x, axes, weights)
        n = x.size / x.shape[axis]
        if weights is not None:
            n *= float(weights.mean().asscalar())
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
    before = [(array, array.copy()) for layer in layers for p in layer._reg_params.values()
              for array in p.list_data()]
    try:
        yield
    finally:
        for array, value in before:
            array[:] = value


@contextlib.contextmanager
def _layer_by_layer(net):
    """The Blocks of a hybridized network compute one after the other; its graph is kept."""
    active = [b for b in _blocks(net) if isinstance(b, HybridBlock) and b._active]
    for block in active:
        block._active = False
    try:
        yield
    finally:
        for block in active:
            block._active = True


def _frozen(layer):
    return layer._kwargs["use_global_stats"] if isinstance(layer, _GLUONS) \
        else layer.use_global_stats


def _set(parameter, value):
    for array in parameter.list_data():
        array[:] = mx.nd.array(value, dtype=array.dtype).reshape(array.shape) \
            if not isinstance(array, mx.np.ndarray) else mx.np.array(value, dtype=array.dtype)


# A network without batch norm ---------------------------------------------------------------------

class ScaleShift(HybridBlock):
    """Y = scale X + shift, a value of each per channel: what a batch norm is in prediction.

    For images it is computed as a convolution 1x1 with one channel to a group, which MXNet does in
    the convolutions' own memory layout; multiplying and adding by broadcasting would leave it.

    Input: X of `num_dims` axes, channels on `axis`. Parameters: scale and shift, in the shape in
    which they are used: the weight (C, 1, 1, 1) and bias (C,) of the convolution, or (1, C, 1).
    """

    def __init__(self, channels, axis, num_dims, dtype="float32", **kwargs):
        super().__init__(**kwargs)
        axis = axis % num_dims
        self._convolution = None
        shapes = [tuple(channels if a == axis else 1 for a in range(num_dims))] * 2
        if axis == 1 and num_dims in (3, 4, 5) and np.dtype(dtype) != np.float16:
            self._convolution = {"kernel": (1,) * (num_dims - 2), "num_filter": channels,
                                 "num_group": channels}
            shapes = [(channels,) + (1,) * (num_dims - 1), (channels,)]
        self.channels, self.axis, self.num_dims = channels, axis, num_dims
        self.scale, self.shift = (self.params.get(name, shape=shape, init=init, dtype=dtype)
                                  for name, shape, init in zip(("scale", "shift"), shapes,
                                                               ("ones", "zeros")))

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


def fold_batch_norm(net, example):
    """A copy of the network that predicts the same and has no batch norm.

    In prediction batch norm is a line per channel, y = a x + b with a = gamma / sqrt(var + epsilon)
    and b = beta - a mean. If x = W u + c comes out of a convolution (transposed or not) or a dense
    layer, and nothing else uses x, then y = (a W) u + (a c + b): the layer before takes new weights
    and the batch norm goes. Any other batch norm, in front of a convolution as in DenseNet or
    behind a sum, becomes a `ScaleShift`.

    Which it is, is read off the graph of the network, so it holds through Sequentials, residual
    sums and concatenations, for layers that are called twice and for weights that two layers share.
    The copy can be hybridized, saved and exported; it is for prediction, not to be trained on.

    example : an input, X, or a tuple of inputs. The copy is compared with the network on it.

    Raises ValueError for a ConditionalBatchNorm, whose line depends on the label; for a network
    that is no graph (a Block whose `forward` calls mx.nd itself: make it a HybridBlock); for batch
    norm without a layer of its own; and if the copy does not predict the same on `example`.
    """
    inputs = tuple(example) if isinstance(example, (tuple, list)) else (example,)
    with autograd.pause(train_mode=False):
        expected = net(*inputs)
        norms = {}
        for name, layer in _named_blocks(net):
            if isinstance(layer, ConditionalBatchNorm):
                raise ValueError(f"layer {name!r} is a ConditionalBatchNorm: its scale and shift "
                                 "depend on the label and fit into no weight")
            if isinstance(layer, (BatchNorm, nn.basic_layers._BatchNorm)):
                norms[name] = layer
        seen = _inputs_of(norms, net, inputs)
        lines = {id(layer): _as_line(layer, *seen[id(layer)]) for layer in norms.values()}
        folded = _copy(net, lines)
        _fold(folded, inputs)
        _compare(expected, folded(*inputs))
    return folded


def _inputs_of(layers, net, inputs):
    """The number of axes and the type of what enters each layer on the example, by its id."""
    seen = {}
    handles = [layer.register_forward_pre_hook(
        lambda block, args: seen.__setitem__(id(block), (args[0].ndim, args[0].dtype)))
        for layer in layers.values()]
    try:
        with _layer_by_layer(net):
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
    def value(parameter):
        return as_nd(parameter.list_data()[0]).asnumpy().astype("float64")

    theirs = not isinstance(layer, BatchNorm)
    scaled = not layer._kwargs["fix_gamma"] if theirs else layer.scale
    shifted = theirs or layer.center  # Gluon adds a beta that center=False fixed
    epsilon = layer._kwargs["eps"] if theirs else layer.epsilon
    axis = layer._kwargs["axis"] if theirs else layer.axis
    activation = ("relu" if layer.fuse_relu else None) if theirs else layer.activation
    a = 1 / np.sqrt(value(layer.running_var) + epsilon)
    a = a * value(layer.gamma) if scaled else a
    b = (value(layer.beta) if shifted else 0) - a * value(layer.running_mean)
    line = ScaleShift(len(a), axis, rank, dtype, prefix=layer.prefix)
    line.initialize(ctx=layer.gamma.list_ctx())
    _set(line.scale, a.reshape(line.scale.shape))
    _set(line.shift, b.reshape(line.shift.shape))
    line.exact = a, b
    return _followed_by(line, activation)


def _followed_by(layer, activation):
    if activation is None:
        return layer
    both = nn.HybridSequential(prefix=layer.prefix)
    both.add(layer, nn.Activation(activation, prefix=layer.prefix + activation + "_"))
    return both


def _fold(net, inputs):
    """Move each line of the network that directly follows a linear layer into its weights."""
    nodes, users = _graph(net, inputs)
    weights, lines = {}, {}
    for _, block in _named_blocks(net):
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
        if (only_user(source) == product and len(owners) == 1
                and all(only_user(i) == source for i in parameters)
                and _into(owners[0], line)):
            _replace(net, line, _Nothing(prefix=line.prefix))


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
            f"place of mx.nd ({type(error).__name__}: {str(error).splitlines()[0]})") from error
    users = [[] for _ in graph["nodes"]]
    for number, node in enumerate(graph["nodes"]):
        if "BatchNorm" in node["op"]:
            raise ValueError(f"{node['name']!r} is a batch norm that no BatchNorm layer of the "
                             "network computes (F.BatchNorm, or a SymbolBlock); it cannot be found")
        for source, *_ in node["inputs"]:
            users[source].append(number)
    for source, *_ in graph["heads"]:
        users[source].append("end")
    return graph["nodes"], users


def _into(layer, line):
    """Fold the line into the weights of the layer before it; False if it does not fit there."""
    a, b = line.exact
    weight = as_nd(layer.weight.list_data()[0]).asnumpy().astype("float64")
    out_axis = 0  # of the weight
    if isinstance(layer, nn.Dense):
        if line.axis != line.num_dims - 1:
            return False
    else:
        if line.axis != layer._kwargs["layout"].find("C"):
            return False
        if layer._op_name.lower() == "deconvolution":
            if layer._kwargs["num_group"] != 1:
                return False
            out_axis = 1
    _set(layer.weight, weight * a.reshape([-1 if i == out_axis else 1 for i in range(weight.ndim)]))
    if layer.bias is None:
        del layer.bias  # Gluon refuses to change None into a Parameter only if it was one
        layer.bias = layer.params.get("bias", shape=a.shape, init="zeros",
                                      dtype=layer.weight.dtype)
        layer.bias.initialize(ctx=layer.weight.list_ctx())
        if "no_bias" in getattr(layer, "_kwargs", {}):
            layer._kwargs["no_bias"] = False
    _set(layer.bias, b + a * as_nd(layer.bias.list_data()[0]).asnumpy().astype("float64"))
    return True


def _compare(expected, actual):
    pairs = zip(*((y if isinstance(y, (tuple, list)) else [y]) for y in (expected, actual)))
    for before, after in pairs:
        y_is_half = before.dtype == np.float16
        before, after = (y.asnumpy().astype("float64") for y in (before, after))
        largest, scale = abs(before - after).max(), abs(before).max()
        tolerance = 2e-2 if y_is_half else 1e-3
        if not largest <= tolerance * max(scale, 1e-3):
            raise ValueError(
                f"the folded network predicts something else on the example: the largest "
                f"difference is {largest:.3g}, the largest value {scale:.3g}. Running statistics "
                "that are not finite or have a variance of nearly 0 do this; recalibrate(net, "
                "data) first")


# Conversion ---------------------------------------------------------------------------------------

def to_gluon(net):
    """A copy of the network with `gluon.nn.BatchNorm` in the place of our `BatchNorm`.

    Parameters and running statistics are the same, bit for bit, under the same names; momentum,
    epsilon, axis, center, scale and use_global_stats are carried over. An `activation` becomes a
    layer of its own behind the norm. The copy needs nothing of this package, so a file that
    `export` wrote of it is loaded by any MXNet.

    What differs in the copy: Gluon moves the statistics in the backward pass, lets NaN into them
    (`skip_nonfinite`), does not check `num_dims`, and overwrites gamma with ones if scale=False.

    Raises ValueError, naming the layer and the option, for what Gluon has not: momentum=None,
    zero_debias, unbiased, center=False with a beta that is not zero, BatchRenorm,
    ConditionalBatchNorm and every other Block of this package that keeps its own parameters.
    """
    replaced = {}
    memo = _memo(net)
    for name, layer in _named_blocks(net):
        if not isinstance(layer, ArrayBlock):
            continue
        if type(layer) is not BatchNorm:
            raise ValueError(f"layer {name!r} is a {type(layer).__name__}, which gluon.nn does not "
                             "have in this form")
        for option, usual in (("zero_debias", False), ("unbiased", False)):
            if getattr(layer, option) != usual:
                raise ValueError(f"layer {name!r} has {option}={getattr(layer, option)!r}, which "
                                 "gluon.nn.BatchNorm does not have")
        if layer.momentum is None:
            raise ValueError(f"layer {name!r} has momentum=None, the plain average of all batches; "
                             "gluon.nn.BatchNorm has none. Set layer.momentum to a number first")
        if not layer.center and _known(layer.beta) and as_nd(layer.beta.list_data()[0]).norm() != 0:
            raise ValueError(f"layer {name!r} has center=False and a beta that is not zero: ours "
                             "ignores it, gluon.nn.BatchNorm would add it. Set beta to 0 first")
        theirs = nn.BatchNorm(
            axis=layer.axis, momentum=layer.momentum, epsilon=layer.epsilon, center=layer.center,
            scale=layer.scale, use_global_stats=layer.use_global_stats,
            in_channels=layer.channels, prefix=layer.prefix)
        _take_parameters(theirs, layer, memo)
        replaced[id(layer)] = _followed_by(theirs, layer.activation)
    return _copy(net, replaced, memo)


def from_gluon(net, kernel="auto"):
    """A copy of the network with our `BatchNorm` in the place of `gluon.nn.BatchNorm`.

    The way back from `to_gluon`, and the way in for any network of Gluon's. Parameters and running
    statistics are the same, bit for bit, under the same names. `nn.BatchNormReLU` becomes our layer
    with activation='relu'.

    kernel : of the new layers; see `gluon_bn.kernels`.

    Raises ValueError for an unknown kernel and, naming the layer, for another class that only looks
    like Gluon's (SyncBatchNorm, your own subclass).
    """
    replaced, memo = {}, _memo(net)
    half = any(np.dtype(p.dtype) == np.float16 for p in net.collect_params().values())
    BatchNorm(kernel=kernel)  # refuses an unknown kernel, whatever the network
    for name, layer in _named_blocks(net):
        if not isinstance(layer, nn.basic_layers._BatchNorm):
            continue
        if type(layer) not in _GLUONS:
            raise ValueError(f"layer {name!r} is a {type(layer).__name__}, not a plain "
                             "gluon.nn.BatchNorm; what it adds would be lost")
        options = layer._kwargs
        # Gluon adds a beta that center=False fixed, so one that is not zero must stay.
        fixed = not layer.beta._differentiable and not (
            _known(layer.beta) and as_nd(layer.beta.list_data()[0]).norm() != 0)
        ours = BatchNorm(
            max(layer.gamma.shape[0], 0), axis=options["axis"], momentum=options["momentum"],
            epsilon=options["eps"], center=not fixed, scale=not options["fix_gamma"],
            use_global_stats=options["use_global_stats"], kernel=kernel,
            activation="relu" if layer.fuse_relu else None, prefix=layer.prefix)
        if half:
            ours.cast("float16")
        _take_parameters(ours, layer, memo)
        replaced[id(layer)] = ours
    return _copy(net, replaced, memo)


def _known(parameter):
    return parameter._data is not None


def _take_parameters(new, old, memo):
    """The copies of the old layer's parameters become those of the new one."""
    for name in new._reg_params:
        parameter = copy.deepcopy(getattr(old, name), memo)
        new._reg_params[name] = new.params._params[parameter.name] = parameter
        new.__dict__[name] = parameter


# Copies -------------------------------------------------------------------------------------------

def _named_blocks(net, name="", seen=None):
    """(name, Block) for the network and all Blocks in it, named as in `save_parameters` files; a
    Block that stands in several places comes once."""
    seen = set() if seen is None else seen
    if id(net) in seen:
        return
    seen.add(id(net))
    yield name, net
    for child, block in net._children.items():
        yield from _named_blocks(block, f"{name}.{child}" if name else child, seen)


def _blocks(net):
    return [block for _, block in _named_blocks(net)]


def _memo(net):
    """What `copy.deepcopy` must not copy in its own way: by id, the copy to take instead."""
    if not isinstance(net, Block):
        raise TypeError(f"a Gluon network is expected, got {type(net).__name__}")
    memo, blocks = {}, _blocks(net)
    inside = {id(block) for block in blocks}
    for block in blocks:
        if isinstance(block, mx.gluon.SymbolBlock):
            raise ValueError(f"{block.name} is a SymbolBlock, a finished graph without layers; "
                             "this needs the network it was exported from")
        outer = block._scope._old_scope  # Gluon keeps the last one; it may lead out of the network
        if outer is not None and id(outer._block) not in inside:
            memo[id(outer)] = None
        # The compiled graph of a hybridized network: the copy will draw its own.
        for attribute, empty in (("_cached_graph", ()), ("_cached_op", None),
                                 ("_cached_op_args", [])):
            value = getattr(block, attribute, None)
            if value is not None:
                memo[id(value)] = empty
    for parameter in net.collect_params().values():
        for array in parameter._data or ():
            memo[id(array)] = array.copy()
        if parameter._grad is not None:
            memo[id(parameter._grad)] = None
        if parameter._trainer is not None:
            memo[id(parameter._trainer)] = None
    return memo


def _copy(net, replaced=None, memo=None):
    """The network once more, with other Blocks where `replaced` (by id) says so.

    The replacement stands wherever the old Block stood: attribute, child, or in a list.
    """
    memo = _memo(net) if memo is None else memo
    memo.update(replaced or {})
    new = copy.deepcopy(net, memo)
    for parameter in new.collect_params().values():
        if parameter._data is not None and parameter._grad is None and parameter.grad_req != "null":
            parameter._init_grad()  # arrays of its own, known to autograd
    return new


def _replace(net, old, new):
    """Put one Block in the place of another, in a network that may be changed."""
    for block in _blocks(net):
        for name, child in block._children.items():
            if child is old:
                block._children[name] = new
        for name, value in list(block.__dict__.items()):
            if value is old:
                block.__dict__[name] = new
