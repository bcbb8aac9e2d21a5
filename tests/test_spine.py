"""From `layer(X)` to the equations: whichever kernel computes, a function called `batch_norm` of
that kernel runs, and parts can be exchanged on the way."""

import ast
import inspect
import sys
import textwrap
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, nd
from mxnet.gluon import nn

import gluon_bn
from gluon_bn import BatchNorm, BatchRenorm, ConditionalBatchNorm, LayerNorm, functional, kernels
from gluon_bn.inference import to_gluon
from gluon_bn.kernels import native_graph
from gluon_bn.models.layers import Network

KERNELS = kernels.available()
SEVEN = ["X", "gamma", "beta", "moving_mean", "moving_var", "eps", "momentum"]


def started(layer, *inputs):
    layer.initialize()
    layer(*inputs)
    return layer


def functions_run(call):
    """(file, name) of each Python function that `call` runs, in this thread."""
    seen = []

    def profile(frame, event, _):
        if event == "call":
            seen.append((frame.f_code.co_filename, frame.f_code.co_name))

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return seen


# ----------------------------------------------------------------------------------- the functions


def test_the_lesson_is_short_and_printed_whole():
    source = inspect.getsource(gluon_bn.batch_norm)
    function = ast.parse(textwrap.dedent(source)).body[0]
    first, last = function.body[1].lineno, function.body[-1].end_lineno
    lines = [line for line in source.splitlines()[first - 1 : last] if line.strip()]
    assert function.name == "batch_norm" and len(lines) <= 14
    called = {
        node.func.id
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert called == {"moments", "normalize", "moving_average", "bessel", "tuple", "range"}
    assert gluon_bn.batch_norm is functional.batch_norm is kernels.get("textbook").batch_norm


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_is_another_body_of_the_same_function(name):
    """The same seven arguments in every shape and type, the same results in shape and type."""
    function = kernels.get(name).batch_norm
    assert list(inspect.signature(function).parameters)[:7] == SEVEN
    assert inspect.signature(function).parameters["axis"].default == 1
    rng = np.random.RandomState(0)
    x = rng.standard_normal((5, 3, 4, 2)) * 2 + 1
    for kind in (nd.array, mx.np.array):
        for shape, rows in (((3,), 1), ((1, 3, 1, 1), 1), ((5, 3, 1, 1), 5)):
            for dtype in ("float16", "float32", "float64"):
                X = kind(x, dtype=dtype)
                own = shape if rows == 1 else (1, 3, 1, 1)
                gamma, beta = (kind(rng.standard_normal(shape), dtype=dtype) for _ in range(2))
                for training in (True, False):
                    results = []
                    for each in (function, functional.batch_norm):
                        given = kind(np.ones(own), dtype=dtype), kind(np.ones(own), dtype=dtype)
                        with autograd.record(train_mode=training):
                            results.append(each(X, gamma, beta, *given, 1e-5, 0.75))
                    for ours, wanted in zip(*results):
                        assert type(ours) is type(wanted) and ours.dtype == wanted.dtype
                        np.testing.assert_allclose(
                            ours.asnumpy(),
                            wanted.asnumpy(),
                            atol=2e-2 if dtype == "float16" else 2e-4,
                        )


@pytest.mark.parametrize("name", KERNELS)
def test_momentum_0_hands_back_the_batch_and_what_moves_in_place_is_what_was_given(name):
    X = nd.random.normal(3, 2, shape=(6, 3, 4))
    mean, var = nd.zeros(3), nd.ones(3)
    with autograd.train_mode():
        _, *moved = kernels.get(name).batch_norm(X, None, None, mean, var, 1e-5, 0)
    for ours, wanted in zip(moved, functional.moments(X, (0, 2))):
        np.testing.assert_allclose(ours.asnumpy(), wanted.asnumpy(), atol=1e-4)
    for given, new, before in ((mean, moved[0], 0), (var, moved[1], 1)):
        assert new is given or (given.asnumpy() == before).all()
    _, *same = kernels.get(name).batch_norm(X, None, None, mean, var, 1e-5, 0.9)
    assert same[0] is mean and same[1] is var


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(
    "change, error",
    [
        ({"eps": 0}, "eps"),
        ({"momentum": 2}, "momentum"),
        ({"gamma": nd.ones(4)}, "gamma"),
        ({"moving_mean": nd.ones((5, 3))}, "moving_mean"),
        ({"X": nd.ones(3)}, "rank 1"),
    ],
)
def test_every_kernel_refuses_what_the_lesson_refuses(name, change, error):
    good = {
        "X": nd.ones((5, 3)),
        "gamma": nd.ones(3),
        "beta": nd.ones(3),
        "eps": 1e-5,
        "moving_mean": nd.ones(3),
        "moving_var": nd.ones(3),
        "momentum": 0.9,
    }
    with pytest.raises(ValueError, match=error):
        kernels.get(name).batch_norm(**{**good, **change})


# ------------------------------------------------------------------------------- who imports whom

ORDER = [
    "arguments",
    "reductions",
    "checked",
    "functional",
    "runtime",
    "kernels",
    "workers",
    "graph",
    "base",
    "averages",
    "affine",
    "blocks",
    "conditional",
    "weight_norms",
    "relatives",
    "models",
]
PACKAGE = Path(gluon_bn.__file__).parent


def imported_by(file):
    """The modules of the package that this file names in an import, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("gluon_bn.")}
    return found & {path.stem for path in PACKAGE.iterdir()}


def test_dependencies_point_one_way():
    for file in sorted(PACKAGE.rglob("*.py")):
        module = file.relative_to(PACKAGE).with_suffix("").parts[0]
        needs = imported_by(file) - {module}
        assert "cli" not in needs or module == "__main__", file
        if module == "check":
            assert not needs, file
        if module in ORDER:
            assert needs <= set(ORDER[: ORDER.index(module)]), (file, needs)


# -------------------------------------------------------------------------------------- the Blocks


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("name", KERNELS)
def test_a_block_runs_batch_norm_of_its_kernel(name, conditional, monkeypatch):
    X, labels = nd.random.normal(shape=(6, 3, 4, 4)), nd.arange(6) % 2
    inputs = (X, labels) if conditional else (X,)
    layer = ConditionalBatchNorm(3, 2, kernel=name) if conditional else BatchNorm(kernel=name)
    started(layer, *inputs)
    module = kernels.get(name)
    home = functional.__file__ if name == "textbook" else module.__file__
    for mode in (autograd.record(), autograd.predict_mode()):
        with mode:
            ran = functions_run(lambda: layer(*inputs))
        assert ran.count((home, "batch_norm")) == 1
        if name == "textbook":
            assert (home, "normalize") in ran
    calls = []

    def spy(*arguments, **options):
        calls.append(arguments[5:7])
        return true(*arguments, **options)

    true = module.batch_norm
    monkeypatch.setattr(module, "batch_norm", spy)
    with autograd.record():
        layer(*inputs)
    layer(*inputs)
    assert calls == [(1e-5, 0.9)] * 2


class Largest:
    """An average of one's own: the largest variance that any batch had, and the mean of that."""

    by_kernel, states = False, {}

    def moved(self, layer, mean, var, running_mean, running_var):
        larger = var > running_var
        return {
            "running_mean": nd.where(larger, mean, running_mean),
            "running_var": nd.where(larger, var, running_var),
        }


@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize("kernel", ["auto", *KERNELS])
def test_an_average_of_ones_own(kernel, hybridize):
    class Careful(BatchNorm):
        def __init__(self, *args, **options):
            super().__init__(*args, average=Largest(), **options)

    layer, net = Careful(3, kernel=kernel), nn.HybridSequential()
    net.add(layer)
    net.initialize()
    if hybridize:
        net.hybridize()
    widest = nd.random.normal(2, 5, shape=(50, 3))
    for X in (nd.random.normal(shape=(50, 3)), widest, nd.random.normal(shape=(50, 3))):
        with autograd.record():
            net(X)
    nd.waitall()
    wanted = functional.moments(widest, 0)
    for name, value in zip(("running_mean", "running_var"), wanted):
        np.testing.assert_allclose(
            getattr(layer, name).data().asnumpy(), value.asnumpy(), rtol=1e-3
        )
    with pytest.raises(ValueError, match="Careful|average"):
        to_gluon(net)
    plugged = started(BatchNorm(average=Largest()), widest)
    with pytest.raises(ValueError, match="an average of its own, a Largest"):
        to_gluon(plugged)


# ----------------------------------------------------------------------------------------- axis 0


@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize("kernel", ["auto", *KERNELS])
@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 6), (16, 20, 5, 6), (3, 4, 20, 20)])
def test_channels_on_axis_0(shape, kernel, hybridize):
    """Three steps and a prediction beside Gluon's layer."""
    rng, nets = np.random.RandomState(0), []
    for layer in (BatchNorm(axis=0, kernel=kernel), nn.BatchNorm(axis=0)):
        net = nn.HybridSequential()
        net.add(layer)
        net.initialize()
        if hybridize:
            net.hybridize()
        nets.append(net)
    for step in range(3):
        x, up = rng.standard_normal(shape) * 2 + step, nd.array(rng.standard_normal(shape))
        found = []
        for net in nets:
            X = nd.array(x)
            X.attach_grad()
            with autograd.record():
                Y = net(X)
            Y.backward(up)
            nd.waitall()
            found.append(
                [
                    Y,
                    X.grad,
                    net(X),
                    *(
                        p.data() if p.grad_req == "null" else p.grad()
                        for p in net.collect_params().values()
                    ),
                ]
            )
        for ours, theirs in zip(*found):
            np.testing.assert_allclose(ours.asnumpy(), theirs.asnumpy(), rtol=1e-3, atol=2e-3)
    assert nets[0][0].gamma.shape == (shape[0],)


@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 6), (6, 2, 5, 6)])
def test_layer_norm_over_axis_0(shape, hybridize):
    rng, found = np.random.RandomState(0), []
    x, up = rng.standard_normal(shape), nd.array(rng.standard_normal(shape))
    for layer in (LayerNorm(axis=0), nn.LayerNorm(axis=0)):
        net = nn.HybridSequential()
        net.add(layer)
        net.initialize()
        if hybridize:
            net.hybridize()
        X = nd.array(x)
        X.attach_grad()
        with autograd.record():
            Y = net(X)
        Y.backward(up)
        found.append([Y, X.grad, layer.gamma.grad(), layer.beta.grad()])
    for ours, theirs in zip(*found):
        np.testing.assert_allclose(ours.asnumpy(), theirs.asnumpy(), rtol=1e-3, atol=1e-4)


def test_what_goes_with_axis_0_and_what_does_not():
    X = nd.random.normal(shape=(3, 8))
    for make in (
        lambda **axis: BatchNorm(unbiased=True, momentum=None, **axis),
        lambda **axis: BatchNorm(zero_debias=True, **axis),
        BatchRenorm,
    ):
        results = []
        for axis, x in ((0, X), (-2, X), (1, X.T)):
            layer = started(make(axis=axis), x)
            with autograd.record():
                Y = layer(x)
            results.append(
                [Y if axis < 1 else Y.T, layer.running_mean.data(), layer.running_var.data()]
            )
        for one, *others in zip(*results):
            for other in others:
                np.testing.assert_allclose(one.asnumpy(), other.asnumpy(), atol=1e-5)
    with pytest.raises(ValueError, match="axis 0 is the batch"):
        ConditionalBatchNorm(3, 2, axis=0)
    with pytest.raises(ValueError, match="weights are given to examples, on axis 0"):
        started(BatchNorm(axis=0), X)(X, nd.ones(3))
    for axis in (-2, 0):
        with pytest.raises(ValueError, match="axis 0 is the batch"):
            started(ConditionalBatchNorm(3, 2, axis=axis), X, nd.zeros(3))


# ------------------------------------------------------------- activations, in a hybridized network

native_only = pytest.mark.skipif("native" not in KERNELS, reason="no C++ compiler")


class Branching(nn.HybridBlock):
    """What a batch norm returns, read by a relu and by somebody else."""

    def __init__(self, second):
        super().__init__()
        with self.name_scope():
            self.first, self.norm = nn.Conv2D(4, 3), BatchNorm()
            self.relu, self.second, self.last = nn.Activation("relu"), second, nn.Dense(2)

    def hybrid_forward(self, F, X):
        A = self.norm(self.first(X))
        return self.last(self.relu(A) + self.second(A))


@pytest.mark.parametrize("second", ["identity", "relu", "sigmoid", "none"])
def test_a_batch_norm_that_is_read_twice_trains_right(second):
    """Beside the same network that is not hybridized: outputs, weights, statistics, moved once."""

    def network():
        blocks = {
            "identity": gluon.nn.HybridLambda(lambda F, A: A * 2),
            "relu": nn.Activation("relu"),
            "sigmoid": nn.Activation("sigmoid"),
            "none": gluon.nn.HybridLambda(lambda F, A: F.zeros_like(A)),
        }
        net = Network()
        net.add(Branching(blocks[second]))
        mx.random.seed(0)
        net.initialize(mx.init.Xavier())
        return net

    rng, found = np.random.RandomState(0), []
    data = [nd.array(rng.standard_normal((6, 2, 7, 7))) for _ in range(3)]
    for hybridize in (False, True):
        net = network()
        if hybridize:
            net.hybridize()
        net(data[0])
        for i, p in enumerate(net.collect_params().values()):
            values = np.random.RandomState(i).standard_normal(p.shape) * 0.3
            p.set_data(nd.array(abs(values) + 0.5 if p.name.endswith("var") else values))
        trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
        for X in data:
            with autograd.record():
                Y = net(X)
                loss = (Y**2).mean()
            loss.backward()
            trainer.step(1)
        nd.waitall()
        found.append([Y, net(data[0]), *(p.data() for p in net.collect_params().values())])
    for imperative, hybridized in zip(*found):
        np.testing.assert_allclose(imperative.asnumpy(), hybridized.asnumpy(), rtol=2e-3, atol=2e-4)


def options_in(net):
    graph = net._cached_graph[1].get_internals().attr_dict()
    return [a["options"].split()[-1] for name, a in graph.items() if "gluon_bn_native" in name]


@native_only
def test_activations_move_into_the_operator_where_nobody_else_reads():
    def of(*layers):
        net = Network()
        net.add(*layers)
        net.initialize()
        net.hybridize()
        with autograd.record():
            net(nd.random.normal(shape=(4, 3, 5, 5)))
        return options_in(net)

    relu = [nn.Activation("relu")]
    assert of(BatchNorm(), *relu) == ["activation=relu"]
    assert of(BatchNorm(), nn.Activation("sigmoid"), BatchNorm()) == [
        "activation=sigmoid",
        "activation=none",
    ]
    assert of(BatchNorm(), nn.Activation("tanh")) == ["activation=none"]
    assert of(BatchNorm(activation="relu"), nn.Activation("sigmoid")) == ["activation=relu"]
    assert of(Branching(gluon.nn.HybridLambda(lambda F, A: A))) == ["activation=none"]
    # With an operator that calls Python in the graph, the step does nothing.
    assert of(BatchNorm(), *relu, LayerNorm(axis=1)) == ["activation=none"]


@native_only
def test_a_graph_that_was_exported_with_options_by_position(tmp_path):
    """As versions before the options had names wrote them."""
    net = Network()
    net.add(nn.Conv2D(3, 3), BatchNorm(unbiased=True, momentum=0.8), nn.Activation("sigmoid"))
    net.initialize()
    net.hybridize()
    X = nd.random.normal(shape=(4, 2, 6, 6))
    with autograd.record():
        net(X)
    net.export(str(tmp_path / "net"))
    file = tmp_path / "net-symbol.json"
    text = file.read_text()
    named = native_graph.options_of("graph", 1, 1e-5, 0.8, True, True, "sigmoid")
    assert named in text
    file.write_text(text.replace(named, "graph 1 1e-05 0.8 1 1 0 2"))
    read = gluon.SymbolBlock.imports(str(file), ["data"], str(tmp_path / "net-0000.params"))
    assert (read(X).asnumpy() == net(X).asnumpy()).all()
    for each in (read, net):
        with autograd.record():
            each(X * 3 + 1)
    nd.waitall()
    values = [
        [
            p.data().asnumpy()
            for name, p in sorted(each.collect_params().items())
            if "running" in name
        ]
        for each in (read, net)
    ]
    assert all((a == b).all() for a, b in zip(*values))
