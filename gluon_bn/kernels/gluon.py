"""Gluon's own operator as a kernel like the others: the one to measure against.

Not from scratch, so `auto` never chooses it. Its statistics are Gluon's, to Gluon's accuracy.
"""

from __future__ import annotations

from mxnet import autograd, nd

from gluon_bn import checked
from gluon_bn.arguments import Array
from gluon_bn.functional import moving_average
from gluon_bn.kernels.textbook import supports
from gluon_bn.reductions import bessel

__all__ = ["OPTIONS", "batch_norm", "supports"]

OPTIONS = ("axis", "unbiased")


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
) -> tuple[Array, Array, Array]:
    """`gluon_bn.batch_norm`, computed by MXNet's operator BatchNorm.

    Parameters
    ----------
    X, gamma, beta, moving_mean, moving_var, eps, momentum, axis, unbiased : as for `batch_norm`

    Returns
    -------
    Y, moving_mean, moving_var : arrays

    Examples
    --------
    >>> batch_norm, X = kernels.get("gluon").batch_norm, nd.array([[1], [3]])
    >>> with autograd.train_mode():
    ...     Y, mean, var = batch_norm(X, None, None, nd.zeros(1), nd.ones(1), 1e-5, 0.9)
    >>> print(Y.asnumpy().round(3).tolist(), mean.asnumpy().round(3))
    [[-1.0], [1.0]] [0.2]
    """
    one_each, own, moving = True, [gamma, beta], [moving_mean, moving_var]
    if gamma.ndim > 1:  # the operator takes vectors, of one gamma per channel
        moving = [v.reshape(-1) for v in moving]
        one_each = gamma.size == X.shape[axis]
        own = [v.reshape(-1) for v in own] if one_each else _ones_and_zeros(X, axis)
    options = {"eps": eps, "axis": axis, "fix_gamma": False}
    if autograd.is_training():
        ones, zeros = _ones_and_zeros(X, axis)  # for its own averages, moved in the backward pass
        Y, mean, scale = nd.BatchNorm(X, *own, zeros, ones, output_mean_var=True, **options)
        with autograd.pause():
            var = 1 / nd.square(scale) - eps
            if unbiased:
                var = var * bessel(X, [a for a in range(X.ndim) if a != axis])
            moving_mean = moving_average(moving_mean, mean.reshape(moving_mean.shape), momentum)
            moving_var = moving_average(moving_var, var.reshape(moving_var.shape), momentum)
    else:
        Y = nd.BatchNorm(X, *own, *moving, use_global_stats=True, **options)
    if not one_each:
        Y = nd.broadcast_add(nd.broadcast_mul(Y, gamma), beta)
    return Y, moving_mean, moving_var


def _ones_and_zeros(X, axis):
    return [make(X.shape[axis], ctx=X.context, dtype=X.dtype) for make in (nd.ones, nd.zeros)]
