"""Around the functions of `gluon_bn.functional` and the kernels: the one place where arguments are
checked, brought into form, and results given back as the arguments came.

`checked.moments` is a decorator for `moments`, `checked.batch_norm` for `batch_norm`, and so on. An
argument is known by its name, which means the same everywhere. In form, arrays are of X's rank and
in the type of computation, and axes are counted from the front. All of this once a call:

- called by a student, everything;
- called by a Block, which has checked what it was given (`by_a_block`), the layout alone;
- called by one of these functions, nothing: `batch_norm` hands `moments` what is in form.
"""

import inspect
import threading
from collections.abc import Callable
from functools import wraps
from typing import TypeVar

import mxnet as mx
from mxnet import nd

from gluon_bn.arguments import (
    cast,
    check_array,
    check_axes,
    check_batch,
    check_broadcast,
    check_eps,
    check_groups,
    check_momentum,
    check_per_channel,
    check_spatial,
    check_weights,
    compute_type,
    either_kind,
    lay_along,
)

F = TypeVar("F", bound=Callable)  # what is decorated keeps its signature


class _Here(threading.local):
    caller = None  # None, "block" or "function"


_here = _Here()


class _called_by:  # noqa: N801  it is used as a statement
    def __init__(self, caller):
        self.caller = caller

    def __enter__(self):
        self.before, _here.caller = _here.caller, self.caller

    def __exit__(self, *_):
        _here.caller = self.before


def by_a_block():
    """In here the arguments have been checked, and are `mx.nd` arrays in the type of computation;
    gamma, beta and the statistics may be vectors, one value per channel."""
    return _called_by("block")


def _decorator(place, lay_for_block=False, none_is_filled=False) -> Callable[[F], F]:
    """place(X, axis): checks X; the axis (or axes) in form, and that of gamma and beta."""

    def decorate(function):
        signature = inspect.signature(function)

        @wraps(function)
        def in_form(*args, **kwargs):
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given, X = dict(bound.arguments), bound.arguments["X"]
            bound.arguments.update(_in_form(given, *place(X, given.get("axis", 1))))
            passed = bound.arguments
            if none_is_filled:
                for name, fill in (("gamma", nd.ones_like), ("beta", nd.zeros_like)):
                    passed[name] = (
                        fill(passed["moving_mean"]) if passed[name] is None else passed[name]
                    )
            with _called_by("function"):
                result = function(*bound.args, **bound.kwargs)
            if not isinstance(result, tuple):
                return cast(result, X.dtype)
            names = (None, "moving_mean", "moving_var")
            return tuple(
                _as_given(given[name], passed[name], a) if name in given else cast(a, X.dtype)
                for name, a in zip(names, result)
            )

        def in_layout(X, gamma, beta, moving_mean, moving_var, *more, axis, **options):
            laid = [lay_along(axis, v, X) for v in (gamma, beta, moving_mean, moving_var)]
            with _called_by("function"):
                Y, mean, var = function(X, *laid, *more, axis=axis, **options)
            return (Y, _as_given(moving_mean, laid[2], mean), _as_given(moving_var, laid[3], var))

        for_student = either_kind(in_form)
        for_block = in_layout if lay_for_block else function

        @wraps(function)
        def call(*args, **kwargs):
            if _here.caller is None:
                return for_student(*args, **kwargs)
            return (for_block if _here.caller == "block" else function)(*args, **kwargs)

        return call

    return decorate


def _in_form(given, axis, along):
    """The arguments, each checked by its name; `along` is the axis of gamma and beta."""
    X, form = given["X"], {}
    for name, value in given.items():
        if name == "X":
            form[name] = compute_type(X)
        elif name == "axis":
            form[name] = axis
        elif name == "eps":
            check_eps(value)
        elif name == "momentum":
            check_momentum(value)
        elif name == "num_groups":
            check_groups(value, X)
        elif name in ("mean", "var") or name in ("gamma", "beta") and value is not None:
            form[name] = check_broadcast(name, value, X, along)
        elif name in ("moving_mean", "moving_var"):
            form[name] = check_per_channel(name, value, X, along)
        elif name == "weights":
            axes = axis if isinstance(axis, tuple) else [a for a in range(X.ndim) if a != axis]
            form[name] = check_weights(value, X, axes, axis)
    return form


def _as_given(given, passed, result):
    """A statistic in the shape and type it came in; if it was left or moved in place, itself."""
    if result is passed and passed.dtype == given.dtype:
        return given
    return cast(result if result.shape == given.shape else result.reshape(given.shape), given.dtype)


def _anywhere(X, axis):
    check_array("X", X)
    return axis, None


def _averaged(X, axis):
    axes = check_axes(axis, check_array("X", X).ndim)
    return axes, axes[0]


def _channels(X, axis):
    return (check_batch(X, axis),) * 2


def _channels_of_each_example(X, axis):
    return (check_batch(X, axis, per_example=True),) * 2


def _positions_of_each_example(X, axis):
    axis = check_batch(X, axis, per_example=True)
    check_spatial(X)
    return axis, axis


def moments(function: F) -> F:
    """The mean of all of X is an array of rank 0 in `mx.np`; `mx.nd` has none."""
    function = _decorator(_averaged)(function)

    @wraps(function)
    def call(X, axis, weights=None, keepdims=False):
        result = function(X, axis, weights, keepdims)
        whole = isinstance(X, mx.np.ndarray) and len(check_axes(axis, X.ndim)) == X.ndim
        return tuple(a.reshape(()) for a in result) if whole and not keepdims else result

    return call  # type: ignore[return-value]


normalize = _decorator(_anywhere)
batch_norm = _decorator(_channels, lay_for_block=True)
kernel = _decorator(_channels, none_is_filled=True)  # batch_norm for vectors, too
layer_norm = _decorator(_averaged)
rms_norm = _decorator(_averaged)
group_norm = _decorator(_channels)
instance_norm = _decorator(_positions_of_each_example)
pixel_norm = _decorator(_channels_of_each_example)
