"""The first rung: the equations of `gluon_bn.functional`, differentiated by autograd.

Readable before fast, and the measure for every other rung. Any device, any floating type.
"""

from gluon_bn.functional import _moments, _normalize


def supports(X):
    return True


def lay(v, X, axis):
    """gamma or beta, (C,) or one row per example (N, C), laid out to broadcast against X."""
    shape = [1] * X.ndim
    shape[axis] = -1
    if v.ndim == 2:
        shape[0] = v.shape[0]
    return v.reshape(shape)


def train(X, gamma, beta, eps, axis=1, weights=None):
    """Normalize by this batch. Returns Y, and the batch's mean and biased variance, (C,)."""
    axes = tuple(a for a in range(X.ndim) if a != axis)
    mean, var = _moments(X, axes, weights)
    Y = _normalize(X, mean, var, lay(beta, X, axis), lay(gamma, X, axis), eps)
    return Y, mean.reshape(-1).detach(), var.reshape(-1).detach()


def predict(X, gamma, beta, mean, var, eps, axis=1):
    """Normalize by statistics from elsewhere, (C,)."""
    mean, var, beta, gamma = (lay(v, X, axis) for v in (mean, var, beta, gamma))
    return _normalize(X, mean, var, beta, gamma, eps)
