"""A student's function as something that can be asked: the array kind that it is written for is
found out, and each call becomes an `Outcome`."""

from dataclasses import dataclass, field
from typing import Optional

import mxnet as mx
import numpy as np
from mxnet import autograd

from gluon_bn.check import probes
from gluon_bn.check.calling import Failure, Function, guarded, modes, send_back, to_numpy
from gluon_bn.check.engine import agree, cases, differs

# What an argument is for a function, or an array for a layer, that does not have it.
PLAIN = {"gamma": 1.0, "beta": 0.0, "moving_mean": 0.0, "moving_var": 1.0, "axis": None}


@dataclass
class Outcome:
    """What one call did; true if anything came of it. `values` holds the outputs and, as 'dX', the
    gradients by their names; `arrays` the outputs as they came; `failure` what failed, in the call
    or on the way back; `seen` the arguments that it changed in place, and other traces."""

    values: dict = field(default_factory=dict)
    arrays: list = field(default_factory=list)
    failure: Optional[Failure] = None
    seen: set = field(default_factory=set)

    def __bool__(self):
        return bool(self.values)


class Student:
    """A function, and how it wants to be called: its array kind, vectors laid against X or not."""

    is_layer, one_rank = False, False

    def __init__(self, function, exercise, fixed=()):
        self.exercise, self.kind, self.column, self.memory = exercise, "nd", True, {}
        self.function = Function(function, exercise.names, exercise.optional, exercise.extra)
        gone = [n for n in exercise.optional if not self.function.takes(n)]
        self.fixed = {**{n: PLAIN[n] for n in gone}, **dict(fixed)}
        labels = "labels" in exercise.names
        self.sizes, self.small_sizes = (0, labels * probes.CLASSES), (0, labels * 3)

    @property
    def cases(self):
        return cases(self.exercise, tuple(self.fixed.items()), *self.sizes)

    def small(self, rank, like):
        """Cases to show, the simplest first, in the mode of another."""
        how, fixed = (like.training, like.recording), tuple(self.fixed.items())
        values = probes.small(rank, self.exercise.axis, *self.small_sizes)
        return [self.exercise.case(v, fixed, *how) for v in values]

    def ways(self):
        """Array kinds, and whether vectors are laid against X; the likely ones first."""
        kinds = ["np", "nd"] if mx.util.is_np_array() else ["nd", "np"]
        kinds.insert(1 if self.function.speaks_of(np) else 2, "numpy")  # np.var cuts mx.np's way
        columns = (True, False) if self.exercise.laid else (True,)
        return [(kind, column) for kind in kinds for column in columns]

    def settle(self):
        """Take the first way in which everything is right; else that in which most runs. What
        fails all the same is in `failures`, what failed at first in `first_failures`."""
        found, outputs = [], self.exercise.outputs
        for way in self.ways():
            (self.kind, self.column), failures, right = way, {}, True
            for case in sum(self.cases.values(), []):
                outcome = self.run(case) or self.run(case.silent)
                if not outcome:
                    failures[case] = outcome.failure
                right = right and agree(outcome.values, self.exercise.values(case), outputs)
                if not right and found and not min(found)[0]:
                    break  # one way runs; another has to be right
            found.append((len(failures), not right, len(found), failures, way))
            if right:
                break
        *_, self.failures, (self.kind, self.column) = min(found)
        self.first_failures = found[0][3]

    def run(self, case, dtype="float32"):
        """The `Outcome` of one call; while autograd records, with the way back. The same question
        is asked only once."""
        key = self.kind, self.column, case, dtype
        if key not in self.memory:
            try:
                self.memory[key] = self._run(case, dtype)
            except Failure as problem:
                self.memory[key] = Outcome(failure=problem)
        return self.memory[key]

    @property
    def seen(self):
        """What any call left behind: names of arrays that it changed in place, and more."""
        here = self.kind, self.column
        return set().union(*(o.seen for key, o in self.memory.items() if key[:2] == here))

    def _run(self, case, dtype):
        live = self.kind != "numpy" and case.recording
        with guarded(self.kind, case.training, live):
            given = self.exercise.arguments(case, self.kind, dtype, self.column)
            arrays = {n: given[n] for n, v in case.given.items() if isinstance(v, np.ndarray)}
            before = {n: to_numpy(array, n) for n, array in arrays.items()}
            wrt = [n for n in self.exercise.wrt if live and self.function.takes(n)]
            for name in wrt:
                arrays[name].attach_grad()
            flags = modes()
            returned = self.function({"training": case.training, **given})
            left = {"modes"} if modes() != flags else set()
            autograd.set_recording(False)
            outcome = self._read(returned, case)
            if wrt:
                self._back(outcome, arrays, wrt)
            changed = {n for n, array in arrays.items() if differs(before[n], to_numpy(array, n))}
            outcome.seen |= left | changed
            return outcome

    def _read(self, returned, case):
        """The outputs by their names, out of whatever was returned."""
        names, seen = self.exercise.outputs, set()
        several = isinstance(returned, (tuple, list))
        parts = list(returned) if several else [returned]
        if returned is None or not parts:
            said = "it returns nothing. Does every path end in a return?"
            raise Failure(said, "nothing returned")
        if names[0] != "Y" and len(parts) != len(names):
            said = f"it returns {'one value' if len(parts) == 1 else f'{len(parts)} values'}"
            raise Failure(f"{said}; {len(names)} are expected", "wrong number of return values")
        if len(parts) != len(names):
            seen.add("several" if len(parts) > len(names) else "Y alone")
            parts = parts[: 1 if len(names) == 1 else len(parts)]
        if any(isinstance(part, np.ndarray) for part in parts):
            seen.add("NumPy")
        what = "return value number {}" if several else "what your function returns"
        values = [to_numpy(part, what.format(i)) for i, part in enumerate(parts, 1)]
        if names[0] in ("Y", "dX"):  # as large as X, wherever it stands
            large = [i for i, value in enumerate(values) if value.size == case["X"].size]
            if large and values[0].size < case["X"].size:
                seen.add("order")
                for some in (values, parts):
                    some.insert(0, some.pop(large[0]))
        count = 1 if "Y alone" in seen else len(names)
        return Outcome(dict(zip(names[:count], values)), parts[:count], seen=seen)

    def _back(self, outcome, arrays, wrt):
        """The gradients of sum(upstream * outputs); outputs are read again after it, for an
        operator of MXNet's moves the statistics only now."""
        try:
            send_back(outcome.arrays[: self.exercise.heads], self.kind)
            for name in wrt:
                outcome.values[f"d{name}"] = to_numpy(arrays[name].grad, name)
        except Failure as problem:
            outcome.failure = problem
        for name, array in zip(self.exercise.outputs, outcome.arrays):
            outcome.values[name] = to_numpy(array, name)
