"""The relatives against Gluon's operators, float64 NumPy, finite differences and the SVD; and what
must not change an output, as properties.
"""

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mxnet import autograd, gluon, nd
from mxnet.gluon import nn

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
    functional,
)
from gluon_bn.arguments import compute_type


def values(seed, *shape, scale=2.0, offset=1.0):
    return (np.random.RandomState(seed).standard_normal(shape) * scale + offset).astype("float32")


class Fixed(mx.init.Initializer):
    """Random numbers that depend on nothing but the shape, whenever they are asked for."""

    def _init_weight(self, name, arr):
        arr[:] = values(len(arr), *arr.shape, scale=0.5, offset=0.3)


def close(ours, theirs, relative, what=""):
    ours, theirs = (
        v.asnumpy() if isinstance(v, nd.NDArray) else np.asarray(v) for v in (ours, theirs)
    )
    assert ours.shape == theirs.shape, what
    worst = np.abs(ours.astype("float64") - theirs).max()
    assert worst <= relative * max(1.0, np.abs(theirs).max()), f"{what}: {worst}"


def train(net, x, upstream, *more):
    X = nd.array(x, dtype=x.dtype)
    X.attach_grad()
    with autograd.record():
        Y = net(X, *more)
    Y.backward(nd.array(upstream, dtype=x.dtype))
    return Y, X.grad


def inside(layer, hybridize, **flags):
    """The layer alone in a network."""
    net = nn.HybridSequential()
    net.add(layer)
    net.initialize(Fixed())
    if hybridize:
        net.hybridize(**flags)
    return net


def lay(v, ndim, axis=1):
    shape = [1] * ndim
    shape[axis] = -1
    return np.asarray(v, "float64").reshape(shape)


def differences(f, x, h=1e-6):
    """The gradient of the number f(x) by central differences."""
    x, gradient = x.astype("float64"), np.zeros(x.shape)
    for i in np.ndindex(*x.shape):
        kept = x[i]
        x[i] = kept + h
        up = f(x)
        x[i] = kept - h
        gradient[i] = (up - f(x)) / (2 * h)
        x[i] = kept
    return gradient


# ---------------------------------------------------------------------- layer, instance, group norm

AFFINE = {"gamma_initializer": Fixed(), "beta_initializer": Fixed()}


@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize(
    "ours, theirs, shape, options",
    [
        (LayerNorm, nn.LayerNorm, (4, 6), {}),
        (LayerNorm, nn.LayerNorm, (4, 3, 6), AFFINE),
        (LayerNorm, nn.LayerNorm, (4, 3, 6), {"axis": 1, "epsilon": 0.1, **AFFINE}),
        (
            LayerNorm,
            nn.LayerNorm,
            (2, 3, 2, 5),
            {"axis": 2, "center": False, "gamma_initializer": Fixed()},
        ),
        (LayerNorm, nn.LayerNorm, (2, 3, 2, 5), {"scale": False, "in_channels": 5}),
        (InstanceNorm, nn.InstanceNorm, (2, 3, 4), {}),
        (InstanceNorm, nn.InstanceNorm, (2, 3, 4, 5), {"scale": True, **AFFINE}),
        (InstanceNorm, nn.InstanceNorm, (2, 4, 5, 3), {"axis": 3, "scale": True, "epsilon": 0.1}),
        (InstanceNorm, nn.InstanceNorm, (2, 3, 2, 2, 2), {"center": False, "in_channels": 3}),
        (GroupNorm, nn.GroupNorm, (2, 6, 3, 2), {"num_groups": 3, "center": False, "scale": False}),
        (
            GroupNorm,
            nn.GroupNorm,
            (2, 6, 5),
            {"num_groups": 2, "epsilon": 0.1, "center": False, "scale": False},
        ),
        (GroupNorm, nn.GroupNorm, (2, 6, 3, 2), {"center": False, "scale": False}),
    ],
)
def test_beside_gluon_under_the_shared_options(ours, theirs, shape, options, hybridize):
    nets = [inside(kind(**options), hybridize) for kind in (ours, theirs)]
    trainers = [gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1}) for net in nets]
    for step in range(3):
        x, up = values(step, *shape), values(9 + step, *shape)
        results = [train(net, x, up) for net in nets]
        close(results[0][0], results[1][0], 2e-5, "output")
        close(results[0][1], results[1][1], 1e-4, "gradient of X")
        for name in ("gamma", "beta"):
            mine, other = (getattr(net[0], name) for net in nets)
            if mine.grad_req != "null":
                close(mine.grad(), other.grad(), 1e-4, f"gradient of {name}")
        for trainer in trainers:
            trainer.step(shape[0])
        close(nets[0](nd.array(x)), nets[1](nd.array(x)), 2e-5, "prediction")


@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize(
    "shape, groups", [((2, 6, 3, 2), 3), ((3, 6), 2), ((2, 4, 5), 1), ((2, 4, 2, 2, 3), 4)]
)
def test_group_norm_has_a_gamma_and_a_beta_for_each_channel(shape, groups, hybridize):
    net = inside(GroupNorm(groups, **AFFINE), hybridize)
    x, up = values(0, *shape), values(1, *shape)
    Y, dX = train(net, x, up)
    gamma, beta = (getattr(net[0], n).data().asnumpy() for n in ("gamma", "beta"))
    assert gamma.shape == (shape[1],)

    def reference(x, gamma, beta):
        split = x.astype("float64").reshape(shape[0], groups, -1)
        split = split - split.mean(2, keepdims=True)
        x_hat = split / np.sqrt((split**2).mean(2, keepdims=True) + 1e-5)
        return x_hat.reshape(shape) * lay(gamma, len(shape)) + lay(beta, len(shape))

    close(Y, reference(x, gamma, beta), 2e-5)
    close(dX, differences(lambda v: (reference(v, gamma, beta) * up).sum(), x), 1e-4)
    close(
        net[0].gamma.grad(), differences(lambda v: (reference(x, v, beta) * up).sum(), gamma), 1e-4
    )
    close(
        net[0].beta.grad(), differences(lambda v: (reference(x, gamma, v) * up).sum(), beta), 1e-4
    )


@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize("axis, epsilon", [(1, 1e-8), (-1, 0.1)])
def test_pixel_norm(axis, epsilon, hybridize):
    net, x, up = inside(PixelNorm(epsilon, axis), hybridize), values(0, 2, 3, 4), values(1, 2, 3, 4)

    def reference(x):
        return x / np.sqrt((x**2).mean(axis, keepdims=True) + epsilon)

    Y, dX = train(net, x, up)
    close(Y, reference(x.astype("float64")), 2e-5)
    close(dX, differences(lambda v: (reference(v) * up).sum(), x), 1e-4)


@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize("axis, epsilon", [(-1, 1e-6), (1, 0.1)])
def test_rms_norm(axis, epsilon, hybridize):
    net, x, up = inside(RMSNorm(axis, epsilon), hybridize), values(0, 2, 3, 4), values(1, 2, 3, 4)
    net(nd.array(x))
    gamma = values(2, x.shape[axis])
    net[0].gamma.set_data(nd.array(gamma))
    lay = [1, 1, 1]
    lay[axis] = -1

    def reference(x, gamma):
        root = np.sqrt((x**2).mean(axis, keepdims=True) + epsilon)
        return x / root * gamma.reshape(lay)

    Y, dX = train(net, x, up)
    close(Y, reference(x.astype("float64"), gamma), 2e-5)
    close(dX, differences(lambda v: (reference(v, gamma) * up).sum(), x), 1e-4)
    close(net[0].gamma.grad(), differences(lambda v: (reference(x, v) * up).sum(), gamma), 1e-4)
    pixel = PixelNorm(epsilon, axis)(nd.array(x)).asnumpy()
    plain = RMSNorm(axis, epsilon, scale=False)
    plain.initialize()
    close(plain(nd.array(x)), pixel, 1e-6)


@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize("kernel", ["textbook", "auto"])
@pytest.mark.parametrize("n, size, parts", [(12, 4, [4, 4, 4]), (11, 4, [5, 6]), (3, 4, [3])])
def test_ghost_batches_are_batches_of_gluons_layer(n, size, parts, kernel, hybridize):
    """Training on a batch of ghosts, beside Gluon's layer on one ghost after the other."""
    x, up = 3 * values(0, n, 3, 4) + 1, values(1, n, 3, 4)
    net = inside(GhostBatchNorm(3, ghost_size=size, kernel=kernel), hybridize)
    theirs = nn.BatchNorm(in_channels=3)
    theirs.initialize()
    Y, dX = train(net, x, up)
    edges = np.cumsum([0, *parts])
    found = [train(theirs, x[a:b], up[a:b]) for a, b in zip(edges, edges[1:])]
    close(Y, np.concatenate([y.asnumpy() for y, _ in found]), 1e-4)
    close(dX, np.concatenate([dx.asnumpy() for _, dx in found]), 1e-4)
    for name in ("running_mean", "running_var"):
        close(getattr(net[0], name).data(), getattr(theirs, name).data().asnumpy(), 1e-4)
    X = nd.array(x)
    close(net(X), theirs(X).asnumpy(), 1e-4)  # prediction
    weights = nd.array(np.arange(1, n + 1))
    layer, plain = GhostBatchNorm(3, ghost_size=size), BatchNorm(3)
    for block in (layer, plain):
        block.initialize()
    with autograd.record():
        ghosts = layer(X, weights)
        first = plain(X[: edges[1]], weights[: edges[1]])
    close(ghosts[: edges[1]], first.asnumpy(), 1e-5)


@pytest.mark.parametrize(
    "make, shape",
    [
        (LayerNorm, (4, 6)),
        (RMSNorm, (4, 6)),
        (lambda: GhostBatchNorm(ghost_size=2), (4, 6)),
        (InstanceNorm, (2, 3, 4)),
        (lambda: GroupNorm(2), (2, 4, 3)),
        (PixelNorm, (2, 3)),
        (BatchRenorm, (4, 3)),
        (lambda: WeightNorm(nn.Dense(3)), (4, 5)),
        (lambda: SpectralNorm(nn.Conv2D(3, 2)), (2, 3, 4, 4)),
    ],
)
@pytest.mark.parametrize("hybridize", [False, True])
def test_saved_loaded_printed_and_under_numpy_semantics(make, shape, hybridize, tmp_path):
    with mx.util.np_shape(True), mx.util.np_array(True):
        net = inside(make(), hybridize)
        X = mx.np.array(values(0, *shape))
        X.attach_grad()
        with autograd.record():
            Y = net(X)
        Y.backward()
        assert type(Y) is type(X.grad) is mx.np.ndarray and type(net[0]).__name__ in repr(net)
        net.save_parameters(str(tmp_path / "net.params"))
        again = nn.HybridSequential()
        again.add(make())
        again.load_parameters(str(tmp_path / "net.params"))
        np.testing.assert_array_equal(again(X).asnumpy(), net(X).asnumpy())


@pytest.mark.parametrize(
    "make",
    [
        LayerNorm,
        lambda: GroupNorm(3),
        lambda: InstanceNorm(scale=True),
        PixelNorm,
        lambda: RMSNorm(1),
        BatchRenorm,
        lambda: GhostBatchNorm(ghost_size=2),
    ],
)
@pytest.mark.parametrize("dtype, tolerance", [("float16", 1e-2), ("float64", 1e-6)])
def test_cast(make, dtype, tolerance):
    x, up = values(0, 4, 3, 5), values(1, 4, 3, 5)
    expected = train(inside(make(), False), x, up)[0].asnumpy()
    net = inside(make(), False)
    net.cast(dtype)
    Y, dX = train(net, x.astype(dtype), up.astype(dtype))
    assert Y.dtype == dX.dtype == np.dtype(dtype)
    close(Y, expected, tolerance)


@pytest.mark.parametrize(
    "make, X, error, names",
    [
        (lambda: InstanceNorm(axis=-2), nd.ones((2, 3)), ValueError, "axis=0"),
        (lambda: LayerNorm(axis=2), nd.ones((2, 3)), ValueError, "axis 2"),
        (lambda: LayerNorm(in_channels=4), nd.ones((2, 3)), ValueError, "4 channels.*3"),
        (LayerNorm, nd.ones(3), ValueError, "rank 1"),
        (LayerNorm, np.ones((2, 3)), TypeError, "ndarray"),
        (InstanceNorm, nd.ones((2, 3)), ValueError, r"rank 3.*\(2, 3\)"),
        (InstanceNorm, nd.ones((2, 3, 2), dtype="int32"), TypeError, "int32"),
        (lambda: GroupNorm(2), nd.ones((2, 3)), ValueError, "3 channels"),
        (PixelNorm, nd.ones(3), ValueError, "rank 1"),
        (lambda: RMSNorm(in_channels=4), nd.ones((2, 3)), ValueError, "4 channels.*3"),
        (BatchRenorm, nd.ones(3), ValueError, "rank 1"),
        (LayerNorm, nd.ones((2, 3), ctx=mx.cpu(1)), ValueError, r"cpu\(1\)"),
        (lambda: PixelNorm(), "X", TypeError, "str"),
        (lambda: WeightNorm(nn.Dense(3)), [1.0], TypeError, "list"),
    ],
)
def test_bad_input(make, X, error, names):
    layer = make()
    layer.initialize()
    with pytest.raises(error, match=names):
        layer(X)
    for parameter in layer.collect_params(".*gamma").values():  # no shape was settled by it
        assert 0 in parameter.shape or "in_channels" in names or parameter.shape == (4,)


@pytest.mark.parametrize(
    "make, error, names",
    [
        (lambda: LayerNorm(epsilon=0), ValueError, "epsilon"),
        (lambda: InstanceNorm(axis=0), ValueError, "axis 0"),
        (lambda: LayerNorm(axis="1"), TypeError, "axis.*'1'"),
        (lambda: InstanceNorm(in_channels=-1), ValueError, "in_channels.*-1"),
        (lambda: GroupNorm(0), ValueError, "num_groups.*0"),
        (lambda: GroupNorm(1.5), TypeError, "num_groups.*1.5"),
        (lambda: PixelNorm(-1), ValueError, "-1"),
        (lambda: RMSNorm(epsilon=0), ValueError, "epsilon"),
        (lambda: RMSNorm(axis="1"), TypeError, "axis.*'1'"),
        (lambda: GhostBatchNorm(ghost_size=0), ValueError, "ghost_size.*0"),
        (lambda: GhostBatchNorm(ghost_size=2.5), TypeError, "ghost_size.*2.5"),
        (lambda: GhostBatchNorm(axis=0), ValueError, "axis 0"),
        (lambda: PixelNorm(axis=None), TypeError, "None"),
        (lambda: BatchRenorm(r_min=2, r_max=1), ValueError, "r_min.*2.*1"),
        (lambda: BatchRenorm(d_max=-1), ValueError, "d_max.*-1"),
        (lambda: BatchRenorm(r_max="3"), TypeError, "r_max.*'3'"),
        (lambda: BatchRenorm(renorm_momentum=2), ValueError, "renorm_momentum.*2"),
        (lambda: BatchRenorm(momentum=None), ValueError, "momentum=None"),
        (lambda: BatchRenorm(zero_debias=True), ValueError, "zero_debias"),
        (lambda: WeightNorm(nn.BatchNorm()), TypeError, "BatchNorm"),
        (lambda: SpectralNorm(None), TypeError, "NoneType"),
        (lambda: SpectralNorm(nn.Dense(2), iterations=0), ValueError, "iterations.*0"),
    ],
)
def test_options_that_could_never_work(make, error, names):
    with pytest.raises(error, match=names):
        make()


# ------------------------------------------------------------------------- batch renormalization


def np_renorm(x, gamma, beta, r, d, eps):
    """Batch renormalization with r and d held fixed, channels on axis 1 of rank 2."""
    mean, var = x.mean(0), x.var(0)
    return ((x - mean) / np.sqrt(var + eps) * r + d) * gamma + beta


@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize(
    "bounds", [{}, {"r_min": 0.8, "r_max": 1.25, "d_max": 0.5}, {"r_max": 1.1}, {"d_max": 0}]
)
def test_renorm_steps_and_gradients_with_r_and_d_held_fixed(bounds, hybridize):
    eps = 1e-2
    layer = BatchRenorm(epsilon=eps, momentum=0.7, renorm_momentum=0.6, **AFFINE, **bounds)
    net = inside(layer, hybridize)
    mean, stddev = np.zeros(3), np.ones(3)
    running_mean, running_stddev = np.zeros(3), np.ones(3)
    for step in range(3):
        x, up = values(step, 5, 3).astype("float64"), values(9, 5, 3)
        Y, dX = train(net, x.astype("float32"), up)
        gamma, beta = (getattr(layer, n).data().asnumpy() for n in ("gamma", "beta"))
        batch_stddev = np.sqrt(x.var(0) + eps)
        r = np.clip(batch_stddev / stddev, bounds.get("r_min", 0), bounds.get("r_max", np.inf))
        limit = bounds.get("d_max", np.inf)
        d = np.clip((x.mean(0) - mean) / stddev, -limit, limit)
        close(Y, np_renorm(x, gamma, beta, r, d, eps), 2e-5)
        arguments = {"x": x, "gamma": gamma, "beta": beta, "r": r, "d": d, "eps": eps}
        for ours, name in ((dX, "x"), (layer.gamma.grad(), "gamma"), (layer.beta.grad(), "beta")):

            def loss(v, name=name, arguments=arguments, up=up):
                return (np_renorm(**{**arguments, name: v}) * up).sum()

            close(ours, differences(loss, arguments[name]), 1e-4, name)
        mean, stddev = 0.6 * mean + 0.4 * x.mean(0), 0.6 * stddev + 0.4 * batch_stddev
        running_mean = 0.7 * running_mean + 0.3 * x.mean(0)
        running_stddev = 0.7 * running_stddev + 0.3 * batch_stddev
        for name, expected in (
            ("renorm_mean", mean),
            ("renorm_stddev", stddev),
            ("running_mean", running_mean),
            ("running_stddev", running_stddev),
            ("running_var", running_stddev**2 - eps),
        ):
            close(getattr(layer, name).data(), expected, 2e-6, name)


def test_renorm_with_r_of_one_and_d_of_zero_is_batch_norm():
    plain, renorm = (
        inside(layer, False)
        for layer in (BatchNorm(**AFFINE), BatchRenorm(r_min=1, r_max=1, d_max=0, **AFFINE))
    )
    x, up = values(0, 4, 3, 2), values(1, 4, 3, 2)
    for ours, theirs in zip(train(renorm, x, up), train(plain, x, up)):
        close(ours, theirs, 2e-5)
    close(renorm[0].gamma.grad(), plain[0].gamma.grad(), 1e-5)
    close(renorm[0].running_mean.data(), plain[0].running_mean.data(), 1e-6)


def test_renorm_trains_as_it_predicts_once_the_averages_have_settled():
    """The point of it: unclipped, the training output is what the running statistics give."""
    net, x = inside(BatchRenorm(momentum=0.5, renorm_momentum=0.5), False), values(0, 8, 3)
    for _ in range(40):
        train(net, x, x)
    small = values(1, 2, 3)
    close(train(net, small, small)[0], (small - x.mean(0)) / np.sqrt(x.var(0) + 1e-5), 1e-4)


# ------------------------------------------------------------------------ weight and spectral norm

LAYERS = {  # how to make it, shape of X, groups of a transposed convolution
    "dense": (lambda: nn.Dense(4), (3, 5), 0),
    "dense, not flat": (lambda: nn.Dense(4, flatten=False, use_bias=False), (3, 2, 5), 0),
    "dense, in_units": (lambda: nn.Dense(4, in_units=5, activation="relu"), (3, 5), 0),
    "conv1d": (lambda: nn.Conv1D(4, 3), (2, 3, 6), 0),
    "conv": (lambda: nn.Conv2D(4, 3, padding=1, strides=2), (2, 3, 5, 5), 0),
    "conv, groups": (lambda: nn.Conv2D(4, 3, groups=2, in_channels=2), (2, 2, 4, 4), 0),
    "transposed": (lambda: nn.Conv2DTranspose(4, 3, strides=2), (2, 3, 3, 3), 1),
    "transposed, 1d": (lambda: nn.Conv1DTranspose(4, 3), (2, 3, 3), 1),
    # (Gluon's own layer of groups wants to know its in_channels.)
    "transposed, groups": (
        lambda: nn.Conv2DTranspose(4, 3, groups=2, in_channels=6),
        (2, 6, 3, 3),
        2,
    ),
    "transposed, each channel": (
        lambda: nn.Conv2DTranspose(4, 3, groups=4, in_channels=4),
        (2, 4, 3, 3),
        4,
    ),
}


def matrix(weight, groups):
    """One row for each output, channel by channel; `groups` of a transposed layer, or 0."""
    if not groups:
        return weight.astype("float64").reshape(len(weight), -1)
    return np.stack(
        [
            weight[first : first + len(weight) // groups, channel].ravel()
            for first in range(0, len(weight), len(weight) // groups)
            for channel in range(weight.shape[1])
        ]
    ).astype("float64")


def unmatrix(rows, groups, shape):
    """The weight of which `rows` is the matrix."""
    if not groups:
        return rows.reshape(shape)
    weight, rows = np.empty(shape, rows.dtype), iter(rows)
    for first in range(0, shape[0], shape[0] // groups):
        for channel in range(shape[1]):
            part = weight[first : first + shape[0] // groups, channel]
            part[:] = next(rows).reshape(part.shape)
    return weight


def plain_copy(make, norm, weight, x):
    """The unwrapped layer, with this weight and the bias of the wrapped one."""
    layer = make()
    layer.initialize(Fixed())
    layer(nd.array(x))
    layer.weight.set_data(nd.array(weight))
    if layer.bias is not None:
        layer.bias.set_data(norm.bias.data())
    return layer


@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_weight_norm_starts_as_the_layer_and_then_obeys_g(name, hybridize):
    make, shape, groups = LAYERS[name]
    norm, x = WeightNorm(make()), values(0, *shape)
    net = inside(norm, hybridize)
    Y = net(nd.array(x))
    v = norm.weight.data().asnumpy()
    close(Y, plain_copy(make, norm, v, x)(nd.array(x)), 1e-5, "the same function at the start")
    g = values(5, 4)
    norm.g.set_data(nd.array(g))

    def weight(v, g):
        rows = matrix(v, groups)
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True) * np.asarray(g)[:, None]
        return unmatrix(rows, groups, v.shape)

    plain = plain_copy(make, norm, weight(v, g), x)
    up = values(1, *Y.shape)
    for ours, theirs in zip(train(net, x, up), train(plain, x, up)):
        close(ours, theirs, 1e-4)
    dw = plain.weight.grad().asnumpy().astype("float64")
    close(norm.g.grad(), differences(lambda at: (weight(v, at) * dw).sum(), g), 1e-4)
    close(norm.weight.grad(), differences(lambda at: (weight(at, g) * dw).sum(), v), 1e-4)
    if plain.bias is not None:
        close(norm.bias.grad(), plain.bias.grad(), 1e-4)


@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_spectral_norm_divides_by_the_largest_singular_value(name, hybridize):
    make, shape, groups = LAYERS[name]
    norm, x = SpectralNorm(make()), values(0, *shape)
    net = inside(norm, hybridize)
    first = net(nd.array(x))
    norm.u.set_data(nd.array(values(6, 4)))
    u = norm.u.data().asnumpy()
    net(nd.array(x))
    np.testing.assert_array_equal(norm.u.data().asnumpy(), u, "u stands still in prediction")
    up = values(1, *first.shape)
    train(net, x, up)
    assert np.abs(norm.u.data().asnumpy() - u).max() > 1e-4, "and moves in training"
    for _ in range(200):
        with autograd.train_mode():
            net(nd.array(x)).wait_to_read()
    w = norm.weight.data().asnumpy()
    left, singular, right = np.linalg.svd(matrix(w, groups), full_matrices=False)
    plain = plain_copy(make, norm, w / singular[0], x)
    close(net(nd.array(x)), plain(nd.array(x)), 1e-4)
    Y, dX = train(net, x, up)
    _, theirs_dX = train(plain, x, up)
    close(dX, theirs_dX, 1e-4)
    # sigma's gradient is u v^T, so that of the weight loses its part along it.
    dw = plain.weight.grad().asnumpy().astype("float64")
    outer = unmatrix(np.outer(left[:, 0], right[0]), groups, w.shape)
    along = (dw * w).sum() / singular[0] ** 2
    close(norm.weight.grad(), dw / singular[0] - along * outer, 1e-3)
    if plain.bias is not None:
        close(norm.bias.grad(), plain.bias.grad(), 1e-4)


def test_a_second_call_does_not_change_the_gradient_of_the_first():
    """It moves u; the first call's sigma was that of the u before."""
    x, gradients = nd.array(values(0, 3, 5)), []
    for calls in (1, 2):
        layer = SpectralNorm(nn.Dense(4, in_units=5))
        layer.initialize(Fixed())
        layer.u.set_data(nd.array([1, 2, -1, 0.5]))
        with autograd.record():
            first, *_ = [layer(x) for _ in range(calls)]
        first.backward()
        gradients.append(layer.weight.grad().asnumpy())
    close(*gradients, 1e-6)


def test_several_iterations_are_several_calls():
    x = nd.array(values(0, 3, 5))
    once, thrice = (SpectralNorm(nn.Dense(4, in_units=5), iterations=n) for n in (1, 3))
    for layer in (once, thrice):
        layer.initialize(Fixed())
        layer.u.set_data(nd.array([1, 2, -1, 0.5]))
    with autograd.train_mode():
        for _ in range(3):
            once(x)
        thrice(x)
    close(once.u.data(), thrice.u.data(), 1e-5)


def test_parameter_names_of_a_wrapped_layer_and_initialization_again(tmp_path):
    layer = WeightNorm(nn.Dense(3, in_units=2))
    layer.initialize(mx.init.Normal(1))
    assert set(layer._collect_params_with_prefix()) == {"weight", "bias", "g"}
    layer.initialize(mx.init.Normal(2), force_reinit=True)
    close(layer.g.data(), np.linalg.norm(layer.weight.data().asnumpy(), axis=1), 1e-6)
    dense = nn.Dense(3, in_units=2)
    dense.initialize()
    dense.save_parameters(str(tmp_path / "dense"))
    layer.load_parameters(str(tmp_path / "dense"), allow_missing=True)
    np.testing.assert_array_equal(layer.weight.data().asnumpy(), dense.weight.data().asnumpy())


@pytest.mark.parametrize("norm", [WeightNorm, SpectralNorm])
def test_the_file_of_a_lone_wrapped_layer(norm, tmp_path):
    layer, again = norm(nn.Dense(3)), norm(nn.Dense(3))
    layer.initialize(mx.init.Normal(1))
    X = nd.array(values(0, 4, 5))
    layer(X)
    layer.save_parameters(str(tmp_path / "layer"))
    again.load_parameters(str(tmp_path / "layer"))
    np.testing.assert_array_equal(again(X).asnumpy(), layer(X).asnumpy())


@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_weight_norm_of_zeros(name, hybridize):
    """It starts as the layer, with the layer's own gradient, and leaves zero by it; also a row that
    becomes zero in training."""
    make, shape, groups = LAYERS[name]
    norm, x = WeightNorm(make()), values(0, *shape)
    norm.weight.init = mx.init.Zero()
    net = inside(norm, hybridize)
    first = net(nd.array(x))
    plain = plain_copy(make, norm, norm.weight.data().asnumpy(), x)
    close(first, plain(nd.array(x)), 0, "the same function")
    up = values(1, *first.shape)
    for got, want in zip(train(net, x, up), train(plain, x, up)):
        close(got, want, 1e-6)
    close(norm.weight.grad(), plain.weight.grad().asnumpy(), 1e-6)
    close(norm.g.grad(), np.zeros(4), 0)
    rows = matrix(values(4, *norm.weight.shape), groups)
    rows[1] = 0
    norm.weight.set_data(nd.array(unmatrix(rows, groups, norm.weight.shape)))
    norm.g.set_data(nd.array([1, 3, 2, 1]))
    Y, dX = train(net, x, up)
    v_grad = matrix(norm.weight.grad().asnumpy(), groups)
    lengths = np.linalg.norm(rows, axis=1)
    lengths[1] = 1
    weight = unmatrix(rows * (np.array([1, 3, 2, 1]) / lengths)[:, None], groups, norm.weight.shape)
    plain = plain_copy(make, norm, weight, x)
    for got, want in zip((Y, dX), train(plain, x, up)):
        close(got, want, 1e-5)
    close(v_grad[1], 3 * matrix(plain.weight.grad().asnumpy(), groups)[1], 1e-5)
    assert np.isfinite(v_grad).all() and norm.g.grad().asnumpy()[1] == 0


@pytest.mark.parametrize("epsilon", [1e-12, 1e-3, 1.0])
@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_spectral_norm_of_zeros(name, hybridize, epsilon):
    """A zero weight stays zero, and u is there for the weight that it becomes."""
    make, shape, groups = LAYERS[name]
    norm, x = SpectralNorm(make(), epsilon=epsilon), values(0, *shape)
    norm.weight.init = mx.init.Zero()
    net = inside(norm, hybridize)
    first = net(nd.array(x))
    plain = plain_copy(make, norm, norm.weight.data().asnumpy(), x)
    close(first, plain(nd.array(x)), 0, "predicts what the layer does")
    up = values(1, *first.shape)
    for _ in range(3):
        for got, want in zip(train(net, x, up), train(plain, x, up)):
            close(got, want, 1e-6)
    close(norm.weight.grad(), plain.weight.grad().asnumpy(), 1e-6)
    assert norm.u.data().asnumpy().any()
    # Then it has one row, and then another: nothing is left along u.
    for row in (1, 2):
        rows = np.zeros((4, matrix(norm.weight.data().asnumpy(), groups).shape[1]))
        rows[row] = 3 * values(row, rows.shape[1])
        norm.weight.set_data(nd.array(unmatrix(rows, groups, norm.weight.shape)))
        for _ in range(3):
            train(net, x, up)
        plain = plain_copy(make, norm, norm.weight.data().asnumpy() / np.linalg.norm(rows), x)
        close(net(nd.array(x)), plain(nd.array(x)), 1e-5, f"row {row}")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_spectral_norm_is_near_its_bound_before_it_is_trained(name, hybridize, dtype):
    make, shape, groups = LAYERS[name]
    norm = SpectralNorm(make())
    net = inside(norm, hybridize)
    net(nd.array(values(0, *shape)))
    rows = nd.array(matrix(norm.weight.data().asnumpy(), groups), dtype=dtype)
    with autograd.predict_mode():
        found = norm._reweight(compute_type(rows), norm.u.data()).asnumpy()
    assert abs(np.linalg.svd(found.astype("float64"), compute_uv=False)[0] - 1) < 1e-3


@pytest.mark.parametrize("shape", [(64, 64), (512, 300), (10, 2000)])
def test_spectral_norm_of_random_matrices_before_training(shape):
    """Whose largest singular values lie close together; also around a layer that was trained."""
    dense = nn.Dense(shape[0], in_units=shape[1], use_bias=False)
    dense.initialize(mx.init.Normal(0.5))
    layer = SpectralNorm(dense)
    layer.u.initialize()
    used = layer(nd.array(np.eye(shape[1]))).asnumpy()
    assert 0.999 < np.linalg.svd(used, compute_uv=False)[0] < 1.01


@pytest.mark.parametrize("norm", [WeightNorm, SpectralNorm])
@pytest.mark.parametrize("places", [[mx.cpu(1)], [mx.cpu(1), mx.cpu(0)]], ids=str)
def test_what_they_start_with_on_other_devices(norm, places):
    layer = norm(nn.Conv2DTranspose(4, 3, groups=2, in_channels=6))
    layer.initialize(mx.init.Normal(0.5), ctx=places)
    rows = matrix(layer.weight.data(places[0]).asnumpy(), 2)
    want = np.linalg.norm(rows, axis=1) if norm is WeightNorm else np.linalg.svd(rows)[0][:, 0]
    for place in places:
        found = (layer.g if norm is WeightNorm else layer.u).data(place).asnumpy()
        close(found * np.sign(found[0]), want * np.sign(want[0]), 1e-3)


@pytest.mark.parametrize("norm", [WeightNorm, SpectralNorm])
def test_weights_in_float16(norm):
    """Squares of its small numbers are 0, and of its large ones infinite."""
    for size in (1e-5, 1, 300):
        w = (values(0, 4, 6, offset=0) * size).astype("float16").astype("float32")
        w[2] = 0
        layer = norm(nn.Dense(4, in_units=6, use_bias=False))
        layer.initialize(mx.init.Constant(nd.array(w)))
        other = layer.g if norm is WeightNorm else layer.u
        rows = compute_type(nd.array(w, dtype="float16"))
        found = layer._reweight(rows, nd.cast(other.data(), "float16")).asnumpy()
        want = w if norm is WeightNorm else w / np.linalg.svd(w)[1][0]
        np.testing.assert_allclose(found, want, rtol=2e-3, atol=2e-3 * np.abs(want).max())


# --------------------------------------------------------------------------------------- properties

shapes = st.lists(st.integers(2, 4), min_size=2, max_size=5).map(tuple)
floats = st.sampled_from(["float32", "float64"])
few = settings(max_examples=15, deadline=None, derandomize=True)
LOOSE = {"float32": 1e-3, "float64": 1e-9}


def batch_norm(x, gamma, beta, **more):
    one = nd.ones(len(gamma), dtype=x.dtype)
    with autograd.train_mode():
        return functional.batch_norm(
            nd.array(x, dtype=x.dtype),
            nd.array(gamma, dtype=x.dtype),
            nd.array(beta, dtype=x.dtype),
            one,
            one,
            1e-5,
            0.9,
            **more,
        )


@few
@given(
    shape=shapes,
    dtype=floats,
    seed=st.integers(0, 99),
    shift=st.floats(-10, 10),
    scale=st.floats(0.5, 20),
)
def test_batch_norm_ignores_shift_and_positive_scale(shape, dtype, seed, shift, scale):
    x = values(seed, 8, *shape[1:]).astype(dtype) * 10
    gamma, beta = values(1, shape[1]), values(2, shape[1])
    close(
        batch_norm(x * np.array(scale, dtype) + np.array(shift, dtype), gamma, beta)[0],
        batch_norm(x, gamma, beta)[0].asnumpy(),
        1e-3 if dtype == "float32" else 1e-4,
    )


@few
@given(shape=shapes, axis=st.integers(1, 4), dtype=floats, seed=st.integers(0, 99))
def test_channels_may_be_on_any_axis(shape, axis, dtype, seed):
    axis = 1 + axis % (len(shape) - 1)
    x = values(seed, *shape).astype(dtype)
    gamma, beta = values(1, shape[1]), values(2, shape[1])
    moved = batch_norm(np.moveaxis(x, 1, axis).copy(), gamma, beta, axis=axis)[0].asnumpy()
    close(np.moveaxis(moved, axis, 1), batch_norm(x, gamma, beta)[0].asnumpy(), LOOSE[dtype])


@few
@given(shape=shapes, dtype=floats, seed=st.integers(0, 99))
def test_one_group_is_layer_norm_and_a_group_for_each_channel_instance_norm(shape, dtype, seed):
    shape = (*shape, 3)  # instance norm needs positions
    x = values(seed, *shape).astype(dtype)
    X, (N, C) = nd.array(x, dtype=dtype), shape[:2]
    gamma, beta = (nd.array(values(s, C), dtype=dtype) for s in (1, 2))
    whole = functional.layer_norm(X.reshape((N, -1)), None, None, 1e-5).reshape(shape)
    affine = whole.asnumpy() * lay(gamma.asnumpy(), len(shape)) + lay(beta.asnumpy(), len(shape))
    close(functional.group_norm(X, gamma, beta, 1, 1e-5), affine, LOOSE[dtype])
    close(
        functional.group_norm(X, gamma, beta, C, 1e-5),
        functional.instance_norm(X, gamma, beta, 1e-5).asnumpy(),
        LOOSE[dtype],
    )


@few
@given(shape=shapes, seed=st.integers(0, 99), classes=st.integers(1, 4))
def test_equal_rows_are_unconditional_and_classes_may_be_renamed(shape, seed, classes):
    x, C = values(seed, *shape), shape[1]
    labels = np.random.RandomState(seed).randint(classes, size=shape[0])
    plain, layer = BatchNorm(C), ConditionalBatchNorm(C, classes)
    for block in (plain, layer):
        block.initialize()
    gamma, beta = values(1, C), values(2, C)
    plain.gamma.set_data(nd.array(gamma))
    plain.beta.set_data(nd.array(beta))
    layer.gamma.set_data(nd.array(np.tile(gamma, (classes, 1))))
    layer.beta.set_data(nd.array(np.tile(beta, (classes, 1))))
    with autograd.train_mode():
        close(layer(nd.array(x), nd.array(labels)), plain(nd.array(x)), 2e-5)
    names = np.random.RandomState(seed).permutation(classes)
    layer.gamma.set_data(nd.array(values(3, classes, C)))
    before = layer(nd.array(x), nd.array(labels)).asnumpy()
    layer.gamma.set_data(layer.gamma.data()[np.argsort(names)])
    close(layer(nd.array(x), nd.array(names[labels])), before, 1e-6)


@few
@given(
    shape=shapes,
    dtype=floats,
    seed=st.integers(0, 99),
    weights=st.lists(st.integers(0, 3), min_size=4, max_size=4).filter(any),
)
def test_weights_of_one_change_nothing_and_integer_weights_repeat(shape, dtype, seed, weights):
    x = values(seed, 4, *shape[1:]).astype(dtype)
    gamma, beta = values(1, shape[1]), values(2, shape[1])
    for ours, theirs in zip(
        batch_norm(x, gamma, beta, weights=nd.ones(4)), batch_norm(x, gamma, beta)
    ):
        close(ours, theirs.asnumpy(), LOOSE[dtype])
    rows = np.repeat(np.arange(4), weights)
    weighted = batch_norm(x, gamma, beta, weights=nd.array(weights), unbiased=True)
    repeated = batch_norm(x[rows], gamma, beta, unbiased=True)
    close(weighted[0].asnumpy()[rows], repeated[0].asnumpy(), LOOSE[dtype])
    for ours, theirs in zip(weighted[1:], repeated[1:]):
        close(ours, theirs.asnumpy(), LOOSE[dtype])
