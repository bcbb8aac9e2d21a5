"""ResNet-18 and DenseNet against d2l's code, written down once more with Gluon's layers only."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, nd
from mxnet.gluon import nn
from mxnet.gluon.loss import SoftmaxCrossEntropyLoss

from gluon_bn import kernels
from gluon_bn.models import MODELS, densenet, resnet18
from gluon_bn.runtime import settle

OWN = ["auto", *(name for name in kernels.available() if name != "gluon")]
cross_entropy = SoftmaxCrossEntropyLoss()


# d2l-zh 1, sections "ResNet" and "DenseNet" -------------------------------------------------------


class Residual(nn.Block):
    def __init__(self, num_channels, use_1x1conv=False, strides=1):
        super().__init__()
        self.conv1 = nn.Conv2D(num_channels, kernel_size=3, padding=1, strides=strides)
        self.conv2 = nn.Conv2D(num_channels, kernel_size=3, padding=1)
        self.conv3 = nn.Conv2D(num_channels, 1, strides=strides) if use_1x1conv else None
        self.norm1, self.norm2 = nn.BatchNorm(), nn.BatchNorm()

    def forward(self, X):
        Y = nd.relu(self.norm1(self.conv1(X)))
        Y = self.norm2(self.conv2(Y))
        if self.conv3:
            X = self.conv3(X)
        return nd.relu(Y + X)


class PreactivationResidual(Residual):
    """Not d2l's: figure 4(e) of He et al., 2016b."""

    def forward(self, X):
        A = nd.relu(self.norm1(X))
        Y = self.conv1(A)
        Y = self.conv2(nd.relu(self.norm2(Y)))
        return Y + X if self.conv3 is None else Y + self.conv3(A)


class DenseBlock(nn.Block):
    def __init__(self, num_convs, num_channels):
        super().__init__()
        self.layers = nn.Sequential()
        for _ in range(num_convs):
            layer = nn.Sequential()
            layer.add(
                nn.BatchNorm(),
                nn.Activation("relu"),
                nn.Conv2D(num_channels, kernel_size=3, padding=1),
            )
            self.layers.add(layer)

    def forward(self, X):
        for layer in self.layers:
            X = nd.concat(X, layer(X), dim=1)
        return X


class AveragePooling(nn.Block):
    """d2l's nn.AvgPool2D(2, 2); an odd last row or column is averaged alone."""

    def forward(self, X):
        odd = (X.shape[2] % 2, X.shape[3] % 2)
        X = nd.pad(X, mode="edge", pad_width=(0, 0, 0, 0, 0, odd[0], 0, odd[1]))
        return (
            X[:, :, 0::2, 0::2] + X[:, :, 1::2, 0::2] + X[:, :, 0::2, 1::2] + X[:, :, 1::2, 1::2]
        ) / 4


def stem(small, channels):
    if small:
        return [nn.Conv2D(channels, 3, 1, 1), nn.BatchNorm(), nn.Activation("relu")]
    return [
        nn.Conv2D(channels, kernel_size=7, strides=2, padding=3),
        nn.BatchNorm(),
        nn.Activation("relu"),
        nn.MaxPool2D(pool_size=3, strides=2, padding=1),
    ]


def independent_resnet18(preactivation=False, small=False):
    net, block = nn.Sequential(), PreactivationResidual if preactivation else Residual
    net.add(*stem(small, 16 if small else 64))
    for i, channels in enumerate([16, 32, 64, 128] if small else [64, 128, 256, 512]):
        stage = nn.Sequential()
        stage.add(block(channels, i > 0, 2 if i > 0 else 1), block(channels))
        net.add(stage)
    if preactivation:
        net.add(nn.BatchNorm(), nn.Activation("relu"))
    net.add(nn.GlobalAvgPool2D(), nn.Dense(10))
    return net


def independent_densenet(small=False):
    net = nn.Sequential()
    net.add(*stem(small, 16 if small else 64))
    num_convs_in_dense_blocks = [1, 3, 4] if small else [4, 4, 4, 4]
    growth_rates = [16, 48, 64] if small else [32, 32, 32, 32]
    after_transitions = [16, 80] if small else [96, 112, 120]
    for i, (num_convs, growth_rate) in enumerate(zip(num_convs_in_dense_blocks, growth_rates)):
        net.add(DenseBlock(num_convs, growth_rate))
        if i != len(num_convs_in_dense_blocks) - 1:
            transition = nn.Sequential()
            transition.add(
                nn.BatchNorm(),
                nn.Activation("relu"),
                nn.Conv2D(after_transitions[i], kernel_size=1),
                AveragePooling(),
            )
            net.add(transition)
    net.add(nn.BatchNorm(), nn.Activation("relu"), nn.GlobalAvgPool2D(), nn.Dense(10))
    return net


VARIANTS = [
    (resnet18, independent_resnet18, {}),
    (resnet18, independent_resnet18, {"preactivation": True}),
    (resnet18, independent_resnet18, {"small": True}),
    (densenet, independent_densenet, {}),
    (densenet, independent_densenet, {"small": True}),
]
variants = pytest.mark.parametrize("model, independent, options", VARIANTS)
small_ones = pytest.mark.parametrize("model", [resnet18, densenet])


def parameters(net):
    return net._collect_params_with_prefix()


def started(net, X, seed=1):
    """Initialized, with gamma, beta and running statistics that are not ones and zeros."""
    mx.random.seed(seed)
    net.initialize(mx.init.Xavier())
    net(X)
    for name, parameter in parameters(net).items():
        if name.endswith(("gamma", "running_var")):
            parameter.set_data(nd.random.uniform(0.5, 1.5, parameter.shape))
        elif not name.endswith("weight"):
            parameter.set_data(nd.random.normal(0, 0.1, parameter.shape))
    settle()
    return net


def images(*shape):
    return nd.array(np.random.default_rng(0).random(shape, dtype="float32"))


def train(net, X):
    """The scores in training mode, and a gradient of the first and of the last weight."""
    y = nd.arange(len(X)) % 10
    with autograd.record():
        scores = net(X)
        loss = cross_entropy(scores, y)
    loss.backward()
    weights = [p for name, p in parameters(net).items() if name.endswith("weight")]
    return [a.asnumpy() for a in (scores, weights[0].grad(), weights[-1].grad())]


def assert_close(actual, expected, tolerance=1e-3):
    """The largest difference, relative to the largest value."""
    scale = max(abs(expected).max(), 1e-3)
    assert abs(actual - expected).max() / scale < tolerance


# Shapes and counts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model, options, size, shapes",
    [
        (resnet18, {}, 28, [(64, 14), (64, 7), (64, 7), (128, 4), (256, 2), (512, 1)]),
        (resnet18, {}, 96, [(64, 48), (64, 24), (64, 24), (128, 12), (256, 6), (512, 3)]),
        (resnet18, {"small": True}, 28, [(16, 28), (16, 28), (32, 14), (64, 7), (128, 4)]),
        (
            densenet,
            {},
            28,
            [
                (64, 14),
                (64, 7),
                (192, 7),
                (96, 4),
                (224, 4),
                (112, 2),
                (240, 2),
                (120, 1),
                (248, 1),
            ],
        ),
        (
            densenet,
            {},
            96,
            [
                (64, 48),
                (64, 24),
                (192, 24),
                (96, 12),
                (224, 12),
                (112, 6),
                (240, 6),
                (120, 3),
                (248, 3),
            ],
        ),
        (
            densenet,
            {"small": True},
            28,
            [(16, 28), (32, 28), (16, 14), (160, 14), (80, 7), (336, 7)],
        ),
    ],
)
def test_shapes_of_the_docstring(model, options, size, shapes):
    net, X, seen = model("none", **options), nd.zeros((2, 1, size, size)), []
    net.initialize()
    for layer in net:
        X = layer(X)
        if type(layer) in (nn.HybridSequential, nn.MaxPool2D, nn.Conv2D) or "Block" in repr(layer):
            seen.append(X.shape)
    assert seen == [(2, channels, s, s) for channels, s in shapes]
    assert X.shape == (2, 10)


@pytest.mark.parametrize(
    "model, options, count",
    [
        (resnet18, {}, 11_178_378),
        (resnet18, {"small": True}, 701_930),
        (densenet, {}, 758_226),
        (densenet, {"small": True}, 511_018),
    ],
)
def test_parameter_counts_of_the_docstring(model, options, count):
    for net in (model(**options), dict((m, i) for m, i, _ in VARIANTS)[model](**options)):
        net.initialize()
        net(nd.zeros((1, 1, 28, 28)))
        assert count == sum(
            np.prod(p.shape) for p in net.collect_params().values() if p.grad_req != "null"
        )
    assert f"{count:,}" in model.__doc__


# The same function --------------------------------------------------------------------------------


@variants
@pytest.mark.parametrize("hybridized", [False, True])
def test_same_outputs_as_gluons_layers(model, independent, options, hybridized, tmp_path):
    X = images(4, 1, 28, 28)
    reference = started(independent(**options), X)
    reference.save_parameters(str(tmp_path / "file"))
    ours = model(**options)
    ours.load_parameters(str(tmp_path / "file"))
    if hybridized:
        ours.hybridize()
    assert_close(ours(X).asnumpy(), reference(X).asnumpy(), 1e-5)
    # Gradients through a ReLU that sits at zero may differ by more than rounding does.
    for got, expected, tolerance in zip(train(ours, X), train(reference, X), (1e-3, 2e-2, 1e-3)):
        assert_close(got, expected, tolerance)
    moved, theirs = parameters(ours), parameters(reference)
    assert moved.keys() == theirs.keys()
    for name in moved:
        assert_close(moved[name].data().asnumpy(), theirs[name].data().asnumpy())
    assert_close(ours(X).asnumpy(), reference(X).asnumpy())  # by the statistics that have moved


@pytest.mark.parametrize(
    "model, independent", [(resnet18, independent_resnet18), (densenet, independent_densenet)]
)
def test_same_outputs_at_96(model, independent, tmp_path):
    X = images(2, 3, 96, 96)
    reference = started(independent(), X)
    reference.save_parameters(str(tmp_path / "file"))
    ours = model()
    ours.load_parameters(str(tmp_path / "file"))
    assert_close(ours(X).asnumpy(), reference(X).asnumpy(), 1e-5)
    with autograd.train_mode():
        assert_close(ours(X).asnumpy(), reference(X).asnumpy())


@pytest.mark.parametrize("norm", OWN)
@small_ones
@pytest.mark.parametrize("from_gluon", [True, False])
def test_parameter_files_move_both_ways(model, norm, from_gluon, tmp_path):
    X = images(2, 1, 28, 28)
    norms = ("gluon", norm) if from_gluon else (norm, "gluon")
    source, target = (model(n, small=True) for n in norms)
    started(source, X).save_parameters(str(tmp_path / "file"))
    target.load_parameters(str(tmp_path / "file"))
    for name, parameter in parameters(source).items():
        copy = parameters(target)[name].data().asnumpy()
        assert np.array_equal(parameter.data().asnumpy(), copy), name
    assert_close(target(X).asnumpy(), source(X).asnumpy(), 1e-5)


# The other normalizations -------------------------------------------------------------------------


@small_ones
@pytest.mark.parametrize("norm", ["none", "group", "layer", "instance"])
def test_other_norms_train(model, norm):
    net, X = model(norm, small=True), images(2, 1, 28, 28)
    net.initialize(mx.init.Xavier())
    scores, first, _ = train(net, X)
    assert scores.shape == (2, 10)
    assert np.isfinite(first).all() and (first != 0).any()


@small_ones
@pytest.mark.parametrize("norm", ["none", "group", "textbook"])
def test_hybridized_trains_like_imperative(model, norm):
    net, X = model(norm, small=True), images(2, 1, 28, 28)
    started(net, X)
    imperative = train(net, X)
    net.hybridize()
    for got, expected in zip(train(net, X), imperative):
        assert_close(got, expected, 1e-2)


@small_ones
def test_convolutions_keep_their_names_without_norm(model):
    with_norm, without = parameters(model("gluon")), parameters(model("none"))
    assert list(without) == [n for n in with_norm if n.endswith(("weight", "bias"))]


@variants
def test_norm_is_told_the_channels(model, independent, options):
    layers = []

    def norm(num_features, num_dims):
        layers.append((nn.BatchNorm(), num_features))
        assert num_dims == 4
        return layers[-1][0]

    net = model(norm, **options)
    net.initialize()
    net(images(2, 1, 28, 28))
    assert all(layer.gamma.shape == (num_features,) for layer, num_features in layers)
    assert len(layers) == sum("gamma" in name for name in parameters(net))


@small_ones
def test_arguments(model):
    assert model("none", num_classes=7)[-1]._units == 7
    with pytest.raises(ValueError, match="num_classes"):
        model(num_classes=0)
    with pytest.raises(ValueError, match="'nothing'"):
        model("nothing")
    with pytest.raises(TypeError):
        model("auto", 10)  # as keywords only


@small_ones
def test_numpy_semantics(model):
    mx.npx.set_np()
    try:
        net = model("auto", small=True)
        net.initialize(mx.init.Xavier())
        X = mx.np.array(images(2, 1, 28, 28).asnumpy())
        imperative = net(X)
        net.hybridize()
        assert_close(net(X).asnumpy(), imperative.asnumpy(), 1e-4)
    finally:
        mx.npx.reset_np()


def test_models_by_name():
    assert MODELS["resnet18"] is resnet18 and MODELS["densenet"] is densenet
