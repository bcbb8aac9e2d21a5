"""The fused loops as an operator of MXNet's own engine, in C++ (native.cc).

A Python function stands outside a hybridized network; an operator stands inside it, with no Python
in the step and the engine's own threads (`gluon_bn.kernels.native_graph`). native.cc is compiled
the first time it is needed (ten seconds), kept in a cache, and loaded into MXNet. Without a
compiler there is one kernel less, and `available()` says why.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import threading
import warnings

import mxnet as mx
import numpy as np
from mxnet import autograd, nd
from mxnet.base import _LIB, OpHandle, c_str, check_call
from mxnet.ndarray.register import _make_ndarray_function
from mxnet.symbol.register import _make_symbol_function

from gluon_bn import checked
from gluon_bn.arguments import ONE_VALUE, Array
from gluon_bn.kernels import activate

__all__ = ["OPTIONS", "available", "batch_norm", "supports"]

_SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "native.cc")
ACTIVATIONS = ("relu", "sigmoid")  # those that the operator applies as it writes Y
OPTIONS = ("axis", "unbiased", "skip_nonfinite", "activation", "may_add")
_lock = threading.Lock()
_state = {"tried": False, "problem": None, "library": None}


# --------------------------------------------------------------------------- compiling and loading


def _compiler():
    """The command of a C++ compiler, as a list, or None."""
    for name in (os.environ.get("CXX"), "g++", "c++", "clang++"):
        words = name.split() if name else []
        if words and shutil.which(words[0]):
            return [shutil.which(words[0]), *words[1:]]
    return None


def _flag_sets(version):
    """Compiler flags to try, the best first.

    Without -fno-trapping-math GCC does not vectorize the comparison in the gradient of ReLU; the
    flag changes no result, NaN and infinity included.

    Only GCC gets OpenMP: MXNet's threads are GCC's (libgomp), and a second pool, such as Clang's,
    would fight with the first over the same cores.
    """
    base = ["-std=c++17", "-O3", "-fno-trapping-math", "-fPIC", "-shared", "-w"]
    if "clang" in version.lower():
        return [[*base, "-fopenmp-simd"], base]
    threads = [*base, "-fopenmp"]
    if platform.machine() in ("x86_64", "AMD64") and platform.system() == "Linux":
        return [[*threads, "-DGLUON_BN_CLONES"], threads, base]
    return [threads, base]


def _cache_folders():
    """Where the compiled file may live, the best first."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return [
        os.environ.get("GLUON_BN_CACHE") or os.path.join(home, "gluon_bn"),
        os.path.join(tempfile.gettempdir(), f"gluon_bn-{user}"),
    ]


def _usable(folder):
    """Make the folder; True if it is ours alone and takes files: what is loaded from it runs as
    us."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        status = os.stat(folder)
        ours = not hasattr(os, "getuid") or status.st_uid == os.getuid()
        return ours and not status.st_mode & 0o002 and os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        return False


def _library():
    """Path of the compiled operator; compiles it if the cache has none.

    Raises RuntimeError with the reason if that cannot be done.
    """
    package = os.path.dirname(mx.__file__)
    include, helper = os.path.join(package, "include"), os.path.join(package, "src", "lib_api.cc")
    header = os.path.join(include, "mxnet", "lib_api.h")
    if not (os.path.exists(helper) and os.path.exists(header)):
        raise RuntimeError("this MXNet came without lib_api.h and lib_api.cc")
    compiler = _compiler()
    version = _output([*compiler, "--version"]).stdout if compiler else ""
    name = _name(version, _SOURCE, helper, header)
    folders = _cache_folders()
    for folder in folders:  # a file that is there needs no permission to write
        path = os.path.abspath(os.path.join(folder, name))
        if os.path.exists(path) and (folder == folders[0] or _usable(folder)):
            return path
    if not compiler:
        raise RuntimeError("no C++ compiler was found (set CXX, or install g++)")
    folder = next((f for f in folders if _usable(f)), None)
    if folder is None:
        raise RuntimeError(
            "no folder to keep the compiled operator in (tried "
            f"{' and '.join(folders)}; GLUON_BN_CACHE names another)"
        )
    return _compile(
        compiler,
        _flag_sets(version),
        include,
        [_SOURCE, helper],
        os.path.abspath(os.path.join(folder, name)),
    )


def _name(version, *files):
    """A name of its own for each source, compiler, MXNet and machine."""
    key = hashlib.sha256(
        repr(
            (
                version,
                _flag_sets(version),
                mx.__version__,
                platform.machine(),
                platform.platform(terse=True),
            )
        ).encode()
    )
    for path in files:
        with open(path, "rb") as file:
            key.update(file.read())
    return f"native-{key.hexdigest()[:20]}.so"


def _compile(compiler, flag_sets, include, sources, target):
    for flags in flag_sets:
        handle, temporary = tempfile.mkstemp(suffix=".so", dir=os.path.dirname(target))
        os.close(handle)
        try:
            done = _output([*compiler, *flags, f"-I{include}", *sources, "-o", temporary])
            if done.returncode == 0:
                os.replace(temporary, target)  # whole or not at all, though two processes may race
                return target
        finally:
            if os.path.exists(temporary):
                os.remove(temporary)
    said = done.stderr.strip().splitlines() or ["no message"]
    raise RuntimeError(f"{compiler[0]} failed: {said[0]}")


def _output(command):
    # close_fds=False lets Python 3.9 start it without a fork, after which MXNet would start anew.
    return subprocess.run(command, capture_output=True, close_fds=False, text=True, timeout=600)


def _load():
    """Compile if needed and load, once a process. Returns None or the reason why not."""
    with _lock:
        if not _state["tried"]:
            try:
                if not hasattr(mx.nd, "gluon_bn_native"):
                    path = _library()
                    _add_operator(path)
                    _state["library"] = ctypes.CDLL(path)
                    _state["library"].gluon_bn_on_single(_warn_of_single)
            except Exception as error:  # whatever it is: 'auto' goes on without, and tells
                _state["problem"] = (str(error).splitlines() or [repr(error)])[0]
            _state["tried"] = True
        return _state["problem"]


def _add_operator(path):
    """What `mx.library.load` does, for the one operator that is new. That one makes the functions
    of all operators anew, and so undoes what `amp.init()` made of them."""
    check_call(_LIB.MXLoadLib(c_str(path), 0))
    handle, name = OpHandle(), "gluon_bn_native"
    check_call(_LIB.NNGetOpHandle(c_str(name), ctypes.byref(handle)))
    for module, make in ((mx.nd, _make_ndarray_function), (mx.sym, _make_symbol_function)):
        setattr(module, name, make(handle, name, name))


@ctypes.CFUNCTYPE(None, ctypes.c_long)
def _warn_of_single(channels):
    """A layer in a graph trains on one value per channel. A thread of MXNet's engine calls."""
    warnings.warn(
        f"a BatchNorm of {channels} channels, in a hybridized network, was given one "
        f"value per channel in training: {ONE_VALUE}",
        stacklevel=1,
    )


def operator(module):
    """The operator in `mx.nd` or `mx.sym`."""
    problem = _state["problem"] if _state["tried"] else _load()
    if problem:
        raise RuntimeError(f"the kernel 'native' does not work here: {problem}")
    return module.gluon_bn_native


def library():
    """The operator's functions for Python."""
    return _state["library"]


# -------------------------------------------------------------------------------------- the kernel


def available() -> str | None:
    """None if this kernel works here, else why not, in a sentence. The first call may compile.

    Returns
    -------
    None or str

    Examples
    --------
    >>> kernels.get("native").available() == kernels.why_not("native")
    True
    """
    return _load()


def supports(X: Array) -> bool:
    """Whether X is what this kernel computes: dense, float32 or float64, on a CPU.

    Parameters
    ----------
    X : array

    Returns
    -------
    bool

    Examples
    --------
    >>> kernels.get("native").supports(nd.ones(1, dtype="float16"))
    False
    """
    return (
        X.stype == "default"
        and X.context.device_type.startswith("cpu")
        and X.dtype in (np.float32, np.float64)
    )


@checked.kernel
def batch_norm(
    X: Array,
    gamma: Array,
    beta: Array,
    moving_mean: Array,
    moving_var: Array,
    eps: float,
    momentum: float,
    *,
    axis: int = 1,
    unbiased: bool = False,
    skip_nonfinite: bool = False,
    activation: str | None = None,
    may_add: bool = True,
) -> tuple[Array, Array, Array]:
    """`gluon_bn.batch_norm`, but the moving statistics are moved in place, by the same operator.

    Parameters
    ----------
    X, gamma, beta, moving_mean, moving_var, eps, momentum, axis, unbiased : as for `batch_norm`
    skip_nonfinite : bool; True leaves the statistics of a channel whose batch's are not finite
    activation : 'relu', 'sigmoid', applied as Y is written; any other of MXNet's, after it; or None
    may_add : bool; False promises that neither gamma nor beta has grad_req='add', and saves time

    Returns
    -------
    Y, moving_mean, moving_var : arrays

    Examples
    --------
    >>> batch_norm, X = kernels.get("native").batch_norm, nd.array([[1], [3]])
    >>> with autograd.train_mode():
    ...     Y, mean, var = batch_norm(X, None, None, nd.zeros(1), nd.ones(1), 1e-5, 0.9)
    >>> print(Y.asnumpy().round(3).tolist(), mean.asnumpy().round(3))
    [[-1.0], [1.0]] [0.2]
    """
    inside = activation if activation in ACTIVATIONS else None
    options = options_of(
        "train" if autograd.is_training() else "predict",
        axis,
        eps,
        momentum,
        unbiased,
        skip_nonfinite,
        inside,
    )
    if autograd.is_recording():
        X = _leaf(X)
        if may_add:
            gamma, beta = _leaf(gamma), _leaf(beta)
    Y = operator(nd)(X, gamma, beta, moving_mean, moving_var, options=options)[0]
    return activate(Y, None if inside else activation), moving_mean, moving_var


def options_of(
    mode,
    axis,
    eps,
    momentum,
    unbiased=False,
    skip_nonfinite=False,
    activation=None,
    num_dims=None,
    layer=0,
):
    """The options of the operator, as the one attribute that native.cc reads.

    layer : the number of one that takes the statistics of several workers, from 1; 0 for others
    """
    return (
        f"mode={mode} axis={axis} eps={float(eps)!r} momentum={float(momentum)!r} "
        f"unbiased={int(unbiased)} skip_nonfinite={int(skip_nonfinite)} "
        f"rank={num_dims or 0} {f'workers={layer} ' * bool(layer)}activation={activation or 'none'}"
    )


def _leaf(array):
    """The same array, through an operator that honours grad_req='add'. Ours is not told of it, and
    would overwrite.

    MXNet adds to a gradient only where a variable was marked. `reshape` shares the memory, so the
    forward pass costs nothing, and its own backward operator does the adding.
    """
    return array if array.grad is None else array.reshape((-2,))
