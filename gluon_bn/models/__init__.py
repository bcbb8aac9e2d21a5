"""The networks of the course: plain functions that return Gluon networks, not yet initialized.

`MODELS` holds the classifiers by the name the command line uses; `generator` and `discriminator`
are the pair of chapter 8.
"""

from gluon_bn.models.densenet import densenet
from gluon_bn.models.gan import discriminator, generator
from gluon_bn.models.layers import make_norm, norm_names
from gluon_bn.models.lenet import lenet
from gluon_bn.models.resnet import resnet18

#: The classifiers, by the name that the command line knows.
MODELS: dict = {"lenet": lenet, "resnet18": resnet18, "densenet": densenet}

__all__ = [
    "MODELS",
    "densenet",
    "discriminator",
    "generator",
    "lenet",
    "make_norm",
    "norm_names",
    "resnet18",
]
