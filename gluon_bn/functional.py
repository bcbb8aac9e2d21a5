"""The mathematics of normalization: `moments`, `normalize`, `batch_norm` and their relatives.

The ground floor of the house. Equation numbers are those of Ioffe and Szegedy, "Batch
Normalization" (2015), Algorithm 1. Parameters, saving and devices are the business of
`gluon_bn.blocks`; speed is the business of `gluon_bn.kernels`.

Every function takes `mx.nd.NDArray` and `mx.np.ndarray` alike, in float16, float32 or float64, and
returns the kind and the type it was given. The arithmetic of float16 is done in float32.
"""

from math import prod

import mxnet as mx
from mxnet import autograd, nd

from gluon_bn.arguments import (
    broadcast,
    cast,
    check_array,
    check_axes,
    check_batch,
    check_eps,
    check_groups,
    check_momentum,
    check_spatial,
    check_weights,
    compute_type,
    dense,
    either_kind,
    optional,
    per_channel,
)

# ------------------------------------------------------------------------------ the three equations


def moments(X, axis, weights=None, keepdims=False):
    """Mean and variance of X over `axis`: equations (1) and (2).

    The variance is the biased one, divided by the number of values. With `weights` (w, of a shape
    that broadcasts against X, none negative, not all zero where an average is taken) they are the
    weighted averages sum(w x) / sum(w) and sum(w (x - mean)^2) / sum(w), as in
    `tf.nn.weighted_moments`.

    Parameters
    ----------
    X: array of any shape.  axis: int or sequence of ints, the axes that are averaged away.

    Returns (mean, var), of X's shape without `axis`, or with ones there if `keepdims`. A variance
    that is too large for the type of X is infinite.

    Raises TypeError for integer arrays, ValueError for axes that X has not, for an empty X and for
    weights that do not fit.
    """
    mean, var = _checked_moments(X, axis, weights)
    if keepdims:
        return mean, var
    kept = tuple(n for a, n in enumerate(X.shape) if a not in check_axes(axis, X.ndim))
    if not kept and not isinstance(X, mx.np.ndarray):
        kept = (1,)  # mx.nd has no arrays of rank 0
    return mean.reshape(kept), var.reshape(kept)


@either_kind
def _checked_moments(X, axis, weights):
    check_array("X", X)
    axes = check_axes(axis, X.ndim)
    mean, var = _moments(compute_type(X), axes, check_weights(weights, X, axes))
    return cast(mean, X.dtype), cast(var, X.dtype)


@either_kind
def normalize(X, mean, var, beta, gamma, eps):
    """gamma (X - mean) / sqrt(var + eps) + beta: equations (3) and (4), for any statistics.

    The argument order is that of `tf.nn.batch_normalization`. All arrays broadcast against X;
    `beta` or `gamma` may be None. Where the variance is infinite the result is NaN.
    """
    check_array("X", X)
    check_eps(eps)
    mean, var = broadcast("mean", mean, X), broadcast("var", var, X)
    gamma, beta = optional("gamma", gamma, X), optional("beta", beta, X)
    return cast(_normalize(compute_type(X), mean, var, beta, gamma, eps), X.dtype)


@either_kind
def batch_norm(X, gamma, beta, moving_mean, moving_var, eps, momentum, *,
               axis=1, weights=None, unbiased=False):
    """Batch normalization, equations (1) to (4), with the moving averages for prediction.

    In training (`autograd.is_training()`) X is normalized by the mean and variance of this batch,
    and the moving statistics take one step towards them,

        moving = momentum * moving + (1 - momentum) * batch          (Gluon's and TensorFlow's
                                                   convention; PyTorch's momentum is 1 minus this).

    In prediction X is normalized by the moving statistics, which stay as they are.

    Parameters
    ----------
    X: shape (N, C, ...), any rank from 2 up, channels on `axis`.
    gamma, beta: broadcast against X: (1, C, 1, 1) for images; (N, C, 1, 1) gives every example
        its own; a vector (C,) is always one value per channel.
    moving_mean, moving_var: one value per channel, (1, C, 1, 1) or (C,). Not changed in place.
    eps: added to the variance under the root, > 0.  momentum: in [0, 1].
    weights: shape (N,), the weight of each example in the batch statistics.
    unbiased: the moving variance takes n / (n - 1) times the batch's, as PyTorch's does.

    Returns (Y, moving_mean, moving_var): Y like X, the statistics in the shape and type given.
    A channel whose variance overflows (float32 holds up to 3.4e38) is NaN in Y, not beta.

    Raises TypeError or ValueError, with the offending shape or value, before anything is computed.
    """
    X, gamma, beta, moving_mean, moving_var = map(dense, (X, gamma, beta, moving_mean, moving_var))
    axis = check_batch(X, axis)
    check_eps(eps)
    check_momentum(momentum)
    gamma, beta = optional("gamma", gamma, X, axis), optional("beta", beta, X, axis)
    old_mean = per_channel("moving_mean", moving_mean, X, axis)
    old_var = per_channel("moving_var", moving_var, X, axis)
    axes = tuple(a for a in range(X.ndim) if a != axis)
    weights = check_weights(weights, X, axes)

    if not autograd.is_training():
        Y = _normalize(compute_type(X), old_mean, old_var, beta, gamma, eps)
        return cast(Y, X.dtype), moving_mean, moving_var

    mean, var = _moments(compute_type(X), axes, weights)                              # (1), (2)
    Y = _normalize(compute_type(X), mean, var, beta, gamma, eps)                      # (3), (4)
    with autograd.pause():
        if unbiased:
            var = var * bessel(X, axes, weights)
        new_mean = moving_average(old_mean, mean, momentum)
        new_var = moving_average(old_var, var, momentum)
    return (cast(Y, X.dtype),
            cast(new_mean.reshape(moving_mean.shape), moving_mean.dtype),
            cast(new_var.reshape(moving_var.shape), moving_var.dtype))


def moving_average(moving, batch, momentum):
    """One step of the exponential moving average; `momentum` is the weight of the past."""
    return momentum * moving + (1 - momentum) * batch


def renorm_correction(mean, var, renorm_mean, renorm_stddev, eps, r_min, r_max, d_max):
    """r and d of batch renormalization (Ioffe, 2017, Algorithm 1); a bound of None does not clip.

    The divisor is kept above sqrt(eps), as in TensorFlow, for the first steps from zero.
    """
    renorm_stddev = nd.maximum(renorm_stddev, eps ** 0.5)
    r = nd.sqrt(var + eps) / renorm_stddev
    d = (mean - renorm_mean) / renorm_stddev
    r = r if r_min is None else nd.maximum(r, r_min)
    r = r if r_max is None else nd.minimum(r, r_max)
    d = d if d_max is None else nd.clip(d, -d_max, d_max)
    return r, d


def bessel(X, axes, weights=None):
    """n / (n - 1), from the biased to the unbiased variance of n values (1 for a single value)."""
    n = prod(X.shape[a] for a in axes) if weights is None else total(spread(weights, X), axes)
    return n / max(n - 1, 1) if weights is None else n / nd.maximum(n - 1, 1)


# --------------------------------------------------------------------------------- the computations


def _moments(X, axes, weights=None):
    """`moments` without its checks, with ones on `axes`; weights broadcast against X, or None."""
    if weights is None:
        n = prod(X.shape[a] for a in axes)

        def average(Z):
            return total(Z, axes) / n
    else:
        weights = spread(weights, X)
        n = total(weights, axes)

        def average(Z):
            return total(weights * Z, axes) / n

    # Averaging twice: summing thousands of large numbers in float32 loses digits, summing what is
    # left over after a first estimate does not. Any constant shift gives the same mean.
    with autograd.pause():
        shift = average(X)
    mean = shift + average(X - spread(shift, X))
    var = average(nd.square(X - spread(mean, X)))
    return mean, var


def _normalize(X, mean, var, beta, gamma, eps):
    """`normalize` without its checks; the scale is formed per channel, before it meets X."""
    scale = _inverse_root(var, eps)
    if gamma is not None:
        # Mutual broadcasting: gamma may be per example, the variance per channel (or the reverse).
        scale = nd.broadcast_mul(gamma, scale)
    Y = (X - spread(mean, X)) * spread(scale, X)
    return Y if beta is None else Y + spread(beta, X)


def _inverse_root(var, eps):
    """1 / sqrt(var + eps), and NaN for an infinite variance.

    The squares of large but finite values overflow. Divided by infinity they would all come out as
    beta, and nobody would see the accident; 0 times infinity is NaN.
    """
    return 1 / nd.sqrt(var + eps) + 0 * var


# MXNet 1.9.1 reduces over axes an order of magnitude slower than it multiplies matrices, and the
# gradient of every broadcast is such a reduction. A product with a vector of ones does the same sum
# at the speed of memory, so here is summing, and its mirror image broadcasting, by matrix product.


def total(X, axes):
    """Sum of X over `axes`, which stay as ones."""
    shape = X.shape
    summed = tuple(1 if a in axes else n for a, n in enumerate(shape))
    first, last = _inner_range(summed, shape)
    head, tail = prod(shape[:first]), prod(shape[last:])
    if tail > 1:
        X = nd.dot(X.reshape((-1, tail)), nd.ones((tail, 1), ctx=X.context, dtype=X.dtype))
    if head > 1:
        X = nd.dot(nd.ones((1, head), ctx=X.context, dtype=X.dtype), X.reshape((head, -1)))
    X = X.reshape((1,) * first + shape[first:last] + (1,) * (len(shape) - last))
    between = tuple(a for a in axes if first <= a < last)
    return X.sum(axis=between, keepdims=True) if between else X.reshape(summed)


def spread(v, X):
    """v, of X's rank with ones where it is to be repeated, repeated to the shape of X."""
    shape = X.shape
    first, last = _inner_range(v.shape, shape)
    head, tail = prod(shape[:first]), prod(shape[last:])
    between = (1,) * first + shape[first:last] + (1,) * (len(shape) - last)
    if v.shape != between:
        v = v.broadcast_to(between)
    if head > 1:
        v = nd.dot(nd.ones((head, 1), ctx=v.context, dtype=v.dtype), v.reshape((1, -1)))
    if tail > 1:
        v = nd.dot(v.reshape((-1, 1)), nd.ones((1, tail), ctx=v.context, dtype=v.dtype))
    return v.reshape(shape)


def _inner_range(small, shape):
    """[first, last): the axes of `small` between its leading and its trailing ones."""
    last = len(shape)
    while last and small[last - 1] == 1:
        last -= 1
    first = 0
    while first < last and small[first] == 1:
        first += 1
    return first, last


# ---------------------------------------------- the relatives: other axes, the same two equations


@either_kind
def layer_norm(X, gamma, beta, eps, axis=-1):
    """Every position by its own mean and variance over `axis` (Ba et al., 2016, equation (3)).

    gamma and beta have one value per entry of `axis`.
    """
    axis = check_axes(axis, check_array("X", X).ndim)
    check_eps(eps)
    x = compute_type(X)
    mean, var = _moments(x, axis)
    beta, gamma = optional("beta", beta, X, axis[0]), optional("gamma", gamma, X, axis[0])
    return cast(_normalize(x, mean, var, beta, gamma, eps), X.dtype)


@either_kind
def group_norm(X, gamma, beta, num_groups, eps):
    """Every example by the mean and variance of `num_groups` groups of its channels (Wu and He,
    2018, equations (2) to (7)). X is (N, C, ...); gamma and beta are per channel, (C,).

    One group is layer normalization over (C, ...), C groups are instance normalization.
    """
    check_batch(X, 1)
    check_groups(num_groups, X)
    check_eps(eps)
    x = compute_type(X)
    grouped = x.reshape((x.shape[0], num_groups, -1))
    mean, var = _moments(grouped, (2,))
    x_hat = _normalize(grouped, mean, var, None, None, eps).reshape(X.shape)
    if gamma is not None:
        x_hat = x_hat * spread(broadcast("gamma", gamma, X, 1), x)
    if beta is not None:
        x_hat = x_hat + spread(broadcast("beta", beta, X, 1), x)
    return cast(x_hat, X.dtype)


@either_kind
def instance_norm(X, gamma, beta, eps, axis=1):
    """Every channel of every example by its own mean and variance (Ulyanov et al., 2016,
    equation (2)). X is (N, C, ...) of rank 3 or more; gamma and beta are per channel, (C,)."""
    axis = check_batch(X, axis)
    check_spatial(X)
    check_eps(eps)
    x = compute_type(X)
    mean, var = _moments(x, tuple(a for a in range(1, X.ndim) if a != axis))
    beta, gamma = optional("beta", beta, X, axis), optional("gamma", gamma, X, axis)
    return cast(_normalize(x, mean, var, beta, gamma, eps), X.dtype)


@either_kind
def pixel_norm(X, eps=1e-8, axis=1):
    """Every pixel's vector of channels to length sqrt(C) (Karras et al., 2018, section 4.2):
    X / sqrt(mean over channels of X^2 + eps). No mean is subtracted, nothing is learned."""
    axis = check_batch(X, axis)
    check_eps(eps)
    x = compute_type(X)
    mean_square = total(nd.square(x), (axis,)) / X.shape[axis]
    return cast(x * spread(_inverse_root(mean_square, eps), x), X.dtype)
