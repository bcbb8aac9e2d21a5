"""Gluon's own operator as a kernel like the others: the one to measure against.

Not from scratch, so `auto` never chooses it. Its statistics are Gluon's, to Gluon's accuracy.
"""

from mxnet import autograd, nd

from gluon_bn import checked
from gluon_bn.functional import moving_average
from gluon_bn.kernels.textbook import supports

__all__ = ["OPTIONS", "batch_norm", "supports"]

OPTIONS = ("unbiased",)


@checked.kernel
def batch_norm(X, gamma, beta, moving_mean, moving_var, eps, momentum, *, axis=1, unbiased=False):
    """`gluon_bn.batch_norm`, computed by MXNet's operator BatchNorm."""
    C = X.shape[axis]
    one_each = gamma.size == C  # the operator knows one gamma per channel
    own = [_vector(gamma), _vector(beta)] if one_each else _ones_and_zeros(X, C)
    options = {"eps": eps, "axis": axis, "fix_gamma": False}
    if autograd.is_training():
        ones, zeros = _ones_and_zeros(X, C)  # for its own averages, moved in the backward pass
        Y, mean, scale = nd.BatchNorm(X, *own, zeros, ones, output_mean_var=True, **options)
        with autograd.pause():
            n = X.size // C
            var = (1 / nd.square(scale) - eps) * (n / max(n - 1, 1) if unbiased else 1)
            moving_mean = moving_average(moving_mean, mean.reshape(moving_mean.shape), momentum)
            moving_var = moving_average(moving_var, var.reshape(moving_var.shape), momentum)
    else:
        Y = nd.BatchNorm(X, *own, _vector(moving_mean), _vector(moving_var),
                         use_global_stats=True, **options)
    if not one_each:
        Y = nd.broadcast_add(nd.broadcast_mul(Y, gamma), beta)
    return Y, moving_mean, moving_var


def _vector(v):
    return v if v.ndim == 1 else v.reshape(-1)


def _ones_and_zeros(X, C):
    return [make(C, ctx=X.context, dtype=X.dtype) for make in (nd.ones, nd.zeros)]
