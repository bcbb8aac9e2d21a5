"""Other bodies of the same function: `batch_norm`, computed several ways.

==========  ============================================================  ==================
kernel      what it is                                                    where
==========  ============================================================  ==================
`textbook`  `gluon_bn.functional.batch_norm`, differentiated by autograd  everywhere
`analytic`  backward derived by hand, MXNet operators only                everywhere
`fused`     two passes forward, two backward, compiled by Numba           CPU, Numba
`native`    the same loops as an operator in C++                          CPU, C++ compiler
`gluon`     MXNet's own operator, to compare with; never taken by 'auto'  everywhere
==========  ============================================================  ==================

Each is a module with::

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

from __future__ import annotations

import importlib
import warnings
from types import ModuleType

from mxnet import nd

from gluon_bn.arguments import Array

NAMES = ("textbook", "analytic", "fused", "native", "gluon")
_ANYWHERE = ("analytic",)  # and textbook, the slowest
_FASTEST_FIRST = ("native", "fused", *_ANYWHERE)
_absent: dict[str, str | None] = {}  # name of a kernel: why it does not work here


def check_name(name: str) -> None:
    """Raise ValueError unless `name` is a kernel or 'auto'.

    Parameters
    ----------
    name : str

    Examples
    --------
    >>> kernels.check_name("textbook")
    """
    if name not in NAMES + ("auto",):
        raise ValueError(
            f"unknown kernel {name!r}: choose 'auto' or one of " + ", ".join(map(repr, NAMES))
        )


def available() -> list[str]:
    """The names of the kernels that work on this machine.

    Returns
    -------
    list of str

    Examples
    --------
    >>> {"textbook", "analytic", "gluon"} <= set(kernels.available())
    True
    """
    return [name for name in NAMES if why_not(name) is None]


def why_not(name: str) -> str | None:
    """Why a kernel does not work on this machine, in a sentence; None if it does.

    Parameters
    ----------
    name : str, one of `NAMES`

    Returns
    -------
    str or None

    Examples
    --------
    >>> kernels.why_not("textbook") is None
    True
    """
    if name not in _absent:
        try:
            kernel = importlib.import_module(f"gluon_bn.kernels.{name}")
            _absent[name] = getattr(kernel, "available", lambda: None)()
        except ImportError as error:
            missing = error.name or error
            _absent[name] = f"{missing} cannot be imported (pip install {missing})"
    return _absent[name]


def get(name: str) -> ModuleType:
    """The kernel called `name`.

    Parameters
    ----------
    name : str, one of `NAMES`

    Returns
    -------
    module

    Raises
    ------
    ValueError : there is no such kernel
    RuntimeError : it does not work here; the message says why

    Examples
    --------
    >>> kernels.get("analytic").__name__
    'gluon_bn.kernels.analytic'
    """
    check_name(name)
    if why_not(name) is not None:
        raise RuntimeError(
            f"the kernel {name!r} does not work here: {why_not(name)}. "
            "Use kernel='auto', which takes the fastest that does"
        )
    return importlib.import_module(f"gluon_bn.kernels.{name}")


def choose(name: str, X: Array, option: str | None = None) -> ModuleType:
    """The kernel for X: the one named, or with 'auto' the fastest that works here, fits X and has
    this option.

    Parameters
    ----------
    name : str, one of `NAMES` or 'auto'
    X : array
    option : str, one of a kernel's OPTIONS, or None

    Returns
    -------
    module

    Raises
    ------
    ValueError, RuntimeError : the kernel named does not fit X, or does not work here

    Examples
    --------
    >>> kernels.choose("auto", nd.ones((2, 3), dtype="float16")).__name__
    'gluon_bn.kernels.analytic'
    """
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
    return get("textbook")


_said: set[str] = set()


def _say_once(name, reason):
    if name not in _said:
        _said.add(name)
        warnings.warn(f"kernel='auto' goes on without {name!r}: {reason}", stacklevel=3)


def activate(Y: Array, activation: str | None) -> Array:
    """What follows where a kernel does not apply the activation itself.

    MXNet's Activation makes zeros of NaN on a CPU, and nobody would see the accident; `nd.relu`
    does not.

    Parameters
    ----------
    Y : array
    activation : 'relu', 'sigmoid', 'softrelu', 'softsign', 'tanh', or None, which leaves Y as it is

    Returns
    -------
    array like Y

    Examples
    --------
    >>> print(kernels.activate(nd.array([-1, 0, 2]), "relu").asnumpy())
    [0. 0. 2.]
    """
    if activation is None:
        return Y
    return nd.relu(Y) if activation == "relu" else nd.Activation(Y, act_type=activation)
