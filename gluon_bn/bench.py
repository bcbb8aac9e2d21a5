"""The speed contests: every kernel, Gluon's operator and PyTorch's layer, side by side.

Timings are taken in one run, the contestants taking turns, and given as medians; what counts are
ratios within a run, for these machines have fast and slow minutes. Each contestant gets the same
threads and the same memory allocator (`gluon_bn.runtime.configure`). PyTorch takes part where it is
installed (`pip install torch`); nothing else needs it.

`run` measures, `gluon-bn bench` calls it, `benchmarks/results/` keeps what the README quotes.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from math import exp, log, prod
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon, nd

from gluon_bn import blocks, kernels, plotting, recipe, runtime
from gluon_bn.inference import optimize
from gluon_bn.models import MODELS
from gluon_bn.training import Run, write_figure, write_json

SHAPES = [
    (256, 120),
    (256, 6, 24, 24),
    (256, 16, 8, 8),
    (128, 64, 24, 24),
    (32, 64, 24, 24),
    (64, 256, 12, 12),
    (128, 512, 3, 3),
]
NETWORKS = {"lenet": (256, 1, 28, 28), "resnet18": (64, 1, 28, 28), "densenet": (32, 1, 28, 28)}
GROWTH = [10**n for n in range(3, 9)]
PARTS = ("accuracy", "memory", "first_call", "layer", "network", "growth")
REFERENCE = "gluon"
STATUS = Path("/proc/self/status")


def run(parts=PARTS, threads=(1, 2), quick=False, say=print):
    """Measure and return everything, a dict of plain values ready for JSON."""
    repeats = 5 if quick else 25
    chosen = "".join(f" --only {p}" for p in parts) if tuple(parts) != PARTS else ""
    result = {"command": "gluon-bn bench" + " --quick" * quick + chosen, "quick": quick}
    for part in parts:
        if part == "memory" and not STATUS.exists():
            say("memory is left out: only Linux says, in /proc, how much a process had at most")
        elif part in ("layer", "network", "growth"):
            result[part] = {}
            for n in threads:
                say(f"{part}, {n} thread{'s' * (n > 1)} ...")
                result[part][str(n)] = in_a_process(part, n, repeats, say)
        else:
            say(f"{part} ...")
            result[part] = {"first_call": first_call, "accuracy": accuracy, "memory": memory}[
                part
            ]()
    result["settings"] = {**runtime.describe(), "threads": list(threads), "repeats": repeats}
    result["versions"] = {**runtime.versions(), "torch": torch_version()}
    return result


def in_a_process(part, threads, repeats, say):
    """A contest in a process of its own: one process never changes its number of threads, for
    oneDNN keeps what it prepared for the first number, and that is too small for a larger one."""
    code = (
        f"import json; from gluon_bn import bench, runtime; runtime.configure({threads}); "
        f"found = bench.{part}({threads}, {repeats}, lambda line: print(line, flush=True)); "
        "print(json.dumps(found))"
    )
    # close_fds=False lets Python 3.9 start it without a fork, which MXNet may not survive.
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, close_fds=False
    ) as child:
        last = ""
        for line in child.stdout:
            if last:
                say(last.rstrip())
            last = line
    if child.returncode:
        raise RuntimeError(
            f"the {part} contest with {threads} threads ended with exit code {child.returncode}"
        )
    return json.loads(last)


def printed_by(code, env=None):
    """The numbers that a program prints, run in a process of its own."""
    child = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        capture_output=True,
        text=True,
        check=True,
        close_fds=False,
    )  # no fork, as above
    return [float(word) for word in child.stdout.split()]


def take_turns(contestants, repeats, warm_up=2, clock=time.perf_counter):
    """Median seconds of each function in a dict: one round after another, all in each round.

    clock : `time.process_time` leaves out what other programs take, but adds up all threads: it is
    for one thread on a busy machine.
    """
    seconds = {name: [] for name in contestants}
    for i in range(warm_up + repeats):
        for name, function in contestants.items():
            start = clock()
            function()
            nd.waitall()
            if i >= warm_up:
                seconds[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def geometric_mean(values):
    return exp(sum(map(log, values)) / len(values))


# ------------------------------------------------------------------------------------ one layer


def layer(threads, repeats, say):
    """Milliseconds of a training step and of a prediction of one layer, by shape and contestant."""
    rows = []
    for shape in SHAPES:
        for mode, contestants in layer_contestants(shape, threads).items():
            seconds = take_turns(contestants, repeats)
            rows.append(
                {
                    "shape": list(shape),
                    "mode": mode,
                    "ms": {name: 1e3 * s for name, s in seconds.items()},
                }
            )
            say(
                f"  {shape} {mode}: "
                + ", ".join(f"{n} {s / seconds[REFERENCE]:.2f}" for n, s in seconds.items())
            )
    ratios = {}
    for mode in ("train", "predict"):
        chosen = [row["ms"] for row in rows if row["mode"] == mode]
        ratios[mode] = {
            name: geometric_mean([ms[name] / ms[REFERENCE] for ms in chosen]) for name in chosen[0]
        }
    return {"rows": rows, "ratio_to_gluon": ratios}


def layer_contestants(shape, threads):
    """By mode and name, functions that do one step of one layer on arrays of this shape."""
    X, dY = (nd.random.normal(shape=shape) for _ in range(2))
    train, predict = {}, {}
    for name in (n for n in kernels.available() if n != "gluon"):
        train[name], predict[name] = gluon_steps(blocks.BatchNorm(shape[1], kernel=name), X, dY)
    hybridized = gluon.nn.HybridSequential()
    hybridized.add(gluon.nn.BatchNorm(in_channels=shape[1]))
    hybridized.hybridize(static_alloc=True, static_shape=True)
    train[REFERENCE], predict[REFERENCE] = gluon_steps(hybridized, X, dY)
    if torch_version():
        train["pytorch"], predict["pytorch"] = torch_steps(shape, threads)
    # The bounds. A training step cannot do with less than reading X and writing Y, then reading X
    # and dY and writing dX: five times the array, two and a half copies. Where the array does not
    # fit the caches, the statistics need a pass of their own in each direction: eight times.
    source, target = np.ones(shape, "float32"), np.empty(shape, "float32")

    def copies(n):
        def copy():
            for _ in range(n):
                np.copyto(target, source)

        return copy

    train["4 copies"], predict["1 copy"] = copies(4), copies(1)
    return {"train": train, "predict": predict}


def gluon_steps(net, X, dY):
    """A training step and a prediction; dX is computed, as inside a network."""
    net.initialize()
    X = X.copy()
    X.attach_grad()

    def train():
        with autograd.record():
            Y = net(X)
        Y.backward(dY)

    return train, lambda: net(X)


def torch_version():
    try:
        import torch
    except ImportError:
        return None
    return torch.__version__


def torch_steps(shape, threads):
    import torch

    torch.set_num_threads(threads)
    kind = {2: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}[len(shape)]
    net, still = kind(shape[1]), kind(shape[1]).eval()
    X = torch.randn(shape, requires_grad=True)
    dY = torch.randn(shape)

    def train():
        X.grad = None
        net(X).backward(dY)

    def predict():
        with torch.no_grad():
            still(X)

    return train, predict


# ------------------------------------------------------------------------------------- networks


def network(threads, repeats, say):
    """Images a second of whole networks, in training and in prediction."""
    result = {}
    for model, shape in NETWORKS.items():
        if model not in MODELS:
            continue
        contestants = network_contestants(model, shape, threads)
        result[model] = {"batch": shape[0]}
        for mode in ("train", "predict"):
            taking_part = {n: f[mode] for n, f in contestants.items() if mode in f}
            slow = {n: f for n, f in taking_part.items() if n == "textbook"}
            fast = {n: f for n, f in taking_part.items() if n != "textbook"}
            seconds = take_turns(fast, repeats if model == "lenet" else max(3, repeats // 3))
            if slow:
                seconds.update(take_turns(slow, max(2, repeats // 8), warm_up=1))
            result[model][mode] = {n: shape[0] / s for n, s in seconds.items()}
            reference = result[model][mode]["gluon hybridized"]
            say(
                f"  {model} {mode}: "
                + ", ".join(
                    f"{n} {v:.0f}/s ({v / reference:.2f})" for n, v in result[model][mode].items()
                )
            )
    return result


def network_contestants(model, shape, threads):
    X = nd.random.uniform(shape=shape)
    y = nd.array(np.arange(shape[0]) % 10)
    found = {}
    norms = ["none", "auto"]
    if model == "lenet":  # the larger networks would take minutes a round
        norms += [n for n in kernels.available() if n != "gluon"]
    for norm in norms:
        found[norm] = network_steps(MODELS[model](norm=norm), X, y, hybridize=True)
    found["gluon hybridized"] = network_steps(MODELS[model](norm="gluon"), X, y, hybridize=True)
    found["gluon imperative"] = network_steps(MODELS[model](norm="gluon"), X, y, hybridize=False)
    trained = MODELS[model](norm="auto")
    network_steps(trained, X, y, hybridize=True)
    optimized = optimize(trained, X, say=lambda line: None)
    found["auto, optimized"] = {"predict": lambda: optimized(X)}
    if torch_version() and model == "lenet":
        found["pytorch eager"] = torch_lenet_steps(shape, threads)
    return found


def network_steps(net, X, y, hybridize):
    """A training step and a prediction of a whole network, by SGD on one batch."""
    net.initialize(mx.init.Xavier())
    if hybridize:
        net.hybridize(static_alloc=True, static_shape=True)
    net(X)
    trainer = recipe.trainer(net, "sgd", {"learning_rate": 0.01})
    run = Run(net, trainer, gluon.loss.SoftmaxCrossEntropyLoss())
    return {"train": lambda: run.step(X, y), "predict": lambda: net(X)}


def torch_lenet_steps(shape, threads):
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 5),
        nn.BatchNorm2d(6),
        nn.Sigmoid(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.BatchNorm2d(16),
        nn.Sigmoid(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 120),
        nn.BatchNorm1d(120),
        nn.Sigmoid(),
        nn.Linear(120, 84),
        nn.BatchNorm1d(84),
        nn.Sigmoid(),
        nn.Linear(84, 10),
    )
    X, y = torch.rand(shape), torch.arange(shape[0]) % 10
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    cross_entropy = nn.CrossEntropyLoss()

    def train():
        net.train()
        optimizer.zero_grad()
        cross_entropy(net(X), y).backward()
        optimizer.step()

    def predict():
        net.eval()
        with torch.no_grad():
            net(X)

    return {"train": train, "predict": predict}


# --------------------------------------------------------------------------------------- growth


def growth(threads, repeats, say):
    """Milliseconds of a training step against the number of elements, 64 channels of 24 x 24."""
    result = {"elements": [], "ms": {}}
    for elements in GROWTH:
        side = 24 if elements >= 10**5 else 4
        shape = (max(1, round(elements / (64 * side * side))), 64, side, side)
        contestants = layer_contestants(shape, threads)["train"]
        seconds = take_turns(contestants, max(3, min(repeats, 10**8 // prod(shape) * 2)), 1)
        result["elements"].append(prod(shape))
        for name, s in seconds.items():
            result["ms"].setdefault(name, []).append(1e3 * s)
        say(
            f"  {prod(shape):.0e} elements: "
            + ", ".join(f"{n} {1e3 * s:.2f} ms" for n, s in seconds.items())
        )
    return result


# ----------------------------------------------------------------------------------- first call


STEP = """
import time, sys
start = time.perf_counter()
import gluon_bn
imported = time.perf_counter()
from mxnet import autograd, nd
layer = gluon_bn.BatchNorm(8, kernel={kernel!r})
layer.initialize()
X = nd.ones((4, 8, 16, 16))
X.attach_grad()
nd.waitall()
before = time.perf_counter()
with autograd.record():
    Y = layer(X)
Y.backward()
nd.waitall()
print(imported - start, time.perf_counter() - before)
"""


def first_call():
    """Seconds to import the package, and for the first step, with a cold and with a warm cache."""
    found = {}
    for kernel in (n for n in kernels.available() if n != "gluon"):
        with tempfile.TemporaryDirectory() as cache:
            caches = {**os.environ, "GLUON_BN_CACHE": cache, "NUMBA_CACHE_DIR": cache}
            cold, warm = (printed_by(STEP.format(kernel=kernel), caches) for _ in range(2))
        found[kernel] = {"import": warm[0], "cold": cold[1], "warm": warm[1]}
    return found


# ------------------------------------------------------------------------------------- accuracy


def accuracy(shape=(128, 16, 24, 24), offsets=(0, 1e2, 1e4)):
    """Largest error of Y and of the gradient against float64, for inputs of `offset` +- 1."""
    random = np.random.RandomState(0)
    noise, dy = (random.normal(size=shape).astype("float32") for _ in range(2))
    found = {}
    for offset in offsets:
        x = noise + np.float32(offset)
        y, dx = float64_reference(x, dy)
        for name in kernels.available():
            X = nd.array(x)
            X.attach_grad()
            layer = blocks.BatchNorm(shape[1], kernel=name)
            layer.initialize()
            with autograd.record():
                Y = layer(X)
            Y.backward(nd.array(dy))
            found.setdefault(name, {})[f"{offset:g}"] = {
                "Y": float(abs(Y.asnumpy() - y).max()),
                "dX": float(abs(X.grad.asnumpy() - dx).max()),
            }
    return {"shape": list(shape), "seed": 0, "largest_error": found}


def float64_reference(x, dy, eps=1e-5):
    """Batch norm and its gradient with respect to x in NumPy float64, gamma 1 and beta 0."""
    x, dy = x.astype("float64"), dy.astype("float64")
    axes = (0, 2, 3)
    scale = 1 / np.sqrt(x.var(axes, keepdims=True) + eps)
    y = (x - x.mean(axes, keepdims=True)) * scale
    dx = scale * (dy - dy.mean(axes, keepdims=True) - y * (dy * y).mean(axes, keepdims=True))
    return y, dx


# --------------------------------------------------------------------------------------- memory


PEAK = """
from gluon_bn import bench
print(bench.peak_of_a_step({name!r}))
"""


def memory():
    """Peak memory of a training step on (128, 64, 24, 24), in units of the size of X.

    A process for each contestant; what X, dX and dY need themselves is not counted.
    """
    names = [n for n in kernels.available() if n != "gluon"] + [REFERENCE]
    return {name: printed_by(PEAK.format(name=name))[0] for name in names}


def peak_of_a_step(name, shape=(128, 64, 24, 24)):
    """Peak resident memory of three steps above what was there before, as multiples of X."""
    net = gluon.nn.BatchNorm() if name == REFERENCE else blocks.BatchNorm(kernel=name)
    X, dY = (nd.random.normal(shape=shape) for _ in range(2))
    X.attach_grad()
    net.initialize()

    def step(X, dY):
        with autograd.record():
            Y = net(X * 1)  # an intermediate, as inside a network
        Y.backward(dY)
        nd.waitall()

    small = nd.ones((2, *shape[1:]))
    small.attach_grad()
    step(small, nd.ones(small.shape))  # compile and warm up
    before = peak_memory()
    for _ in range(3):
        step(X, dY)
    return (peak_memory() - before) / (4 * prod(shape))


def peak_memory():
    """Bytes this process has had in memory at most. From /proc, so Linux only: what getrusage says
    is inherited from the program that started this one."""
    lines = STATUS.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


# --------------------------------------------------------------------------------------- report


def write(result, folder):
    """`bench.json` and `bench.png` in `folder`; returns their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "bench.json", result)
    write_figure(folder / "bench.png", plotting.plot_bench(result))
    return folder / "bench.json", folder / "bench.png"
