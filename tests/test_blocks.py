"""`BatchNorm` and `ConditionalBatchNorm` against Gluon's layer, float64 NumPy, and what users do.

Gluon's layer moves its statistics in the backward pass, ours in the forward pass, so the two are
compared after a backward pass.
"""

import copy
import itertools
import pickle
import random
import warnings

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, nd
from mxnet.gluon import nn

from gluon_bn import BatchNorm, BatchRenorm, ConditionalBatchNorm, kernels

KERNELS = ["auto", *(name for name in kernels.available() if name != "gluon")]
STATISTICS = ("running_mean", "running_var")


def values(seed, *shape, scale=2.0, offset=1.0):
    return (np.random.RandomState(seed).standard_normal(shape) * scale + offset).astype("float32")


def started(layer, channels=None, seed=0):
    """Initialized, and with other weights than the ordinary ones if channels are given."""
    layer.initialize()
    if channels:
        for i, name in enumerate(("gamma", "beta", *STATISTICS)):
            start = np.random.RandomState(seed + i).uniform(0.5, 2, channels)
            getattr(layer, name).set_data(nd.array(start))
    return layer


class Fixed(mx.init.Initializer):
    """Random numbers that depend on nothing but the shape, whenever they are asked for."""

    def _init_weight(self, name, arr):
        arr[:] = values(len(arr), *arr.shape, scale=arr.size**-0.25, offset=0.2)


def as_numpy(array):
    return array.asnumpy().astype("float64")


def close(ours, theirs, relative, what="", slack=0.0):
    """Within `relative` of the largest magnitude of `theirs` (at least 1), plus `slack`."""
    ours, theirs = (as_numpy(v) if isinstance(v, nd.NDArray) else v for v in (ours, theirs))
    assert ours.shape == theirs.shape, what
    worst, largest = np.abs(ours - theirs).max(), max(1.0, np.abs(theirs).max())
    assert worst <= relative * largest + slack, f"{what}: {worst} of {largest}"


def axes_but(axis, ndim):
    return tuple(a for a in range(ndim) if a != axis % ndim)


def lay(v, ndim, axis=1):
    shape = [1] * ndim
    shape[axis] = -1
    return np.asarray(v, "float64").reshape(shape)


def train(net, x, *more, upstream=None):
    """One forward and backward pass. Returns the output and the gradient of x."""
    X = nd.array(x, dtype=getattr(x, "dtype", "float32"))
    X.attach_grad()
    with autograd.record():
        Y = net(X, *more)
    Y.backward(None if upstream is None else nd.array(upstream, dtype=Y.dtype))
    return Y, X.grad


# ---------------------------------------------------------------------- against Gluon, step by step


def option_sets(count):
    """Random combinations of the options that Gluon's layer has too, the same ones every time."""
    draw = random.Random(16926)
    for number in range(count):
        shape = draw.choice([(6, 5), (4, 3, 7), (4, 3, 5, 4), (3, 5, 2, 3, 4), (1, 3, 4, 4)])
        options = {
            "axis": draw.choice([1, -1, len(shape) - 1]),
            "momentum": draw.choice([0, 0.5, 0.9, 1]),
            "epsilon": draw.choice([1e-5, 1e-3, 0.1]),
            "center": draw.random() < 0.7,
            "scale": draw.random() < 0.7,
            "use_global_stats": draw.random() < 0.25,
            "gamma_initializer": draw.choice(["ones", Fixed(), mx.init.Constant(2)]),
            "running_mean_initializer": draw.choice(["zeros", mx.init.Constant(0.5)]),
            "running_variance_initializer": draw.choice(["ones", mx.init.Constant(3)]),
        }
        if options["center"]:  # Gluon adds a beta that center=False fixed: see the test below
            options["beta_initializer"] = draw.choice(["zeros", Fixed()])
        yield pytest.param(shape, options, id=f"{number}-rank{len(shape)}")


@pytest.mark.parametrize(
    "kernel, hybridize",
    [*((kernel, False) for kernel in KERNELS), ("auto", True), ("textbook", True)],
)
@pytest.mark.parametrize("shape, options", list(option_sets(16)))
def test_ten_steps_beside_gluon(shape, options, kernel, hybridize):
    axis, momentum = options["axis"], options["momentum"]
    ours, theirs = BatchNorm(**options, kernel=kernel), nn.BatchNorm(**options)
    nets = ours, theirs
    if hybridize:
        nets = nn.HybridSequential(), nn.HybridSequential()
        for net, layer in zip(nets, (ours, theirs)):
            net.add(layer)
            net.hybridize()
    for net in nets:
        net.initialize()
    trainers = [
        gluon.Trainer(layer.collect_params(), "sgd", {"learning_rate": 0.1, "wd": 0.01})
        for layer in (ours, theirs)
    ]
    exact = None  # the running statistics in float64
    for step in range(10):
        x = values(step, *shape)
        (Y, dX), (theirs_Y, theirs_dX) = (
            train(net, x, upstream=values(99 - step, *shape)) for net in nets
        )
        close(Y, theirs_Y, 2e-5, f"output of step {step}")
        close(dX, theirs_dX, 1e-4, f"gradient of X in step {step}")
        for name, trained in (("gamma", options["scale"]), ("beta", options["center"])):
            if trained:
                close(
                    getattr(ours, name).grad(),
                    getattr(theirs, name).grad(),
                    1e-4,
                    f"gradient of {name} in step {step}",
                )
        if exact is None:
            exact = {
                "running_mean": 0.5 if options["running_mean_initializer"] != "zeros" else 0.0,
                "running_var": 3.0 if options["running_variance_initializer"] != "ones" else 1.0,
            }
        for name, batch in zip(STATISTICS, (np.mean, np.var)):
            if not options["use_global_stats"]:
                now = batch(x.astype("float64"), axis=axes_but(axis, x.ndim))
                exact[name] = momentum * exact[name] + (1 - momentum) * now
            mine, other = (as_numpy(getattr(layer, name).data()) for layer in (ours, theirs))
            close(mine, other, 1e-6, f"{name} after step {step}", np.abs(other - exact[name]).max())
            close(mine, exact[name] + 0 * mine, 2e-6, f"{name} after step {step}, in float64")
        for trainer in trainers:
            trainer.step(shape[0])
        close(*(net(nd.array(x)) for net in nets), 2e-5, f"prediction after step {step}")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "shape, axis", [((64, 16, 24, 24), 1), ((16, 24, 24, 32), -1), ((4096, 10), 1)]
)
def test_on_large_shapes_we_are_as_near_to_gluon_as_gluon_is_to_float64(shape, axis, kernel):
    x, up = values(0, *shape), values(1, *shape)
    ours, theirs = (
        started(layer) for layer in (BatchNorm(axis=axis, kernel=kernel), nn.BatchNorm(axis=axis))
    )
    (Y, dX), (theirs_Y, theirs_dX) = (train(layer, x, upstream=up) for layer in (ours, theirs))
    x, up, axes = x.astype("float64"), up.astype("float64"), axes_but(axis, len(shape))
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    x_hat = (x - mean) / np.sqrt(var + 1e-5)
    dx = (
        up - up.mean(axes, keepdims=True) - x_hat * (up * x_hat).mean(axes, keepdims=True)
    ) / np.sqrt(var + 1e-5)
    for mine, other, exact, allowed in (
        (Y, theirs_Y, x_hat, 2e-5),
        (dX, theirs_dX, dx, 1e-4),
        (ours.gamma.grad(), theirs.gamma.grad(), (up * x_hat).sum(axes), 1e-4),
        (ours.running_mean.data(), theirs.running_mean.data(), 0.1 * mean.ravel(), 1e-6),
        (ours.running_var.data(), theirs.running_var.data(), 0.9 + 0.1 * var.ravel(), 1e-6),
    ):
        close(mine, other, allowed, slack=np.abs(as_numpy(other) - exact).max())
        close(mine, exact, allowed)


@pytest.mark.parametrize("kernel", KERNELS)
def test_at_an_offset_our_error_is_a_tenth_of_gluons(kernel):
    x = values(0, 16, 4, 16, 16, scale=1, offset=1e4)
    errors = []
    for layer in (BatchNorm(kernel=kernel), nn.BatchNorm()):
        Y, _ = train(started(layer), x)
        exact = x.astype("float64")
        exact = exact - exact.mean((0, 2, 3), keepdims=True)
        exact /= np.sqrt((exact**2).mean((0, 2, 3), keepdims=True) + 1e-5)
        errors.append(np.abs(as_numpy(Y) - exact).max())
    assert errors[0] <= errors[1] / 10


@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_fixed_beta_is_ignored_though_gluon_adds_it_and_a_fixed_gamma_is_one(kernel, hybridize):
    options = {"beta_initializer": mx.init.Constant(5), "gamma_initializer": mx.init.Constant(7)}
    x, ours, theirs = values(0, 4, 3), nn.HybridSequential(), nn.HybridSequential()
    ours.add(BatchNorm(center=False, scale=False, kernel=kernel, **options))
    theirs.add(nn.BatchNorm(center=False, scale=False, **options))
    for net in (ours, theirs):
        net.initialize()
        if hybridize:
            net.hybridize()
    close(ours(nd.array(x)), x / np.sqrt(1 + 1e-5), 1e-6)
    close(theirs(nd.array(x)), x / np.sqrt(1 + 1e-5) + 5, 1e-6)
    close(train(ours, x)[0], (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5), 1e-5)
    assert ours[0].gamma.grad_req == ours[0].beta.grad_req == "null"


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("hybridize", [False, True])
def test_grad_req_add_two_backwards_and_frozen_parameters(kernel, hybridize):
    x = values(0, 4, 3, 5)
    nets = [nn.HybridSequential() for _ in range(2)]
    for net, layer in zip(nets, (BatchNorm(kernel=kernel), nn.BatchNorm())):
        net.add(layer)
        net.initialize()
        net.collect_params(".*gamma|.*beta").setattr("grad_req", "add")
        if hybridize:
            net.hybridize()
    for _ in range(3):
        results = [train(net, x, upstream=x) for net in nets]
    for name in ("gamma", "beta"):
        close(getattr(nets[0][0], name).grad(), getattr(nets[1][0], name).grad(), 1e-4, name)
    close(results[0][1], results[1][1], 1e-4)
    # X alone, with 'add'; then nothing at all that wants a gradient.
    for net in nets:
        net.collect_params(".*gamma|.*beta").setattr("grad_req", "null")
    gradients = []
    for net in nets:
        X = nd.array(x)
        X.attach_grad(grad_req="add")
        for _ in range(2):
            with autograd.record():
                Y = net(X)
            Y.backward(X)
        gradients.append(X.grad)
    close(*gradients, 1e-4)
    with autograd.record():
        assert net(nd.array(x)).shape == x.shape


@pytest.mark.parametrize("kernel", KERNELS)
def test_statistics_move_once_a_call_and_two_backwards_give_one_gradient(kernel):
    layer, x = started(BatchNorm(kernel=kernel)), values(0, 8, 3)
    X = nd.array(x)
    X.attach_grad()
    with autograd.record():
        Y = layer(X)
    expected = 0.1 * x.mean(0)
    close(layer.running_mean.data(), expected, 1e-6, "before any backward pass")
    Y.backward(X, retain_graph=True)
    first = X.grad.asnumpy()
    Y.backward(X)
    np.testing.assert_array_equal(X.grad.asnumpy(), first)
    layer(X)
    close(layer.running_mean.data(), expected, 1e-6, "after two and a prediction")


def test_gradients_do_not_see_a_trainer_that_steps_first():
    """The backward pass uses the gamma of its forward pass."""
    for kernel in KERNELS:
        x, layer = values(0, 4, 3), started(BatchNorm(3, kernel=kernel), 3)
        before = layer.gamma.data().asnumpy()
        X = nd.array(x)
        X.attach_grad()
        with autograd.record():
            Y = layer(X)
        Y.backward(X)
        layer.gamma.set_data(layer.gamma.data() * 100)
        gradient = X.grad.asnumpy()
        fresh = started(BatchNorm(3, kernel="textbook"))
        fresh.gamma.set_data(nd.array(before))
        close(gradient.astype("float64"), train(fresh, x, upstream=x)[1], 1e-4, kernel)


def test_lr_mult_and_wd_mult_of_gluons_trainer():
    layers = [started(BatchNorm(), 3), started(nn.BatchNorm(), 3)]
    for layer in layers:
        layer.gamma.wd_mult, layer.beta.lr_mult = 0, 10
        layer.collect_params(".*beta").setattr("wd_mult", 0.5)
        trainer = gluon.Trainer(layer.collect_params(), "sgd", {"learning_rate": 0.1, "wd": 0.5})
        for step in range(3):
            train(layer, values(step, 4, 3), upstream=values(9, 4, 3))
            trainer.step(4)
    for name in ("gamma", "beta"):
        close(*(getattr(layer, name).data() for layer in layers), 1e-5, name)


# -------------------------------------------------------------------------------- inside a network


def network(norm, init=None):
    """A small convolutional network with the layer in two places and all shapes deferred."""
    net = nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(nn.Conv2D(4, 3), norm(), nn.Activation("relu"), nn.Dense(5), norm(), nn.Dense(2))
    net.initialize(init or Fixed())
    return net


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "flags",
    [None, {}, {"static_alloc": True}, {"static_alloc": True, "static_shape": True}],
    ids=["imperative", "dynamic", "static_alloc", "static_shape"],
)
def test_networks_side_by_side_through_training_and_prediction(flags, kernel):
    """Deferred shapes, the mode switched at every step (MXNet's issue 16926), two batch sizes."""
    nets = [network(lambda: BatchNorm(kernel=kernel)), network(nn.BatchNorm)]
    trainers = []
    for net in nets:
        if flags is not None:
            net.hybridize(**flags)
        trainers.append(gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.05}))
    for step in range(6):
        x = nd.array(values(step, 6 if step != 3 else 4, 2, 6, 6))
        outputs = []
        for net, trainer in zip(nets, trainers):
            with autograd.record():
                Y = net(x)
                loss = (Y**2).mean()
            loss.backward()
            trainer.step(1)
            outputs.append((Y, net(x)))
        close(outputs[0][0], outputs[1][0], 1e-4, f"training, step {step}")
        close(outputs[0][1], outputs[1][1], 1e-4, f"prediction, step {step}")
    for mine, other in zip(*(net.collect_params().values() for net in nets)):
        close(mine.data(), other.data(), 1e-4, mine.name)


def test_a_first_call_in_prediction_does_not_freeze_the_mode():
    net = network(BatchNorm)
    net.hybridize()
    x = nd.array(values(0, 6, 2, 6, 6))
    still = net(x).asnumpy()
    assert (net[1].running_mean.data().asnumpy() == 0).all()
    with autograd.record():
        moved = net(x).asnumpy()
    assert (net[1].running_mean.data().asnumpy() != 0).all()
    assert np.abs(moved - still).max() > 0.01


@pytest.mark.parametrize("hybridize", [False, True])
def test_files_move_both_ways_bit_for_bit(tmp_path, hybridize):
    trained = {"ours": network(BatchNorm), "gluon": network(nn.BatchNorm)}
    x = nd.array(values(0, 6, 2, 6, 6))
    for name, net in trained.items():
        if hybridize:
            net.hybridize()
        with autograd.record():
            loss = (net(x) ** 2).mean()
        loss.backward()
        net.save_parameters(str(tmp_path / name))
    assert list(nd.load(str(tmp_path / "ours"))) == list(nd.load(str(tmp_path / "gluon")))
    for source, target in itertools.product(trained, repeat=2):
        net = network({"ours": BatchNorm, "gluon": nn.BatchNorm}[target], mx.init.Zero())
        net.load_parameters(str(tmp_path / source))  # shapes still deferred
        for mine, other in zip(
            net.collect_params().values(), trained[source].collect_params().values()
        ):
            np.testing.assert_array_equal(mine.data().asnumpy(), other.data().asnumpy())
        close(net(x), trained[source](x), 2e-5)


def test_a_lone_layers_file_fits_gluons(tmp_path):
    ours, path = started(BatchNorm(3), 3), str(tmp_path / "layer.params")
    ours.save_parameters(path)
    theirs = nn.BatchNorm()
    theirs.load_parameters(path)
    back = BatchNorm()
    theirs.save_parameters(path)
    back.load_parameters(path)
    for name in ("gamma", "beta", *STATISTICS):
        a, b, c = (getattr(layer, name).data().asnumpy() for layer in (ours, theirs, back))
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


@pytest.mark.parametrize("hybridize", [False, True])
def test_mixed_precision_keeps_parameters_and_statistics_in_float32(hybridize):
    nets = [nn.HybridSequential(), nn.HybridSequential()]
    x = nd.array(values(0, 6, 2, 6, 6)).astype("float16")
    outputs = []
    for net, norm in zip(nets, (BatchNorm, nn.BatchNorm)):
        net.add(nn.PReLU(), norm(), nn.Activation("relu"), norm())
        net.initialize(Fixed())
        net.cast("float16")
        if hybridize:
            net.hybridize()
        with autograd.record():
            Y = net(x)
        Y.backward()
        outputs.append(Y)
        assert Y.dtype == np.float16 and net[0].alpha.dtype == "float16"
    for name in ("gamma", "beta", *STATISTICS):
        parameter, theirs = (getattr(net[1], name) for net in nets)
        assert parameter.data().dtype == np.float32
        close(parameter.data(), theirs.data(), 2e-3, name)
    close(*outputs, 2e-2)


@pytest.mark.parametrize("hybridize", [False, True])
def test_cast_to_float64_and_back(hybridize):
    net = nn.HybridSequential()
    net.add(BatchNorm())
    net.initialize()
    if hybridize:
        net.hybridize()
    x = values(0, 4, 3)
    for dtype, tolerance in (("float64", 1e-12), ("float32", 2e-5), ("float64", 1e-12)):
        net.cast(dtype)
        net.initialize(force_reinit=True)
        exact = x.astype("float64")
        exact = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-5)
        Y, _ = train(net, x.astype(dtype))
        assert Y.dtype == np.dtype(dtype) == net[0].running_mean.data().dtype
        close(Y, exact, tolerance)
        close(net[0].running_var.data(), 0.9 + 0.1 * x.astype("float64").var(0), tolerance)


def test_initialize_again_forgets_everything():
    for options in ({}, {"momentum": None}, {"zero_debias": True}):
        layer = started(BatchNorm(3, **options))
        first = {p.name: p.data().asnumpy() for p in layer.collect_params().values()}
        train(layer, values(0, 4, 3))
        layer.initialize(force_reinit=True)
        for p in layer.collect_params().values():
            np.testing.assert_array_equal(p.data().asnumpy(), first[p.name])


def test_two_layers_may_share_their_parameters():
    one = BatchNorm(3, prefix="shared_")
    two = BatchNorm(3, prefix="shared_", params=one.params)
    started(one, 3)
    train(two, values(0, 4, 3))
    np.testing.assert_array_equal(
        one.running_mean.data().asnumpy(), two.running_mean.data().asnumpy()
    )
    assert one.gamma is two.gamma and len(list(two.collect_params())) == 4
    X = nd.array(values(1, 4, 3))
    np.testing.assert_array_equal(one(X).asnumpy(), two(X).asnumpy())


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))],
    ids=["deepcopy", "pickle"],
)
@pytest.mark.parametrize(
    "make", [lambda: BatchNorm(3, unbiased=True, momentum=None), lambda: ConditionalBatchNorm(3, 2)]
)
def test_copies_are_equal_and_independent(make, duplicate):
    layer, X = started(make()), nd.array(values(0, 4, 3))
    more = [nd.array([0, 1, 1, 0])] if isinstance(layer, ConditionalBatchNorm) else []
    train(layer, values(1, 4, 3), *more)
    twin = duplicate(layer)
    np.testing.assert_array_equal(layer(X, *more).asnumpy(), twin(X, *more).asnumpy())
    before = layer.running_mean.data().asnumpy()
    train(twin, values(2, 4, 3), *more)
    np.testing.assert_array_equal(layer.running_mean.data().asnumpy(), before)
    assert (twin.running_mean.data().asnumpy() != before).all()


def test_repr_tells_what_was_chosen():
    assert repr(BatchNorm()) == (
        "BatchNorm(num_features=None, axis=1, momentum=0.9, epsilon=1e-05, kernel='auto')"
    )
    layer = BatchNorm(6, 4, unbiased=True, activation="relu", kernel="textbook")
    for piece in (
        "num_features=6",
        "num_dims=4",
        "unbiased=True",
        "activation='relu'",
        "kernel='textbook'",
    ):
        assert piece in repr(layer)
    layer = started(BatchNorm())
    layer(nd.ones((2, 5)))
    assert "num_features=5" in repr(layer)
    assert repr(ConditionalBatchNorm(5, 3)).startswith("ConditionalBatchNorm(num_classes=3, num_f")


def test_summary_and_parameter_names(capsys):
    net = network(BatchNorm)
    net.summary(nd.ones((2, 2, 6, 6)))
    assert "BatchNorm-2" in capsys.readouterr().out
    theirs = [name.split("_", 1)[1] for name in network(nn.BatchNorm).collect_params()]
    assert [name.split("_", 1)[1] for name in net.collect_params()] == theirs
    assert len(list(net.collect_params(".*gamma|.*beta"))) == 4


@pytest.mark.parametrize("kernel", KERNELS)
def test_two_devices(kernel):
    devices = [mx.cpu(0), mx.cpu(1)]
    ours, theirs = BatchNorm(3, kernel=kernel), nn.BatchNorm(in_channels=3)
    for layer in (ours, theirs):
        layer.initialize(ctx=devices)
        trainer = gluon.Trainer(layer.collect_params(), "sgd", {"learning_rate": 0.5})
        for step in range(3):
            losses = []
            with autograd.record():
                for i, device in enumerate(devices):
                    X = nd.array(values(10 * step + i, 4, 3), ctx=device)
                    losses.append((layer(X) * X).sum())
            autograd.backward(losses)
            trainer.step(8)
    for device in devices:
        for name in ("gamma", "beta", *STATISTICS):
            close(*(getattr(layer, name).data(device) for layer in (ours, theirs)), 2e-5, name)
    layer = started(BatchNorm(3))
    with pytest.raises(ValueError, match=r"cpu\(1\).*cpu\(0\)"):
        layer(nd.ones((2, 3), ctx=mx.cpu(1)))
    with pytest.raises(ValueError, match=r"cpu\(1\)"):
        layer(nd.ones((2, 3)), nd.ones(2, ctx=mx.cpu(1)))


@pytest.mark.parametrize("hybridize", [False, True])
def test_under_numpy_semantics_as_npx_set_np_sets_them(hybridize):
    with mx.util.np_shape(True), mx.util.np_array(True):
        nets = [network(BatchNorm), network(nn.BatchNorm)]
        outputs = []
        for net in nets:
            if hybridize:
                net.hybridize()
            X = mx.np.array(values(0, 6, 2, 6, 6))
            X.attach_grad()
            with autograd.record():
                Y = net(X)
                loss = (Y**2).mean()
            loss.backward()
            assert type(Y) is type(net[1].running_mean.data()) is mx.np.ndarray
            outputs.append((Y, X.grad, net(X), net[1].running_var.data(), net[1].gamma.grad()))
        for mine, other in zip(*outputs):
            close(mine, other, 1e-4)


@pytest.mark.parametrize("kernel", KERNELS)
def test_views_and_channels_last_without_copying(kernel):
    x = values(0, 6, 4, 5, 3)
    exact = (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)
    turned = nd.array(x.transpose(0, 2, 3, 1))
    with autograd.record():
        close(started(BatchNorm(axis=-1, kernel=kernel))(turned), exact.transpose(0, 2, 3, 1), 2e-5)
        close(started(BatchNorm(kernel=kernel))(turned.transpose((0, 3, 1, 2))), exact, 2e-5)
        part = nd.array(np.concatenate([x, x]))[6:]
        close(started(BatchNorm(kernel=kernel))(part), exact, 2e-5)


# ------------------------------------------------------------------------- options beyond Gluon's


def test_unbiased_is_pytorchs_convention():
    """running_var = (1 - m) running_var + m batch_var n / (n - 1), with m = 1 - momentum."""
    layer, x = started(BatchNorm(momentum=0.7, unbiased=True)), values(0, 5, 3, 2)
    Y, _ = train(layer, x)
    close(layer.running_var.data(), 0.7 + 0.3 * x.var((0, 2), ddof=1), 1e-6)
    close(
        Y, (x - x.mean((0, 2), keepdims=True)) / np.sqrt(x.var((0, 2), keepdims=True) + 1e-5), 2e-5
    )


def test_momentum_none_is_the_plain_average_of_the_batches():
    layer = started(BatchNorm(momentum=None, running_mean_initializer=mx.init.Constant(9)))
    batches = [values(i, 4 + i, 3) for i in range(5)]
    for i, x in enumerate(batches):
        train(layer, x)
        close(layer.running_mean.data(), np.mean([b.mean(0) for b in batches[: i + 1]], 0), 2e-6)
        close(layer.running_var.data(), np.mean([b.var(0) for b in batches[: i + 1]], 0), 2e-6)


@pytest.mark.parametrize("hybridize", [False, True])
def test_zero_debias_divides_by_one_minus_momentum_to_the_t(hybridize):
    layer, net = BatchNorm(momentum=0.8, zero_debias=True), nn.HybridSequential()
    net.add(layer)
    net.initialize()
    if hybridize:
        net.hybridize()
    biased = np.zeros(3)
    for t in range(1, 5):
        x = values(t, 4, 3)
        train(net, x)
        biased = 0.8 * biased + 0.2 * x.mean(0)
        close(layer.running_mean.data(), biased / (1 - 0.8**t), 2e-6)


@pytest.mark.parametrize(
    "name, formula",
    [
        ("relu", lambda y: np.maximum(y, 0)),
        ("sigmoid", lambda y: 1 / (1 + np.exp(-y))),
        ("tanh", np.tanh),
        ("softrelu", lambda y: np.log1p(np.exp(y))),
        ("softsign", lambda y: y / (1 + np.abs(y))),
    ],
)
@pytest.mark.parametrize("hybridize", [False, True])
def test_activation_comes_last(name, formula, hybridize):
    net, x = nn.HybridSequential(), values(0, 8, 3)
    net.add(BatchNorm(activation=name))
    net.initialize()
    if hybridize:
        net.hybridize()
    y = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    close(train(net, x)[0], formula(y), 2e-5)


def test_sample_weights_of_one_and_integer_weights():
    x, up = values(0, 3, 2, 4), values(1, 3, 2, 4)
    plain, ones = started(BatchNorm()), started(BatchNorm())
    for a, b in zip(train(ones, x, nd.ones(3), upstream=up), train(plain, x, upstream=up)):
        close(a, b, 2e-5)
    close(ones.running_var.data(), plain.running_var.data(), 1e-6)
    for unbiased in (False, True):
        weighted, repeated = (started(BatchNorm(unbiased=unbiased)) for _ in range(2))
        Y, _ = train(weighted, x, nd.array([2, 0, 3], dtype="int32"))
        again, _ = train(repeated, x[[0, 0, 2, 2, 2]])
        close(as_numpy(Y)[[0, 2]], as_numpy(again)[[0, 2]], 2e-5)
        for name in STATISTICS:
            close(getattr(weighted, name).data(), getattr(repeated, name).data(), 1e-6)


def test_sample_weights_do_not_matter_in_prediction():
    layer, X = started(BatchNorm(), 3), nd.array(values(0, 4, 3))
    np.testing.assert_array_equal(layer(X).asnumpy(), layer(X, nd.array([1, 0, 2, 1])).asnumpy())


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1)])
def test_one_value_per_channel_warns_once_and_not_in_prediction(shape):
    layer, x = started(BatchNorm()), values(0, *shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        layer(nd.array(x))
        train(started(BatchNorm(use_global_stats=True)), x)
        train(started(BatchNorm()), values(0, 1, 3, 2))  # a batch of one, but two values
    with pytest.warns(UserWarning, match="one value per channel") as caught:
        Y, _ = train(layer, x)
        train(layer, x)
    assert [w.filename for w in caught if w.category is UserWarning] == [__file__]
    close(Y, np.zeros(shape), 1e-6)


@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize("accident", [np.nan, np.inf, -np.inf])
def test_the_guard_against_nan_and_infinity(accident, hybridize):
    for options in (
        {},
        {"zero_debias": True},
        {"momentum": None},
        {"activation": "relu"},
        {"activation": "relu", "kernel": "textbook"},
    ):
        guarded, open_ = BatchNorm(**options), BatchNorm(skip_nonfinite=False, **options)
        x = values(0, 4, 3)
        x[2, 1] = accident
        for layer in (guarded, open_):
            net = nn.HybridSequential()
            net.add(layer)
            net.initialize()
            if hybridize:
                net.hybridize()
            train(net, values(1, 4, 3))
            before = layer.running_mean.data().asnumpy()
            Y, _ = train(net, x)
            assert np.isnan(as_numpy(Y)[:, 1]).all(), "the accident is seen in the output"
            after = layer.running_mean.data().asnumpy()
            assert (after[[0, 2]] != before[[0, 2]]).all(), "the healthy channels moved"
            if layer is guarded:
                assert after[1] == before[1] and np.isfinite(layer.running_var.data().asnumpy()[1])
            else:
                assert not np.isfinite(after[1])


@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize("kernel", [k for k in kernels.available() if k != "gluon"])
def test_the_guard_against_a_variance_that_overflows(kernel, hybridize):
    """The same accident with finite numbers: never beta without a word."""
    x = values(0, 4, 3)
    x[:, 1] = np.array([-1, 0, 2, 3]) * 1e20
    right = (x - x.mean(0)) / x.astype("float64").std(0)
    for layer in (
        BatchNorm(kernel=kernel),
        BatchNorm(kernel=kernel, activation="relu"),
        BatchRenorm(kernel=kernel, r_max=1, d_max=0),
    ):
        net = nn.HybridSequential()
        net.add(layer)
        net.initialize()
        if hybridize:
            net.hybridize()
        Y = as_numpy(train(net, x)[0])[:, 1]
        want = right[:, 1].clip(0) if layer.activation else right[:, 1]
        assert np.isnan(Y).all() or np.allclose(Y, want, atol=1e-5)
        assert layer.running_mean.data().asnumpy()[1] == 0, "no statistic moved"
        assert layer.running_var.data().asnumpy()[1] == 1
        assert np.isfinite(as_numpy(net(nd.array(values(1, 4, 3))))).all()


# -------------------------------------------------------------------------------------- bad input

BAD_OPTIONS = [
    ({"num_features": -1}, ValueError, "num_features.*-1"),
    ({"num_features": 2.5}, TypeError, "2.5"),
    ({"num_features": "6"}, TypeError, "'6'"),
    ({"num_dims": 1}, ValueError, "num_dims.*1"),
    ({"axis": 0.0}, TypeError, "axis"),
    ({"axis": 1.5}, TypeError, "1.5"),
    ({"axis": 4, "num_dims": 4}, ValueError, "axis 4"),
    ({"epsilon": 0}, ValueError, "epsilon.*0"),
    ({"epsilon": -1}, ValueError, "-1"),
    ({"epsilon": None}, TypeError, "None"),
    ({"epsilon": float("nan")}, ValueError, "nan"),
    ({"momentum": 1.1}, ValueError, "1.1"),
    ({"momentum": -0.1}, ValueError, "-0.1"),
    ({"momentum": "0.9"}, TypeError, "0.9"),
    ({"momentum": float("nan")}, ValueError, "nan"),
    ({"kernel": "fast"}, ValueError, "'fast'"),
    ({"activation": "rellu"}, ValueError, "'rellu'"),
    ({"activation": 1}, ValueError, "1"),
    ({"zero_debias": True, "momentum": 1}, ValueError, "zero_debias"),
    ({"zero_debias": True, "momentum": None}, ValueError, "zero_debias"),
    ({"eps": 1e-5}, TypeError, "eps"),
]


@pytest.mark.parametrize("options, error, names", BAD_OPTIONS, ids=lambda v: str(v)[:40])
def test_options_that_could_never_work_are_refused_at_once(options, error, names):
    with pytest.raises(error, match=names):
        BatchNorm(**options)


def test_options_may_be_numpy_scalars():
    layer = started(
        BatchNorm(
            np.int64(3),
            np.int32(2),
            axis=np.int64(1),
            epsilon=np.float32(1e-5),
            momentum=np.float64(0.5),
        )
    )
    x = values(0, 4, 3)
    train(layer, x)
    close(layer.running_mean.data(), 0.5 * x.mean(0), 1e-6)


def array_of(*shape, **kwargs):
    return nd.ones(shape, **kwargs)


BAD_CALLS = {
    "channels": ([array_of(4, 5)], ValueError, r"3 channels.*5 on axis 1.*\(4, 5\)"),
    "rank 1": ([array_of(3)], ValueError, r"rank 1.*\(3,\)"),
    "num_dims": ([array_of(4, 3, 2)], ValueError, r"num_dims=2.*rank 3"),
    "integers": ([array_of(4, 3, dtype="int32")], TypeError, "int32"),
    "NumPy": ([np.ones((4, 3))], TypeError, "ndarray"),
    "a list": ([[[1.0, 2.0, 3.0]]], TypeError, "list"),
    "device": ([array_of(4, 3, ctx=mx.cpu(1))], ValueError, r"cpu\(1\)"),
    "weights < 0": ([array_of(4, 3), nd.array([1, -1, 1, 1])], ValueError, "-1.0 at index 1"),
    "weights zero": ([array_of(4, 3), nd.zeros(4)], ValueError, "zero"),
    "weights short": ([array_of(4, 3), nd.ones(3)], ValueError, r"\(3,\)"),
    "weights matrix": ([array_of(4, 3), nd.ones((4, 2))], ValueError, r"\(4, 2\)"),
    "weights nan": ([array_of(4, 3), nd.array([1, np.nan, 1, 1])], ValueError, "nan"),
    "weights a list": ([array_of(4, 3), [1, 1, 1, 1]], TypeError, "list"),
    "weights of strings": ([array_of(4, 3), "ones"], TypeError, "str"),
}


@pytest.mark.parametrize("wrong", BAD_CALLS)
def test_bad_input_changes_nothing(wrong):
    inputs, error, names = BAD_CALLS[wrong]
    layer = started(BatchNorm(num_dims=2))
    train(layer, values(0, 4, 3))
    before = {p.name: p.data().asnumpy() for p in layer.collect_params().values()}
    with autograd.record(), pytest.raises(error, match=names):
        layer(*inputs)
    with pytest.raises(error, match=names):
        layer(*inputs)
    for p in layer.collect_params().values():
        np.testing.assert_array_equal(p.data().asnumpy(), before[p.name])


@pytest.mark.parametrize("kernel", ["native", "textbook"])
def test_num_dims_in_a_graph(kernel, capfd):
    """Python does not see the batches of a hybridized network; MXNet's operators ask the layer."""
    if kernel not in kernels.available():
        pytest.skip(f"no {kernel} here")
    net = nn.HybridSequential()
    net.add(BatchNorm(3, num_dims=2, kernel=kernel))
    net.initialize()
    net.hybridize()
    with pytest.raises(mx.base.MXNetError) as refused:
        net(nd.ones((2, 3, 4, 4)))
    said = str(refused.value) + capfd.readouterr().out
    assert "this layer was built for X of rank num_dims=2, got rank 4" in said
    assert net(nd.ones((2, 3))).shape == (2, 3)


def test_bad_input_at_the_first_batch_does_not_settle_the_shape():
    layer = started(BatchNorm())
    with pytest.raises(TypeError, match="int32"):
        layer(nd.ones((4, 7), dtype="int32"))
    with pytest.raises(ValueError, match="shape"):
        layer(nd.ones((4, 7)), nd.ones(3))
    train(layer, values(0, 4, 3))
    assert layer.gamma.shape == (3,)


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (4, 3, 0)])
def test_empty_batches(shape):
    with mx.util.np_shape(True), mx.util.np_array(True):
        layer = started(BatchNorm(shape[1]))
        with autograd.record(), pytest.raises(ValueError, match="empty"):
            layer(mx.np.ones(shape))


@pytest.mark.parametrize("flags", [{}, {"static_alloc": True, "static_shape": True}])
def test_the_wrong_number_of_channels_in_a_hybridized_network(flags):
    net = nn.HybridSequential()
    net.add(BatchNorm())
    net.initialize()
    net.hybridize(**flags)
    train(net, values(0, 4, 3))
    before = net[0].running_mean.data().asnumpy()
    with autograd.record(), pytest.raises(mx.base.MXNetError):
        net(nd.ones((4, 5))).wait_to_read()
    np.testing.assert_array_equal(net[0].running_mean.data().asnumpy(), before)


# -------------------------------------------------------------------- conditional batch norm


def conditional(classes=4, channels=3, seed=5, **options):
    """A layer whose classes differ, and its rows of gamma and beta."""
    layer = started(ConditionalBatchNorm(channels, classes, **options))
    gamma, beta = values(seed, classes, channels), values(seed + 1, classes, channels)
    layer.gamma.set_data(nd.array(gamma))
    layer.beta.set_data(nd.array(beta))
    return layer, gamma, beta


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize("shape, axis", [((6, 3), 1), ((6, 3, 4, 2), 1), ((6, 2, 4, 3), -1)])
def test_conditional_is_batch_norm_with_a_row_per_label(shape, axis, hybridize, kernel):
    layer, gamma, beta = conditional(axis=axis, kernel=kernel)
    net = layer
    if hybridize:
        net = TwoInputs(layer)
        net.hybridize()
    labels = np.array([2, 0, 2, 2, 0, 3])  # no 1
    x, up = values(0, *shape), values(1, *shape)
    Y, dX = train(net, x, nd.array(labels), upstream=up)
    x, up, axes = x.astype("float64"), up.astype("float64"), axes_but(axis, x.ndim)
    spatial = tuple(a for a in axes if a != 0)
    scale = 1 / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    x_hat = (x - x.mean(axes, keepdims=True)) * scale

    def rows(table):
        laid = [6 if a == 0 else 3 if a == axis % x.ndim else 1 for a in range(x.ndim)]
        return table[labels].reshape(laid)

    close(Y, x_hat * rows(gamma) + rows(beta), 2e-5)
    dx_hat = up * rows(gamma)
    close(
        dX,
        scale
        * (
            dx_hat
            - dx_hat.mean(axes, keepdims=True)
            - x_hat * (dx_hat * x_hat).mean(axes, keepdims=True)
        ),
        1e-4,
    )
    for parameter, per_value in ((layer.gamma, up * x_hat), (layer.beta, up)):
        per_example = per_value.sum(spatial)
        expected = np.stack([per_example[labels == k].sum(0) for k in range(4)])
        close(parameter.grad(), expected, 1e-4)
        assert (parameter.grad().asnumpy()[1] == 0).all(), "an absent class has no gradient"
    close(layer.running_mean.data(), 0.1 * x.mean(axes), 1e-6)
    close(layer.running_var.data(), 0.9 + 0.1 * x.var(axes), 1e-6)
    mean, var = (lay(as_numpy(getattr(layer, n).data()), x.ndim, axis) for n in STATISTICS)
    close(
        net(nd.array(x), nd.array(labels)),
        (x - mean) / np.sqrt(var + 1e-5) * rows(gamma) + rows(beta),
        2e-5,
    )


class TwoInputs(nn.HybridBlock):
    """A network that hands its labels on."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def hybrid_forward(self, F, X, labels):
        return self.layer(X, labels)


def test_equal_rows_are_unconditional_batch_norm():
    x, up = values(0, 6, 3, 2), values(1, 6, 3, 2)
    plain, layer = started(BatchNorm(3), 3), started(ConditionalBatchNorm(3, 4))
    for name in ("gamma", "beta"):
        layer_rows = nd.tile(getattr(plain, name).data(), (4, 1))
        getattr(layer, name).set_data(layer_rows)
    for ours, theirs in zip(
        train(layer, x, nd.array([0, 1, 2, 3, 0, 0]), upstream=up), train(plain, x, upstream=up)
    ):
        close(ours, theirs, 2e-5)
    close(layer.gamma.grad().sum(axis=0), plain.gamma.grad(), 1e-5)


@pytest.mark.parametrize("make", [nd.array, mx.np.array])
@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int32", "int64", "float16", "float32", "float64"]
)
def test_labels_of_any_type_and_kind(dtype, make):
    layer, gamma, beta = conditional()
    x, labels = values(0, 4, 3), [3, 0, 1, 3]
    expected = x / np.sqrt(1 + 1e-5) * gamma[labels] + beta[labels]
    for X in (nd.array(x), mx.np.array(x)):
        Y = layer(X, make(labels, dtype=dtype))
        assert type(Y) is type(X)
        close(Y, expected, 1e-5)


@pytest.mark.parametrize(
    "labels, error, names",
    [
        (nd.array([0, 4, 9, 1]), ValueError, "label 4.0 at index 1"),
        (nd.array([0, 1, -1, 9], dtype="int32"), ValueError, "label -1 at index 2"),
        (nd.array([0, 9, 0.5, 1]), ValueError, "label 9.0 at index 1"),
        (nd.array([0, 0.5, 9, 1]), ValueError, "label 0.5 at index 1"),
        (nd.array([0, np.nan, 0, 0]), ValueError, "label nan at index 1"),
        (nd.array([0, 0, np.inf, 0]), ValueError, "label inf at index 2"),
        (nd.array([255, 0, 0, 0], dtype="uint8"), ValueError, "label 255 at index 0"),
        (nd.array([0, 1, 2]), ValueError, r"\(4,\).*\(3,\)"),
        (nd.array([[0], [1], [2], [3]]), ValueError, r"\(4, 1\)"),
        (nd.one_hot(nd.arange(4), 4), ValueError, r"\(4, 4\)"),
        (nd.array([3]), ValueError, r"\(1,\)"),
        ([0, 1, 2, 3], TypeError, "list"),
        (np.arange(4), TypeError, "ndarray"),
        (None, TypeError, "None"),
        (nd.zeros(4, ctx=mx.cpu(1)), ValueError, r"cpu\(1\)"),
    ],
)
@pytest.mark.parametrize("per_class", [False, True])
def test_bad_labels_are_named_and_nothing_moves(labels, error, names, per_class):
    layer, _, _ = conditional(per_class_statistics=per_class)
    with autograd.record(), pytest.raises(error, match=names):
        layer(nd.ones((4, 3)), labels)
    assert (layer.running_mean.data().asnumpy() == 0).all()
    with pytest.raises(error, match=names):
        layer(nd.ones((4, 3)), labels)


def test_bad_labels_inside_a_hybridized_network(capfd):
    """The graph runs on MXNet's threads: the label is printed there, and an MXNetError follows."""
    layer, _, _ = conditional()
    net = TwoInputs(layer)
    net.hybridize()
    train(net, values(0, 4, 3), nd.array([0, 1, 2, 3]))
    before = layer.running_mean.data().asnumpy()
    with pytest.raises(mx.base.MXNetError), autograd.record():
        net(nd.ones((4, 3)), nd.array([0, 7, 2, 3])).wait_to_read()
    assert "label 7.0 at index 1" in "".join(capfd.readouterr())
    np.testing.assert_array_equal(layer.running_mean.data().asnumpy(), before)


@pytest.mark.parametrize(
    "num_classes, error", [(0, ValueError), (-2, ValueError), (2.5, TypeError), (None, TypeError)]
)
def test_the_number_of_classes(num_classes, error):
    with pytest.raises(error, match="num_classes"):
        ConditionalBatchNorm(3, num_classes)


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize(
    "source",
    [
        lambda: BatchNorm(3),
        lambda: nn.BatchNorm(in_channels=3),
        lambda: BatchNorm(axis=-1),
        lambda: nn.BatchNorm(axis=2, epsilon=1e-2, scale=False),
        lambda: BatchNorm(3, zero_debias=True),
        lambda: BatchNorm(3, activation="relu", center=False, momentum=None, unbiased=True),
        lambda: nn.BatchNorm(center=False, use_global_stats=True, momentum=0.3),
    ],
)
def test_a_trained_layer_widens_into_one_of_the_same_function(source, per_class):
    layer = source()
    layer.initialize()
    for step in range(3):
        train(layer, values(step, 4, 3, 3), upstream=values(9, 4, 3, 3))
    if not isinstance(layer, BatchNorm) or layer.scale:
        layer.gamma.set_data(layer.gamma.data() * 3)
    wide = ConditionalBatchNorm.from_batch_norm(layer, 5, per_class_statistics=per_class)
    assert wide.gamma.shape == (5, 3)
    X, labels = nd.array(values(7, 4, 3, 3)), nd.array([4, 0, 0, 2])
    close(wide(X, labels), layer(X), 1e-6, "prediction")
    if not per_class:
        X = values(8, 4, 3, 3)
        close(train(wide, X, labels)[0], train(layer, X)[0], 2e-5, "training")
        close(wide.running_var.data(), layer.running_var.data(), 1e-6)


def test_widening_under_numpy_semantics_and_on_two_devices():
    devices = [mx.cpu(0), mx.cpu(1)]
    with mx.util.np_shape(True), mx.util.np_array(True):
        layer = BatchNorm(3)
        layer.initialize(Fixed(), ctx=devices)
        layer.beta.set_data(mx.np.array([1, 2, 3]))
        wide = ConditionalBatchNorm.from_batch_norm(layer, 2)
        for device in devices:
            X, labels = mx.np.ones((2, 3), ctx=device), mx.np.array([1, 0], ctx=device)
            close(wide(X, labels), layer(X), 1e-6)


@pytest.mark.parametrize(
    "layer, error, names",
    [
        (BatchNorm(), ValueError, "initialize"),
        (BatchNorm(3), ValueError, "initialize"),
        (started(BatchNorm()), ValueError, "batch"),
        (started(nn.BatchNorm()), ValueError, "batch"),
        (started(nn.Dense(3)), TypeError, "Dense"),
        (None, TypeError, "NoneType"),
    ],
)
def test_what_cannot_be_widened(layer, error, names):
    with pytest.raises(error, match=names):
        ConditionalBatchNorm.from_batch_norm(layer, 4)


@pytest.mark.parametrize("hybridize", [False, True])
def test_statistics_per_class(hybridize):
    layer, gamma, beta = conditional(per_class_statistics=True, momentum=0.6)
    net = layer
    if hybridize:
        net = TwoInputs(layer)
        net.hybridize()
    labels = np.array([2, 0, 2, 2, 0, 2])  # 1 and 3 are absent
    x, up = values(0, 6, 3, 4), values(1, 6, 3, 4)
    Y, dX = train(net, x, nd.array(labels), upstream=up)
    means, variances = np.zeros((4, 3)), np.ones((4, 3))
    for k in (0, 2):
        here = labels == k
        single = started(BatchNorm(3, momentum=0.6))
        single.gamma.set_data(nd.array(gamma[k]))
        single.beta.set_data(nd.array(beta[k]))
        for mine, own in zip((Y, dX), train(single, x[here], upstream=up[here])):
            close(as_numpy(mine)[here], own, 2e-5)
        close(as_numpy(layer.gamma.grad())[k], single.gamma.grad(), 1e-4)
        means[k], variances[k] = (as_numpy(getattr(single, n).data()) for n in STATISTICS)
    close(layer.running_mean.data(), means, 1e-6, "absent classes stay where they were")
    close(layer.running_var.data(), variances, 1e-6)
    assert (layer.gamma.grad().asnumpy()[[1, 3]] == 0).all()
    x_hat = (x - means[labels][:, :, None]) / np.sqrt(variances[labels][:, :, None] + 1e-5)
    close(
        net(nd.array(x), nd.array(labels)),
        x_hat * gamma[labels][:, :, None] + beta[labels][:, :, None],
        2e-5,
    )


def test_conditional_files_and_casts(tmp_path):
    layer, _, _ = conditional(per_class_statistics=True)
    path, labels = str(tmp_path / "c.params"), nd.array([0, 1, 2, 3])
    train(layer, values(0, 4, 3), labels)
    layer.save_parameters(path)
    again = ConditionalBatchNorm(0, 4, per_class_statistics=True)
    again.load_parameters(path)
    X = nd.array(values(1, 4, 3))
    np.testing.assert_array_equal(layer(X, labels).asnumpy(), again(X, labels).asnumpy())
    layer.cast("float16")
    assert layer.gamma.data().dtype == np.float32
    Y = layer(X.astype("float16"), labels)
    assert Y.dtype == np.float16
    close(Y, again(X, labels), 1e-2)


@pytest.mark.parametrize("kernel", KERNELS)
def test_arrays_in_memory_that_gluons_data_loader_shares(kernel):
    """cpu_shared is the processor's memory: no other device."""
    x, layer = values(0, 4, 3, 5), started(BatchNorm(kernel=kernel))
    with autograd.record():
        Y = layer(nd.array(x, ctx=mx.Context("cpu_shared", 0)))
    close(Y, (x - x.mean((0, 2), keepdims=True)) / x.std((0, 2), keepdims=True), 2e-5)


def test_a_layer_that_was_not_initialized_says_what_to_do():
    with pytest.raises(RuntimeError, match="gamma has no value yet: call .initialize"):
        BatchNorm(3)(nd.ones((2, 3)))
