"""A student's function that is plain mathematics: arrays in, arrays out, no mode, no state."""

from dataclasses import dataclass, field

import mxnet as mx
import numpy as np
from mxnet import autograd, nd

from gluon_bn.check.calling import (
    KINDS,
    Failure,
    Function,
    dtype_of,
    guarded,
    make,
    to_numpy,
    uses_numpy,
    world,
    writes_numpy_style,
)


@dataclass
class Result:
    """What one call returned, NumPy float64, and how it came."""

    values: list
    shapes: list
    dtypes: list
    gradients: dict = field(default_factory=dict)


class PlainFunction:
    """f(arrays and numbers) -> `count` arrays, in the array kind it is written for."""

    def __init__(self, function, names, count=1, optional=(), extra=()):
        self.function = Function(function, names, optional, extra)
        self.count, self.kind, self.changed = count, "nd", set()
        self.extra = self.to_numpy = False  # more came back than was asked for; NumPy came back

    def settle(self, cases):
        """Find the array kind in which most of these cases (dicts of arguments) run.

        Returns the failures that are left, by the number of the case. Raises `Failure`, the first
        one, if no case runs in any kind.
        """
        self.numpy_style = writes_numpy_style(self.function.function)
        kinds = ["np", "nd"] if mx.util.is_np_array() else ["nd", "np"]
        best = self.first_failures = None
        at = 1 if uses_numpy(self.function.function) and not self.numpy_style else 2
        kinds.insert(at, "numpy")
        for kind in kinds:
            self.kind, failures = kind, {}
            for i, case in enumerate(cases):
                try:
                    self.run(case)
                except Failure as failure:
                    failures[i] = failure
            if self.first_failures is None:
                self.first_failures = failures
            if best is None or len(failures) < len(best[0]):
                best = failures, kind
            if not failures:
                break
        if len(best[0]) == len(cases):
            raise next(iter(self.first_failures.values()))
        self.kind = best[1]
        self.changed.clear()
        return best[0]

    def say_kind(self, report):
        """What the student has to know about the arrays it works on."""
        if not self.first_failures or self.kind == "nd":
            return
        said = next(iter(self.first_failures.values()))
        if self.kind == "np" and not self.numpy_style:
            report.not_yet("it works on arrays of mx.nd", "It runs on arrays of mx.np, but not on "
                           f"those of mx.nd: {said}.", ("mx.np only",))
        else:
            report.note(f"checked with arrays of {KINDS[self.kind]}, the kind it runs on" + (
                "; autograd cannot follow NumPy, so a layer needs it in MXNet"
                if self.kind == "numpy" else ""))

    def run(self, case, dtype="float32", wrt=(), weigh=None):
        """One call; with `wrt`, the gradients of sum(weigh[i] * result[i]) for these arguments."""
        with guarded(), world(self.kind):
            given = {k: make(v, self.kind, dtype) if isinstance(v, np.ndarray) else v
                     for k, v in case.items()}
            values = [given.get(name) for name in self.function.names]
            live = self.kind != "numpy" and wrt
            with autograd.pause():
                for name in wrt if live else ():
                    given[name].attach_grad()
            if live:
                with autograd.record():
                    returned = self.function(*values)
            else:
                with autograd.pause():
                    returned = self.function(*values)
            raw = self._outputs(returned)
            self.to_numpy = any(isinstance(r, np.ndarray) for r in raw)
            result = Result([to_numpy(r, "what your function returns") for r in raw],
                            [np.shape(r) for r in raw], [dtype_of(r) for r in raw])
            if live:
                self._back(raw, weigh, given, wrt, result, dtype)
            for name, value in case.items():
                if isinstance(value, np.ndarray):
                    now = given[name].asnumpy() if self.kind != "numpy" else given[name]
                    if not np.array_equal(now, value.astype(now.dtype), equal_nan=True):
                        self.changed.add(name)
            return result

    def _outputs(self, returned):
        if self.count == 1:
            self.extra |= isinstance(returned, (tuple, list)) and len(returned) > 1
            return [returned[0] if isinstance(returned, (tuple, list)) and len(returned)
                    else returned]
        if returned is None:
            raise Failure("it returns nothing (None). Does every path end in a return?",
                          "nothing returned")
        if not isinstance(returned, (tuple, list)) or len(returned) != self.count:
            came = len(returned) if isinstance(returned, (tuple, list)) else 1
            raise Failure(f"it returns {came} value{'s' * (came != 1)}; {self.count} are expected",
                          "wrong number of return values")
        return list(returned)

    def _back(self, raw, weigh, given, wrt, result, dtype):
        if not all(isinstance(r, nd.NDArray) for r in raw):
            raise Failure("what comes back is no array of MXNet's, so autograd cannot follow",
                          "gradient cut")
        heads = [make(w.reshape(r.shape), self.kind, dtype) for w, r in zip(weigh, raw)]
        autograd.backward(list(raw), heads)
        result.gradients = {n: given[n].grad.asnumpy().astype("float64") for n in wrt}

    def say_numpy(self, report):
        """MXNet's arrays went in and NumPy's came out."""
        if self.kind != "numpy" and self.to_numpy:
            report.not_yet("it returns MXNet's arrays", "NumPy arrays come back. Whoever goes on "
                           "with them (the layer in front, the Trainer) works with MXNet's.",
                           ("wrong type returned",))

    def say_changed(self, report):
        for name in sorted(self.changed):
            report.changed_in_place(name)
        if not self.changed:
            report.ok("the arrays that are passed in are left as they were")

    def say_types(self, report, case, shape=None):
        """The type that went in comes out."""
        for dtype in ("float32", "float64", "float16"):
            try:
                came = self.run(case, dtype).dtypes[0]
            except Failure as problem:
                if dtype == "float16":
                    report.note(f"float16: {problem}")
                    continue
                report.not_yet(f"X of type {dtype}", f"With arrays of {dtype} it fails: "
                               f"{problem}. Is a new array made somewhere without a type? It is "
                               "float32 then.", ("type changed",))
                return
            if came != dtype:
                report.not_yet(f"X of type {dtype}", f"X of type {dtype} comes back as {came}.",
                               ("type changed",))
                return
        report.ok("the type of X is kept")
