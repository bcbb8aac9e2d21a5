# What `__getattr__` in __init__.py loads when it is asked for, said to those who read types.

from gluon_bn.blocks import BatchNorm as BatchNorm
from gluon_bn.conditional import ConditionalBatchNorm as ConditionalBatchNorm
from gluon_bn.functional import batch_norm as batch_norm
from gluon_bn.functional import moments as moments
from gluon_bn.functional import normalize as normalize
from gluon_bn.relatives import BatchRenorm as BatchRenorm
from gluon_bn.relatives import GhostBatchNorm as GhostBatchNorm
from gluon_bn.relatives import GroupNorm as GroupNorm
from gluon_bn.relatives import InstanceNorm as InstanceNorm
from gluon_bn.relatives import LayerNorm as LayerNorm
from gluon_bn.relatives import PixelNorm as PixelNorm
from gluon_bn.relatives import RMSNorm as RMSNorm
from gluon_bn.weight_norms import SpectralNorm as SpectralNorm
from gluon_bn.weight_norms import WeightNorm as WeightNorm

__version__: str
NO_MXNET: str
