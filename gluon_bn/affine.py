"""Which gamma and beta scale and shift an example: parts to plug into a `BatchNorm`.

    BatchNorm(affine=PerClass(10))

An affine part is an object with

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
    """One for each channel."""

    rows, by_kernel = (), True

    def of(self, layer, X, gamma, beta, running, weights, labels):
        return gamma, beta


class PerClass:
    """One for each class and channel: an example takes the row of its label."""

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
    and beta. r and d are constants in the gradient."""

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
