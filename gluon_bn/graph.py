"""One of our Blocks as an operator in the graph of a hybridized network.

`net.hybridize()` runs the Python of a network once, with symbols, and replays the graph it drew.
What Python asked then is frozen: `autograd.is_training()` for instance (MXNet's issue 16926), so a
layer that asks would train for ever. The way out is an operator that MXNet tells the mode at every
call. `mx.operator.CustomOp` is one: it comes back to the Block, and the Block computes as always.
It costs about a millisecond a call; the `native` kernel has an operator of its own and no Python.

The graph says in plain text what the Block is, so a file that `export` wrote can be read elsewhere.
"""

import json
import threading

import mxnet as mx
import numpy as np
from mxnet import autograd

import gluon_bn
from gluon_bn.arguments import cast
from gluon_bn.kernels.function import finish
from gluon_bn.workers import sync


def in_graph(block, X, *extra, **parameters):
    """The symbol of `block` in a graph, applied to the symbols of its inputs and parameters."""
    arguments = {f"input{i}": s for i, s in enumerate((X, *extra))}
    arguments.update(parameters)
    arguments = {name: s.as_nd_ndarray() for name, s in arguments.items()}
    given = _given(block, *arguments.values()) if block._state_names() else {}
    arguments["input0"] = _in_plain_layout(arguments["input0"])
    operator, description = _described(block)
    _drawn.block = block
    try:
        Y = mx.sym.Custom(
            **arguments,
            **given,
            op_type=operator,
            layer=description,
            inputs=1 + len(extra),
            ordered=len(given),
        )
    finally:
        _drawn.block = None
    Y = _in_plain_layout(Y)
    return Y.as_np_ndarray() if isinstance(X, mx.sym.np._Symbol) else Y


def _given(block, *symbols):
    """An input of the network among what the symbols are computed from, as one more argument.

    The operator takes it for the sake of order. With static_shape=True, MXNet 1.9.1 prepares each
    operator once and forgets that ours writes to its state: two forward passes under way, each on a
    copy of the graph of its own, would both start from the same running statistics. An operator
    that reads an input of the network cannot be prepared, and is told of all it writes.
    """
    together = mx.sym.Group(list(symbols))
    attributes = together.attr_dict()
    for name in together.list_inputs():
        if "__lr_mult__" not in attributes.get(name, {}):  # which every Parameter has
            inside = together.get_internals()
            return {"given": inside[inside.list_outputs().index(name)]}
    if block._static_shape:
        raise ValueError(
            f"{block.name} is computed from parameters alone, from no input of the network: with "
            "static_shape=True MXNet may move its state out of order; hybridize without it"
        )
    return {}


_drawn = threading.local()  # .block: the one whose operator is being made


def _described(block):
    """The name of the block's operator and the text that makes the block again, in another process
    that reads the graph from a file. (No number and no memory of this process may be in it.)"""
    arguments = block._arguments()
    if arguments is None or getattr(gluon_bn, type(block).__name__, None) is not type(block):
        name = (
            f"{type(block).__name__} (a class of your own, that gluon_bn cannot write into a "
            "file: save_parameters keeps its values, and the program that makes the network "
            "can load them)"
        )
        _register(name)
        return name, "null"
    dtypes = [str(np.dtype(p.dtype)) for p in block._reg_params.values()]
    described = [type(block).__name__, block.prefix, dtypes[0] if dtypes else None, arguments]
    return OPERATOR, json.dumps(described, default=lambda number: number.item())


def _made_again(description):
    if description == "null":
        raise TypeError("it is a class of your own")
    name, prefix, dtype, arguments = json.loads(description)
    block = getattr(gluon_bn, name)._made_from(prefix=prefix, **arguments)
    if dtype is not None:
        block.cast(dtype)
    return block


def _in_plain_layout(S):
    """S in plain layout, and so the gradient that arrives at it; the slice takes everything.

    A Custom operator of MXNet 1.9.1 is handed memory as if it were plain, also where a convolution
    has left its own blocked layout there, and then it computes with values in the wrong order. An
    operator that writes a new array in between puts it in order, forward and backward.
    """
    return mx.sym.slice_axis(S, axis=0, begin=0, end=None)


class _BlockProp(mx.operator.CustomOpProp):
    """What MXNet asks of the operator: names, shapes and types of its arguments."""

    def __init__(self, layer, inputs, ordered, **_attributes):
        super().__init__(need_top_grad=True)
        self.inputs, self.given = int(inputs), ["given"] * int(ordered)
        self.block = getattr(_drawn, "block", None)
        self.problem = None
        try:
            self.block = self.block or _made_again(layer)
            self.states = self.block._state_names()
            self.weights = [n for n in self.block._reg_params if n not in self.states]
        except Exception as error:  # raised here, it would end the process
            self.problem = (
                f"this gluon_bn cannot make the layer that the graph describes as {layer}: {error}"
            )

    def list_arguments(self):
        if self.problem:
            raise RuntimeError(self.problem)
        return [f"input{i}" for i in range(self.inputs)] + self.given + self.weights

    def list_auxiliary_states(self):
        return self.states

    def infer_shape(self, in_shape):
        shapes, out = self.block.infer_shapes(tuple(in_shape[0]))
        known = in_shape[: self.inputs + len(self.given)]
        return (known + [shapes[n] for n in self.weights], [out], [shapes[n] for n in self.states])

    def infer_type(self, in_type):
        def types(names):
            return [np.dtype(self.block._reg_params[n].dtype).type for n in names]

        known = in_type[: self.inputs + len(self.given)]
        return known + types(self.weights), [in_type[0]], types(self.states)

    def infer_storage_type(self, in_stype):
        # Whatever storage `given` has: nobody reads it.
        return in_stype, ["default"], ["default"] * len(self.states)

    def infer_storage_type_backward(self, ograd_stype, in_stype, out_stype, igrad_stype, aux_stype):
        return (
            ["default"] * len(ograd_stype),
            in_stype,
            ["default"] * len(out_stype),
            ["default"] * len(igrad_stype),
            ["default"] * len(aux_stype),
        )

    def declare_backward_dependency(self, out_grad, in_data, out_data):
        # All of it, although `given` and the output are not read: MXNet 1.9.1 keeps one list of
        # what was declared for all Custom operators, the last one's, and takes what another has
        # left out for an array that is there.
        return [*out_grad, *in_data, *out_data]

    def create_operator(self, ctx, shapes, dtypes):
        return BlockOperator(self)


class BlockOperator(mx.operator.CustomOp):
    """One call of the Block in a graph, forward and, if asked, backward."""

    def __init__(self, prop):
        super().__init__()
        self.prop = prop

    def run(self, arguments, states):
        """The Block on these arrays, in the mode that is set."""
        prop = self.prop
        values = arguments[prop.inputs + len(prop.given) :] + states
        parameters = dict(zip(prop.weights + prop.states, values))
        Y = prop.block.compute(*arguments[: prop.inputs], **parameters)
        return cast(Y, arguments[0].dtype)  # MXNet's mixed precision may have changed it

    def forward(self, is_train, req, in_data, out_data, aux):
        self.training = bool(is_train)
        # The statistics before this call: batch renormalization needs them in the backward pass.
        self.before = [a.copy() for a in aux]
        self.prop.block.check(*in_data[: self.prop.inputs])
        self.call = None
        with autograd.pause(train_mode=self.training), sync.kept_by(self):
            Y = self.run(list(in_data), list(aux))
        self.assign(out_data[0], req[0], Y)
        finish([*in_data, *out_data, *aux])

    def backward(self, req, out_grad, in_data, out_data, in_grad, aux):
        # The forward pass again, on the inputs that MXNet kept: no memory is held between the two,
        # and a second backward pass gives the same gradients.
        first, last = self.prop.inputs, self.prop.inputs + len(self.prop.given)
        leaves = [a if first <= i < last else a.detach() for i, a in enumerate(in_data)]
        for i, (leaf, asked) in enumerate(zip(leaves, req)):
            if first <= i < last:
                if asked in ("write", "inplace"):
                    in_grad[i][:] = 0
            elif asked != "null":
                leaf.attach_grad()
        with autograd.record(train_mode=self.training), sync.kept_by(self):
            Y = self.run(leaves, [a.copy() for a in self.before])
        Y.backward(out_grad[0], train_mode=self.training)
        for i, (leaf, gradient, asked) in enumerate(zip(leaves, in_grad, req)):
            if asked != "null" and not first <= i < last:
                self.assign(gradient, asked, leaf.grad)
        finish([*out_grad, *in_data[:first], *in_data[last:], *in_grad, *aux])


_registered: set[str] = set()


def _register(name):
    """Tell MXNet of the operator under this name, once."""
    if name not in _registered:
        _registered.add(name)
        with mx.util.np_array(False):  # the kind of array is asked for now, not at a call
            mx.operator.register(name)(_BlockProp)


# MXNet says this name to whoever loads a file of our layers without our layers.
OPERATOR = "gluon_bn (from gluon_bn import BatchNorm first)"
_register(OPERATOR)
