"""What a kernel costs besides time in the long run: its first call, its errors, its memory."""

import os
import tempfile
from math import prod
from pathlib import Path

import numpy as np
from mxnet import autograd, gluon, nd

from gluon_bn import blocks, kernels
from gluon_bn.bench.timing import printed_by

STATUS = Path("/proc/self/status")

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


PEAK = """
from gluon_bn.bench import costs
print(costs.peak_of_a_step({name!r}))
"""


def memory():
    """Peak memory of a training step on (128, 64, 24, 24), in units of the size of X.

    A process for each contestant; what X, dX and dY need themselves is not counted.
    """
    names = [n for n in kernels.available() if n != "gluon"] + ["gluon"]
    return {name: printed_by(PEAK.format(name=name))[0] for name in names}


def peak_of_a_step(name, shape=(128, 64, 24, 24)):
    """Peak resident memory of three steps above what was there before, as multiples of X."""
    net = gluon.nn.BatchNorm() if name == "gluon" else blocks.BatchNorm(kernel=name)
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
