"""Several forward passes of one hybridized network before the backward pass, as in a GAN or a
siamese network: weights, statistics and gradients are those of the imperative network.

What goes wrong here goes wrong now and then, so each case is tried several times.
"""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, nd
from mxnet.gluon import HybridBlock, nn

from gluon_bn import (
    BatchNorm,
    BatchRenorm,
    ConditionalBatchNorm,
    LayerNorm,
    SpectralNorm,
    WeightNorm,
    kernels,
)

STATIC = {"static_alloc": True, "static_shape": True}
FLAGS = [
    STATIC,
    {"static_alloc": True},
    {},
    {**STATIC, "inline_limit": 0},
    {**STATIC, "forward_bulk_size": 1, "backward_bulk_size": 1},
    {"inline_limit": 1000},
]
LAYERS = {
    **{name: lambda name=name: BatchNorm(kernel=name) for name in kernels.available()},
    "cumulative": lambda: BatchNorm(momentum=None, kernel="fused"),
    "zero_debias": lambda: BatchNorm(zero_debias=True, kernel="analytic"),
    "renorm": BatchRenorm,
    "layer": lambda: LayerNorm(axis=1),
    "weight": lambda: WeightNorm(nn.Conv2D(3, 1)),
    "spectral": lambda: SpectralNorm(nn.Conv2D(3, 1)),
}


class WithLabels(HybridBlock):
    def __init__(self, **options):
        super().__init__()
        with self.name_scope():
            self.before = nn.Conv2D(3, 3)
            self.norm = ConditionalBatchNorm(3, 4, **options)
            self.after = nn.Dense(2)

    def hybrid_forward(self, F, X, labels):
        return self.after(self.norm(self.before(X), labels))


def network(layer, seed=3):
    mx.random.seed(seed)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(3, 3), layer(), nn.Activation("relu"), nn.Conv2D(3, 3), layer(), nn.Dense(2))
    return started(net, nd.ones((2, 2, 7, 7)))


def started(net, *inputs):
    net.initialize(mx.init.Xavier())
    net(*inputs)
    return net


def batches(n):
    rng = np.random.RandomState(5)
    return [nd.array(rng.normal(i, 1 + i, (4, 2, 7, 7))) for i in range(n)]


def state_of(net, inputs, wait):
    if wait:
        nd.waitall()
    parameters = net.collect_params().values()
    return (
        [p.data().asnumpy() for p in parameters]
        + [p.grad().asnumpy() for p in parameters if p.grad_req != "null"]
        + [X.grad.asnumpy() for X in inputs if X.grad is not None]
    )


def one_loss(net, inputs):
    with autograd.record():
        loss = sum((net(*X) ** 2).mean() for X in inputs)
    loss.backward()


def check(make, flags, act, inputs, times, wait=True):
    """`act(net, inputs)` leaves the hybridized network as it leaves the imperative one."""

    def result(flags):
        net = make()
        if flags is not None:
            net.hybridize(**flags)
        act(net, inputs)
        return state_of(net, [X for arrays in inputs for X in arrays], wait)

    expected = result(None)
    for _ in range(times):
        for a, b in zip(expected, result(flags)):
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("n", [2, 4])
def test_several_forward_passes_and_one_backward(layer, n):
    inputs = [(X,) for X in batches(n)]
    check(lambda: network(LAYERS[layer]), STATIC, one_loss, inputs, times=8)


@pytest.mark.parametrize("layer", LAYERS)
def test_operators_that_could_run_at_the_same_time(layer):
    """The layer comes first, and its batches are large: nothing else keeps the calls apart."""
    rng = np.random.RandomState(6)
    inputs = [(nd.array(rng.normal(i, 1 + i, (16, 12, 24, 24))),) for i in range(4)]

    def make():
        mx.random.seed(3)
        net = nn.HybridSequential()
        net.add(LAYERS[layer](), nn.Dense(2))
        return started(net, nd.ones((2, 12, 24, 24)))

    check(make, STATIC, one_loss, inputs, times=4)


@pytest.mark.parametrize("layer", [name for name in LAYERS if name not in ("native", "gluon")])
def test_the_state_can_be_read_at_once(layer):
    """Without a word to wait; with Gluon's own layer, and so the native one, MXNet needs one."""
    inputs = [(X,) for X in batches(2)]
    check(lambda: network(LAYERS[layer]), STATIC, one_loss, inputs, times=4, wait=False)


@pytest.mark.parametrize("flags", FLAGS, ids=str)
@pytest.mark.parametrize("layer", ["textbook", "fused", "renorm", "spectral"])
def test_with_every_flag(layer, flags):
    check(lambda: network(LAYERS[layer]), flags, one_loss, [(X,) for X in batches(3)], times=3)


@pytest.mark.parametrize("options", [{}, {"per_class_statistics": True}], ids=str)
def test_conditional(options):
    labels = [nd.array(row) for row in ([0, 1, 2, 0], [3, 3, 2, 0], [1, 1, 1, 1])]
    inputs = list(zip(batches(3), labels))

    def make():
        mx.random.seed(3)
        return started(WithLabels(**options), nd.ones((2, 2, 7, 7)), nd.array([0, 1]))

    check(make, STATIC, one_loss, inputs, times=8)


def one_after_the_other(net, inputs):
    """Two losses, a prediction between the forward passes, and a second backward pass."""
    (a,), (b,), (c,) = inputs
    with autograd.record():
        first = (net(a) ** 2).mean()
    prediction = net(c)
    with autograd.record():
        second = (net(b) ** 2).mean()
    second.backward(retain_graph=True)  # or MXNet forgets what both have in common
    first.backward(retain_graph=True)
    first.backward()
    c[:] += prediction.mean()  # the next comparison sees it


def adding(net, inputs):
    for parameter in net.collect_params().values():
        if parameter.grad_req != "null":
            parameter.grad_req = "add"
    for (X,) in inputs:
        one_loss(net, [(X,)])
    one_loss(net, inputs)


def training_goes_on(net, inputs):
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 1e-3}, kvstore=None)
    for _ in range(3):
        one_loss(net, inputs)
        trainer.step(1)


@pytest.mark.parametrize(
    "act", [one_after_the_other, adding, training_goes_on], ids=lambda act: act.__name__
)
@pytest.mark.parametrize("layer", ["textbook", "analytic", "fused", "native", "renorm", "spectral"])
def test_orders(layer, act):
    if layer not in LAYERS:
        pytest.skip("this kernel does not work here")
    fresh = batches(3)

    def again(net, inputs):
        for (X,), value in zip(inputs, fresh):
            X[:] = value
        act(net, inputs)

    check(lambda: network(LAYERS[layer]), STATIC, again, [(X.copy(),) for X in fresh], times=4)


@pytest.mark.parametrize("grad_req", ["write", "add"])
@pytest.mark.parametrize("layer", ["textbook", "fused", "native", "spectral"])
def test_the_gradient_of_the_networks_input(layer, grad_req):
    """The operator takes the network's input for the sake of order; its gradient is as before."""
    if layer not in LAYERS:
        pytest.skip("this kernel does not work here")

    def act(net, inputs):
        for (X,) in inputs:
            X.attach_grad(grad_req)
        one_loss(net, inputs)
        one_loss(net, inputs)

    for flags in (STATIC, {}):
        check(lambda: network(LAYERS[layer]), flags, act, [(X,) for X in batches(2)], times=2)


class FromParameters(HybridBlock):
    """A generator that starts from a learned image, as StyleGAN's does."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.start = self.params.get("start", shape=(4, 3, 2, 2))
            self.norm = BatchNorm(3, kernel="textbook")

    def hybrid_forward(self, F, X, start):
        return F.broadcast_mul(self.norm(start), X.reshape((4, 1, 1, 1)))


def test_a_state_that_no_input_leads_to_is_refused_where_it_would_lose_updates():
    net = FromParameters()
    net.initialize(mx.init.Xavier())
    X = nd.ones(4)
    expected = net(X).asnumpy()
    net.hybridize()
    np.testing.assert_allclose(net(X).asnumpy(), expected, rtol=1e-6)
    net.hybridize(**STATIC)
    with pytest.raises(ValueError, match="static_shape=True.*hybridize without it"):
        net(X)
    net.hybridize(static_alloc=True)
    np.testing.assert_allclose(net(X).asnumpy(), expected, rtol=1e-6)
