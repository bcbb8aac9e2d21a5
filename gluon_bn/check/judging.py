"""What a student's answers say: evidence, the mistakes that explain it, and how it is said."""

from dataclasses import dataclass, field
from typing import Optional

import numpy as np

from gluon_bn.check import probes
from gluon_bn.check.calling import Failure
from gluon_bn.check.engine import agree, same, with_source
from gluon_bn.check.report import Example

# fmt: off
UNKNOWN = ("This is no mistake that is known here, so only the difference can be shown: the "
           "smallest example found is below.")
EVIDENCE = " (To five digits, your numbers are those of this mistake.)"
SEVERAL = (" (To five digits, your numbers are those of each of these; which of them it is, they "
           "do not say.)")
NO_GRADIENT = (" (In MXNet 1.9.1 the var() and std() of mx.np pass no gradient at all; a variance "
               "put together from means does.)")
# fmt: on


@dataclass
class Verdict:
    """What is to be said about one question; without a name, it is right. `found` holds, for the
    ranks that are understood, the tuples of mistakes that explain it, ((),) if it is right; it is
    empty where there was nothing to judge. `where` is the rank that is not right, if another is."""

    names: tuple = ()
    why: str = ""
    example: Optional[Example] = None
    found: dict = field(default_factory=dict)
    where: str = ""


class Judge:
    """`suspicion` holds the mistakes that explain all wrong outputs at once, if there are any."""

    def __init__(self, report, student):
        self.report, self.student, self.exercise = report, student, student.exercise
        self.suspicion = ()

    def runs(self):
        """Whether it runs at all, and on which ranks."""
        report, student = self.report, self.student
        student.settle()
        failures, cases = student.failures, student.cases
        self.ranks = [rank for rank, some in cases.items() if not set(some) <= set(failures)]
        if not self.ranks:
            case, problem = next(iter(student.first_failures.items()))
            report.not_yet("it runs", self.failed(problem, case), problem.mistake)
            return False
        for rank in [rank for rank in cases if rank not in self.ranks]:
            if student.one_rank:
                report.note(f"checked with X of rank {self.ranks[0]} only, for which it is made")
                continue
            problem = failures[cases[rank][0]]
            names = [f"only rank {self.ranks[0]} works", problem.mistake]
            why = self.failed(problem, cases[rank][0], "")
            report.not_yet(f"X of rank {rank}", why, *names[: 1 + (problem.mistake != "error")])
        return True

    @property
    def cases(self):
        return {rank: self.student.cases[rank] for rank in self.ranks}

    def mode(self, training):
        return {r: [c for c in cases if c.training == training] for r, cases in self.cases.items()}

    def failed(self, problem, case, mode=None):
        if mode is None and self.exercise.has_modes:
            mode = ", in training," if case.training else ", in prediction,"
        return f"With X of shape {case.shape}{mode or ''} it fails: {problem}."

    def evidence(self, cases, keys):
        """Pairs (case, values of the student). Raises `Failure`, with its case, where there is one;
        what fails only while autograd records is said with the gradients, and run without it."""
        found = []
        for case in cases:
            tried = case if self.student.run(case) else case.silent
            outcome = self.student.run(tried)
            if not outcome:
                outcome.failure.case = tried
                raise outcome.failure
            if set(keys) <= set(outcome.values):
                found.append((tried, {key: outcome.values[key] for key in keys}))
        return found

    def suspect(self, *questions):
        """Look for one mistake that explains everything: (cases by rank, keys), all together."""
        try:
            found = [self.evidence(c, keys) for cases, keys in questions for c in cases.values()]
        except Failure:
            return
        found = sum(found, [])
        if not self.exercise.explains((), found):
            single = ((m,) for m in self.exercise.mistakes)
            self.suspicion = tuple(one for one in single if self.exercise.explains(one, found))

    def judge(self, cases, keys, only, asked=None):
        """The `Verdict` on these outputs in all cases; `asked`, by rank, is another exercise."""
        evidence, parts, found, shown = {}, {}, {}, None
        asked = asked or dict.fromkeys(cases, self.exercise)
        for rank, some in cases.items():
            try:
                if came := self.evidence(some, keys):
                    evidence[rank] = came
            except Failure as problem:
                parts.setdefault((problem.mistake,), (rank, self.failed(problem, problem.case)))
        right = [r for r, came in evidence.items() if asked[r].explains((), came)]
        found, together = dict.fromkeys(right, ((),)), sum(evidence.values(), [])
        if ("error",) in parts and right:
            parts[f"only rank {right[0]} works",] = parts.pop(("error",))
        for rank in [rank for rank in evidence if rank not in right]:
            came, exercise, one = evidence[rank], asked[rank], ()
            if exercise is self.exercise:
                one = tuple(m for m in self.suspicion if exercise.explains(m, came))
            # What is unknown for one rank is not searched for in pairs for the next.
            one = one or exercise.search(came, all(found.values()))
            found[rank] = tuple(m for m in one if exercise.explains(m, together)) or one
            names, why = told(exercise, came, keys, found[rank])
            parts.setdefault(names, (rank, why))
            first = came[0][0]
            shown = shown or self.example(keys, [*self.student.small(rank, first), first], only)
        whys = [f"X of rank {r}: {why}" if len(parts) > 1 else why for r, why in parts.values()]
        where = ""
        if parts and right:
            where = f", X of rank {next(iter(parts.values()))[0]}"
            whys.append(f"(With X of rank {right[0]} it is right.)")
        names, found = tuple(dict.fromkeys(sum(parts, ()))), {r: f for r, f in found.items() if f}
        return Verdict(names, " ".join(whys), shown, found, where)

    def example(self, keys, cases, only):
        """An `Example` of the first output that is not what it should be, in the first case."""
        for key, case in [(key, case) for key in keys for case in cases]:
            got = self.student.run(case).values.get(key)
            want = self.exercise.values(case, (), (key,))[key]
            if got is None or agree({key: got}, {key: want}):
                continue
            given = {k: v for k, v in case.given.items() if v is not None and k in only}
            if key[0] == "d":
                given = {"dY": probes.upstream(case.shape), **given}
            want = want if key in ("Y", "dX") else np.ravel(want)
            got = got.reshape(want.shape) if got.size == want.size else got
            return Example(given, want, got, key)
        return None

    def say(self, what, verdict):
        if verdict.names:
            line = what + verdict.where, verdict.why, *verdict.names
            self.report.not_yet(*line, example=verdict.example)
        elif verdict.found:
            self.report.ok(what)

    def gradients(self, found):
        """Do the gradients fit the outputs? `found` explains those that are wrong, by rank."""
        cases = {r: [next(c for c in self.cases[r] if c.recording)] for r in found}
        asked = {r: with_source(self.exercise, some[0]) for r, some in found.items()}
        keys = [f"d{name}" for name in self.exercise.wrt]
        for (case,) in cases.values():
            outcome = self.student.run(case)
            if outcome.failure:
                why = f"Inside autograd.record(), or on the way back, it fails: {outcome.failure}."
                return Verdict((outcome.failure.mistake,), why)
            keys = [key for key in keys if key in outcome.values]
        heads, only = self.exercise.outputs[: self.exercise.heads], (*self.exercise.names, "dY")
        verdict = self.judge(cases, (*heads, *keys), only, asked)
        if verdict.names == ("difference",):
            zero = [key[1:] for key in keys if not outcome.values[key].any()]
            cut = ["gradient cut" if name == "X" else f"no gradient for {name}" for name in zero]
            verdict.names = tuple(cut) or verdict.names
        if verdict.names and self.student.kind == "np" and "variance" in verdict.why:
            verdict.why += NO_GRADIENT
        return verdict


def told(exercise, evidence, keys, found):
    """Names and sentences of what was found, or of what it looks like."""
    if not found:
        wants = [exercise.values(case, (), keys) for case, _ in evidence]
        name, why = looks([got for _, got in evidence], wants, keys)
        return (name,), why + UNKNOWN
    whys = list(dict.fromkeys(exercise.tell(one, evidence[0][0]) for one in found))
    why = whys[0] + EVIDENCE if len(whys) == 1 else " Or: ".join(whys) + SEVERAL
    return tuple(m.name for one in found for m in one), why


def looks(gots, wants, keys):
    """The name of an unknown difference, and what it looks like, where a few words can say that."""
    said = ""
    for key in keys:
        pairs = [(got[key], want[key]) for got, want in zip(gots, wants) if want]
        if not pairs:
            continue
        for got, want in pairs:
            if got.size != want.size:
                why = f"It comes with shape {got.shape}; {want.size} values are expected. "
                return "shape changed", why
        got, want = (np.concatenate([np.ravel(a) for a in some]) for some in zip(*pairs))
        factor, shift = float(want @ got / (want @ want)), float(np.mean(got - want))
        # fmt: off
        text = next((text for holds, text in (
            (same(got, want), ""),
            (np.isnan(got[~np.isnan(want)]).any(), "some of the values are not numbers (nan)"),
            (np.abs(got).max() < 1e-6, "every value is zero"),
            (same(got, factor * want), f"every value is {factor:.4g} times the right one"),
            (same(got, want + shift), f"every value is off by the same {shift:.4g}"),
            (same(got, want, 1e-3), "the values are right to about three digits, as those of "
             "float16 would be: a type of few digits is on the way"),
        ) if holds), "")
        # fmt: on
        said += f"{key}: {text}. " * bool(text)
    return "difference", said
