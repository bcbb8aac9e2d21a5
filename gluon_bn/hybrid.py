"""Our Blocks inside a hybridized network.

`net.hybridize()` runs the Python of a network once, with symbols, and replays the graph it drew.
What Python asked then is frozen: `autograd.is_training()` for instance (MXNet's issue 16926), so a
layer that asks would train for ever. The way out is an operator that MXNet tells the mode at every
call. `mx.operator.CustomOp` is one: it comes back to the Block, and the Block computes as always.
It costs about a millisecond a call; the `native` kernel has an operator of its own and no Python.
"""

import itertools
import weakref

import mxnet as mx
from mxnet import autograd

_blocks = weakref.WeakValueDictionary()  # what the graph calls by number
_numbers = itertools.count()


def in_graph(block, X, *extra, **parameters):
    """The symbol of `block` in a graph, applied to the symbols of its inputs and parameters."""
    number = next(_numbers)
    _blocks[number] = block
    arguments = {f"input{i}": s for i, s in enumerate((X, *extra))}
    arguments.update(parameters)
    Y = mx.sym.Custom(**{name: s.as_nd_ndarray() for name, s in arguments.items()},
                      op_type="gluon_bn_block", block=number, inputs=1 + len(extra))
    return Y.as_np_ndarray() if isinstance(X, mx.sym.np._Symbol) else Y


@mx.operator.register("gluon_bn_block")
class _BlockProp(mx.operator.CustomOpProp):
    """What MXNet asks of the operator: names, shapes and types of its arguments."""

    def __init__(self, block, inputs):
        super().__init__(need_top_grad=True)
        self.block = _blocks.get(int(block))
        if self.block is None:
            raise RuntimeError("this graph calls a gluon_bn Block that no longer exists: a symbol "
                               "file of our layers cannot be run; convert them to Gluon's first")
        self.inputs = int(inputs)
        fixed = {n: p for n, p in self.block._reg_params.items() if p.grad_req == "null"}
        self.states = [n for n in fixed if n not in ("gamma", "beta")]
        self.weights = [n for n in self.block._reg_params if n not in self.states]

    def list_arguments(self):
        return [f"input{i}" for i in range(self.inputs)] + self.weights

    def list_auxiliary_states(self):
        return self.states

    def infer_shape(self, in_shape):
        channels = in_shape[0][self.block.axis]

        def shape(name):
            return [*self.block._reg_params[name].shape[:-1], channels]

        return (in_shape[:self.inputs] + [shape(n) for n in self.weights], [in_shape[0]],
                [shape(n) for n in self.states])

    def infer_type(self, in_type):
        def types(names):
            return [self.block._reg_params[n].dtype for n in names]

        return in_type[:self.inputs] + types(self.weights), [in_type[0]], types(self.states)

    def declare_backward_dependency(self, out_grad, in_data, out_data):
        return [*out_grad, *in_data]

    def create_operator(self, ctx, shapes, dtypes):
        return _BlockOperator(self)


class _BlockOperator(mx.operator.CustomOp):
    """One call of the Block in a graph, forward and, if asked, backward."""

    def __init__(self, prop):
        super().__init__()
        self.prop = prop

    def run(self, arguments, states):
        """The Block on these arrays, in the mode that is set."""
        prop = self.prop
        parameters = dict(zip(prop.weights + prop.states, arguments[prop.inputs:] + states))
        return prop.block.compute(*arguments[:prop.inputs], **parameters)

    def forward(self, is_train, req, in_data, out_data, aux):
        self.training = bool(is_train)
        # The statistics before this call: batch renormalization needs them in the backward pass.
        self.before = [a.copy() for a in aux]
        with autograd.pause(train_mode=self.training):
            Y = self.run(list(in_data), list(aux))
        self.assign(out_data[0], req[0], Y)

    def backward(self, req, out_grad, in_data, out_data, in_grad, aux):
        # The forward pass again, on the inputs that MXNet kept: no memory is held between the two,
        # and a second backward pass gives the same gradients.
        leaves = [a.detach() for a in in_data]
        for leaf, asked in zip(leaves, req):
            if asked != "null":
                leaf.attach_grad()
        with autograd.record(train_mode=self.training):
            Y = self.run(leaves, [a.copy() for a in self.before])
        Y.backward(out_grad[0], train_mode=self.training)
        for leaf, gradient, asked in zip(leaves, in_grad, req):
            if asked != "null":
                self.assign(gradient, asked, leaf.grad)
