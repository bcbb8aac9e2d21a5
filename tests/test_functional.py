"""The functions against float64 NumPy, finite differences, Gluon's operator and d2l's class.

The reference below is written from the papers and shares no code with the package.
"""

from contextlib import ExitStack, contextmanager

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, nd

from gluon_bn import batch_norm, functional, moments, normalize

EPS = 1e-3
TOLERANCE = {"float16": 4e-3, "float32": 2e-5, "float64": 1e-12}
KINDS = ["nd", "np", "set_np"]


@contextmanager
def world(kind):
    """The array kind's global state, as `npx.set_np()` sets it, for the length of a test."""
    with ExitStack() as stack:
        if kind == "set_np":
            stack.enter_context(mx.util.np_shape(True))
            stack.enter_context(mx.util.np_array(True))
        yield nd.array if kind == "nd" else mx.np.array


def given(seed, *shape, dtype="float64", scale=1.5, offset=0.5):
    """Random numbers that are exactly representable in `dtype`, in float64."""
    values = np.random.RandomState(seed).standard_normal(shape) * scale + offset
    return values.astype(dtype).astype("float64")


def np_moments(x, axes, w=None):
    w = np.ones_like(x) if w is None else np.broadcast_to(w, x.shape)
    n = w.sum(axis=axes, keepdims=True)
    mean = (w * x).sum(axis=axes, keepdims=True) / n
    return mean, (w * (x - mean) ** 2).sum(axis=axes, keepdims=True) / n, n


def np_batch_norm(x, gamma, beta, axis=1, w=None, eps=EPS):
    """gamma and beta laid out against x."""
    mean, var, _ = np_moments(x, tuple(a for a in range(x.ndim) if a != axis % x.ndim), w)
    return gamma * (x - mean) / np.sqrt(var + eps) + beta


def differences(f, x, h=1e-6):
    """The gradient of the number f(x) by central differences."""
    gradient = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        x[i] += h
        up = f(x)
        x[i] -= 2 * h
        gradient[i] = (up - f(x)) / (2 * h)
        x[i] += h
    return gradient


def close(ours, expected, tolerance, what=""):
    ours = ours.asnumpy() if isinstance(ours, nd.NDArray) else ours
    assert ours.shape == expected.shape, what
    np.testing.assert_allclose(
        ours.astype("float64"),
        expected,
        rtol=tolerance,
        atol=tolerance * max(1, np.abs(expected).max()),
        err_msg=what,
    )


def lay(v, ndim, axis=1):
    shape = [1] * ndim
    shape[axis] = -1
    return v.reshape(shape)


# ------------------------------------------------------------------------------ moments, normalize


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    "shape, axis",
    [
        ((6,), 0),
        ((4, 3), 0),
        ((4, 3), (0, 1)),
        ((4, 3, 5), -1),
        ((4, 3, 5), (0, 2)),
        ((4, 3, 2, 5), (0, 2, 3)),
        ((4, 3, 2, 5), [1, -1]),
        ((2, 3, 2, 2, 4), (0, 2, 3, 4)),
        ((2, 3, 2, 2, 4), (0, 1, 2, 3)),
        ((2, 3, 4), (1,)),
        ((1, 1, 4), (0, 1)),
    ],
)
def test_moments_are_numpys(kind, dtype, shape, axis):
    x = given(0, *shape, dtype=dtype)
    axes = tuple(axis) if isinstance(axis, list) else axis
    with world(kind) as array:
        X = array(x, dtype=dtype)
        for keepdims in (False, True):
            for ours, expected in zip(
                moments(X, axis, keepdims=keepdims),
                (x.mean(axes, keepdims=keepdims), x.var(axes, keepdims=keepdims)),
            ):
                if kind == "nd":  # has no rank 0
                    expected = np.atleast_1d(expected)
                assert type(ours) is type(X) and ours.dtype == X.dtype
                close(ours, np.asarray(expected), TOLERANCE[dtype])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "axis, w_shape",
    [
        ((0, 2, 3), (4,)),
        ((0, 2, 3), (4, 1, 1, 1)),
        ((0, 2, 3), (4, 3, 2, 5)),
        ((2, 3), (1, 3, 2, 5)),
        (1, (1, 3, 1, 1)),
    ],
)
def test_weighted_moments(kind, axis, w_shape):
    x, w = given(1, 4, 3, 2, 5), np.random.RandomState(2).uniform(0, 2, w_shape)
    w.flat[0] = 0
    laid = w.reshape(-1, 1, 1, 1) if w.ndim == 1 else w
    mean, var, _ = np_moments(x, axis, laid)
    with world(kind) as array:
        ours = moments(
            array(x, dtype="float64"), axis, weights=array(w, dtype="float64"), keepdims=True
        )
    close(ours[0], mean, 1e-12)
    close(ours[1], var, 1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    "shape, statistics, affine",
    [
        ((4, 3), (1, 3), (3,)),
        ((4, 3, 2), (4, 1, 1), (2,)),
        ((4, 3, 2, 5), (1, 3, 1, 1), (3, 1, 1)),
        ((4, 3, 2, 5), (4, 3, 1, 1), (1, 1, 2, 5)),
        ((2, 3, 2, 2, 4), (1, 3, 1, 1, 1), (2, 3, 1, 1, 1)),
        ((4, 3, 2, 5), (1, 3, 1, 1), None),
    ],
)
def test_normalize_is_the_formula(kind, dtype, shape, statistics, affine):
    x, mean = given(0, *shape, dtype=dtype), given(1, *statistics, dtype=dtype)
    var = np.abs(given(2, *statistics, dtype=dtype)) + 1
    gamma = beta = None
    if affine:
        gamma, beta = given(3, *affine, dtype=dtype), given(4, *affine, dtype=dtype)
    expected = (x - mean) / np.sqrt(var.astype(dtype).astype("float64") + EPS) * (
        1 if gamma is None else gamma
    ) + (0 if beta is None else beta)
    with world(kind) as array:
        X, mean, var, beta, gamma = (
            None if v is None else array(v, dtype=dtype) for v in (x, mean, var, beta, gamma)
        )
        Y = normalize(X, mean, var, beta, gamma, EPS)
        assert type(Y) is type(X) and Y.dtype == X.dtype
    close(Y, expected, TOLERANCE[dtype])


def test_normalize_takes_beta_and_gamma_one_without_the_other():
    x, v = given(0, 4, 3), np.array([[1.0, 2.0, 4.0]])
    X, V = nd.array(x, dtype="float64"), nd.array(v, dtype="float64")
    close(normalize(X, V, V, V, None, EPS), (x - v) / np.sqrt(v + EPS) + v, 1e-12)
    close(normalize(X, V, V, None, V, EPS), (x - v) / np.sqrt(v + EPS) * v, 1e-12)


# -------------------------------------------------------------------------------------- batch_norm

SHAPES = {2: (5, 3), 3: (4, 3, 6), 4: (4, 3, 2, 5), 5: (2, 3, 2, 3, 2)}


def forms(shape, axis=1):
    """Every form of gamma that the contract names, for X of this shape."""
    C = shape[axis]
    ones = tuple(C if a == axis % len(shape) else 1 for a in range(len(shape)))
    return {"vector": (C,), "ones": ones, "per example": (shape[0], *ones[1:])}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("form", ["vector", "ones", "per example"])
@pytest.mark.parametrize("rank, axis", [(2, 1), (3, 1), (4, 1), (5, 1), (3, -1), (4, -1), (4, 2)])
def test_batch_norm_in_training_and_prediction(kind, dtype, form, rank, axis):
    shape = SHAPES[rank]
    axes = tuple(a for a in range(rank) if a != axis % rank)
    x = given(0, *shape, dtype=dtype)
    affine = forms(shape, axis)[form]
    gamma, beta = given(1, *affine, dtype=dtype), given(2, *affine, dtype=dtype)
    statistics = forms(shape, axis)["vector" if form == "vector" else "ones"]
    mean, var = given(3, *statistics, dtype=dtype), np.abs(given(4, *statistics, dtype=dtype)) + 0.5
    var = var.astype(dtype).astype("float64")

    def laid(v):
        return lay(v, rank, axis) if v.ndim == 1 else v

    with world(kind) as array:
        X, G, B, M, V = (array(v, dtype=dtype) for v in (x, gamma, beta, mean, var))
        with autograd.record():
            trained = batch_norm(X, G, B, M, V, EPS, 0.7, axis=axis)
        predicted = batch_norm(X, G, B, M, V, EPS, 0.7, axis=axis)
        for result in trained + predicted:
            assert type(result) is type(X) and result.dtype == X.dtype
        close(M, mean, 0, "the given statistics are not changed in place")
    batch_mean, batch_var, _ = np_moments(x, axes)
    tolerance = TOLERANCE[dtype]
    close(trained[0], np_batch_norm(x, laid(gamma), laid(beta), axis), tolerance)
    close(trained[1], 0.7 * mean + 0.3 * batch_mean.reshape(mean.shape), tolerance)
    close(trained[2], 0.7 * var + 0.3 * batch_var.reshape(var.shape), tolerance)
    close(
        predicted[0],
        laid(gamma) * (x - laid(mean)) / np.sqrt(laid(var) + EPS) + laid(beta),
        tolerance,
    )
    close(predicted[1], mean, 0)
    close(predicted[2], var, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("form", ["vector", "ones", "per example"])
@pytest.mark.parametrize(
    "shape, axis", [((5, 3), 1), ((3, 2, 4), -1), ((3, 2, 2, 2), 1), ((2, 2, 2, 1, 3), 1)]
)
def test_gradients_are_finite_differences(kind, shape, axis, form, weighted):
    x, upstream = given(0, *shape), given(9, *shape)
    affine = forms(shape, axis)[form]
    gamma, beta = given(1, *affine), given(2, *affine)
    w = np.arange(shape[0], dtype="float64") if weighted else None
    C = shape[axis]

    def loss(x, gamma, beta):
        gamma, beta = (lay(v, len(shape), axis) if v.ndim == 1 else v for v in (gamma, beta))
        laid = None if w is None else lay(w, len(shape), 0)
        return (np_batch_norm(x, gamma, beta, axis, laid) * upstream).sum()

    expected = [
        differences(lambda v: loss(v, gamma, beta), x.copy()),
        differences(lambda v: loss(x, v, beta), gamma.copy()),
        differences(lambda v: loss(x, gamma, v), beta.copy()),
    ]
    with world(kind) as array:
        inputs = [array(v, dtype="float64") for v in (x, gamma, beta)]
        mean, var, up = (array(v, dtype="float64") for v in (np.zeros(C), np.ones(C), upstream))
        for v in inputs:
            v.attach_grad()
        with autograd.record():
            weights = None if w is None else array(w, dtype="float64")
            Y, _, _ = batch_norm(*inputs, mean, var, EPS, 0.9, axis=axis, weights=weights)
        Y.backward(up)
        for v, gradient in zip(inputs, expected):
            close(v.grad, gradient, 1e-7)


@pytest.mark.parametrize("weights", [None, [0.0, 1.0, 2.5, 1.0]])
def test_unbiased_moves_by_n_over_n_minus_1_and_normalizes_by_the_biased(weights):
    x = given(0, 4, 3, 2, 2)
    w = None if weights is None else np.array(weights)
    mean, var, n = np_moments(x, (0, 2, 3), None if w is None else lay(w, 4, 0))
    one = nd.ones(3, dtype="float64")
    with autograd.record():
        Y, _, V = batch_norm(
            nd.array(x, dtype="float64"),
            one,
            one * 0,
            one * 0,
            one,
            EPS,
            0.9,
            weights=None if w is None else nd.array(w, dtype="float64"),
            unbiased=True,
        )
    close(V, (0.9 + 0.1 * var * n / (n - 1)).ravel(), 1e-12)
    close(Y, (x - mean) / np.sqrt(var + EPS), 1e-12)


def test_integer_weights_are_repeated_examples_and_ones_change_nothing():
    x = given(0, 3, 2, 4)
    one = nd.ones(2, dtype="float64")

    def run(x, **more):
        with autograd.record():
            return batch_norm(nd.array(x, dtype="float64"), one, one, one, one, EPS, 0.5, **more)

    weighted, repeated = run(x, weights=nd.array([2, 0, 3], dtype="int32")), run(x[[0, 0, 2, 2, 2]])
    close(weighted[0][[0, 2]], repeated[0].asnumpy()[[0, 2]], 1e-12)
    close(weighted[1], repeated[1].asnumpy(), 1e-12)
    close(weighted[2], repeated[2].asnumpy(), 1e-12)
    for ours, plain in zip(run(x, weights=nd.ones(3)), run(x)):
        close(ours, plain.asnumpy(), 1e-12)


@pytest.mark.parametrize("momentum", [0, 0.0, 1, 1.0, np.float32(0.25), 0.9])
def test_momentum_is_the_weight_of_the_past(momentum):
    x, one = given(0, 8, 3), nd.ones(3, dtype="float64")
    with autograd.record():
        _, M, V = batch_norm(nd.array(x, dtype="float64"), one, one, one, 2 * one, EPS, momentum)
    close(M, momentum + (1 - momentum) * x.mean(0), 1e-12)
    close(V, momentum * 2 + (1 - momentum) * x.var(0), 1e-12)


def test_types_may_differ_and_everyone_keeps_its_own():
    x = given(0, 8, 3, dtype="float16")
    X, one = nd.array(x, dtype="float16"), nd.ones(3)
    with autograd.record():
        Y, M, V = batch_norm(X, one, one, one, nd.ones(3, dtype="float64"), EPS, 0.9)
    assert [a.dtype for a in (Y, M, V)] == [np.float16, np.float32, np.float64]
    close(M, 0.9 + 0.1 * x.mean(0), 1e-6)


def test_views_and_transposed_arrays():
    x = given(0, 6, 4, 5, dtype="float32")
    one = nd.ones(4)
    for X, expected in (
        (nd.array(x)[1:4], x[1:4]),
        (nd.array(x.transpose(0, 2, 1)).swapaxes(1, 2), x),
        (mx.np.array(x).as_nd_ndarray()[::2], x[::2]),
    ):
        with autograd.record():
            Y, _, _ = batch_norm(X, one, one * 0, one * 0, one, EPS, 0.9)
        close(Y, np_batch_norm(expected, 1, 0), 2e-5)


@pytest.mark.parametrize("scale", [1e-10, 1e10])
def test_huge_and_tiny_values(scale):
    x = given(0, 16, 3, 4, dtype="float32") * scale
    one = nd.ones(3)
    with autograd.record():
        Y, _, _ = batch_norm(nd.array(x), one, one * 0, one * 0, one, 1e-5, 0.9)
    close(Y, np_batch_norm(x, 1, 0, eps=1e-5), 2e-5)


@pytest.mark.parametrize(
    "shape, axis", [((32, 4, 16, 16), 1), ((8192, 3), 1), ((32, 16, 16, 4), -1)]
)
def test_at_an_offset_our_error_is_at_most_a_tenth_of_gluons(shape, axis):
    x = (np.random.RandomState(0).standard_normal(shape) + 1e4).astype("float32")
    expected = np_batch_norm(x.astype("float64"), 1, 0, axis, eps=1e-5)
    one, zero = nd.ones(shape[axis]), nd.zeros(shape[axis])
    X = nd.array(x)
    with autograd.record():
        ours, M, V = batch_norm(X, one, zero, zero, zero, 1e-5, 0, axis=axis)
        gluons = nd.BatchNorm(
            X, one, zero, zero.copy(), one.copy(), eps=1e-5, fix_gamma=False, axis=axis
        )
    error, theirs = (np.abs(Y.asnumpy() - expected).max() for Y in (ours, gluons))
    assert error <= theirs / 10, (error, theirs)
    axes = tuple(a for a in range(len(shape)) if a != axis % len(shape))
    close(M, x.astype("float64").mean(axes), 2e-7)
    close(V, x.astype("float64").var(axes), 1e-5)


# --------------------------------------------------------------------------------- the class of d2l


def layer_of_d2l(array, zeros, ones):
    """A layer in the manner of d2l's Gluon edition: statistics are attributes, not parameters."""

    class TheirBatchNorm(gluon.nn.Block):
        def __init__(self, num_features, num_dims, eps, **kwargs):
            super().__init__(**kwargs)
            shape = (1, num_features) if num_dims == 2 else (1, num_features, 1, 1)
            self.eps = eps
            self.gamma = self.params.get("gamma", shape=shape, init=mx.init.One())
            self.beta = self.params.get("beta", shape=shape, init=mx.init.Zero())
            self.running_mean, self.running_var = zeros(shape), ones(shape)

        def forward(self, X):
            if self.running_mean.ctx != X.ctx:
                self.running_mean = self.running_mean.copyto(X.ctx)
                self.running_var = self.running_var.copyto(X.ctx)
            Y, self.running_mean, self.running_var = batch_norm(
                X,
                self.gamma.data(),
                self.beta.data(),
                self.running_mean,
                self.running_var,
                eps=self.eps,
                momentum=0.9,
            )
            return Y

    return TheirBatchNorm


@pytest.mark.parametrize("eps", [1e-12, 1e-5])
@pytest.mark.parametrize("num_dims", [2, 4])
@pytest.mark.parametrize("kind", ["nd", "set_np"])
def test_the_class_of_d2l_trains_over_our_function(kind, num_dims, eps):
    shape = (8, 6) if num_dims == 2 else (8, 6, 3, 3)
    with world(kind) as array:
        module = nd if kind == "nd" else mx.np
        layer = layer_of_d2l(array, module.zeros, module.ones)(6, num_dims, eps)
        layer.initialize()
        trainer = gluon.Trainer(layer.collect_params(), "sgd", {"learning_rate": 0.5})
        mean = np.zeros((1, 6) + (1,) * (num_dims - 2))
        var, gamma, beta = mean + 1, mean + 1, mean
        axes = (0,) + tuple(range(2, num_dims))
        for step in range(4):
            x = given(step, *shape, dtype="float32")
            upstream = given(99, *shape, dtype="float32")
            with autograd.record():
                Y = layer(array(x, dtype="float32"))
                loss = (Y * array(upstream, dtype="float32")).sum()
            close(Y, np_batch_norm(x, gamma, beta, eps=eps), 5e-5)
            loss.backward()
            trainer.step(8)
            batch_mean, batch_var, _ = np_moments(x, axes)
            mean, var = 0.9 * mean + 0.1 * batch_mean, 0.9 * var + 0.1 * batch_var
            x_hat = (x - batch_mean) / np.sqrt(batch_var + eps)
            gamma = gamma - 0.5 / 8 * (x_hat * upstream).sum(axes, keepdims=True)
            beta = beta - 0.5 / 8 * upstream.sum(axes, keepdims=True)
            close(layer.running_mean, mean, 1e-5)
            close(layer.running_var, var, 1e-5)
            for _ in range(2):  # prediction moves nothing
                close(
                    layer(array(x, dtype="float32")),
                    gamma * (x - mean) / np.sqrt(var + eps) + beta,
                    1e-4,
                )


def test_statistics_move_once_a_call_in_training_mode_only():
    x, one = given(0, 8, 3), nd.ones(3, dtype="float64")
    X = nd.array(x, dtype="float64")
    X.attach_grad()

    def move(scope):
        with scope:
            Y, M, _ = batch_norm(X, one, one, one * 0, one, EPS, 0.9)
        return Y, M.asnumpy()

    for scope in (autograd.record(), autograd.train_mode(), autograd.pause(train_mode=True)):
        np.testing.assert_allclose(move(scope)[1], 0.1 * x.mean(0))
    for scope in (autograd.record(train_mode=False), autograd.predict_mode(), autograd.pause()):
        np.testing.assert_array_equal(move(scope)[1], 0)
    Y, M = move(autograd.record())
    Y.backward(retain_graph=True)
    Y.backward()
    np.testing.assert_allclose(M, 0.1 * x.mean(0))


def test_gamma_may_have_fewer_axes_than_X_and_a_lone_vector_is_always_per_channel():
    x, v = given(0, 3, 3, 3, 3), given(1, 3)
    X, one = nd.array(x, dtype="float64"), nd.ones(3, dtype="float64")
    V = nd.array(v, dtype="float64")
    with autograd.record():
        for beta in (V, V.reshape((3, 1, 1))):
            close(
                batch_norm(X, one, beta, one, one, EPS, 0.9)[0],
                np_batch_norm(x, 1, lay(v, 4)),
                1e-12,
            )


def test_in_prediction_mode_the_statistics_are_constants_of_the_gradient():
    x = given(0, 8, 3)
    X, one = nd.array(x, dtype="float64"), nd.ones(3, dtype="float64")
    X.attach_grad()
    with autograd.record(train_mode=False):
        Y, _, _ = batch_norm(X, 2 * one, one, one, 4 * one, EPS, 0.9)
    Y.backward()
    close(X.grad, np.full((8, 3), 2 / np.sqrt(4 + EPS)), 1e-12)


# ----------------------------------------------------------------------------------- the relatives


def np_layer(x, gamma, beta, axis=-1):
    mean, var, _ = np_moments(x, axis)
    return (x - mean) / np.sqrt(var + EPS) * lay(gamma, x.ndim, axis) + lay(beta, x.ndim, axis)


def np_group(x, gamma, beta, groups):
    split = x.reshape(x.shape[0], groups, -1)
    mean, var, _ = np_moments(split, 2)
    x_hat = ((split - mean) / np.sqrt(var + EPS)).reshape(x.shape)
    return x_hat * lay(gamma, x.ndim) + lay(beta, x.ndim)


def np_instance(x, gamma, beta, axis=1):
    mean, var, _ = np_moments(x, tuple(a for a in range(1, x.ndim) if a != axis % x.ndim))
    return (x - mean) / np.sqrt(var + EPS) * lay(gamma, x.ndim, axis) + lay(beta, x.ndim, axis)


def np_pixel(x, axis=1):
    return x / np.sqrt((x**2).mean(axis, keepdims=True) + EPS)


RELATIVES = {  # name: shape of X, channels, ours, NumPy
    "layer": ((4, 3, 5), 5, lambda X, g, b: functional.layer_norm(X, g, b, EPS), np_layer),
    "layer, axis 1": (
        (4, 3, 5),
        3,
        lambda X, g, b: functional.layer_norm(X, g, b, EPS, axis=1),
        lambda x, g, b: np_layer(x, g, b, 1),
    ),
    "layer, rank 1": ((5,), 5, lambda X, g, b: functional.layer_norm(X, g, b, EPS), np_layer),
    "group": (
        (2, 6, 3, 2),
        6,
        lambda X, g, b: functional.group_norm(X, g, b, 3, EPS),
        lambda x, g, b: np_group(x, g, b, 3),
    ),
    "group, rank 2": (
        (3, 6),
        6,
        lambda X, g, b: functional.group_norm(X, g, b, 2, EPS),
        lambda x, g, b: np_group(x, g, b, 2),
    ),
    "instance": (
        (2, 3, 4, 3),
        3,
        lambda X, g, b: functional.instance_norm(X, g, b, EPS),
        np_instance,
    ),
    "instance, axis -1": (
        (2, 4, 3),
        3,
        lambda X, g, b: functional.instance_norm(X, g, b, EPS, axis=-1),
        lambda x, g, b: np_instance(x, g, b, -1),
    ),
    "pixel": (
        (2, 3, 2, 2),
        3,
        lambda X, g, b: functional.pixel_norm(X, EPS) * 1,
        lambda x, g, b: np_pixel(x),
    ),
    "pixel, axis -1": (
        (2, 2, 3),
        3,
        lambda X, g, b: functional.pixel_norm(X, EPS, axis=-1),
        lambda x, g, b: np_pixel(x, -1),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", RELATIVES)
def test_relatives_and_their_gradients(kind, dtype, name):
    shape, C, ours, reference = RELATIVES[name]
    x, upstream = given(0, *shape, dtype=dtype), given(9, *shape, dtype=dtype)
    gamma, beta = given(1, C, dtype=dtype), given(2, C, dtype=dtype)
    with world(kind) as array:
        X, G, B, up = (array(v, dtype=dtype) for v in (x, gamma, beta, upstream))
        for v in (X, G, B):
            v.attach_grad()
        with autograd.record():
            Y = ours(X, G, B)
        Y.backward(up)
        assert type(Y) is type(X) and Y.dtype == X.dtype
        close(Y, reference(x, gamma, beta), TOLERANCE[dtype])
        if dtype == "float64":
            close(
                X.grad,
                differences(lambda v: (reference(v, gamma, beta) * upstream).sum(), x.copy()),
                1e-7,
            )
            close(
                G.grad,
                differences(lambda v: (reference(x, v, beta) * upstream).sum(), gamma.copy()),
                1e-7,
            )
            close(
                B.grad,
                differences(lambda v: (reference(x, gamma, v) * upstream).sum(), beta.copy()),
                1e-7,
            )


# --------------------------------------------------------------------------------------- bad input

ones = nd.ones
EMPTY = "empty"  # arrays of size zero exist under NumPy semantics only
BAD = {  # what is wrong: arguments that replace good ones, error, what the message names
    "a list": ({"X": [[1.0, 2.0]]}, TypeError, "list"),
    "a NumPy array": ({"X": np.ones((4, 3))}, TypeError, "ndarray"),
    "rank 1": ({"X": ones(3)}, ValueError, r"rank 1"),
    "integers": ({"X": ones((4, 3), dtype="int32")}, TypeError, "int32"),
    "gamma too long": ({"gamma": ones(4)}, ValueError, r"gamma.*\(4,\)"),
    "gamma of rank 3": ({"gamma": ones((1, 3, 1))}, ValueError, r"gamma.*\(1, 3, 1\)"),
    "gamma of integers": ({"gamma": ones(3, dtype="int64")}, TypeError, "gamma.*int64"),
    "gamma a Parameter": ({"gamma": gluon.Parameter("g", shape=(3,))}, TypeError, "gamma.*data"),
    "gamma a number": ({"gamma": 1.0}, TypeError, "gamma.*float"),
    "beta per four examples": ({"beta": ones((3, 3))}, ValueError, r"beta.*\(3, 3\)"),
    "a mean per example": ({"moving_mean": ones((4, 3))}, ValueError, r"moving_mean.*\(4, 3\)"),
    "moving_var missing": ({"moving_var": None}, TypeError, "moving_var"),
    "moving_var of one": ({"moving_var": ones(1)}, ValueError, r"moving_var.*\(1,\)"),
    "eps 0": ({"eps": 0}, ValueError, "eps.* 0"),
    "eps < 0": ({"eps": -1e-5}, ValueError, "-1e-05"),
    "eps nan": ({"eps": float("nan")}, ValueError, "nan"),
    "eps a string": ({"eps": "1e-5"}, TypeError, "1e-5"),
    "momentum > 1": ({"momentum": 1.5}, ValueError, "1.5"),
    "momentum < 0": ({"momentum": -0.1}, ValueError, "-0.1"),
    "momentum nan": ({"momentum": float("nan")}, ValueError, "nan"),
    "momentum None": ({"momentum": None}, TypeError, "None"),
    "axis 0 and weights": (
        {
            "axis": 0,
            "gamma": None,
            "beta": None,
            "moving_mean": nd.zeros(4),
            "moving_var": ones(4),
            "weights": ones(4),
        },
        ValueError,
        "axis=0",
    ),
    "axis 2": ({"axis": 2}, ValueError, "axis 2"),
    "axis 1.0": ({"axis": 1.0}, TypeError, "1.0"),
    "weights < 0": ({"weights": nd.array([1, 1, -2, 1])}, ValueError, r"-2.0 at index 2"),
    "weights nan": ({"weights": nd.array([1, np.nan, 1, 1])}, ValueError, "nan at index 1"),
    "weights all zero": ({"weights": nd.zeros(4)}, ValueError, "zero"),
    "weights too short": ({"weights": ones(3)}, ValueError, r"\(3,\)"),
    "weights a list": ({"weights": [1, 1, 1, 1]}, TypeError, "list"),
    "kinds mixed": ({"gamma": mx.np.ones(3)}, TypeError, "mixed"),
    "gamma elsewhere": ({"gamma": ones(3, ctx=mx.cpu(1))}, ValueError, r"gamma.*cpu\(1\)"),
    "statistics elsewhere": ({"moving_mean": ones(3, ctx=mx.cpu(1))}, ValueError, r"cpu\(1\)"),
}


@pytest.mark.parametrize("training", [True, False], ids=["training", "prediction"])
@pytest.mark.parametrize("wrong", BAD)
def test_bad_input_is_refused_by_name_before_anything_moves(wrong, training):
    change, error, names = BAD[wrong]
    good = {
        "X": ones((4, 3)),
        "gamma": ones(3),
        "beta": ones(3),
        "moving_mean": nd.zeros(3),
        "moving_var": ones(3),
        "eps": 1e-5,
        "momentum": 0.9,
    }
    change = {**good, **change}
    mean, var = good["moving_mean"], good["moving_var"]
    with autograd.record(train_mode=training), pytest.raises(error, match=names):
        batch_norm(**change)
    assert (mean.asnumpy() == 0).all() and (var.asnumpy() == 1).all()


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (4, 3, 0), ()])
def test_empty_batches_and_rank_0_under_numpy_semantics(shape):
    with world("set_np"), autograd.record():
        C = 3 if len(shape) < 2 or shape[1] else 0
        one = mx.np.ones(C)
        with pytest.raises(ValueError, match=r"rank 0" if shape == () else "empty"):
            batch_norm(mx.np.ones(shape), one, one, one, one, 1e-5, 0.9)


@pytest.mark.parametrize(
    "axis, error, names",
    [
        (None, TypeError, "None"),
        (1.5, TypeError, "1.5"),
        ("ab", TypeError, "ab"),
        ((), ValueError, "()"),
        (2, ValueError, "2"),
        ((0, -2), ValueError, "(0, -2)"),
        (True, TypeError, "True"),
    ],
)
def test_axes_that_cannot_be_averaged(axis, error, names):
    with pytest.raises(error, match="axis") as caught:
        moments(ones((4, 3)), axis)
    assert names in str(caught.value)


@pytest.mark.parametrize(
    "call, error, names",
    [
        (
            lambda X: functional.group_norm(X, None, None, 4, EPS),
            ValueError,
            "num_groups.*6 channels",
        ),
        (lambda X: functional.group_norm(X, None, None, 0, EPS), ValueError, "num_groups.*0"),
        (lambda X: functional.group_norm(X, None, None, 2.0, EPS), TypeError, "num_groups.*2.0"),
        (lambda X: functional.group_norm(X, ones(2), None, 2, EPS), ValueError, r"gamma.*\(2,\)"),
        (lambda X: functional.layer_norm(X, ones(6), None, EPS), ValueError, r"gamma.*\(6,\)"),
        (lambda X: functional.layer_norm(X, None, None, EPS, axis=3), ValueError, "axis 3"),
        (
            lambda X: functional.instance_norm(X[0], None, None, EPS),
            ValueError,
            r"rank 3.*\(6, 3\)",
        ),
        (lambda X: functional.pixel_norm(X, 0), ValueError, "eps"),
        (lambda X: functional.pixel_norm(X[0, 0]), ValueError, "rank 1"),
        (lambda X: functional.layer_norm(X.astype("int8"), None, None, EPS), TypeError, "int8"),
        (lambda X: normalize(X, None, ones(1), None, None, EPS), TypeError, "mean"),
        (lambda X: normalize(X, ones(1), ones(5), None, None, EPS), ValueError, r"var.*\(5,\)"),
    ],
)
def test_bad_input_of_the_others(call, error, names):
    with pytest.raises(error, match=names):
        call(ones((2, 6, 3)))


@pytest.mark.parametrize("kind", ["nd", "np"])
def test_large_numbers_never_pass_for_beta(kind):
    """Finite numbers whose squares overflow: NaN, where dividing by infinity would give beta."""
    x = given(0, 4, 6, 5)
    x[:, 1] *= 1e25
    with world(kind) as array:
        X, one, gamma = array(x), array(np.ones(6)), array(np.ones((1, 6, 1)))
        X, one, gamma = (a.astype("float32") for a in (X, one, gamma))
        mean, var = moments(X, (0, 2))
        assert np.isinf(var.asnumpy()[1]) and np.isfinite(mean.asnumpy()).all()
        with autograd.train_mode():
            Y, moved, _ = batch_norm(X, gamma, gamma, one, one, EPS, 0.9)
            weighted, *_ = batch_norm(
                X, gamma, gamma, one, one, EPS, 0.9, weights=array(np.ones(4)).astype("float32")
            )
        predicted, *_ = batch_norm(X, gamma, gamma, one, var, EPS, 0.9)
        results = [
            Y,
            weighted,
            predicted,
            normalize(X, mean.reshape((1, 6, 1)), var.reshape((1, 6, 1)), gamma, None, EPS),
            functional.instance_norm(X, None, None, EPS),
            functional.group_norm(X, None, None, 6, EPS),
            functional.layer_norm(X, None, None, EPS),
        ]
    for Y in results:
        assert (np.isnan(Y.asnumpy()) == (np.arange(6) == 1)[:, None]).all()
    assert np.isnan(functional.pixel_norm(X, EPS).asnumpy()).all()
    assert np.isfinite(moved.asnumpy()).all()
