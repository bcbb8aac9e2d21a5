"""The exercises, and the questions that are asked in each."""

import copy
from functools import cache, lru_cache

import numpy as np
from mxnet import autograd

from gluon_bn.check import backward_mistakes, batch_norm_mistakes, other_mistakes, probes
from gluon_bn.check.calling import Failure
from gluon_bn.check.exercise import Exercise, Student
from gluon_bn.check.probes import Case, upstream
from gluon_bn.check.report import Report
from gluon_bn.check.session import examine


def per_channel(case):
    return case["X"].size / case.shape[1]


def modes(names, labels=False):
    """Cases of batch_norm: three in training, the same three and one more in prediction."""

    @cache
    def both():
        return {
            rank: [
                Case({n: values[n] for n in names}, training, training)
                for training in (True, False)
                for values in probes.battery(probes.SHAPES[rank], labels=labels)
                + (not training) * [probes.near_zero(probes.SHAPES[rank], labels)]
            ]
            for rank in (4, 2)
        }

    return both


def plain(names, shapes=None, axis=1, rename=None, small=None, **more):
    """Cases of a function without a mode, and small ones; `rename` takes arguments from others of
    `probes.ordinary`, `more` are the same in all cases and, in small ones, `small`."""
    shapes, rename = shapes or {rank: probes.SHAPES[rank] for rank in (4, 2)}, rename or {}

    def chosen(values, more):
        return Case({n: more.get(n, values.get(rename.get(n, n))) for n in names}, recording=True)

    return (
        lru_cache(maxsize=None)(
            lambda: {
                rank: [chosen(v, more) for v in probes.battery(shape, axis=axis)]
                for rank, shape in shapes.items()
            }
        ),
        lambda rank: (chosen(v, small or more) for v in probes.small(rank, axis)),
    )


NAMES = ("X", "gamma", "beta", "moving_mean", "moving_var", "eps", "momentum")


def batch_norm_exercise(labels):
    names = ("X", "labels", *NAMES[1:]) if labels else NAMES

    def small(rank):
        return (Case({n: values[n] for n in names}) for values in probes.small(rank, labels=labels))

    return Exercise(
        "conditional" if labels else "batch_norm",
        batch_norm_mistakes.CONDITIONAL_SOURCE if labels else batch_norm_mistakes.SOURCE,
        batch_norm_mistakes.CONDITIONAL if labels else batch_norm_mistakes.BATCH_NORM,
        names,
        ("Y", "moving_mean", "moving_var"),
        modes(names, labels),
        small,
        per_channel,
        laid=("gamma", "beta", "moving_mean", "moving_var"),
        wrt=("X", "gamma", "beta"),
    )


BATCH_NORM, CONDITIONAL = batch_norm_exercise(False), batch_norm_exercise(True)
_cases, _small = plain(
    ("X", "mean", "var", "beta", "gamma", "eps"),
    rename={"mean": "moving_mean", "var": "moving_var"},
)
NORMALIZE = Exercise(
    "normalize",
    other_mistakes.NORMALIZE_SOURCE,
    other_mistakes.NORMALIZE,
    ("X", "mean", "var", "beta", "gamma", "eps"),
    ("Y",),
    _cases,
    _small,
    per_channel,
    laid=("mean", "var", "beta", "gamma"),
    wrt=("X", "mean", "var", "beta", "gamma"),
    optional=("beta", "gamma"),
)
_cases, _small = plain(("X", "gamma", "beta", "eps"), {r: probes.SHAPES[r] for r in (3, 2)}, -1)
LAYER_NORM = Exercise(
    "layer_norm",
    other_mistakes.LAYER_NORM_SOURCE,
    other_mistakes.LAYER_NORM,
    ("X", "gamma", "beta", "eps"),
    ("Y",),
    _cases,
    _small,
    lambda case: case.shape[-1],
    wrt=("X", "gamma", "beta"),
)


@cache
def axis_cases():
    """A function without `axis` is asked for the first two of rank 4, and for rank 2."""
    X4, X2 = (probes.ordinary(probes.SHAPES[rank])["X"] for rank in (4, 2))
    little = probes.exact(probes.ordinary(probes.SHAPES[4], seed=1)["X"] / 128)
    return {
        rank: [Case({"X": X, "axis": axis}, recording=True) for X, axis in some]
        for rank, some in (
            (4, ((X4, (0, 2, 3)), (little, (0, 2, 3)), (X4, (2, 3)), (X4, (1,)))),
            (2, ((X2, (0,)),)),
        )
    }


MOMENTS = Exercise(
    "moments",
    other_mistakes.MOMENTS_SOURCE,
    other_mistakes.MOMENTS,
    ("X", "axis"),
    ("mean", "var"),
    axis_cases,
    lambda rank: (
        Case({"X": v["X"], "axis": (0, 2, 3)[: 1 if rank == 2 else 3]}) for v in probes.small(rank)
    ),
    lambda case: np.prod([case.shape[a] for a in case["axis"]]),
    wrt=("X",),
    heads=2,
    optional=("axis",),
)


def backward_case(values):
    X = values["X"]
    axes = (0, 2, 3)[: X.ndim - 1]
    return Case(
        {
            "dY": upstream(X.shape),
            "X": X,
            "gamma": values["gamma"],
            "eps": values["eps"],
            "beta": values["beta"],
            "mean": X.mean(axes),
            "var": X.var(axes),
        }
    )


BACKWARD = Exercise(
    "batch_norm_backward",
    backward_mistakes.SOURCE,
    backward_mistakes.BACKWARD,
    ("dY", "X", "gamma", "eps"),
    ("dX", "dgamma", "dbeta"),
    lru_cache(maxsize=None)(
        lambda: {
            r: [backward_case(v) for v in probes.battery(probes.SHAPES[r])[:2]] for r in (4, 2)
        }
    ),
    lambda rank: map(backward_case, probes.small(rank)),
    per_channel,
    laid=("gamma", "beta", "mean", "var"),
    heads=0,
    extra=("beta", "mean", "var"),
)


_cases, _small = plain(
    ("X", "gamma", "beta", "num_groups", "eps"),
    {4: (5, 6, 4, 7), 2: (5, 6)},
    small={"num_groups": 1},
    num_groups=3,
)
GROUP_NORM = Exercise(
    "group_norm",
    other_mistakes.GROUP_NORM_SOURCE,
    other_mistakes.GROUP_NORM,
    ("X", "gamma", "beta", "num_groups", "eps"),
    ("Y",),
    _cases,
    _small,
    lambda case: case["X"].size / len(case["X"]) / case["num_groups"],
    laid=("gamma", "beta"),
    wrt=("X", "gamma", "beta"),
)


def batches_case(shape, seed):
    """Three batches of 8, 5 and 2 examples, of different means and spreads."""
    X = probes.ordinary((15, *shape[1:]), seed=seed)["X"]
    return Case({"batches": [X[:8] + 1, X[8:13], X[13:] * 2]})


RECALIBRATE = Exercise(
    "recalibrate",
    other_mistakes.RECALIBRATE_SOURCE,
    other_mistakes.RECALIBRATE,
    ("batches",),
    ("mean", "var"),
    lru_cache(maxsize=None)(
        lambda: {r: [batches_case(probes.SHAPES[r], seed) for seed in (0, 1)] for r in (4, 2)}
    ),
    lambda rank: [Case({"batches": [np.array([[1.0], [3.0]]), np.array([[8.0]])]})],
    lambda case: 0,
)


# ----------------------------------------------------------------------------------- the functions


def batch_norm(f):
    """Check f(X, gamma, beta, moving_mean, moving_var, eps, momentum) -> (Y, moving_mean,
    moving_var), the signature of d2l and of `gluon_bn.batch_norm`.

    X has shape (N, C) or (N, C, H, W); gamma, beta and the moving statistics (1, C) or
    (1, C, 1, 1), or (C,) for a function that wants vectors. f asks `autograd.is_training()`, or
    takes an argument `training` of that name. The statistics may be new arrays or the given ones
    changed in place, moved in the forward pass or (MXNet's own operator) in the backward pass.

    Returns a `Report`, true when all is right.
    """
    return examine(Report("batch_norm"), lambda: Student(f, BATCH_NORM), questions_of_batch_norm)


def questions_of_batch_norm(session):
    if runs := session.runs():
        session.say_kind()
        outputs_and_statistics(session)
        session.say_types("Y has the shape and the type of X", shapes=True)
        if session.right_in_training:
            session.say_precision()
        session.say_remembers()
    return runs


def moments(f):
    """Check f(X, axis) -> (mean, var), as `gluon_bn.moments`; f(X) takes the axes of batch norm,
    all but 1. The averaged axes may be left out of the results or kept as ones.

    Returns a `Report`, true when all is right.
    """
    return examine(Report("moments"), lambda: Student(f, MOMENTS), questions_of_functions)


def normalize(f):
    """Check f(X, mean, var, beta, gamma, eps) -> Y, in the order of `tf.nn.batch_normalization`.

    Arguments with these names may stand in any order; beta and gamma may be left out by
    a function f(X, mean, var, eps). X has shape (N, C) or (N, C, H, W), the others that of the
    statistics with the averaged axes kept, (1, C) or (1, C, 1, 1).

    Returns a `Report`, true when all is right.
    """
    return examine(Report("normalize"), lambda: Student(f, NORMALIZE), questions_of_functions)


def batch_norm_backward(f):
    """Check f(dY, X, gamma, eps) -> (dX, dgamma, dbeta): the gradients of a loss with respect to
    the inputs of batch norm in training, from its gradient dY with respect to the output.

    A function with these names may also ask for beta, and for the mean and var of the batch. An
    `autograd.Function` (class or instance) works too: made with eps, or with nothing and then of
    epsilon 1e-5, called with (X, gamma, beta). dgamma and dbeta are one value per channel.

    Returns a `Report`, true when all is right.
    """
    return examine(
        Report("batch_norm_backward"), lambda: backward_student(f), questions_of_functions
    )


def layer_norm(f):
    """Check f(X, gamma, beta, eps) -> Y: every position of every example by the mean and variance
    of its channels, the last axis. X has shape (N, C) or (N, T, C), gamma and beta (C,).

    Returns a `Report`, true when all is right.
    """
    return examine(Report("layer_norm"), lambda: Student(f, LAYER_NORM), questions_of_functions)


def group_norm(f):
    """Check f(X, gamma, beta, num_groups, eps) -> Y: every example by the mean and variance of
    `num_groups` groups of its channels. X has shape (N, C) or (N, C, H, W), gamma and beta (1, C)
    or (1, C, 1, 1), or (C,) for a function that wants vectors.

    Returns a `Report`, true when all is right.
    """
    return examine(Report("group_norm"), lambda: Student(f, GROUP_NORM), questions_of_functions)


def recalibrate(f):
    """Check f(batches) -> (mean, var): the exact mean and (biased) variance of each channel over
    all values of all batches, chapter 11's equation (2). batches is a list of arrays (N_b, C) or
    (N_b, C, H, W) of different N_b; mean and var have one value per channel.

    Returns a `Report`, true when all is right.
    """
    return examine(Report("recalibrate"), lambda: Student(f, RECALIBRATE), questions_of_functions)


def backward_student(f):
    """An `autograd.Function` as a function of (dY, X, gamma, eps); functions as they are."""
    is_class = isinstance(f, type) and issubclass(f, autograd.Function)
    if not is_class and not isinstance(f, autograd.Function):
        return Student(f, BACKWARD)
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

    student = Student(called, BACKWARD)
    if not takes_eps:
        eps = float(getattr(f, "eps", getattr(f, "epsilon", 1e-5)))
        student.adapt = lambda case: case.but(eps=eps)
    return student


# ----------------------------------------------------------------------------------- the questions


def questions_of_functions(session):
    """Outputs, gradients, and how a function without modes behaves."""
    if not session.runs():
        return
    session.say_kind()
    report, student, exercise = session.report, session.student, session.exercise
    if session.orders() & {"another"}:
        report.not_yet(
            "the order of what is returned",
            f"{exercise.outputs[0]} comes first, then "
            f"{' and '.join(exercise.outputs[1:])}; yours come in another order.",
            ("return order",),
        )
    session.suspect((session.cases, exercise.outputs))
    verdicts = {}
    for key in exercise.outputs[::-1] if exercise.outputs[0] == "dX" else exercise.outputs:
        verdicts[key] = session.judge(session.cases, (key,), exercise.names)
        session.say({"mean": "mean", "var": "variance"}.get(key, key), verdicts[key])
    right = all(v.ok for some in verdicts.values() for v in some.values())
    if right and exercise.wrt and student.kind != "numpy":
        session.say(
            "gradients flow through both" if exercise.heads == 2 else "gradients of all arguments",
            session.gradients(),
        )
    if student.extra:
        report.note("more than one value comes back; the first was taken for Y")
    session.say_changed()
    if student.kind != "numpy" and student.to_numpy:
        report.not_yet(
            "it returns MXNet's arrays",
            "NumPy arrays come back. Whoever goes on with "
            "them (the layer in front, the Trainer) works with MXNet's.",
            ("wrong type returned",),
        )
    session.say_types()
    if right and exercise is MOMENTS:
        session.say_precision("var")


def outputs_and_statistics(session, average=False):
    """What is asked of every batch norm, function or layer, but for how it behaves."""
    training, prediction = session.modes(True), session.modes(False)
    stepped = {rank: cases[:2] for rank, cases in training.items()}
    statistics = ("moving_mean", "moving_var")
    session.suspect(
        (training, ("Y",)), (prediction, ("Y",)), (stepped, statistics), (prediction, statistics)
    )
    given = ("X", "labels", "gamma", "beta", "eps")
    trained = session.judge(training, ("Y",), given)
    predicted = session.judge(prediction, ("Y",), (*given, *statistics))
    session.right_in_training = all(v.ok for v in trained.values())
    session.say_changed()
    session.say("Y in training", trained)
    session.say("Y in prediction", predicted)
    if all(v.ok for v in (*trained.values(), *predicted.values())):
        flipped = {
            rank: [c for case in cases[::3] for c in (case, case.but(recording=not case.recording))]
            for rank, cases in session.cases.items()
        }
        verdicts = session.judge(flipped, ("Y",), given)
        if not all(v.ok for v in verdicts.values()):
            session.say("train_mode() and record(train_mode=False)", verdicts)
    session.statistics(
        *(
            {
                rank: c
                for rank, c in cases.items()
                if not isinstance(session.evidence(c, ("Y",)), Failure)
            }
            for cases in (stepped, prediction)
        ),
        average,
    )
    understood = {rank: v.found for rank, v in trained.items() if v.found}
    if session.student.kind == "numpy":
        return
    if not understood:
        session.report.note(
            "the gradients were not looked at: they can be once Y in training is understood"
        )
        return
    session.say("gradients of X, gamma and beta", session.gradients(understood))
