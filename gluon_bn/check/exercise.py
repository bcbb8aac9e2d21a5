"""An exercise is a right solution as text, a table of mistakes, and cases to try both on. Students'
functions and the wrong solutions of the table are run by the same `Student`."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Callable, NamedTuple

import mxnet as mx
import numpy as np
from mxnet import autograd, nd

from gluon_bn.check.calling import (
    Failure,
    Function,
    dtype_of,
    explain,
    guarded,
    make,
    mentions,
    modes,
    to_numpy,
)
from gluon_bn.check.probes import upstream


class Mistake(NamedTuple):
    """The right solution with `right` replaced by `wrong`, wherever it stands, is this mistake.

    The sentence says what was wrong, what was expected, what to try. In it {m} is the number of
    values that a statistic is taken over, and {m1} one less.
    """

    name: str
    right: str
    wrong: str
    sentence: str


@dataclass(frozen=True, eq=False)
class Exercise:
    """What is asked, and what is known about it.

    outputs : names of what is returned, in order; after the first `heads` of them gradients are
        sent back to the arguments `wrt`.
    laid : arguments that have one value per channel, and are passed laid against X.
    cases : () -> {rank of X: [Case]}, the ordinary one first; small : rank -> Cases to show.
    count : Case -> the number m.
    """

    title: str
    source: str
    mistakes: tuple
    names: tuple
    outputs: tuple
    cases: Callable
    small: Callable
    count: Callable
    laid: tuple = ()
    wrt: tuple = ()
    heads: int = 1
    optional: tuple = ()
    extra: tuple = ()


@dataclass
class Outcome:
    """What one call did. `values` holds the outputs and, as 'dX', the gradients by their names."""

    values: dict
    shapes: dict
    dtypes: dict
    arrays: list = field(default_factory=list)
    failure: Failure = None  # on the way back
    order: str = "right"  # 'Y alone', 'another'
    changed: set = field(default_factory=set)  # (argument, training) that it changed in place


class Student:
    """A function, and how it wants to be called: its array kind, vectors laid against X or not."""

    is_layer = False

    def __init__(self, function, exercise):
        self.exercise, self.function = exercise, self.called(function, exercise)
        self.kind, self.column, self.failures, self.first_failures = "nd", True, {}, {}
        self.changed, self.left_modes, self.extra, self.to_numpy = set(), False, False, False
        self.outcomes = {}

    def called(self, function, exercise):
        return Function(function, exercise.names, exercise.optional, exercise.extra)

    def fit(self, case):
        """The case in a size that it can take: any."""
        return case

    def adapt(self, case):
        """The case as this function sees it: what it has no argument for is plain."""
        other = {
            "gamma": lambda: case["gamma"] * 0 + 1,
            "beta": lambda: case["beta"] * 0,
            "axis": lambda: (0, 2, 3)[: len(case.shape) - 1],
        }
        gone = [n for n in self.exercise.optional if not self.function.takes(n)]
        return case.but(**{n: other[n]() for n in gone}) if gone else case

    def settle(self, cases):
        """Find the array kind and the layout in which most of the cases run. `failures` says for
        which (rank, number) it fails all the same; True if anything runs."""
        function, best = self.function.function, None
        self.writes_np = mx.util.is_np_array() or mentions(function, mx.np, mx.npx)
        kinds = ["np", "nd"] if mx.util.is_np_array() else ["nd", "np"]
        kinds.insert(1 if mentions(function, np) and not self.writes_np else 2, "numpy")
        layouts = (True, False) if self.exercise.laid and not self.is_layer else (True,)
        for self.kind, self.column in ((k, c) for k in kinds for c in layouts):
            if self.is_layer and self.kind == "numpy":
                continue
            failures = {}
            for rank, some in cases.items():
                for number, case in enumerate(some):
                    try:
                        self.run(self.fit(case).silent)
                    except Failure as problem:
                        failures[rank, number] = problem
            best = best or (failures, self.kind, self.column, failures)
            if len(failures) < len(best[0]):
                best = failures, self.kind, self.column, best[3]
            if not failures:
                break
        self.failures, self.kind, self.column, self.first_failures = best
        self.changed.clear()
        return len(self.failures) < sum(map(len, cases.values()))

    def run(self, case, dtype="float32", statistics=None):
        """The `Outcome` of one call; while autograd records, with the way back. The same question
        is asked only once. Raises `Failure`, with a sentence, if nothing comes of it."""
        if statistics:
            return self._run(case, dtype, statistics)
        key = case, dtype, self.kind, self.column
        if key not in self.outcomes:
            try:
                self.outcomes[key] = self._run(case, dtype)
            except Failure as problem:
                self.outcomes[key] = problem
        if isinstance(self.outcomes[key], Failure):
            raise self.outcomes[key]
        self.changed |= self.outcomes[key].changed
        return self.outcomes[key]

    def _run(self, case, dtype, statistics=None):
        live = self.kind != "numpy" and case.recording
        with guarded(self.kind, case.training, live):
            given = {"training": case.training, **self.arguments(case, dtype), **(statistics or {})}
            arrays = {
                name: given[name]
                for name, value in case.given.items()
                if isinstance(value, np.ndarray)
            }
            before = {name: _plain(value).copy() for name, value in arrays.items()}
            wrt = [n for n in self.exercise.wrt if live and self.function.takes(n)]
            for name in wrt:
                arrays[name].attach_grad()
            flags = modes()
            returned = self.function(given)
            if modes() != flags:
                self.left_modes = True
            autograd.set_recording(False)
            outcome = self._read(returned, case)
            if wrt:
                self._back(outcome, arrays, wrt)
            for name, value in before.items():
                if not np.array_equal(value, _plain(arrays[name]), equal_nan=True):
                    outcome.changed.add((name, case.training))
            return outcome

    def arguments(self, case, dtype):
        """The arguments of a case, as this function wants its arrays."""
        return {
            name: self.laid(name, value, case, dtype)
            if isinstance(value, np.ndarray)
            else [make(v, self.kind, dtype) for v in value]
            if isinstance(value, list)
            else value
            for name, value in case.given.items()
        }

    def laid(self, name, value, case, dtype):
        if self.column and name in self.exercise.laid and value.ndim == 1:
            value = value.reshape((1, -1) + (1,) * (len(case.shape) - 2))
        return make(value, self.kind, dtype)

    def _read(self, returned, case):
        """The outputs by their names, out of whatever was returned."""
        names, several = self.exercise.outputs, isinstance(returned, (tuple, list))
        if several and not len(returned):
            raise Failure("it returns an empty tuple", "nothing returned")
        parts, order = list(returned) if several else [returned], "right"
        if returned is None:
            raise Failure(
                "it returns nothing (None). Does every path end in a return?", "nothing returned"
            )
        if len(names) == 1:
            self.extra |= len(parts) > 1
            parts = parts[:1]
        elif len(parts) < len(names) and names[0] == "Y":
            order = "Y alone"
        elif len(parts) != len(names) and names[0] != "Y":
            raise Failure(
                f"it returns {len(parts)} value{'s' * (len(parts) != 1)}; {len(names)} "
                "are expected",
                "wrong number of return values",
            )
        self.to_numpy |= any(isinstance(part, np.ndarray) for part in parts)
        values = [
            to_numpy(
                part,
                "what your function returns" if len(parts) == 1 else f"return value number {i + 1}",
            )
            for i, part in enumerate(parts)
        ]
        if names[0] in ("Y", "dX"):  # as large as X, wherever it stands
            large = [i for i, value in enumerate(values) if value.size == case["X"].size]
            if large and 0 not in large:
                values.insert(0, values.pop(large[0]))
                parts.insert(0, parts.pop(large[0]))
                order = "another" if order == "right" else order
        if order == "Y alone":
            values, parts = values[:1], parts[:1]
        return Outcome(
            dict(zip(names, values)),
            {n: v.shape for n, v in zip(names, values)},
            {n: dtype_of(p) for n, p in zip(names, parts)},
            parts,
            order=order,
        )

    def _back(self, outcome, arrays, wrt):
        """The gradients of sum(upstream * outputs); outputs are read again after it, for an
        operator of MXNet's moves the statistics only now."""
        heads = outcome.arrays[: self.exercise.heads]
        try:
            for head in heads:
                if not isinstance(head, nd.NDArray):
                    raise Failure(
                        "what comes back is no array of MXNet's, so autograd cannot follow",
                        "gradient cut",
                    )
            autograd.backward(list(heads), heads_of(heads, self.exercise, self.kind))
            for name in wrt:
                outcome.values[f"d{name}"] = arrays[name].grad.asnumpy().astype("float64")
        except Failure as problem:
            outcome.failure = problem
        except Exception as error:
            outcome.failure = explain(error)
        for name, array in zip(self.exercise.outputs, outcome.arrays):
            outcome.values[name] = to_numpy(array, name)


def _plain(value):
    return value.asnumpy() if isinstance(value, nd.NDArray) else value


# ------------------------------------------------------------------------------ wrong solutions


def with_mistakes(source, mistakes):
    """The text with these mistakes in it, in any order that lets all of them in; else None."""
    for order in (mistakes, mistakes[::-1]):
        text = source
        for mistake in order:
            if mistake.right not in text:
                break
            text = text.replace(mistake.right, mistake.wrong)
        else:
            return text
    return None


@lru_cache(maxsize=4000)
def compiled(source):
    space = {"nd": nd, "autograd": autograd}
    exec(source, space)
    return space["f"]


class Answers:
    """What the right solution gives, and the wrong ones: run as a student's, in float64."""

    def __init__(self, exercise):
        self.exercise, self.known, self.arrays = exercise, {}, {}
        self.maker = Student(compiled(exercise.source), exercise)

    def __call__(self, case, mistakes=(), back=False):
        """The values, on demand with the gradients; None where these mistakes do not go together,
        or do not run."""
        key = mistakes, case, back
        if key not in self.known:
            values = self._run(case, mistakes, back)
            if len(mistakes) > 1:
                return values
            self.known[key] = values
        return self.known[key]

    def _run(self, case, mistakes, back):
        source = with_mistakes(self.exercise.source, mistakes)
        if not source:
            return None
        exercise = self.exercise
        back = back and exercise.wrt
        try:
            with guarded("ours", case.training, case.recording):
                if case not in self.arrays:  # no solution of ours changes them
                    self.arrays[case] = self.maker.arguments(case, "float64")
                given = self.arrays[case]
                for name in exercise.wrt if back else ():
                    given[name].attach_grad()
                returned = compiled(source)(*(given[name] for name in exercise.names))
                returned = returned if isinstance(returned, tuple) else (returned,)
                values = {n: r.asnumpy() for n, r in zip(exercise.outputs, returned)}
                if back:
                    autograd.backward(
                        list(returned[: exercise.heads]), heads_of(returned, exercise)
                    )
                    values.update({f"d{n}": given[n].grad.asnumpy() for n in exercise.wrt})
                return values
        except Failure:
            return None


def heads_of(outputs, exercise, kind="nd"):
    """The gradients that are sent back to the first outputs."""
    return [
        make(upstream(out.size, i).reshape(out.shape), kind, dtype_of(out))
        for i, out in enumerate(outputs[: exercise.heads])
    ]
