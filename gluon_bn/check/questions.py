"""One student, one report: the questions that are asked, in their order."""

import numpy as np

from gluon_bn.check import probes
from gluon_bn.check.calling import Endless, Failure, dtype_of
from gluon_bn.check.engine import agree
from gluon_bn.check.judging import Judge
from gluon_bn.check.report import Example, Report

STATISTICS = ("moving_mean", "moving_var")


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


class Session(Judge):
    """The questions about one student."""

    def statistics(self, stepped, prediction, average=False):
        """After training: one step. After prediction: where they were."""
        report, student = self.report, self.student
        if "order" in student.seen:
            report.complain("return order", "Y", "the moving mean and the moving variance")
        if "Y alone" in student.seen:
            report.complain("statistics not returned")
            return
        mean, var = (self.judge(stepped, (key,), ("X", "momentum", key)) for key in STATISTICS)
        if average:
            report.note("the statistics are plain averages: all batches weigh the same, for ever")
        elif (mean.names, mean.why) == (var.names, var.why):
            self.say("moving mean and variance after a step of training", var)
        else:
            self.say("moving mean after a step of training", mean)
            self.say("moving variance after a step of training", var)
        stay = [self.judge(prediction, (key,), ("X", "momentum", key)) for key in STATISTICS]
        stay = stay[0] if stay[0].names else stay[1]
        if stay.names == ("difference",):
            stay.names = ("moving statistics changed in prediction",)
            stay.why = "In prediction it changes. There the statistics are only read."
        self.say("moving " * (not student.is_layer) + "statistics stay in prediction", stay)
        if stepped and not mean.names and not var.names and not student.is_layer:
            self.two_steps(next(iter(stepped.values()))[0])

    def two_steps(self, case):
        """What came back is what goes in next."""
        student, first = self.student, self.student.run(case)
        if not first:
            return  # said with the gradients
        went = self.exercise.arguments(case, "numpy", column=student.column)["moving_mean"].shape
        came = first.values["moving_mean"].shape
        second = student.run(case.but(**dict(zip(STATISTICS, first.arrays[1:]))))
        if not second:
            shape = second.failure.mistake == "error" and came != went
            why = f"It fails: {second.failure}." + " Their shape has changed." * shape
            name = "statistics change shape" if shape else second.failure.mistake
            self.report.not_yet("a second step with the statistics that came back", why, name)
            return
        then = case.but(**{n: np.ravel(first.values[n]) for n in STATISTICS})
        if student.kind == "numpy" or agree(second.values, self.exercise.values(then), STATISTICS):
            return
        name = "remembers" if came == went else "statistics change shape"
        self.report.complain(name, tuple(went), tuple(came))

    def say_kind(self):
        report, student, order = self.report, self.student, ", ".join(self.exercise.names)
        has_modes, first = self.exercise.has_modes, next(iter(student.first_failures.values()), "")
        if has_modes and not student.failures:
            report.ok("it runs on X of shape (N, C) and (N, C, H, W)")
        if student.kind == "numpy" and has_modes:
            report.complain("NumPy only", first)
        elif student.kind == "numpy":
            report.note("checked with arrays of NumPy, which autograd cannot follow")
        elif student.kind == "np" and first:
            report.note(f"checked with arrays of mx.np; with those of mx.nd it fails: {first}")
        if not student.column:
            report.note("checked with vectors (C,) for gamma, beta and the statistics")
        if student.function.reordered and has_modes:
            report.complain("order of the arguments", order)
        elif student.function.reordered:
            report.note(f"your arguments are not in the order ({order}): they were passed by name")

    def say_changed(self):
        """What was passed in, and the modes, are what the caller still has."""
        report, seen = self.report, self.student.seen
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
        """The first output has the type of X, and its shape."""
        report, types = self.report, ("float32", "float64", "float16")
        for case in self.each_mode() if shapes else ():
            came = self.student.run(case.silent).values["Y"].shape
            if came != case.shape:
                report.complain("shape changed", case.shape, came)
                return
        for dtype, case in [(dtype, case) for dtype in types for case in self.each_mode()]:
            outcome = self.student.run(case.silent, dtype)
            came = dtype_of(outcome.arrays[0]) if outcome else None
            if came == dtype:
                continue
            wrong = f"X of type {dtype} comes back as {came}."
            if not outcome:
                wrong = f"With arrays of {dtype} it fails: {outcome.failure}."
                wrong += " Is an array made without a type?"
            if outcome or dtype != "float16":
                report.not_yet(f"X of type {dtype}", wrong, "type changed")
                return
            report.note(wrong)
            break
        report.ok(what)

    def each_mode(self):
        """One case for each mode and rank in which it runs."""
        runs = [c for cases in self.cases.values() for c in reversed(cases)]
        runs = [c for c in runs if self.student.run(c.silent)]
        return {(len(c.shape), c.training): c for c in runs}.values()

    def say_precision(self, key="Y"):
        """Values around 10,000: E[x^2] - E[x]^2 loses every digit in float32."""
        what = "values around 10,000 with a spread of 1"
        for cases in self.cases.values():
            X = cases[0]["X"]
            offset = np.resize([10000.0, -12000.0, 15000.0], X.shape[1])
            case = cases[0].but(X=probes.exact(X + probes.along(offset, 1, X.ndim)))
            outcome, want = self.student.run(case.silent), self.exercise.values(case)[key]
            if not outcome:
                problem = outcome.failure
                self.report.not_yet(what, f"It fails: {problem}.", problem.mistake)
                return
            got = outcome.values[key].reshape(want.shape)
            # `not ... <` where the values are no numbers, too
            if not np.abs(got - want).max() < (0.3 if key == "Y" else 0.05):
                why = next(m.sentence for m in self.exercise.mistakes if m.name == "cancellation")
                given = {"X": f"values around 10,000, shape {case.shape}"}
                shown = Example(given, want, got, key)
                self.report.not_yet(what, why, "cancellation", example=shown)
                return
        self.report.ok(what)

    def say_remembers(self):
        """The same call twice gives the same answer twice."""
        for case in self.each_mode():
            one, two = (self.student.run(c) for c in (case.silent, case.silent.but()))
            if two and not agree(two.values, one.values):
                self.report.complain("remembers")
                return


def of_functions(session):
    """Outputs, gradients, and how a function without modes behaves."""
    if not session.runs():
        return
    report, student, exercise = session.report, session.student, session.exercise
    outputs, cases, verdicts = exercise.outputs, session.cases, []
    session.say_kind()
    if "order" in student.seen:
        report.complain("return order", outputs[0], " and ".join(outputs[1:]))
    session.suspect((cases, outputs))
    for key in outputs if exercise.heads else outputs[::-1]:  # what is easy to find stands first
        verdicts.append(session.judge(cases, (key,), exercise.names))
        session.say({"var": "variance"}.get(key, key), verdicts[-1])
    right = not any(verdict.names for verdict in verdicts)
    if right and exercise.wrt and student.kind != "numpy":
        both = exercise.heads == 2
        what = "gradients flow through both" if both else "gradients of all arguments"
        session.say(what, session.gradients(verdicts[0].found))
    if "several" in student.seen:
        report.note("more than one value comes back; the first was taken for Y")
    session.say_changed()
    if student.kind != "numpy" and "NumPy" in student.seen:
        report.complain("wrong type returned")
    session.say_types()
    if right and exercise.title == "moments":
        session.say_precision("var")


def of_batch_norm(session):
    if runs := session.runs():
        session.say_kind()
        outputs_and_statistics(session)
        session.say_types("Y has the shape and the type of X", shapes=True)
        if session.right_in_training:
            session.say_precision()
        session.say_remembers()
    return runs


def outputs_and_statistics(session, average=False):
    """What is asked of every batch norm, function or layer, but for how it behaves."""
    training, prediction = session.mode(True), session.mode(False)
    stepped = {r: [c for c in cases if c.recording] for r, cases in training.items()}
    session.suspect(
        (training, ("Y",)), (prediction, ("Y",)), (stepped, STATISTICS), (prediction, STATISTICS)
    )
    given = ("X", "labels", "gamma", "beta", "eps")
    trained = session.judge(training, ("Y",), given)
    predicted = session.judge(prediction, ("Y",), (*given, *STATISTICS))
    session.right_in_training = not trained.names
    session.say_changed()
    session.say("Y in training", trained)
    session.say("Y in prediction", predicted)
    running = [
        {r: some for r, some in cases.items() if all(session.student.run(c.silent) for c in some)}
        for cases in (stepped, prediction)
    ]
    session.statistics(*running, average)
    if session.student.kind == "numpy":
        return
    if trained.found:
        session.say("gradients of X, gamma and beta", session.gradients(trained.found))
    else:
        session.report.note("the gradients were not looked at: Y in training is not understood")
