"""The mathematics of normalization, as one writes it down after chapter 2.

`moments`, `normalize`, `moving_average`, `batch_norm`, then the relatives that average over other
axes. This is what runs: `batch_norm` here is the kernel 'textbook'. Equation numbers are those of
Ioffe and Szegedy, "Batch Normalization" (2015), Algorithm 1.

Every function takes `mx.nd.NDArray` and `mx.np.ndarray` alike, in float16, float32 or float64, and
returns the kind and the type it was given. The decorators see to that, and refuse what cannot be
computed (`gluon_bn.checked`). Inside, arrays have X's rank and the type of computation, float32 for
float16, and axes are counted from the front.
"""

from mxnet import autograd, nd

from gluon_bn import checked
from gluon_bn.reductions import average, broadcast_like, count, squeeze


@checked.moments
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
    # Averaging twice: summing thousands of large numbers in float32 loses digits, summing what is
    # left over after a first estimate does not. Any constant shift gives the same mean.
    with autograd.pause():
        shift = average(X, axis, weights)
    mean = shift + average(X - broadcast_like(shift, X), axis, weights)  # (1)
    var = average(nd.square(X - broadcast_like(mean, X)), axis, weights)  # (2)
    return (mean, var) if keepdims else (squeeze(mean, axis), squeeze(var, axis))


@checked.normalize
def normalize(X, mean, var, beta, gamma, eps):
    """gamma (X - mean) / sqrt(var + eps) + beta: equations (3) and (4), for any statistics.

    The argument order is that of `tf.nn.batch_normalization`. All arrays broadcast against X;
    `beta` or `gamma` may be None. Where the variance is infinite the result is NaN.
    """
    scale = inverse_root(var, eps)
    if gamma is not None:  # one may be per example, the other per channel
        scale = nd.broadcast_mul(gamma, scale)
    Y = (X - broadcast_like(mean, X)) * broadcast_like(scale, X)  # (3)
    return Y if beta is None else Y + broadcast_like(beta, X)  # (4)


@checked.batch_norm
def batch_norm(
    X, gamma, beta, moving_mean, moving_var, eps, momentum, *, axis=1, weights=None, unbiased=False
):
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
        its own; a vector (C,) is always one value per channel. None is 1 and 0.
    moving_mean, moving_var: one value per channel, (1, C, 1, 1) or (C,). Not changed in place.
    eps: added to the variance under the root, > 0.  momentum: in [0, 1].
    weights: shape (N,), the weight of each example in the batch statistics.
    unbiased: the moving variance takes n / (n - 1) times the batch's, as PyTorch's does.

    Returns (Y, moving_mean, moving_var): Y like X, the statistics in the shape and type given.
    A channel whose variance overflows (float32 holds up to 3.4e38) is NaN in Y, not beta.

    Raises TypeError or ValueError, with the offending shape or value, before anything is computed.
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


def moving_average(moving, batch, momentum):
    """One step of the exponential moving average; `momentum` is the weight of the past."""
    return momentum * moving + (1 - momentum) * batch


def bessel(X, axes, weights=None):
    """n / (n - 1), from the biased to the unbiased variance of n values (1 for a single value)."""
    n = count(X, axes, weights)
    return n / max(n - 1, 1) if weights is None else n / nd.maximum(n - 1, 1)


def inverse_root(var, eps):
    """1 / sqrt(var + eps), and NaN for an infinite variance.

    The squares of large but finite values overflow. Divided by infinity they would all come out as
    beta, and nobody would see the accident; 0 times infinity is NaN.
    """
    return 1 / nd.sqrt(var + eps) + 0 * var


def renorm_correction(mean, var, renorm_mean, renorm_stddev, eps, r_min, r_max, d_max):
    """r and d of batch renormalization (Ioffe, 2017, Algorithm 1); a bound of None does not clip.

    The divisor is kept above sqrt(eps), as in TensorFlow, for the first steps from zero.
    """
    renorm_stddev = nd.maximum(renorm_stddev, eps**0.5)
    r = nd.sqrt(var + eps) / renorm_stddev
    d = (mean - renorm_mean) / renorm_stddev
    r = r if r_min is None else nd.maximum(r, r_min)
    r = r if r_max is None else nd.minimum(r, r_max)
    d = d if d_max is None else nd.clip(d, -d_max, d_max)
    return r, d


def activate(Y, activation):
    """Y through 'relu', 'sigmoid', 'softrelu', 'softsign' or 'tanh'; None leaves it as it is.

    MXNet's Activation makes zeros of NaN on a CPU, and nobody would see the accident; `nd.relu`
    does not.
    """
    if activation is None:
        return Y
    return nd.relu(Y) if activation == "relu" else nd.Activation(Y, act_type=activation)


# ---------------------------------------------- the relatives: other axes, the same two equations


@checked.layer_norm
def layer_norm(X, gamma, beta, eps, axis=-1):
    """Every position by its own mean and variance over `axis` (Ba et al., 2016, equation (3)).

    gamma and beta have one value per entry of `axis`.
    """
    mean, var = moments(X, axis, keepdims=True)
    return normalize(X, mean, var, beta, gamma, eps)


@checked.group_norm
def group_norm(X, gamma, beta, num_groups, eps):
    """Every example by the mean and variance of `num_groups` groups of its channels (Wu and He,
    2018, equations (2) to (7)). X is (N, C, ...); gamma and beta are per channel, (C,).

    One group is layer normalization over (C, ...), C groups are instance normalization.
    """
    grouped = X.reshape((X.shape[0], num_groups, -1))
    mean, var = moments(grouped, (2,), keepdims=True)
    X_hat = normalize(grouped, mean, var, None, None, eps).reshape(X.shape)
    X_hat = X_hat if gamma is None else X_hat * broadcast_like(gamma, X)
    return X_hat if beta is None else X_hat + broadcast_like(beta, X)


@checked.instance_norm
def instance_norm(X, gamma, beta, eps, axis=1):
    """Every channel of every example by its own mean and variance (Ulyanov et al., 2016,
    equation (2)). X is (N, C, ...) of rank 3 or more; gamma and beta are per channel, (C,)."""
    mean, var = moments(X, tuple(a for a in range(1, X.ndim) if a != axis), keepdims=True)
    return normalize(X, mean, var, beta, gamma, eps)


@checked.rms_norm
def rms_norm(X, gamma, eps, axis=-1):
    """Every position to root mean square 1 over `axis`, times gamma (Zhang and Sennrich, 2019,
    equation (4)): gamma X / sqrt(mean of X^2 + eps). No mean is subtracted.

    gamma has one value per entry of `axis`, or is None.
    """
    mean_square = average(nd.square(X), axis)
    Y = X * broadcast_like(inverse_root(mean_square, eps), X)
    return Y if gamma is None else Y * broadcast_like(gamma, X)


@checked.pixel_norm
def pixel_norm(X, eps=1e-8, axis=1):
    """Every pixel's vector of channels to length sqrt(C) (Karras et al., 2018, section 4.2):
    `rms_norm` over the channels, in which nothing is learned."""
    return rms_norm(X, None, eps, (axis,))
