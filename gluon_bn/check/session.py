"""One student, one report: questions asked rank by rank, and what is said about the answers."""

from functools import cache

import numpy as np

from gluon_bn.check.calling import Endless, Failure
from gluon_bn.check.exercise import Answers
from gluon_bn.check.matching import Matcher, Verdict, agree, smallest
from gluon_bn.check.probes import SHAPES, far_from_zero, ordinary
from gluon_bn.check.report import Example

SQUARE = (5, 3, 2, 3)  # where a vector of one value per channel fits the last axis, too


def examine(report, make, questions):
    """Ask a student everything; what goes wrong on the way is a line of the report."""
    try:
        questions(Session(report, make()))
    except Failure as problem:
        what = "it runs every time" if report.lines else "it can be called"
        report.not_yet(what, f"{problem}.", (problem.mistake,))
    except Endless:
        report.not_yet(
            "it comes to an end",
            "A call did not come back within a few seconds, so it "
            "was stopped. Is there a loop whose condition never becomes false? Nothing "
            "else was looked at.",
            ("endless loop",),
        )
    return report


@cache
def answers_of(exercise):
    """They are the same for every student whose cases are those of the exercise."""
    return Answers(exercise)


class Session:
    """`cases` are those of the exercise, as the student can take them, by the rank of X."""

    def __init__(self, report, student):
        self.report, self.student, self.exercise = report, student, student.exercise
        self.answers = (Answers if student.is_layer else answers_of)(self.exercise)
        self.matcher = Matcher(self.answers)
        self.cases = {}

    # ------------------------------------------------------------------------------------- running

    def runs(self):
        """Whether it runs at all, on which ranks, and with which arrays."""
        report, student, asked = self.report, self.student, self.exercise.cases()
        works = student.settle(asked)
        self.ranks = [
            rank
            for rank, some in asked.items()
            if any((rank, i) not in student.failures for i in range(len(some)))
        ]
        if not works:
            (rank, number), problem = next(iter(student.first_failures.items()))
            verdict = self.failed(problem, asked[rank][number])
            report.not_yet("it runs", verdict.why, verdict.names)
            return False
        for rank in [rank for rank in asked if rank not in self.ranks]:
            verdict = self.failed(student.failures[rank, 0], asked[rank][0], "")
            if student.is_layer and student.instance is not None:  # it may be made for one rank
                report.note(f"checked with X of rank {self.ranks[0]}; it does not take rank {rank}")
                continue
            report.not_yet(
                f"X of rank {rank}",
                verdict.why,
                (f"only rank {self.ranks[0]} works", *(n for n in verdict.names if n != "error")),
            )
        self.cases = {rank: [student.adapt(case) for case in asked[rank]] for rank in self.ranks}
        return True

    def say_kind(self):
        report, student = self.report, self.student
        has_mode, order = "momentum" in self.exercise.names, ", ".join(self.exercise.names)
        if has_mode and not student.failures:
            report.ok("it runs on X of shape (N, C) and (N, C, H, W)")
        first = next(iter(student.first_failures.values()), None)
        if student.kind == "numpy" and has_mode:
            report.not_yet(
                "it works on MXNet's arrays",
                "It runs on NumPy arrays only, so "
                "autograd cannot follow it and a network could not be trained with it "
                f"({first}).",
                ("NumPy only",),
            )
        elif student.kind == "numpy":
            report.note(
                "checked with arrays of NumPy, the kind it runs on; autograd cannot follow "
                "NumPy, so a layer needs it in MXNet"
            )
        elif student.kind == "np" and first and not student.writes_np:
            report.not_yet(
                "it works on arrays of mx.nd",
                f"It runs on arrays of mx.np, but not on those of mx.nd ({first}).",
                ("mx.np only",),
            )
        elif student.kind == "np" and first:
            report.note("checked with arrays of mx.np, for which it is written")
        if not student.column:
            report.note(
                "gamma, beta and the statistics were passed as vectors (C,): laid against "
                "X, (1, C) or (1, C, 1, 1), it does not run"
            )
        if student.function.reordered and has_mode:
            report.not_yet(
                "the order of the arguments",
                "Your arguments are in another order than "
                f"({order}). They were passed by name here, but whoever calls it as "
                "d2l's layer does, by position, mixes them up.",
                ("order of the arguments",),
            )
        elif student.function.reordered:
            report.note(
                f"your arguments are in another order than ({order}), so they were passed by name"
            )

    def failed(self, problem, case, mode=None):
        """The verdict on a failure. Where shapes do not fit: what does it do where they do?"""
        if mode is None and "momentum" in case.given:
            mode = ", in training," if case.training else ", in prediction,"
        verdict = Verdict(
            (problem.mistake,), f"With X of shape {case.shape}{mode or ''} it fails: {problem}."
        )
        if "broadcast" not in str(problem) or len(case.shape) != 4:
            return verdict
        square = ordinary(SQUARE, labels=case.given.get("labels") is not None)
        square = self.student.adapt(
            case.but(**{n: square.get(n, v) for n, v in case.given.items()})
        )
        evidence = self.evidence([square], self.exercise.outputs[:1])
        known = (
            ()
            if isinstance(evidence, Failure)
            else self.matcher.search(evidence, self.exercise.outputs[:1])
        )
        if known:
            verdict.names = tuple(dict.fromkeys(m.name for m in known[0]))
            verdict.why += (
                f" With X of shape {square.shape}, where the last axis happens to fit, "
                "it runs, and gives what comes of this mistake: "
                f"{self.matcher.tell(known[0], square)}"
            )
        return verdict

    def evidence(self, cases, keys):
        """Pairs (case, values) of the student; the `Failure` where there is one. What fails only
        while autograd records is said with the gradients, and run without it here."""
        found = []
        for case in cases:
            for tried in (case, case.silent):
                try:
                    values = self.student.run(tried).values
                except Failure as problem:
                    failure = problem
                    failure.case = tried
                else:
                    found += [(tried, values)] * all(key in values for key in keys)
                    break
            else:
                return failure
        return found

    def tried(self, case):
        try:
            return self.student.run(case.silent)
        except Failure:
            return None

    # ------------------------------------------------------------------------------------ questions

    def modes(self, training):
        """The cases of a mode, by rank."""
        return {
            rank: [c for c in cases if c.training == training] for rank, cases in self.cases.items()
        }

    def suspect(self, *questions):
        """Look for one mistake that explains everything: (cases by rank, keys), all together."""
        evidence = []
        for some, keys in ((some, keys) for cases, keys in questions for some in cases.values()):
            found = self.evidence(some, keys)
            if isinstance(found, Failure):
                return
            evidence += [(c, {k: got[k] for k in keys}) for c, got in found]
        if evidence:
            self.matcher.suspect(evidence)

    def judge(self, cases, keys, only, base=None):
        """rank -> `Verdict`, on all cases of a rank together."""
        verdicts = {}
        for rank, some in cases.items():
            evidence = self.evidence(some, keys)
            if isinstance(evidence, Failure):
                verdicts[rank] = self.failed(evidence, evidence.case)
            elif evidence:

                def example(rank=rank, first=evidence[0][0]):
                    shown = [
                        *(
                            c.but(first.training, first.recording)
                            for c in self.exercise.small(rank)
                        ),
                        first,
                    ]
                    found = (smallest(self.student, self.answers, k, shown, only) for k in keys)
                    return next(filter(None, found), None)

                # What is unknown for one rank is not searched for in pairs for the next.
                verdicts[rank] = self.matcher.judge(
                    evidence,
                    keys,
                    example,
                    (base or {}).get(rank) or ((),),
                    all(v.found for v in verdicts.values()),
                )
        right = next((rank for rank, v in verdicts.items() if v.ok), None)
        for v in verdicts.values():
            if v.names == ("error",) and right:
                v.names = (f"only rank {right} works",)
        return verdicts

    def say(self, what, verdicts):
        """One line for all ranks where they agree, else one for each that is not right."""
        wrong = {rank: v for rank, v in verdicts.items() if not v.ok}
        if verdicts and not wrong:
            self.report.ok(what)
        elif (
            verdicts and len(wrong) == len(verdicts) and len({v.names for v in wrong.values()}) == 1
        ):
            first = wrong[max(wrong)]
            self.report.not_yet(what, first.why, first.names, first.example)
        else:
            right = "".join(
                f" (With X of rank {r} it is right.)" for r in verdicts if r not in wrong
            )
            for rank, v in sorted(wrong.items(), reverse=True):
                self.report.not_yet(f"{what}, X of rank {rank}", v.why + right, v.names, v.example)

    # ------------------------------------------------------------------ gradients and statistics

    def orders(self):
        """In which order, or how many, outputs came."""
        tried = [self.tried(case) for cases in self.cases.values() for case in cases]
        return {outcome.order for outcome in tried if outcome}

    def gradients(self, base=None):
        """Do the gradients fit the outputs? `base` explains those that are wrong, by rank."""
        verdicts = {}
        for rank in base or self.cases:
            case = next(c for c in self.cases[rank] if c.recording)
            try:
                outcome = self.student.run(case)
                if outcome.failure:
                    raise outcome.failure
            except Failure as problem:
                verdicts[rank] = Verdict(
                    (problem.mistake,),
                    f"Inside autograd.record(), or on the way back, it fails: {problem}.",
                )
                continue
            keys = [k for k in self.answers(case, (), True) if k[0] == "d" and k in outcome.values]
            verdict = self.judge(
                {rank: [case]}, (*self.exercise.outputs[: self.exercise.heads], *keys), None, base
            )[rank]
            if verdict.names == ("difference",):
                zero = [key[1:] for key in keys if not outcome.values[key].any()]
                verdict.names = (
                    tuple(
                        dict.fromkeys(
                            f"no gradient for {name}"
                            if name in ("gamma", "beta")
                            else "gradient cut"
                            for name in zero
                        )
                    )
                    or verdict.names
                )
            if not verdict.ok and self.student.kind == "np" and "variance" in verdict.why:
                verdict.why += (
                    " (In MXNet 1.9.1 the var() and std() of mx.np pass no gradient at "
                    "all; a variance put together from means does.)"
                )
            verdicts[rank] = verdict
        return verdicts

    def statistics(self, stepped, prediction, average=False):
        """After training: one step. After prediction: where they were."""
        report, student, orders = self.report, self.student, self.orders()
        if "another" in orders:
            report.not_yet(
                "what it returns",
                "Y comes first, then the moving mean and the moving "
                "variance; yours come in another order.",
                ("return order",),
            )
        if "Y alone" in orders:
            changed = any(n.startswith("moving") and t for n, t in student.changed)
            report.not_yet(
                "moving statistics",
                "Only one array comes back. "
                + ("They were changed in place, but the" if changed else "The")
                + " function returns "
                "three: Y, the moving mean and the moving variance.",
                ("statistics not returned",),
            )
            return
        names, after = {"mean": "moving_mean", "variance": "moving_var"}, "after a step of training"
        pairs = {
            said: self.judge(stepped, (key,), ("X", "momentum", key)) for said, key in names.items()
        }
        mean, var = pairs.values()
        if average:
            report.note(
                "the statistics are plain averages over all batches, each with the same "
                "weight; a layer with a momentum forgets old ones"
            )
        elif all((mean[r].names, mean[r].why) == (var[r].names, var[r].why) for r in mean):
            self.say(f"moving mean and variance {after}", var)
        else:
            for said, verdicts in pairs.items():
                self.say(f"moving {said} {after}", verdicts)
        stay = {}
        for key in names.values():
            for rank, v in self.judge(prediction, (key,), ("X", "momentum", key)).items():
                if v.names == ("difference",):
                    v.names = ("moving statistics changed in prediction",)
                    v.why = (
                        "In prediction it changes. There the statistics are read, never "
                        "written: an answer must not change the next one."
                    )
                if rank not in stay or stay[rank].ok:
                    stay[rank] = v
        self.say("moving " * (not student.is_layer) + "statistics stay in prediction", stay)
        if (
            stepped
            and not student.is_layer
            and all(v.ok for verdicts in pairs.values() for v in verdicts.values())
        ):
            self.two_steps(next(c for some in stepped.values() for c in some))

    def two_steps(self, case):
        """What came back is what goes in next."""
        names, what = (
            ("moving_mean", "moving_var"),
            ("a second step with the statistics that came back"),
        )
        try:
            first = self.student.run(case)
        except Failure:
            return  # said with the gradients
        came = first.shapes["moving_mean"]
        went = self.student.laid("moving_mean", case["moving_mean"], case, "float32").shape
        try:
            second = self.student.run(case, statistics=dict(zip(names, first.arrays[1:3])))
        except Failure as problem:
            name, more = (
                ("statistics change shape", " Did their shape change?")
                if (problem.mistake == "error")
                else (problem.mistake, "")
            )
            self.report.not_yet(what, f"It fails: {problem}.{more}", (name,))
            return
        then = case.but(**{n: np.ravel(first.values[n]) for n in names})
        if self.student.kind == "numpy" or agree(second.values, self.answers(then), names):
            return
        if came != went:
            self.report.not_yet(
                what,
                f"The moving statistics go in with shape {went} and come "
                f"back with shape {came}, so the next step meets them in another "
                "shape.",
                ("statistics change shape",),
            )
        else:
            self.report.not_yet(
                what,
                "The first step is right, the second is not: something else "
                "than the statistics that were passed in takes part.",
                ("remembers",),
            )

    # ---------------------------------------------------------------------------- how it behaves

    def say_changed(self):
        """What was passed in, and the modes, are what the caller still has."""
        names = list(dict.fromkeys(name for name, _ in sorted(self.student.changed)))
        for name in [n for n in names if not n.startswith("moving")]:
            self.report.changed_in_place(
                name,
                *(
                    ["the Trainer moves it, along its gradient, and nobody else"]
                    if self.student.is_layer and name != "X"
                    else []
                ),
            )
        if any(name.startswith("moving") for name in names):
            self.report.note(
                "the moving statistics that were passed in are changed in place; "
                "d2l's function leaves them and returns new ones"
            )
        if not names:
            self.report.ok("the arrays that are passed in are left as they were")
        if self.student.left_modes:
            self.report.not_yet(
                "it leaves the modes of MXNet as they were",
                "After the call "
                "autograd's mode, or that of NumPy's semantics, is another one: "
                "all that runs next is changed by it. Use `with "
                "autograd.train_mode():` and the like, which put it back.",
                ("mode left on",),
            )

    def say_types(self, what="the type of X is kept", shapes=False):
        """Y has the type of X, and its shape."""
        said = len(self.report.lines)
        for cases in self.cases.values() if shapes else ():
            outcome = next(filter(None, map(self.tried, cases)), None)
            if outcome and outcome.shapes["Y"] != cases[0].shape:
                self.report.not_yet(
                    "Y has the shape of X",
                    f"X of shape {cases[0].shape} comes back as Y of shape {outcome.shapes['Y']}.",
                    ("shape changed",),
                )
                break
        one_each = {c.training: c for c in reversed(self.cases[self.ranks[0]]) if self.tried(c)}
        for dtype in ("float32", "float64", "float16"):
            for case in one_each.values():
                try:
                    came = self.student.run(case.silent, dtype).dtypes[self.exercise.outputs[0]]
                    wrong = "" if came == dtype else f"X of type {dtype} comes back as {came}."
                except Failure as problem:
                    wrong = (
                        f"With arrays of {dtype} it fails: {problem}. Is a new array made "
                        "somewhere without a type? It is float32 then."
                    )
                    if dtype == "float16":
                        self.report.note(wrong)
                        break
                if wrong:
                    self.report.not_yet(f"X of type {dtype}", wrong, ("type changed",))
                    return
        if not [line for line in self.report.lines[said:] if line.status == "not yet"]:
            self.report.ok(what)

    def say_precision(self, key="Y"):
        """Values around 10,000: E[x^2] - E[x]^2 loses every digit in float32."""
        what = "values around 10,000 with a spread of 1"
        for rank, cases in self.cases.items():
            far = far_from_zero(SHAPES[rank], cases[0].given.get("labels") is not None)
            case = self.student.adapt(self.exercise.cases()[rank][0].but(X=far["X"]))
            found = self.evidence([case], [key])
            if isinstance(found, Failure):
                self.report.not_yet(what, f"It fails: {found}.", (found.mistake,))
                return
            got, want = found[0][1][key], self.answers(case)[key]
            got = got.reshape(want.shape)
            # `not ... <` where the values are no numbers, too
            if not np.abs(got - want).max() < (0.3 if key == "Y" else 0.05):
                mistake = next(m for m in self.exercise.mistakes if m.name == "cancellation")
                self.report.not_yet(
                    what,
                    mistake.sentence,
                    (mistake.name,),
                    Example({"X": f"values around 10,000, shape {case.shape}"}, want, got, key),
                )
                return
        self.report.ok(what)

    def say_remembers(self):
        """The same call twice gives the same answer twice."""
        cases = self.cases[self.ranks[0]]
        for case in {c.training: c for c in reversed(cases)}.values():
            one, _, two = (self.tried(c) for c in (case, cases[1].but(), case.but()))
            if one and two and not agree(two.values, one.values, one.shapes):
                self.report.not_yet(
                    "the same call again",
                    "The same call gives another answer the "
                    "second time: something is remembered between calls, or "
                    "random. A function keeps nothing; that is the layer's "
                    "business.",
                    ("remembers",),
                )
                return
