"""LeNet, and what `norm=` means."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, nd
from mxnet.gluon import nn

from gluon_bn import BatchNorm, kernels
from gluon_bn.models import MODELS, lenet, make_norm, norm_names

OWN = ["auto", *(name for name in kernels.available() if name != "gluon")]


def names_and_shapes(net):
    net.initialize(mx.init.Xavier())
    net(nd.zeros((2, 1, 28, 28)))
    return {name: p.shape for name, p in net._collect_params_with_prefix().items()}


def independent_lenet():
    """The network of d2l-zh's section on batch normalization, written down once more."""
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(6, kernel_size=5),
        nn.BatchNorm(),
        nn.Activation("sigmoid"),
        nn.MaxPool2D(pool_size=2, strides=2),
        nn.Conv2D(16, kernel_size=5),
        nn.BatchNorm(),
        nn.Activation("sigmoid"),
        nn.MaxPool2D(pool_size=2, strides=2),
        nn.Dense(120),
        nn.BatchNorm(),
        nn.Activation("sigmoid"),
        nn.Dense(84),
        nn.BatchNorm(),
        nn.Activation("sigmoid"),
        nn.Dense(10),
    )
    return net


def test_lenet_has_the_structure_of_d2l():
    assert names_and_shapes(lenet("gluon")) == names_and_shapes(independent_lenet())


@pytest.mark.parametrize("norm", OWN)
def test_parameters_are_the_same_for_ours_and_gluons(norm):
    assert names_and_shapes(lenet(norm)) == names_and_shapes(independent_lenet())


def test_convolutions_keep_their_names_without_norm():
    with_norm, without = names_and_shapes(lenet("gluon")), names_and_shapes(lenet("none"))
    assert without == {
        name: shape for name, shape in with_norm.items() if name.endswith(("weight", "bias"))
    }


@pytest.mark.parametrize("norm", OWN)
@pytest.mark.parametrize("to_gluon", [True, False])
def test_parameter_files_move_both_ways(norm, to_gluon, tmp_path):
    X = nd.random.uniform(shape=(8, 1, 28, 28))
    source, target = (lenet(norm), independent_lenet())[:: 1 if to_gluon else -1]
    source.initialize(mx.init.Xavier())
    with autograd.record():
        Y = source(X)
    Y.backward()  # ours moves its running statistics forward, Gluon's backward
    source.save_parameters(str(tmp_path / "file"))
    target.load_parameters(str(tmp_path / "file"))
    saved, loaded = (net._collect_params_with_prefix() for net in (source, target))
    assert (saved["1.running_mean"].data().asnumpy() != 0).all()
    for name, parameter in saved.items():
        assert np.array_equal(parameter.data().asnumpy(), loaded[name].data().asnumpy()), name
    np.testing.assert_allclose(target(X).asnumpy(), source(X).asnumpy(), rtol=1e-4, atol=1e-5)


def test_average_pooling_is_an_argument():
    pools = [layer for layer in lenet("none", pooling="avg") if "Pool" in type(layer).__name__]
    assert [type(p) for p in pools] == [nn.AvgPool2D, nn.AvgPool2D]


def test_norm_chooses_the_layer():
    assert type(lenet("gluon")[1]) is nn.BatchNorm
    assert type(lenet("textbook")[1]) is BatchNorm
    assert lenet("textbook")[1].kernel == "textbook"
    X = nd.random.normal(shape=(2, 3))
    assert np.array_equal(make_norm("none")(3, 2)(X).asnumpy(), X.asnumpy())


def test_norm_may_be_a_function():
    calls = []

    def norm(num_features, num_dims):
        calls.append((num_features, num_dims))
        return gluon.nn.BatchNorm()

    lenet(norm)
    assert calls == [(6, 4), (16, 4), (120, 2), (84, 2)]
    with pytest.raises(TypeError, match="must return a Block, got NoneType"):
        lenet(lambda num_features, num_dims: None)


@pytest.mark.parametrize(
    "norm", ["layer", "instance", "group", "pixel", "renorm", "LayerNorm", "BatchRenorm"]
)
def test_relatives_train(norm):
    net = lenet(norm)
    net.initialize(mx.init.Xavier())
    with autograd.record():
        loss = (net(nd.random.uniform(shape=(4, 1, 28, 28))) ** 2).sum()
    loss.backward()
    gradient = net[0].weight.grad().asnumpy()
    assert np.isfinite(gradient).all() and (gradient != 0).any()


@pytest.mark.parametrize("norm", ["batchnorm", "", "WeightNorm", "Gluon "])
def test_unknown_norm_lists_the_names(norm):
    with pytest.raises(ValueError) as error:
        lenet(norm)
    assert all(name in str(error.value) for name in norm_names())


def test_absent_kernel_says_why(monkeypatch):
    monkeypatch.setitem(kernels._absent, "fused", "Numba went fishing")
    with pytest.raises(ValueError, match="Numba went fishing"):
        make_norm("fused")


@pytest.mark.parametrize(
    "arguments, error",
    [
        ({"norm": 3}, TypeError),
        ({"norm": None}, TypeError),
        ({"pooling": "min"}, ValueError),
        ({"activation": "gelu"}, ValueError),
    ],
)
def test_bad_arguments(arguments, error):
    with pytest.raises(error):
        lenet(**arguments)


def test_models_by_name():
    assert MODELS["lenet"] is lenet


@pytest.mark.skipif("native" not in OWN, reason="no compiler")
@pytest.mark.parametrize("activation, fused", [("sigmoid", True), ("relu", True), ("tanh", False)])
def test_activation_is_computed_inside_the_native_operator(activation, fused):
    X, nets = nd.random.uniform(shape=(8, 1, 28, 28)), []
    for hybridized in (False, True):
        nets.append(lenet("native", activation=activation))
        mx.random.seed(1)
        nets[-1].initialize(mx.init.Xavier())
        if hybridized:
            nets[-1].hybridize()
        with autograd.record():
            Y = nets[-1](X)
        Y.backward()
    nodes = nets[1]._cached_graph[1].tojson()
    assert nodes.count('"op": "gluon_bn_native"') == 4
    assert ('"op": "Activation"' in nodes) != fused
    pairs = zip(*(net._collect_params_with_prefix().values() for net in nets))
    for imperative, hybrid in pairs:  # and the statistics have moved once
        for read in (lambda p: p.data(), lambda p: p.grad() if p.grad_req != "null" else p.data()):
            np.testing.assert_allclose(
                read(hybrid).asnumpy(), read(imperative).asnumpy(), rtol=1e-3, atol=1e-4
            )
