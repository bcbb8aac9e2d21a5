"""Population statistics, folding and conversion, against NumPy in float64 and Gluon's layers."""

import subprocess
import sys

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, nd
from mxnet.gluon import nn

from gluon_bn import BatchNorm, BatchRenorm, ConditionalBatchNorm, GroupNorm, kernels
from gluon_bn.inference import (
    ScaleShift,
    fold_batch_norm,
    from_gluon,
    optimize,
    population_statistics,
    recalibrate,
    to_gluon,
)
from gluon_bn.models import densenet, lenet, resnet18
from gluon_bn.runtime import settle

either = pytest.mark.parametrize("norm", ["auto", "gluon"])
hybrid = pytest.mark.parametrize("hybridized", [False, True])


def numbers(*shape, seed=0):
    return nd.array(np.random.default_rng(seed).normal(size=shape).astype("float32"))


def parameters(net):
    return net._collect_params_with_prefix()


def values(net):
    settle()
    return {name: p.data().asnumpy() for name, p in parameters(net).items()}


def layers_of(net, kind):
    found = []
    net.apply(lambda block: found.append(block) if isinstance(block, kind) else None)
    return found


def started(net, *inputs, seed=1):
    """Initialized, with gamma, beta and running statistics as a trained network may have them."""
    mx.random.seed(seed)
    net.initialize(mx.init.Xavier())
    net(*inputs)
    for name, parameter in parameters(net).items():
        if name.endswith(("gamma", "running_var")):
            parameter.set_data(nd.random.uniform(0.2, 3, parameter.shape))
        elif name.endswith(("beta", "running_mean", "bias")):
            parameter.set_data(nd.random.normal(0, 0.5, parameter.shape))
    return net


def sequence(*layers):
    net = nn.HybridSequential()
    net.add(*layers)
    return net


def difference(a, b):
    return float(abs(a - b).max().asscalar())


# Population statistics ----------------------------------------------------------------------------


def two_layers(norm):
    new = {"auto": BatchNorm, "gluon": nn.BatchNorm}[norm]
    return sequence(nn.Dense(5), new(), nn.Activation("tanh"), nn.Dense(3), new())


def in_numpy(net, batches, epsilon=1e-5):
    """What enters the two norms of `two_layers`, computed in float64, all batches together."""
    p = {name: value.astype("float64") for name, value in values(net).items()}
    first, second = [], []
    for X in batches:
        x = X.asnumpy().astype("float64") @ p["0.weight"].T + p["0.bias"]
        first.append(x)
        x = (x - x.mean(0)) / np.sqrt(x.var(0) + epsilon) * p["1.gamma"] + p["1.beta"]
        second.append(np.tanh(x) @ p["3.weight"].T + p["3.bias"])
    return {"1": np.concatenate(first), "4": np.concatenate(second)}


@either
@hybrid
def test_population_statistics_are_those_of_all_examples(norm, hybridized):
    batches = [numbers(n, 4, seed=n) + n for n in (8, 7, 3)]  # they differ, and the last is short
    net = started(two_layers(norm), batches[0])
    if hybridized:
        net.hybridize()
        net(batches[0])
    before, out = values(net), net(batches[0])
    found = population_statistics(net, [(X, "label") for X in batches])
    assert list(found) == ["1", "4"]
    for name, entered in in_numpy(net, batches).items():
        mean, var = found[name]
        assert mean.dtype == var.dtype == np.float64
        np.testing.assert_allclose(mean, entered.mean(0), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(var, entered.var(0), rtol=1e-5)
    for name, value in values(net).items():
        assert np.array_equal(value, before[name]), name
    assert np.array_equal(net(batches[0]).asnumpy(), out.asnumpy())
    assert net._active is hybridized


def test_a_batch_without_examples_is_refused():
    batches = [numbers(8, 4), numbers(8, 4)[8:]]
    net = started(two_layers("auto"), batches[0])
    before = values(net)
    with pytest.raises(ValueError, match="nothing to measure"):
        recalibrate(net, batches)
    assert all(np.array_equal(value, before[name]) for name, value in values(net).items())


@either
@hybrid
def test_recalibrate_sets_them_and_nothing_else(norm, hybridized):
    batches = [numbers(n, 4, seed=n) for n in (8, 5)]
    net = started(two_layers(norm), batches[0])
    if hybridized:
        net.hybridize()
        net(batches[0])
    before = values(net)
    recalibrate(net, iter(batches))  # once over the data is enough
    entered = in_numpy(net, batches)
    for name, value in values(net).items():
        layer, _, kind = name.rpartition(".")
        if kind == "running_mean":
            np.testing.assert_allclose(value, entered[layer].mean(0), rtol=1e-5, atol=1e-5)
        elif kind == "running_var":
            np.testing.assert_allclose(value, entered[layer].var(0), rtol=1e-5)
        else:
            assert np.array_equal(value, before[name]), name


def test_images_and_other_axes():
    X = numbers(6, 5, 4, 3) * 2 + 1
    for axis in (1, -1):
        net = started(sequence(BatchNorm(axis=axis)), X)
        mean, var = population_statistics(net, [X[:4], X[4:]])["0"]
        x = np.moveaxis(X.asnumpy().astype("float64"), axis, -1).reshape(-1, X.shape[axis])
        np.testing.assert_allclose(mean, x.mean(0), rtol=1e-5)
        np.testing.assert_allclose(var, x.var(0), rtol=1e-5)


def test_no_cancellation_on_an_offset():
    X = numbers(64, 3) + 1e4
    net = started(sequence(BatchNorm()), X)
    _, var = population_statistics(net, [X[:32], X[32:]])["0"]
    np.testing.assert_allclose(var, X.asnumpy().astype("float64").var(0), rtol=1e-4)


@hybrid
def test_dropout_drops_nothing(hybridized):
    X = numbers(8, 4)
    net = started(sequence(nn.Dropout(0.9), BatchNorm(), nn.Dropout(0.9), BatchNorm()), X)
    if hybridized:
        net.hybridize()
        net(X)
    with autograd.record():  # not even in training
        found = population_statistics(net, [X])
    np.testing.assert_allclose(found["1"][0], X.asnumpy().mean(0), atol=1e-6)
    np.testing.assert_allclose(found["3"][0], net[1].beta.data().asnumpy(), atol=1e-6)


def test_training_goes_on_afterwards():
    X = numbers(8, 4)
    net = started(two_layers("auto"), X)
    net.hybridize()
    trainer = gluon.Trainer(net.collect_params(), "sgd")
    recalibrate(net, [X])
    momentum, mean = net[1].momentum, net[1].running_mean.data().asnumpy()
    with autograd.record():
        loss = net(X).sum()
    loss.backward()
    trainer.step(8)
    x = in_numpy(net, [X])["1"]
    assert momentum == 0.9 and abs(x.mean()) > 0
    assert not np.array_equal(net[1].running_mean.data().asnumpy(), mean * 0)


def test_layers_with_further_state():
    X = numbers(8, 4) + 3
    renorm, debias = BatchRenorm(), BatchNorm(zero_debias=True)
    cumulative = BatchNorm(momentum=None)
    for layer in (renorm, debias, cumulative):
        started(layer, X)
        with autograd.train_mode():
            layer(X)
        recalibrate(layer, [X])
        np.testing.assert_allclose(
            layer.running_mean.data().asnumpy(), X.asnumpy().mean(0), rtol=1e-5
        )
    np.testing.assert_allclose(
        renorm.running_stddev.data().asnumpy(), np.sqrt(X.asnumpy().var(0) + 1e-5), rtol=1e-5
    )
    with autograd.train_mode():
        debias(X)  # the same batch again: the average stays where it is
        cumulative(X)
    for layer in (debias, cumulative):
        np.testing.assert_allclose(
            layer.running_mean.data().asnumpy(), X.asnumpy().mean(0), rtol=1e-5
        )


def test_conditional_and_frozen_layers():
    X, labels = numbers(6, 4), nd.array([0, 1, 2, 0, 1, 2])
    layer = started(ConditionalBatchNorm(4, 3), X, labels)
    found = recalibrate(layer, [(X, labels)], forward=lambda net, batch: net(*batch))
    np.testing.assert_allclose(found[""][1], X.asnumpy().var(0), rtol=1e-5)
    net = started(sequence(BatchNorm(use_global_stats=True), BatchNorm()), X)
    before = values(net)
    assert list(recalibrate(net, [X])) == ["1"]
    assert np.array_equal(values(net)["0.running_mean"], before["0.running_mean"])


def test_weights_of_examples_count():
    X, w = numbers(6, 4), nd.array([1, 2, 0, 1, 3, 1])
    layer = started(BatchNorm(), X)
    found = population_statistics(
        layer, [(X[:3], w[:3]), (X[3:], w[3:])], forward=lambda net, batch: net(*batch)
    )
    x = np.repeat(X.asnumpy().astype("float64"), w.asnumpy().astype(int), axis=0)
    np.testing.assert_allclose(found[""][0], x.mean(0), atol=1e-6)
    np.testing.assert_allclose(found[""][1], x.var(0), rtol=1e-5)


def test_shapes_known_only_from_the_data():
    X = numbers(8, 4)
    net = two_layers("auto")
    net.initialize()
    recalibrate(net, [X])
    mean = in_numpy(net, [X])["1"].mean(0)
    np.testing.assert_allclose(net[1].running_mean.data().asnumpy(), mean, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_measured():
    X = numbers(8, 4)
    net = started(two_layers("auto"), X)
    with pytest.raises(ValueError, match="no batch$"):
        recalibrate(net, [])
    with pytest.raises(ValueError, match="no batch norm layer"):
        recalibrate(started(sequence(nn.Dense(2)), X), [X])
    before = values(net)
    with pytest.raises(ValueError, match="'1' is not finite"):
        recalibrate(net, [X, X * np.nan])
    with pytest.raises(ValueError, match=r"does not take float32 of shape \(8, 5\)"):
        recalibrate(net, [X, numbers(8, 5)])  # an error in the middle of the data
    with pytest.raises(TypeError, match=r"one array, of shape \(8, 4\)"):
        recalibrate(net, X)
    with pytest.raises(TypeError, match="got ndarray"):
        recalibrate(net, [X.asnumpy()])
    with pytest.raises(TypeError, match="a Gluon network is expected, got int"):
        recalibrate(3, [X])
    assert all(np.array_equal(value, before[name]) for name, value in values(net).items())
    assert "forward" not in net[1].__dict__
    per_class = ConditionalBatchNorm(4, 3, per_class_statistics=True)
    with pytest.raises(ValueError, match="per class"):
        recalibrate(per_class, [X])


# Folding ------------------------------------------------------------------------------------------


def realistic(model, norm, X):
    """A network whose statistics are those of 64 images and whose gammas are not ones."""
    net = started(model(norm), X)
    recalibrate(net, [X])
    return net


@pytest.mark.parametrize(
    "model, left",
    [
        (lenet, 0),
        (resnet18, 0),
        (lambda norm: resnet18(norm, preactivation=True), 9),
        (lambda norm: resnet18(norm, small=True), 0),
        (lambda norm: densenet(norm, small=True), 11),
    ],
)
@either
def test_folded_models_predict_the_same(model, left, norm):
    X = nd.random.uniform(shape=(64, 1, 28, 28))
    net = realistic(model, norm, X)
    net.hybridize()
    before, out = values(net), net(X)
    folded = fold_batch_norm(net, X[:2])
    assert difference(folded(X), out) < 1e-4 and float(abs(out).max().asscalar()) > 0.1
    assert len(layers_of(folded, ScaleShift)) == left
    assert not layers_of(folded, (BatchNorm, nn.BatchNorm))
    for static in (False, True):
        folded.hybridize(static_alloc=static, static_shape=static)
        for _ in range(2):  # MXNet reorders weights in the first call
            assert difference(folded(X), out) < 1e-4
    after = values(net)  # the network is as it was
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert np.array_equal(net(X).asnumpy(), out.asnumpy())


LINEAR = {
    "convolution": (lambda: nn.Conv2D(6, 3, groups=2), (2, 4, 8, 8), 1, 0),
    "without bias": (lambda: nn.Conv2D(6, 3, use_bias=False), (2, 4, 8, 8), 1, 0),
    "1D": (lambda: nn.Conv1D(6, 3, use_bias=False), (2, 4, 8), 1, 0),
    "transposed": (lambda: nn.Conv2DTranspose(6, 3, strides=2), (2, 4, 5, 5), 1, 0),
    "transposed, groups": (
        lambda: nn.Conv2DTranspose(6, 3, groups=2, in_channels=4),
        (2, 4, 5, 5),
        1,
        0,
    ),
    "dense": (lambda: nn.Dense(6, use_bias=False), (2, 4, 3), 1, 0),
    "dense on the last axis": (lambda: nn.Dense(6, flatten=False), (2, 3, 4), -1, 0),
    "dense, norm on the other axis": (lambda: nn.Dense(6, flatten=False), (2, 3, 4), 1, 1),
    "convolution, other axis": (lambda: nn.Conv2D(6, 3), (2, 4, 8, 8), 3, 1),
    "activation between": (lambda: nn.Conv2D(6, 3, activation="relu"), (2, 4, 8, 8), 1, 1),
}


@pytest.mark.parametrize("case", LINEAR)
@pytest.mark.parametrize(
    "new",
    [
        BatchNorm,
        nn.BatchNorm,
        nn.BatchNormReLU,
        lambda axis: BatchNorm(axis=axis, activation="tanh"),
        lambda axis: BatchNorm(axis=axis, scale=False, center=False, epsilon=0.1),
        lambda axis: nn.BatchNorm(axis=axis, scale=False, center=False, epsilon=0.1),
        lambda axis: BatchRenorm(axis=axis),
        lambda axis: BatchNorm(axis=axis, momentum=None),
    ],
)
def test_folded_layers(case, new):
    linear, shape, axis, left = LINEAR[case]
    X = numbers(*shape)
    if new is nn.BatchNormReLU and (len(shape) < 4 or axis != 1 or "activation" in case):
        pytest.skip("BatchNormReLU of MXNet 1.9.1 takes only what MKL-DNN computes")
    net = started(sequence(linear(), new(axis=axis)), X)
    folded = fold_batch_norm(net, X)
    assert difference(folded(X), net(X)) < 1e-4
    assert len(layers_of(folded, ScaleShift)) == left


class Uses(nn.HybridBlock):
    """A convolution and a norm in ways that a fold must see."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        with self.name_scope():
            self.conv, self.norm = nn.Conv2D(4, 3, padding=1), BatchNorm()
            if how == "weights shared":
                self.other = nn.Conv2D(4, 3, padding=1, params=self.conv.params)

    def hybrid_forward(self, F, X):
        Y = self.conv(X)
        return {
            "once": lambda: self.norm(Y),
            "convolution used again": lambda: self.norm(Y) + Y,
            "convolution is a result": lambda: F.concat(self.norm(Y), Y, dim=1),
            "convolution called twice": lambda: self.norm(Y) + self.conv(Y),
            "norm called twice": lambda: self.norm(self.norm(Y)),
            "weights shared": lambda: self.norm(Y) + self.other(X),
            "norm first": lambda: self.conv(self.norm(X)),
        }[self.how]()


@pytest.mark.parametrize(
    "how, left",
    [
        ("once", 0),
        ("convolution used again", 1),
        ("convolution is a result", 1),
        ("convolution called twice", 1),
        ("norm called twice", 1),
        ("weights shared", 1),
        ("norm first", 1),
    ],
)
@hybrid
def test_only_what_nothing_else_uses_is_folded(how, left, hybridized):
    X = numbers(2, 4, 5, 5)
    net = started(Uses(how), X)
    if hybridized:
        net.hybridize()
    folded = fold_batch_norm(net, X)
    assert len(layers_of(folded, ScaleShift)) == left
    assert difference(folded(X), net(X)) < 1e-4


@either
@pytest.mark.parametrize("model, folded, scaled", [(lenet, 4, 0), (densenet, 1, 20)])
def test_optimize_does_all_of_it_and_says_so(model, folded, scaled, norm):
    X, others = numbers(3, 1, 28, 28), numbers(3, 1, 28, 28, seed=1)
    net = realistic(model, norm, X)
    before, said = values(net), []
    fast = optimize(net, X, said.append)
    assert not layers_of(fast, (BatchNorm, nn.BatchNorm))
    assert len(layers_of(fast, ScaleShift)) == scaled
    assert f"{folded + scaled} batch norms: {folded} folded" in said[0]
    assert fast._active and {("static_alloc", True), ("static_shape", True)} <= set(fast._flags)
    for batch in (X, others, others[:2]):
        assert difference(fast(batch), net(batch)) < 1e-3 * float(abs(net(batch)).max().asscalar())
    after = values(net)
    assert all((before[name] == after[name]).all() for name in before) and not net._active


def test_what_optimize_refuses(capsys):
    X = numbers(2, 3)
    net = started(sequence(nn.Dense(4), BatchNorm()), X)
    optimize(net, X)
    assert "1 batch norms: 1 folded" in capsys.readouterr().out
    net[1].running_var.set_data(nd.full((4,), np.nan))
    with pytest.raises(ValueError, match="predicts something else"):
        optimize(net, X)
    with pytest.raises(ValueError, match="does not take"):
        optimize(started(sequence(nn.Dense(4), BatchNorm()), X), numbers(2, 5))

    class Imperative(gluon.Block):
        def __init__(self):
            super().__init__()
            self.norm = BatchNorm()

        def forward(self, X):
            return self.norm(X) if X.sum().asscalar() else X

    with pytest.raises(ValueError, match="cannot be drawn as a graph"):
        optimize(started(Imperative(), X), X)


def test_fold_saves_and_exports(tmp_path):
    X = numbers(64, 1, 28, 28)
    net = realistic(lenet, "auto", X)
    folded = fold_batch_norm(net, X)
    folded.hybridize()
    folded(X)
    folded.export(str(tmp_path / "folded"))
    loaded = gluon.SymbolBlock.imports(
        str(tmp_path / "folded-symbol.json"), ["data"], str(tmp_path / "folded-0000.params")
    )
    assert difference(loaded(X), net(X)) < 1e-4
    assert "BatchNorm" not in (tmp_path / "folded-symbol.json").read_text()


def test_fold_in_other_types_and_under_numpy_semantics():
    X = numbers(2, 3, 6, 6)
    for dtype, tolerance in (("float64", 1e-12), ("float16", 2e-2)):
        layers = [nn.Conv2D(4, 3), BatchNorm(), nn.Activation("relu"), BatchNorm()]
        if dtype == "float16":
            del layers[0]  # MXNet has no float16 convolution on a CPU
        net = started(sequence(*layers), X)
        net.cast(dtype)
        folded = fold_batch_norm(net, X.astype(dtype))
        assert folded(X.astype(dtype)).dtype == np.dtype(dtype)
        assert difference(folded(X.astype(dtype)), net(X.astype(dtype))) < tolerance
    mx.npx.set_np()
    try:
        x = mx.np.array(X.asnumpy())
        net = sequence(nn.Conv2D(4, 3), BatchNorm(), nn.Activation("relu"), BatchNorm())
        net.initialize()
        recalibrate(net, [x])
        folded = fold_batch_norm(net, x)
        assert abs(folded(x).asnumpy() - net(x).asnumpy()).max() < 1e-5
        assert len(layers_of(folded, ScaleShift)) == 1
        assert abs(to_gluon(net)(x).asnumpy() - net(x).asnumpy()).max() < 1e-5
    finally:
        mx.npx.reset_np()


class Imperative(nn.Block):
    def __init__(self):
        super().__init__()
        self.norm = BatchNorm()

    def forward(self, X):
        return nd.relu(self.norm(X))


class Functional(nn.HybridBlock):
    def __init__(self):
        super().__init__()
        for name in ("gamma", "beta", "running_mean", "running_var"):
            setattr(self, name, self.params.get(name, shape=(4,), init="ones"))

    def hybrid_forward(self, F, X, gamma, beta, running_mean, running_var):
        return F.BatchNorm(X, gamma, beta, running_mean, running_var)


def test_what_cannot_be_folded():
    X, labels = numbers(2, 4), nd.array([0, 1])
    with pytest.raises(ValueError, match="'' is a ConditionalBatchNorm"):
        fold_batch_norm(started(ConditionalBatchNorm(4, 2), X, labels), (X, labels))
    with pytest.raises(ValueError, match="HybridBlock"):
        fold_batch_norm(started(Imperative(), X), X)
    with pytest.raises(ValueError, match="no BatchNorm layer"):
        fold_batch_norm(started(Functional(), X), X)
    broken = started(sequence(nn.Dense(4), BatchNorm()), X)
    broken[1].running_var.set_data(nd.array([1, np.nan, 1, 1]))
    with pytest.raises(ValueError, match="recalibrate"):
        fold_batch_norm(broken, X)
    with pytest.raises(ValueError, match=r"does not take float32 of shape \(2, 5\)"):
        fold_batch_norm(broken, numbers(2, 5))
    with pytest.raises(TypeError, match="a Gluon network is expected, got int"):
        fold_batch_norm(3, X)


# Conversion ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [lenet, lambda norm: resnet18(norm, small=True), lambda norm: densenet(norm, small=True)],
)
@hybrid
def test_there_and_back_bit_for_bit(model, hybridized):
    X = nd.random.uniform(shape=(4, 1, 28, 28))
    ours = started(model("auto"), X)
    if hybridized:
        ours.hybridize()
    out = ours(X)
    theirs = to_gluon(ours)
    back = from_gluon(theirs, kernel="textbook")
    assert len(layers_of(theirs, nn.BatchNorm)) == len(layers_of(ours, BatchNorm)) > 0
    assert not layers_of(theirs, BatchNorm) and not layers_of(back, nn.BatchNorm)
    assert {layer.kernel for layer in layers_of(back, BatchNorm)} == {"textbook"}
    for copy in (theirs, back):
        assert list(values(copy)) == list(values(ours))
        for name, value in values(ours).items():
            assert np.array_equal(values(copy)[name], value), name
    assert difference(theirs(X), out) < 1e-4
    if not hybridized:  # a CustomOp behind a convolution: see test_resnet_densenet
        assert difference(back(X), out) < 1e-4
    theirs.collect_params().setattr("lr_mult", 0)
    theirs[0].weight.set_data(theirs[0].weight.data() * 0)
    assert np.array_equal(ours(X).asnumpy(), out.asnumpy())  # nothing is shared
    assert ours[0].weight.lr_mult == 1


def test_options_are_carried_over():
    X = numbers(3, 5, 4)
    options = {
        "axis": 2,
        "momentum": 0.7,
        "epsilon": 0.01,
        "use_global_stats": True,
        "scale": False,
    }
    net = sequence(BatchNorm(center=False, **options))
    net.initialize()
    net(X)
    theirs = to_gluon(net)
    assert theirs[0]._kwargs == {
        "axis": 2,
        "momentum": 0.7,
        "eps": 0.01,
        "fix_gamma": True,
        "use_global_stats": True,
    }
    assert theirs[0].beta.grad_req == theirs[0].gamma.grad_req == "null"
    back = from_gluon(theirs)[0]
    assert {name: getattr(back, name) for name in options} == options and not back.center
    assert not hasattr(from_gluon(sequence(nn.BatchNorm()))[0], "num_batches")


def test_gluons_fixed_beta_is_kept():
    X = numbers(3, 5)
    theirs = started(sequence(nn.BatchNorm(center=False)), X)  # beta is not zero, and Gluon adds it
    assert difference(from_gluon(theirs)(X), theirs(X)) < 1e-5


def test_activation_becomes_a_layer():
    X = numbers(3, 5)
    net = started(sequence(nn.Dense(4), BatchNorm(activation="sigmoid")), X)
    theirs = to_gluon(net)
    assert difference(theirs(X), net(X)) < 1e-5
    X = numbers(3, 16, 4, 4)
    relu = started(sequence(nn.BatchNormReLU()), X)
    assert from_gluon(relu)[0].activation == "relu"
    assert difference(from_gluon(relu)(X), relu(X)) < 1e-5


def test_copies_train():
    X = numbers(8, 4)
    for net, convert in ((two_layers("auto"), to_gluon), (two_layers("gluon"), from_gluon)):
        started(net, X)
        net.hybridize()
        trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
        with autograd.record():
            (net(X) ** 2).sum().backward()
        copy = convert(net)
        with autograd.record():
            (copy(X) ** 3).sum().backward()
        gluon.Trainer(copy.collect_params(), "sgd", {"learning_rate": 0.1}).step(8)
        assert not np.array_equal(values(copy)["0.weight"], values(net)["0.weight"])
        assert (copy[0].weight.grad() != net[0].weight.grad()).sum() > 0
        assert not np.array_equal(values(copy)["1.running_mean"], values(net)["1.running_mean"])
        trainer.step(8)


def test_before_initialization():
    net = to_gluon(two_layers("auto"))
    net.initialize()
    assert net(numbers(2, 4)).shape == (2, 3)
    deferred = two_layers("gluon")
    deferred.initialize()
    assert from_gluon(deferred)(numbers(2, 4)).shape == (2, 3)


def test_a_part_of_a_network_and_lists_of_layers():
    class Listed(nn.HybridBlock):
        def __init__(self):
            super().__init__()
            with self.name_scope():
                self.layers = [BatchNorm(), BatchNorm()]
                for layer in self.layers:
                    self.register_child(layer)

        def hybrid_forward(self, F, X):
            for layer in self.layers:
                X = layer(X)
            return X

    X = numbers(3, 5)
    net = nn.HybridSequential()
    with net.name_scope():
        net.add(nn.Dense(4), Listed())
    started(net, X)
    net.hybridize()
    net(X)
    theirs = to_gluon(net[1])
    assert [type(layer) for layer in theirs.layers] == [nn.BatchNorm] * 2
    assert difference(theirs(net[0](X)), net(X)) < 1e-5


@pytest.mark.parametrize(
    "layer, option",
    [
        (lambda: BatchNorm(momentum=None), "momentum=None"),
        (lambda: BatchNorm(unbiased=True), "unbiased"),
        (lambda: BatchNorm(zero_debias=True), "zero_debias"),
        (lambda: BatchRenorm(), "BatchRenorm"),
        (lambda: BatchNorm(center=False, beta_initializer="ones"), "center=False"),
        (lambda: ConditionalBatchNorm(4, 2), "ConditionalBatchNorm"),
        (lambda: GroupNorm(), "GroupNorm"),
    ],
)
def test_what_gluon_has_not(layer, option):
    net = sequence(nn.Dense(4), layer())
    net.initialize()
    net[0](numbers(2, 4))
    if option == "center=False":
        net(numbers(2, 4))
    with pytest.raises(ValueError, match=f"layer '1' .*{option}"):
        to_gluon(net)


def test_what_is_not_gluons():
    class Mine(nn.BatchNorm):
        pass

    with pytest.raises(ValueError, match="layer '0' is a Mine"):
        from_gluon(sequence(Mine()))
    with pytest.raises(ValueError, match="kernel"):
        from_gluon(sequence(nn.Dense(3)), kernel="quick")
    data = mx.sym.var("data")
    with pytest.raises(ValueError, match="SymbolBlock"):
        from_gluon(gluon.SymbolBlock(mx.sym.relu(data), data))
    with pytest.raises(TypeError, match="network"):
        to_gluon(lambda X: X)


@pytest.mark.skipif("native" not in kernels.available(), reason="needs a network to hybridize")
def test_export_is_loaded_without_this_package(tmp_path):
    X = nd.random.uniform(shape=(2, 1, 28, 28))
    net = started(resnet18(small=True), X)
    net.hybridize()
    out = net(X)
    theirs = to_gluon(net)
    theirs(X)  # hybridized, as the network is
    theirs.export(str(tmp_path / "net"))
    nd.save(str(tmp_path / "X"), X)
    code = """if True:
        import sys
        import mxnet as mx
        net = mx.gluon.SymbolBlock.imports("net-symbol.json", ["data"], "net-0000.params")
        mx.nd.save("Y", net(mx.nd.load("X")[0]))
        assert "gluon_bn" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert difference(nd.load(str(tmp_path / "Y"))[0], out) < 1e-4
