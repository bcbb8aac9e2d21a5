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
import numpy as np
from mxnet import autograd, nd
from mxnet.gluon import HybridBlock
from mxnet.symbol import Symbol

from gluon_bn.arguments import check_inputs
from gluon_bn.kernels.function import finish

_blocks = weakref.WeakValueDictionary()  # what the graph calls by number
_numbers = itertools.count()


class ArrayBlock(HybridBlock):
    """A Block written as one method on plain arrays, that can stand in a hybridized network.

    A subclass makes its parameters with `_parameter`, refuses bad input in `check(X, *inputs)` and
    computes in `compute(X, *inputs, **parameters)`, on `mx.nd` arrays, in the mode that autograd
    is in.
    """

    axis = 1  # of X, where the channels are

    @property
    def channels(self):
        """How many; 0 before the first batch (where Gluon says -1 under NumPy semantics)."""
        return max(self.gamma.shape[-1], 0)

    def _parameter(self, name, init, trained=None, shape=(0,)):
        """A parameter; `trained` is None for a state that is moved, not learned."""
        return self.params.get(name, shape=shape, init=init, allow_deferred_init=True,
                               grad_req="write" if trained else "null",
                               differentiable=bool(trained))

    def hybridize(self, active=True, **kwargs):
        """Nothing to do alone: one layer is no graph. A network that contains it calls `in_graph`.

        So a lone layer may be called with and without its optional inputs, which a cached graph
        of Gluon's does not allow.
        """
        super().hybridize(False)

    def _state_names(self):
        """The parameters that `compute` changes in place."""
        return [name for name in self._reg_params if name not in ("gamma", "beta")]

    def infer_shape(self, X, *args):
        """Deferred initialization: Gluon asks for the shapes that the first X implies."""
        for name, shape in self.infer_shapes(X.shape)[0].items():
            self._reg_params[name].shape = shape

    def infer_shapes(self, X_shape):
        """The shape of every parameter, by name, and of the output, for X of this shape."""
        channels = X_shape[self.axis]
        return ({name: (*parameter.shape[:-1], channels)
                 for name, parameter in self._reg_params.items()}, X_shape)

    def forward(self, X, *inputs):
        if not isinstance(X, Symbol):
            check_inputs(X, inputs, self._reg_params)
            self.check(as_nd(X), *map(as_nd, inputs))
        return super().forward(X, *inputs)

    def check(self, X, *inputs):
        """Raise TypeError or ValueError for what `compute` could not take."""

    def hybrid_forward(self, F, X, *inputs, **parameters):
        if isinstance(X, Symbol):
            return self.graph(X, *inputs, **parameters)
        Y = self.compute(as_nd(X), *map(as_nd, inputs),
                         **{name: as_nd(value) for name, value in parameters.items()})
        return Y.as_np_ndarray() if isinstance(X, mx.np.ndarray) else Y

    def graph(self, X, *inputs, **parameters):
        """The symbol of this Block in the graph of a hybridized network."""
        return in_graph(self, X, *inputs, **parameters)

    def compute(self, X, *inputs, **parameters):
        raise NotImplementedError


def as_nd(value):
    """The `mx.nd` face of an array of either kind; anything else as it is."""
    return value.as_nd_ndarray() if isinstance(value, nd.NDArray) else value


def in_graph(block, X, *extra, **parameters):
    """The symbol of `block` in a graph, applied to the symbols of its inputs and parameters."""
    number = next(_numbers)
    _blocks[number] = block
    arguments = {f"input{i}": s for i, s in enumerate((X, *extra))}
    arguments.update(parameters)
    arguments = {name: s.as_nd_ndarray() for name, s in arguments.items()}
    arguments["input0"] = _plain(arguments["input0"])
    Y = _plain(mx.sym.Custom(**arguments, op_type="gluon_bn_block", block=number,
                             inputs=1 + len(extra)))
    return Y.as_np_ndarray() if isinstance(X, mx.sym.np._Symbol) else Y


def _plain(S):
    """S in plain layout, and so the gradient that arrives at it; the slice takes everything.

    A Custom operator of MXNet 1.9.1 is handed memory as if it were plain, also where a convolution
    has left its own blocked layout there, and then it computes with values in the wrong order. An
    operator that writes a new array in between puts it in order, forward and backward.
    """
    return mx.sym.slice_axis(S, axis=0, begin=0, end=None)


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
        self.states = self.block._state_names()
        self.weights = [n for n in self.block._reg_params if n not in self.states]

    def list_arguments(self):
        return [f"input{i}" for i in range(self.inputs)] + self.weights

    def list_auxiliary_states(self):
        return self.states

    def infer_shape(self, in_shape):
        shapes, out = self.block.infer_shapes(tuple(in_shape[0]))
        return (in_shape[:self.inputs] + [shapes[n] for n in self.weights], [out],
                [shapes[n] for n in self.states])

    def infer_type(self, in_type):
        def types(names):
            return [np.dtype(self.block._reg_params[n].dtype).type for n in names]

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
        finish([*in_data, *out_data, *aux])

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
        finish([*out_grad, *in_data, *in_grad, *aux])
