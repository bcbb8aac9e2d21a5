"""Which gamma and beta scale and shift an example: parts to plug into a `BatchNorm`.

An affine part, as in `BatchNorm(affine=PerClass(10))`, is an object with::

    rows            what stands before the C in the shape of gamma and beta
    by_kernel       True: they are handed to the kernel as they are, vectors (C,)
    of(layer, X, gamma, beta, running, weights, labels)
                    those for this batch, in the mode that autograd is in: (C,), or of X's rank and
                    broadcasting against it
"""

from mxnet import autograd, nd

from gluon_bn import functional
from gluon_bn.arguments import cast


class PerChannel:
    """One for each channel: what `BatchNorm` does by itself.

    Examples
    --------
    >>> gluon_bn.BatchNorm(3, affine=affine.PerChannel()).gamma.shape
    (3,)
    """

    rows, by_kernel = (), True

    def of(self, layer, X, gamma, beta, running, weights, labels):
        return gamma, beta


class PerClass:
    """One for each class and channel: an example takes the row of its label.

    Parameters
    ----------
    num_classes : int

    Examples
    --------
    >>> gluon_bn.BatchNorm(3, affine=affine.PerClass(10)).gamma.shape
    (10, 3)
    """

    by_kernel = False

    def __init__(self, num_classes):
        self.rows = (num_classes,)

    def of(self, layer, X, gamma, beta, running, weights, labels):
        shape = [1] * X.ndim  # a row per example, (N, C), as (N, C, 1, 1)
        shape[0], shape[layer.axis] = X.shape[0], X.shape[layer.axis]
        labels = nd.cast(labels, "int32")
        return [nd.take(v, labels).reshape(shape) for v in (gamma, beta)]


class Renormalized:
    """Batch renormalization: gamma (x_hat r + d) + beta is batch normalization with another gamma
    and beta. r and d are constants in the gradient. A part of `BatchRenorm`.

    Examples
    --------
    >>> isinstance(gluon_bn.BatchRenorm(3).affine, affine.Renormalized)
    True
    """

    rows, by_kernel = (), False

    def of(self, layer, X, gamma, beta, running, weights, labels):
        if not autograd.is_training():
            return gamma, beta
        axes = tuple(a for a in range(X.ndim) if a != layer.axis % X.ndim)
        with autograd.pause():
            mean, var = (s.reshape(-1) for s in functional.moments(X, axes, weights))
            old = (cast(running[name], X.dtype) for name in ("renorm_mean", "renorm_stddev"))
            bounds = layer.r_min, layer.r_max, layer.d_max
            r, d = renorm_correction(mean, var, *old, layer.epsilon, *bounds)
        return gamma * r, gamma * d + beta


def renorm_correction(mean, var, renorm_mean, renorm_stddev, eps, r_min, r_max, d_max):
    """r and d of batch renormalization (Ioffe, 2017, Algorithm 1).

    Parameters
    ----------
    mean, var, renorm_mean, renorm_stddev : arrays (C,), of the batch and of its moving averages
        The divisor is kept above sqrt(eps), as in TensorFlow, for the first steps from zero.
    eps : float > 0
    r_min, r_max, d_max : floats, or None, which does not clip

    Returns
    -------
    r, d : arrays (C,)

    Examples
    --------
    >>> one = nd.ones(1)
    >>> r, d = affine.renorm_correction(3 * one, 4 * one, one, one, 0, None, 3, 1)
    >>> print(r.asnumpy(), d.asnumpy())
    [2.] [1.]
    """
    renorm_stddev = nd.maximum(renorm_stddev, eps**0.5)
    r = nd.sqrt(var + eps) / renorm_stddev
    d = (mean - renorm_mean) / renorm_stddev
    r = r if r_min is None else nd.maximum(r, r_min)
    r = r if r_max is None else nd.minimum(r, r_max)
    d = d if d_max is None else nd.clip(d, -d_max, d_max)
    return r, d
