"""The exercises about functions: what is asked, and the function that a student calls."""

import copy
import inspect
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO

import numpy as np
from mxnet import autograd, nd

from gluon_bn.check import backward_mistakes, batch_norm_mistakes, other_mistakes
from gluon_bn.check.engine import Exercise
from gluon_bn.check.probes import SHAPES, upstream
from gluon_bn.check.questions import STATISTICS, examine, of_batch_norm, of_functions
from gluon_bn.check.student import Student


def per_channel(case):
    return case["X"].size / case.shape[1]


def batch_axes(X):
    return (0, 2, 3)[: X.ndim - 1]


def with_dY(values, number):
    X, axes = values["X"], batch_axes(values["X"])
    return {**values, "dY": upstream(X.shape), "mean": X.mean(axes), "var": X.var(axes)}


def with_axis(values, number):
    axes = (batch_axes(values["X"]), (2, 3), (1,)) if values["X"].ndim == 4 else ((0,),)
    return {**values, "axis": axes[number % len(axes)]}


def in_batches(values, number):
    """Unequal batches, of different means and spreads."""
    X = values["X"]
    one, two = (len(X) + 1) // 2, len(X) - len(X) // 5
    return {"batches": [x for x in (X[:one] + 1, X[one:two], X[two:] * 2) if len(x)]}


# fmt: off
PARAMETERS, WRT = ("gamma", "beta"), ("X", "gamma", "beta")
BATCH_NORM = Exercise(
    "batch_norm", batch_norm_mistakes.SOURCE, batch_norm_mistakes.BATCH_NORM,
    (*WRT, *STATISTICS, "eps", "momentum"), ("Y", *STATISTICS), per_channel, SHAPES,
    laid=(*PARAMETERS, *STATISTICS), wrt=WRT)
CONDITIONAL = replace(
    BATCH_NORM, title="conditional", source=batch_norm_mistakes.CONDITIONAL_SOURCE,
    mistakes=batch_norm_mistakes.CONDITIONAL, names=("X", "labels", *BATCH_NORM.names[1:]))
NORMALIZE = Exercise(
    "normalize", other_mistakes.NORMALIZE_SOURCE, other_mistakes.NORMALIZE,
    ("X", "mean", "var", "beta", "gamma", "eps"), ("Y",), per_channel, SHAPES,
    given=lambda v, number: {**v, "mean": v["moving_mean"], "var": v["moving_var"]},
    laid=("mean", "var", *PARAMETERS), wrt=("mean", "var", *WRT), optional=PARAMETERS)
LAYER_NORM = Exercise(
    "layer_norm", other_mistakes.LAYER_NORM_SOURCE, other_mistakes.LAYER_NORM,
    (*WRT, "eps"), ("Y",), lambda case: case.shape[-1], {3: (4, 3, 5), 2: (6, 3)}, axis=-1, wrt=WRT)
GROUP_NORM = Exercise(
    "group_norm", other_mistakes.GROUP_NORM_SOURCE, other_mistakes.GROUP_NORM,
    (*WRT, "num_groups", "eps"), ("Y",),
    lambda case: case["X"].size / len(case["X"]) / case["num_groups"], {4: (5, 6, 4, 6), 2: (5, 6)},
    given=lambda v, number: {**v, "num_groups": 3 if v["X"].shape[1] == 6 else 1},
    laid=PARAMETERS, wrt=WRT)
MOMENTS = Exercise(
    "moments", other_mistakes.MOMENTS_SOURCE, other_mistakes.MOMENTS,
    ("X", "axis"), ("mean", "var"), lambda case: np.prod([case.shape[a] for a in case["axis"]]),
    SHAPES, given=with_axis, wrt=("X",), heads=2, optional=("axis",))
BACKWARD = Exercise(
    "batch_norm_backward", backward_mistakes.SOURCE, backward_mistakes.BACKWARD,
    ("dY", "X", "gamma", "eps"), ("dX", "dgamma", "dbeta"), per_channel, SHAPES, given=with_dY,
    laid=(*PARAMETERS, "mean", "var"), heads=0, extra=("beta", "mean", "var"))
RECALIBRATE = Exercise(
    "recalibrate", other_mistakes.RECALIBRATE_SOURCE, other_mistakes.RECALIBRATE,
    ("batches",), ("mean", "var"), lambda case: 0, {4: (15, 3, 2, 4), 2: (15, 3)}, given=in_batches)
# fmt: on


def asked(exercise, f, mistakes, student=Student, questions=of_functions):
    """The report on f; `mistakes` are more entries for the table."""
    exercise = replace(exercise, mistakes=(*exercise.mistakes, *mistakes)) if mistakes else exercise
    return examine(exercise.title, lambda: student(f, exercise), questions)


def batch_norm(f, mistakes=()):
    """Check f(X, gamma, beta, moving_mean, moving_var, eps, momentum) -> (Y, moving_mean,
    moving_var), the signature of d2l and of `gluon_bn.batch_norm`.

    X has shape (N, C) or (N, C, H, W); gamma, beta and the moving statistics (1, C) or
    (1, C, 1, 1), or (C,) for a function that wants vectors. f asks `autograd.is_training()`, or
    takes an argument `training` of that name. The statistics may be new arrays or the given ones
    changed in place, moved in the forward pass or (MXNet's own operator) in the backward pass.

    Parameters
    ----------
    f : function
    mistakes : sequence of `Mistake`, more to look for

    Returns
    -------
    Report, true when all is right

    Examples
    --------
    >>> bool(check.batch_norm(gluon_bn.batch_norm))
    True
    """
    return asked(BATCH_NORM, f, mistakes, questions=of_batch_norm)


def moments(f, mistakes=()):
    """Check f(X, axis) -> (mean, var), as `gluon_bn.moments`; f(X) takes the axes of batch norm,
    all but 1. The averaged axes may be left out of the results or kept as ones.

    Parameters
    ----------
    f, mistakes : as for `batch_norm`

    Examples
    --------
    >>> report = check.moments(lambda X, axis: (X.mean(axis), ((X - X.mean()) ** 2).mean(axis)))
    >>> bool(report)
    False
    """
    return asked(MOMENTS, f, mistakes)


def normalize(f, mistakes=()):
    """Check f(X, mean, var, beta, gamma, eps) -> Y, in the order of `tf.nn.batch_normalization`.

    Arguments with these names may stand in any order; beta and gamma may be left out by
    a function f(X, mean, var, eps). X has shape (N, C) or (N, C, H, W), the others that of the
    statistics with the averaged axes kept, (1, C) or (1, C, 1, 1).

    Parameters
    ----------
    f, mistakes : as for `batch_norm`

    Examples
    --------
    >>> check.normalize(lambda X, mean, var, eps: (X - mean) / nd.sqrt(var)).mistakes
    ('no epsilon',)
    """
    return asked(NORMALIZE, f, mistakes)


def batch_norm_backward(f, mistakes=()):
    """Check f(dY, X, gamma, eps) -> (dX, dgamma, dbeta): the gradients of a loss with respect to
    the inputs of batch norm in training, from its gradient dY with respect to the output.

    A function with these names may also ask for beta, and for the mean and var of the batch. An
    `autograd.Function` (class or instance) works too: made with eps, or with nothing and then of
    epsilon 1e-5, called with (X, gamma, beta). dgamma and dbeta are one value per channel.

    Parameters
    ----------
    f, mistakes : as for `batch_norm`

    Examples
    --------
    >>> bool(check.batch_norm_backward(lambda dY, X, gamma, eps: (dY, dY, dY)))
    False
    """
    return asked(BACKWARD, f, mistakes, student=backward_student)


def layer_norm(f, mistakes=()):
    """Check f(X, gamma, beta, eps) -> Y: every position of every example by the mean and variance
    of its channels, the last axis. X has shape (N, C) or (N, T, C), gamma and beta (C,).

    Parameters
    ----------
    f, mistakes : as for `batch_norm`

    Examples
    --------
    >>> bool(check.layer_norm(functional.layer_norm))
    True
    """
    return asked(LAYER_NORM, f, mistakes)


def group_norm(f, mistakes=()):
    """Check f(X, gamma, beta, num_groups, eps) -> Y: every example by the mean and variance of
    `num_groups` groups of its channels. X has shape (N, C) or (N, C, H, W), gamma and beta (1, C)
    or (1, C, 1, 1), or (C,) for a function that wants vectors.

    Parameters
    ----------
    f, mistakes : as for `batch_norm`

    Examples
    --------
    >>> bool(check.group_norm(functional.group_norm))
    True
    """
    return asked(GROUP_NORM, f, mistakes)


def recalibrate(f, mistakes=()):
    """Check f(batches) -> (mean, var): the exact mean and (biased) variance of each channel over
    all values of all batches, chapter 11's equation (2). batches is a list of arrays (N_b, C) or
    (N_b, C, H, W) of different N_b; mean and var have one value per channel.

    Parameters
    ----------
    f, mistakes : as for `batch_norm`

    Examples
    --------
    >>> def together(batches):
    ...     X = nd.concat(*batches, dim=0)
    ...     return gluon_bn.moments(X, [a for a in range(X.ndim) if a != 1])
    >>> bool(check.recalibrate(together))
    True
    """
    return asked(RECALIBRATE, f, mistakes)


def backward_student(f, exercise):
    """An `autograd.Function` as a function of (dY, X, gamma, eps); functions as they are."""
    is_class = isinstance(f, type) and issubclass(f, autograd.Function)
    if not is_class and not isinstance(f, autograd.Function):
        return Student(f, exercise)
    takes_eps = is_class and len(inspect.signature(f).parameters) > 0

    def called(dY, X, gamma, eps, beta):
        one = f(*[eps] * takes_eps) if is_class else copy.copy(f)
        one._used = False  # MXNet lets an instance be called only once
        arrays = [array.copy() for array in (X, gamma, beta)]
        for array in arrays:
            array.attach_grad()
        with autograd.record():
            Y = one(*arrays)
        with redirect_stdout(StringIO()):  # MXNet prints what fails; here the report has it
            (Y[0] if isinstance(Y, (tuple, list)) else Y).backward(dY)
            nd.waitall()
        return [array.grad for array in arrays]

    eps = float(getattr(f, "eps", getattr(f, "epsilon", 1e-5)))
    return Student(called, exercise, () if takes_eps else [("eps", eps)])
