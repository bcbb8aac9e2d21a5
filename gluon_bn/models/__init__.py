"""The networks of the course: plain functions that return Gluon networks, not yet initialized.

`MODELS` holds them by the name the command line uses.
"""

from gluon_bn.models.layers import make_norm, norm_names
from gluon_bn.models.lenet import lenet

MODELS = {"lenet": lenet}

__all__ = ["MODELS", "lenet", "make_norm", "norm_names"]
