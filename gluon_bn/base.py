"""A layer as a Block of Gluon's: alone it computes on the arrays it is given, in a hybridized
network it draws itself as an operator (`gluon_bn.graph`).
"""

from __future__ import annotations

import mxnet as mx
from mxnet.gluon import HybridBlock
from mxnet.symbol import Symbol

from gluon_bn.arguments import Array, as_nd, check_inputs, dense
from gluon_bn.graph import in_graph


class ArrayBlock(HybridBlock):
    """A Block written as one method on plain arrays, that can stand in a hybridized network.

    A subclass makes its parameters with `_parameter`, refuses bad input in `check(X, *inputs)` and
    computes in `compute(X, *inputs, **parameters)`, on `mx.nd` arrays, in the mode that autograd
    is in.

    Parameters
    ----------
    prefix, params : as for every Block of Gluon's

    Examples
    --------
    >>> class Double(base.ArrayBlock):
    ...     def compute(self, X):
    ...         return 2 * X
    >>> print(Double()(nd.ones(3)).asnumpy())
    [2. 2. 2.]
    """

    axis = 1  # of X, where the channels are
    # The arguments of the constructor that are attributes of the same name.
    _options: tuple[str, ...] = ()
    _static_shape = False  # of the network around it

    @property
    def channels(self) -> int:
        """How many; 0 before the first batch (where Gluon says -1 under NumPy semantics)."""
        return max(self.gamma.shape[-1], 0)

    def _parameter(self, name, init, trained=None, shape=(0,)):
        """A parameter; `trained` is None for a state that is moved, not learned."""
        return self.params.get(
            name,
            shape=shape,
            init=init,
            allow_deferred_init=True,
            grad_req="write" if trained else "null",
            differentiable=bool(trained),
        )

    def hybridize(self, active=True, **kwargs):
        """Nothing to do alone: one layer is no graph. A network that contains it calls `in_graph`.

        So a lone layer may be called with and without its optional inputs, which a cached graph
        of Gluon's does not allow.
        """
        self._static_shape = active and kwargs.get("static_shape", False)
        super().hybridize(False)

    def on_cpu(self):
        """Whether its parameters are, or may yet be."""
        try:
            places = self.gamma.list_ctx()
        except RuntimeError:  # drawn before it has values
            return True
        return all(place.device_type.startswith("cpu") for place in places)

    def _arguments(self):
        """Plain values from which `_made_from` makes such a Block again; None if there are none."""
        return {name: getattr(self, name) for name in self._options}

    @classmethod
    def _made_from(cls, **arguments):
        return cls(**arguments)

    def _state_names(self):
        """The parameters that `compute` changes in place."""
        return [name for name in self._reg_params if name not in ("gamma", "beta")]

    def infer_shape(self, X, *args):
        """Deferred initialization: Gluon asks for the shapes that the first X implies."""
        for name, shape in self.infer_shapes(X.shape)[0].items():
            self._reg_params[name].shape = shape

    def infer_shapes(self, X_shape: tuple[int, ...]) -> tuple[dict, tuple[int, ...]]:
        """The shape of every parameter, by name, and of the output, for X of this shape."""
        channels = X_shape[self.axis]
        return (
            {
                name: (*parameter.shape[:-1], channels)
                for name, parameter in self._reg_params.items()
            },
            X_shape,
        )

    def forward(self, X: Array, *inputs: Array) -> Array:
        if not isinstance(X, Symbol):
            X, inputs = dense(X), tuple(map(dense, inputs))
            check_inputs(X, inputs, self._reg_params)
            self.check(as_nd(X), *map(as_nd, inputs))
        return super().forward(X, *inputs)

    def check(self, X: Array, *inputs: Array) -> None:
        """Raise TypeError or ValueError for what `compute` could not take."""

    def hybrid_forward(self, F, X, *inputs, **parameters):
        if isinstance(X, Symbol):
            return self.graph(X, *inputs, **parameters)
        Y = self.compute(
            as_nd(X),
            *map(as_nd, inputs),
            **{name: as_nd(value) for name, value in parameters.items()},
        )
        return Y.as_np_ndarray() if isinstance(X, mx.np.ndarray) else Y

    def graph(self, X, *inputs, **parameters):
        """The symbol of this Block in the graph of a hybridized network."""
        return in_graph(self, X, *inputs, **parameters)

    def compute(self, X: Array, *inputs: Array, **parameters) -> Array:
        raise NotImplementedError
