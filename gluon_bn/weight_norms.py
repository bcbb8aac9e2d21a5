"""Layers computed with a normalized weight: `WeightNorm` and `SpectralNorm` leave the activations
alone and normalize the weights of a Dense, convolution or transposed convolution of Gluon.
"""

from __future__ import annotations

import copy
from math import prod

import mxnet as mx
from mxnet import autograd, nd
from mxnet.gluon import nn
from mxnet.gluon.nn import conv_layers

from gluon_bn.arguments import as_nd, cast, check_count, check_eps, compute_type
from gluon_bn.base import ArrayBlock
from gluon_bn.kernels.function import differentiable


class _Reparametrized(ArrayBlock):
    """A Dense, convolution or transposed convolution of Gluon, computed with another weight.

    Its parameters become those of this Block, under their own names; the layer keeps what else it
    is (strides, groups, activation).
    """

    def __init__(self, layer, **kwargs):
        if not isinstance(layer, (nn.Dense, conv_layers._Conv)):
            raise TypeError(
                "a Dense, Conv or ConvTranspose layer of Gluon is expected, got "
                f"{type(layer).__name__}"
            )
        # One prefix for all its parameters, or Gluon could not load the file of a lone layer.
        super().__init__(**{"prefix": layer.prefix, **kwargs})
        layer = copy.copy(layer)
        if isinstance(layer, conv_layers._Conv):
            # Built under NumPy semantics it would call npx; `compute` gives it `mx.nd` arrays.
            layer._op_name = layer._op_name.capitalize()
        # The method, not the layer: a child of its own would name the parameters a second time.
        self._layer_forward = layer.hybrid_forward
        self.params.update(layer.params)
        self.weight = layer.weight
        if layer.bias is not None:
            self.bias = layer.bias
        self.units = layer._units if isinstance(layer, nn.Dense) else layer._channels
        transposed = getattr(layer, "_op_name", "") == "Deconvolution"
        self._groups = layer._kwargs["num_group"] if transposed else None

    def _per_unit(self, name, init, trained=None):
        """A parameter with one value per output; deferred as long as the weight is."""
        known = all(n > 0 for n in self.weight.shape)
        return self._parameter(name, init, trained, (self.units if known else 0,))

    def _arguments(self):
        """With the layer as [class, its arguments]; None for a layer that is not Gluon's own."""
        layer = self._layer_forward.__self__
        if not type(layer).__module__.startswith("mxnet.gluon.nn"):
            return None
        said = {"activation": layer.act and layer.act._act_type, "use_bias": layer.bias is not None}
        if isinstance(layer, nn.Dense):
            said.update(units=layer._units, flatten=layer._flatten)
        else:
            own = layer._kwargs
            said.update(
                channels=own["num_filter"],
                kernel_size=own["kernel"],
                strides=own["stride"],
                padding=own["pad"],
                dilation=own["dilate"],
                groups=own["num_group"],
                layout=own["layout"],
                adj=own.get("adj"),
                op_name=layer._op_name,
            )
        return {"layer": said, **super()._arguments()}

    @classmethod
    def _made_from(cls, layer, **arguments):
        return cls((nn.Dense if "units" in layer else conv_layers._Conv)(**layer), **arguments)

    def _state_names(self):
        return [name for name in self._reg_params if name == "u"]

    def infer_shapes(self, X_shape):
        own = {name: mx.sym.var(name) for name in ("weight", "bias") if name in self._reg_params}
        with mx.util.np_array(False):
            graph = self._layer_forward(mx.sym, mx.sym.var("X"), **own)
        found, (out,), _ = graph.infer_shape(X=X_shape)
        found = dict(zip(graph.list_arguments(), found))
        return {name: found.get(name, (self.units,)) for name in self._reg_params}, out

    def rows(self, weight):
        """The weight as a matrix with one row for each output unit or channel.

        That of a transposed convolution is (in, out / groups, ...): for each group of inputs, the
        outputs of this group.
        """
        if self._groups:
            weight = weight.reshape(
                (self._groups, -1, self.units // self._groups, prod(weight.shape[2:]))
            ).swapaxes(1, 2)
        return weight.reshape((self.units, -1))

    def _from_rows(self, rows, shape):
        """The weight, in its own shape, of such a matrix."""
        if not self._groups:
            return rows.reshape(shape)
        rows = rows.reshape((self._groups, self.units // self._groups, -1, prod(shape[2:])))
        # A copy: a transposed convolution rearranges its weight, and MXNet fails if that is a view.
        return nd.identity(rows.swapaxes(1, 2).reshape(shape))

    def compute(self, X, weight, bias=None, **own):
        rows = self._reweight(compute_type(self.rows(weight)), **own)
        weight = cast(self._from_rows(rows, weight.shape), weight.dtype)
        call = self._on_leaves if self._groups else self._layer_forward
        with mx.util.np_array(False):
            return call(nd, X, weight, bias)

    def _on_leaves(self, F, *inputs):
        """The layer, differentiated by a second run on leaves of the graph.

        MXNet 1.9.1 has no gradient for a transposed convolution whose weight was computed ("could
        not execute a primitive"), only for one whose weight is a leaf.
        """
        inputs = [a for a in inputs if a is not None]
        with autograd.pause():
            Y = self._layer_forward(F, *inputs)
        # Copies: the Trainer's step for the bias, already waiting for this gradient, would have the
        # second run wait for it in turn.
        kept = [a.copy() for a in inputs]

        def backward(wanted, into, dY):
            for leaf in kept:
                leaf.attach_grad()
            with mx.util.np_array(False), autograd.record():
                replay = self._layer_forward(F, *kept)
            replay.backward(dY)
            return [leaf.grad for leaf in kept]

        differentiable(inputs, [Y], backward)
        return Y

    def __repr__(self):
        return f"{type(self).__name__}({self._layer_forward.__self__!r})"


class WeightNorm(_Reparametrized):
    """w = g v / ||v||, length and direction apart (Salimans and Kingma, 2016, equation (2)).

    One g per output unit or channel; v is the layer's own `weight`. g starts at ||v||, so that a
    wrapped layer starts as the same function. Where all of v is zero there is no direction, and
    ||v|| counts as 1: the output has no weights (w = 0), and v has the gradient g dL/dw, by which
    it may leave zero.

    Parameters
    ----------
    layer : Dense, Conv or ConvTranspose of Gluon; its parameters become this Block's
    **kwargs : prefix and params

    Raises
    ------
    TypeError : the layer is another one

    Examples
    --------
    >>> layer = gluon_bn.WeightNorm(nn.Dense(1, in_units=2, weight_initializer=mx.init.Constant(3)))
    >>> layer.initialize()
    >>> print(layer.g.data().asnumpy().round(3), layer(nd.ones((1, 2))).asnumpy())
    [4.243] [[6.]]
    """

    def __init__(self, layer, **kwargs) -> None:
        super().__init__(layer, **kwargs)
        self.g = self._per_unit("g", _Start(self), True)

    def _reweight(self, v, g):
        return nd.broadcast_mul(v, (cast(g, v.dtype) / _lengths(v)).reshape((-1, 1)))

    def _start(self, v, g):
        as_nd(g)[:] = _lengths(v)


def _lengths(rows):
    """The length of each row, 1 for a row of zeros. (`nd.norm` has no gradient at zero: NaN.)"""
    squares = nd.square(rows).sum(axis=1)
    return nd.sqrt(squares + (squares == 0))


class _Start(mx.init.Initializer):
    """What a Block starts with, one value for each output, given the rows of its weight."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def _init_weight(self, name, arr):
        weight = self.block.weight
        weight = as_nd(weight.data(weight.list_ctx()[0])).as_in_context(arr.context)
        self.block._start(compute_type(self.block.rows(weight)), arr)


class SpectralNorm(_Reparametrized):
    """w / sigma(w), the weight divided by its largest singular value (Miyato et al., 2018,
    equation (8), Algorithm 1), which bounds the layer's Lipschitz constant by 1 for Dense layers.

    sigma is followed by power iteration: the state `u`, one value per output unit or channel, is
    found by up to 1,000 steps when the layer is initialized, takes `iterations` steps at each
    training call and none in prediction. (A weight put in later, by `set_data` or from a file
    without `u`, is near its bound after some training calls.) For a convolution the weight is read
    as the matrix (out, in x height x width), as in the paper.

    Parameters
    ----------
    layer : Dense, Conv or ConvTranspose of Gluon; its parameters become this Block's
    iterations : int, at least 1
    epsilon : float; a matrix whose sigma is not above it counts as zero, and is not divided
    **kwargs : prefix and params

    Raises
    ------
    TypeError, ValueError : the layer is another one; iterations or epsilon is not positive

    Examples
    --------
    >>> layer = gluon_bn.SpectralNorm(nn.Dense(1, in_units=2, weight_initializer="ones"))
    >>> layer.initialize()
    >>> print(layer(nd.ones((1, 2))).asnumpy().round(3))
    [[1.414]]
    """

    _options = ("iterations", "epsilon")

    def __init__(self, layer, iterations: int = 1, epsilon: float = 1e-12, **kwargs) -> None:
        super().__init__(layer, **kwargs)
        check_count("iterations", iterations, least=1)
        check_eps(epsilon, "epsilon")
        self.iterations, self.epsilon = iterations, epsilon
        self.u = self._per_unit("u", _Start(self))

    def _reweight(self, w, u):
        training = autograd.is_training()
        with autograd.pause():
            column = self._unit(cast(u, w.dtype).reshape((-1, 1)))
            if training:
                for _ in range(self.iterations):
                    row, column = self._step(w, column)
                u[:] = cast(column.reshape(-1), u.dtype)
            else:
                row = self._unit(nd.dot(w, column, transpose_a=True))
        sigma = nd.dot(column, nd.dot(w, row), transpose_a=True)
        return nd.broadcast_div(w, sigma + (sigma <= self.epsilon))

    def _step(self, w, column):
        """One step of the power iteration.

        Where w is zero along the column, as when its rows became zero, the next step starts from
        another one; u would stay zero for good.
        """
        row = self._unit(nd.dot(w, column, transpose_a=True))
        column = self._unit(nd.dot(w, row))
        other = nd.arange(1, self.units + 1, ctx=w.context, dtype=w.dtype).reshape((-1, 1))
        return row, column + other * (nd.norm(column).reshape((1, 1)) == 0)

    def _start(self, w, u):
        """From a random direction to near that of the largest singular value.

        After k steps sigma^2 is expected to lack at most 0.871 ln(units) / (k - 1) of itself,
        however close the singular values lie (Kuczynski and Wozniakowski, 1992): half a percent.
        """
        mx.init.Normal(1)._init_weight("u", u)
        column = self._unit(cast(as_nd(u), w.dtype).reshape((-1, 1)))
        for _ in range(1000):
            before = column
            column = self._unit(self._step(w, column)[1])
            if nd.norm(column - before).asscalar() < 1e-4:
                break
        as_nd(u)[:] = column.reshape(-1)

    def _unit(self, v):
        """v with length 1; zeros stay zeros."""
        return nd.broadcast_div(v, nd.maximum(nd.norm(v), 1e-37).reshape((1, 1)))
