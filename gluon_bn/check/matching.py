"""Which mistakes of the table give what the student's function gave, exactly or not at all."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from gluon_bn.check.calling import Failure
from gluon_bn.check.probes import upstream
from gluon_bn.check.report import Example

UNKNOWN = (
    "This is no mistake that is known here, so only the difference can be shown: the "
    "smallest example found is below."
)
EVIDENCE = " (To five digits, your numbers are those of this mistake.)"
FEW = 6  # mistakes of one line that are tried in pairs
SEVERAL = (
    " (To five digits, your numbers are those of each of these; which of them it is, they "
    "do not say.)"
)


def same(got, want, digits=2e-5, floor=1e-3):
    """Equal as far as float32 can tell: to about five digits of the largest value, or of `floor`
    where all are smaller."""
    got, want = np.asarray(got, "float64"), np.asarray(want, "float64")
    if got.size != want.size:
        return False
    got, finite = got.reshape(want.shape), np.isfinite(want)
    if (
        not (np.isfinite(got) == finite).all()
        or not (np.isnan(got[~finite]) == np.isnan(want[~finite])).all()
    ):
        return False
    scale = max(np.abs(want[finite]).max(initial=0), floor)
    return bool((np.abs(got[finite] - want[finite]) <= digits * scale).all())


def agree(got, want, keys):
    """The same values under these names; gradients have lost a digit on their way."""
    return want is not None and all(
        key in want
        and (
            same(got[key], want[key], 1e-4, 1.0)
            if key.startswith("d")
            else same(got[key], want[key])
        )
        for key in keys
    )


def backwards(keys):
    """Whether there are gradients among these outputs of batch_norm, normalize and the like."""
    return any(key.startswith("d") for key in keys)


@dataclass
class Verdict:
    """What is to be said about one question. `found` holds the tuples of mistakes that explain it,
    ((),) if it is right; it is empty where nothing does."""

    names: tuple = ()
    why: str = ""
    example: Example = None
    found: tuple = ()

    @property
    def ok(self):
        return self.found == ((),)


class Matcher:
    """Compares what came with what the table gives. `suspicion` is the mistake that explains all
    wrong outputs of the student at once, if there is one."""

    def __init__(self, answers):
        self.answers, self.exercise, self.suspicion = answers, answers.exercise, ()

    def suspect(self, evidence):
        """Is there a single mistake with which everything that came is explained?"""
        if self._explains((), evidence):
            return
        self.suspicion = tuple(
            (m,) for m in self.exercise.mistakes if self._explains((m,), evidence)
        )

    def _explains(self, mistakes, evidence, keys=None):
        return all(
            agree(got, self.answers(case, mistakes, backwards(keys or got)), keys or got)
            for case, got in evidence
        )

    def search(self, evidence, keys, base=(), pairs=True):
        """The mistakes, one or two, that with those of `base` give what came: a tuple of tuples."""
        if not base and any(self._explains(one, evidence, keys) for one in self.suspicion):
            return self.suspicion

        def changed(mistakes, names):
            """Of which of these outputs, in how many cases, a mistake makes something else."""
            both = [
                [self.answers(case, some, backwards(names)) for some in (mistakes, base)]
                for case, _ in evidence
            ]
            return sum(
                not agree(got, right, [name]) for got, right in both if got for name in names
            )

        def least(found):
            """Those that change this alone, before those that would show elsewhere, too; a number
            that happens to fit explains less than what it stands for."""
            names = self.answers(evidence[0][0], base)
            reach = [
                changed(one, names) + 1000 * any("hard-coded" in m.name for m in one)
                for one in found
            ]
            return tuple(one for one, n in zip(found, reach) if n == min(reach))

        more = [(*base, m) for m in self.exercise.mistakes if m not in base]
        found = [one for one in more if self._explains(one, evidence, keys)]
        if found or not pairs:
            return least(found)
        likely = {}  # line -> mistakes of different names
        for *_, m in more:
            some = likely.setdefault(m.right, {})
            if len(some) < FEW and m.name not in some and changed((*base, m), keys):
                some[m.name] = m
        likely = [m for some in likely.values() for m in some.values()]
        return least(
            [
                (*base, *two)
                for two in combinations(likely, 2)
                if self._explains((*base, *two), evidence, keys)
            ]
        )

    def judge(self, evidence, keys, example, base=((),), pairs=True):
        """A `Verdict` on evidence, pairs (case, values that came). `base` are explanations of
        what the gradients belong to."""
        base = [
            known
            for known in base
            if all(self.answers(case, known, backwards(keys)) for case, _ in evidence)
        ] or [()]
        for known in base:
            if self._explains(known, evidence, keys):
                return Verdict(found=((),))
        found = ()
        for known in base:
            found = found or self.search(evidence, keys, known, pairs)
        if not found:
            sizes = all(
                got[k].size == self.answers(c, base[0], backwards(keys))[k].size
                for c, got in evidence
                for k in keys
            )
            return Verdict(
                ("difference" if sizes else "shape changed",),
                self.hint(evidence, keys, base[0]) + UNKNOWN,
                example(),
            )
        case = evidence[0][0]
        told = {tuple(m.name for m in self.less(one, base)): self.less(one, base) for one in found}
        names = tuple(dict.fromkeys(name for names in told for name in names))
        whys = list(dict.fromkeys(self.tell(mistakes, case) for mistakes in told.values()))
        why = whys[0] + EVIDENCE if len(whys) == 1 else " Or: ".join(whys) + SEVERAL
        return Verdict(names, why, example(), found)

    @staticmethod
    def less(mistakes, base):
        return tuple(m for m in mistakes if not any(m in known for known in base))

    def tell(self, mistakes, case):
        m = self.exercise.count(case)
        return " And: ".join(
            dict.fromkeys(
                one.sentence.replace("{m}", f"{m:.0f}").replace("{m1}", f"{m - 1:.0f}")
                for one in mistakes
            )
        )

    def hint(self, evidence, keys, base=()):
        """What an unknown difference looks like, where that can be said in a few words."""
        said = {}
        for key in keys:
            pairs = [
                (got[key], self.answers(case, base, backwards([key]))[key])
                for case, got in evidence
            ]
            said[key] = (
                ""
                if agree({key: pairs[0][0]}, {key: pairs[0][1]}, [key]) and len(pairs) == 1
                else _looks(pairs)
            )
        return "".join(
            dict.fromkeys(
                f"{key}: {text[0].lower()}{text[1:]}" if len(keys) > 1 else text
                for key, text in said.items()
                if text
            )
        )


def _looks(pairs):
    if any(got.size != want.size for got, want in pairs):
        got, want = next((g, w) for g, w in pairs if g.size != w.size)
        return f"It comes with shape {got.shape}; {want.size} values are expected. "
    gots, wants = (np.concatenate([np.ravel(pair[i]) for pair in pairs]) for i in (0, 1))
    if (np.isnan(gots) & ~np.isnan(wants)).any():
        return "Some of the values are not numbers (nan). "
    if not (np.isfinite(gots) & np.isfinite(wants)).all() or not wants.any():
        return ""
    if np.abs(gots).max() < 1e-6:
        return "Every value is zero. "
    factor, shift = float(wants @ gots / (wants @ wants)), float(np.mean(gots - wants))
    if same(gots, factor * wants):
        return f"Every value is {factor:.4g} times the right one. "
    if same(gots, wants + shift):
        return f"Every value is off by the same {shift:.4g}. "
    if same(gots, wants, 1e-3):
        return (
            "The values are right to about three digits, as those of float16 would be: is a "
            "type of few digits on the way? "
        )
    return ""


def smallest(student, answers, key, cases, only=None):
    """An `Example` of the smallest case in which `key` is not what it should be."""
    for case in cases:
        try:
            case = student.adapt(case)
            got = student.run(case).values.get(key)
            want = answers(case, (), backwards([key]))[key]
        except Failure:  # it fails there: not an example of a difference
            continue
        if got is None or agree({key: got}, {key: want}, [key]):
            continue
        shown = {"dY": upstream(case.shape), **case.given} if key[0] == "d" else case.given
        shown = {
            k: str(v) if isinstance(v, tuple) else v
            for k, v in shown.items()
            if v is not None and (only is None or k in only or k == "dY")
        }
        if key not in ("Y", "dX"):
            want = np.ravel(want)
        got = got.reshape(want.shape) if got.size == want.size else got
        return Example(shown, want, got, key)
    return None
