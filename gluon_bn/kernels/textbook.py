"""The equations of `gluon_bn.functional` as they stand there, differentiated by autograd.

Readable before fast, and the measure for every other kernel. Any device, any floating type.
"""

from gluon_bn.arguments import Array
from gluon_bn.functional import batch_norm

__all__ = ["OPTIONS", "batch_norm", "supports"]

OPTIONS = ("axis", "weights", "unbiased")


def supports(X: Array) -> bool:
    """Everything: any device, any floating type."""
    return True
