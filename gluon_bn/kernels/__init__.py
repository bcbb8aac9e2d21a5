"""Other bodies of the same function: `batch_norm`, computed several ways.

| kernel     | what it is                                                   | where             |
|------------|--------------------------------------------------------------|-------------------|
| `textbook` | `gluon_bn.functional.batch_norm`, differentiated by autograd | everywhere        |
| `analytic` | backward derived by hand, MXNet operators only               | everywhere        |
| `fused`    | two passes forward, two backward, compiled by Numba          | CPU, Numba        |
| `native`   | the same loops as an operator in C++                         | CPU, C++ compiler |
| `gluon`    | MXNet's own operator, to compare with; `auto` never takes it | everywhere        |

Each is a module with

    batch_norm(X, gamma, beta, moving_mean, moving_var, eps, momentum, *, axis=1, ...)
                                                  -> Y, moving_mean, moving_var
    supports(X)                                   -> bool: the type and place of X
    OPTIONS                                       what its batch_norm takes besides the seven

`batch_norm` is training or prediction by `autograd.is_training()`; momentum=0 hands back the
statistics of the batch; a kernel that moves its statistics in place (`fused`, `native`) returns
what it was given. Y is differentiable in X, gamma and beta, the statistics carry no gradient. Where
the variance overflows to infinity Y is NaN or right, never beta (`gluon` excepted). Arguments are
those of `functional.batch_norm`, checked in the same place (`gluon_bn.checked`), or before, by the
Block that calls; a Block passes vectors (C,) for what is per channel.
"""

import importlib
import warnings

NAMES = ("textbook", "analytic", "fused", "native", "gluon")
_ANYWHERE = ("analytic", "textbook")
_FASTEST_FIRST = ("native", "fused", *_ANYWHERE)
_absent = {}  # name of a kernel: why it does not work here


def check_name(name):
    """Raise ValueError unless `name` is a kernel or 'auto'."""
    if name not in NAMES + ("auto",):
        raise ValueError(
            f"unknown kernel {name!r}: choose 'auto' or one of " + ", ".join(map(repr, NAMES))
        )


def available():
    """The names of the kernels that work on this machine."""
    return [name for name in NAMES if why_not(name) is None]


def why_not(name):
    """Why a kernel does not work on this machine, in a sentence; None if it does."""
    if name not in _absent:
        try:
            kernel = importlib.import_module(f"gluon_bn.kernels.{name}")
            _absent[name] = getattr(kernel, "available", lambda: None)()
        except ImportError as error:
            missing = error.name or error
            _absent[name] = f"{missing} cannot be imported (pip install {missing})"
    return _absent[name]


def get(name):
    """The kernel called `name`; RuntimeError, saying why, if it does not work here."""
    check_name(name)
    if why_not(name) is not None:
        raise RuntimeError(
            f"the kernel {name!r} does not work here: {why_not(name)}. "
            "Use kernel='auto', which takes the fastest that does"
        )
    return importlib.import_module(f"gluon_bn.kernels.{name}")


def choose(name, X, option=None):
    """The kernel for X: the one named, or with 'auto' the fastest that works here, fits X and has
    this option."""
    if name != "auto":
        kernel = get(name)
        if not kernel.supports(X):
            raise ValueError(
                f"the kernel {name!r} does not fit X of type {X.dtype.__name__} on "
                f"{X.context}; use kernel='auto'"
            )
        return kernel
    # The compiled kernels are the CPU's: elsewhere nothing need be compiled, or said to be missing.
    on_cpu = X.context.device_type.startswith("cpu")
    for candidate in _FASTEST_FIRST if on_cpu else _ANYWHERE:
        reason = why_not(candidate)
        if reason is None:
            kernel = get(candidate)
            if kernel.supports(X) and option in (None, *kernel.OPTIONS):
                return kernel
        else:
            _say_once(candidate, reason)


_said = set()


def _say_once(name, reason):
    if name not in _said:
        _said.add(name)
        warnings.warn(f"kernel='auto' goes on without {name!r}: {reason}", stacklevel=3)
