"""activation_report: the right numbers, for any network, and nothing is changed by asking."""

import os

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, nd, npx
from mxnet.gluon import nn

from gluon_bn import BatchNorm, ConditionalBatchNorm
from gluon_bn.inspection import activation_report
from gluon_bn.models import densenet, lenet, resnet18
from gluon_bn.runtime import settle
from gluon_bn.training import seed_everything


@pytest.fixture(autouse=True)
def numbers():
    seed_everything(3)


def images(n=6, size=28):
    return nd.random.uniform(shape=(n, 1, size, size)), nd.array(np.arange(n) % 10)


def ready(net, X):
    net.initialize(mx.init.Xavier())
    net(X[:2])
    return net


def state(net):
    """Everything that must not move, as NumPy arrays and plain values."""
    settle()
    found = {}
    for name, p in net._collect_params_with_prefix().items():
        found[name] = p.data().asnumpy()
        found[name, "req"] = p.grad_req
        if p.grad_req != "null":
            found[name, "grad"] = p.grad().asnumpy()
            found[name, "fresh"] = p.data()._fresh_grad

    def note(block):
        found[block.name, "keys"] = sorted(vars(block))
        found[block.name, "hooks"] = (len(block._forward_hooks), len(block._forward_pre_hooks))
        found[block.name, "active"] = getattr(block, "_active", None)
        found[block.name, "warned"] = getattr(block, "_warned", None)

    net.apply(note)
    return found


def assert_same(before, after):
    assert before.keys() == after.keys()
    for key in before:
        np.testing.assert_array_equal(before[key], after[key], err_msg=str(key))


# The numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["sigmoid", "tanh", "relu", "softsign", "softrelu"])
def test_against_numpy(act):
    X = nd.random.normal(shape=(7, 5), scale=3)
    net = nn.HybridSequential()
    net.add(nn.Dense(40, in_units=5), nn.Activation(act), nn.Dense(4, in_units=40))
    net.initialize(mx.init.Normal(1))
    y = nd.array([0, 1, 2, 3, 0, 1, 2])
    report = activation_report(net, X, y)
    assert report.column("name") == ["0", "1", "2"]
    assert report.column("kind") == ["Dense", "Activation", "Dense"]

    z = net[0](X)
    z.attach_grad()
    with autograd.record():
        a = net[1](z)
        a_grad = a.square().sum()
    a_grad.backward()
    slope = z.grad.asnumpy().astype("float64") / (2 * a.asnumpy().astype("float64") + 1e-300)
    values = a.asnumpy().astype("float64")
    row = report["1"]
    assert row.shape == (7, 40) == values.shape
    np.testing.assert_allclose([row.mean, row.std], [values.mean(), values.std()], rtol=1e-9)
    np.testing.assert_allclose(row.between, np.sqrt(values.var(axis=0).mean()), rtol=1e-9)
    largest = 0.25 if act == "sigmoid" else 1
    flat = slope < largest / 10
    if act == "relu":
        flat = values <= 0
    # A value at the border may fall on either side of it in float32.
    assert abs(row.flat - flat.mean()) < 0.01
    assert row.dead == np.mean([column.all() for column in flat.T])
    assert report["0"].flat is None is report["0"].dead

    # Gradients: the parameters' by Gluon, the layers' by cutting the network in two.
    with autograd.record():
        loss = gluon.loss.SoftmaxCrossEntropyLoss()(net(X), y).mean()
    loss.backward()
    for name, layer in (("0", net[0]), ("2", net[2])):
        expected = np.sqrt(
            sum(float(p.grad().norm().asscalar()) ** 2 for p in layer.collect_params().values())
        )
        np.testing.assert_allclose(report[name].weight_gradient, expected, rtol=1e-5)
    a = net[1](net[0](X))
    a.attach_grad()
    with autograd.record():
        loss = gluon.loss.SoftmaxCrossEntropyLoss()(net[2](a), y).mean()
    loss.backward()
    np.testing.assert_allclose(row.gradient, a.grad.norm().asscalar(), rtol=1e-5)
    assert row.weight_gradient is None


def test_dead_units_of_a_convolution():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(3, 3, in_channels=1), nn.Activation("relu"))
    net.initialize()
    net[0].bias.set_data(nd.array([-100, 0, 100]))
    X, _ = images()
    row = activation_report(net, X)["1"]
    assert row.dead == pytest.approx(1 / 3)
    assert 1 / 3 < row.flat < 1


def test_without_labels_a_gradient_of_length_one_is_sent():
    X, _ = images()
    net = ready(lenet("gluon"), X)
    report = activation_report(net, X)
    assert report[-1].gradient == pytest.approx(1, rel=1e-5)
    assert report.column("gradient") == activation_report(net, X).column("gradient")


def test_a_loss_of_your_own():
    X, _ = images()
    net = ready(lenet("none"), X)
    report = activation_report(net, X, loss=lambda output: output.sum())  # of one number: its mean
    assert report[-1].gradient == pytest.approx(np.sqrt(6 * 10), rel=1e-5)
    y = nd.ones((6, 10))
    squares = activation_report(net, X, y, loss=gluon.loss.L2Loss())
    expected = (net(X) - y).norm().asscalar() / 60
    assert squares[-1].gradient == pytest.approx(expected, rel=1e-4)


def test_training_and_prediction():
    X, _ = images()
    net = ready(lenet("textbook"), X)
    trained, predicted = activation_report(net, X), activation_report(net, X, training=False)
    assert abs(trained["1"].std - 1) < 1e-2
    assert abs(predicted["1"].std - 1) > 1e-2


def dense_and_batch(steps=0, optimizer="sgd", **options):
    """A network behind a batch norm, its trainer after so many steps, and a batch."""
    X, y = nd.random.normal(shape=(8, 5)), nd.arange(8) % 3
    net = nn.HybridSequential()
    net.add(nn.Dense(4, in_units=5), BatchNorm(4), nn.Activation("relu"), nn.Dense(3, in_units=4))
    net = ready(net, X)
    trainer = gluon.Trainer(net.collect_params(), optimizer, options)
    for _ in range(steps):
        take_a_step(net, trainer, X, y)
    return net, trainer, X, y


def take_a_step(net, trainer, X, y):
    with autograd.record():
        loss = gluon.loss.SoftmaxCrossEntropyLoss()(net(X), y)
    loss.backward()
    trainer.step(len(y))


def weights_of(layer):
    weights = [p for p in layer.collect_params().values() if p.grad_req != "null"]
    return np.concatenate([p.data().asnumpy().astype("float64").ravel() for p in weights])


def test_update_by_hand():
    """Momentum and weight decay: v' = a v - lr (g + wd w), and w' = w + v'."""
    lr, wd, momentum = 0.1, 0.01, 0.9
    net, trainer, X, y = dense_and_batch(learning_rate=lr, wd=wd, momentum=momentum)
    layer, velocity = net[3], 0
    for _ in range(3):
        with autograd.record():
            loss = gluon.loss.SoftmaxCrossEntropyLoss()(net(X), y).mean()
        loss.backward()
        w = weights_of(layer)
        g = np.concatenate([p.grad().asnumpy().ravel() for p in (layer.weight, layer.bias)])
        velocity = momentum * velocity - lr * (g + wd * w)
        found = activation_report(net, X, y, trainer=trainer)["3"].update
        assert found == pytest.approx(np.linalg.norm(velocity) / np.linalg.norm(w), rel=1e-4)
        take_a_step(net, trainer, X, y)


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adam", "learning_rate": 0.01},
        {"learning_rate": 0.1, "lr_scheduler": mx.lr_scheduler.FactorScheduler(1, 0.5, base_lr=1)},
    ],
)
def test_update_is_what_the_next_step_does(options, steps):
    net, trainer, X, y = dense_and_batch(steps, **options)
    before, states = state(net), trainer._updaters[0].get_states(dump_optimizer=True)
    report = activation_report(net, X, y, trainer=trainer)
    assert_same(before, state(net))
    assert trainer._updaters[0].get_states(dump_optimizer=True) == states
    old = {name: weights_of(net[int(name)]) for name in ("0", "1", "3")}
    take_a_step(net, trainer, X, y)
    for name, w in old.items():
        expected = np.linalg.norm(weights_of(net[int(name)]) - w) / np.linalg.norm(w)
        assert report[name].update == pytest.approx(expected, rel=1e-4)
    assert report["2"].update is None
    assert "update" in repr(report).splitlines()[0]


def test_update_of_what_is_not_trained():
    net, _, X, y = dense_and_batch()
    assert activation_report(net, X, y).column("update") == [None] * 4
    head = gluon.Trainer(net[3].collect_params(), "sgd", {"learning_rate": 0.1})
    report = activation_report(net, X, y, trainer=head)
    assert report["0"].update == report["1"].update == 0 < report["3"].update
    with pytest.raises(TypeError, match="must be a gluon.Trainer, got float"):
        activation_report(net, X, y, trainer=0.1)
    several = gluon.Trainer(net.collect_params(), "sgd")
    several._updaters = several._updaters * 2
    with pytest.raises(ValueError, match="has 2 devices"):
        activation_report(net, X, y, trainer=several)


# Any network --------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["textbook", "analytic", "auto", "gluon", "none", "group"])
@pytest.mark.parametrize("hybridized", [False, True])
def test_nothing_is_changed(norm, hybridized):
    X, y = images()
    net = ready(lenet(norm), X)
    if hybridized:
        net.hybridize(static_alloc=True)
    with autograd.record():  # gradients, and running statistics that have moved
        loss = net(X).square().sum()
    loss.backward()
    nd.waitall()
    before = state(net)
    mx.random.seed(1)
    np.random.seed(1)
    report = activation_report(net, X, y)
    numbers = nd.random.uniform(shape=(3,)).asnumpy(), np.random.rand(3)
    assert_same(before, state(net))
    mx.random.seed(1)
    np.random.seed(1)
    np.testing.assert_array_equal(numbers[0], nd.random.uniform(shape=(3,)).asnumpy())
    np.testing.assert_array_equal(numbers[1], np.random.rand(3))
    assert len(report) == 4 * 3 + 2 + 1
    if hybridized:
        net.hybridize(False)
        again = activation_report(net, X, y)
        np.testing.assert_allclose(report.column("gradient"), again.column("gradient"), rtol=1e-6)


def test_ours_and_gluons_agree():
    X, y = images(32)
    reports = []
    for norm in ("textbook", "gluon"):
        seed_everything(0)
        reports.append(activation_report(ready(lenet(norm), X), X, y))
    for column in ("mean", "std", "between", "gradient"):
        np.testing.assert_allclose(*(r.column(column) for r in reports), rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("model", [resnet18, densenet])
@pytest.mark.parametrize("norm", ["textbook", "gluon"])
def test_networks_with_blocks_of_their_own(model, norm):
    X, y = images(4)
    net = ready(model(norm, small=True), X)
    before = state(net)
    report = activation_report(net, X, y)
    assert_same(before, state(net))
    assert len(set(report.column("name"))) == len(report)
    assert all(g > 0 for g in report.column("gradient"))


def test_dropout_drops_nothing_and_draws_nothing():
    net = nn.HybridSequential()
    net.add(nn.Dense(20, in_units=4), nn.Dropout(0.5), nn.Dense(2, in_units=20))
    net.initialize()
    X = nd.random.normal(shape=(5, 4))
    mx.random.seed(1)
    report = activation_report(net, X)
    drawn = nd.random.uniform(shape=(3,)).asnumpy()
    mx.random.seed(1)
    np.testing.assert_array_equal(drawn, nd.random.uniform(shape=(3,)).asnumpy())
    assert report["1"].std == report["0"].std
    with autograd.record():
        assert (net[1](X) == 0).sum() > 0  # and it drops again


class TwiceAndNever(gluon.Block):
    """One layer is used twice, one not at all."""

    def __init__(self):
        super().__init__()
        self.once, self.twice, self.never = (nn.Dense(4, in_units=4) for _ in range(3))
        self.count = 0
        self.moving = nd.zeros(4)  # as d2l keeps its statistics

    def forward(self, X):
        self.count += 1
        self.moving[:] = X.mean(axis=0)
        self.moving = self.moving + 1
        return self.twice(self.twice(self.once(X)))


def test_a_layer_used_twice_and_one_never():
    net = TwiceAndNever()
    net.initialize()
    moving = net.moving
    report = activation_report(net, nd.ones((3, 4)))
    assert report.column("name") == ["once", "twice", "twice (call 2)"]
    assert net.count == 0 and net.moving is moving
    assert (moving.asnumpy() == 0).all()


def test_activation_inside_a_layer_is_one_row():
    net = nn.HybridSequential()
    net.add(
        nn.Dense(4, in_units=4, activation="relu"),
        BatchNorm(4, activation="sigmoid"),
        nn.Dense(3, in_units=4, activation="tanh"),
    )
    net.initialize()
    report = activation_report(net, nd.random.normal(shape=(3, 4)))
    assert report.column("kind") == ["Dense", "BatchNorm", "Dense"]
    assert None not in report.column("flat")
    alone = nn.Dense(3, in_units=4, activation="tanh")
    alone.initialize()
    assert len(activation_report(alone, nd.ones((2, 4)))) == 1


def test_numpy_arrays():
    npx.set_np()
    try:
        X = mx.np.random.uniform(size=(6, 1, 28, 28))
        for norm in ("textbook", "gluon"):
            net = ready(lenet(norm), X)
            report = activation_report(net, X, mx.np.array([0, 1, 2, 3, 4, 5]))
            assert all(np.isfinite(g) and g > 0 for g in report.column("gradient"))
    finally:
        npx.reset_np()


def test_double_precision_and_gradients_that_add_up():
    X, y = images()
    net = ready(lenet("textbook"), X)
    net.cast("float64")
    net.collect_params().setattr("grad_req", "add")
    before = state(net)
    first = activation_report(net, X.astype("float64"), y)
    second = activation_report(net, X.astype("float64"), y)
    assert first.column("weight_gradient") == second.column("weight_gradient")
    assert_same(before, state(net))


def test_a_batch_of_one():
    X, _ = images(1)
    net = nn.HybridSequential()
    net.add(nn.Dense(3), nn.Activation("relu"))
    report = activation_report(ready(net, X), X)
    assert np.isnan(report["0"].between)
    assert "nan" in repr(report)


def test_a_warning_of_many_layers_is_given_once():
    net = nn.HybridSequential()
    net.add(*(BatchNorm(3) for _ in range(4)))
    net.initialize()
    with pytest.warns(UserWarning) as caught:
        activation_report(net, nd.ones((1, 3)))
    caught = [w for w in caught if w.category is UserWarning]
    assert len(caught) == 1
    assert str(caught[0].message).endswith("(and 3 more like this)")
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="one value per channel"):
        activation_report(net, nd.ones((1, 3)))  # the layers do not remember that they were asked


def test_inside_someone_elses_recording():
    w = nd.ones((2, 2))
    w.attach_grad()
    net = nn.Dense(2, in_units=2)
    net.initialize()
    with autograd.record():
        loss = (w * w).sum()
        activation_report(net, nd.dot(w, w))
        assert autograd.is_recording()
    loss.backward()
    assert (w.grad == 2).asnumpy().all()


def test_numbers_that_are_not_finite_are_reported():
    net = nn.HybridSequential()
    net.add(nn.Dense(2, in_units=2), nn.Activation("relu"))
    net.initialize()
    report = activation_report(net, nd.array([[float("nan"), 1], [1, 2]]))
    assert np.isnan(report["0"].mean)
    assert "nan" in repr(report)


# Mistakes -----------------------------------------------------------------------------------------


class Breaks(nn.HybridBlock):
    def hybrid_forward(self, F, X):
        raise RuntimeError("broken on purpose")


@pytest.mark.parametrize("hybridized", [False, True])
def test_an_error_leaves_no_trace(hybridized):
    net = nn.HybridSequential()
    net.add(nn.Dense(4, in_units=4), nn.BatchNorm(in_channels=4), Breaks())
    net.initialize()
    if hybridized:
        net.hybridize()
    before = state(net)
    with pytest.raises(RuntimeError, match="broken on purpose"):
        activation_report(net, nd.random.normal(shape=(3, 4)))
    assert_same(before, state(net))
    assert not autograd.is_recording()


def test_conditional_batch_norm_needs_a_network_around_it():
    class Conditional(gluon.Block):
        def __init__(self, labels):
            super().__init__()
            self.norm, self.labels = ConditionalBatchNorm(4, 3), labels

        def forward(self, X):
            return self.norm(X, self.labels)

    net = Conditional(nd.array([0, 1, 2]))
    net.initialize()
    assert activation_report(net, nd.random.normal(shape=(3, 4))).column("name") == ["norm"]


def test_errors_are_sentences():
    X, y = images()
    net = lenet("gluon")
    with pytest.raises(ValueError, match="no values yet: call net.initialize"):
        activation_report(net, X)
    net.initialize()
    with pytest.raises(ValueError, match="not known yet. Call net"):
        activation_report(net, X)
    net(X)
    with pytest.raises(
        TypeError, match="X must be an mx.nd.NDArray or an mx.np.ndarray, got ndarray"
    ):
        activation_report(net, X.asnumpy())
    with pytest.raises(TypeError, match="net must be a Gluon Block, got function"):
        activation_report(lambda X: X, X)
    with pytest.raises(ValueError, match=r"each of the 6 examples of X, got \(3,\)"):
        activation_report(net, X, y[:3])
    with pytest.raises(ValueError, match=r"label \d+(\.0)? at index 0 is not in \[0, 10\)"):
        activation_report(net, X, y + 10)
    with pytest.raises(ValueError, match=r"shape \(6,\).* got \(6, 10\)"):
        activation_report(net, X, nd.one_hot(y, 10))
    with pytest.raises(ValueError, match=r"does not take float32 of shape \(6, 1, 32, 32\)"):
        activation_report(net, nd.zeros((6, 1, 32, 32)), y)
    report = activation_report(net, X, y)
    with pytest.raises(KeyError, match="there is no layer '99'"):
        report["99"]
    with pytest.raises(ValueError, match="there is no column 'sd'; there are name"):
        report.column("sd")
    with pytest.raises(ValueError, match="no layer of kind 'Conv3D'; there are Activation"):
        report.only("Conv3D")


def test_a_network_that_cuts_the_gradient():
    class Cut(gluon.Block):
        def __init__(self):
            super().__init__()
            self.before, self.after = nn.Dense(2, in_units=2), nn.Dense(2, in_units=2)

        def forward(self, X):
            return self.after(nd.array(self.before(X).asnumpy()))

    net = Cut()
    net.initialize()
    report = activation_report(net, nd.ones((2, 2)))
    assert report.column("gradient") == pytest.approx([0, 1])
    assert report["before"].weight_gradient == 0 < report["after"].weight_gradient


def test_the_table():
    X, y = images()
    net = ready(lenet("gluon"), X)
    report = activation_report(net, X, y, keep=100)
    lines = repr(report).splitlines()
    assert len(lines) == 1 + len(report)
    assert all(len(line) <= 110 for line in lines)
    assert all(len(row.values) <= 300 for row in report)


def test_importing_needs_no_pandas():
    import subprocess
    import sys

    code = "import sys, gluon_bn.inspection; assert 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
