"""The fourth rung: the fused loops as an operator of MXNet's own engine, in C++ (native.cc).

A Python function stands outside a hybridized network; an operator stands inside it, with no Python
in the step and the engine's own threads. native.cc is compiled the first time it is needed (ten
seconds), kept in a cache, and loaded into MXNet. Without a compiler the ladder has one
rung less, and `available()` says why.
"""

import ctypes
import hashlib
import itertools
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

from gluon_bn.arguments import ONE_VALUE

_SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "native.cc")
ACTIVATIONS = {None: 0, "relu": 1, "sigmoid": 2}
_lock = threading.Lock()
_numbers = itertools.count()
_state = {"tried": False, "problem": None}


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
    return [os.environ.get("GLUON_BN_CACHE") or os.path.join(home, "gluon_bn"),
            os.path.join(tempfile.gettempdir(), f"gluon_bn-{user}")]


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
        raise RuntimeError("no folder to keep the compiled operator in (tried "
                           f"{' and '.join(folders)}; GLUON_BN_CACHE names another)")
    return _compile(compiler, _flag_sets(version), include, [_SOURCE, helper],
                    os.path.abspath(os.path.join(folder, name)))


def _name(version, *files):
    """A name of its own for each source, compiler, MXNet and machine."""
    key = hashlib.sha256(repr((version, _flag_sets(version), mx.__version__, platform.machine(),
                               platform.platform(terse=True))).encode())
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
                    ctypes.CDLL(path).gluon_bn_on_single(_warn_of_single)
            except Exception as error:  # whatever it is: the ladder steps down and tells
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
    warnings.warn(f"a BatchNorm of {channels} channels, in a hybridized network, was given one "
                  f"value per channel in training: {ONE_VALUE}", stacklevel=1)


def _operator(module):
    problem = _state["problem"] if _state["tried"] else _load()
    if problem:
        raise RuntimeError(f"the kernel 'native' does not work here: {problem}")
    return module.gluon_bn_native


# --------------------------------------------------------------- the interface that every rung has


def available():
    """None if this kernel works here, else a sentence that says why not. The first call may
    compile."""
    return _load()


def supports(X):
    return (X.stype == "default" and X.context.device_type.startswith("cpu")
            and X.dtype in (np.float32, np.float64))


def train(X, gamma, beta, eps, axis=1, activation=None):
    """Normalize by this batch. Returns Y, and the batch's mean and biased variance, (C,)."""
    mean, var = (nd.empty(X.shape[axis], ctx=X.context, dtype=X.dtype) for _ in range(2))
    options = _options("train", axis, eps, activation=activation)  # a momentum of 0: the batch's
    return _call(X, gamma, beta, mean, var, options), mean, var


def train_layer(X, gamma, beta, running_mean, running_var, eps, momentum, axis=1, unbiased=False,
                skip_nonfinite=False, activation=None, may_add=True):
    """`train` that also moves the running statistics, in the same operator. Returns Y.

    `may_add=False` is a promise that neither gamma nor beta has grad_req='add'; it saves some time.
    """
    options = _options("train", axis, eps, momentum, unbiased, skip_nonfinite, activation)
    return _call(X, gamma, beta, running_mean, running_var, options, may_add)


def predict(X, gamma, beta, mean, var, eps, axis=1, activation=None):
    """Normalize by statistics from elsewhere, (C,)."""
    return _call(X, gamma, beta, mean, var, _options("predict", axis, eps, activation=activation))


def _options(mode, axis, eps, momentum=0.0, unbiased=False, skip_nonfinite=False, activation=None,
             num_dims=None):
    return (f"{mode} {axis} {float(eps)!r} {float(momentum)!r} {int(unbiased)} "
            f"{int(skip_nonfinite)} {num_dims or 0} {ACTIVATIONS[activation]}")


def _call(X, gamma, beta, mean, var, options, may_add=True):
    if autograd.is_recording():
        X = _leaf(X)
        if may_add:
            gamma, beta = _leaf(gamma), _leaf(beta)
    return _operator(nd)(X, gamma, beta, mean, var, options=options)[0]


def _leaf(array):
    """The same array, through an operator that honours grad_req='add'. Ours is not told of it, and
    would overwrite.

    MXNet adds to a gradient only where a variable was marked. `reshape` shares the memory, so the
    forward pass costs nothing, and its own backward operator does the adding.
    """
    return array if array.grad is None else array.reshape(array.shape)


# -------------------------------------------------------------------------- in a hybridized network


def symbol(X, gamma, beta, running_mean, running_var, *, eps, momentum, axis, unbiased=False,
           center=True, scale=True, use_global_stats=False, skip_nonfinite=True, activation=None,
           num_dims=None, vectors=False):
    """The layer as a node of a hybridized network. It moves the running statistics itself, in
    training's forward pass.

    An operator stands before X, gamma and beta so that grad_req='add', and a gradient that MXNet
    adds in place, are honoured by one that is told of them. Before X it is a `reshape` to the same
    shape: it brings X from a convolution's own layout into the plain one, once for the forward and
    the backward pass, and costs nothing where X is plain and used nowhere else. Each gets a number
    of its own, or MXNet would merge those of several layers into one (its common expressions), and
    ours would meet.

    `vectors` promises that gamma and beta are (C,). They become (1, C): MXNet's print_summary reads
    the second axis of whatever enters an operator.
    """
    number = str(next(_numbers))
    own = {"__gluon_bn__": number}
    X = mx.sym.reshape(X, shape=(-2,), attr=own)
    gamma, beta = (mx.sym.reshape(a, shape=(1, -1), attr=own) if vectors
                   else mx.sym.identity(a, attr=own) for a in (gamma, beta))
    gamma = gamma if scale else mx.sym.ones_like(gamma)
    beta = beta if center else mx.sym.zeros_like(beta)
    inputs = [X, gamma, beta, running_mean, running_var]
    if use_global_stats:
        mode, name = "global", number + "_gluon_bn_global"
    else:
        mode, name = "graph", number + _NAME
        inputs.append(_training_flag(X, running_mean, running_var))
    options = _options(mode, axis, eps, momentum, unbiased, skip_nonfinite, activation, num_dims)
    return _operator(mx.sym)(*inputs, options=options, name=name)[0]


def with_activation(Y, activation):
    """The symbol `Y` with an activation, in the same pass over memory if our operator made it and
    knows the activation; else None.

    The node without takes no part in the graph any more, so nobody else may have used it: its
    running statistics would move twice.
    """
    options = Y.attr("options") or ""
    plain = options.endswith(" 0") and Y.name.endswith(_NAME)
    if not plain or activation not in ACTIVATIONS:
        return None
    return _operator(mx.sym)(*Y.get_children(), name=Y.name,
                             options=f"{options[:-1]}{ACTIVATIONS[activation]}")[0]


_NAME = "_gluon_bn_native"  # how the name of a node ends that knows the mode


def _training_flag(X, running_mean, running_var):
    """A symbol whose last number is 2**66 in training and another one in prediction, however the
    network was traced.

    An operator of a library is not told the mode. Gluon's own BatchNorm is: a batch of one is its
    own mean, so in training the output is beta, here 2**66, exactly; in prediction it is
    (2**66 - mean) / sqrt(variance) * 2**66 more. BatchNorm insists on variables for its statistics;
    any will do, and it moves them in a backward pass only, which this node never has. (`ones_like`
    of the mean would leave its deferred shape unknown: BatchNorm erases it while it does not know
    that of its data.) Nothing is random here. One such node serves a whole network: our operator
    hands the news on, as the last number of its statistics.
    """
    nodes = X.get_internals()
    names = nodes.list_outputs()
    for i in reversed(range(len(names))):
        if names[i].endswith(_NAME + "_output1"):
            return nodes[i]
    big = mx.sym.ones_like(mx.sym.reshape(running_var, shape=(1, -1))) * 2.0 ** 66
    gamma, beta = mx.sym.SliceChannel(mx.sym.concat(big, big, dim=0), num_outputs=2, axis=0,
                                      squeeze_axis=True)
    return mx.sym.BatchNorm(mx.sym.reshape(big, shape=(1, -1, 1)), gamma, beta, running_mean,
                            running_mean, axis=1, fix_gamma=False, eps=1e-3)[0]
