"""Gluon's own operator behind the interface of the ladder: the one to measure against.

Not from scratch, so `auto` never chooses it. Its statistics are Gluon's, to Gluon's accuracy.
"""

from mxnet import nd

from gluon_bn.kernels.textbook import lay, supports

__all__ = ["predict", "supports", "train"]


def train(X, gamma, beta, eps, axis=1):
    """Normalize by this batch. Returns Y, and the batch's mean and biased variance, (C,)."""
    C = X.shape[axis]
    mean, var = nd.zeros(C, ctx=X.context, dtype=X.dtype), nd.ones(C, ctx=X.context, dtype=X.dtype)
    Y, mean, scale = _operator(X, gamma, beta, mean, var, eps, axis, output_mean_var=True)
    return Y, mean.detach(), (1 / nd.square(scale) - eps).detach()


def predict(X, gamma, beta, mean, var, eps, axis=1):
    """Normalize by statistics from elsewhere, (C,)."""
    return _operator(X, gamma, beta, mean, var, eps, axis, use_global_stats=True)[0]


def _operator(X, gamma, beta, mean, var, eps, axis, **options):
    if gamma.ndim == 1:
        result = nd.BatchNorm(X, gamma, beta, mean, var, eps=eps, axis=axis, fix_gamma=False,
                              **options)
        return result if isinstance(result, list) else [result]
    # The operator knows one gamma per channel: normalize without, then scale every example.
    C = X.shape[axis]
    ones, zeros = (f(C, ctx=X.context, dtype=X.dtype) for f in (nd.ones, nd.zeros))
    X_hat, *rest = _operator(X, ones, zeros, mean, var, eps, axis, **options)
    Y = nd.broadcast_add(nd.broadcast_mul(X_hat, lay(gamma, X, axis)), lay(beta, X, axis))
    return [Y, *rest]
