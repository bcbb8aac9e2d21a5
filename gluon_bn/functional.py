"""The mathematics of normalization, as one writes it down after chapter 2.

`moments`, `normalize`, `moving_average`, `batch_norm`, then the relatives that average over other
axes. This is what runs: `batch_norm` here is the kernel 'textbook'. Equation numbers are those of
Ioffe and Szegedy, "Batch Normalization" (2015), Algorithm 1.

Every function takes `mx.nd.NDArray` and `mx.np.ndarray` alike, in float16, float32 or float64, and
returns the kind and type it was given. The decorators see to that, and raise a TypeError or
ValueError for what cannot be computed (`gluon_bn.checked`). Inside, arrays have X's rank and the
type of computation, float32 for float16, and axes are counted from the front.
"""

from __future__ import annotations

from mxnet import autograd, nd

from gluon_bn import checked
from gluon_bn.arguments import Array, Axes, OptArray
from gluon_bn.reductions import average, bessel, broadcast_like, squeeze


@checked.moments
def moments(
    X: Array, axis: Axes, weights: OptArray = None, keepdims: bool = False
) -> tuple[Array, Array]:
    """Mean and variance of X over `axis`: equations (1) and (2).

    The variance is the biased one, divided by the number of values. With weights w they are the
    averages sum(w x) / sum(w) and sum(w (x - mean)^2) / sum(w), as in `tf.nn.weighted_moments`.

    Parameters
    ----------
    X : array of any shape
    axis : int or sequence of ints, the axes that are averaged away
    weights : array that broadcasts against X, none negative, not all zero where averages are taken
    keepdims : bool, True leaves ones where `axis` was

    Returns
    -------
    mean, var : arrays of X's shape without `axis`; var is infinite if X's type cannot hold it

    Raises
    ------
    TypeError, ValueError : X holds integers or nothing, or `axis` or the weights do not fit it

    Examples
    --------
    >>> mean, var = gluon_bn.moments(nd.array([[1, 2], [3, 6]]), axis=0)
    >>> print(mean.asnumpy(), var.asnumpy())
    [2. 4.] [1. 4.]
    """
    # Averaging twice: summing thousands of large numbers in float32 loses digits, summing what is
    # left over after a first estimate does not. Any constant shift gives the same mean.
    with autograd.pause():
        shift = average(X, axis, weights)
    mean = shift + average(X - broadcast_like(shift, X), axis, weights)  # (1)
    var = average(nd.square(X - broadcast_like(mean, X)), axis, weights)  # (2)
    return (mean, var) if keepdims else (squeeze(mean, axis), squeeze(var, axis))


@checked.normalize
def normalize(
    X: Array, mean: Array, var: Array, beta: OptArray, gamma: OptArray, eps: float
) -> Array:
    """gamma (X - mean) / sqrt(var + eps) + beta: (3) and (4), as `tf.nn.batch_normalization`.

    Parameters
    ----------
    X : array of any shape
    mean, var, beta, gamma : arrays that broadcast against X; None for beta is 0, for gamma 1
    eps : float > 0, added to the variance under the root

    Returns
    -------
    Y : array like X; NaN where the variance is infinite

    Examples
    --------
    >>> X, mean, var = nd.array([[1, 5]]), nd.array([3]), nd.array([4])
    >>> print(gluon_bn.normalize(X, mean, var, None, None, 1e-5).asnumpy().round(3))
    [[-1.  1.]]
    """
    scale = inverse_root(var, eps)
    if gamma is not None:  # one may be per example, the other per channel
        scale = nd.broadcast_mul(gamma, scale)
    Y = (X - broadcast_like(mean, X)) * broadcast_like(scale, X)  # (3)
    return Y if beta is None else Y + broadcast_like(beta, X)  # (4)


@checked.batch_norm
def batch_norm(
    X: Array,
    gamma: OptArray,
    beta: OptArray,
    moving_mean: Array,
    moving_var: Array,
    eps: float,
    momentum: float,
    *,
    axis: int = 1,
    weights: OptArray = None,
    unbiased: bool = False,
) -> tuple[Array, Array, Array]:
    """Batch normalization, equations (1) to (4), with the moving averages for prediction.

    In training (`autograd.is_training()`) the mean and variance of this batch normalize X, and the
    moving statistics take a step, `moving = momentum * moving + (1 - momentum) * batch`, Gluon's
    and TensorFlow's convention (PyTorch's momentum is 1 minus this). In prediction they normalize
    X and stay as they are.

    Parameters
    ----------
    X : array (N, C, ...), any rank from 2 up, channels on `axis`
    gamma, beta : arrays (C,), (1, C, 1, 1), or (N, C, 1, 1), each example its own; None is 1 and 0
    moving_mean, moving_var : arrays, one value per channel, (1, C, 1, 1) or (C,)
    eps, momentum : floats, > 0 and in [0, 1]
    axis : int, the axis of the channels
    weights : array (N,), the weight of each example in the batch statistics; or None
    unbiased : bool, True moves moving_var by n / (n - 1) times the batch's, as PyTorch does

    Returns
    -------
    Y : array like X; NaN, not beta, in a channel whose variance overflows (float32: 3.4e38)
    moving_mean, moving_var : arrays in the shape and type given, which are not changed in place

    Raises
    ------
    TypeError, ValueError : with the offending shape or value, before anything is computed

    Examples
    --------
    >>> X, gamma, beta = nd.array([[1, 2], [3, 6]]), nd.ones(2), nd.zeros(2)
    >>> with autograd.train_mode():
    ...     Y, mean, var = gluon_bn.batch_norm(X, gamma, beta, nd.zeros(2), nd.ones(2), 1e-5, 0.9)
    >>> print(Y.asnumpy().round(3).tolist(), mean.asnumpy().round(3))
    [[-1.0, -1.0], [1.0, 1.0]] [0.2 0.4]
    """
    if autograd.is_training():
        axes = tuple(a for a in range(X.ndim) if a != axis)  # all but the channels
        mean, var = moments(X, axes, weights, keepdims=True)
        with autograd.pause():  # the moving averages are notes: no gradient flows through them
            kept = var * bessel(X, axes, weights) if unbiased else var
            moving_mean = moving_average(moving_mean, mean, momentum)
            moving_var = moving_average(moving_var, kept, momentum)
    else:
        mean, var = moving_mean, moving_var
    return normalize(X, mean, var, beta, gamma, eps), moving_mean, moving_var


def moving_average(moving: Array, batch: Array, momentum: float | Array) -> Array:
    """One step of the exponential moving average; `momentum` is the weight of the past."""
    return momentum * moving + (1 - momentum) * batch


def inverse_root(var: Array, eps: float) -> Array:
    """1 / sqrt(var + eps); NaN for a variance that overflowed: 0 would make beta of Y, unseen."""
    return 1 / nd.sqrt(var + eps) + 0 * var


@checked.layer_norm
def layer_norm(X: Array, gamma: OptArray, beta: OptArray, eps: float, axis: Axes = -1) -> Array:
    """Every position by its own mean and variance over `axis` (Ba et al., 2016, equation (3)).

    Parameters
    ----------
    X, gamma, beta, eps : as for `normalize`, with one gamma and beta per entry of `axis`
    axis : int or sequence of ints

    Examples
    --------
    >>> print(functional.layer_norm(nd.array([[1, 5]]), None, None, 1e-5).asnumpy().round(3))
    [[-1.  1.]]
    """
    mean, var = moments(X, axis, keepdims=True)
    return normalize(X, mean, var, beta, gamma, eps)


@checked.group_norm
def group_norm(X: Array, gamma: OptArray, beta: OptArray, num_groups: int, eps: float) -> Array:
    """Every example by the statistics of groups of its channels (Wu and He, 2018, (2) to (7)):
    one group is layer normalization over (C, ...), C groups are instance normalization.

    Parameters
    ----------
    X, gamma, beta : as for `normalize`, with X (N, C, ...), gamma and beta (C,)
    num_groups, eps : int that divides C; float > 0

    Examples
    --------
    >>> print(functional.group_norm(nd.array([[1, 5]]), None, None, 1, 1e-5).asnumpy().round(3))
    [[-1.  1.]]
    """
    grouped = X.reshape((X.shape[0], num_groups, -1))
    mean, var = moments(grouped, (2,), keepdims=True)
    X_hat = normalize(grouped, mean, var, None, None, eps).reshape(X.shape)
    X_hat = X_hat if gamma is None else X_hat * broadcast_like(gamma, X)
    return X_hat if beta is None else X_hat + broadcast_like(beta, X)


@checked.instance_norm
def instance_norm(X: Array, gamma: OptArray, beta: OptArray, eps: float, axis: int = 1) -> Array:
    """Every channel of every example by its own statistics (Ulyanov et al., 2016, equation (2)).

    Parameters
    ----------
    X, gamma, beta, eps : as for `normalize`, with X (N, C, ...) of rank 3 or more, gamma, beta (C,)
    axis : int, that of the channels

    Examples
    --------
    >>> print(functional.instance_norm(nd.array([[[1, 5]]]), None, None, 1e-5).asnumpy().round(3))
    [[[-1.  1.]]]
    """
    mean, var = moments(X, tuple(a for a in range(1, X.ndim) if a != axis), keepdims=True)
    return normalize(X, mean, var, beta, gamma, eps)


@checked.rms_norm
def rms_norm(X: Array, gamma: OptArray, eps: float, axis: Axes = -1) -> Array:
    """gamma X / sqrt(mean of X^2 over `axis` + eps) (Zhang and Sennrich, 2019, equation (4)).

    Parameters
    ----------
    X, gamma, eps, axis : as for `layer_norm`; no mean is subtracted, no beta added

    Examples
    --------
    >>> print(functional.rms_norm(nd.array([[1, 7]]), None, 1e-6).asnumpy().round(3))
    [[0.2 1.4]]
    """
    mean_square = average(nd.square(X), axis)
    Y = X * broadcast_like(inverse_root(mean_square, eps), X)
    return Y if gamma is None else Y * broadcast_like(gamma, X)


@checked.pixel_norm
def pixel_norm(X: Array, eps: float = 1e-8, axis: int = 1) -> Array:
    """Every pixel's channels to length sqrt(C): `rms_norm` (Karras et al., 2018, section 4.2).

    Parameters
    ----------
    X, eps, axis : as for `instance_norm`, of rank 2 or more

    Examples
    --------
    >>> print(functional.pixel_norm(nd.array([[1, 7]])).asnumpy().round(3))
    [[0.2 1.4]]
    """
    return rms_norm(X, None, eps, (axis,))
