"""Calling a student's code: in the array kind it is written for, without letting its errors out,
its modes behind it, or its loops run for ever. Everything that comes back is NumPy, float64."""

import inspect
import re
import signal
import threading
from contextlib import contextmanager

import mxnet as mx
import numpy as np
from mxnet import autograd, nd

SECONDS = 5  # for one call of a student's code

ALIASES = {
    "x": "X",
    "input": "X",
    "inputs": "X",
    "data": "X",
    "g": "gamma",
    "weight": "gamma",
    "scale": "gamma",
    "b": "beta",
    "bias": "beta",
    "shift": "beta",
    "offset": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_var",
    "moving_variance": "moving_var",
    "running_variance": "moving_var",
    "epsilon": "eps",
    "variance": "var",
    "mu": "mean",
    "dy": "dY",
    "dout": "dY",
    "grad_y": "dY",
    "grad": "dY",
    "grad_output": "dY",
    "label": "labels",
    "y": "labels",
    "axes": "axis",
    "groups": "num_groups",
    "is_training": "training",
    "train": "training",
    "train_mode": "training",
}


class Failure(Exception):
    """The student's code could not be run, or returned what nothing can be made of."""

    def __init__(self, sentence, mistake="error"):
        super().__init__(sentence)
        self.mistake = mistake


class Endless(BaseException):
    """The student's code did not come back; no `except Exception` of the student's catches it."""


# ------------------------------------------------------------------------------------------ errors

# What stands in an error of MXNet's, what it means for a student, the name of the mistake.
HINTS = (
    (
        "Assigning to NDArrays that are already in a computational graph",
        "it changes an array in place (with -=, *= or [:] =) while autograd records, which MXNet "
        "forbids: what was overwritten is needed for the gradient. Make a new array instead",
        "changed in place",
    ),
    (
        "not in a computational graph",
        "nothing leads back from Y to X for autograd. Somewhere the way is cut: asnumpy(), a new "
        "array made from numbers, detach() or autograd.pause()",
        "gradient cut",
    ),
    (
        "has no attribute 'var'",
        "arrays of mx.nd have no var() (those of mx.np do): the variance "
        "has to be put together from means",
        "error",
    ),
    ("has no attribute 'std'", "arrays of mx.nd have no std() (those of mx.np do)", "error"),
    (
        "object has no attribute '_scope'",
        "the constructor of Block did not run before something "
        "was asked of it. Is super().__init__() called first?",
        "error",
    ),
    (
        "Parameter'> not supported",
        "a Parameter stands where its array belongs. A Parameter holds "
        "the array, and hands it out when asked for its data",
        "error",
    ),
    (
        "Exceeds input dimensions",
        "it averages over an axis that X does not have. Are the axes written for images only?",
        "error",
    ),
    ("data type do not match", "arrays of two types meet", "type changed"),
    (
        "only accept legacy ndarrays",
        "mx.nd and mx.np are mixed: a function of mx.nd was given an array of mx.np",
        "error",
    ),
    (
        "only accept MXNet numpy ndarrays",
        "mx.nd and mx.np are mixed: a function of mx.np was given an array of mx.nd",
        "error",
    ),
)


def first_sentence(error):
    """What an exception says, without the stack of C++ that MXNet puts around it."""
    text = re.sub(r"^.*MXNetError: ", "", str(error).strip(), flags=re.DOTALL)
    text = re.sub(r"^(\[\d\d:\d\d:\d\d\] \S+: )?(Check failed: )?", "", text).split("\n")[0]
    text = re.split(r"(?<=[a-z\])])(?<!\bvs)\. ", text)[0].strip().rstrip(".")
    text = text if len(text) < 200 else text[:197] + "..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def explain(error):
    """A `Failure` for any exception: its first sentence, and what usually stands behind it."""
    if isinstance(error, Failure):
        return error
    said, types = (
        first_sentence(error),
        re.search(r"expected (float\d+), got (float\d+)", str(error)),
    )
    if types:
        return Failure(f"arrays of two types meet, {types[1]} and {types[2]}", "type changed")
    for sign, meaning, mistake in HINTS:
        if sign in str(error):
            said = said if len(said) <= 110 else said[:107] + "..."
            return Failure(f"{meaning} ({said})", mistake)
    return Failure(said)


@contextmanager
def limited():
    """Raises `Endless` after SECONDS. Only in the main thread can Python be interrupted."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(number, frame):
        raise Endless

    before = signal.signal(signal.SIGALRM, stop)
    left = signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *left)
        signal.signal(signal.SIGALRM, before)


def semantics(shape, array):
    """NumPy's semantics on or off; MXNet wants those of arrays off before those of shapes."""
    mx.util._set_np_array(False)
    mx.util.set_np_shape(shape)
    mx.util._set_np_array(array)


@contextmanager
def guarded(kind="nd", training=False, recording=False):
    """Around a call of the student's code: its array kind ("ours": mx.nd, whatever is switched on),
    the mode of autograd, a limit of time. What goes wrong comes out as a `Failure`; all modes are
    put back as they were before, whatever the student's code did to them."""
    before = modes()
    try:
        autograd.set_recording(recording)
        autograd.set_training(training)
        semantics(*(kind == "np" or on and kind != "ours" for on in before[2:]))
        with np.errstate(all="ignore"), limited():
            yield
    except (Exception, SystemExit) as error:
        raise explain(error) from error
    finally:
        autograd.set_recording(before[0])
        autograd.set_training(before[1])
        semantics(*before[2:])


def modes():
    """What a student's code might leave changed."""
    return (
        autograd.is_recording(),
        autograd.is_training(),
        mx.util.is_np_shape(),
        mx.util.is_np_array(),
    )


# ----------------------------------------------------------------------------------------- arrays


def make(value, kind, dtype="float32"):
    value = np.asarray(value)
    dtype = dtype if value.dtype.kind == "f" else value.dtype
    if kind == "numpy":
        return value.astype(dtype)
    return (mx.np.array if kind == "np" else nd.array)(value, dtype=dtype)


def to_numpy(value, what):
    """NumPy, float64, of whatever a student returns; a `Failure` if that is no numbers."""
    if value is None:
        raise Failure(
            f"{what} is None. Does every path through your function end in a return?",
            "nothing returned",
        )
    if isinstance(value, nd.NDArray):
        value = value.asnumpy()
    try:
        return np.asarray(value, dtype="float64")
    except (TypeError, ValueError):
        raise Failure(
            f"{what} is of type {type(value).__name__}; an array is expected", "wrong type returned"
        ) from None


def dtype_of(value):
    return np.dtype(value.dtype).name if hasattr(value, "dtype") else type(value).__name__


def mentions(function, *modules):
    """Whether a function, or a method of a class, speaks of one of these modules."""
    function = inspect.unwrap(getattr(function, "__func__", function))
    for part in [function, *(vars(function).values() if isinstance(function, type) else ())]:
        space, codes = getattr(part, "__globals__", {}), [getattr(part, "__code__", None)]
        for code in filter(inspect.iscode, codes):  # those of functions inside it follow
            codes += code.co_consts
            used = [space.get(name) for name in code.co_names]
            if any(value is mx for value in used):  # `is`: == of an array is an array
                used += [getattr(mx, name, None) for name in code.co_names]
            if any(found is module for found in used for module in modules):
                return True
    return False


# ------------------------------------------------------------------------------------- arguments


class Function:
    """A student's function, called by the names of its arguments, or else by their order.

    `reordered` is True where its arguments have the right names in another order. `optional` names
    may be missing; `extra` ones, and the mode as `training`, are passed where they are asked for.
    """

    def __init__(self, function, names, optional=(), extra=()):
        self.function, self.names = function, names
        self.by_name, self.reordered, self.spread = None, False, False
        call = f"f({', '.join(names)})"
        if not callable(function):
            raise Failure(
                f"a function is expected, called as {call}; this is of type "
                f"{type(function).__name__}. Pass the function itself, without calling "
                "it",
                "not a function",
            )
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):  # written in C
            return
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            return
        known = {
            ALIASES.get(p.name, ALIASES.get(p.name.lower(), p.name)): p
            for p in parameters
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        }
        required = {name for name, p in known.items() if p.default is p.empty}
        rest = any(p.kind is p.VAR_KEYWORD for p in parameters)
        if (rest and known.keys() <= set(names)) or (
            set(names) - set(optional) <= set(known) and required <= {*names, "training", *extra}
        ):
            self.by_name = {
                name: p.name for name, p in known.items() if name in (*names, "training", *extra)
            }
            if rest:
                self.by_name = {**dict(zip(names, names)), **self.by_name}
            order = [name for name in known if name in names]
            self.reordered = order != [name for name in names if name in known]
            return
        slots = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if not sum(p.default is p.empty for p in slots) <= len(names) <= len(slots):
            raise Failure(
                f"it is called as {call}, with {len(names)} arguments; yours takes "
                f"{len(slots)}: ({', '.join(p.name for p in slots)})",
                "wrong arguments",
            )

    def takes(self, name):
        return self.by_name is None or name in self.by_name

    def __call__(self, given):
        if self.by_name is None:
            return self.function(*(given[name] for name in self.names))
        return self.function(**{self.by_name[n]: v for n, v in given.items() if n in self.by_name})
