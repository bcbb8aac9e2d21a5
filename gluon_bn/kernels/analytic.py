"""The backward pass derived by hand (chapter 3), in MXNet operators only.

Autograd differentiates every step of the forward pass and keeps what each step needs. The hand
derivation collapses all of it into two sums per channel. With n values per channel and
x_hat = (X - mean) / sqrt(var + eps),

    dbeta = sum dY,    dgamma = sum dY x_hat,
    dX = gamma / sqrt(var + eps) (dY - dbeta / n - x_hat dgamma / n);

the last two terms are there because mean and variance depend on X too. Only D = X - shift is kept,
`shift` being a first estimate of the mean: every formula is linear in D. Any device, any type.
"""

from __future__ import annotations

from mxnet import autograd, nd

from gluon_bn import checked, functional
from gluon_bn.arguments import Array, lay_along
from gluon_bn.functional import inverse_root, moving_average
from gluon_bn.kernels.function import differentiable
from gluon_bn.kernels.textbook import supports
from gluon_bn.reductions import sum_over

__all__ = ["OPTIONS", "batch_norm", "supports"]

OPTIONS = ("axis", "unbiased", "workers")


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
    workers=None,
) -> tuple[Array, Array, Array]:
    """`gluon_bn.batch_norm` with a backward pass of its own.

    Parameters
    ----------
    X, gamma, beta, moving_mean, moving_var, eps, momentum, axis, unbiased : as for `batch_norm`
    workers : who has the rest of the batch (`gluon_bn.workers.sync.Call`); None for nobody

    Returns
    -------
    Y, moving_mean, moving_var : arrays

    Examples
    --------
    >>> batch_norm, X = kernels.get("analytic").batch_norm, nd.array([[1], [3]])
    >>> with autograd.train_mode():
    ...     Y, mean, var = batch_norm(X, None, None, nd.zeros(1), nd.ones(1), 1e-5, 0.9)
    >>> print(Y.asnumpy().round(3).tolist(), mean.asnumpy().round(3))
    [[-1.0], [1.0]] [0.2]
    """
    if not autograd.is_training():
        return functional.batch_norm(
            X, gamma, beta, moving_mean, moving_var, eps, momentum, axis=axis
        )
    axes = tuple(a for a in range(X.ndim) if a != axis)
    n = X.size // X.shape[axis]
    # gamma has a value per channel, or per example and channel: its gradient sums over the rest.
    shared = axes if gamma.size == X.shape[axis] else tuple(a for a in axes if a > 0)
    per_example = tuple(a for a in axes if a not in shared)

    with autograd.pause():
        shift = sum_over(X, axes) / n
        D = X - repeat(shift, X)
        rest = sum_over(D, axes) / n  # the mean is shift + rest
        var = sum_over(nd.square(D), axes) / n - nd.square(rest)
        mean = shift + rest
        if workers is not None:
            near, far, spread, center = (numbers(v) for v in (shift, rest, var, moving_mean))
            n, whole, spread = workers.moments(n, near + far, spread, center)
            mean, rest, var = (like(shift, v) for v in (whole, whole - near, spread))
        scale = inverse_root(var, eps)
        # A product of its own, so a copy: the Trainer may step gamma before the backward pass runs.
        g = nd.broadcast_mul(lay_along(axis, gamma, X), scale)
        Y = D * repeat(g, X)
        Y += repeat(nd.broadcast_sub(lay_along(axis, beta, X), nd.broadcast_mul(g, rest)), X)

    def backward(wanted, into, dY):
        dbeta = sum_over(dY, shared)
        dgamma = nd.broadcast_mul(sum_over(dY * D, shared) - nd.broadcast_mul(rest, dbeta), scale)
        dX = None
        if wanted[0]:
            # g holds one scale too many for x_hat = (D - rest) scale, which has one itself.
            products, sums = sum_over(g * dgamma, per_example), sum_over(g * dbeta, per_example)
            if workers is not None:
                both = workers.gradients(numbers(products), numbers(sums))
                products, sums = (like(shift, v) for v in both)
            p = products * scale / n
            q = sums / n - p * rest
            dX = dY * repeat(g, X)
            dX -= D * repeat(p, X)
            dX -= repeat(q, X)
        return dX, dgamma.reshape(gamma.shape), dbeta.reshape(beta.shape)

    differentiable([X, gamma, beta], [Y], backward)
    with autograd.pause():
        mean, kept = (s.reshape(moving_mean.shape) for s in (mean, var))
        kept = kept * n / max(n - 1, 1) if unbiased else kept
        return (
            Y,
            moving_average(moving_mean, mean, momentum),
            moving_average(moving_var, kept, momentum),
        )


def repeat(v, X):
    """v, with ones where it is to be repeated, repeated to the shape of X. Its gradient in MXNet is
    a slow reduction, which is why `reductions` has another; nobody asks for a gradient here."""
    return nd.broadcast_to(v, shape=X.shape)


def numbers(v):
    """What is sent to other workers: float64 numbers (C,)."""
    return v.asnumpy().astype("float64").reshape(-1)


def like(v, values):
    """Numbers (C,) as an array like v."""
    return nd.array(values.reshape(v.shape), ctx=v.context, dtype=v.dtype)
