"""Which layer normalizes: what the argument `norm=` of every model means.

    norm='auto'        our BatchNorm with its fastest kernel; also 'textbook', 'analytic', ...
    norm='gluon'       gluon.nn.BatchNorm
    norm='none'        no normalization
    norm='layer', ...  one of our relatives of batch norm
    norm=function      your own: norm(num_features, num_dims) returns a Block

`num_features` is the number of channels, `num_dims` the rank of the input: 4 after a convolution
(N, C, H, W), 2 after a dense layer (N, C).
"""

import importlib

from mxnet.gluon import nn

KERNELS = ("auto", "textbook", "analytic", "fused", "native")


class Identity(nn.HybridBlock):
    """Passes its input on. It stands where norm='none' leaves the normalization out.

    So every network of a model has the same layers at the same places, and the weights of its
    convolutions have the same names in `save_parameters` files, whichever norm it uses.
    """

    def hybrid_forward(self, F, X):
        return F.identity(X)


def norm_names():
    """The names that `norm=` takes here, in the order in which an error lists them."""
    return [*_kernels(), "gluon", "none", *_relatives()]


def make_norm(norm):
    """Return a function `(num_features, num_dims) -> Block` for the argument `norm=` of a model.

    Raises ValueError for an unknown name, TypeError for what is neither a name nor a function.
    """
    if not isinstance(norm, str):
        if not callable(norm):
            raise TypeError(f"norm must be a name or a function norm(num_features, num_dims) that "
                            f"returns a Block, not {norm!r}")
        return norm
    if norm == "none":
        return lambda num_features, num_dims: Identity()
    if norm == "gluon":
        return lambda num_features, num_dims: nn.BatchNorm(in_channels=num_features)
    if norm in _kernels():
        from gluon_bn.blocks import BatchNorm

        return lambda num_features, num_dims: BatchNorm(num_features, num_dims, kernel=norm)
    if norm in _relatives():
        return _relatives()[norm]
    why = "is not available on this machine" if norm in KERNELS else "is unknown"
    raise ValueError(f"norm {norm!r} {why}; choose one of {', '.join(norm_names())}")


def _kernels():
    """The kernels that work on this machine, with 'auto' in front."""
    from gluon_bn import kernels

    return ["auto", *(name for name in KERNELS if name in kernels.available())]


def _relatives():
    """`{name: function(num_features, num_dims)}`, as gluon_bn.relatives offers them."""
    try:
        return importlib.import_module("gluon_bn.relatives").NORMS
    except ModuleNotFoundError:  # they come with a later chapter
        return {}
