"""A Gluon network as a thing to walk through, to copy, and to change: the tools of this folder."""

import contextlib
import copy

import mxnet as mx
from mxnet.gluon import Block, HybridBlock, nn

from gluon_bn import runtime
from gluon_bn.arguments import as_nd

GLUONS = (nn.BatchNorm, nn.BatchNormReLU)


def named_blocks(net, name="", seen=None):
    """(name, Block) for the network and all Blocks in it, named as in `save_parameters` files; a
    Block that stands in several places comes once."""
    if not isinstance(net, Block):
        raise TypeError(f"a Gluon network is expected, got {type(net).__name__}")
    seen = set() if seen is None else seen
    if id(net) in seen:
        return
    seen.add(id(net))
    yield name, net
    for child, block in net._children.items():
        yield from named_blocks(block, f"{name}.{child}" if name else child, seen)


def all_blocks(net):
    return [block for _, block in named_blocks(net)]


def new_memo(net):
    """What `copy.deepcopy` must not copy in its own way: by id, the copy to take instead."""
    runtime.settle()  # values will be copied
    memo, blocks = {}, all_blocks(net)
    inside = {id(block) for block in blocks}
    for block in blocks:
        if isinstance(block, mx.gluon.SymbolBlock):
            raise ValueError(
                f"{block.name} is a SymbolBlock, a finished graph without layers; "
                "this needs the network it was exported from"
            )
        outer = block._scope._old_scope  # Gluon keeps the last one; it may lead out of the network
        if outer is not None and id(outer._block) not in inside:
            memo[id(outer)] = None
        # The compiled graph of a hybridized network: the copy will draw its own.
        for attribute, empty in (
            ("_cached_graph", ()),
            ("_cached_op", None),
            ("_cached_op_args", []),
        ):
            value = getattr(block, attribute, None)
            if value is not None:
                memo[id(value)] = empty
    for parameter in net.collect_params().values():
        for array in parameter._data or ():
            memo[id(array)] = array.copy()
        if parameter._grad is not None:
            memo[id(parameter._grad)] = None
        if parameter._trainer is not None:
            memo[id(parameter._trainer)] = None
    return memo


def copy_of(net, replaced=None, memo=None):
    """The network once more, with other Blocks where `replaced` (by id) says so.

    The replacement stands wherever the old Block stood: attribute, child, or in a list.
    """
    memo = new_memo(net) if memo is None else memo
    memo.update(replaced or {})
    new = copy.deepcopy(net, memo)
    for parameter in new.collect_params().values():
        if parameter._data is not None and parameter._grad is None and parameter.grad_req != "null":
            parameter._init_grad()  # arrays of its own, known to autograd
    return new


def replace(net, old, new):
    """Put one Block in the place of another, in a network that may be changed."""
    for block in all_blocks(net):
        for name, child in block._children.items():
            if child is old:
                block._children[name] = new
        for name, value in list(block.__dict__.items()):
            if value is old:
                block.__dict__[name] = new


@contextlib.contextmanager
def layer_by_layer(net):
    """The Blocks of a hybridized network compute one after the other; its graph is kept."""
    active = [b for b in all_blocks(net) if isinstance(b, HybridBlock) and b._active]
    for block in active:
        block._active = False
    try:
        yield
    finally:
        for block in active:
            block._active = True


def values(parameter):
    """What the parameter holds on each of its devices: {device: NumPy array in float64}."""
    return {
        place: as_nd(parameter.data(place)).asnumpy().astype("float64")
        for place in parameter.list_ctx()
    }


def set_values(parameter, value):
    """Give the parameter an array of values, or one for each of its devices."""
    for place in parameter.list_ctx():
        array = as_nd(parameter.data(place))
        own = value[place] if isinstance(value, dict) else value
        array[:] = mx.nd.array(own, ctx=place, dtype=array.dtype).reshape(array.shape)


def followed_by(layer, activation):
    if activation is None:
        return layer
    both = nn.HybridSequential(prefix=layer.prefix)
    both.add(layer, nn.Activation(activation, prefix=layer.prefix + activation + "_"))
    return both
