"""A network with our layers in a file: `export`, and `SymbolBlock.imports` where it is read.

The file says what each layer is. What it is read into predicts and trains as the network did, in
this process beside other networks, and in a new one.
"""

import json
import os
import subprocess
import sys

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, nd
from mxnet.gluon import HybridBlock, nn

import gluon_bn
from gluon_bn import (
    BatchNorm,
    BatchRenorm,
    ConditionalBatchNorm,
    GhostBatchNorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    PixelNorm,
    RMSNorm,
    SpectralNorm,
    WeightNorm,
    kernels,
)

LAYERS = {
    **{name: lambda name=name: BatchNorm(kernel=name) for name in kernels.available()},
    "cumulative": lambda: BatchNorm(momentum=None, axis=-1),
    "zero_debias": lambda: BatchNorm(4, zero_debias=True, activation="tanh", epsilon=1e-2),
    "unbiased": lambda: BatchNorm(
        num_dims=4, unbiased=True, center=False, scale=False, kernel="fused"
    ),
    "frozen": lambda: BatchNorm(use_global_stats=True, kernel="analytic"),
    "renorm": lambda: BatchRenorm(r_max=2.0, d_max=np.float32(0.5), renorm_momentum=0.5),
    "layer": lambda: LayerNorm(axis=1),
    "instance": InstanceNorm,
    "group": lambda: GroupNorm(2, epsilon=0.1),
    "pixel": PixelNorm,
    "rms": lambda: RMSNorm(1),
    "ghost": lambda: GhostBatchNorm(ghost_size=2),
    "weight": lambda: WeightNorm(nn.Conv2D(4, 3, strides=2, groups=2, activation="relu")),
    "weight_dense": lambda: WeightNorm(nn.Dense(5, flatten=False, use_bias=False)),
    "spectral": lambda: SpectralNorm(
        nn.Conv2DTranspose(4, 3, strides=2, output_padding=1), iterations=3
    ),
}


class WithLabels(HybridBlock):
    def __init__(self, **options):
        super().__init__()
        with self.name_scope():
            self.before = nn.Dense(4)
            self.norm = ConditionalBatchNorm(4, 3, **options)

    def hybrid_forward(self, F, X, labels):
        return self.norm(self.before(X), labels)


X = nd.array(np.random.RandomState(0).normal(1, 2, (6, 3, 9, 9)))
LABELS = nd.array([0, 1, 2, 1, 0, 2])


def network(layer, *inputs):
    """Trained for a step, hybridized, and called once, as `export` wants it."""
    mx.random.seed(2)
    net = layer
    if not isinstance(layer, WithLabels):
        net = nn.HybridSequential()
        net.add(nn.Conv2D(4, 3), layer, nn.Activation("relu"), nn.Dense(3))
    net.initialize(mx.init.Xavier())
    with autograd.record():
        net(*inputs)
    net.hybridize()
    net(*inputs)
    return net


def numbers(net, inputs):
    """What is to be the same: a prediction, a training step's output, and the state after it."""
    predicted = net(*inputs)
    with autograd.record():
        trained = net(*inputs)
    trained.backward()
    nd.waitall()
    parameters = net.collect_params()
    found = {
        "predicted": predicted,
        "trained": trained,
        **{name: p.data() for name, p in parameters.items()},
        **{
            f"gradient of {name}": p.grad()
            for name, p in parameters.items()
            if p.grad_req != "null"
        },
    }
    return {name: array.asnumpy().tolist() for name, array in found.items()}


def assert_same(found, expected, layer):
    for name, value in expected.items():  # what is read knows of no parameter that is not trained
        np.testing.assert_allclose(
            found[name], value, rtol=1e-5, atol=1e-5, err_msg=f"{layer}: {name}"
        )


def read(folder, name, inputs=("data",)):
    return gluon.SymbolBlock.imports(
        f"{folder}/{name}-symbol.json", list(inputs), f"{folder}/{name}-0000.params"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every layer's network, exported, and its numbers."""
    folder = tmp_path_factory.mktemp("exported")
    expected = {}
    for name, layer in LAYERS.items():
        net = network(layer(), X)
        net.export(f"{folder}/{name}")
        expected[name] = numbers(net, [X])
    for name, options in (("conditional", {}), ("by_class", {"per_class_statistics": True})):
        net = network(WithLabels(**options), X, LABELS)
        net.export(f"{folder}/{name}")
        expected[name] = numbers(net, [X, LABELS])
    (folder / "expected.json").write_text(json.dumps(expected))
    return folder


# A new process, where nothing of this one is left; `numbers` and `read` are those above.
READER = """
import json, sys
import tests.test_export as here

for name, expected in json.load(open(sys.argv[1] + "/expected.json")).items():
    inputs = [here.X, here.LABELS] if len(sys.argv) > 2 and name in sys.argv[2:] else [here.X]
    names = ["data"] if len(inputs) == 1 else ["data0", "data1"]
    net = here.read(sys.argv[1], name, names)
    here.assert_same(here.numbers(net, inputs), expected, name)
    print(name)
"""

STRANGER = """
import sys
import mxnet as mx
for name in ("textbook", "weight"):
    try:
        mx.sym.load(f"{sys.argv[1]}/{name}-symbol.json")
    except mx.MXNetError as error:
        print(error)
"""


def run(program, *arguments):
    root = os.path.dirname(os.path.dirname(os.path.abspath(gluon_bn.__file__)))
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=root,
        close_fds=False,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_every_layer_in_a_new_process(folder):
    assert run(READER, folder, "conditional", "by_class").split() == [
        *LAYERS,
        "conditional",
        "by_class",
    ]


def test_a_process_without_our_layers_is_told_what_to_import(folder):
    said = run(STRANGER, folder)
    assert said.count("Cannot find custom operator") == 2
    assert said.count("from gluon_bn import BatchNorm first") == 2


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_in_this_process(folder, name):
    """Where the layers of other networks live too, and the one it was exported from may change."""
    net = network(LAYERS[name](), X)
    net.export(f"{folder}/again")
    expected = numbers(net, [X])
    net[1].epsilon = 10.0
    net[1].momentum = 0.123
    assert_same(numbers(read(folder, "again"), [X]), expected, name)


def test_nothing_of_this_process_is_in_the_file(folder):
    """The same network exports the same text for the layer, however many were made before."""

    def text():
        net = nn.HybridSequential(prefix="net_")
        with net.name_scope():
            net.add(nn.Conv2D(4, 3), BatchNorm(kernel="textbook"), nn.Dense(3))
        net.initialize()
        return net(mx.sym.var("data")).tojson()

    one = [node for node in json.loads(text())["nodes"] if node["op"] == "Custom"]
    two = [node for node in json.loads(text())["nodes"] if node["op"] == "Custom"]
    assert len(one) == 1 and one[0]["attrs"] == two[0]["attrs"]


@pytest.mark.parametrize("kernel", ["textbook", "native"])
def test_what_is_read_can_be_exported_hybridized_and_cast(folder, kernel):
    if kernel not in LAYERS:
        pytest.skip("this kernel does not work here")
    expected = network(LAYERS[kernel](), X)(X).asnumpy()
    network(LAYERS[kernel](), X).export(f"{folder}/first")
    net = read(folder, "first")
    net.hybridize(static_alloc=True, static_shape=True)
    np.testing.assert_allclose(net(X).asnumpy(), expected, rtol=1e-5, atol=1e-5)
    net.export(f"{folder}/second")
    np.testing.assert_allclose(read(folder, "second")(X).asnumpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_types(folder, dtype):
    net = nn.HybridSequential()
    net.add(BatchNorm(kernel="fused"), LayerNorm(), BatchNorm())
    net.initialize()
    net.cast(dtype)
    x = nd.array(np.random.RandomState(1).normal(size=(5, 3)), dtype=dtype)
    net(x)
    net.hybridize()
    expected = net(x)
    net.export(f"{folder}/{dtype}")
    found = read(folder, dtype)(x)
    assert found.dtype == expected.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found.asnumpy(), expected.asnumpy())


@pytest.mark.parametrize("kernel", ["textbook", "native"])
def test_module(folder, kernel):
    """MXNet's older interface reads it too, in training and in prediction."""
    if kernel not in LAYERS:
        pytest.skip("this kernel does not work here")
    net = network(LAYERS[kernel](), X)
    net.export(f"{folder}/module")
    symbol, arguments, states = mx.model.load_checkpoint(f"{folder}/module", 0)
    for training in (False, True):
        module = mx.mod.Module(symbol, data_names=["data"], label_names=None)
        module.bind(for_training=training, data_shapes=[("data", X.shape)])
        module.set_params(arguments, states)
        module.forward(mx.io.DataBatch([X]), is_train=training)
        with autograd.pause(train_mode=training):
            expected = net(X).asnumpy()
        np.testing.assert_allclose(
            module.get_outputs()[0].asnumpy(), expected, rtol=1e-5, atol=1e-5
        )


class Doubled(BatchNorm):
    """Somebody's own layer, of which the package knows nothing."""

    def compute(self, *arrays, **parameters):
        return 2 * super().compute(*arrays, **parameters)


def test_a_class_of_the_users_own_works_but_is_refused_from_a_file(folder, capfd):
    net = network(Doubled(), X)
    np.testing.assert_allclose(net(X).asnumpy(), network(Doubled(), X)(X).asnumpy())
    net.export(f"{folder}/own")
    with pytest.raises(mx.MXNetError):
        read(folder, "own")
    assert "it is a class of your own" in capfd.readouterr().out
    text = (folder / "own-symbol.json").read_text()
    assert "Doubled (a class of your own, that gluon_bn cannot write into a file" in text


def test_a_description_that_cannot_be_read_is_an_error_not_a_crash(folder, capfd):
    text = (folder / "textbook-symbol.json").read_text()
    for wrong in (
        text.replace('\\"BatchNorm\\"', '\\"Later\\"'),
        text.replace('\\"momentum\\"', '\\"later\\"'),
        text.replace('[\\"Batch', "[["),
    ):
        assert wrong != text
        with pytest.raises(mx.MXNetError):
            mx.sym.load_json(wrong)
        assert "this gluon_bn cannot make the layer" in capfd.readouterr().out
