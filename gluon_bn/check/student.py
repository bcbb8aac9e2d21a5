"""A student's batch normalization as something that can be asked what it does in a situation."""

from dataclasses import dataclass, field

import mxnet as mx
import numpy as np
from mxnet import nd

from gluon_bn.check import probes
from gluon_bn.check.calling import (
    Failure,
    Function,
    dtype_of,
    guarded,
    make,
    mode,
    to_numpy,
    world,
    writes_numpy_style,
)

NAMES = ("X", "gamma", "beta", "moving_mean", "moving_var", "eps", "momentum")


@dataclass
class Outcome:
    """What one call did. Arrays are NumPy, float64; None where nothing came back."""

    Y: np.ndarray
    moving_mean: np.ndarray = None
    moving_var: np.ndarray = None
    dtype: str = ""
    shape: tuple = ()
    gradients: dict = field(default_factory=dict)
    gradient_failure: Failure = None
    changed: tuple = ()
    returned: str = "all"  # 'Y alone', 'reordered'
    returned_arrays: tuple = ()


class BatchNormFunction:
    """f(X, [labels,] gamma, beta, moving_mean, moving_var, eps, momentum), in one array kind."""

    def __init__(self, function, labels=False):
        self.labels = labels
        self.names = ("X", "labels", *NAMES[1:]) if labels else NAMES
        self.function = Function(function, self.names)
        self.reordered = self.function.reordered
        self.kind, self.layout = "nd", "column"
        self.failures, self.notes, self.changed = {}, [], set()

    def settle(self):
        """Find the array kind and the layout of vectors that it works with; True if there is one.

        `failures` then says for which (rank, training) it fails all the same, and how.
        """
        numpy_style = writes_numpy_style(self.function.function)
        kinds = ["np", "nd"] if mx.util.is_np_array() else ["nd", "np"]
        best = first = None
        for kind in [*kinds, "numpy"]:
            for layout in ("column", "vector"):
                self.kind, self.layout = kind, layout
                failures = {}
                for rank in (4, 2):
                    for training in (True, False):
                        s = probes.ordinary(rank, labels=self.labels).but(training=training)
                        try:
                            self.run(s, recording=False)
                        except Failure as failure:
                            failures[rank, training] = failure
                first = failures if first is None else first
                if best is None or len(failures) < len(best[0]):
                    best = failures, kind, layout
                if not failures:
                    break
            if not best[0]:
                break
        self.failures, self.kind, self.layout = best
        self.first_failures, self.numpy_style = first, numpy_style
        self.changed.clear()
        return len(self.failures) < 4

    def run(self, s, recording=True, upstream=None, dtype="float32", statistics=None):
        """One call. With `upstream`, the gradient of Y, also the way back.

        Raises Failure, with a sentence for the student, if nothing comes of it.
        """
        with guarded(), world(self.kind):
            arrays = self._arrays(s, dtype)
            if statistics is not None:
                arrays["moving_mean"], arrays["moving_var"] = statistics
            before = {k: np.array(_plain(v)) for k, v in arrays.items()}
            live = self.kind != "numpy"
            if live and upstream is not None:
                for name in ("X", "gamma", "beta"):
                    arrays[name].attach_grad()
            values = [arrays[n] if n in arrays else getattr(s, n) for n in self.names]
            with mode(s.training, recording and live):
                returned = self.function(*values, training=s.training)
            outcome = self._read(returned, s)
            if live and upstream is not None:
                self._back(outcome, arrays, upstream)
            outcome.changed = tuple(k for k, v in arrays.items() if not np.array_equal(
                before[k], _plain(v), equal_nan=True))
            self.changed |= {(name, s.training) for name in outcome.changed}
            return outcome

    def layout_of(self, s):
        """The shape in which the moving statistics are passed in."""
        return (s.column(s.moving_mean) if self.layout == "column" else s.moving_mean).shape

    def _arrays(self, s, dtype):
        def laid(vector):
            return s.column(vector) if self.layout == "column" else vector

        per_class = s.labels is not None
        values = {"X": s.X, "gamma": s.gamma if per_class else laid(s.gamma),
                  "beta": s.beta if per_class else laid(s.beta),
                  "moving_mean": laid(s.moving_mean), "moving_var": laid(s.moving_var)}
        arrays = {k: make(v, self.kind, dtype) for k, v in values.items()}
        if per_class:
            arrays["labels"] = make(
                s.labels.astype("int32") if s.labels.dtype.kind == "i" else s.labels, self.kind)
        return arrays

    def _read(self, returned, s):
        """Y and the statistics out of whatever was returned."""
        if not isinstance(returned, (tuple, list)):
            Y = to_numpy(returned, "what your function returns")
            return Outcome(Y, dtype=dtype_of(returned), shape=np.shape(Y), returned="Y alone",
                           returned_arrays=(returned,))
        parts = [to_numpy(value, f"return value number {i + 1}")
                 for i, value in enumerate(returned)]
        if not parts:
            raise Failure("it returns an empty tuple", "nothing returned")
        big = [i for i, part in enumerate(parts) if part.size == s.X.size]
        at = 0 if not big or 0 in big else big[0]
        Y, raw = parts[at], returned[at]
        outcome = Outcome(Y, dtype=dtype_of(raw), shape=Y.shape)
        rest = [i for i in range(len(parts)) if i != at]
        if len(rest) >= 2:
            outcome.moving_mean, outcome.moving_var = parts[rest[0]], parts[rest[1]]
            outcome.returned = "all" if at == 0 else "reordered"
        else:
            outcome.returned = "Y alone"
        outcome.returned_arrays = (raw, *(returned[i] for i in rest[:2]))
        return outcome

    def _back(self, outcome, arrays, upstream):
        """The gradients of sum(upstream * Y); the statistics are read again after it, for an
        operator of MXNet's moves them only now."""
        Y = outcome.returned_arrays[0]
        try:
            with guarded():
                if not isinstance(Y, nd.NDArray):
                    raise Failure(f"Y is of type {type(Y).__name__}, which autograd cannot follow",
                                  "gradient cut")
                Y.backward(make(upstream.reshape(Y.shape), self.kind, dtype_of(Y)))
                outcome.gradients = {n: arrays[n].grad.asnumpy().astype("float64")
                                     for n in ("X", "gamma", "beta")}
        except Failure as failure:
            outcome.gradient_failure = failure
        if len(outcome.returned_arrays) == 3:
            outcome.moving_mean, outcome.moving_var = (
                to_numpy(v, "the statistics") for v in outcome.returned_arrays[1:])


def _plain(value):
    return value.asnumpy() if isinstance(value, nd.NDArray) else value


def upstream(s):
    """A gradient for Y, different in every place."""
    return np.round(np.random.RandomState(7).standard_normal(s.X.shape) * 4 + 2) / 4
