"""One student, one report: the questions that are asked, and what is said about the answers."""

from dataclasses import dataclass
from typing import Optional

import numpy as np

from gluon_bn.check import probes
from gluon_bn.check.calling import Endless, Failure
from gluon_bn.check.engine import agree, example, same, table_of
from gluon_bn.check.report import Example, Report

UNKNOWN = (
    "This is no mistake that is known here, so only the difference can be shown: the smallest "
    "example found is below."
)
EVIDENCE = " (To five digits, your numbers are those of this mistake.)"
SEVERAL = (
    " (To five digits, your numbers are those of each of these; which of them it is, they do not "
    "say.)"
)
STATISTICS = ("moving_mean", "moving_var")


@dataclass
class Verdict:
    """What is to be said about one question. `found` holds the tuples of mistakes that explain it,
    ((),) if it is right; it is empty where nothing does."""

    names: tuple = ()
    why: str = ""
    example: Optional[Example] = None
    found: tuple = ()

    @property
    def ok(self):
        return self.found == ((),)


def examine(title, make, questions):
    """Ask a student everything; what goes wrong on the way is a line of the `Report`."""
    report = Report(title)
    try:
        questions(Session(report, make()))
    except Failure as problem:
        what = "it runs every time" if report.lines else "it can be called"
        report.not_yet(what, f"{problem}.", problem.mistake)
    except Endless:
        report.complain("endless loop")
    return report


class Session:
    """`suspicion` holds the mistakes that explain all wrong outputs at once, if there are any."""

    def __init__(self, report, student):
        self.report, self.student, self.exercise = report, student, student.exercise
        self.table, self.suspicion = table_of(self.exercise), ()

    def runs(self):
        """Whether it runs at all, and on which ranks."""
        report, student, asked = self.report, self.student, self.student.cases
        works, failures = student.settle(), student.failures
        if not works:
            (rank, number), problem = next(iter(student.first_failures.items()))
            report.not_yet("it runs", *self.failed(problem, asked[rank][number]))
            return False
        self.ranks = [r for r in asked if any((r, i) not in failures for i in range(len(asked[r])))]
        for rank in [rank for rank in asked if rank not in self.ranks]:
            why, name = self.failed(failures[rank, 0], asked[rank][0], "")
            if student.one_rank:
                report.note(f"checked with X of rank {self.ranks[0]}; it does not take rank {rank}")
                continue
            only = f"only rank {self.ranks[0]} works"
            report.not_yet(f"X of rank {rank}", why, only, *[name] * (name != "error"))
        return True

    @property
    def cases(self):
        return {rank: self.student.cases[rank] for rank in self.ranks}

    def mode(self, training):
        return {r: [c for c in cases if c.training == training] for r, cases in self.cases.items()}

    def failed(self, problem, case, mode=None):
        """The sentence for a failure, and its name."""
        if mode is None and ("momentum" in self.exercise.names):
            mode = ", in training," if case.training else ", in prediction,"
        return f"With X of shape {case.shape}{mode or ''} it fails: {problem}.", problem.mistake

    def evidence(self, cases, keys):
        """Pairs (case, values of the student); the `Failure` where there is one. What fails only
        while autograd records is said with the gradients, and run without it here."""
        found = []
        for case in cases:
            for tried in (case, case.silent):
                try:
                    values = self.student.run(tried).values
                    if set(keys) <= set(values):
                        found.append((tried, {key: values[key] for key in keys}))
                    break
                except Failure as problem:
                    failure = problem
                    failure.case = tried
            else:
                return failure
        return found

    def suspect(self, *questions):
        """Look for one mistake that explains everything: (cases by rank, keys), all together."""
        found = [self.evidence(some, keys) for cases, keys in questions for some in cases.values()]
        if any(isinstance(one, Failure) for one in found):
            return
        found = sum(found, [])
        if not self.table.explains((), found):
            single = ((m,) for m in self.exercise.mistakes)
            self.suspicion = tuple(one for one in single if self.table.explains(one, found))

    def judge(self, cases, keys, only, base=None):
        """rank -> `Verdict`, on all cases of a rank together. `base`, by rank, explains what the
        gradients belong to."""
        verdicts = {}
        for rank, some in cases.items():
            evidence = self.evidence(some, keys)
            if isinstance(evidence, Failure):
                why, name = self.failed(evidence, evidence.case)
                verdicts[rank] = Verdict((name,), why)
            elif evidence:
                # What is unknown for one rank is not searched for in pairs for the next.
                pairs = all(v.found for v in verdicts.values())
                known = (base or {}).get(rank) or ((),)
                verdicts[rank] = self.verdict(rank, evidence, keys, only, known, pairs)
        right = next((rank for rank, v in verdicts.items() if v.ok), None)
        for v in verdicts.values():
            if v.names == ("error",) and right:
                v.names = (f"only rank {right} works",)
        return verdicts

    def verdict(self, rank, evidence, keys, only, base, pairs):
        table, first = self.table, evidence[0][0]
        base = [b for b in base if all(table.values(c, b, keys) for c, _ in evidence)] or [()]
        if any(table.explains(known, evidence, keys) for known in base):
            return Verdict(found=((),))
        found = ()
        if not any(base) and any(table.explains(one, evidence, keys) for one in self.suspicion):
            found = self.suspicion
        for known in base:
            found = found or table.search(evidence, keys, known, pairs)
        cases = [*self.student.small(rank, first), first]
        shown = (example(self.student, key, cases, only) for key in keys)
        shown = next(filter(None, shown), None)
        if not found:
            why, shape = looks(
                evidence, [table.values(c, base[0], keys) for c, _ in evidence], keys
            )
            return Verdict(("shape changed" if shape else "difference",), why + UNKNOWN, shown)
        told = [[m for m in one if not any(m in known for known in base)] for one in found]
        told = {tuple(m.name for m in one): table.tell(one, first) for one in told}
        whys = list(dict.fromkeys(told.values()))
        why = whys[0] + EVIDENCE if len(whys) == 1 else " Or: ".join(whys) + SEVERAL
        return Verdict(tuple(dict.fromkeys(sum(told, ()))), why, shown, found)

    def say(self, what, verdicts):
        """One line for all ranks where they agree, else one for each that is not right."""
        wrong = {rank: v for rank, v in verdicts.items() if not v.ok}
        if verdicts and not wrong:
            self.report.ok(what)
        elif len(wrong) == len(verdicts) and len({v.names for v in wrong.values()}) == 1:
            v = wrong[max(wrong)]
            self.report.not_yet(what, v.why, *v.names, example=v.example)
        else:
            right = "".join(
                f" (With X of rank {r} it is right.)" for r in verdicts if r not in wrong
            )
            for rank, v in sorted(wrong.items(), reverse=True):
                line = f"{what}, X of rank {rank}", v.why + right
                self.report.not_yet(*line, *v.names, example=v.example)

    # -------------------------------------------------------------------- gradients and statistics

    def orders(self):
        """In which order, or how many, outputs came."""
        tried = (self.student.tried(case.silent) for cases in self.cases.values() for case in cases)
        return {outcome.order for outcome in tried if outcome}

    def gradients(self, base=None):
        """Do the gradients fit the outputs? `base` explains those that are wrong, by rank."""
        verdicts, heads = {}, self.exercise.outputs[: self.exercise.heads]
        for rank in base or self.cases:
            case = next(c for c in self.cases[rank] if c.recording)
            try:
                outcome = self.student.run(case)
                if outcome.failure:
                    raise outcome.failure
            except Failure as problem:
                why = f"Inside autograd.record(), or on the way back, it fails: {problem}."
                verdicts[rank] = Verdict((problem.mistake,), why)
                continue
            keys = [f"d{name}" for name in self.exercise.wrt if f"d{name}" in outcome.values]
            only = (*self.exercise.names, "dY")
            v = verdicts[rank] = self.judge({rank: [case]}, (*heads, *keys), only, base)[rank]
            if v.names == ("difference",):
                cut = [
                    f"no gradient for {k[1:]}" if k in ("dgamma", "dbeta") else "gradient cut"
                    for k in keys
                    if not outcome.values[k].any()
                ]
                v.names = tuple(dict.fromkeys(cut)) or v.names
            if not v.ok and self.student.kind == "np" and "variance" in v.why:
                v.why += (
                    " (In MXNet 1.9.1 the var() and std() of mx.np pass no gradient at all; a "
                    "variance put together from means does.)"
                )
        return verdicts

    def statistics(self, stepped, prediction, average=False):
        """After training: one step. After prediction: where they were."""
        report, student, orders = self.report, self.student, self.orders()
        if "another" in orders:
            report.complain("return order", "Y", "the moving mean and the moving variance")
        if "Y alone" in orders:
            report.complain("statistics not returned")
            return
        mean, var = (self.judge(stepped, (key,), ("X", "momentum", key)) for key in STATISTICS)
        if average:
            report.note("the statistics are plain averages: all batches weigh the same, for ever")
        elif all((mean[r].names, mean[r].why) == (var[r].names, var[r].why) for r in mean):
            self.say("moving mean and variance after a step of training", var)
        else:
            self.say("moving mean after a step of training", mean)
            self.say("moving variance after a step of training", var)
        stay = {}
        for key in STATISTICS:
            for rank, v in self.judge(prediction, (key,), ("X", "momentum", key)).items():
                if v.names == ("difference",):
                    v.names = ("moving statistics changed in prediction",)
                    v.why = "In prediction it changes. There the statistics are only read."
                if rank not in stay or stay[rank].ok:
                    stay[rank] = v
        self.say("moving " * (not student.is_layer) + "statistics stay in prediction", stay)
        right = all(v.ok for v in (*mean.values(), *var.values()))
        if stepped and right and not student.is_layer:
            self.two_steps(next(iter(stepped.values()))[0])

    def two_steps(self, case):
        """What came back is what goes in next."""
        student = self.student
        try:
            first = student.run(case)
        except Failure:
            return  # said with the gradients
        went = tuple(student.array("moving_mean", case["moving_mean"], case).shape)
        came = first.values["moving_mean"].shape
        try:
            second = student.run(case.but(**dict(zip(STATISTICS, first.arrays[1:3]))))
        except Failure as problem:
            known = problem.mistake != "error"
            name = problem.mistake if known else "statistics change shape"
            why = f"It fails: {problem}." + " Did their shape change?" * (not known)
            self.report.not_yet("a second step with the statistics that came back", why, name)
            return
        then = case.but(**{n: np.ravel(first.values[n]) for n in STATISTICS})
        if student.kind == "numpy" or agree(second.values, self.table.values(then), STATISTICS):
            return
        if came != went:
            self.report.complain("statistics change shape", went, came)
        else:
            self.report.complain("remembers")

    # ------------------------------------------------------------------------------ how it behaves

    def say_kind(self):
        report, student = self.report, self.student
        has_mode, order = ("momentum" in self.exercise.names), ", ".join(self.exercise.names)
        if has_mode and not student.failures:
            report.ok("it runs on X of shape (N, C) and (N, C, H, W)")
        first = next(iter(student.first_failures.values()), None)
        if student.kind == "numpy" and has_mode:
            report.complain("NumPy only", first)
        elif student.kind == "numpy":
            report.note("checked with arrays of NumPy, which autograd cannot follow")
        elif student.kind == "np" and first and not student.writes_np:
            report.complain("mx.np only", first)
        elif student.kind == "np" and first:
            report.note("checked with arrays of mx.np, for which it is written")
        if not student.column:
            report.note("checked with vectors (C,) for gamma, beta and the statistics")
        if student.function.reordered and has_mode:
            report.complain("order of the arguments", order)
        elif student.function.reordered:
            report.note(f"your arguments are not in the order ({order}): they were passed by name")

    def say_changed(self):
        """What was passed in, and the modes, are what the caller still has."""
        report, seen = self.report, self.student.seen()
        names = [n for n in (*self.exercise.names, *self.exercise.extra) if n in seen]
        for name in [n for n in names if n not in STATISTICS]:
            who = "whoever called finds other numbers in it afterwards"
            if self.student.is_layer and name != "X":
                who = "the Trainer moves it, along its gradient, and nobody else"
            report.complain("{0} changed in place", name, who)
        if set(names) & set(STATISTICS):
            report.note("the moving statistics that were passed in are changed in place")
        if not names:
            report.ok("the arrays that are passed in are left as they were")
        if "modes" in seen:
            report.complain("mode left on")

    def say_types(self, what="the type of X is kept", shapes=False):
        """Y has the type of X, and its shape."""
        report, key = self.report, self.exercise.outputs[0]
        said = len([line for line in report.lines if line.status == "not yet"])
        for cases in self.cases.values() if shapes else ():
            outcome = next(filter(None, (self.student.tried(c.silent) for c in cases)), None)
            if outcome and outcome.values["Y"].shape != cases[0].shape:
                report.complain("shape changed", cases[0].shape, outcome.values["Y"].shape)
                break
        for dtype, case in (
            (d, c) for d in ("float32", "float64", "float16") for c in self.each_mode()
        ):
            try:
                came = self.student.run(case.silent, dtype).dtypes[key]
                wrong = "" if came == dtype else f"X of type {dtype} comes back as {came}."
            except Failure as problem:
                wrong = (
                    f"With arrays of {dtype} it fails: {problem}. Is an array made without a type?"
                )
                if dtype == "float16":
                    report.note(wrong)
                    break
            if wrong:
                report.not_yet(f"X of type {dtype}", wrong, "type changed")
                return
        if said == len([line for line in report.lines if line.status == "not yet"]):
            report.ok(what)

    def each_mode(self):
        """One case of the first rank for each mode in which it runs."""
        runs = [c for c in reversed(self.cases[self.ranks[0]]) if self.student.tried(c.silent)]
        return {c.training: c for c in runs}.values()

    def say_precision(self, key="Y"):
        """Values around 10,000: E[x^2] - E[x]^2 loses every digit in float32."""
        what = "values around 10,000 with a spread of 1"
        for cases in self.cases.values():
            X = cases[0]["X"]
            offset = np.resize([10000.0, -12000.0, 15000.0], X.shape[1])
            case = cases[0].but(X=probes.exact(X + probes.along(offset, 1, X.ndim)))
            found = self.evidence([case], [key])
            if isinstance(found, Failure):
                self.report.not_yet(what, f"It fails: {found}.", found.mistake)
                return
            got, want = found[0][1][key], self.table.values(case)[key]
            got = got.reshape(want.shape)
            # `not ... <` where the values are no numbers, too
            if not np.abs(got - want).max() < (0.3 if key == "Y" else 0.05):
                mistake = next(m for m in self.exercise.mistakes if m.name == "cancellation")
                given = {"X": f"values around 10,000, shape {case.shape}"}
                shown = Example(given, want, got, key)
                self.report.not_yet(what, mistake.sentence, mistake.name, example=shown)
                return
        self.report.ok(what)

    def say_remembers(self):
        """The same call twice gives the same answer twice."""
        for case in self.each_mode():
            one, two = (
                self.student.tried(c) for c in (case.silent, case.silent.but(recording=False))
            )
            if one and two and not agree(two.values, one.values, one.values):
                self.report.complain("remembers")
                return


def looks(evidence, wants, keys):
    """What an unknown difference looks like, where that can be said in a few words; whether it is
    one of shapes."""
    said = {}
    for key in keys:
        pairs = [(got[key], want[key]) for (_, got), want in zip(evidence, wants)]
        for got, want in pairs:
            if got.size != want.size:
                why = f"It comes with shape {got.shape}; {want.size} values are expected. "
                return why, True
        got, want = (np.concatenate([np.ravel(pair[i]) for pair in pairs]) for i in (0, 1))
        if same(got, want):
            continue
        factor, shift = float(want @ got / (want @ want)), float(np.mean(got - want))
        if (np.isnan(got) & ~np.isnan(want)).any():
            said[key] = "some of the values are not numbers (nan)"
        elif np.abs(got).max() < 1e-6:
            said[key] = "every value is zero"
        elif same(got, factor * want):
            said[key] = f"every value is {factor:.4g} times the right one"
        elif same(got, want + shift):
            said[key] = f"every value is off by the same {shift:.4g}"
        elif same(got, want, 1e-3):
            said[key] = (
                "the values are right to about three digits, as those of float16 would be: is a "
                "type of few digits on the way?"
            )
    lines = [f"{key}: {text}" if len(keys) > 1 else text for key, text in said.items()]
    return "".join(f"{line[0].upper()}{line[1:]}. ".replace("?.", "?") for line in lines), False
