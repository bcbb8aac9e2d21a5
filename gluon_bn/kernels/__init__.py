"""One layer, computed several ways, behind one interface: a ladder to climb.

| rung       | what it is                                                   | where             |
|------------|--------------------------------------------------------------|-------------------|
| `textbook` | the equations, differentiated by autograd                    | everywhere        |
| `analytic` | backward derived by hand, MXNet operators only               | everywhere        |
| `fused`    | two passes forward, two backward, compiled by Numba          | CPU, Numba        |
| `native`   | the same loops as an operator in C++                         | CPU, C++ compiler |
| `gluon`    | MXNet's own operator, to compare with; `auto` never takes it | everywhere        |

A rung is a module with

    supports(X)                                               -> bool
    train(X, gamma, beta, eps, axis=1)                        -> Y, mean, var
    predict(X, gamma, beta, mean, var, eps, axis=1)           -> Y

X is an `mx.nd.NDArray`, float32 or float64, channels on `axis`, counted from the front; gamma and
beta are (C,), or (N, C) for a row per example; mean and var are (C,), var the biased one. Y is
differentiable in X, gamma and beta; mean and var carry no gradient. Where var overflows to infinity
Y is NaN or right, never beta (`gluon` excepted). Arguments have been checked by the caller (the
Blocks).

A rung that can move the running statistics as it computes the batch's (`native`) also has

    train_layer(X, gamma, beta, running_mean, running_var, eps, momentum, axis=1, unbiased=False,
                skip_nonfinite=False, may_add=True)         -> Y

and one that can apply activations as it writes Y lists them as ACTIVATIONS; all its functions then
take `activation`.
"""

import importlib
import warnings

NAMES = ("textbook", "analytic", "fused", "native", "gluon")
_ANYWHERE = ("analytic", "textbook")
_FASTEST_FIRST = ("native", "fused", *_ANYWHERE)
_absent = {}  # name of a rung: why it does not work here


def check_name(name):
    """Raise ValueError unless `name` is a rung or 'auto'."""
    if name not in NAMES + ("auto",):
        raise ValueError(f"unknown kernel {name!r}: choose 'auto' or one of "
                         + ", ".join(map(repr, NAMES)))


def available():
    """The names of the rungs that work on this machine."""
    return [name for name in NAMES if why_not(name) is None]


def why_not(name):
    """Why a rung does not work on this machine, in a sentence; None if it does."""
    if name not in _absent:
        try:
            rung = importlib.import_module(f"gluon_bn.kernels.{name}")
            _absent[name] = rung.available() if hasattr(rung, "available") else None
        except ImportError as error:
            missing = error.name or error
            _absent[name] = f"{missing} cannot be imported (pip install {missing})"
    return _absent[name]


def get(name):
    """The rung called `name`; RuntimeError, saying why, if it does not work here."""
    check_name(name)
    if why_not(name) is not None:
        raise RuntimeError(f"the kernel {name!r} does not work here: {why_not(name)}. "
                           "Use kernel='auto', which takes the fastest that does")
    return importlib.import_module(f"gluon_bn.kernels.{name}")


def choose(name, X):
    """The rung for X: the one named, or with 'auto' the fastest that works here and fits X."""
    if name != "auto":
        rung = get(name)
        if not rung.supports(X):
            raise ValueError(f"the kernel {name!r} does not fit X of type {X.dtype.__name__} on "
                             f"{X.context}; use kernel='auto'")
        return rung
    # The compiled rungs are the CPU's: elsewhere nothing need be compiled, or said to be missing.
    on_cpu = X.context.device_type.startswith("cpu")
    for candidate in _FASTEST_FIRST if on_cpu else _ANYWHERE:
        reason = why_not(candidate)
        if reason is None:
            rung = get(candidate)
            if rung.supports(X):
                return rung
        else:
            _say_once(candidate, reason)


_said = set()


def _say_once(name, reason):
    if name not in _said:
        _said.add(name)
        warnings.warn(f"kernel='auto' goes on without {name!r}: {reason}", stacklevel=3)
