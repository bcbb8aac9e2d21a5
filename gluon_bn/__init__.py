"""Batch normalization, built from scratch in MXNet Gluon.

The mathematics is in `gluon_bn.functional`, the layers in `gluon_bn.blocks` and
`gluon_bn.relatives`, fast ways to compute them in `gluon_bn.kernels`. Importing this package
changes no global state.
"""

from gluon_bn.blocks import BatchNorm, ConditionalBatchNorm
from gluon_bn.functional import batch_norm, moments, normalize
from gluon_bn.relatives import (
    BatchRenorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    PixelNorm,
    SpectralNorm,
    WeightNorm,
)

__version__ = "0.1.0"

__all__ = ["BatchNorm", "BatchRenorm", "ConditionalBatchNorm", "GroupNorm", "InstanceNorm",
           "LayerNorm", "PixelNorm", "SpectralNorm", "WeightNorm", "batch_norm", "moments",
           "normalize"]
