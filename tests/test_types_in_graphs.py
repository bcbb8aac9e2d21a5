"""The type, storage and device of X, which only the call knows: in a hybridized network as layer by
layer, whatever type the parameters have and whenever the network was cast."""

import os
import subprocess
import sys

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, nd
from mxnet.gluon import nn

import gluon_bn
from gluon_bn import (
    BatchNorm,
    BatchRenorm,
    ConditionalBatchNorm,
    GhostBatchNorm,
    GroupNorm,
    LayerNorm,
    PixelNorm,
    RMSNorm,
    SpectralNorm,
    WeightNorm,
    batch_norm,
    functional,
    inference,
    kernels,
    moments,
    normalize,
)

STATIC = {"static_alloc": True, "static_shape": True}
RNG = np.random.RandomState(0)
X0 = RNG.normal(1, 2, (6, 4, 5, 3))
DY0 = RNG.normal(0, 1, (6, 4, 5, 3))
NATIVE = pytest.mark.skipif("native" not in kernels.available(), reason="no compiler")


def train(net, X, flags=None, steps=2):
    """Outputs, gradients and states after some steps, in float64."""
    if flags is not None:
        net.hybridize(**flags)
    X.attach_grad()
    dY = nd.array(DY0, dtype=X.dtype)
    for _ in range(steps):
        with autograd.record():
            Y = net(X)
        Y.backward(dY)
    predicted = net(X)
    assert Y.dtype == predicted.dtype == X.dtype
    nd.waitall()
    parameters = list(net.collect_params().values())
    return [
        a.asnumpy().astype("float64")
        for a in (
            Y,
            predicted,
            X.grad,
            *(p.data() for p in parameters),
            *(p.grad() for p in parameters if p.grad_req != "null"),
        )
    ]


def network(layers, dtype="float32"):
    net = nn.HybridSequential()
    net.add(*layers)
    net.initialize()
    if dtype != "float32":
        net.cast(dtype)
    return net


def assert_close(found, expected, tolerance):
    for a, b in zip(found, expected):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(abs(b).max(), 1))


@pytest.mark.parametrize("flags", [None, {}, STATIC], ids=str)
@pytest.mark.parametrize("x_type", ["float16", "float32", "float64"])
@pytest.mark.parametrize("parameter_type", ["float32", "float64", "float16"])
@pytest.mark.parametrize("kernel", kernels.available())
def test_every_kernel(kernel, parameter_type, x_type, flags):
    def layers(kernel):
        return [
            BatchNorm(4, kernel=kernel, unbiased=True, activation="sigmoid"),
            nn.Activation("tanh"),
            BatchNorm(kernel=kernel, scale=False),
        ]

    net = network(layers(kernel), parameter_type)
    assert np.dtype(net[0].gamma.dtype).name in ("float32", "float64")
    found = train(net, nd.array(X0, dtype=x_type), flags)
    exact = train(network(layers("textbook"), "float64"), nd.array(X0, dtype="float64"))
    assert_close(found, exact, 2e-2 if x_type == "float16" else 3e-5)


@NATIVE
def test_one_graph_takes_what_comes():
    """Each call its own type; the statistics go on."""
    net, other = (network([BatchNorm(kernel=kernel)]) for kernel in ("native", "textbook"))
    net.hybridize()
    for x_type in ("float32", "float16", "float64", "float16", "float32"):
        X = nd.array(X0, dtype=x_type)
        with autograd.train_mode():
            Y, Y_other = net(X), other(X)
        assert Y.dtype == X.dtype
        np.testing.assert_allclose(Y.asnumpy(), Y_other.asnumpy(), rtol=2e-3, atol=2e-3)
        assert_close(
            [net[0].running_var.data().asnumpy()], [other[0].running_var.data().asnumpy()], 1e-5
        )


@NATIVE
def test_float16_is_rounded_as_mxnet_rounds_it():
    """To the nearest, ties to even; subnormal numbers, infinities and NaN too."""
    values = np.arange(0, 1 << 16, dtype="uint16").view("float16")
    net = network([BatchNorm(kernel="native", use_global_stats=True, epsilon=1e-12)])
    X = nd.array(values.reshape(-1, 1), dtype="float16")
    net(X)
    net.hybridize()
    for gamma in (1.0, 0.33, 1.0 + 2.0**-11, 1e-3):
        net[0].gamma.set_data(nd.array([gamma]))
        found = net(X).asnumpy()
        with np.errstate(over="ignore", invalid="ignore"):
            expected = (X.asnumpy().astype("float32") * np.float32(gamma)).astype("float16")
        np.testing.assert_array_equal(found, expected)


@NATIVE
@pytest.mark.parametrize("bad", ["int32", "uint8"])
def test_whole_numbers_are_refused_in_a_graph_too(bad):
    net = network([BatchNorm(kernel="native")])
    net(nd.array(X0))
    net.hybridize()
    with pytest.raises(mx.MXNetError, match="X must be of type float16, float32 or float64"):
        net(nd.array(X0, dtype=bad))


@pytest.mark.parametrize("when", ["before", "after", "again"])
def test_cast_before_and_after_hybridize(when):
    net = network([BatchNorm(), LayerNorm()])
    net(nd.array(X0))
    if when == "before":
        net.cast("float16")
    net.hybridize()
    if when != "before":
        net(nd.array(X0))
        net.cast("float16")
    if when == "again":
        net(nd.array(X0, dtype="float16"))
        net.cast("float64")
    dtype = "float64" if when == "again" else "float16"
    found = train(net, nd.array(X0, dtype=dtype))
    exact = train(network([BatchNorm(), LayerNorm()], "float64"), nd.array(X0, dtype="float64"))
    assert_close(found[:3], exact[:3], 1e-2 if dtype == "float16" else 1e-5)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_from_gluon(dtype):
    """Of a network in float32 that is given another type, as Gluon's layer allows."""
    theirs = network([nn.BatchNorm(), nn.Activation("relu"), nn.BatchNorm()])
    theirs(nd.array(X0))
    ours = inference.from_gluon(theirs)
    for flags in (None, {}):
        net = inference.from_gluon(theirs)
        if flags is not None:
            net.hybridize()
        Y = net(nd.array(X0, dtype=dtype))
        assert Y.dtype == np.dtype(dtype)
        expected = ours(nd.array(X0)).asnumpy()
        np.testing.assert_allclose(Y.asnumpy(), expected, rtol=5e-3, atol=5e-3)


@NATIVE
def test_a_device_that_is_no_cpu_gets_no_native_operator(monkeypatch):
    """There is no GPU here; that the graph asks is what can be seen."""
    layer = BatchNorm(3)
    layer.initialize()
    assert "gluon_bn_native" in layer(mx.sym.var("data")).tojson()
    monkeypatch.setattr(layer.gamma, "list_ctx", lambda: [mx.cpu(0), mx.gpu(0)])
    assert "gluon_bn_native" not in layer(mx.sym.var("data")).tojson()


# ----------------------------------------------------------------------------------- sparse arrays

LAYERS = {
    **{name: lambda name=name: BatchNorm(kernel=name) for name in kernels.available()},
    "cumulative": lambda: BatchNorm(momentum=None),
    "renorm": BatchRenorm,
    "layer": LayerNorm,
    "group": lambda: GroupNorm(2),
    "pixel": PixelNorm,
    "rms": lambda: RMSNorm(1),
    "ghost": lambda: GhostBatchNorm(ghost_size=2),
    "weight": lambda: WeightNorm(nn.Dense(4)),
    "spectral": lambda: SpectralNorm(nn.Dense(4)),
}


def sparse(stype, shape=(6, 4)):
    rng = np.random.RandomState(3)
    values = rng.normal(1, 2, shape) * (rng.uniform(size=shape) < 0.6)
    values[2] = 0
    return nd.array(values), nd.array(values).tostype(stype)


@pytest.mark.parametrize("flags", [None, {}, STATIC], ids=str)
@pytest.mark.parametrize("stype", ["csr", "row_sparse"])
@pytest.mark.parametrize("layer", LAYERS)
def test_sparse_input_of_every_layer(layer, stype, flags):
    results = []
    for X, how in zip(sparse(stype), (None, flags)):
        mx.random.seed(4)
        net = network([LAYERS[layer]()])
        net(sparse(stype)[0])
        if how is not None:
            net.hybridize(**how)
        X.attach_grad(stype="default")
        for _ in range(2):
            with autograd.record():
                Y = net(X)
            Y.backward(nd.array(DY0[:, :, 0, 0]))
        nd.waitall()
        results.append(
            [
                a.asnumpy()
                for a in (Y, net(X), X.grad, *(p.data() for p in net.collect_params().values()))
            ]
        )
    assert_close(results[1], results[0], 1e-5)


def test_sparse_input_of_functions():
    one = nd.ones((1, 4))
    calls = [
        lambda X: batch_norm(X, one, one, one, one, 1e-5, 0.9)[0],
        lambda X: moments(X, 0)[1],
        lambda X: normalize(X, one, one, one, one, 1e-5),
        lambda X: functional.layer_norm(X, None, None, 1e-5),
        lambda X: functional.group_norm(X, None, None, 2, 1e-5),
        functional.pixel_norm,
    ]
    for stype in ("csr", "row_sparse"):
        X, S = sparse(stype)
        for call in calls:
            for mode in (autograd.train_mode, autograd.predict_mode):
                with mode():
                    np.testing.assert_array_equal(call(S).asnumpy(), call(X).asnumpy())
    X, S = sparse("row_sparse", (6, 3, 4, 4))
    np.testing.assert_array_equal(
        functional.instance_norm(S, None, None, 1e-5).asnumpy(),
        functional.instance_norm(X, None, None, 1e-5).asnumpy(),
    )


def test_sparse_input_beside_labels_and_weights():
    X, S = sparse("csr")
    labels, weights = nd.array([0, 1, 2, 2, 1, 0]), nd.array([1, 0, 2, 0, 1, 3])
    for layer, extra in ((ConditionalBatchNorm(4, 3), labels), (BatchNorm(), weights)):
        layer.initialize()
        with autograd.train_mode():
            expected = layer(X, extra).asnumpy()
            np.testing.assert_array_equal(layer(S, extra).asnumpy(), expected)
            np.testing.assert_array_equal(layer(S, extra.tostype("row_sparse")).asnumpy(), expected)


# --------------------------------------------------------------------------- what MXNet draws of it


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("options", [{}, {"scale": False, "center": False}], ids=str)
def test_print_summary(layer, options, capsys):
    """Of a network with several of our layers, with shapes and without."""
    if options and layer not in kernels.available():
        pytest.skip("only BatchNorm's operator knows of them")
    make = (lambda: BatchNorm(kernel=layer, **options)) if options else LAYERS[layer]
    net = network([nn.Dense(4), make(), nn.Activation("relu"), nn.Dense(4), make()])
    net(nd.array(X0))
    symbol = net(mx.sym.var("data"))
    mx.viz.print_summary(symbol, shape={"data": (2, 4, 5, 3)})
    mx.viz.print_summary(symbol)
    assert capsys.readouterr().out.count("Total params") == 2


# ------------------------------------------------------------------- mixed precision, by itself

MIXED = """
import mxnet as mx, numpy as np
from mxnet import autograd, nd
from mxnet.contrib import amp
from mxnet.gluon import nn
amp.init("bfloat16")
from gluon_bn import BatchNorm, BatchRenorm, LayerNorm, SpectralNorm, WeightNorm, inference, kernels

X = nd.array(np.random.RandomState(0).normal(1, 2, (6, 3, 10, 10)))

def result(layer, flags, convert=lambda net: net):
    mx.random.seed(0)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3), layer(), nn.Activation("relu"), nn.Conv2D(4, 3), layer(), nn.Dense(3))
    net.initialize()
    net(X)
    net = convert(net)
    if flags is not None:
        net.hybridize(**flags)
    with autograd.record():
        Y = net(X)
        loss = (Y.astype("float32") ** 2).mean()
    loss.backward()
    assert "bfloat16" in str(Y.dtype), Y.dtype  # it is still on
    nd.waitall()
    return [a.astype("float32").asnumpy() for a in
            (Y, net(X), *(p.data() for p in net.collect_params().values()),
             *(p.grad() for p in net.collect_params().values() if p.grad_req != "null"))]

def compare(what, found, expected):
    for a, b in zip(found, expected):
        np.testing.assert_allclose(a, b, rtol=0.05, atol=0.02 * abs(b).max() + 1e-3, err_msg=what)

flags = [None, {}, {"static_alloc": True, "static_shape": True}]
theirs = result(nn.BatchNorm, {})
for name in kernels.available():
    for how in flags:
        compare(name, result(lambda: BatchNorm(kernel=name), how), theirs)
for how in flags:
    compare("from_gluon", result(nn.BatchNorm, how, inference.from_gluon), theirs)
for layer in (lambda: LayerNorm(axis=1), BatchRenorm, lambda: WeightNorm(nn.Conv2D(4, 1)),
              lambda: SpectralNorm(nn.Conv2D(4, 1)), lambda: BatchNorm(momentum=None)):
    expected = result(layer, None)
    for how in flags[1:]:
        compare("relative", result(layer, how), expected)
print("done")
"""


def test_mixed_precision():
    """`amp.init` changes the process, so it has one of its own."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(gluon_bn.__file__)))
    done = subprocess.run(
        [sys.executable, "-c", MIXED],
        cwd=root,
        close_fds=False,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert done.returncode == 0 and "done" in done.stdout, done.stderr[-3000:]


class Labelled(nn.HybridBlock):
    """Our layers with one, two and three inputs and with none of state, in one graph."""

    def __init__(self, kernel, order):
        super().__init__()
        self.layers = [BatchNorm(kernel=kernel), LayerNorm(), BatchNorm(kernel=kernel)]
        self.layers = [self.layers[i] for i in order]
        self.by_label = ConditionalBatchNorm(4, 3, kernel=kernel)
        for layer in self.layers:
            self.register_child(layer)

    def hybrid_forward(self, F, X, labels):
        for layer in self.layers[:2]:
            X = layer(X)
        return self.layers[2](self.by_label(X, labels))


@pytest.mark.parametrize("kernel", ["textbook", "fused", "native"])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (0, 2, 1)], ids=str)
def test_operators_with_different_numbers_of_inputs_in_one_graph(kernel, order):
    if kernel not in kernels.available():
        pytest.skip("this kernel does not work here")
    found, labels = {}, nd.array([0, 1, 2, 0, 1, 2])
    for hybridized in (False, True):
        net = Labelled(kernel, order)
        net.initialize()
        if hybridized:
            net.hybridize()
        X = nd.array(X0)
        X.attach_grad()
        for _ in range(2):
            with autograd.record():
                Y = net(X, labels)
            Y.backward(nd.array(DY0))
        nd.waitall()
        found[hybridized] = [Y.asnumpy(), X.grad.asnumpy(), net.by_label.gamma.grad().asnumpy()]
    assert_close(found[True], found[False], 1e-4)
