"""Several devices, each with running statistics of its own: what is read of one goes to that one.

cpu(0) and cpu(1) stand in for two GPUs.
"""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, nd
from mxnet.gluon import nn

from gluon_bn import BatchNorm, BatchRenorm, ConditionalBatchNorm
from gluon_bn.inference import fold_batch_norm, from_gluon, recalibrate, to_gluon
from gluon_bn.inspection import activation_report
from gluon_bn.training import fit

PLACES = [mx.cpu(0), mx.cpu(1)]
NORMS = {"ours": BatchNorm, "gluon": nn.BatchNorm}
norms = pytest.mark.parametrize("norm", NORMS)
hybrid = pytest.mark.parametrize("hybridize", [False, True])


def numbers(*shape, seed=0, ctx=None):
    return nd.array(np.random.RandomState(seed).standard_normal(shape), ctx=ctx)


def trained(*layers, shape, hybridize=False, steps=3):
    """A network on both devices, which saw other batches on each; for labels, a class on each."""
    mx.random.seed(1)
    net = nn.HybridSequential()
    net.add(*layers)
    net.initialize(mx.init.Xavier(), ctx=PLACES)
    if hybridize:
        net.hybridize()
    for step in range(steps):
        for i, place in enumerate(PLACES):
            with autograd.record():
                Y = net(numbers(*shape, seed=step, ctx=place) * (1 + 3 * i) + 2 * i)
            Y.backward()
    return net


def outputs(net, X, *more):
    return [net(*(a.as_in_context(place) for a in (X, *more))).asnumpy() for place in PLACES]


def close(ours, theirs):
    for one, other in zip(ours, theirs):
        np.testing.assert_allclose(one, other, atol=1e-4 * abs(other).max())
    assert abs(ours[0] - ours[1]).max() > 0.1 * abs(ours[0]).max(), "the devices differ"


LINEAR = {  # what is in front of the norm, shape of X, is it folded in
    "dense": (lambda: nn.Dense(4, in_units=6), (8, 6), True),
    "conv, no bias": (lambda: nn.Conv2D(4, 3, in_channels=6, use_bias=False), (8, 6, 5, 5), True),
    "conv, groups": (lambda: nn.Conv2D(4, 3, groups=2, in_channels=6), (8, 6, 5, 5), True),
    "transposed": (lambda: nn.Conv2DTranspose(4, 3, in_channels=6), (8, 6, 3, 3), True),
    "transposed, groups": (
        lambda: nn.Conv2DTranspose(4, 3, groups=2, in_channels=6),
        (8, 6, 3, 3),
        True,
    ),
    "transposed, each channel": (
        lambda: nn.Conv1DTranspose(4, 3, groups=4, in_channels=4, use_bias=False),
        (8, 4, 3),
        True,
    ),
    "nothing": (lambda: nn.Activation("relu"), (8, 4, 3), False),
}


@norms
@hybrid
@pytest.mark.parametrize("example", PLACES, ids=str)
@pytest.mark.parametrize("case", LINEAR)
def test_folding(case, example, hybridize, norm):
    make, shape, folded_in = LINEAR[case]
    net = trained(
        make(),
        NORMS[norm](in_channels=4) if norm == "gluon" else BatchNorm(4),
        shape=shape,
        hybridize=hybridize,
    )
    X = numbers(*shape, seed=9)
    folded = fold_batch_norm(net, X.as_in_context(example))
    close(outputs(folded, X), outputs(net, X))
    assert ("Folded()" in repr(folded)) == folded_in


@hybrid
def test_widening(hybridize):
    for layer in (
        BatchNorm(4),
        BatchNorm(4, momentum=None),
        BatchNorm(4, zero_debias=True),
        nn.BatchNorm(in_channels=4),
        nn.BatchNorm(in_channels=4, center=False),
    ):
        net = trained(layer, shape=(8, 4, 3))
        layer.beta.data(PLACES[1])[:] = 5  # Gluon adds it, whatever center says
        wide = ConditionalBatchNorm.from_batch_norm(layer, 3)
        X, labels = numbers(8, 4, 3, seed=9), nd.array([0, 1, 2, 2, 0, 1, 2, 0])
        close(outputs(wide, X, labels), outputs(net, X))
        for name in ("running_mean", "num_batches", "running_mean_biased"):
            for place in PLACES:
                if hasattr(layer, name):
                    np.testing.assert_array_equal(
                        getattr(wide, name).data(place).asnumpy(),
                        getattr(layer, name).data(place).asnumpy(),
                    )


@hybrid
def test_there_and_back(hybridize):
    net = trained(
        nn.Dense(4, in_units=6),
        BatchNorm(4, activation="relu"),
        nn.Dense(3, in_units=4),
        BatchNorm(3),
        shape=(8, 6),
        hybridize=hybridize,
    )
    X = numbers(8, 6, seed=9)
    theirs = to_gluon(net)
    close(outputs(theirs, X), outputs(net, X))
    close(outputs(from_gluon(theirs), X), outputs(net, X))


def test_a_beta_on_the_second_device():
    """A fixed beta counts wherever it is not zero."""
    theirs = trained(nn.BatchNorm(in_channels=4, center=False), shape=(8, 4))
    theirs[0].beta.data(PLACES[1])[:] = 5
    X = numbers(8, 4, seed=9)
    close(outputs(from_gluon(theirs), X), outputs(theirs, X))
    ours = trained(BatchNorm(4, center=False), shape=(8, 4))
    ours[0].beta.data(PLACES[1])[:] = 5
    with pytest.raises(ValueError, match="beta that is not zero"):
        to_gluon(ours)


@pytest.mark.parametrize("layer", [BatchNorm, BatchRenorm, nn.BatchNorm])
def test_recalibration(layer):
    net = trained(layer(), shape=(8, 4))
    X = numbers(50, 4, seed=9) * 2 + 1
    recalibrate(net, [X])
    want = (X.asnumpy() - X.asnumpy().mean(0)) / X.asnumpy().std(0)
    for found in outputs(net, X):
        np.testing.assert_allclose(found, want, atol=1e-4)


def test_recalibration_with_zero_debias():
    """The average under the correction belongs to the number of batches, here 2 and 3."""
    net = trained(BatchNorm(4, zero_debias=True), shape=(8, 4), steps=2)
    X = numbers(50, 4, seed=9) * 2 + 1
    with autograd.train_mode():
        net(X.as_in_context(PLACES[1]))
    recalibrate(net, [X])
    layer = net[0]
    for place, steps in zip(PLACES, (2, 3)):
        assert (layer.num_batches.data(place).asnumpy() == steps).all()
        np.testing.assert_allclose(
            layer.running_mean_biased.data(place).asnumpy(),
            X.asnumpy().mean(0) * (1 - 0.9**steps),
            rtol=1e-5,
        )


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_report_is_of_the_device_of_its_batch(place):
    net = trained(nn.Dense(4, in_units=6), BatchNorm(4), shape=(8, 6))
    X = numbers(8, 6, seed=9)
    row = activation_report(net, X.as_in_context(place))["0"]
    alone = nn.HybridSequential()
    alone.add(nn.Dense(4, in_units=6), BatchNorm(4))
    alone.initialize()
    for name, parameter in alone._collect_params_with_prefix().items():
        parameter.set_data(
            net._collect_params_with_prefix()[name].data(place).as_in_context(mx.cpu(0))
        )
    assert row.weight_gradient > 0
    np.testing.assert_allclose(
        row.weight_gradient, activation_report(alone, X)["0"].weight_gradient, rtol=1e-5
    )


@norms
def test_a_network_elsewhere_than_on_the_first_device(norm):
    net = nn.HybridSequential()
    net.add(nn.Dense(4, use_bias=False), NORMS[norm]())
    net.initialize(ctx=PLACES[1])
    X = numbers(8, 6, ctx=PLACES[1])
    net(X)
    recalibrate(net, [X])
    wide = ConditionalBatchNorm.from_batch_norm(net[1], 2)
    wide = wide(net[0](X), nd.ones(8, ctx=PLACES[1]))
    copies = [fold_batch_norm(net, X), to_gluon(net) if norm == "ours" else from_gluon(net)]
    for Y in (wide, *(copy(X) for copy in copies)):
        assert Y.context == PLACES[1]
        np.testing.assert_allclose(Y.asnumpy(), net(X).asnumpy(), atol=1e-5)
    assert fit(net, [(X, nd.array([0, 1, 2, 3] * 2))], epochs=1)[0]["epoch"] == 1


def test_fit_trains_on_one_device():
    net = trained(nn.Dense(4, in_units=6), BatchNorm(4), shape=(8, 6))
    data = [(numbers(8, 6), nd.array([0, 1, 2, 3] * 2))]
    before = net[1].running_mean.data(PLACES[0]).asnumpy()
    with pytest.raises(ValueError, match=r"2 devices.*reset_ctx\(mx.cpu\(0\)\)"):
        fit(net, data, epochs=1)
    np.testing.assert_array_equal(net[1].running_mean.data(PLACES[0]).asnumpy(), before)
    net.collect_params().reset_ctx(PLACES[1])
    assert fit(net, data, epochs=1)[0]["epoch"] == 1
