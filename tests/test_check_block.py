"""The exercises that check themselves: the layer, and conditional batch normalization."""

import copy

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, nd
from mxnet.gluon import nn
from test_check import MISTAKES as FUNCTION_MISTAKES
from test_check import student, written

import gluon_bn
from gluon_bn import check

BLOCK = """
class f(nn.Block):
    def __init__(self, num_features, num_dims, **kwargs):
        super().__init__(**kwargs)
        shape = (1, num_features) + (1,) * (num_dims - 2)
        self.axes = (0,) if num_dims == 2 else (0, 2, 3)
        with self.name_scope():
            self.gamma = self.params.get('gamma', shape=shape, init='ones')
            self.beta = self.params.get('beta', shape=shape, init='zeros')
            self.running_mean = self.params.get('running_mean', shape=shape, init='zeros',
                                                grad_req='null')
            self.running_var = self.params.get('running_var', shape=shape, init='ones',
                                               grad_req='null')

    def forward(self, X):
        if autograd.is_training():
            mean = X.mean(axis=self.axes, keepdims=True)
            var = ((X - mean) ** 2).mean(axis=self.axes, keepdims=True)
            with autograd.pause():
                self.running_mean.set_data(0.9 * self.running_mean.data() + 0.1 * mean)
                self.running_var.set_data(0.9 * self.running_var.data() + 0.1 * var)
        else:
            mean, var = self.running_mean.data(), self.running_var.data()
        return self.gamma.data() * (X - mean) / nd.sqrt(var + 1e-5) + self.beta.data()
"""


class D2L(nn.Block):
    """As in d2l's Gluon edition: the statistics are plain attributes."""

    def __init__(self, num_features, num_dims, **kwargs):
        super().__init__(**kwargs)
        shape = (1, num_features) if num_dims == 2 else (1, num_features, 1, 1)
        self.gamma = self.params.get("gamma", shape=shape, init=mx.init.One())
        self.beta = self.params.get("beta", shape=shape, init=mx.init.Zero())
        self.moving_mean = nd.zeros(shape)
        self.moving_var = nd.ones(shape)

    def forward(self, X):
        if self.moving_mean.context != X.context:
            self.moving_mean = self.moving_mean.copyto(X.context)
            self.moving_var = self.moving_var.copyto(X.context)
        Y, self.moving_mean, self.moving_var = student()(
            X,
            self.gamma.data(),
            self.beta.data(),
            self.moving_mean,
            self.moving_var,
            eps=1e-12,
            momentum=0.9,
        )
        return Y


class D2LInNumpyStyle(nn.Block):
    """As in d2l's English edition, in mx.np, with its momentum; saved with the network."""

    def __init__(self, num_features, num_dims, **kwargs):
        super().__init__(**kwargs)
        self.momentum, self.num_dims = 0.1, num_dims
        shape = (1, num_features) if num_dims == 2 else (1, num_features, 1, 1)
        self.gamma = self.params.get("gamma", shape=shape, init=mx.init.One())
        self.beta = self.params.get("beta", shape=shape, init=mx.init.Zero())
        self.moving_mean = self.params.get(
            "moving_mean", shape=shape, init="zeros", grad_req="null"
        )
        self.moving_var = self.params.get("moving_var", shape=shape, init="ones", grad_req="null")

    def forward(self, X):
        mean, var = self.moving_mean.data(), self.moving_var.data()
        if autograd.is_training():
            axes = 0 if self.num_dims == 2 else (0, 2, 3)
            batch_mean = X.mean(axis=axes, keepdims=True)
            batch_var = ((X - batch_mean) ** 2).mean(axis=axes, keepdims=True)
            self.moving_mean.set_data(0.9 * mean + 0.1 * batch_mean.detach())
            self.moving_var.set_data(0.9 * var + 0.1 * batch_var.detach())
            mean, var = batch_mean, batch_var
        return self.gamma.data() * (X - mean) / mx.np.sqrt(var + 1e-5) + self.beta.data()


class Wrapped(gluon.HybridBlock):
    """Gluon's layer inside another, without its gamma and beta."""

    def __init__(self, num_features, num_dims):
        super().__init__()
        self.bn = nn.BatchNorm(center=False, scale=False, in_channels=num_features)
        self.shape = (1, num_features) + (1,) * (num_dims - 2)
        with self.name_scope():
            self.scale = self.params.get("scale", shape=self.shape, init="ones")
            self.shift = self.params.get("shift", shape=self.shape, init="zeros")

    def hybrid_forward(self, F, X, scale, shift):
        return F.broadcast_add(F.broadcast_mul(self.bn(X), scale), shift)


def initialized(layer):
    layer.initialize()
    return layer


RIGHT = [
    written(BLOCK),
    initialized(nn.BatchNorm(in_channels=3)),
    lambda: D2LInNumpyStyle(3, 4),
    nn.BatchNorm,
    nn.BatchNorm(in_channels=3),
    nn.BatchNorm(),
    nn.BatchNorm(in_channels=7),
    gluon_bn.BatchNorm,
    gluon_bn.BatchNorm(3, num_dims=4),
    lambda n, d: gluon_bn.BatchNorm(n, d, kernel="textbook", momentum=0.99, epsilon=1e-3),
    lambda: nn.BatchNorm(momentum=0.8),
    D2LInNumpyStyle,
    Wrapped,
]


@pytest.mark.parametrize("made", RIGHT, ids=lambda m: getattr(m, "__name__", "instance"))
def test_right(made):
    report = check.block(made)
    assert report, report


def test_d2l_loses_its_statistics_and_nothing_else():
    report = check.block(D2L)
    assert report.mistakes == ("statistics lost on save",), report
    report = check.block(D2L(3, 4))
    assert report.mistakes == ("statistics lost on save",), report


def test_an_instance_is_left_as_it_was():
    layer = nn.BatchNorm(in_channels=3)
    layer.initialize()
    layer.gamma.set_data(nd.array([1, 2, 3]))
    before = copy.deepcopy({k: v.data().asnumpy() for k, v in layer.collect_params().items()})
    check.block(layer)
    for name, value in layer.collect_params().items():
        np.testing.assert_array_equal(value.data().asnumpy(), before[name])
    fresh = nn.BatchNorm(in_channels=3)
    check.block(fresh)
    with pytest.raises(RuntimeError):
        fresh.gamma.data()  # still not initialized


def test_names_of_later_layers_do_not_change():
    before = nn.BatchNorm().name
    check.block(nn.BatchNorm)
    after = nn.BatchNorm().name
    assert int(after.replace("batchnorm", "")) == int(before.replace("batchnorm", "")) + 1


MOVE = "0.9 * self.running_mean.data() + 0.1 * mean -> "
MISTAKES = {
    "momentum reversed": [
        MOVE + "0.1 * self.running_mean.data() + 0.9 * mean",
        "0.9 * self.running_var.data() + 0.1 * var -> 0.1 * self.running_var.data() + 0.9 * var",
    ],
    "moving statistics not updated": [
        "self.running_mean.set_data(0.9 -> unused = (0.9",
        "self.running_var.set_data(0.9 -> unused = (0.9",
    ],
    "running variance starts wrong": [
        "shape=shape, init='ones',\n -> shape=shape, init='zeros',\n"
    ],
    "gamma starts wrong": [
        "'gamma', shape=shape, init='ones' -> 'gamma', shape=shape, init='zeros'"
    ],
    "gamma without gradient": ["'gamma', shape=shape, -> 'gamma', shape=shape, grad_req='null',"],
    "statistics receive gradients": [
        "init='zeros',\n                                         "
        "       grad_req='null' -> init='zeros'",
        "init='ones',\n                                          "
        "     grad_req='null' -> init='ones'",
    ],
    "no gradient for gamma": ["self.gamma.data() * (X -> self.gamma.data().detach() * (X"],
    "gamma not registered": [
        "self.gamma = self.params.get('gamma', shape=shape, init='ones') -> "
        "self.gamma = nd.ones(shape); self.gamma.attach_grad()",
        "self.gamma.data() -> self.gamma",
    ],
    "no gamma ": [
        "self.gamma = self.params.get('gamma', shape=shape, init='ones') -> pass",
        "self.gamma.data() * (X -> (X",
    ],
    "state shared between layers": [
        "    def __init__ -> \n    moving = [nd.zeros((1, 3, 1, 1)), nd.ones((1, 3, 1, 1))]\n\n"
        "    def __init__",
        "mean, var = self.running_mean.data(), self.running_var.data() -> "
        "mean, var = (v.reshape((1, 3) + (1,) * (X.ndim - 2)) for v in self.moving)",
        "self.running_mean.set_data(0.9 * self.running_mean.data() + 0.1 * mean) -> "
        "self.moving[0][:] = 0.9 * self.moving[0] + 0.1 * mean.reshape((1, 3, 1, 1))",
        "self.running_var.set_data(0.9 * self.running_var.data() + 0.1 * var) -> "
        "self.moving[1][:] = 0.9 * self.moving[1] + 0.1 * var.reshape((1, 3, 1, 1))",
    ],
    "only rank 4 works": [
        "self.axes = (0,) if num_dims == 2 else (0, 2, 3) -> self.axes = (0, 2, 3)"
    ],
    "not a Block": [
        "class f(nn.Block): -> class f:",
        "        super().__init__(**kwargs)\n -> ",
        "        with self.name_scope(): -> \n        self.params = gluon."
        "ParameterDict()\n        if True:",
    ],
    "nothing returned": ["        return self.gamma -> \n        self.gamma"],
    "difference": ["+ self.beta.data() -> + self.beta.data() + 0.25"],
    "X changed in place": [
        "        if autograd -> \n        if not autograd.is_recording():\n"
        "            X[:] = X * 1.5\n        if autograd"
    ],
}
ALONGSIDE = {
    "gamma not registered": {"parameters lost on save"},
    "X changed in place": {"difference", "moving statistics changed in prediction"},
    "state shared between layers": {
        "moving statistics not updated",
        "remembers",
        "difference",
        "statistics lost on save",
        "type changed",
    },
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake(name):
    report = check.block(written(BLOCK, *MISTAKES[name]))
    assert not report
    assert name.strip() in report.mistakes, report
    assert set(report.mistakes) <= {name.strip(), *ALONGSIDE.get(name.strip(), ())}, report
    assert "Traceback" not in str(report) and "../src" not in str(report)


@pytest.mark.parametrize(
    "name",
    [
        "wrong axes: per example",
        "wrong axes: everything",
        "unbiased variance",
        "cancellation",
        "momentum reversed",
    ],
)
def test_the_function_of_d2ls_layer(name):
    """Diagnosed through the layer as it is alone."""

    class Layer(D2L):
        def forward(self, X):
            Y, self.moving_mean, self.moving_var = wrong(
                X, self.gamma.data(), self.beta.data(), self.moving_mean, self.moving_var, 1e-3, 0.9
            )
            return Y

    wrong = student(*FUNCTION_MISTAKES[name])
    report = check.block(Layer)
    allowed = {name, "statistics lost on save"} | (
        {"unbiased variance stored"} if "unbiased" in name else set()
    )
    assert name in report.mistakes, report
    assert set(report.mistakes) <= allowed, report


def test_statistics_of_the_wrong_shape_do_not_fit_their_parameter():
    report = check.block(written(BLOCK, "(0, 2, 3) -> (1, 2, 3)"))
    assert not report.about("Y in training, X of rank 4").status == "ok", report
    assert report.mistakes == ("only rank 2 works",), report


class Frozen(gluon.HybridBlock):
    """Asks for the mode where the network is drawn only once."""

    def __init__(self, num_features, num_dims):
        super().__init__()
        self.axes = (0,) if num_dims == 2 else (0, 2, 3)
        shape = (1, num_features) + (1,) * (num_dims - 2)
        self.gamma = self.params.get("gamma", shape=shape, init="ones")
        self.beta = self.params.get("beta", shape=shape, init="zeros")
        self.running_mean = self.params.get(
            "running_mean", shape=shape, init="zeros", grad_req="null"
        )
        self.running_var = self.params.get("running_var", shape=shape, init="ones", grad_req="null")

    def hybrid_forward(self, F, X, gamma, beta, running_mean, running_var):
        mean, var = running_mean, running_var
        if autograd.is_training():
            mean = F.mean(X, axis=self.axes, keepdims=True)
            var = F.mean(F.square(F.broadcast_sub(X, mean)), axis=self.axes, keepdims=True)
        x = F.broadcast_div(F.broadcast_sub(X, mean), F.sqrt(var + 1e-5))
        return F.broadcast_add(F.broadcast_mul(x, gamma), beta)


def test_a_mode_that_hybridize_freezes():
    report = check.block(Frozen)
    assert set(report.mistakes) == {"moving statistics not updated", "mode frozen by hybridize"}


def test_what_cannot_be_drawn():
    report = check.block(written(BLOCK, "nn.Block -> gluon.HybridBlock"))
    assert report.mistakes == ("fails when hybridized",), report


# ------------------------------------------------------------------------------------- conditional

FUNCTION = """
def f(X, labels, gamma, beta, moving_mean, moving_var, eps, momentum):
    for label in labels.asnumpy():
        if not 0 <= label < gamma.shape[0]:
            raise ValueError(f'label {label} is out of range')
    rows = (X.shape[0], X.shape[1]) + (1,) * (X.ndim - 2)
    gamma = nd.take(gamma, labels).reshape(rows)
    beta = nd.take(beta, labels).reshape(rows)
    if autograd.is_training():
        axes = (0,) if X.ndim == 2 else (0, 2, 3)
        mean = X.mean(axis=axes, keepdims=True)
        var = ((X - mean) ** 2).mean(axis=axes, keepdims=True)
        moving_mean, moving_var = (momentum * moving_mean + (1 - momentum) * mean,
                                   momentum * moving_var + (1 - momentum) * var)
    else:
        mean, var = moving_mean, moving_var
    return gamma * (X - mean) / nd.sqrt(var + eps) + beta, moving_mean, moving_var
"""
TAKE = "nd.take(gamma, labels).reshape(rows)\n    beta = nd.take(beta, labels).reshape(rows) -> "


class ByEmbedding(nn.Block):
    """The idiom of PyTorch's generators: one Embedding that holds gamma and beta."""

    def __init__(self, num_features, num_classes):
        super().__init__()
        self.classes, self.c = num_classes, num_features
        self.bn = nn.BatchNorm(center=False, scale=False)
        self.embed = nn.Embedding(num_classes, 2 * num_features)

    def forward(self, X, labels):
        assert ((labels >= 0) * (labels < self.classes)).min().asscalar() == 1, "bad label"
        rows = self.embed(labels).reshape((X.shape[0], 2 * self.c) + (1,) * (X.ndim - 2))
        gamma, beta = rows.split(2, axis=1)
        return self.bn(X) * gamma + beta


def test_an_embedding_of_both():
    report = check.conditional(ByEmbedding)
    assert set(report.mistakes) == {"gamma starts wrong", "beta starts wrong"}, report


class ByOneHot(nn.Block):
    def __init__(self, num_features, num_classes):
        super().__init__()
        self.classes = num_classes
        self.bn = nn.BatchNorm(center=False, scale=False)
        self.gamma = self.params.get("gamma", shape=(num_classes, num_features), init="ones")
        self.beta = self.params.get("beta", shape=(num_classes, num_features), init="zeros")

    def forward(self, X, labels):
        if labels.min().asscalar() < 0 or labels.max().asscalar() >= self.classes:
            raise ValueError("a label that is no class")
        hot = nd.one_hot(labels, self.classes)
        rows = X.shape[:2] + (1,) * (X.ndim - 2)
        return self.bn(X) * nd.dot(hot, self.gamma.data()).reshape(rows) + nd.dot(
            hot, self.beta.data()
        ).reshape(rows)


@pytest.mark.parametrize(
    "f",
    [
        written(FUNCTION),
        gluon_bn.ConditionalBatchNorm,
        gluon_bn.ConditionalBatchNorm(4, 3),
        lambda c, k: gluon_bn.ConditionalBatchNorm(c, k, kernel="textbook"),
        ByOneHot,
    ],
    ids=lambda f: getattr(f, "__name__", "instance"),
)
def test_conditional_right(f):
    report = check.conditional(f)
    assert (
        report
        or {line.what for line in report.lines if line.status == "not yet"} <= {"X of type float64"}
        and f is ByOneHot
    ), report
    assert "besides gamma and beta" not in str(report)


def test_a_whole_batch_norm_inside():
    class Twice(ByOneHot):
        def __init__(self, num_features, num_classes):
            super().__init__(num_features, num_classes)
            self.bn = nn.BatchNorm()

    report = check.conditional(Twice)
    assert "besides gamma and beta it trains bn.gamma and bn.beta" in str(report), report


CONDITIONAL_MISTAKES = {
    "labels ignored": [
        TAKE + "gamma[0].reshape((1,) + rows[1:])\n    beta = beta[0].reshape((1,) + rows[1:])"
    ],
    "labels clipped": [
        "    for label in labels.asnumpy():\n        if not 0 <= label < "
        "gamma.shape[0]:\n            raise ValueError(f'label {label} is out of "
        "range')\n -> "
    ],
    "labels clipped ": ["not 0 <= label < gamma.shape[0] -> label >= gamma.shape[0]"],
    "difference": ["+ beta, moving -> + beta * beta, moving"],
}


@pytest.mark.parametrize("name", CONDITIONAL_MISTAKES)
def test_conditional_mistake(name):
    report = check.conditional(written(FUNCTION, *CONDITIONAL_MISTAKES[name]))
    assert not report
    assert name.strip() in report.mistakes, report
    assert set(report.mistakes) <= {name.strip()}, report


class OneRow(gluon_bn.BatchNorm):
    """A layer that takes labels and has no use for them."""

    def forward(self, X, labels):
        return super().forward(X)


def test_a_layer_without_rows():
    report = check.conditional(lambda c, k: OneRow(c))
    assert "no row per class" in report.mistakes, report


def test_clipped_by_gluons_embedding():
    class Clipping(ByOneHot):
        def forward(self, X, labels):
            rows = X.shape[:2] + (1,) * (X.ndim - 2)
            return self.bn(X) * nd.take(self.gamma.data(), labels).reshape(rows) + nd.take(
                self.beta.data(), labels
            ).reshape(rows)

    report = check.conditional(Clipping)
    assert report.mistakes == ("labels clipped",), report
    assert "as if it were 4" in report.about("labels that no class has").why
