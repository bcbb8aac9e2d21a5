"""Calling a student's code: in the array kind it is written for, without letting its errors out.

A student may write with `mx.nd`, with `mx.np` or with NumPy, name the arguments as they like, and
return what they like. Here is found out what works; everything that comes back is NumPy, float64.
"""

import inspect
import re
from contextlib import ExitStack, contextmanager

import mxnet as mx
import numpy as np
from mxnet import autograd, nd

KINDS = {"nd": "mx.nd", "np": "mx.np", "numpy": "NumPy"}

ALIASES = {
    "x": "X", "input": "X", "inputs": "X", "data": "X", "g": "gamma", "weight": "gamma",
    "scale": "gamma", "b": "beta", "bias": "beta", "shift": "beta", "offset": "beta",
    "running_mean": "moving_mean", "running_var": "moving_var", "moving_variance": "moving_var",
    "running_variance": "moving_var", "epsilon": "eps", "variance": "var", "mu": "mean",
    "sigma2": "var", "dy": "dY", "dout": "dY", "grad_y": "dY", "grad": "dY", "grad_output": "dY",
    "label": "labels", "y": "labels", "axes": "axis",
    "is_training": "training", "train": "training", "train_mode": "training",
}


class Failure(Exception):
    """The student's code could not be run, or returned what nothing can be made of."""

    def __init__(self, sentence, mistake="error"):
        super().__init__(sentence)
        self.mistake = mistake


# ------------------------------------------------------------------------------------------ errors


def first_sentence(error):
    """What an exception says, without the stack of C++ that MXNet puts around it."""
    text = str(error).strip()
    text = re.sub(r"^.*MXNetError: ", "", text, flags=re.DOTALL)
    text = re.sub(r"^\[\d\d:\d\d:\d\d\] \S+: ", "", text)
    text = re.sub(r"^Check failed: ", "", text)
    text = text.split("\n")[0]
    text = re.split(r"(?<=[a-z\])])(?<!\bvs)\. ", text)[0].strip().rstrip(".")
    text = text if len(text) < 200 else text[:197] + "..."
    name = type(error).__name__
    return f"{name}: {text}" if text else name


HINTS = (
    ("Assigning to NDArrays that are already in a computational graph",
     "it changes an array in place (with -=, *= or [:] =) while autograd records, which MXNet "
     "forbids: what was overwritten is needed for the gradient. Make a new array instead",
     "changed in place"),
    ("not in a computational graph",
     "nothing leads back from Y to X for autograd. Somewhere the way is cut: asnumpy(), a new "
     "array made from numbers, detach() or autograd.pause()", "gradient cut"),
    ("has no attribute 'var'", "arrays of mx.nd have no var() (those of mx.np do): the variance "
     "has to be put together from means", "error"),
    ("has no attribute 'std'", "arrays of mx.nd have no std() (those of mx.np do)", "error"),
    ("could not be broadcast", None, "error"),
    ("object has no attribute '_scope'", "the constructor of Block did not run before something "
     "was asked of it. Is super().__init__() called first?", "error"),
    ("Parameter'> not supported", "a Parameter stands where its array belongs. A Parameter holds "
     "the array, and hands it out when asked for its data", "error"),
    ("Exceeds input dimensions", "it averages over an axis that X does not have. Are the axes "
     "written for images only?", "error"),
    ("data type do not match", "arrays of two types meet", "type changed"),
    ("only accept legacy ndarrays", "mx.nd and mx.np are mixed: a function of mx.nd was given an "
     "array of mx.np", "error"),
    ("only accept MXNet numpy ndarrays", "mx.nd and mx.np are mixed: a function of mx.np was given "
     "an array of mx.nd", "error"),
)


def explain(error):
    """A `Failure` for any exception: its first sentence, and what usually stands behind it."""
    if isinstance(error, Failure):
        return error
    text, hint, mistake = str(error), None, "error"
    for sign, meaning, kind in HINTS:
        if sign in text:
            hint, mistake = meaning, kind
            break
    said = first_sentence(error)
    if "expected float" in text and "got float" in text:
        said = "arrays of two types meet, " + re.search(
            r"expected float\d+, got float\d+", text)[0].replace("expected ", "").replace(
                ", got", " and")
        mistake = "type changed"
    if hint and len(said) > 110:
        said = said[:107] + "..."
    return Failure(f"{hint} ({said})" if hint else said, mistake)


@contextmanager
def guarded():
    """Everything that goes wrong inside comes out as a `Failure`."""
    try:
        with np.errstate(all="ignore"):
            yield
    except (Exception, SystemExit) as error:
        raise explain(error) from error


# ----------------------------------------------------------------------------------- array kinds


@contextmanager
def world(kind):
    """MXNet's NumPy semantics while `mx.np` code runs, as `npx.set_np()` would set them."""
    with ExitStack() as stack:
        if kind == "np":
            stack.enter_context(mx.util.np_shape(True))
            stack.enter_context(mx.util.np_array(True))
        yield


@contextmanager
def mode(training, recording):
    """The four situations of autograd."""
    with ExitStack() as stack:
        if recording:
            stack.enter_context(autograd.record(train_mode=training))
        else:
            stack.enter_context(autograd.pause(train_mode=training))
        yield


def make(value, kind, dtype="float32"):
    value = np.asarray(value)
    dtype = dtype if value.dtype.kind == "f" else value.dtype
    if kind == "numpy":
        return value.astype(dtype)
    return (mx.np.array if kind == "np" else nd.array)(value, dtype=dtype)


def to_numpy(value, what):
    """NumPy, float64, of whatever a student returns; a `Failure` if that is no numbers."""
    if value is None:
        raise Failure(f"{what} is None. Does every path through your function end in a return?",
                      "nothing returned")
    if isinstance(value, nd.NDArray):
        value = value.asnumpy()
    try:
        return np.asarray(value, dtype="float64")
    except (TypeError, ValueError):
        raise Failure(f"{what} is of type {type(value).__name__}; an array is expected",
                      "wrong type returned") from None


def dtype_of(value):
    return np.dtype(value.dtype).name if hasattr(value, "dtype") else type(value).__name__


def writes_numpy_style(function):
    """Whether a function was written for `mx.np`: by what its module imports and it mentions."""
    if mx.util.is_np_array():
        return True
    function = inspect.unwrap(getattr(function, "__func__", function))
    for part in [function, *(vars(function).values() if isinstance(function, type) else ())]:
        space = getattr(part, "__globals__", {})
        names = set(getattr(getattr(part, "__code__", None), "co_names", ()))
        modules = [value for value in space.values() if inspect.ismodule(value)]
        if mx.np in modules or mx.npx in modules or {"mx", "np"} <= names:
            return True
    return False


def uses_numpy(function):
    """Whether a function mentions NumPy itself, by whatever name its module imports it."""
    function = inspect.unwrap(getattr(function, "__func__", function))
    space, code = getattr(function, "__globals__", {}), getattr(function, "__code__", None)
    return any(space.get(name) is np for name in getattr(code, "co_names", ()))


# ------------------------------------------------------------------------------------- arguments


class Function:
    """A student's function, called by the names of its arguments, or else by their order.

    `reordered` is True where its arguments have the right names in another order.
    """

    def __init__(self, function, names, optional=(), extra=()):
        """`optional` names may be missing; `extra` ones are passed where they are asked for."""
        self.function, self.names = function, (*names, *extra)
        self.by_name, self.reordered, self.takes_mode = None, False, False
        self.positional = len(names)
        call = f"f({', '.join(names)})"
        if not callable(function):
            raise Failure(f"a function is expected, called as {call}; this is of type "
                          f"{type(function).__name__}. Pass the function itself, without calling "
                          "it", "not a function")
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):  # written in C
            return
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            return
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        known = {ALIASES.get(p.name, ALIASES.get(p.name.lower(), p.name)): p for p in positional}
        required = {name for name, p in known.items() if p.default is p.empty}
        wanted = set(names)
        if any(p.kind is p.VAR_KEYWORD for p in parameters) and known.keys() <= wanted:
            self.by_name = {name: known[name].name if name in known else name for name in names}
            return
        if wanted - set(optional) <= set(known) and required <= wanted | {"training", *extra}:
            self.by_name = {name: known[name].name for name in self.names if name in known}
            order = [name for name in known if name in wanted]
            self.reordered = order != [name for name in names if name in known]
            if "training" in known:
                self.takes_mode = known["training"].name
            return
        slots = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        least = sum(p.default is p.empty for p in slots)
        if not least <= len(names) <= len(slots):
            raise Failure(f"it is called as {call}, with {len(names)} arguments; yours takes "
                          f"{len(slots)}: ({', '.join(p.name for p in slots)})", "wrong arguments")

    def __call__(self, *values, training=None):
        if self.by_name is None:
            return self.function(*values[:self.positional])
        given = {self.by_name[n]: v for n, v in zip(self.names, values) if n in self.by_name}
        if self.takes_mode:
            given[self.takes_mode] = training
        return self.function(**given)
