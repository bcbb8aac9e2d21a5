"""The layer: `BatchNorm`. Parameters, running statistics, checkpoints.

No mathematics here. A Block holds the parameters, checks what it is given and calls `batch_norm`,
of `gluon_bn.functional` or another kernel; what that hands back are its new running statistics.
They are parameters without gradient, so they are saved, loaded, cast and moved like gamma and beta;
a `save_parameters` file fits the same network built with `gluon.nn.BatchNorm`, and back.
"""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from inspect import signature
from math import prod

import numpy as np
from mxnet import autograd, nd

from gluon_bn import averages, kernels
from gluon_bn.affine import PerChannel
from gluon_bn.arguments import (
    HALVES,
    ONE_VALUE,
    Array,
    OptArray,
    cast,
    check_batch,
    check_options,
    check_rank,
    check_weights,
    compute_type,
    lay_weights,
)
from gluon_bn.base import ArrayBlock
from gluon_bn.checked import by_a_block
from gluon_bn.kernels import activate, native_graph, textbook
from gluon_bn.workers import sync

OPTIONS = (
    "axis momentum epsilon num_dims center scale use_global_stats activation unbiased zero_debias "
    "skip_nonfinite synchronized kernel"
).split()


class BatchNorm(ArrayBlock):
    """Batch normalization (Ioffe and Szegedy, 2015), from scratch, with Gluon's defaults.

    In training each channel is normalized by the mean and the biased variance of the batch, then
    scaled by gamma and shifted by beta; in prediction by the running statistics. These move in the
    forward pass of training, once a call (Gluon's layer moves them in the backward pass).

    Inputs: X (N, C, ...), float16, bfloat16, float32 or float64, `mx.nd` (sparse too) or `mx.np`;
    optionally sample_weight (N,), TensorFlow's batch_weights, by the textbook kernel. Output: as X.

    Parameters
    ----------
    num_features : int, the channels C; 0 takes them from the first batch
    num_dims : int, the rank of X, or None for any from 2 up; `BatchNorm(6, num_dims=4)` is d2l's
    axis : int, the channels': 1 for (N, C, ...), -1 for (N, ..., C), 0 for (C, ...)
    momentum : float in [0, 1], weight of the past, or None for the average of all batches so far
        `running = momentum * running + (1 - momentum) * batch`, as in Gluon and TensorFlow
        (PyTorch's is 1 minus this). None counts the batches in one more parameter, `num_batches`.
    epsilon : float > 0, added to the variance under the root
    center, scale : bool; False fixes beta at 0, gamma at 1: the parameter stays, unused, untrained
    use_global_stats : bool; True normalizes by the running statistics in training too
    activation : 'relu', 'sigmoid', 'softrelu', 'softsign' or 'tanh', applied to the result
    unbiased : bool; True: n / (n - 1) times the batch's variance moves the running one (PyTorch's)
    zero_debias : bool; True: TensorFlow's zero_debias_moving_mean, over 1 - momentum^t as in Adam
    beta_initializer, gamma_initializer : str or Initializer
    running_mean_initializer, running_variance_initializer : str or Initializer
    skip_nonfinite : bool; a channel with NaN or infinite statistics leaves its running ones alone
        The output is NaN, so the accident is seen. False lets them in, as Gluon does. A variance
        that overflows (3.4e38 in float32) is one, too; 'fused' alone gets the output right then.
    synchronized : bool; True takes the statistics of the whole batch, shared by several workers
        See `gluon_bn.workers`. All make their layers in the same order, and call them in training
        equally often. With the kernels 'auto', 'fused' and 'analytic', without sample_weight.
    kernel : str, how it is computed, see `gluon_bn.kernels`; 'auto' takes the fastest that fits
    average, affine : parts of your own, see `gluon_bn.averages` and `gluon_bn.affine`
    **kwargs : prefix and params, as for every Block

    Raises
    ------
    TypeError, ValueError : for what it cannot take, before anything is computed or moved

    Examples
    --------
    >>> layer = gluon_bn.BatchNorm(2)
    >>> layer.initialize()
    >>> with autograd.record():
    ...     Y = layer(nd.array([[1, 2], [3, 6]]))
    >>> print(Y.asnumpy().round(3).tolist(), layer.running_mean.data().asnumpy().round(3))
    [[-1.0, -1.0], [1.0, 1.0]] [0.2 0.4]
    """

    _options = ("num_features", *OPTIONS)
    _state_rows: tuple[int, ...] = ()  # what stands before the C in the shape of the statistics
    _synchronizes = True  # whether several workers can share the statistics
    _per_example = False  # whether anything differs by example, so that axis 0 must be the batch's

    def __init__(
        self,
        num_features: int = 0,
        num_dims: int | None = None,
        *,
        axis: int = 1,
        momentum: float | None = 0.9,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        use_global_stats: bool = False,
        activation: str | None = None,
        unbiased: bool = False,
        zero_debias: bool = False,
        beta_initializer="zeros",
        gamma_initializer="ones",
        running_mean_initializer="zeros",
        running_variance_initializer="ones",
        skip_nonfinite: bool = True,
        synchronized: bool = False,
        kernel: str = "auto",
        average=None,
        affine=None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.num_features, self.num_dims, self.axis = num_features, num_dims, axis
        self.momentum, self.epsilon, self.activation = momentum, epsilon, activation
        self.center, self.scale, self.use_global_stats = center, scale, use_global_stats
        self.unbiased, self.zero_debias, self.skip_nonfinite = unbiased, zero_debias, skip_nonfinite
        self.synchronized, self.kernel, self._warned = synchronized, kernel, False
        self.average = average or averages.average_for(momentum, zero_debias)
        self.affine = affine or PerChannel()
        self._per_example = self._per_example or bool(self.affine.rows)
        check_options(self)
        kernels.check_name(kernel)
        shape = (*self.affine.rows, num_features)
        self.gamma = self._parameter("gamma", gamma_initializer, scale, shape)
        self.beta = self._parameter("beta", beta_initializer, center, shape)
        states = {
            "running_mean": running_mean_initializer,
            "running_var": running_variance_initializer,
            **self.average.states,
        }
        for name, init in states.items():
            shape = (*self._state_rows, num_features)
            setattr(self, name, self._parameter(name, init, None, shape))
        self._channel = sync.channel(self) if synchronized else None

    def _arguments(self):
        """None, so that no file pretends to hold it, with a part of your own."""
        parts = type(self.average), type(self.affine)
        ours = {averages.__name__, PerChannel.__module__}
        return super()._arguments() if {part.__module__ for part in parts} <= ours else None

    def forward(self, X: Array, sample_weight: OptArray = None) -> Array:
        return super().forward(X, *(() if sample_weight is None else (sample_weight,)))

    def check(self, X, sample_weight=None):
        axis = check_batch(X, self.axis, self.num_dims, self.channels, self._per_example)
        if sample_weight is None:
            return
        if self.synchronized:
            raise ValueError("sample_weight does not go with synchronized=True: leave one of them")
        check_weights(sample_weight, X, tuple(a for a in range(X.ndim) if a != axis), axis)

    def infer_shapes(self, X_shape):
        check_rank(X_shape, self.num_dims)  # a graph asks here only
        return super().infer_shapes(X_shape)

    def graph(self, X, *inputs, **parameters):
        """In a hybridized network: the native kernel's own operator where it fits, no Python in
        the step; otherwise an operator that calls this Block."""
        own = (type(self).compute, type(self).normalize) != (BatchNorm.compute, BatchNorm.normalize)
        parts_fit = self.average.by_kernel and self.affine.by_kernel
        parts_fit = parts_fit and (self._channel is None or self._channel.by_native)
        if own or not parts_fit or inputs or self.kernel not in ("auto", "native"):
            return super().graph(X, *inputs, **parameters)
        if kernels.why_not("native") or not self.on_cpu():
            return super().graph(X, **parameters)
        return native_graph.symbol_of(self, X, parameters)

    def compute(self, X, sample_weight=None, labels=None, *, gamma, beta, **running):
        """The layer on `mx.nd` arrays, in the mode that autograd is in."""
        x, axis = compute_type(X), self.axis % X.ndim
        weights = None if sample_weight is None else lay_weights(sample_weight, x)
        gamma = cast(gamma if self.scale else nd.ones_like(gamma), x.dtype)
        beta = cast(beta if self.center else nd.zeros_like(beta), x.dtype)
        with by_a_block(), autograd.predict_mode() if self.use_global_stats else nullcontext():
            gamma, beta = self.affine.of(self, x, gamma, beta, running, weights, labels)
            return cast(self.normalize(x, gamma, beta, axis, running, weights), X.dtype)

    def normalize(self, X, gamma, beta, axis, running, weights=None):
        """Call `batch_norm` of the kernel, and keep the statistics that it hands back."""
        training = autograd.is_training()
        weighted = training and weights is not None
        workers = self._channel.call() if training and self._channel else None
        if workers is not None and workers.idle:  # X stands for examples that are not there, and
            X = 0 * X + X.detach()  # its gradient is zero; asked for, or the others would wait
        kernel = textbook if weighted else kernels.choose(self.kernel, X, workers and "workers")
        mean, var = (cast(running[name], X.dtype) for name in ("running_mean", "running_var"))
        momentum, options = self.momentum or 0, {"axis": axis, "activation": self.activation}
        if training:
            by_kernel = self.average.by_kernel
            if not by_kernel:  # with momentum 0 these become the statistics of the batch
                mean, var, momentum = nd.zeros_like(mean), nd.zeros_like(var), 0
            options.update(
                weights=weights,
                workers=workers,
                unbiased=self.unbiased,
                skip_nonfinite=self.skip_nonfinite and by_kernel,
                may_add="add" in (self.gamma.grad_req, self.beta.grad_req),
            )
        options = {name: options[name] for name in kernel.OPTIONS if name in options}

        Y, mean, var = kernel.batch_norm(
            X, gamma, beta, mean, var, self.epsilon, momentum, **options
        )
        if training:
            self._warn_if_single(X, axis)
            if mean is not running["running_mean"]:  # a kernel may have moved it in place
                averages.keep(self, mean, var, running)
        return Y if "activation" in kernel.OPTIONS else activate(Y, self.activation)

    def _warn_if_single(self, X, axis):
        shape = X.shape
        if not self._warned and prod(shape) == shape[axis] and self._channel is None:
            self._warned = True
            said = f"{self.name} was given one value per channel in training, X of shape {shape}"
            warnings.warn(f"{said}: {ONE_VALUE}", stacklevel=9)  # who calls it

    def cast(self, dtype):
        """Parameters and statistics stay in float32 when the network goes to float16, as Gluon's:
        an average that moves by a hundredth a step would stand still in eleven bits."""
        super().cast("float32" if np.dtype(dtype) in HALVES else dtype)

    def __repr__(self):
        usual, shown = signature(BatchNorm).parameters, [f"num_features={self.channels or None}"]
        for name in OPTIONS:
            value, always = getattr(self, name), name in ("axis", "momentum", "epsilon", "kernel")
            if always or value != usual[name].default:
                shown.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"
