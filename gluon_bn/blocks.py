"""The layers: `BatchNorm` and `ConditionalBatchNorm`. Parameters, running statistics, checkpoints.

No mathematics here: the equations are in `gluon_bn.functional`, their fast forms in
`gluon_bn.kernels`. A Block holds the parameters, checks what it is given, decides between training
and prediction, and moves the running statistics.

The running statistics are parameters without gradient. So they are saved, loaded, cast and moved
between devices like gamma and beta, and a file written by `save_parameters` fits the same network
built with `gluon.nn.BatchNorm`, and the other way round.
"""

import warnings
from math import prod

import mxnet as mx
import numpy as np
from mxnet import autograd, nd
from mxnet.contrib.amp import amp
from mxnet.gluon import nn

from gluon_bn import kernels
from gluon_bn.arguments import (
    HALVES,
    ONE_VALUE,
    cast,
    check_axis,
    check_batch,
    check_count,
    check_labels,
    check_options,
    check_rank,
    check_weights,
    compute_type,
)
from gluon_bn.functional import bessel, moving_average
from gluon_bn.hybrid import ArrayBlock, as_nd
from gluon_bn.kernels import textbook

_SAME = ("num_dims", "axis", "momentum", "epsilon", "center", "scale", "use_global_stats",
         "activation", "unbiased", "zero_debias", "skip_nonfinite", "kernel")


class BatchNorm(ArrayBlock):
    """Batch normalization (Ioffe and Szegedy, 2015), from scratch, with Gluon's defaults.

    In training each channel is normalized by the mean and the biased variance of the batch, then
    scaled by gamma and shifted by beta; in prediction by the running statistics. These move in the
    forward pass of training, once a call (Gluon's layer moves them in the backward pass).

    Parameters
    ----------
    num_features: the channels C; 0 takes them from the first batch.
    num_dims: the rank X must have, or None for any from 2 up. `BatchNorm(6, num_dims=4)` is d2l's.
    axis: where the channels are; 1 for (N, C, ...), -1 for (N, ..., C).
    momentum: weight of the past in `running = momentum * running + (1 - momentum) * batch`, in
        [0, 1], as in Gluon and TensorFlow (PyTorch's is 1 minus this). None: the plain average of
        all batches so far, counted in one more parameter, `num_batches`.
    epsilon: added to the variance under the root, > 0.
    center, scale: False fixes beta at 0, gamma at 1; the parameter stays, unused and untrained.
    use_global_stats: True normalizes by the running statistics in training too.
    activation: 'relu', 'sigmoid', 'softrelu', 'softsign' or 'tanh', applied to the result.
    unbiased: the running variance takes n / (n - 1) times the batch's, as PyTorch and TensorFlow's
        fused kernel do. The batch itself is normalized by the biased one in any case.
    zero_debias: the running mean is divided by 1 - momentum^t, as Adam's averages are (TensorFlow's
        zero_debias_moving_mean), kept in two more parameters.
    skip_nonfinite: a channel whose batch statistics are NaN or infinite leaves its running
        statistics as they were. The output is still NaN, so the accident is seen; but the network
        is not lost. False lets them in, as Gluon does. Finite numbers whose variance overflows are
        the same accident (float32 holds up to 3.4e38, which is numbers of 1e19); the kernel
        'fused' then still gives the right output, the others NaN.
    kernel: how it is computed, see `gluon_bn.kernels`; 'auto' takes the fastest that fits.

    Inputs: X, shape (N, C, ...), float16, bfloat16, float32 or float64, `mx.nd` (sparse too) or
    `mx.np`; and optionally sample_weight, shape (N,), the weight of each example in the batch
    statistics (TensorFlow's batch_weights; always computed by the textbook kernel).
    Output: like X.

    Raises TypeError or ValueError, before anything is computed or moved, for what it cannot take.
    """

    _options = ("num_features", *_SAME)

    def __init__(self, num_features=0, num_dims=None, *, axis=1, momentum=0.9, epsilon=1e-5,
                 center=True, scale=True, use_global_stats=False, activation=None, unbiased=False,
                 zero_debias=False, beta_initializer="zeros", gamma_initializer="ones",
                 running_mean_initializer="zeros", running_variance_initializer="ones",
                 skip_nonfinite=True, kernel="auto", **kwargs):
        super().__init__(**kwargs)
        check_options(num_features, num_dims, axis, momentum, epsilon, activation, zero_debias)
        kernels.check_name(kernel)
        self.num_features, self.num_dims, self.axis = num_features, num_dims, axis
        self.momentum, self.epsilon = momentum, epsilon
        self.center, self.scale, self.use_global_stats = center, scale, use_global_stats
        self.activation, self.kernel = activation, kernel
        self.unbiased, self.zero_debias = unbiased, zero_debias
        self.skip_nonfinite = skip_nonfinite
        self._warned = False

        self.gamma = self._parameter("gamma", gamma_initializer, trained=scale)
        self.beta = self._parameter("beta", beta_initializer, trained=center)
        self.running_mean = self._parameter("running_mean", running_mean_initializer)
        self.running_var = self._parameter("running_var", running_variance_initializer)
        if momentum is None or zero_debias:
            self.num_batches = self._parameter("num_batches", "zeros")
        if zero_debias:
            self.running_mean_biased = self._parameter("running_mean_biased", "zeros")

    def _parameter(self, name, init, trained=None):
        return super()._parameter(name, init, trained, shape=(self.num_features,))

    def forward(self, X, sample_weight=None):
        return super().forward(X, *(() if sample_weight is None else (sample_weight,)))

    def check(self, X, sample_weight=None):
        axis = check_batch(X, self.axis, self.num_dims, self.channels)
        check_weights(sample_weight, X, tuple(a for a in range(X.ndim) if a != axis))

    def infer_shapes(self, X_shape):
        check_rank(X_shape, self.num_dims)  # a graph asks here only
        return super().infer_shapes(X_shape)

    def graph(self, X, *inputs, **parameters):
        """In a hybridized network: the native kernel's own operator where it fits, no Python in
        the step; otherwise an operator that calls this Block."""
        fits = type(self) is BatchNorm and self._plain_average() and not inputs and self._on_cpu()
        if not fits or self.kernel not in ("auto", "native") or kernels.why_not("native"):
            return super().graph(X, *inputs, **parameters)
        x, *arrays = (s.as_nd_ndarray() for s in (X, *parameters.values()))
        if amp._amp_initialized:  # as it does itself for an operator that it does not know
            x = mx.sym.amp_cast(x, dtype="float32")
        arrays = dict(zip(parameters, arrays))
        fused = self.activation in (None, "relu", "sigmoid")
        Y = kernels.get("native").symbol(
            x, **arrays, eps=self.epsilon, momentum=self.momentum, axis=self.axis,
            unbiased=self.unbiased, center=self.center, scale=self.scale,
            use_global_stats=self.use_global_stats, skip_nonfinite=self.skip_nonfinite,
            num_dims=self.num_dims, vectors=True, activation=self.activation if fused else None)
        if not fused:
            Y = mx.sym.Activation(Y, act_type=self.activation)
        return Y.as_np_ndarray() if isinstance(X, mx.sym.np._Symbol) else Y

    def _on_cpu(self):
        try:
            places = self.gamma.list_ctx()
        except RuntimeError:  # drawn before it has values
            return True
        return all(place.device_type.startswith("cpu") for place in places)

    def compute(self, X, sample_weight=None, *, gamma, beta, **running):
        """The layer on `mx.nd` arrays: parameters in, output out, running statistics moved."""
        x, axis = compute_type(X), check_axis(self.axis, X.ndim)
        gamma = cast(gamma if self.scale else nd.ones_like(gamma), x.dtype)
        beta = cast(beta if self.center else nd.zeros_like(beta), x.dtype)
        if autograd.is_training() and not self.use_global_stats:
            y = self._train(x, gamma, beta, axis, sample_weight, running)
        else:
            mean, var = (cast(running[n], x.dtype) for n in ("running_mean", "running_var"))
            rung = kernels.choose(self.kernel, x)
            y = rung.predict(x, gamma, beta, mean, var, self.epsilon, axis, **self._passed_to(rung))
            y = self._activate(y, rung)
        return cast(y, X.dtype)

    def _train(self, X, gamma, beta, axis, weights, running):
        """Normalize by the statistics of this batch, and move the running ones."""
        axes = tuple(a for a in range(X.ndim) if a != axis)
        self._warn_if_single(X, axes)
        if weights is None:
            rung = kernels.choose(self.kernel, X)
            if (hasattr(rung, "train_layer") and self._plain_average()
                    and all(value.dtype == X.dtype for value in running.values())):
                Y = rung.train_layer(
                    X, gamma, beta, **running, eps=self.epsilon, momentum=self.momentum, axis=axis,
                    unbiased=self.unbiased, skip_nonfinite=self.skip_nonfinite,
                    may_add="add" in (self.gamma.grad_req, self.beta.grad_req),
                    **self._passed_to(rung))
                return self._activate(Y, rung)
            Y, mean, var = rung.train(X, gamma, beta, self.epsilon, axis, **self._passed_to(rung))
        else:
            rung, weights = textbook, check_weights(weights, X, axes)
            Y, mean, var = textbook.train(X, gamma, beta, self.epsilon, axis, weights)
        with autograd.pause():
            if self.unbiased:
                var = (textbook.lay(var, X, axis) * bessel(X, axes, weights)).reshape(-1)
            self._move(mean, var, **running)
        return self._activate(Y, rung)

    def _passed_to(self, rung):
        """The activation, where the kernel applies it as it writes Y."""
        return {"activation": self.activation} if self._is_in(rung) else {}

    def _is_in(self, rung):
        return self.activation in getattr(rung, "ACTIVATIONS", ())

    def _activate(self, Y, rung):
        """The activation, where the kernel does not."""
        if self.activation is None or self._is_in(rung):
            return Y
        # MXNet's Activation makes zeros of NaN on a CPU, and nobody would see the accident.
        relu = self.activation == "relu"
        return nd.relu(Y) if relu else nd.Activation(Y, act_type=self.activation)

    def _plain_average(self):
        """Whether the running statistics move by one exponential average, and nothing else."""
        return (type(self)._move is BatchNorm._move and self.momentum is not None
                and not self.zero_debias)

    def _move(self, mean, var, running_mean, running_var, num_batches=None,
              running_mean_biased=None):
        """One step of the running statistics, in place, towards those of the batch."""
        mean, var = cast(mean, running_mean.dtype), cast(var, running_var.dtype)
        assign = self._assigner(mean, var)
        momentum = self.momentum
        if num_batches is not None:
            assign(num_batches, num_batches + 1)
        if momentum is None:
            momentum = 1 - 1 / nd.maximum(num_batches, 1)
        if self.zero_debias:
            assign(running_mean_biased, moving_average(running_mean_biased, mean, momentum))
            assign(running_mean, running_mean_biased / (1 - momentum ** num_batches))
        else:
            assign(running_mean, moving_average(running_mean, mean, momentum))
        assign(running_var, moving_average(running_var, var, momentum))

    def _assigner(self, mean, var):
        """How a running statistic takes a new value: not where the batch's were NaN or infinite."""
        if not self.skip_nonfinite:
            return lambda running, value: running.__setitem__(slice(None), value)
        finite = nd.contrib.isfinite(mean) * nd.contrib.isfinite(var)
        return lambda running, value: running.__setitem__(
            slice(None), nd.where(finite, value, running))

    def _warn_if_single(self, X, axes):
        if not self._warned and prod(X.shape[a] for a in axes) == 1:
            self._warned = True
            warnings.warn(
                f"{self.name} was given one value per channel in training, X of shape {X.shape}: "
                f"{ONE_VALUE}", stacklevel=9)  # who calls it

    def cast(self, dtype):
        """Parameters and statistics stay in float32 when the network goes to float16, as Gluon's:
        an average that moves by a hundredth a step would stand still in eleven bits."""
        super().cast("float32" if np.dtype(dtype) in HALVES else dtype)

    def __repr__(self):
        shown = {"num_features": self.channels or None, "axis": self.axis,
                 "momentum": self.momentum, "epsilon": self.epsilon}
        usual = {"num_dims": None, "center": True, "scale": True, "use_global_stats": False,
                 "activation": None, "unbiased": False, "zero_debias": False}
        shown.update({k: getattr(self, k) for k, v in usual.items() if getattr(self, k) != v})
        shown["kernel"] = self.kernel
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in shown.items())})"


class ConditionalBatchNorm(BatchNorm):
    """Batch normalization with a gamma and a beta for each class (Dumoulin et al., 2017, "A Learned
    Representation for Artistic Style"; de Vries et al., 2017, equation (4)).

    The statistics are shared by the classes: an example is normalized by the whole batch and then
    scaled and shifted by the row of its label.

    Parameters: as `BatchNorm`, and
    num_classes: the number of labels; gamma and beta have shape (num_classes, C).
    per_class_statistics: True also keeps running statistics per class, (num_classes, C), and
        normalizes each example by the examples of its own label (domain-specific batch norm, Chang
        et al., 2019). A class that a batch does not contain keeps its statistics as they were.

    Inputs: X, (N, C, ...), and labels, (N,), integers in [0, num_classes) of any integer or
    floating type. Anything else is a ValueError that names the first bad label.
    """

    _options = (*BatchNorm._options, "num_classes", "per_class_statistics")

    def __init__(self, num_features, num_classes, num_dims=None, *, per_class_statistics=False,
                 **options):
        check_count("num_classes", num_classes, least=1)
        # Before the parameters are made: their shape depends on it.
        self._rows = {"gamma", "beta"}
        if per_class_statistics:
            self._rows |= {"running_mean", "running_var", "num_batches", "running_mean_biased"}
        self._num_classes = num_classes
        super().__init__(num_features, num_dims, **options)
        self.num_classes, self.per_class_statistics = num_classes, per_class_statistics

    @classmethod
    def from_batch_norm(cls, layer, num_classes, **options):
        """Widen a trained `BatchNorm`, ours or Gluon's, into a layer that computes the same
        function: every class starts with a copy of its gamma and beta."""
        if isinstance(layer, ConditionalBatchNorm) or not isinstance(layer,
                                                                     (BatchNorm, nn.BatchNorm)):
            raise TypeError("a BatchNorm, ours or Gluon's, is expected, got "
                            f"{type(layer).__name__}")
        nd.waitall()  # see `runtime.settle`
        try:
            places = layer.gamma.list_ctx()
            values = {n: {place: as_nd(p.data(place)) for place in places}
                      for n, p in layer._reg_params.items()}
        except RuntimeError as error:
            raise ValueError(f"{layer!r} has no values to copy yet: initialize it, and give it a "
                             "batch if its channels are not known") from error
        if isinstance(layer, BatchNorm):
            same = {name: getattr(layer, name) for name in _SAME}
        else:
            theirs = layer._kwargs
            same = {name: theirs[name] for name in ("axis", "momentum", "use_global_stats")}
            same.update(epsilon=theirs["eps"], scale=not theirs["fix_gamma"])
            # Gluon adds a beta that center=False fixed, so one that is not zero must stay.
            same["center"] = (layer.beta.grad_req != "null"
                              or any(b.asnumpy().any() for b in values["beta"].values()))
        wide = cls(layer.gamma.shape[0], num_classes, **{**same, **options})
        wide.initialize(ctx=places)
        wide.cast(layer.gamma.dtype)
        for name, parameter in wide._reg_params.items():
            for place in places:
                as_nd(parameter.data(place))[:] = values[name][place]  # a row becomes every row
        return wide

    def _parameter(self, name, init, trained=None):
        rows = (self._num_classes,) if name in self._rows else ()
        return ArrayBlock._parameter(self, name, init, trained, (*rows, self.num_features))

    def forward(self, X, labels):
        return ArrayBlock.forward(self, X, labels)

    def check(self, X, labels):
        super().check(X)
        check_labels(labels, X, self.num_classes)

    def compute(self, X, labels, *, gamma, beta, **statistics):
        labels = check_labels(labels, X, self.num_classes)
        rows = nd.array(labels, ctx=X.context, dtype="int32")
        gamma, beta = nd.take(gamma, rows), nd.take(beta, rows)
        if not self.per_class_statistics:
            return super().compute(X, gamma=gamma, beta=beta, **statistics)
        # Class by class, and back into the order of the batch.
        parts, order = [], np.argsort(labels, kind="stable")
        for label in np.unique(labels):
            here = nd.array(np.flatnonzero(labels == label), ctx=X.context, dtype="int32")
            own = {name: value[int(label)] for name, value in statistics.items()}
            parts.append(super().compute(nd.take(X, here), gamma=nd.take(gamma, here),
                                         beta=nd.take(beta, here), **own))
        back = nd.array(np.argsort(order), ctx=X.context, dtype="int32")
        return nd.take(nd.concat(*parts, dim=0), back)

    def __repr__(self):
        return super().__repr__().replace("(", f"(num_classes={self.num_classes}, ", 1)
