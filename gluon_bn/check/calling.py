"""Calling a student's code: in the array kind it is written for, without letting its errors out,
its modes behind it, or its loops run for ever. Everything that comes back is NumPy, float64."""

import inspect
import itertools
import re
import signal
import threading
import time
from contextlib import contextmanager, suppress
from textwrap import shorten

import mxnet as mx
import numpy as np
from mxnet import autograd, nd

from gluon_bn.check.probes import upstream

SECONDS, PATIENCE = 5, 2  # of computing for one call; how often as long the clock may run


class Failure(Exception):
    """The student's code could not be run, or returned what nothing can be made of."""

    def __init__(self, sentence, mistake="error"):
        super().__init__(sentence)
        self.mistake = mistake


class Endless(BaseException):
    """The student's code did not come back; no `except Exception` of the student's catches it."""


# What stands in an error of MXNet's, what it means for a student, the name of the mistake.
# fmt: off
HINTS = (
    ("Assigning to NDArrays that are already in a computational graph",
     "it changes an array in place (with -=, *= or [:] =) while autograd records, which MXNet "
     "forbids: what was overwritten is needed for the gradient. Make a new array instead",
     "changed in place"),
    ("not in a computational graph",
     "nothing leads back from Y to X for autograd. Somewhere the way is cut: asnumpy(), a new "
     "array made from numbers, detach() or autograd.pause()", "gradient cut"),
    (r"has no attribute '(var|std)'", "arrays of mx.nd have no {}() (those of mx.np do): the "
     "variance has to be put together from means", "error"),
    ("object has no attribute '_scope'", "the constructor of Block did not run before something "
     "was asked of it. Is super().__init__() called first?", "error"),
    ("Parameter'> not supported", "a Parameter stands where its array belongs. A Parameter holds "
     "the array, and hands it out when asked for its data", "error"),
    ("Exceeds input dimensions", "it averages over an axis that X does not have. Are the axes "
     "written for images only?", "error"),
    (r"expected (float\d+), got (float\d+)", "arrays of two types meet, {} and {}", "type changed"),
    ("data type do not match", "arrays of two types meet", "type changed"),
    ("only accept (?:legacy|MXNet numpy) ndarrays", "mx.nd and mx.np are mixed: a function of one "
     "was given an array of the other", "error"),
)
# What a student may call an argument.
ALIASES = {alias: name for name, aliases in {
    "X": "x input inputs data", "gamma": "g weight scale", "beta": "b bias shift offset",
    "moving_mean": "running_mean", "moving_var": "running_var moving_variance running_variance",
    "eps": "epsilon", "var": "variance", "mean": "mu", "labels": "label y", "axis": "axes",
    "dY": "dy dout grad_y grad grad_output", "num_groups": "groups",
    "training": "is_training train train_mode",
}.items() for alias in aliases.split()}
# fmt: on


def explain(error):
    """A `Failure` for any exception: its first sentence, without the stack of C++ that MXNet puts
    around it, and what usually stands behind it."""
    if isinstance(error, Failure):
        return error
    with suppress(Exception):  # what else has failed in MXNet's engine must not come up later
        nd.waitall()
    text = re.sub(r"^.*MXNetError: ", "", str(error).strip(), flags=re.DOTALL)
    text = re.sub(r"^(\[\d\d:\d\d:\d\d\] \S+: )?(Check failed: )?", "", text).split("\n")[0]
    text = re.split(r"(?<=[a-z\])])(?<!\bvs)\. ", text)[0].strip().rstrip(".")
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    for sign, meaning, mistake in HINTS:
        if found := re.search(sign, str(error)):
            meaning = meaning.format(*found.groups())
            said = "" if found.groups() else f" ({shorten(said, 110, placeholder=' ...')})"
            return Failure(meaning + said, mistake)
    return Failure(shorten(said, 200, placeholder=" ..."))


@contextmanager
def limited():
    """Raises `Endless` after SECONDS of computing; on a busy machine they take longer, but not for
    ever. Only in the main thread can Python be interrupted."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return
    alarms, started = itertools.count(1), time.process_time()

    def stop(number, frame):  # 0.9: a busy loop has computed a little less than the clock says
        if next(alarms) >= PATIENCE or time.process_time() - started >= 0.9 * SECONDS:
            raise Endless

    before = signal.signal(signal.SIGALRM, stop)
    left = signal.setitimer(signal.ITIMER_REAL, SECONDS, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *left)
        signal.signal(signal.SIGALRM, before)


def modes():
    """What a student's code might leave changed."""
    own = autograd.is_recording(), autograd.is_training()
    return *own, mx.util.is_np_shape(), mx.util.is_np_array()


def set_modes(recording, training, shape, array):
    autograd.set_recording(recording)
    autograd.set_training(training)
    mx.util._set_np_array(False)  # MXNet wants it off while the other is switched
    mx.util.set_np_shape(shape)
    mx.util._set_np_array(array)


@contextmanager
def guarded(kind="nd", training=False, recording=False):
    """Around a call of the student's code: its array kind ("ours": mx.nd, whatever is switched on),
    the mode of autograd, a limit of time. What goes wrong comes out as a `Failure`; all modes are
    put back as they were before, whatever the student's code did to them."""
    before = modes()
    try:
        set_modes(recording, training, *(kind == "np" or o and kind != "ours" for o in before[2:]))
        with np.errstate(all="ignore"), limited():
            yield
    except (Exception, SystemExit) as error:
        raise explain(error) from error
    finally:
        set_modes(*before)


def make(value, kind, dtype="float32"):
    """An array of a kind; whole numbers stay whole, and what is no array stays as it is."""
    if isinstance(value, list):
        return [make(v, kind, dtype) for v in value]
    if not isinstance(value, np.ndarray):
        return value
    dtype = dtype if value.dtype.kind == "f" else value.dtype
    if kind == "numpy":
        return value.astype(dtype)
    module = mx.np if kind == "np" else nd
    if not value.size or not value.ndim:
        return module.array(value, dtype=dtype)
    made = module.empty(value.shape, dtype=dtype)
    made._sync_copyfrom(value)  # what `array` ends in, after three times as long
    return made


def to_numpy(value, what):
    """NumPy, float64, of whatever a student returns; a `Failure` if that is no numbers."""
    if value is None:
        end = "Does every path through your function end in a return?"
        raise Failure(f"{what} is None. {end}", "nothing returned")
    try:
        value = value.asnumpy() if isinstance(value, nd.NDArray) else value
        return np.array(value, dtype="float64")
    except (TypeError, ValueError):
        said = f"{what} is of type {type(value).__name__}; an array is expected"
        raise Failure(said, "wrong type returned") from None


def dtype_of(value):
    return np.dtype(value.dtype).name if hasattr(value, "dtype") else type(value).__name__


def send_back(heads, kind="nd"):
    """Gradients into these outputs, different in every place, and back from there."""
    if not all(isinstance(head, nd.NDArray) for head in heads):
        said = "what comes back is no array of MXNet's, so autograd cannot follow"
        raise Failure(said, "gradient cut")
    sent = [make(upstream(h.shape, i), kind, dtype_of(h)) for i, h in enumerate(heads)]
    try:
        autograd.backward(list(heads), sent)
    except Exception as error:
        raise explain(error) from error


def fits(signature, *arguments, **named):
    """Whether a function of this signature can be called so."""
    try:
        signature.bind(*arguments, **named)
        return True
    except TypeError:
        return False


class Function:
    """A student's function, called by the names of its arguments, or else by their order.

    `reordered` is True where its arguments have the right names in another order. `optional` names
    may be missing; `extra` ones, and the mode as `training`, are passed where they are asked for.
    """

    def __init__(self, function, names, optional=(), extra=()):
        self.function, self.names, self.by_name, self.reordered = function, names, None, False
        call = f"f({', '.join(names)})"
        if not callable(function):
            said = f"a function is expected, called as {call}; this is of type "
            said += f"{type(function).__name__}. Pass the function itself, without calling it"
            raise Failure(said, "not a function")
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # written in C
            return
        own, kinds = signature.parameters, {p.kind for p in signature.parameters.values()}
        if inspect.Parameter.VAR_POSITIONAL in kinds:
            return
        known = dict(zip(names, names)) if inspect.Parameter.VAR_KEYWORD in kinds else {}
        known.update({ALIASES.get(name.lower(), name): name for name in own})
        known = {n: known[n] for n in known if n in (*names, *extra, "training")}
        if {*names} - {*optional} <= {*known} and fits(signature, **{n: 0 for n in known.values()}):
            self.by_name, order = known, [name for name in known if name in names]
            self.reordered = order != [name for name in names if name in known]
        elif not fits(signature, *names):
            said = f"it is called as {call}, with {len(names)} arguments; yours takes "
            raise Failure(f"{said}{len(own)}: ({', '.join(own)})", "wrong arguments")

    def takes(self, name):
        return self.by_name is None or name in self.by_name

    def speaks_of(self, module):
        own = inspect.unwrap(getattr(self.function, "__func__", self.function))
        names, space = getattr(own, "__code__", None), getattr(own, "__globals__", {})
        return names is not None and any(space.get(n) is module for n in names.co_names)

    def __call__(self, given):
        if self.by_name is None:
            return self.function(*(given[name] for name in self.names))
        return self.function(**{own: given[n] for n, own in self.by_name.items() if n in given})
