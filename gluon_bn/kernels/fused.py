"""The whole layer in two passes forward and two backward, compiled by Numba.

The layer does little arithmetic and moves much memory, so what counts is how often X is read:

    forward    1. sum d, sum d^2           ->  mean, var         2. Y  = a d + b
    backward   1. sum dY, sum dY d         ->  dbeta, dgamma     2. dX = a dY + p d + q

with d = X - k, where k is a number near the channel's mean, and one a, b, p, q for each channel, or
for each example and channel where gamma and beta differ by example. Subtracting k first and adding
in float64 makes an input of 10000 +- 1 as accurate as one of 0 +- 1.

X is seen in one of two ways: as `rows` (N, C, S), the S values of an example and channel lying
together, or as `columns` (N, P, K), neighbours belonging to different channels: channels last, and
small images, whose S positions then count as S columns of the same channel. CPU, float32, float64.
"""

from __future__ import annotations

import ctypes
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from math import prod

import numba
import numpy as np
from mxnet import autograd, nd
from mxnet.base import _LIB, check_call

from gluon_bn import checked
from gluon_bn.arguments import Array
from gluon_bn.kernels.function import differentiable
from gluon_bn.runtime import own_threads

__all__ = ["OPTIONS", "batch_norm", "supports"]

SMALL = 128  # positions, below which a row is too short to loop over
WIDE = 512  # columns, from which a loop over them is fast
ALONE = 1 << 15  # values, below which a second thread costs more than it brings
LARGEST = np.finfo(np.float32).max

OPTIONS = ("axis", "unbiased", "skip_nonfinite", "workers")


def supports(X: Array) -> bool:
    """float32 and float64 on a CPU."""
    return X.context.device_type.startswith("cpu") and X.dtype in (np.float32, np.float64)


def compiled(function):
    """Compile, without the GIL; sums may be reordered, NaN and infinities keep their meaning.

    The machine code is kept beside this file, or in Numba's folder for the user, or, where neither
    can be written, made anew in each process.
    """
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # Numba's "no locator available"
        return numba.njit(**options)(function)


# ---------------------------------------------------------------------------- rows: (N, C, S)


@compiled
def moments_rows(X, k, s1, s2, start, stop):
    for n in range(X.shape[0]):
        for c in range(start, stop):
            a, b, near = 0.0, 0.0, k[c]
            for s in range(X.shape[2]):
                d = np.float64(X[n, c, s]) - near
                a += d
                b += d * d
            s1[c] += a
            s2[c] += b


@compiled
def affine_rows(X, Y, k, a, b, start, stop):
    for n in range(X.shape[0]):
        i = n if len(a) > 1 else 0
        for c in range(start, stop):
            for s in range(X.shape[2]):
                Y[n, c, s] = (X[n, c, s] - k[c]) * a[i, c] + b[i, c]


@compiled
def products_rows(dY, X, k, s1, s2, start, stop):
    for n in range(X.shape[0]):
        i = n if len(s1) > 1 else 0
        for c in range(start, stop):
            a, b, near = 0.0, 0.0, k[c]
            for s in range(X.shape[2]):
                g = np.float64(dY[n, c, s])
                a += g
                b += g * (X[n, c, s] - near)
            s1[i, c] += a
            s2[i, c] += b


@compiled
def gradient_rows(dY, X, dX, k, a, p, q, start, stop):
    for n in range(X.shape[0]):
        i = n if len(a) > 1 else 0
        for c in range(start, stop):
            for s in range(X.shape[2]):
                dX[n, c, s] = a[i, c] * dY[n, c, s] + p[c] * (X[n, c, s] - k[c]) + q[c]


# ------------------------------------------------------------------------- columns: (N, P, K)
# A loop from 0 over slices, not from `start`: only then is it clear to the compiler that no index
# is negative, and it works on several columns at once.


@compiled
def moments_columns(X, k, s1, s2, start, stop):
    k, s1, s2 = k[start:stop], s1[start:stop], s2[start:stop]
    for n in range(X.shape[0]):
        for m in range(X.shape[1]):
            x = X[n, m, start:stop]
            for j in range(len(x)):
                d = np.float64(x[j]) - k[j]
                s1[j] += d
                s2[j] += d * d


@compiled
def affine_columns(X, Y, k, a, b, start, stop):
    k = k[start:stop]
    for n in range(X.shape[0]):
        i = n if len(a) > 1 else 0
        an, bn = a[i, start:stop], b[i, start:stop]
        for m in range(X.shape[1]):
            x, y = X[n, m, start:stop], Y[n, m, start:stop]
            for j in range(len(x)):
                y[j] = (x[j] - k[j]) * an[j] + bn[j]


@compiled
def products_columns(dY, X, k, s1, s2, start, stop):
    k = k[start:stop]
    for n in range(X.shape[0]):
        i = n if len(s1) > 1 else 0
        t1, t2 = s1[i, start:stop], s2[i, start:stop]
        for m in range(X.shape[1]):
            dy, x = dY[n, m, start:stop], X[n, m, start:stop]
            for j in range(len(x)):
                g = np.float64(dy[j])
                t1[j] += g
                t2[j] += g * (x[j] - k[j])


@compiled
def gradient_columns(dY, X, dX, k, a, p, q, start, stop):
    k, p, q = k[start:stop], p[start:stop], q[start:stop]
    for n in range(X.shape[0]):
        an = a[n if len(a) > 1 else 0, start:stop]
        for m in range(X.shape[1]):
            dy, x, dx = dY[n, m, start:stop], X[n, m, start:stop], dX[n, m, start:stop]
            for j in range(len(x)):
                dx[j] = an[j] * dy[j] + p[j] * (x[j] - k[j]) + q[j]


# --------------------------------------------------------------------------- how X is seen


class View:
    """How an array is cut up: `shape` for the loops, and each channel's coefficients to match."""

    def __init__(self, shape, axis, examples):
        outer, C, inner = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
        self.C, self.examples, self.kind = C, examples, None
        self.rows = inner >= SMALL
        if self.rows:
            # Between the batch and the channels there may be more axes: (N, ..., C, S).
            self.shape, self.before, self.after = (outer, C, inner), 1, 1
            self.per_example = outer // examples
        else:
            # Columns of one channel: `inner` positions after it, and as many whole positions
            # before it as make the loop wide.
            P = outer // examples
            self.before = max(d for d in range(1, max(WIDE // (C * inner), 1) + 1) if P % d == 0)
            self.after = inner
            self.shape = (examples, P // self.before, self.before * C * inner)
            self.per_example = 1

    def indexed(self, v, dtype):
        """Coefficients (C,) or (examples, C) as the loops index them."""
        v = np.asarray(v, dtype)
        if not self.rows:
            v = np.broadcast_to(
                v[..., None, :, None], (*v.shape[:-1], self.before, self.C, self.after)
            )
            return np.ascontiguousarray(v).reshape(*v.shape[:-3], -1)
        return np.repeat(v, self.per_example, axis=0) if v.ndim == 2 and len(v) > 1 else v

    def first_mean(self, x):
        """A number near the mean of each channel: the mean of its first few values, summed in
        float64, because a sum may be more than float32 holds, and of the type of x."""
        if self.rows:
            first, axes = x[0], 1
        else:
            first, axes = x[0, 0].reshape(self.before, self.C, self.after), (0, 2)
        return first.mean(axis=axes, dtype=np.float64).astype(x.dtype)

    def sums(self, examples=None):
        """Two arrays of zeros for the loops to add to."""
        lead = (
            ()
            if examples is None
            else (examples if not self.rows or examples == 1 else self.shape[0],)
        )
        return [np.zeros((*lead, self.C if self.rows else self.shape[2])) for _ in range(2)]

    def gather(self, s):
        """What the loops added up, by channel, or by example and channel."""
        if not self.rows:
            return s.reshape(*s.shape[:-1], self.before, self.C, self.after).sum(axis=(-3, -1))
        if s.ndim == 2 and len(s) > 1:
            return s.reshape(self.examples, self.per_example, self.C).sum(axis=1)
        return s

    # The four passes. k, a, b, p and q have a number for each channel, a and b perhaps one for each
    # example and channel. The loops take them in x's type, unless it could not hold the variance.

    def prepare(self, var):
        """Called with the variance, before the passes that need a scale."""
        if var.max() > LARGEST:  # more than float32 holds, and 1 / var less: the loops take float64
            self.kind = np.float64

    def moments(self, x):
        """k, a number near each mean, and the sums over each channel of x - k and its square."""
        k, sums = self.first_mean(x), self.sums()
        self.run(moments_rows, moments_columns, x, self.indexed(k, x.dtype), *sums)
        return (k, *map(self.gather, sums))

    def affine(self, x, y, k, a, b):
        """y = (x - k) a + b"""
        kab = (self.indexed(v, self.kind or x.dtype) for v in (k, a, b))
        self.run(affine_rows, affine_columns, x, y, *kab)

    def products(self, dy, x, k):
        """The sums over each channel, or each example and channel, of dy and dy (x - k)."""
        k, sums = self.indexed(k, self.kind or x.dtype), self.sums(self.examples)
        self.run(products_rows, products_columns, dy, x, k, *sums)
        return map(self.gather, sums)

    def gradient(self, dy, x, dx, k, a, p, q):
        """dx = a dy + p (x - k) + q"""
        kapq = (self.indexed(v, self.kind or x.dtype) for v in (k, a, p, q))
        self.run(gradient_rows, gradient_columns, dy, x, dx, *kapq)

    def run(self, by_rows, by_columns, *arrays):
        """One pass: a compiled loop over all channels or columns, shared out to the threads."""
        loop, extent = (by_rows, self.C) if self.rows else (by_columns, self.shape[2])
        parts = 1 if prod(self.shape) < ALONE else min(own_threads(), extent)
        edges = [extent * i // parts for i in range(parts + 1)]
        waiting = []
        for i in range(1, parts):
            try:
                waiting.append(_pool(parts).submit(loop, *arrays, *edges[i : i + 2]))
            except RuntimeError:  # Python is ending, and gives threads no new work
                loop(*arrays, *edges[i : i + 2])
        loop(*arrays, *edges[:2])
        for part in waiting:
            part.result()


_local = threading.local()


def _pool(threads):
    # One for each thread that asks: MXNet calls the backward pass on a thread of its own, and two
    # that wait for the same pool could wait for each other. And one for each process: a forked
    # child has no threads but the one that forked.
    made_for = os.getpid(), threads
    if getattr(_local, "made_for", None) != made_for:
        _local.made_for = made_for
        _local.pool = ThreadPoolExecutor(threads - 1, "gluon_bn.fused")
    return _local.pool


def memory(array, shape):
    """The memory of an NDArray as a NumPy array, not copied; waits until it has been written."""
    check_call(_LIB.MXNDArrayWaitToRead(array.handle))
    pointer = ctypes.c_void_p()
    check_call(_LIB.MXNDArrayGetData(array.handle, ctypes.byref(pointer)))
    kind = ctypes.c_float if array.dtype == np.float32 else ctypes.c_double
    flat = np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(kind)), (array.size,))
    return flat.reshape(shape)


def private(X):
    """True if only the tape holds X: an intermediate result, to which nobody will write.

    The engine does not know that our backward pass will read X. Whoever wrote a new batch into X
    right after `backward()` would change it under the running kernel, so other arrays are copied.
    """
    symbol = ctypes.c_void_p()
    if X.grad is not None or _LIB.MXAutogradGetSymbol(X.handle, ctypes.byref(symbol)) != 0:
        return False
    _LIB.NNSymbolFree(symbol)
    return True


class Kept:
    """X for both passes; a copy for the second where somebody may write to X meanwhile."""

    def __init__(self, X, shape):
        copied = autograd.is_recording() and not private(X)
        self.X, self.shape = X, shape
        self.copy = memory(X, shape).copy() if copied else None

    def values(self):
        return memory(self.X, self.shape) if self.copy is None else self.copy


# --------------------------------------------------------------------------------- the layer


@checked.kernel
def batch_norm(
    X: Array,
    gamma: Array,
    beta: Array,
    moving_mean: Array,
    moving_var: Array,
    eps: float,
    momentum: float,
    *,
    axis: int = 1,
    unbiased: bool = False,
    skip_nonfinite: bool = False,
    workers=None,
) -> tuple[Array, Array, Array]:
    """`gluon_bn.batch_norm`, but the moving statistics are moved in place, without an operator of
    MXNet.

    Parameters
    ----------
    X, gamma, beta, moving_mean, moving_var, eps, momentum, axis, unbiased : as for `batch_norm`
    skip_nonfinite : bool; True leaves the statistics of a channel whose batch's are not finite
    workers : who has the rest of the batch (`gluon_bn.workers.sync.Call`); None for nobody

    Returns
    -------
    Y, moving_mean, moving_var : arrays

    Examples
    --------
    >>> batch_norm, X = kernels.get("fused").batch_norm, nd.array([[1], [3]])
    >>> with autograd.train_mode():
    ...     Y, mean, var = batch_norm(X, None, None, nd.zeros(1), nd.ones(1), 1e-5, 0.9)
    >>> print(Y.asnumpy().round(3).tolist(), mean.asnumpy().round(3))
    [[-1.0], [1.0]] [0.2]
    """
    training = autograd.is_training()
    view = View(X.shape, axis, gamma.size // X.shape[axis])
    kept, Y = Kept(X, view.shape), fresh(X.shape, X)
    # Copies: the Trainer may step gamma before the backward pass runs.
    g, b = (memory(v, (-1, view.C)).copy() for v in (gamma, beta))
    if training:
        for moving in (moving_mean, moving_var):  # a prediction may still read it
            check_call(_LIB.MXNDArrayWaitToWrite(moving.handle))
    backward_of = forward(
        view,
        kept.values(),
        memory(Y, view.shape),
        g,
        b,
        memory(moving_mean, (-1,)),
        memory(moving_var, (-1,)),
        eps,
        momentum,
        training,
        unbiased,
        skip_nonfinite,
        workers,
    )

    def backward(wanted, into, dY):
        dX = dx = None
        if wanted[0]:
            dX = fresh(X.shape, X) if into[0] is None else into[0]
            dx = memory(dX, view.shape)
        dgamma, dbeta = backward_of(kept.values(), memory(dY, view.shape), dx)
        return dX, filled(dgamma, gamma.shape, X, into[1]), filled(dbeta, beta.shape, X, into[2])

    differentiable([X, gamma, beta], [Y], backward)
    return Y, moving_mean, moving_var


def forward(
    view,
    x,
    y,
    gamma,
    beta,
    moving_mean,
    moving_var,
    eps,
    momentum,
    training,
    unbiased,
    skip_nonfinite,
    workers,
):
    """The layer on NumPy arrays: fill y, in training move the statistics, and return
    backward(x, dy, dx), which fills dx unless it is None, and returns dgamma and dbeta."""
    n = x.size // view.C
    if training:
        k, s1, s2 = view.moments(x)
        shift = s1 / n
        mean, var = k + shift, np.maximum(s2 / n - shift * shift, 0)
        if workers is not None:
            n, mean, var = workers.moments(n, mean, var, moving_mean)
        k = mean.astype(x.dtype)
        rest = mean - k  # what x's type cannot hold of the mean
        view.prepare(var)
    else:
        k, rest, var = moving_mean.copy(), 0, moving_var.astype(np.float64)
    scale = inverse_root(var, eps)
    slope = gamma * scale
    view.affine(x, y, k, slope, beta - rest * slope if training else beta)

    if training:
        moved = np.isfinite(np.array([mean, var], x.dtype)).all(axis=0) | (not skip_nonfinite)
        var = var * n / max(n - 1, 1) if unbiased else var
        for moving, value in ((moving_mean, mean), (moving_var, var)):
            new = momentum * moving + (1 - momentum) * value if momentum else value
            moving[...] = np.where(moved, new, moving)

    def backward(x, dy, dx):
        dbeta, dgamma = view.products(dy, x, k)
        dgamma = (dgamma - rest * dbeta) * scale
        if dx is None:
            return dgamma, dbeta
        if training:
            # dX = g scale dY - scale/n sum(g dY) - scale/n x_hat sum(g dY x_hat)
            products, sums = (gamma * dgamma).sum(axis=0), (gamma * dbeta).sum(axis=0)
            if workers is not None:
                products, sums = workers.gradients(products, sums)
            p = -products * scale * scale / n
            view.gradient(dy, x, dx, k, slope, p, -sums * scale / n - p * rest)
        else:
            view.affine(dy, dx, np.zeros(view.C), slope, 0 * slope)
        return dgamma, dbeta

    return backward


def inverse_root(var, eps):
    """1 / sqrt(var + eps), and NaN for an infinite variance, as `functional` has it."""
    return np.where(np.isinf(var), np.nan, 1 / np.sqrt(var + eps))


def fresh(shape, like):
    return nd.empty(shape, ctx=like.context, dtype=like.dtype)


def filled(values, shape, like, into=None):
    """The values in an NDArray, a new one unless `into` is given; done when this returns."""
    into = fresh(shape, like) if into is None else into
    memory(into, shape)[...] = values.reshape(shape)
    return into
