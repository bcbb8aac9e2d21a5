"""The second rung: the backward pass derived by hand (chapter 3), in MXNet operators only.

Autograd differentiates every step of the forward pass and keeps what each step needs. The hand
derivation collapses all of it into two sums per channel:

    dbeta = sum dY,    dgamma = sum dY x_hat,
    dX = (gamma / sqrt(var + eps)) (dY - (dbeta + x_hat dgamma) / n),

with n values per channel. The two sums are there because mean and variance depend on X too.
Any device, any floating type.
"""

from math import prod

from mxnet import autograd, nd

from gluon_bn.functional import _moments, spread, total
from gluon_bn.kernels import textbook
from gluon_bn.kernels.function import differentiable
from gluon_bn.kernels.textbook import lay, supports

__all__ = ["predict", "supports", "train"]


def train(X, gamma, beta, eps, axis=1):
    """Normalize by this batch. Returns Y, and the batch's mean and biased variance, (C,)."""
    axes = tuple(a for a in range(X.ndim) if a != axis)
    n = prod(X.shape[a] for a in axes)
    # gamma has a value per channel, or per example and channel: its gradient sums over the rest.
    laid = lay(gamma, X, axis).shape
    shared = tuple(a for a in axes if laid[a] == 1)

    with autograd.pause():
        mean, var = _moments(X, axes)
        scale = 1 / nd.sqrt(var + eps)
        X_hat = (X - spread(mean, X)) * spread(scale, X)
        Y = X_hat * spread(lay(gamma, X, axis), X) + spread(lay(beta, X, axis), X)

    def backward(wanted, into, dY):
        dbeta, dgamma = total(dY, shared), total(dY * X_hat, shared)
        dX = None
        if wanted[0]:
            g = lay(gamma_used, X, axis)
            per_channel = tuple(a for a in axes if a not in shared)  # () unless per example
            a = total(g * dbeta, per_channel) / n
            b = total(g * dgamma, per_channel) / n
            dX = dY * spread(nd.broadcast_mul(g, scale), X)
            dX = dX - spread(a * scale, X) - X_hat * spread(b * scale, X)
        return dX, dgamma.reshape(gamma.shape), dbeta.reshape(beta.shape)

    # The Trainer may step gamma before the engine comes to the backward: keep today's value.
    gamma_used = gamma.copy() if autograd.is_recording() else gamma
    differentiable([X, gamma, beta], [Y], backward)
    return Y, mean.reshape(-1), var.reshape(-1)


predict = textbook.predict
