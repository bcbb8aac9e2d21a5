"""The engine. An exercise is a right solution as text and a table of mistakes. Right and wrong
solutions are run on the same cases as a student's, and what comes out is compared."""

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from typing import Callable, NamedTuple

import numpy as np
from mxnet import autograd, nd

from gluon_bn.check import probes
from gluon_bn.check.calling import Failure, guarded, make, send_back

FEW = 6  # mistakes of one line that are tried in pairs


class Mistake(NamedTuple):
    """The right solution with `right` replaced by `wrong`, wherever it stands, is this mistake.

    Parameters
    ----------
    name : str
    right, wrong : str, text of the solution, and what stands there instead
    sentence : str, what was wrong, what was expected, what to try
        In it {m} is the number of values that a statistic is taken over, and {m1} one less.

    Examples
    --------
    >>> check.Mistake("no epsilon", "(var + eps)", "var", "Epsilon is missing.").name
    'no epsilon'
    """

    name: str
    right: str
    wrong: str
    sentence: str


@dataclass(frozen=True, eq=False)
class Exercise:
    """What is asked, and what is known about it.

    names, outputs : of the arguments and of what is returned, in order; after the first `heads`
        outputs gradients are sent back to the arguments `wrt`.
    laid : arguments that have one value per channel, and are passed laid against X.
    optional, extra : arguments that a function may leave out, or ask for besides.
    shapes : of X, by rank, channels on `axis`. given : (values, number) -> values, for arguments
        that are not those of batch norm. count : Case -> the number m.
    """

    title: str
    source: str
    mistakes: tuple
    names: tuple
    outputs: tuple
    count: Callable
    shapes: dict
    axis: int = 1
    given: Callable = lambda values, number: values
    laid: tuple = ()
    wrt: tuple = ()
    heads: int = 1
    optional: tuple = ()
    extra: tuple = ()

    @property
    def has_modes(self):
        return "momentum" in self.names

    def case(self, values, fixed, training, recording, number=0):
        values = self.given(values, 0 if ("axis", None) in fixed else number)
        given = {name: values[name] for name in (*self.names, *self.extra)}
        for name, value in fixed:  # an array is filled
            if value is not None:
                given[name] = given[name] * 0 + value
        return probes.Case(given, training, recording)

    def arguments(self, case, kind, dtype="float32", column=True):
        """Arrays of a kind for a case, by name; vectors laid against X where it is a column."""
        given = dict(case.given)
        for name in self.laid if column else ():
            if isinstance(given.get(name), np.ndarray) and given[name].ndim == 1:
                given[name] = probes.along(given[name], 1, len(case.shape))
        return {name: make(value, kind, dtype) for name, value in given.items()}

    # ------------------------------------------------------------------------------ the table

    def values(self, case, mistakes=(), keys=()):
        """What the right solution with these mistakes gives, by name, with gradients if there are
        any among the keys; None where they do not go together, or do not run."""
        back = any(key[0] == "d" for key in keys) and bool(self.wrt)
        return values_of(self, case, mistakes, back)

    def explains(self, mistakes, evidence):
        """Whether these mistakes give all that came: pairs (case, values)."""
        return all(agree(got, self.values(case, mistakes, got)) for case, got in evidence)

    def search(self, evidence, pairs=True):
        """The mistakes, one or two, that give what came: a tuple of tuples. Of several, those that
        change the least beside it; a number that fits explains less than what it stands for."""
        found = [(m,) for m in self.mistakes if self.explains((m,), evidence)]
        if not found and pairs:
            two = combinations(self.likely(evidence), 2)
            found = [pair for pair in two if self.explains(pair, evidence)]
        reached = [
            (any("hard-coded" in m.name for m in one), self.changed(one, evidence, self.outputs))
            for one in found
        ]
        return tuple(one for one, n in zip(found, reached) if n == min(reached))

    def likely(self, evidence):
        """Mistakes to be tried in pairs: a few of each line, with different names, that show.
        Gradients are those of a Y that is understood, so what changes it is none of them."""
        lines, keys, known = {}, evidence[0][1], self.mistakes
        heads = [(c, {k: v for k, v in got.items() if k[0] != "d"}) for c, got in evidence]
        if 0 < len(heads[0][1]) < len(keys):
            known = [m for m in known if self.explains((m,), heads)]
        for m in known:
            some = lines.setdefault(m.right, {})
            if len(some) < FEW and m.name not in some and self.changed((m,), evidence, keys):
                some[m.name] = m
        return [m for some in lines.values() for m in some.values()]

    def changed(self, mistakes, evidence, keys):
        """How many outputs, in how many cases, the mistakes make something else of."""
        both = [(self.values(c, mistakes, keys), self.values(c, (), keys)) for c, _ in evidence]
        return sum(not agree(a, b, [key]) for a, b in both if a for key in keys)

    def tell(self, mistakes, case):
        """The sentences, with the number of values filled in."""
        m, said = self.count(case), " And: ".join(dict.fromkeys(m.sentence for m in mistakes))
        return said.replace("{m}", f"{m:.0f}").replace("{m1}", f"{m - 1:.0f}")


def same(got, want, digits=2e-5, floor=1e-3):
    """Equal as far as float32 can tell: to about five digits of the largest value, or of `floor`
    where all are smaller."""
    got, want = np.asarray(got, "float64"), np.asarray(want, "float64")
    if got.size != want.size:
        return False
    finite = np.isfinite(want)
    scale = max(np.abs(want[finite]).max(initial=0), floor)
    return np.allclose(got.reshape(want.shape), want, rtol=0, atol=digits * scale, equal_nan=True)


def differs(before, after):
    return not np.array_equal(before, after, equal_nan=True)


def agree(got, want, keys=()):
    """The same values under these names, or all; gradients have lost a digit on their way."""
    return want is not None and all(
        k in want and k in got and same(got[k], want[k], *((1e-4, 1.0) if k[0] == "d" else ()))
        for k in keys or got
    )


@lru_cache(maxsize=4000)
def compiled(source):
    space = {"nd": nd, "autograd": autograd}
    exec(source, space)
    return space["f"]


def with_mistakes(source, mistakes):
    """The text with these mistakes in it, in any order that lets all of them in; else None."""
    for order in (mistakes, mistakes[::-1]):
        text = source
        for m in order:
            text = text and m.right in text and text.replace(m.right, m.wrong)
        if text:
            return text
    return None


@lru_cache(maxsize=100)
def with_source(exercise, mistakes):
    """An exercise whose solution, the right one from now on, has these mistakes in it."""
    source = with_mistakes(exercise.source, mistakes)
    return replace(exercise, source=source) if mistakes else exercise


@lru_cache(maxsize=1000)
def in_float64(exercise, case):
    return exercise.arguments(case, "nd", "float64")  # no solution of ours changes them


@lru_cache(maxsize=20000)  # some sixty megabytes
def values_of(exercise, case, mistakes, back):
    """`Exercise.values`, computed in float64 on MXNet, once for all students."""
    source = with_mistakes(exercise.source, mistakes)
    if source is None:
        return None
    try:
        with guarded("ours", case.training, case.recording or back):
            given = in_float64(exercise, case)
            for name in exercise.wrt if back else ():
                given[name].attach_grad()
            outputs = compiled(source)(*(given[name] for name in exercise.names))
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            values = {n: array.asnumpy() for n, array in zip(exercise.outputs, outputs)}
            if back:
                send_back(outputs[: exercise.heads])
                values.update({f"d{n}": given[n].grad.asnumpy() for n in exercise.wrt})
            return values
    except Failure:
        return None


# ------------------------------------------------------------------------------------- the cases

# Training, recording, number of the values. Recording and training are two things, so where there
# are modes they do not go together.
PLAIN_CALLS = ((False, True, 0), (False, True, 1), (False, True, 2))
CALLS_IN_TWO_MODES = (
    *((True, True, 0), (True, True, 1), (True, False, 2)),
    *((False, False, 0), (False, True, 1), (False, False, 2), (False, False, 3)),
)


@lru_cache(maxsize=100)
def cases(exercise, fixed=(), channels=0, classes=0):
    """{rank: Cases}, the ordinary one first; with other values `fixed`, pairs (name, value)."""
    found, calls = {}, CALLS_IN_TWO_MODES if exercise.has_modes else PLAIN_CALLS
    for rank, shape in exercise.shapes.items():
        shape = (5, channels, 4, min(channels, 9))[:rank] if channels else shape
        values = probes.battery(shape, exercise.axis, classes)
        found[rank] = [exercise.case(values[i], fixed, *modes, i) for *modes, i in calls]
    return found
