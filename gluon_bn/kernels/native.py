"""The `native` rung: the fused loops as an operator of MXNet's own engine, written in C++ (native.cc).

A Python function stands outside a hybridized network; an operator stands inside it, with no Python in the step and
the engine's own threads. native.cc is compiled the first time it is needed (ten seconds), kept in a cache, and loaded
with `mx.library.load`. Without a compiler the ladder has one rung less: `available()` says why.
"""
import hashlib
import itertools
import os
import platform
import shutil
import subprocess
import tempfile
import threading

import mxnet as mx
from mxnet import autograd

_SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "native.cc")
_ACTIVATIONS = {None: 0, "relu": 1, "sigmoid": 2}
_lock = threading.Lock()
_numbers = itertools.count()
_state = {"tried": False, "problem": None}


# ---- compiling and loading ------------------------------------------------------------------------------------------

def _compiler():
    """The command of a C++ compiler, as a list, or None."""
    for name in (os.environ.get("CXX"), "g++", "c++", "clang++"):
        words = name.split() if name else []
        if words and shutil.which(words[0]):
            return [shutil.which(words[0])] + words[1:]
    return None


def _flag_sets(version):
    """Compiler flags to try, the best first. Only GCC gets OpenMP: MXNet's threads are GCC's (libgomp), and a second
    pool, such as Clang's, would fight with the first over the same cores."""
    base = ["-std=c++17", "-O3", "-fPIC", "-shared", "-w"]
    if "clang" in version.lower():
        return [base + ["-fopenmp-simd"], base]
    threads = base + ["-fopenmp"]
    if platform.machine() in ("x86_64", "AMD64") and platform.system() == "Linux":
        return [threads + ["-DGLUON_BN_CLONES"], threads, base]
    return [threads, base]


def _cache_folders():
    """Where the compiled file may live, the best first."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    yield os.environ.get("GLUON_BN_CACHE") or os.path.join(home, "gluon_bn")
    yield os.path.join(tempfile.gettempdir(), "gluon_bn-%s" % getattr(os, "getuid", lambda: "user")())


def _usable(folder):
    """Make the folder; True if it is ours alone and takes files (what is loaded from it runs as us)."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        status = os.stat(folder)
        ours = not hasattr(os, "getuid") or status.st_uid == os.getuid()
        return ours and not status.st_mode & 0o002 and os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        return False


def _library():
    """Path of the compiled operator; compiles it if the cache has none. Raises RuntimeError with the reason."""
    package = os.path.dirname(mx.__file__)
    helper, header = os.path.join(package, "src", "lib_api.cc"), os.path.join(package, "include", "mxnet", "lib_api.h")
    if not (os.path.exists(helper) and os.path.exists(header)):
        raise RuntimeError("this MXNet came without lib_api.h and lib_api.cc")
    compiler = _compiler()
    version = ""
    if compiler:
        version = subprocess.run(compiler + ["--version"], capture_output=True, text=True, timeout=60).stdout
    key = hashlib.sha256(repr((version, _flag_sets(version), mx.__version__, platform.platform(terse=True),
                               platform.machine())).encode())
    for path in (_SOURCE, helper, header):
        with open(path, "rb") as f:
            key.update(f.read())
    name = "native-%s.so" % key.hexdigest()[:20]
    folders = list(_cache_folders())
    for folder in folders:  # a file that is there needs no permission to write
        if os.path.exists(os.path.join(folder, name)) and (folder == folders[0] or _usable(folder)):
            return os.path.abspath(os.path.join(folder, name))
    if not compiler:
        raise RuntimeError("no C++ compiler was found (set CXX, or install g++)")
    folder = next((f for f in folders if _usable(f)), None)
    if folder is None:
        raise RuntimeError("no folder to keep the compiled operator in (tried %s)" % ", ".join(folders))
    for flags in _flag_sets(version):
        handle, temporary = tempfile.mkstemp(suffix=".so", dir=folder)
        os.close(handle)
        command = compiler + flags + ["-I" + os.path.join(package, "include"), _SOURCE, helper, "-o", temporary]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
            if done.returncode == 0:
                target = os.path.abspath(os.path.join(folder, name))
                os.replace(temporary, target)  # whole or not at all, though two processes may race
                return target
        finally:
            if os.path.exists(temporary):
                os.remove(temporary)
    raise RuntimeError("%s failed: %s" % (compiler[0], (done.stderr.strip().splitlines() or ["no message"])[0]))


def _load():
    """Compile if needed and load, once a process. Returns None or the reason why not."""
    with _lock:
        if not _state["tried"]:
            try:
                if not hasattr(mx.nd, "gluon_bn_native"):
                    mx.library.load(_library(), verbose=False)
            except Exception as error:  # whatever it is: the ladder steps down and tells
                _state["problem"] = "the native kernel does not work here: %s" % (str(error).splitlines() or [error])[0]
            _state["tried"] = True
        return _state["problem"]


def _operator(module):
    problem = _load() if not _state["tried"] else _state["problem"]
    if problem:
        raise RuntimeError(problem)
    return module.gluon_bn_native


# ---- the interface that every rung offers ---------------------------------------------------------------------------

def available():
    """None if this kernel works here, else one sentence that says why not. The first call may compile."""
    try:
        return _load()
    except Exception as error:
        return str(error)


def supports(X, axis=1, weights=None):
    """Whether this kernel takes X: float32 or float64 in CPU memory, no sample weights."""
    return (weights is None and X.stype == "default" and X.context.device_type.startswith("cpu")
            and X.dtype in (mx.np.float32, mx.np.float64))


def _leaf(array):
    """The same array, through an operator that honours `grad_req='add'` (ours is not told, and would overwrite).

    MXNet adds to a gradient only where a variable was marked; `reshape` shares the memory, so the forward pass costs
    nothing, and its own backward operator does the adding.
    """
    return array if array.grad is None else array.reshape(array.shape)


def _options(mode, axis, eps, momentum=0.0, unbiased=False, activation=None):
    return f"{mode} {axis} {float(eps)!r} {float(momentum)!r} {int(unbiased)} {_ACTIVATIONS[activation]}"


def _call(X, gamma, beta, mean, var, options, may_add):
    if autograd.is_recording():
        X = _leaf(X)
        if may_add:
            gamma, beta = _leaf(gamma), _leaf(beta)
    return _operator(mx.nd)(X, gamma, beta, mean, var, options=options)[0]


def train(X, gamma, beta, eps, axis=1, activation=None, may_add=True):
    """Normalize by the batch's own statistics: `(Y, mean, var)`. Mean and biased variance are constants to autograd.

    `may_add=False` is a promise that neither gamma nor beta has `grad_req='add'`; it saves some time.
    """
    mean, var = (mx.nd.empty((X.shape[axis],), ctx=X.context, dtype=X.dtype) for _ in range(2))
    return _call(X, gamma, beta, mean, var, _options("train", axis, eps, 0, False, activation), may_add), mean, var


def train_layer(X, gamma, beta, running_mean, running_var, eps, momentum, axis=1, unbiased=False, activation=None,
                may_add=True):
    """`train` that also moves the running statistics, in the same operator. Returns Y."""
    options = _options("train", axis, eps, momentum, unbiased, activation)
    return _call(X, gamma, beta, running_mean, running_var, options, may_add)


def predict(X, gamma, beta, mean, var, eps, axis=1, activation=None, may_add=True):
    """Normalize by the given statistics, which are constants."""
    return _call(X, gamma, beta, mean, var, _options("predict", axis, eps, activation=activation), may_add)


def _training_flag(X, running_mean, running_var):
    """A symbol whose last number is 2**66 in training and another one in prediction, however the network was traced.

    An operator of a library is not told the mode. Gluon's own BatchNorm is: a batch of one is its own mean, so in
    training the output is beta, here 2**66, exactly; in prediction it is (2**66 - mean) / sqrt(variance) * 2**66 more.
    BatchNorm insists on variables for its statistics; any will do, and it moves them in a backward pass only, which
    this node never has. (`ones_like` of the mean would leave its deferred shape unknown: BatchNorm erases it while it
    does not know that of its data.) Nothing is random here. One such node serves a whole network: our operator hands
    the news on, as the last number of its statistics.
    """
    nodes = X.get_internals()
    names = nodes.list_outputs()
    for i in reversed(range(len(names))):
        if names[i].endswith("gluon_bn_native_output1"):
            return nodes[i]
    big = mx.sym.ones_like(running_var) * 2.0 ** 66
    return mx.sym.BatchNorm(big, big, big, running_mean, running_mean, axis=0, fix_gamma=False, eps=1e-3)[0]


def symbol(X, gamma, beta, running_mean, running_var, *, eps, momentum, axis, unbiased=False, use_global_stats=False,
           activation=None):
    """The layer as a node of a hybridized network; it moves the running statistics itself, in training's forward pass.

    `identity` stands before X, gamma and beta so that `grad_req='add'`, and a gradient that MXNet adds in place, are
    honoured by an operator that is told of them; the one before X costs nothing, it works in place. Each gets a number
    of its own, or MXNet would merge those of several layers into one (its common expressions), and ours would meet.
    """
    own = {"__gluon_bn__": str(next(_numbers))}
    inputs = [mx.sym.identity(a, attr=own) for a in (X, gamma, beta)] + [running_mean, running_var]
    inputs += [] if use_global_stats else [_training_flag(X, running_mean, running_var)]
    options = _options("global" if use_global_stats else "graph", axis, eps, momentum, unbiased, activation)
    name = own["__gluon_bn__"] + ("_gluon_bn_global" if use_global_stats else "_gluon_bn_native")  # see _training_flag
    return _operator(mx.sym)(*inputs, options=options, name=name)[0]
