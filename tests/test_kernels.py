"""Every kernel: numbers, gradients as they were asked for, no race, and doing without.

The reference is float64 NumPy, written from the equations; it shares no code with the package.
"""

import gc
import os
import shutil
import subprocess
import sys
import threading
import time
import weakref
from itertools import product
from pathlib import Path

import mxnet as mx
import numpy as np
import one_call
import pytest
from mxnet import autograd, gluon, nd
from mxnet.gluon import nn

from gluon_bn import BatchNorm, kernels, runtime
from gluon_bn.kernels import function

EPS = 1e-5
KERNELS = kernels.available()
OURS = [name for name in KERNELS if name != "gluon"]


def reference(x, gamma, beta, dy, axis=1, given=None):
    """Y, mean, var, dX, dgamma, dbeta. gamma and beta are (C,), or (N, C)."""
    x, gamma, beta, dy = (
        np.asarray(a, np.promote_types(a.dtype, "float64")) for a in (x, gamma, beta, dy)
    )
    axis %= x.ndim
    others = tuple(a for a in range(x.ndim) if a != axis)
    lay = [1] * x.ndim
    lay[axis] = -1
    rows = lay if gamma.ndim == 1 else [x.shape[0], *lay[1:]]
    mean, var = (x.mean(others), x.var(others)) if given is None else given
    stddev = np.sqrt(var + EPS).reshape(lay)
    x_hat = (x - mean.reshape(lay)) / stddev
    dx_hat = dy * gamma.reshape(rows)
    dx = dx_hat / stddev
    if given is None:
        dx -= (
            dx_hat.mean(others, keepdims=True)
            + x_hat * (dx_hat * x_hat).mean(others, keepdims=True)
        ) / stddev
    summed = others if gamma.ndim == 1 else tuple(a for a in others if a)
    return (
        x_hat * gamma.reshape(rows) + beta.reshape(rows),
        mean,
        var,
        dx,
        (dy * x_hat).sum(summed),
        dy.sum(summed),
    )


def draw(rng, shape, axis=1, dtype="float32", conditional=False, offset=1.0):
    C = shape[axis]
    size = (shape[0], C) if conditional else (C,)
    arrays = (
        rng.randn(*shape) * 2 + offset,
        rng.rand(*size) + 0.5,
        rng.randn(*size),
        rng.randn(*shape),
    )
    return [nd.array(a, dtype=dtype) for a in arrays]


def numpy(arrays):
    return [a.asnumpy() for a in arrays]


def error(got, want):
    got = got.asnumpy() if isinstance(got, nd.NDArray) else got
    assert got.shape == want.shape
    return np.abs(got - want).max() / (1 + np.abs(want).max())


def step(kernel, X, gamma, beta, dY, axis=1, leaves=(0, 1, 2)):
    """One step of a layer; X, mean, var, and the gradients."""
    for i in leaves:
        (X, gamma, beta)[i].attach_grad()
    with autograd.record():
        Y, mean, var = one_call.train(kernel, X, gamma, beta, EPS, axis)
    Y.backward(dY)
    return Y, mean, var, X.grad, gamma.grad, beta.grad


# ----------------------------------------------------------------------------------------- numbers

SHAPES = [
    ((2, 3), 1),
    ((7, 13), 1),
    ((300, 120), 1),
    ((257, 131), 1),
    ((3, 700), 1),  # matrices
    ((8, 6, 50), 1),
    ((5, 7, 6), 2),
    ((6, 5, 3), -1),
    ((8, 6, 4, 5), 1),
    ((64, 16, 6, 6), 1),
    ((40, 8, 12, 12), 1),
    ((7, 13, 11, 37), 1),
    ((4, 5, 6, 7), -1),
    ((16, 10, 16, 24), -1),
    ((5, 4, 3, 160), 2),
    ((1, 2, 40, 40), 1),
    ((2, 3, 4, 5, 6), 1),
    ((2, 3, 4, 5, 6), 2),
    ((3, 11, 2, 3, 200), 1),
    ((3, 2, 3, 2, 5), -1),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "name, threads",
    [(name, threads) for name in KERNELS for threads in ((1, 2, 3) if name == "fused" else (1,))],
)
def test_numbers(name, dtype, threads, monkeypatch):
    """Batch statistics and given ones, one gamma or one for each example, every way to cut X."""
    monkeypatch.setattr(runtime, "_configured", threads)  # what `fused` asks for its loops
    limit = {"float32": 1e-4 if name == "gluon" else 4e-6, "float64": 1e-11}[dtype]
    kernel, rng = kernels.get(name), np.random.RandomState(0)
    for (shape, axis), conditional in product(SHAPES, (False, True)):
        axis %= len(shape)  # as the Blocks do
        X, gamma, beta, dY = draw(rng, shape, axis, dtype, conditional)
        assert kernel.supports(X)
        want = reference(*numpy((X, gamma, beta, dY)), axis)
        got = step(kernel, X, gamma, beta, dY, axis)
        for what, g, w in zip(("Y", "mean", "var", "dX", "dgamma", "dbeta"), got, want):
            assert g.dtype == np.dtype(dtype) and error(g, w) < limit, (shape, axis, what)
        given = [
            nd.array(a, dtype=dtype) for a in (rng.randn(shape[axis]), rng.rand(shape[axis]) + 0.5)
        ]
        with autograd.record(train_mode=False):
            Y = one_call.predict(kernel, X, gamma, beta, *given, EPS, axis)
        Y.backward(dY, train_mode=False)
        want = reference(*numpy((X, gamma, beta, dY)), axis, numpy(given))
        for g, w in zip((Y, X.grad, gamma.grad, beta.grad), (want[0], *want[3:])):
            assert error(g, w) < limit, (shape, axis, "predict")


@pytest.mark.parametrize(
    "shape, axis", [((64, 4, 8, 8), 1), ((32, 3, 16, 16), 1), ((4500, 5), 1), ((8, 24, 24, 3), -1)]
)
@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4])
def test_an_offset_costs_no_accuracy(offset, shape, axis):
    errors = {}
    for name in KERNELS:
        X, gamma, beta, dY = draw(np.random.RandomState(1), shape, axis, offset=offset)
        want = reference(*numpy((X, gamma, beta, dY)), axis)
        got = step(kernels.get(name), X, gamma, beta, dY, axis % len(shape))
        errors[name] = max(np.abs(got[i].asnumpy() - want[i]).max() for i in (0, 3))
    for name in OURS:
        assert errors[name] <= max(1.1 * errors["textbook"], 4e-6), errors
        # The mean, rounded to float32, is the textbook's whole error here.
        factor = 10 if name == "textbook" else 500
        assert offset < 1e4 or errors[name] * factor < errors["gluon"], errors


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of the overflow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("name", OURS)
def test_a_variance_that_overflows(name, conditional, dtype):
    """A channel of large finite numbers is right or NaN, the gradient too, and never beta; `fused`
    holds the variance in float64 and is right."""
    kernel, channel = kernels.get(name), np.array([-1.0, 0.0, 2.0, 3.0])
    sizes = {
        "float32": (1e17, 5e18, 2e19, 1e20, 1e25, 1e36, 1e38),
        "float64": (1e150, 1e154, 1e200, 1e308),
    }[dtype]  # of the largest numbers
    for (shape, axis), size, order in product(
        [((4, 3), 1), ((4, 3, 12, 12), 1), ((4, 2, 5, 3), 3)], sizes, (1, -1)
    ):
        X, gamma, beta, dY = draw(np.random.RandomState(0), shape, axis, dtype, conditional)
        x = np.moveaxis(X.asnumpy(), axis, -1)
        x[..., 1] = (channel * (size / 3))[::order].reshape((4,) + (1,) * (x.ndim - 2))
        X = nd.array(np.moveaxis(x, -1, axis), dtype=dtype)
        Y, _, _, dX, *_ = step(kernel, X, gamma, beta, dY, axis)
        want = reference(*(a.asnumpy().astype("longdouble") for a in (X, gamma, beta, dY)), axis)
        for got, w in ((Y, want[0]), (dX, want[3])):
            got, w = np.moveaxis(got.asnumpy(), axis, -1), np.moveaxis(w, axis, -1)
            assert error(got[..., [0, 2]], w[..., [0, 2]]) < 4e-6
            right = np.abs(got - w)[..., 1].max() <= 4e-6 * np.abs(w[..., 1]).max()
            assert right or np.isnan(got[..., 1]).all() and size >= 5e18, (size, order)
            assert right or name != "fused" or dtype == "float64", (size, order)


@pytest.mark.parametrize("name", OURS)
def test_an_infinite_running_variance_predicts_nan(name):
    X, gamma, beta, _ = draw(np.random.RandomState(0), (4, 3))
    var = nd.array([1, np.inf, 1])
    Y = one_call.predict(kernels.get(name), X, gamma, beta, nd.zeros(3), var, EPS)
    assert (np.isnan(Y.asnumpy()) == [False, True, False]).all()


# ------------------------------------------------------------------------ gradients, as asked for


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("conditional", [False, True])
def test_what_is_asked_of_each_gradient(name, conditional):
    """write, add or nothing, for X, gamma and beta, in all 27 combinations; two steps of each."""
    kernel = kernels.get(name)
    arrays = draw(np.random.RandomState(2), (8, 6, 5, 7), conditional=conditional)
    dY = arrays.pop()
    want = reference(*numpy((*arrays, dY)))[3:]
    for asked in product(("write", "add", "null"), repeat=3):
        leaves = [a.copy() for a in arrays]
        for leaf, request in zip(leaves, asked):
            if request != "null":
                leaf.attach_grad(request)
        for _ in range(2):
            with autograd.record():
                Y = one_call.train(kernel, *leaves, EPS)[0] * 1
            if asked != ("null",) * 3:
                Y.backward(dY)
        for leaf, request, w in zip(leaves, asked, want):
            if request != "null":
                assert error(leaf.grad, w * (1 + (request == "add"))) < 1e-5, asked


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("shape", [(6, 5, 4, 4), (16, 8, 16, 16)])
def test_two_backward_passes(name, shape):
    X, gamma, beta, dY = draw(np.random.RandomState(3), shape)
    for a in (X, gamma, beta):
        a.attach_grad()
    with autograd.record():
        Y = one_call.train(kernels.get(name), X, gamma, beta, EPS)[0]
    for factor, more in ((1, True), (-2, False)):  # linear in dY
        Y.backward(dY * factor, retain_graph=more)
        for a, w in zip((X, gamma, beta), reference(*numpy((X, gamma, beta, dY)))[3:]):
            assert error(a.grad, factor * w) < 1e-5


# ------------------------------------------------------------------------------------ the engine


@pytest.mark.parametrize("name", KERNELS)
def test_x_and_gamma_may_be_overwritten_after_backward(name):
    kernel, rng = kernels.get(name), np.random.RandomState(4)
    X, gamma, beta, _ = draw(rng, (16, 8, 16, 16))
    X.attach_grad()
    got, want = [], []
    for _ in range(12):
        new, new_gamma, _, dY = draw(rng, X.shape)
        want.append(reference(*numpy((new, new_gamma, beta, dY)))[3])
        X[:], gamma[:] = new, new_gamma
        with autograd.record():
            Y = one_call.train(kernel, X, gamma, beta, EPS)[0]
        Y.backward(dY)
        X[:] = gamma[:] = np.nan
        got.append(X.grad.copy())  # queued behind the backward pass
    for g, w in zip(got, want):
        assert error(g, w) < 1e-5


def train(kernel, steps, wait=False, seed=0, hybrid=None, batch=16, layers=None):
    """A small network trained on noise; its parameters."""
    net = nn.HybridSequential()
    with net.name_scope():
        net.add(
            nn.Conv2D(6, 3, in_channels=2),
            BatchNorm(6, kernel=kernel),
            nn.Activation("relu"),
            *(layers or ()),
            nn.Flatten(),
            nn.Dense(9, in_units=6 * 16),
            BatchNorm(9, kernel=kernel),
            nn.Dense(4, in_units=9),
        )
    net.initialize()
    rng = np.random.RandomState(seed)
    for p in net.collect_params().values():
        if p.name.endswith("weight"):
            p.set_data(nd.array(rng.randn(*p.shape) * 0.3))
    if hybrid is not None:
        net.hybridize(**hybrid)
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1, "momentum": 0.5})
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    for _ in range(steps):
        X, y = nd.array(rng.rand(batch, 2, 6, 6)), nd.array(rng.randint(0, 4, batch))
        with autograd.record():
            L = loss(net(X), y)
        L.backward()
        trainer.step(batch)
        del X, y, L
        if wait:
            nd.waitall()
    net(nd.array(rng.rand(batch, 2, 6, 6))).wait_to_read()
    return [p.data().asnumpy() for p in net.collect_params().values()]


@pytest.mark.parametrize("name", OURS)
def test_the_trainer_need_not_wait(name):
    """Hundreds of steps: gamma is stepped while the backward pass may still be under way."""
    waited, hasty = train(name, 150, wait=True), train(name, 150)
    for a, b in zip(waited, hasty):
        assert np.isfinite(a).all() and (a == b).all()


@pytest.mark.parametrize("name", OURS)
def test_training_as_with_the_textbook(name):
    for a, b in zip(train(name, 25), train("textbook", 25)):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("name", OURS)
def test_several_threads(name):
    """Networks of their own in three Python threads, at once and one after the other."""
    alone, together = [train(name, 25, seed=s) for s in range(3)], [None] * 3

    def work(seed):
        together[seed] = train(name, 25, seed=seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for one, other in zip(alone, together):
        assert all((a == b).all() for a, b in zip(one, other))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("name", OURS)
def test_a_forked_child_computes(name):
    """Which has none of the threads that its parent had. (MXNet's own convolutions hang there, if
    the parent used them with several threads.)"""
    assert child(
        f"""
import multiprocessing, os, sys
from mxnet import autograd, nd
from gluon_bn import BatchNorm, runtime
runtime._configured = 2
layer = BatchNorm(kernel={name!r})
layer.initialize()

def step():
    X = nd.random.normal(shape=(32, 16, 24, 24))
    X.attach_grad()
    with autograd.record():
        Y = layer(X)
    Y.backward()
    assert abs(Y.asnumpy().std() - 1) < 1e-3 and abs(X.grad.asnumpy()).max() < 1e-3

step()
process = multiprocessing.get_context("fork").Process(target=step)
process.start()
process.join(30)
print("child:", process.exitcode)
if process.is_alive():
    process.kill()
step()
""",
        OMP_NUM_THREADS="1",
        PYTHONWARNINGS="ignore",
    ).endswith("child: 0\n")


@pytest.mark.parametrize("name", OURS)
def test_random_shapes_and_arrays_dropped_early(name):
    kernel, rng, kept = kernels.get(name), np.random.RandomState(5), []
    for _ in range(240):
        shape = tuple(int(n) for n in rng.randint(2, 16, rng.randint(2, 5)))
        axis = int(rng.randint(1, len(shape)))
        arrays = draw(rng, shape, axis, conditional=rng.rand() < 0.3)
        want = reference(*numpy(arrays), axis)
        X, gamma, beta, dY = arrays
        gamma.attach_grad()
        beta.attach_grad()
        with autograd.record():
            Y, mean, var = one_call.train(kernel, X * 1, gamma * 1, beta, EPS, axis)
            one_call.train(kernel, Y * 2, gamma, beta, EPS, axis)  # a graph without a backward pass
        Y.backward(dY)
        kept.append(((Y, mean, var, gamma.grad, beta.grad), want[:3] + want[4:], shape))
        del X, dY, arrays
        beta[:] = gamma[:] = np.nan  # queued behind whatever still reads them
        if len(kept) == 30:
            gc.collect()
            for got, want, shape in kept:
                assert all(error(g, w) < 2e-3 for g, w in zip(got, want)), shape
            kept.clear()


@pytest.mark.parametrize("name", ["analytic", *(n for n in OURS if n == "fused")])
def test_nothing_is_kept_of_steps_gone_by(name):
    """Neither the tape's callbacks, with a backward pass or without, nor threads."""
    kernel = kernels.get(name)
    X, gamma, beta, dY = draw(np.random.RandomState(6), (4, 8, 40, 40))
    X.attach_grad()

    def steps(n, backward):
        for _ in range(n):
            with autograd.record():
                Y = one_call.train(kernel, X, gamma, beta, EPS)[0]
            if backward:
                Y.backward(dY)
            Y.wait_to_read()
            nd.waitall()

    def worker():
        with autograd.record():
            one_call.train(kernel, X * 1, gamma, beta, EPS)[0].wait_to_read()

    steps(20, True)
    tasks = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
    steps(150, True)
    steps(150, False)
    for _ in range(30):
        thread = threading.Thread(target=worker)
        thread.start()
        thread.join()
    steps(2, True)
    gc.collect()
    assert len(function._alive) < 10
    if tasks:
        assert len(os.listdir("/proc/self/task")) < tasks + 10


@pytest.mark.parametrize("backward", [True, False])
def test_what_backward_keeps_goes_with_the_graph(backward):
    """Not at the next step, when the arrays of two steps would be there at once."""

    class Kept:
        pass

    def recorded():
        kept, X = Kept(), nd.ones(3)
        X.attach_grad()
        with autograd.record():
            with autograd.pause():
                Y = X * 2
            function.differentiable([X], [Y], lambda wanted, into, dY, kept=kept: [dY * 2])
        if backward:
            Y.backward()
            assert X.grad.asnumpy().tolist() == [2, 2, 2]
        return weakref.ref(kept)

    gone = recorded()
    deadline = time.monotonic() + 30
    while gone() is not None and time.monotonic() < deadline:
        nd.waitall()  # MXNet lets go of the graph on a thread of its own
        time.sleep(0.01)
    assert gone() is None


# ----------------------------------------------------------------------------- hybridized networks


@pytest.mark.parametrize("mode", [{}, {"static_alloc": True, "static_shape": True}], ids=str)
def test_mixed_kernels_hybridized(mode):
    """Layers of all kernels in one graph, operators inside operators' networks."""

    def layers():
        return [BatchNorm(6, kernel=name) for name in OURS] + [BatchNorm(6, zero_debias=True)]

    plain, hybrid = (
        train("auto", 6, layers=layers()),
        train("auto", 6, layers=layers(), hybrid=mode),
    )
    for a, b in zip(plain, hybrid):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("mode", [None, {}, {"static_alloc": True}], ids=str)
def test_no_random_number_is_consumed(name, mode):
    net = nn.HybridSequential()
    net.add(BatchNorm(3, kernel=name))
    net.initialize()
    if mode is not None:
        net.hybridize(**mode)
    X = nd.arange(60).reshape((5, 3, 4))
    numbers = []
    for times in (0, 3):
        mx.random.seed(11)
        np.random.seed(11)
        for _ in range(times):
            with autograd.record():
                Y = net(X)
            Y.backward()
            net(X).wait_to_read()
        numbers.append([*nd.random.normal(shape=(3,)).asnumpy(), np.random.rand()])
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"unbiased": True}, {"momentum": 0.0}, {"momentum": 1}, {"skip_nonfinite": False}],
    ids=str,
)
def test_the_running_statistics(name, hybrid, options):
    """Each channel's, also where another channel's are NaN or infinite."""
    X = np.random.RandomState(7).randn(6, 4, 5).astype("float32") * 3 + 2
    X[1, 1, 1], X[2, 2, 2] = np.nan, np.inf
    w = options.get("momentum", 0.9)
    with np.errstate(invalid="ignore"):
        mean, var = X.astype("float64").mean((0, 2)), X.astype("float64").var((0, 2))
        var *= 30 / 29 if options.get("unbiased") else 1
        moved = np.array([w * 0 + (1 - w) * mean, w * 1 + (1 - w) * var])
    if options.get("skip_nonfinite", True):
        moved[:, 1:3] = [[0], [1]]
    net = nn.HybridSequential()
    net.add(BatchNorm(4, kernel=name, **options))
    net.initialize()
    if hybrid:
        net.hybridize()
    with autograd.record():
        net(nd.array(X)).wait_to_read()
    got = np.array([net[0].running_mean.data().asnumpy(), net[0].running_var.data().asnumpy()])
    finite = np.isfinite(moved)
    assert (np.isfinite(got) == finite).all()
    np.testing.assert_allclose(got[finite], moved[finite], rtol=1e-5)


# ---------------------------------------------------------------------------------- doing without


def child(code, **environment):
    """A Python of its own, its standard output and error together."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("name", ["analytic", *(n for n in OURS if n == "fused")])
def test_a_program_may_end_while_gradients_are_computed(name):
    child(f"""
from mxnet import autograd, nd
from gluon_bn import kernels, runtime
runtime._configured = 2
for shape in ((4, 3), (16, 16, 40, 40)):
    X, gamma, beta = nd.ones(shape), nd.ones(shape[1]), nd.zeros(shape[1])
    X.attach_grad()
    for _ in range(3):
        with autograd.record():
            Y = kernels.get({name!r}).batch_norm(X, gamma, beta, beta, gamma, 1e-5, 0)[0]
        Y.backward()
""")


USE = """
import sys, warnings
warnings.simplefilter("always")
{before}
from mxnet import autograd, nd
from gluon_bn import BatchNorm, kernels
layer = BatchNorm(3)
layer.initialize()
X = nd.arange(60).reshape((5, 3, 4))
for _ in range(3):
    with autograd.record():
        Y = layer(X)
    Y.backward()
    layer(X).wait_to_read()
assert abs(Y.mean().asscalar()) < 1e-3 and abs((Y ** 2).mean().asscalar() - 1) < 1e-2
print("chosen:", kernels.choose("auto", X).__name__.rpartition(".")[2], *kernels.available())
for name in ("fused", "native"):
    try:
        kernels.get(name)
    except RuntimeError as error:
        print("error:", error)
"""
NOWHERE = "/dev/null/nowhere"  # where nobody can make a folder, not even root
NO_NUMBA = "sys.modules['numba'] = None"
NO_COMPILER = {"PATH": NOWHERE, "CXX": "", "GLUON_BN_CACHE": NOWHERE, "TMPDIR": NOWHERE}


def test_neither_numba_nor_a_compiler(tmp_path):
    # An empty cache: TMPDIR may not be NOWHERE, tempfile would take another folder.
    said = child(USE.format(before=NO_NUMBA), **{**NO_COMPILER, "TMPDIR": str(tmp_path)})
    assert "chosen: analytic textbook analytic gluon" in said
    assert said.count("goes on without 'native': no C++ compiler was found") == 1
    assert said.count("goes on without 'fused': numba cannot be imported (pip install numba)") == 1
    assert "error: the kernel 'fused' does not work here: numba cannot be imported" in said
    assert "error: the kernel 'native' does not work here: no C++ compiler was found" in said


@pytest.mark.skipif("native" not in KERNELS, reason="no C++ compiler")
def test_without_numba_native_is_chosen_and_nothing_said():
    said = child(
        USE.format(before=NO_NUMBA),
        OMP_NUM_THREADS="1",
        HOME=NOWHERE,
        GLUON_BN_CACHE=os.path.dirname(kernels.get("native")._library()),
    )
    assert "chosen: native" in said and "goes on without" not in said


@pytest.mark.skipif("fused" not in KERNELS, reason="no Numba")
def test_without_a_compiler_fused_is_chosen(tmp_path):
    """And where Numba's machine code cannot be kept either, it is made anew."""
    here = Path(kernels.__file__).parents[1]
    shutil.copytree(here, tmp_path / "gluon_bn", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "gluon_bn" / "kernels" / "__pycache__").touch()  # a file where a folder should be
    said = child(
        USE.format(before=""),
        **{**NO_COMPILER, "TMPDIR": str(tmp_path)},
        HOME=NOWHERE,
        XDG_CACHE_HOME=NOWHERE,
        NUMBA_CACHE_DIR=NOWHERE,
        PYTHONPATH=str(tmp_path),
        OMP_NUM_THREADS="1",
    )
    assert "chosen: fused" in said
    assert said.count("goes on without 'native': no C++ compiler was found") == 1
    assert not list(tmp_path.rglob("*.nbi"))


@pytest.mark.skipif("native" not in KERNELS, reason="no C++ compiler")
def test_no_folder_for_the_compiled_operator():
    said = child(
        "from gluon_bn.kernels import native\n"
        "native._cache_folders = lambda: ['/dev/null/a', '/dev/null/b']\n"
        "print(native.available())"
    )
    assert "no folder to keep the compiled operator in (tried /dev/null/a and /dev/null/b" in said


def test_the_kernels():
    assert kernels.available() == [n for n in kernels.NAMES if kernels.why_not(n) is None]
    assert {"textbook", "analytic", "gluon"} <= set(kernels.available())
    with pytest.raises(ValueError, match="unknown kernel 'quick'.*'textbook'"):
        BatchNorm(3, kernel="quick")
    X = nd.ones((2, 3))
    assert kernels.choose("textbook", X).__name__ == "gluon_bn.kernels.textbook"
    best = next(n for n in ("native", "fused", "analytic") if n in KERNELS)
    assert kernels.choose("auto", X).__name__.endswith(best)
    if "fused" in KERNELS:
        with pytest.raises(ValueError, match="float16"):
            kernels.choose("fused", X.astype("float16"))


def test_elsewhere_than_on_the_cpu_nothing_is_compiled_or_said():
    class OnGpu:  # all that `choose` looks at
        context, dtype, stype = mx.gpu(), np.float32, "default"

    code = """
import mxnet as mx, numpy as np, sys
from gluon_bn import kernels
class X: context, dtype, stype = mx.gpu(), np.float32, "default"
print(kernels.choose("auto", X).__name__, "numba" in sys.modules, kernels._absent)
"""
    assert kernels.choose("auto", OnGpu).__name__ == "gluon_bn.kernels.analytic"
    said = child(code, **NO_COMPILER)
    assert said.strip() == "gluon_bn.kernels.analytic False {'analytic': None}"


def test_importing_changes_nothing(tmp_path):
    code = """
import os, sys, time
import mxnet
def state():
    return dict(os.environ), len(os.listdir("/proc/self/task")) if os.path.isdir("/proc") else 0
before, start = state(), time.perf_counter()
import gluon_bn
print(time.perf_counter() - start, state() == before, "numba" in sys.modules)
"""
    said = child(code, GLUON_BN_CACHE=str(tmp_path / "cache")).split()
    assert float(said[0]) < 0.5 and said[1:] == ["True", "False"]
    assert not (tmp_path / "cache").exists()
