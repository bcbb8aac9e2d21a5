"""Around the functions of `gluon_bn.functional` and the kernels: the one place where arguments are
checked, brought into form, and results given back as the arguments came.

`checked.moments` is a decorator for `moments`, `checked.batch_norm` for `batch_norm`, and so on.
What each does is written as a function of the same arguments. It refuses what cannot be computed,
and returns the arguments as the equations take them (of X's rank, in the type of computation, axes
counted from the front), with a function that brings the result back. All of it once a call:

- called by a student, everything;
- called by a Block, which has checked what it was given (`by_a_block`), the form alone;
- called by one of these functions, nothing: `batch_norm` hands `moments` what is in form.
"""

import threading
from functools import wraps

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
    check_optional,
    check_per_channel,
    check_spatial,
    check_weights,
    compute_type,
    either_kind,
    lay_along,
)


class _Here(threading.local):
    caller = None  # None, "block" or "function"


_here = _Here()


class by_a_block:  # noqa: N801  it is used as a statement: `with by_a_block():`
    """In here the arguments have been checked, and are `mx.nd` arrays in the type of computation;
    gamma, beta and the statistics may be vectors, one value per channel."""

    def __enter__(self):
        self.before, _here.caller = _here.caller, "block"

    def __exit__(self, *_):
        _here.caller = self.before


def _decorator(form, block_needs_form=False, last=None):
    """The decorator that puts `form` around a function, and `last` around that."""

    def decorate(function):
        def in_form(*args, **kwargs):
            (args, kwargs), back = form(*args, **kwargs)
            before, _here.caller = _here.caller, "function"
            try:
                result = function(*args, **kwargs)
            finally:
                _here.caller = before
            return back(result)

        complete = either_kind(in_form)

        @wraps(function)
        def call(*args, **kwargs):
            if _here.caller is None:
                result = complete(*args, **kwargs)
                return last(result, *args, **kwargs) if last else result
            if _here.caller == "block" and block_needs_form:
                return in_form(*args, **kwargs)
            return function(*args, **kwargs)

        return call

    form.__qualname__ = form.__name__  # Python says it when an argument is missing
    return decorate


def _types(X):
    """Brings results back to the type of X."""

    def back(result):
        if isinstance(result, tuple):
            return tuple(cast(a, X.dtype) for a in result)
        return cast(result, X.dtype)

    return back


def _moments(X, axis, weights=None, keepdims=False):
    check_array("X", X)
    axes = check_axes(axis, X.ndim)
    return ((compute_type(X), axes, check_weights(weights, X, axes), keepdims), {}), _types(X)


def _rank_0(moments, X, axis, weights=None, keepdims=False):
    """The mean of all of X is an array of rank 0 in `mx.np`; `mx.nd` has none."""
    if keepdims or not isinstance(X, mx.np.ndarray) or len(check_axes(axis, X.ndim)) < X.ndim:
        return moments
    return tuple(a.reshape(()) for a in moments)


def _normalize(X, mean, var, beta, gamma, eps):
    check_array("X", X)
    check_eps(eps)
    mean, var = check_broadcast("mean", mean, X), check_broadcast("var", var, X)
    gamma, beta = check_optional("gamma", gamma, X), check_optional("beta", beta, X)
    return ((compute_type(X), mean, var, beta, gamma, eps), {}), _types(X)


def _batch_norm(X, gamma, beta, moving_mean, moving_var, eps, momentum, *, axis=1, **options):
    if _here.caller == "block":
        gamma, beta, mean, var = (lay_along(axis, v, X)
                                  for v in (gamma, beta, moving_mean, moving_var))
    else:
        axis = check_batch(X, axis)
        check_eps(eps)
        check_momentum(momentum)
        gamma = check_optional("gamma", gamma, X, axis)
        beta = check_optional("beta", beta, X, axis)
        mean = check_per_channel("moving_mean", moving_mean, X, axis)
        var = check_per_channel("moving_var", moving_var, X, axis)
        if options.get("weights") is not None:
            others = tuple(a for a in range(X.ndim) if a != axis)
            options["weights"] = check_weights(options["weights"], X, others, axis)

    def back(result):
        Y, new_mean, new_var = result
        return (cast(Y, X.dtype), _as_given(moving_mean, mean, new_mean),
                _as_given(moving_var, var, new_var))

    arguments = compute_type(X), gamma, beta, mean, var, eps, momentum
    return (arguments, {"axis": axis, **options}), back


def _as_given(given, passed, result):
    """A statistic in the shape and type it came in; if it was left or moved in place, itself."""
    if result is passed and passed.dtype == given.dtype:
        return given
    return cast(result if result.shape == given.shape else result.reshape(given.shape), given.dtype)


def _kernel(X, gamma, beta, *arguments, **options):
    (arguments, options), back = _batch_norm(X, gamma, beta, *arguments, **options)
    X, gamma, beta, mean, *more = arguments
    gamma = nd.ones_like(mean) if gamma is None else gamma
    beta = nd.zeros_like(mean) if beta is None else beta
    return ((X, gamma, beta, mean, *more), options), back


def _layer_norm(X, gamma, beta, eps, axis=-1):
    axis = check_axes(axis, check_array("X", X).ndim)
    check_eps(eps)
    gamma = check_optional("gamma", gamma, X, axis[0])
    beta = check_optional("beta", beta, X, axis[0])
    return ((compute_type(X), gamma, beta, eps, axis), {}), _types(X)


def _group_norm(X, gamma, beta, num_groups, eps):
    check_batch(X, 1)
    check_groups(num_groups, X)
    check_eps(eps)
    gamma, beta = check_optional("gamma", gamma, X, 1), check_optional("beta", beta, X, 1)
    return ((compute_type(X), gamma, beta, num_groups, eps), {}), _types(X)


def _instance_norm(X, gamma, beta, eps, axis=1):
    axis = check_batch(X, axis, per_example=True)
    check_spatial(X)
    check_eps(eps)
    gamma, beta = check_optional("gamma", gamma, X, axis), check_optional("beta", beta, X, axis)
    return ((compute_type(X), gamma, beta, eps, axis), {}), _types(X)


def _pixel_norm(X, eps=1e-8, axis=1):
    axis = check_batch(X, axis, per_example=True)
    check_eps(eps)
    return ((compute_type(X), eps, axis), {}), _types(X)


moments = _decorator(_moments, last=_rank_0)
normalize = _decorator(_normalize)
batch_norm = _decorator(_batch_norm, block_needs_form=True)
kernel = _decorator(_kernel)  # another body of batch_norm, for gamma and statistics in any layout
layer_norm = _decorator(_layer_norm)
group_norm = _decorator(_group_norm)
instance_norm = _decorator(_instance_norm)
pixel_norm = _decorator(_pixel_norm)
