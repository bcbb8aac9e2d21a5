"""Which layer normalizes: what the argument `norm=` of every model means. What all models are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Union

from mxnet.gluon import Block, nn

from gluon_bn import kernels, relatives
from gluon_bn.blocks import BatchNorm
from gluon_bn.kernels.native_graph import fuse_activations

Norm = Union[str, Callable]  # of (num_features, num_dims), to a Block
KERNELS = ("auto", "textbook", "analytic", "fused", "native")


class Identity(nn.HybridBlock):
    """Passes its input on. It stands where norm='none' leaves the normalization out.

    So every network of a model has the same layers at the same places, and the weights of its
    convolutions have the same names in `save_parameters` files, whichever norm it uses.
    """

    def hybrid_forward(self, F, X):
        return F.identity(X)


class Network(nn.HybridSequential):
    """A HybridSequential. Where it is hybridized, one more step follows the drawing of its graph:
    `fuse_activations`, which has our native batch norm compute the activation behind it."""

    def _alias(self):
        return "hybridsequential"  # from which Gluon makes the names of parameters

    def __repr__(self):
        return super().__repr__().replace("Network", "HybridSequential", 1)

    def _get_graph(self, *args):
        if not self._cached_graph:
            inputs, graph = super()._get_graph(*args)
            self._cached_graph = inputs, fuse_activations(graph)
        return self._cached_graph


def norm_names() -> list[str]:
    """The names that `norm=` takes here, in the order in which an error lists them.

    Returns
    -------
    list of str

    Examples
    --------
    >>> models.norm_names()[-5:]
    ['group', 'pixel', 'renorm', 'rms', 'ghost']
    """
    working = [name for name in KERNELS if name in ("auto", *kernels.available())]
    return [*working, "sync", "gluon", "none", *RELATIVES]


def make_norm(norm: Norm) -> Callable[[int, int], Block]:
    """The function `(num_features, num_dims) -> Block` for the argument `norm=` of a model.

    `num_features` is the number of channels, `num_dims` the rank of the input: 4 after a
    convolution (N, C, H, W), 2 after a dense layer (N, C). ::

        norm='auto'        our BatchNorm with its fastest kernel; also 'textbook', 'analytic', ...
        norm='sync'        the same, with the statistics of all workers' parts of the batch
        norm='gluon'       gluon.nn.BatchNorm
        norm='none'        no normalization
        norm='layer'       a relative of batch norm: 'layer', 'instance', 'group', 'pixel',
                           'renorm', 'rms', 'ghost', or the name of its class, such as 'LayerNorm'
        norm=function      your own: norm(num_features, num_dims) returns a Block

    Parameters
    ----------
    norm : str or function

    Returns
    -------
    function

    Raises
    ------
    ValueError : the name is unknown, or a kernel that does not work here
    TypeError : norm is neither a name nor a function

    Examples
    --------
    >>> models.make_norm("group")(64, 4).num_groups
    32
    """
    if not isinstance(norm, str):
        if not callable(norm):
            raise TypeError(
                f"norm must be a name or a function norm(num_features, num_dims) that "
                f"returns a Block, not {norm!r}"
            )
        return _returning_a_block(norm)
    if norm == "none":
        return lambda num_features, num_dims: Identity()
    if norm == "sync":
        return lambda num_features, num_dims: BatchNorm(num_features, num_dims, synchronized=True)
    if norm == "gluon":
        return lambda num_features, num_dims: nn.BatchNorm(in_channels=num_features)
    if norm in KERNELS and norm in norm_names():
        return lambda num_features, num_dims: BatchNorm(num_features, num_dims, kernel=norm)
    relative = norm.lower().replace("batchrenorm", "renorm").replace("ghostbatch", "ghost")
    relative = relative if relative in RELATIVES else relative.removesuffix("norm")
    if relative in RELATIVES:
        return RELATIVES[relative]
    why = "is unknown"
    if norm in KERNELS:
        why = f"does not work on this machine ({kernels.why_not(norm)})"
    raise ValueError(f"norm {norm!r} {why}; choose one of {', '.join(norm_names())}")


def _returning_a_block(norm):
    def checked(num_features, num_dims):
        layer = norm(num_features, num_dims)
        if not isinstance(layer, Block):
            raise TypeError(
                f"norm(num_features, num_dims) must return a Block, got {type(layer).__name__}"
            )
        return layer

    return checked


# After a dense layer there is one value per channel and example. Groups of channels can be averaged
# there as well, single channels cannot: 'instance' takes all of them, which is layer normalization.


def _layer(num_features, num_dims):
    return relatives.GroupNorm(1, in_channels=num_features)  # all of (C, H, W), as in the paper


def _instance(num_features, num_dims):
    if num_dims == 2:
        return _layer(num_features, num_dims)
    return relatives.InstanceNorm(scale=True, in_channels=num_features)


def _group(num_features, num_dims):
    """32 groups, the default of the paper, or fewer: two channels in a group at the least."""
    groups = max(
        g for g in range(1, 33) if num_features % g == 0 and (g == 1 or 2 * g <= num_features)
    )
    return relatives.GroupNorm(groups, in_channels=num_features)


RELATIVES = {
    "layer": _layer,
    "instance": _instance,
    "group": _group,
    "pixel": lambda num_features, num_dims: relatives.PixelNorm(),
    "renorm": lambda num_features, num_dims: relatives.BatchRenorm(num_features, num_dims),
    "rms": lambda num_features, num_dims: relatives.RMSNorm(1, in_channels=num_features),
    "ghost": lambda num_features, num_dims: relatives.GhostBatchNorm(num_features, num_dims),
}
