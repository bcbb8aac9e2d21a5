"""The relatives of batch normalization, as Blocks with Gluon's signatures.

`LayerNorm`, `InstanceNorm`, `GroupNorm`, `RMSNorm` and `PixelNorm` average over other axes;
`BatchRenorm` corrects the batch's statistics by the running ones, `GhostBatchNorm` takes those of
a part of the batch. The equations are in `gluon_bn.functional`; here are parameters and states.
"""

from __future__ import annotations

from mxnet import autograd, nd

from gluon_bn import functional
from gluon_bn.affine import Renormalized
from gluon_bn.arguments import (
    check_batch,
    check_channel_axis,
    check_count,
    check_eps,
    check_groups,
    check_renorm,
    check_spatial,
)
from gluon_bn.averages import Renorm
from gluon_bn.base import ArrayBlock
from gluon_bn.blocks import BatchNorm
from gluon_bn.weight_norms import SpectralNorm, WeightNorm  # noqa: F401  relatives, too


class _Affine(ArrayBlock):
    """gamma and beta, one value per channel, for a normalization without running statistics."""

    _options = ("axis", "epsilon", "center", "scale")
    _per_example = True  # the statistics: axis 0 must be the batch's

    def __init__(
        self,
        axis: int = -1,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        beta_initializer="zeros",
        gamma_initializer="ones",
        in_channels: int = 0,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        check_channel_axis(axis, per_example=self._per_example)
        self.axis = axis
        check_eps(epsilon, "epsilon")
        check_count("in_channels", in_channels)
        self.epsilon, self.center, self.scale = epsilon, center, scale
        self.gamma = self._parameter("gamma", gamma_initializer, scale, (in_channels,))
        self.beta = self._parameter("beta", beta_initializer, center, (in_channels,))

    def check(self, X):
        check_batch(X, self.axis, None, self.channels, self._per_example)

    def compute(self, X, gamma, beta):
        return self.normalize(X, gamma if self.scale else None, beta if self.center else None)

    def __repr__(self):
        return (
            f"{type(self).__name__}(axis={self.axis}, epsilon={self.epsilon}, center="
            f"{self.center}, scale={self.scale}, in_channels={self.channels})"
        )


class LayerNorm(_Affine):
    """Layer normalization over one axis (Ba et al., 2016, equation (3)); Gluon's signature and
    parameters, gamma and beta (C,).

    Parameters
    ----------
    axis : int, what is averaged over, and has C entries
    epsilon : float > 0
    center, scale : bool; False fixes beta at 0, gamma at 1
    beta_initializer, gamma_initializer : str or Initializer
    in_channels : int, the channels C; 0 takes them from the first batch
    **kwargs : prefix and params

    Examples
    --------
    >>> layer = gluon_bn.LayerNorm()
    >>> layer.initialize()
    >>> print(layer(nd.array([[1, 5], [2, 4]])).asnumpy().round(3))
    [[-1.  1.]
     [-1.  1.]]
    """

    _per_example = False

    def normalize(self, X, gamma, beta):
        return functional.layer_norm(X, gamma, beta, self.epsilon, self.axis)


class InstanceNorm(_Affine):
    """Instance normalization (Ulyanov et al., 2016, equation (2)), for X of rank 3 or more; Gluon's
    signature: scale is off by default.

    Parameters
    ----------
    axis : int, that of the channels
    epsilon, center, scale, beta_initializer, gamma_initializer : as for `LayerNorm`
    in_channels, **kwargs : as for `LayerNorm`

    Examples
    --------
    >>> layer = gluon_bn.InstanceNorm()
    >>> layer.initialize()
    >>> print(layer(nd.array([[[1, 5], [2, 4]]])).asnumpy().round(3))
    [[[-1.  1.]
      [-1.  1.]]]
    """

    def __init__(
        self,
        axis: int = 1,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = False,
        beta_initializer="zeros",
        gamma_initializer="ones",
        in_channels: int = 0,
        **kwargs,
    ) -> None:
        initializers = beta_initializer, gamma_initializer
        super().__init__(axis, epsilon, center, scale, *initializers, in_channels, **kwargs)

    def check(self, X):
        super().check(X)
        check_spatial(X)

    def normalize(self, X, gamma, beta):
        return functional.instance_norm(X, gamma, beta, self.epsilon, self.axis)


class GroupNorm(_Affine):
    """Group normalization (Wu and He, 2018, equations (2) to (7)). Gluon's signature, but gamma and
    beta are per channel, (C,), as in the paper; those of Gluon 1.9.1 are per group, (num_groups,).

    Parameters
    ----------
    num_groups : int that divides C
    epsilon, center, scale, beta_initializer, gamma_initializer : as for `LayerNorm`
    in_channels, **kwargs : as for `LayerNorm`

    Examples
    --------
    >>> layer = gluon_bn.GroupNorm(num_groups=2)
    >>> layer.initialize()
    >>> print(layer(nd.array([[1, 5, 2, 4]])).asnumpy().round(3))
    [[-1.  1. -1.  1.]]
    """

    _options = ("num_groups", "epsilon", "center", "scale")

    def __init__(
        self,
        num_groups: int = 1,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        beta_initializer="zeros",
        gamma_initializer="ones",
        in_channels: int = 0,
        **kwargs,
    ) -> None:
        check_count("num_groups", num_groups, least=1)
        initializers = beta_initializer, gamma_initializer
        super().__init__(1, epsilon, center, scale, *initializers, in_channels, **kwargs)
        self.num_groups = num_groups

    def check(self, X):
        super().check(X)
        check_groups(self.num_groups, X)

    def normalize(self, X, gamma, beta):
        return functional.group_norm(X, gamma, beta, self.num_groups, self.epsilon)

    def __repr__(self):
        return super().__repr__().replace("(", f"(num_groups={self.num_groups}, ", 1)


class RMSNorm(ArrayBlock):
    """Root mean square normalization over one axis (Zhang and Sennrich, 2019, equation (4)): layer
    normalization without the mean and without beta.

    Parameters
    ----------
    axis : int, what is averaged over, and has C entries
    epsilon : float > 0; LLaMA's, where PyTorch's default is the precision of the type of X
    scale : bool; False fixes gamma at 1
    gamma_initializer : str or Initializer
    in_channels : int, the channels C; 0 takes them from the first batch
    **kwargs : prefix and params

    Examples
    --------
    >>> layer = gluon_bn.RMSNorm()
    >>> layer.initialize()
    >>> print(layer(nd.array([[1, 7]])).asnumpy().round(3))
    [[0.2 1.4]]
    """

    _options = ("axis", "epsilon", "scale")

    def __init__(
        self,
        axis: int = -1,
        epsilon: float = 1e-6,
        scale: bool = True,
        gamma_initializer="ones",
        in_channels: int = 0,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        check_channel_axis(axis)
        check_eps(epsilon, "epsilon")
        check_count("in_channels", in_channels)
        self.axis, self.epsilon, self.scale = axis, epsilon, scale
        self.gamma = self._parameter("gamma", gamma_initializer, scale, (in_channels,))

    def check(self, X):
        check_batch(X, self.axis, None, self.channels)

    def compute(self, X, gamma):
        return functional.rms_norm(X, gamma if self.scale else None, self.epsilon, self.axis)

    def __repr__(self):
        return (
            f"RMSNorm(axis={self.axis}, epsilon={self.epsilon}, scale={self.scale}, "
            f"in_channels={self.channels})"
        )


class PixelNorm(ArrayBlock):
    """Pixelwise feature vector normalization (Karras et al., 2018, section 4.2); no parameters to
    learn.

    Parameters
    ----------
    epsilon : float > 0
    axis : int, that of the channels
    **kwargs : prefix and params

    Examples
    --------
    >>> print(gluon_bn.PixelNorm()(nd.array([[1, 7]])).asnumpy().round(3))
    [[0.2 1.4]]
    """

    _options = ("epsilon", "axis")

    def __init__(self, epsilon: float = 1e-8, axis: int = 1, **kwargs) -> None:
        super().__init__(**kwargs)
        check_eps(epsilon, "epsilon")
        check_channel_axis(axis, per_example=True)
        self.epsilon, self.axis = epsilon, axis

    def check(self, X):
        check_batch(X, self.axis, per_example=True)

    def compute(self, X):
        return functional.pixel_norm(X, self.epsilon, self.axis)

    def __repr__(self):
        return f"PixelNorm(epsilon={self.epsilon}, axis={self.axis})"


class BatchRenorm(BatchNorm):
    """Batch renormalization (Ioffe, 2017, Algorithm 1), with TensorFlow's moving averages.

    The batch's x_hat is corrected towards what the running statistics would have given::

        r = clip(stddev / renorm_stddev, r_min, r_max),
        d = clip((mean - renorm_mean) / renorm_stddev, -d_max, d_max),
        Y = gamma (x_hat r + d) + beta,        stddev = sqrt(var + epsilon),

    with r and d taken as constants in the gradient. The averages are those of TensorFlow 1.15:
    `renorm_mean` and `renorm_stddev` move with `renorm_momentum` and serve training;
    `running_mean` and `running_stddev` move with `momentum` and serve prediction, where
    `running_var` = running_stddev^2 - epsilon.

    Parameters
    ----------
    num_features, num_dims : as for `BatchNorm`
    r_min, r_max, d_max : float, or None, which does not clip
    renorm_momentum : float in [0, 1]
    **options : as for `BatchNorm`

    Examples
    --------
    >>> sorted(gluon_bn.BatchRenorm(3)._reg_params)[2:]
    ['renorm_mean', 'renorm_stddev', 'running_mean', 'running_stddev', 'running_var']
    """

    _options = (*BatchNorm._options, "r_min", "r_max", "d_max", "renorm_momentum")
    _synchronizes = False

    def __init__(
        self,
        num_features: int = 0,
        num_dims: int | None = None,
        *,
        r_min: float | None = None,
        r_max: float | None = None,
        d_max: float | None = None,
        renorm_momentum: float = 0.99,
        **options,
    ) -> None:
        check_renorm(r_min, r_max, d_max, renorm_momentum, options)
        variance = options.get("running_variance_initializer", "ones")
        super().__init__(
            num_features, num_dims, average=Renorm(variance), affine=Renormalized(), **options
        )
        self.r_min, self.r_max, self.d_max = r_min, r_max, d_max
        self.renorm_momentum = renorm_momentum


class GhostBatchNorm(BatchNorm):
    """Ghost batch normalization (Hoffer et al., 2017, Algorithm 1): in training each part of the
    batch, `ghost_size` examples of it, is normalized by its own statistics.

    A large batch then has the noise of a small one. The running statistics move once for each part,
    in order. What does not divide is shared out: a part has at least `ghost_size` examples, if the
    batch has. In prediction it is `BatchNorm`.

    Parameters
    ----------
    num_features, num_dims : as for `BatchNorm`
    ghost_size : int, at least 1
    **options : as for `BatchNorm`

    Examples
    --------
    >>> layer = gluon_bn.GhostBatchNorm(1, ghost_size=2)
    >>> layer.initialize()
    >>> with autograd.record():
    ...     Y = layer(nd.array([[1], [3], [10], [50]]))
    >>> print(Y.asnumpy().round(3).ravel())
    [-1.  1. -1.  1.]
    """

    _options = (*BatchNorm._options, "ghost_size")
    _synchronizes = False
    _per_example = True

    def __init__(
        self,
        num_features: int = 0,
        num_dims: int | None = None,
        *,
        ghost_size: int = 32,
        **options,
    ) -> None:
        check_count("ghost_size", ghost_size, least=1)
        super().__init__(num_features, num_dims, **options)
        self.ghost_size = ghost_size

    def compute(self, X, sample_weight=None, **parameters):
        ghosts = len(X) // self.ghost_size
        if ghosts < 2 or self.use_global_stats or not autograd.is_training():
            return super().compute(X, sample_weight, **parameters)
        edges = [len(X) * i // ghosts for i in range(ghosts + 1)]
        parts = []
        for begin, end in zip(edges, edges[1:]):
            part, weight = (
                a if a is None else nd.slice_axis(a, axis=0, begin=begin, end=end)
                for a in (X, sample_weight)
            )
            parts.append(super().compute(part, weight, **parameters))
        return nd.concat(*parts, dim=0)
