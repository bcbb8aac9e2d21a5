"""The C++ operator: numbers, modes, statistics, gradients that add up, deferred shapes, no race."""

import gc
import os
import subprocess
import sys
import threading

import mxnet as mx
import numpy as np
import one_call
import pytest
from mxnet import autograd, gluon, nd

from gluon_bn.checked import by_a_block
from gluon_bn.kernels import native, native_graph

if native._compiler() is None:
    pytest.skip("no C++ compiler", allow_module_level=True)

EPS = 1e-5


def test_it_is_available():
    assert native.available() is None


# --------------------------------------------------------------------------- a reference in float64


def reference(x, gamma, beta, dy, axis=1, activation=None, mean=None, var=None):
    """Y, mean, var, dX, dgamma, dbeta, by the formulas of chapter 3 in float64 NumPy."""
    x, gamma, beta, dy = (np.asarray(a, "float64") for a in (x, gamma, beta, dy))
    moved = np.moveaxis(x, axis, 1)
    x3 = moved.reshape(moved.shape[0], moved.shape[1], -1)
    dy3 = np.moveaxis(dy, axis, 1).reshape(x3.shape)
    given = mean is not None
    if not given:
        mean, var = x3.mean((0, 2)), x3.var((0, 2))
    inv = (1 / np.sqrt(np.asarray(var, "float64") + EPS))[None, :, None]
    hat = (x3 - np.asarray(mean, "float64")[None, :, None]) * inv
    g, b = (np.atleast_2d(a)[:, :, None] for a in (gamma, beta))
    z = hat * g + b
    y = {None: z, "relu": np.maximum(z, 0), "sigmoid": 1 / (1 + np.exp(-z))}[activation]
    dz = dy3 * {None: 1, "relu": z > 0, "sigmoid": y * (1 - y)}[activation]
    dgamma, dbeta = (dz * hat).sum(2), dz.sum(2)
    if gamma.ndim == 1:
        dgamma, dbeta = dgamma.sum(0), dbeta.sum(0)
    e = dz * g
    dx = e
    if not given:
        dx = e - e.mean((0, 2), keepdims=True) - hat * (e * hat).mean((0, 2), keepdims=True)

    def back(a):
        return np.moveaxis(a.reshape(moved.shape), 1, axis)

    return back(y), mean, var, back(dx * inv), dgamma, dbeta


def error(got, want):
    return float(np.abs(got.asnumpy() - want).max() / (1 + np.abs(want).max()))


def draw(rng, shape, axis, dtype="float32", conditional=False, offset=3.0):
    C = shape[axis]
    param = (shape[0], C) if conditional else (C,)
    arrays = (
        rng.randn(*shape) * 2 + offset,
        rng.randn(*param),
        rng.randn(*param),
        rng.randn(*shape),
    )
    return [nd.array(a, dtype=dtype) for a in arrays]


SHAPES = [
    ((256, 120), 1),
    ((8, 6, 5, 7), 1),
    ((8, 6, 24, 24), 1),
    ((4, 5, 6, 7), -1),
    ((3, 700), 1),
    ((2, 3), 1),
    ((16, 512, 3, 3), 1),
    ((2, 3, 4, 5, 6), 2),
    ((7, 4), 0),
    ((6, 3, 200), 1),
    ((33, 16, 12, 12), 1),
    ((1, 2, 40, 40), 1),
]


@pytest.mark.parametrize("dtype, limit", [("float32", 3e-6), ("float64", 1e-12)])
@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("activation", [None, "relu", "sigmoid"])
def test_numbers_and_gradients(dtype, limit, conditional, activation):
    rng = np.random.RandomState(0)
    for shape, axis in SHAPES:
        if conditional and axis == 0:
            continue
        X, gamma, beta, dY = draw(rng, shape, axis, dtype, conditional)
        C = shape[axis]
        given = [nd.array(a, dtype=dtype) for a in (rng.randn(C), rng.rand(C) + 0.5)]
        for mode in ("train", "predict"):
            for a in (X, gamma, beta):
                a.attach_grad()
            with autograd.record(train_mode=mode == "train"):
                if mode == "train":
                    Y, mean, var = one_call.train(
                        native, X, gamma, beta, EPS, axis, activation=activation
                    )
                else:
                    mean, var = given
                    Y = one_call.predict(
                        native, X, gamma, beta, mean, var, EPS, axis, activation=activation
                    )
            Y.backward(dY)
            want = reference(
                *(a.asnumpy() for a in (X, gamma, beta, dY)),
                axis,
                activation,
                *([] if mode == "train" else [a.asnumpy() for a in given]),
            )
            for got, w in zip((Y, mean, var, X.grad, gamma.grad, beta.grad), want):
                assert error(got, w) < limit, (shape, axis, mode)


@pytest.mark.parametrize("offset", [0, 1e2, 1e4])
def test_an_offset_costs_no_accuracy(offset):
    for shape, axis in [
        ((64, 16, 24, 24), 1),
        ((256, 120), 1),
        ((16, 12, 12, 8), -1),
        ((64, 16, 4, 4), 1),
    ]:
        X, gamma, beta, dY = draw(np.random.RandomState(1), shape, axis, offset=offset)
        gamma[:], beta[:] = 1, 0
        X.attach_grad()
        with autograd.record():
            Y = one_call.train(native, X, gamma, beta, EPS, axis)[0]
        Y.backward(dY)
        want = reference(*(a.asnumpy() for a in (X, gamma, beta, dY)), axis)
        axes = tuple(i for i in range(X.ndim) if i != axis % X.ndim)
        mean = X.mean(axes, keepdims=True)
        var = ((X - mean) ** 2).mean(axes, keepdims=True)
        textbook = (X - mean) / nd.sqrt(var + EPS)
        ours, theirs = (np.abs(y.asnumpy() - want[0]).max() for y in (Y, textbook))
        assert ours < max(1e-6, 1.1 * theirs) and ours < 2e-6
        assert error(X.grad, want[3]) < 2e-6


def test_the_first_number_may_be_an_outlier():
    X, gamma, beta, dY = draw(np.random.RandomState(1), (64, 16, 24, 24), 1)
    for outlier in (1e4, -1e4):
        X[0, :, 0, 0] = outlier
        want = reference(*(a.asnumpy() for a in (X, gamma, beta, dY)))
        assert error(one_call.train(native, X, gamma, beta, EPS)[0], want[0]) < 1e-5


def test_the_same_bits_for_any_number_of_threads():
    program = (
        "import mxnet as mx, numpy as np, hashlib\nfrom gluon_bn.kernels import native\n"
        "x = mx.nd.array(np.random.RandomState(0).randn(64, 16, 24, 24))\n"
        "with mx.autograd.train_mode():\n"
        "    y = native.batch_norm(x, mx.nd.ones(16), mx.nd.zeros(16), mx.nd.zeros(16),\n"
        "                          mx.nd.ones(16), 1e-5, 0)[0]\n"
        "print(hashlib.md5(y.asnumpy().tobytes()).hexdigest())"
    )
    prints = {
        subprocess.run(
            [sys.executable, "-c", program],
            text=True,
            capture_output=True,
            env={**os.environ, "OMP_NUM_THREADS": n},
            check=True,
        ).stdout
        for n in ("1", "2", "3")
    }
    assert len(prints) == 1


def test_gradients_add_up():
    rng = np.random.RandomState(2)
    X, gamma, beta, dY = draw(rng, (8, 6, 5, 7), 1)
    for a in (X, gamma, beta):
        a.attach_grad(grad_req="add")
    for _ in range(3):
        with autograd.record():
            Y = one_call.train(native, X, gamma, beta, EPS)[0]
        Y.backward(dY)
    want = reference(*(a.asnumpy() for a in (X, gamma, beta, dY)))
    for a, w in zip((X, gamma, beta), want[3:]):
        assert error(a.grad, 3 * w) < 3e-6
    gamma.attach_grad(grad_req="null")
    with autograd.record():
        Y = one_call.train(native, X, gamma, beta, EPS)[0]
    Y.backward(dY)
    assert error(beta.grad, 4 * want[5]) < 3e-6


def test_a_layer_moves_its_statistics():
    X, gamma, beta, dY = draw(np.random.RandomState(2), (8, 6, 5, 7), 1)
    want = reference(*(a.asnumpy() for a in (X, gamma, beta, dY)))
    for unbiased, factor in ((False, 1), (True, 280 / 279)):
        mean, var = nd.ones(6) * 5, nd.ones(6) * 7
        moved = one_call.move(native, X, gamma, beta, mean, var, EPS, 0.9, unbiased=unbiased)
        assert moved[1] is mean and moved[2] is var
        assert error(mean, 0.9 * 5 + 0.1 * want[1]) < 1e-6
        assert error(var, 0.9 * 7 + 0.1 * want[2] * factor) < 1e-6


# ---------------------------------------------------------------------- inside a hybridized network


class Layer(gluon.HybridBlock):
    """The least Block around the symbol."""

    def __init__(self, channels=0, axis=1, activation=None, dtype="float32", **options):
        super().__init__()
        self.options = dict(eps=EPS, momentum=0.9, axis=axis, activation=activation, **options)
        with self.name_scope():
            for name, init in (
                ("gamma", "ones"),
                ("beta", "zeros"),
                ("running_mean", "zeros"),
                ("running_var", "ones"),
            ):
                learned = name in ("gamma", "beta")
                setattr(
                    self,
                    name,
                    self.params.get(
                        name,
                        shape=(channels,),
                        init=init,
                        dtype=dtype,
                        differentiable=learned,
                        grad_req="write" if learned else "null",
                        allow_deferred_init=True,
                    ),
                )

    def infer_shape(self, x, *_):
        for p in self._reg_params.values():
            p.shape = (x.shape[self.options["axis"]],)

    def hybrid_forward(self, F, x, gamma, beta, running_mean, running_var):
        if F is mx.sym:
            return native_graph.batch_norm_symbol(
                x, gamma, beta, running_mean, running_var, **self.options
            )
        o = self.options
        call = one_call.predict if o.get("use_global_stats") else native_batch_norm
        Y = call(
            native,
            x,
            gamma,
            beta,
            running_mean,
            running_var,
            EPS,
            axis=o["axis"],
            unbiased=o.get("unbiased", False),
            activation=o["activation"],
        )
        return Y


def native_batch_norm(native, *arguments, **options):
    with by_a_block():
        return native.batch_norm(*arguments, 0.9, **options)[0]


def network(norm, channels=(6, 16, 20)):
    net = gluon.nn.HybridSequential()
    nn = gluon.nn
    net.add(
        nn.Conv2D(channels[0], 5),
        norm(),
        nn.Activation("sigmoid"),
        nn.MaxPool2D(2, 2),
        nn.Conv2D(channels[1], 3),
        norm(),
        nn.Activation("relu"),
        nn.Flatten(),
        nn.Dense(channels[2]),
        norm(),
        nn.Activation("sigmoid"),
        nn.Dense(10),
    )
    net.initialize(mx.init.Xavier())
    return net


MODES = [
    None,
    {},
    {"static_alloc": True},
    {"static_alloc": True, "static_shape": True},
    {"inline_limit": 0},
    {"static_alloc": True, "static_shape": True, "inline_limit": 0},
]


def values(net, grad=False):
    mx.nd.waitall()
    return [
        (p.grad() if grad else p.data()).asnumpy()
        for p in net.collect_params().values()
        if not grad or p.grad_req != "null"
    ]


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("grad_req", ["write", "add"])
def test_a_network_trains_as_with_the_formulas(mode, grad_req):
    """Five steps against Gluon's own layer; deferred shapes; statistics move in the forward pass,
    once; prediction in between leaves every bit and sees the moved statistics."""
    mx.random.seed(3)
    rng = np.random.RandomState(3)
    ours, theirs = network(Layer), network(gluon.nn.BatchNorm)
    data = [(nd.array(rng.rand(32, 1, 20, 20)), nd.array(rng.randint(0, 10, 32))) for _ in range(5)]
    if mode is not None:
        ours.hybridize(**mode)
    ours(data[0][0]), theirs(data[0][0])  # infers the shapes
    for a, b in zip(ours.collect_params().values(), theirs.collect_params().values()):
        a.set_data(b.data())
    for net in (ours, theirs):
        for p in net.collect_params().values():
            if p.grad_req != "null":
                p.grad_req = grad_req
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    trainers = [
        gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1}) for net in (ours, theirs)
    ]
    stats = [p for name, p in ours.collect_params().items() if "running" in name]
    for X, y in data:
        for net in (ours, theirs):
            for _ in range(2 if grad_req == "add" else 1):
                before = [p.data().asnumpy() for p in stats]
                with autograd.record():
                    L = loss(net(X), y)
                L.wait_to_read()
                forward = [p.data().asnumpy() for p in stats]
                L.backward()
                mx.nd.waitall()
                after = [p.data().asnumpy() for p in stats]
                if net is ours:
                    assert all((a != b).any() for a, b in zip(before, forward))
                    assert all((a == b).all() for a, b in zip(forward, after))
        for a, b in zip(values(ours, grad=True), values(theirs, grad=True)):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-4)
        for net, trainer in zip((ours, theirs), trainers):
            trainer.step(32)
            net.collect_params().zero_grad()
        for a, b in zip(values(ours), values(theirs)):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
        before = values(ours)
        outputs = [net(X).asnumpy() for net in (ours, theirs)]
        with autograd.record(train_mode=False):
            again = ours(X).asnumpy()
        np.testing.assert_allclose(*outputs, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(again, outputs[0], rtol=1e-6)
        assert all((a == b).all() for a, b in zip(before, values(ours)))


@pytest.mark.parametrize("mode", MODES[1:4], ids=str)
def test_the_mode_is_known_whatever_the_statistics(mode):
    """Running statistics of 1, of 0, huge, infinite or NaN: prediction is not training."""
    layer = Layer(3)
    layer.initialize()
    layer.hybridize(**mode)
    X = nd.random.normal(shape=(4, 3, 5, 5))
    for mean in (0.0, 1.0, -1.0, 1e30, np.inf, -np.inf, np.nan):
        for var in (0.0, 1.0, 1e30, np.inf, np.nan):
            layer.running_mean.set_data(nd.ones(3) * mean)
            layer.running_var.set_data(nd.ones(3) * var)
            layer(X).wait_to_read()
            np.testing.assert_array_equal(layer.running_mean.data().asnumpy(), np.float32(mean))
            np.testing.assert_array_equal(layer.running_var.data().asnumpy(), np.float32(var))
            with autograd.record():
                Y = layer(X)
            assert abs(Y.asnumpy().std() - 1) < 1e-3


@pytest.mark.parametrize("mode", MODES[1:4], ids=str)
def test_other_layers_in_a_graph(mode):
    rng = np.random.RandomState(5)
    for shape, axis, dtype, options in [
        ((4, 5, 6, 7), -1, "float32", {}),
        ((4, 5, 6), 1, "float64", {}),
        ((9, 4), 1, "float32", {"activation": "sigmoid"}),
        ((9, 4, 3), 1, "float32", {"use_global_stats": True}),
        ((9, 4, 3), 1, "float32", {"unbiased": True, "activation": "relu"}),
    ]:
        X, gamma, beta, dY = draw(rng, shape, axis, dtype)
        layer = Layer(0, axis, dtype=dtype, **options)
        layer.initialize()
        layer.hybridize(**mode)
        layer(X)
        layer.gamma.set_data(gamma)
        layer.beta.set_data(beta)
        X.attach_grad(grad_req="add")
        given = ([], [np.zeros(shape[axis]), np.ones(shape[axis])])["use_global_stats" in options]
        want = reference(
            *(a.asnumpy() for a in (X, gamma, beta, dY)), axis, options.get("activation"), *given
        )
        for _ in range(2):
            with autograd.record():
                Y = layer(X)
            Y.backward(dY)
        assert error(Y, want[0]) < 3e-6
        gradients = X.grad, layer.gamma.grad(), layer.beta.grad()
        for got, w in zip(gradients, (2 * want[3], want[4], want[5])):
            assert error(got, w) < 5e-6


@pytest.mark.parametrize("mode", MODES[1:4], ids=str)
def test_a_layer_used_many_times(mode):
    """More than eight gradients for one array: MXNet adds them in place, and tells no operator."""

    class Many(gluon.HybridBlock):
        def __init__(self):
            super().__init__()
            with self.name_scope():
                self.layers = [Layer(3) for _ in range(12)]
                for layer in self.layers:
                    self.register_child(layer)
                self.shared = Layer(3)

        def hybrid_forward(self, F, x):
            x = F.tanh(x)
            return sum(
                F.square(layer(x)) * (i + 1)
                for i, layer in enumerate(self.layers + [self.shared] * 10)
            )

    net = Many()
    net.initialize()
    X = nd.random.normal(shape=(4, 3, 5, 5))
    X.attach_grad()
    results = []
    for m in (None, mode):
        if m is not None:
            net.hybridize(**m)
        with autograd.record():
            Y = net(X) * X
        Y.backward()
        results.append([Y.asnumpy(), X.grad.asnumpy()] + values(net, grad=True))
    for a, b in zip(*results):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", MODES[1:4], ids=str)
def test_frozen_layers_among_others(mode):
    """A layer on global statistics is never in training; those after it are."""
    net = gluon.nn.HybridSequential()
    net.add(
        Layer(),
        Layer(use_global_stats=True),
        Layer(),
        gluon.nn.Dense(7),
        Layer(),
        Layer(use_global_stats=True),
    )
    net.initialize()
    net.hybridize(**mode)
    X = nd.random.normal(shape=(8, 3, 5, 5))
    net(X)
    moves = [net[i].running_mean for i in (0, 2, 4)]
    stays = [net[i].running_mean for i in (1, 5)]
    for training in (True, False, True, True, False):
        before = [p.data().asnumpy() for p in moves + stays]
        with autograd.record(train_mode=training):
            Y = net(X)
        Y.backward()
        mx.nd.waitall()
        after = [p.data().asnumpy() for p in moves + stays]
        assert [bool((a != b).any()) for a, b in zip(before, after)] == [training] * 3 + [False] * 2


def test_convolutions_in_their_own_layout():
    """Around a convolution arrays lie in oneDNN's blocks, and a reshaped one is a view of them."""

    class Net(gluon.HybridBlock):
        def __init__(self):
            super().__init__()
            with self.name_scope():
                self.first = gluon.nn.Conv2D(32, 3, in_channels=16, use_bias=False)
                self.norm = Layer(32)
                self.last = gluon.nn.Conv2D(16, 3, in_channels=32)

        def hybrid_forward(self, F, x):
            x = self.norm(F.reshape(self.first(x), shape=(0, 0, -1)))
            return self.last(F.reshape(x, shape=(0, 0, 12, 12)))

    net = Net()
    net.initialize()
    X = nd.random.normal(shape=(8, 16, 14, 14))
    X.attach_grad()
    results = []
    for mode in MODES[:4]:
        if mode is not None:
            net.hybridize(**mode)
        with autograd.record():
            Y = net(X)
        Y.backward()
        results.append([Y.asnumpy(), X.grad.asnumpy()] + values(net, grad=True))
    plain = net.first(X).asnumpy()
    Y = net.last(nd.array(reference(plain, np.ones(32), np.zeros(32), plain)[0]))
    np.testing.assert_allclose(results[0][0], Y.asnumpy(), rtol=1e-3, atol=1e-5)
    for r in results[1:]:
        for a, b in zip(results[0], r):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_an_exported_network(tmp_path):
    net = network(Layer)
    net.hybridize()
    X = nd.random.normal(shape=(4, 1, 20, 20))
    with autograd.record():
        net(X)
    net.export(str(tmp_path / "net"))
    again = gluon.SymbolBlock.imports(
        str(tmp_path / "net-symbol.json"), ["data"], str(tmp_path / "net-0000.params")
    )
    np.testing.assert_array_equal(again(X).asnumpy(), net(X).asnumpy())


def test_conditional_in_a_graph():
    class Conditional(Layer):
        def hybrid_forward(self, F, x, rows, running_mean, running_var, **_):
            return native_graph.batch_norm_symbol(
                x, rows * 2, rows, running_mean, running_var, **self.options
            )

    layer = Conditional(6)
    layer.initialize()
    layer.hybridize()
    X, gamma, _, dY = draw(np.random.RandomState(7), (8, 6, 5, 7), 1, conditional=True)
    gamma.attach_grad()
    with autograd.record():
        Y = layer(X, gamma)
    Y.backward(dY)
    want = reference(X.asnumpy(), 2 * gamma.asnumpy(), gamma.asnumpy(), dY.asnumpy())
    assert error(Y, want[0]) < 3e-6 and error(gamma.grad, 2 * want[4] + want[5]) < 3e-6


def test_no_random_number_is_consumed():
    net = network(Layer)
    X = nd.random.normal(shape=(4, 1, 20, 20))
    net(X)
    numbers = []
    for mode in (None, {}, {"static_alloc": True}):
        for run in (False, True):
            net.hybridize(mode is not None, **(mode or {}))
            mx.random.seed(11)
            if run:
                with autograd.record():
                    net(X).backward()
                net(X).wait_to_read()
            numbers.append(nd.random.normal(shape=(3,)).asnumpy().tolist())
    assert all(n == numbers[0] for n in numbers)


# ------------------------------------------------------------------------------------- under stress


def test_stress():
    """Threads, random shapes, arrays dropped before the engine has run: every number is right."""
    problems = []

    def work(seed):
        rng = np.random.RandomState(seed)
        try:
            kept = []
            for _ in range(400):
                ndim = rng.randint(2, 5)
                shape = tuple(int(n) for n in rng.randint(1, 20, ndim))
                axis = int(rng.randint(0, ndim))
                conditional = axis > 0 and rng.rand() < 0.3
                X, gamma, beta, dY = draw(rng, shape, axis, conditional=conditional)
                activation = (None, "relu", "sigmoid")[rng.randint(3)]
                arrays = [a.asnumpy() for a in (X, gamma, beta, dY)]
                gamma.attach_grad()
                with autograd.record():
                    Y, mean, var = one_call.train(
                        native, X * 1, gamma * 1, beta, EPS, axis, activation=activation
                    )
                    # Dropped, and never waited for.
                    junk = one_call.predict(native, Y, gamma, beta, mean, var, EPS, axis)
                Y.backward(dY)
                kept.append((Y, mean, var, gamma.grad, arrays, axis, activation))
                del X, beta, dY, junk
                gamma[:] = np.nan  # as a Trainer's update would: queued behind what still reads it
                if len(kept) == 20:
                    gc.collect()
                    for Y, mean, var, dgamma, arrays, axis, activation in kept:
                        if Y.size // Y.shape[axis] < 3:
                            continue  # nearly constant channels: the comparison says nothing
                        want = reference(*arrays, axis, activation)
                        for got, w in zip((Y, mean, var, dgamma), (*want[:3], want[4])):
                            assert error(got, w) < 2e-3, (Y.shape, axis, activation)
                    kept.clear()
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    mx.nd.waitall()
    assert not problems, problems[0]


@pytest.mark.parametrize("mode", [None, {}, {"static_alloc": True, "static_shape": True}], ids=str)
def test_stress_of_a_deep_network(mode):
    """150 steps of 16 layers without waiting: the same weights, bit for bit, as with waiting."""

    def run(wait):
        mx.random.seed(1)
        rng = np.random.RandomState(1)
        net = gluon.nn.HybridSequential()
        for _ in range(8):
            net.add(gluon.nn.Conv2D(8, 3, padding=1), Layer(), gluon.nn.Activation("relu"))
        net.add(gluon.nn.Flatten())
        for _ in range(8):
            net.add(gluon.nn.Dense(16), Layer(activation="sigmoid"))
        net.add(gluon.nn.Dense(4))
        net.initialize(mx.init.Xavier())
        if mode is not None:
            net.hybridize(**mode)
        trainer = gluon.Trainer(
            net.collect_params(), "sgd", {"learning_rate": 0.05, "momentum": 0.9}
        )
        loss = gluon.loss.SoftmaxCrossEntropyLoss()
        for _ in range(150):
            X, y = nd.array(rng.rand(16, 3, 6, 6)), nd.array(rng.randint(0, 4, 16))
            with autograd.record():
                L = loss(net(X), y)
            L.backward()
            trainer.step(16)
            del X, y, L
            if wait:
                mx.nd.waitall()
        return values(net)

    for a, b in zip(run(True), run(False)):
        assert np.isfinite(a).all() and (a == b).all()


# ---------------------------------------------------------------------------------------- compiling


def child(code, **environment):
    code = "from gluon_bn.kernels import native\n" + code
    return subprocess.run(
        [sys.executable, "-c", code],
        text=True,
        capture_output=True,
        check=True,
        env={**os.environ, **environment},
    ).stdout


def test_loops_stay_in_their_arrays(tmp_path):
    """The loops alone under the address sanitizer, on arrays of exactly their size, against sums in
    double; with results that go past the cache, and with ordinary ones."""
    package, here = os.path.dirname(mx.__file__), os.path.dirname(__file__)
    sources = [f"{here}/native_loops.cc", f"{package}/src/lib_api.cc"]
    flags = ["-std=c++17", "-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-w"]
    program = str(tmp_path / "loops")
    made = subprocess.run(
        [*native._compiler(), *flags, "-fopenmp", f"-I{package}/include", *sources, "-o", program],
        capture_output=True,
        text=True,
    )
    if made.returncode and "san" in made.stderr:
        pytest.skip("this compiler has no address sanitizer")
    assert made.returncode == 0, made.stderr
    for cache in ("0", str(2**40)):
        settings = {"GLUON_BN_CACHE_BYTES": cache, "ASAN_OPTIONS": "detect_leaks=0"}
        ran = subprocess.run([program], env={**os.environ, **settings}, capture_output=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_no_compiler_is_said(tmp_path):
    empty = str(tmp_path)
    said = child(
        "print(native.available())", PATH=empty, CXX="", GLUON_BN_CACHE=empty, TMPDIR=empty
    )
    assert "no C++ compiler" in said


def test_a_compiler_that_fails_is_said(tmp_path):
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho sorry, no >&2\nexit 1\n")
    broken.chmod(0o755)
    said = child("print(native.available())", CXX=str(broken), GLUON_BN_CACHE=str(tmp_path))
    assert "sorry, no" in said and not list(tmp_path.glob("*.so"))


def test_nothing_is_compiled_at_import(tmp_path):
    child("", GLUON_BN_CACHE=str(tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


def test_two_processes_may_compile_at_once(tmp_path):
    """By a compiler that waits until both are at it, writes a part of the operator that lies there,
    and then all of it: nobody takes the part."""
    compiler = tmp_path / "c++"
    compiler.write_text(f"""#!/bin/bash
[ "$*" = --version ] && exec {" ".join(native._compiler())} --version
touch {tmp_path}/begun.$$
for ((i = 0; i < 600 && $(ls {tmp_path}/begun.* | wc -l) < 2; i++)); do sleep 0.1; done
head -c 100000 "{native._library()}" > "${{@: -1}}" && sleep 0.5
cp "{native._library()}" "${{@: -1}}"
""")
    compiler.chmod(0o755)
    environment = {**os.environ, "GLUON_BN_CACHE": str(tmp_path / "cache"), "CXX": str(compiler)}
    code = "from gluon_bn.kernels import native; print(native.available())"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, text=True, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    assert [p.communicate()[0].strip() for p in both] == ["None", "None"]
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert len(list(tmp_path.glob("begun.*"))) == 2


ONE_VALUE = """
import warnings
from mxnet import autograd, nd
from mxnet.gluon import nn
from gluon_bn import BatchNorm

net = nn.HybridSequential()
net.add(BatchNorm(3, kernel="native"), BatchNorm(3, kernel="native"))
net.initialize()
net.hybridize()

def said(training, *shape):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with autograd.record(train_mode=training):
            net(nd.ones(shape))
        nd.waitall()
    return [str(w.message).split(" in training")[0] for w in caught if w.category is UserWarning]

print(said(False, 1, 3), said(True, 2, 3), said(True, 1, 3), said(True, 1, 3))
"""


def test_one_value_per_channel_warns_once_in_a_graph_too():
    """In a process of its own: it warns once a process."""
    done = subprocess.run(
        [sys.executable, "-c", ONE_VALUE], capture_output=True, text=True, check=True
    )
    sentence = "a BatchNorm of 3 channels, in a hybridized network, was given one value per channel"
    assert done.stdout.strip() == f"[] [] ['{sentence}'] []"
