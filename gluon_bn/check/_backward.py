"""Exercise: the backward pass of batch normalization, derived by hand."""

import copy

from mxnet import autograd

from gluon_bn.check import probes
from gluon_bn.check.backward_suspects import TABLES, right, tell
from gluon_bn.check.calling import Failure
from gluon_bn.check.plain import PlainFunction
from gluon_bn.check.report import Example, Report
from gluon_bn.check.student import upstream
from gluon_bn.check.suspects import channel_axes, identify, lineup, same
from gluon_bn.check.topics import EVIDENCE, UNKNOWN, hint

NAMES = ("dY", "X", "gamma", "eps")


def batch_norm_backward(f):
    """Check f(dY, X, gamma, eps) -> (dX, dgamma, dbeta): the gradients of a loss with respect to
    the inputs of batch norm in training, from its gradient dY with respect to the output.

    A function with these names may also ask for beta, and for the mean and var of the batch. An
    `autograd.Function` (class or instance) works too: made with eps, or with nothing and then of
    epsilon 1e-5, called with (X, gamma, beta). dgamma and dbeta are one value per channel.

    Returns a `Report`, true when all is right.
    """
    report = Report("batch_norm_backward")
    cases = [s for rank in (4, 2) for s in probes.battery(rank, True)[:2]]
    try:
        f, cases = _as_function(f, cases)
        student = PlainFunction(f, NAMES, count=3, extra=("beta", "mean", "var"))
        failures = student.settle([_case(s) for s in cases])
    except Failure as problem:
        return report.does_not_run(problem, probes.SHAPES[4])
    student.say_kind(report)
    for rank in {cases[i].X.ndim for i in failures}:
        i = next(i for i in failures if cases[i].X.ndim == rank)
        report.not_yet(f"X of rank {rank}", f"With X of shape {cases[i].X.shape} it fails: "
                       f"{failures[i]}.", (f"only rank {6 - rank} works",))
    evidence = [(s, student.run(_case(s)).values) for i, s in enumerate(cases) if i not in failures]
    evidence = [(s, _in_order(s, values)) for s, values in evidence]
    if any(order for _, (_, order) in evidence):
        report.not_yet("the order of what is returned", "dX comes first, then dgamma and dbeta; "
                       "yours come in another order.", ("return order",))
    evidence = [(s, values) for s, (values, _) in evidence]
    if _gradients_swapped(evidence):
        report.not_yet("the order of what is returned", "dgamma and dbeta come back in each "
                       "other's place. (To five digits, each is the other.)",
                       ("dgamma and dbeta swapped",))
        evidence = [(s, [v[0], v[2], v[1]]) for s, v in evidence]
    for name, i in (("dbeta", 2), ("dgamma", 1), ("dX", 0)):
        _line(report, student, name, i, evidence)
    student.say_changed(report)
    student.say_numpy(report)
    student.say_types(report, _case(evidence[0][0]))
    return report


def _case(s):
    axes = channel_axes(s.X.ndim)
    return {"dY": upstream(s), "X": s.X, "gamma": s.column(s.gamma), "eps": s.eps,
            "beta": s.column(s.beta), "mean": s.X.mean(axes, keepdims=True),
            "var": s.X.var(axes, keepdims=True)}


def _as_function(f, cases):
    """An `autograd.Function` as a function of (dY, X, gamma, eps)."""
    is_class = isinstance(f, type) and issubclass(f, autograd.Function)
    if not is_class and not isinstance(f, autograd.Function):
        return f, cases
    takes_eps = is_class and f.__init__ is not autograd.Function.__init__

    def make(eps):
        if not is_class:  # MXNet lets one instance be called only once
            again = copy.copy(f)
            again._used = False
            return again
        try:
            return f(eps) if takes_eps else f()
        except TypeError:
            return f()

    def called(dY, X, gamma, eps, beta):
        X, gamma, beta = X.copy(), gamma.copy(), beta.copy()
        for array in (X, gamma, beta):
            array.attach_grad()
        with autograd.record():
            Y = make(eps)(X, gamma, beta)
            Y = Y[0] if isinstance(Y, (tuple, list)) else Y
        Y.backward(dY)
        return X.grad, gamma.grad, beta.grad

    eps = None if takes_eps else getattr(f, "eps", getattr(f, "epsilon", 1e-5))
    return called, [s if eps is None else s.but(eps=float(eps)) for s in cases]


def _in_order(s, values):
    """dX where it is expected, and whether it had to be moved there."""
    if values[0].size == s.X.size:
        return values, False
    big = [i for i in (1, 2) if values[i].size == s.X.size]
    if len(big) != 1:
        return values, False
    return [values[big[0]], *(v for i, v in enumerate(values) if i != big[0])], True


def _gradients_swapped(evidence):
    return all(same(v[1], right("dbeta")(s)) and same(v[2], right("dgamma")(s))
               for s, v in evidence)


def _line(report, student, name, i, evidence):
    answer = right(name)
    got = [(s, values[i]) for s, values in evidence]
    if all(same(g, answer(s), 5e-5) for s, g in got):
        report.ok(name)
        return
    if name != "dX" and any(g.size != s.X.shape[1] for s, g in got):
        shapes = ", ".join(f"{g.shape} for X of shape {s.X.shape}" for s, g in got[::2])
        report.not_yet(name, f"It is of shape {shapes}. There is one {name[1:]} for each channel: "
                       "the gradients of all places where it takes part are added up.",
                       ("not summed over the batch",))
        return
    faults = identify(got, lineup(TABLES[name]), answer, 5e-5)
    example = _example(student, answer, i, name, got[0][0])
    if faults is None:
        report.not_yet(name, hint(got, answer) + UNKNOWN, ("difference",), example)
    else:
        names, why = tell(faults)
        report.not_yet(name, why + EVIDENCE, names, example)


def _example(student, answer, i, name, last):
    for s in [*probes.small(2, True), *probes.small(4, True), last]:
        try:
            values, _ = _in_order(s, student.run(_case(s)).values)
        except Failure:
            continue
        want, came = answer(s), values[i]
        if not same(came, want, 5e-5):
            shown = {"dY": upstream(s).round(4), "X": s.X, "gamma": s.gamma, "eps": s.eps}
            return Example(shown, want, came.reshape(want.shape) if came.size == want.size
                           else came, name)
    return None
