"""The second rung: the backward pass derived by hand (chapter 3), in MXNet operators only.

Autograd differentiates every step of the forward pass and keeps what each step needs. The hand
derivation collapses all of it into two sums per channel. With n values per channel and
x_hat = (X - mean) / sqrt(var + eps),

    dbeta = sum dY,    dgamma = sum dY x_hat,
    dX = gamma / sqrt(var + eps) (dY - dbeta / n - x_hat dgamma / n);

the last two terms are there because mean and variance depend on X too. Only D = X - shift is kept,
`shift` being a first estimate of the mean: every formula is linear in D. Any device, any type.
"""

from math import prod

from mxnet import autograd, nd

from gluon_bn.functional import _inverse_root, total
from gluon_bn.kernels import textbook
from gluon_bn.kernels.function import differentiable
from gluon_bn.kernels.textbook import lay, supports

__all__ = ["predict", "supports", "train"]


def spread(v, X):
    """v, with ones where it is to be repeated, repeated to the shape of X. Its gradient in MXNet is
    a slow reduction, which is why `functional` has another; nobody asks for a gradient here."""
    return nd.broadcast_to(v, shape=X.shape)


def train(X, gamma, beta, eps, axis=1):
    """Normalize by this batch. Returns Y, and the batch's mean and biased variance, (C,)."""
    axes = tuple(a for a in range(X.ndim) if a != axis)
    n = prod(X.shape[a] for a in axes)
    # gamma has a value per channel, or per example and channel: its gradient sums over the rest.
    shared = tuple(a for a in axes if a > 0 or gamma.ndim == 1)
    per_example = tuple(a for a in axes if a not in shared)

    with autograd.pause():
        shift = total(X, axes) / n
        D = X - spread(shift, X)
        rest = total(D, axes) / n  # the mean is shift + rest
        var = total(nd.square(D), axes) / n - nd.square(rest)
        scale = _inverse_root(var, eps)
        # A product of its own, so a copy: the Trainer may step gamma before the backward pass runs.
        g = nd.broadcast_mul(lay(gamma, X, axis), scale)
        Y = D * spread(g, X)
        Y += spread(nd.broadcast_sub(lay(beta, X, axis), nd.broadcast_mul(g, rest)), X)

    def backward(wanted, into, dY):
        dbeta = total(dY, shared)
        dgamma = nd.broadcast_mul(total(dY * D, shared) - nd.broadcast_mul(rest, dbeta), scale)
        dX = None
        if wanted[0]:
            # g holds one scale too many for x_hat = (D - rest) scale, which has one itself.
            p = total(g * dgamma, per_example) * scale / n
            q = total(g * dbeta, per_example) / n - p * rest
            dX = dY * spread(g, X)
            dX -= D * spread(p, X)
            dX -= spread(q, X)
        return dX, dgamma.reshape(gamma.shape), dbeta.reshape(beta.shape)

    differentiable([X, gamma, beta], [Y], backward)
    return Y, (shift + rest).reshape(-1), var.reshape(-1)


predict = textbook.predict
