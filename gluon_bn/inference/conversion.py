"""Our layer and Gluon's, one in the place of the other."""

from __future__ import annotations

import copy

from mxnet.gluon import Block, nn

from gluon_bn.base import ArrayBlock
from gluon_bn.blocks import BatchNorm
from gluon_bn.inference.networks import (
    GLUONS,
    copy_of,
    followed_by,
    named_blocks,
    new_memo,
    values,
)


def to_gluon(net: Block) -> Block:
    """A copy of the network with `gluon.nn.BatchNorm` in the place of our `BatchNorm`.

    Parameters and running statistics are the same, bit for bit, under the same names; momentum,
    epsilon, axis, center, scale and use_global_stats are carried over. An `activation` becomes a
    layer of its own behind the norm. The copy needs nothing of this package, so a file that
    `export` wrote of it is loaded by any MXNet.

    What differs in the copy: Gluon moves the statistics in the backward pass, lets NaN into them
    (`skip_nonfinite`), does not check `num_dims`, and overwrites gamma with ones if scale=False.

    Parameters
    ----------
    net : Block

    Returns
    -------
    Block

    Raises
    ------
    ValueError : what Gluon has not, naming the layer and the option
        momentum=None, zero_debias, unbiased, center=False with a beta that is not zero,
        BatchRenorm, ConditionalBatchNorm and every other Block of this package that keeps its own
        parameters.

    Examples
    --------
    >>> type(inference.to_gluon(gluon_bn.BatchNorm(3))).__module__
    'mxnet.gluon.nn.basic_layers'
    """
    replaced = {}
    memo = new_memo(net)
    for name, layer in named_blocks(net):
        if not isinstance(layer, ArrayBlock):
            continue
        if type(layer) is not BatchNorm:
            raise ValueError(
                f"layer {name!r} is a {type(layer).__name__}, which gluon.nn does not "
                "have in this form"
            )
        for option, usual in (("zero_debias", False), ("unbiased", False)):
            if getattr(layer, option) != usual:
                raise ValueError(
                    f"layer {name!r} has {option}={getattr(layer, option)!r}, which "
                    "gluon.nn.BatchNorm does not have"
                )
        if layer._arguments() is None:
            raise ValueError(
                f"layer {name!r} has an average of its own, a "
                f"{type(layer.average).__name__}, which gluon.nn.BatchNorm does not "
                "have"
            )
        if layer.momentum is None:
            raise ValueError(
                f"layer {name!r} has momentum=None, the plain average of all batches; "
                "gluon.nn.BatchNorm has none. Set layer.momentum to a number first"
            )
        if not layer.center and _shifts(layer):
            raise ValueError(
                f"layer {name!r} has center=False and a beta that is not zero: ours "
                "ignores it, gluon.nn.BatchNorm would add it. Set beta to 0 first"
            )
        theirs = nn.BatchNorm(
            axis=layer.axis,
            momentum=layer.momentum,
            epsilon=layer.epsilon,
            center=layer.center,
            scale=layer.scale,
            use_global_stats=layer.use_global_stats,
            in_channels=layer.channels,
            prefix=layer.prefix,
        )
        _take_parameters(theirs, layer, memo)
        replaced[id(layer)] = followed_by(theirs, layer.activation)
    return copy_of(net, replaced, memo)


def from_gluon(net: Block, kernel: str = "auto") -> Block:
    """A copy of the network with our `BatchNorm` in the place of `gluon.nn.BatchNorm`.

    The way back from `to_gluon`, and the way in for any network of Gluon's. Parameters and running
    statistics are the same, bit for bit, under the same names. `nn.BatchNormReLU` becomes our layer
    with activation='relu'.

    Parameters
    ----------
    net : Block
    kernel : str, that of the new layers; see `gluon_bn.kernels`

    Returns
    -------
    Block

    Raises
    ------
    ValueError : the kernel is unknown, or a class only looks like Gluon's, naming the layer
        SyncBatchNorm, your own subclass.

    Examples
    --------
    >>> inference.from_gluon(nn.BatchNorm(in_channels=3))
    BatchNorm(num_features=3, axis=1, momentum=0.9, epsilon=1e-05, kernel='auto')
    """
    replaced, memo = {}, new_memo(net)
    BatchNorm(kernel=kernel)  # refuses an unknown kernel, whatever the network
    for name, layer in named_blocks(net):
        if not isinstance(layer, nn.basic_layers._BatchNorm):
            continue
        if type(layer) not in GLUONS:
            raise ValueError(
                f"layer {name!r} is a {type(layer).__name__}, not a plain "
                "gluon.nn.BatchNorm; what it adds would be lost"
            )
        options = layer._kwargs
        # Gluon adds a beta that center=False fixed, so one that is not zero must stay.
        fixed = not layer.beta._differentiable and not _shifts(layer)
        ours = BatchNorm(
            max(layer.gamma.shape[0], 0),
            axis=options["axis"],
            momentum=options["momentum"],
            epsilon=options["eps"],
            center=not fixed,
            scale=not options["fix_gamma"],
            use_global_stats=options["use_global_stats"],
            kernel=kernel,
            activation="relu" if layer.fuse_relu else None,
            prefix=layer.prefix,
        )
        _take_parameters(ours, layer, memo)
        replaced[id(layer)] = ours
    return copy_of(net, replaced, memo)


def _shifts(layer):
    """Whether the layer has a beta, and one that is not zero."""
    return layer.beta._data is not None and any(b.any() for b in values(layer.beta).values())


def _take_parameters(new, old, memo):
    """The copies of the old layer's parameters become those of the new one."""
    for name in new._reg_params:
        parameter = copy.deepcopy(getattr(old, name), memo)
        new._reg_params[name] = new.params._params[parameter.name] = parameter
        new.__dict__[name] = parameter
