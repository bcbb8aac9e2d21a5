"""The exercises that check themselves, tried on mistakes that nobody planned for: each was made up
after the checker, and its first answer was wrong, misleading or no more than a difference."""

import functools

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, nd
from mxnet.gluon import nn
from test_check import student, written
from test_check_block import BLOCK, FUNCTION, ByOneHot
from test_check_parts import BACKWARD, MOMENTS, NORMALIZE

import gluon_bn
from gluon_bn import check

VAR = "((X - mean) ** 2).mean(axis=axes, keepdims=True)"
SUM = "((X - mean) ** 2).sum(axis=axes, keepdims=True)"

# name of the mistake, others that come with it -> the change
FUNCTIONS = {
    "epsilon twice, epsilon stored": [f"{VAR} -> {VAR} + eps"],
    "epsilon twice": ["nd.sqrt(var + eps) -> (nd.sqrt(var + eps) + eps)"],
    "divided by N": [f"{VAR} -> {SUM} / X.shape[0]"],
    "divided by N ": [
        f"{VAR} -> {SUM} / X.shape[0]",
        "mean = X.mean(axis=axes, keepdims=True) -> "
        "mean = X.sum(axis=axes, keepdims=True) / X.shape[0]",
    ],
    "divided by N, unbiased variance, unbiased variance stored": [
        f"{VAR} -> {SUM} / (X.shape[0] - 1)"
    ],
    "divided by the positions, sum for the mean": [
        f"{VAR} -> {SUM} / (X.size // X.shape[0] // X.shape[1])"
    ],
    "divided by the channels": [f"{VAR} -> {SUM} / X.shape[1]"],
    "wrong axes: everything": ["((X - mean) ** 2) -> ((X - X.mean()) ** 2)"],
    "mean not squared in the variance": [
        f"{VAR} -> (X ** 2).mean(axis=axes, keepdims=True) - mean"
    ],
    "gamma without its sign": ["gamma * X_hat -> gamma.abs() * X_hat"],
    "parentheses": ["(X - mean) / nd.sqrt(var + eps) -> X - mean / nd.sqrt(var + eps)"],
    "mean and variance swapped": [
        "(X - moving_mean) / nd.sqrt(moving_var + eps) -> "
        "(X - moving_var) / nd.sqrt(moving_mean + eps)"
    ],
    "statistics change shape": [
        "return Y, moving_mean, moving_var -> "
        "return Y, moving_mean.reshape(-1), moving_var.reshape(-1)"
    ],
    "type changed": [
        "    if not autograd -> \n    X, gamma, beta = (a.astype('float64') for a in "
        "(X, gamma, beta))\n    moving_mean, moving_var = (a.astype('float64') for a "
        "in (moving_mean, moving_var))\n    if not autograd"
    ],
    "wrong axes": ["axes = (0, 2, 3) -> axes = (0, 1, 2)"],
    "moving statistics in training, moving statistics not updated": [
        "if not autograd.is_training(): -> "
        "\n    with autograd.pause():\n        training = autograd.is_training()"
        "\n    if not training:"
    ],
}


def names(key):
    return {name.strip() for name in key.split(", ")}


@pytest.mark.parametrize("key", FUNCTIONS)
def test_functions(key):
    report = check.batch_norm(student(*FUNCTIONS[key]))
    assert set(report.mistakes) == names(key), report


def test_the_variance_is_accused_not_the_mean():
    report = check.batch_norm(student(*FUNCTIONS["wrong axes: everything"]))
    assert "The mean is taken" not in str(report)
    assert report.about("Y in training").why.startswith("The variance is taken around one mean")


def test_what_was_forbidden_in_place_did_not_change_its_shape():
    report = check.batch_norm(student("moving_mean = momentum * -> moving_mean[:] = momentum *"))
    assert "changed in place" in report.mistakes
    assert "shape" not in report.about("a second step").why


def test_the_mode_inside_pause_and_the_channels_last_are_spoken_of():
    report = check.batch_norm(
        student(*FUNCTIONS["moving statistics in training, moving statistics not updated"])
    )
    assert "pause()" in report.about("Y in training").why
    report = check.batch_norm(student(*FUNCTIONS["wrong axes"]))
    assert "as if the channels came last" in report.about("Y in training").why


def test_float16_on_the_way():
    report = check.batch_norm(student("return Y, -> return Y.astype('float16').astype(X.dtype),"))
    assert "about three digits" in report.about("Y in training").why


MEAN = "((X - mean) ** 2).mean(axis=axis)"
MOMENTS_MORE = {
    "divided by N": f"{MEAN} -> ((X - mean) ** 2).sum(axis=axis) / len(X)",
    "divided by N ": f"{MEAN} -> ((X - mean) ** 2).sum(axis=axis) / (len(X) - 1)",
    "divided by N  ": "X.mean(axis=axis, keepdims=True) -> "
    "X.sum(axis=axis, keepdims=True) / len(X)",
    "wrong axes: everything": f"{MEAN} -> ((X - X.mean()) ** 2).mean(axis=axis)",
    "mean not squared in the variance": f"{MEAN} -> (X ** 2).mean(axis=axis) - X.mean(axis=axis)",
    "epsilon in the variance": f"{MEAN} -> {MEAN} + 1e-5",
    "shape changed": "return mean.reshape(var.shape), var -> return mean.broadcast_like(X), "
    "var.mean() * nd.ones_like(X)",
}


@pytest.mark.parametrize("key", MOMENTS_MORE)
def test_moments(key):
    report = check.moments(written(MOMENTS, MOMENTS_MORE[key]))
    assert set(report.mistakes) == names(key), report


NORMALIZE_MORE = {
    "epsilon twice": "nd.sqrt(var + eps) -> nd.sqrt(var + eps + eps)",
    "epsilon twice ": "nd.sqrt(var + eps) -> (nd.sqrt(var + eps) + eps)",
    "parentheses": "(X - mean) / nd.sqrt -> X - mean / nd.sqrt",
    "mean and variance swapped": "(X - mean) / nd.sqrt(var + eps) -> "
    "(X - var) / nd.sqrt(mean + eps)",
    "gamma without its sign": "gamma * X_hat -> gamma.abs() * X_hat",
}


@pytest.mark.parametrize("key", NORMALIZE_MORE)
def test_normalize(key):
    report = check.normalize(written(NORMALIZE, NORMALIZE_MORE[key]))
    assert set(report.mistakes) == names(key), report


def test_normalize_notes_what_it_did_not_ask_for():
    report = check.normalize(written(NORMALIZE, "    return Y -> \n    return Y, X_hat"))
    assert report and "more than one value" in str(report)


M = "m = X.size // X.shape[1] -> m = "
BACKWARD_MORE = {
    "another number for m": M + "X.shape[0]",
    "another number for m ": "dmean / m -> dmean / X.shape[0]",
    "another number for m  ": "centred / m -> centred / X.shape[0]",
    "another number for m   ": M + "X.size // X.shape[0] // X.shape[1]",
    "another number for m    ": M + "X.size",
    "another number for m     ": M + "X.size // X.shape[1] - 1",
    "direct way missing": "dX = dX_hat / std + -> dX =",
    "not divided by the deviation": "dX = dX_hat / std -> dX = dX_hat",
    "not divided by the deviation ": "dmean = -(dX_hat / std) -> dmean = -(dX_hat)",
    "no gamma": "dmean = -(dX_hat / std) -> dmean = -(dY / std)",
    "no gamma ": "dvar = (dX_hat * centred) -> dvar = (dY * centred)",
    "X for X - mean": "dvar = (dX_hat * centred) -> dvar = (dX_hat * X)",
    "X for X - mean ": "2 * centred / m -> 2 * X / m",
    "gamma twice": "dvar * 2 * centred -> dvar * 2 * gamma * centred",
    "divided by m": "return dX -> return dX / m",
    "times m": "return dX -> return dX * m",
    "variance term": "** -1.5 -> ** 1.5",
    "mean not subtracted in the variance": "(centred ** 2) -> (X ** 2)",
    "wrong type returned": "return dX, dgamma, dbeta -> "
    "return dX.asnumpy(), dgamma.asnumpy(), dbeta.asnumpy()",
    "only rank 4 works": "axes = tuple(a for a in range(X.ndim) if a != 1) -> axes = (0, 2, 3)",
}


@pytest.mark.parametrize("key", BACKWARD_MORE)
def test_backward(key):
    report = check.batch_norm_backward(written(BACKWARD, BACKWARD_MORE[key]))
    assert set(report.mistakes) == names(key), report


def test_backward_over_other_axes():
    def per_instance(dY, X, gamma, eps):
        axes = (2, 3) if X.ndim == 4 else (0,)
        x = X - X.mean(axis=axes, keepdims=True)
        std = nd.sqrt((x**2).mean(axis=axes, keepdims=True) + eps)
        x, channels = x / std, (0, 2, 3)[: 1 if X.ndim == 2 else 3]
        dX = (
            gamma
            / std
            * (dY - dY.mean(axis=axes, keepdims=True) - x * (dY * x).mean(axis=axes, keepdims=True))
        )
        return dX, (dY * x).sum(axis=channels), dY.sum(axis=channels)

    report = check.batch_norm_backward(per_instance)
    assert report.about("dX").mistakes == ("wrong axes: per instance",), report


def test_an_axis_that_is_not_there_is_explained():
    report = check.batch_norm_backward(written(BACKWARD, BACKWARD_MORE["only rank 4 works"]))
    assert "written for images only" in report.about("X of rank 2").why


# -------------------------------------------------------------------------------------- the layer

MOVE = "0.9 * self.running_{0}.data() + 0.1 * {0}"
RETURN = "return self.gamma.data() * (X - mean) / nd.sqrt(var + 1e-5) + self.beta.data()"
BLOCKS = {
    "gamma and beta are one": [
        "'beta', shape=shape, init='zeros' -> 'gamma', shape=shape, init='ones'"
    ],
    "more than Y returned": [f"{RETURN} -> {RETURN}, mean"],
    "state shared between layers": [
        "num_dims, **kwargs) -> num_dims, stats={}, **kwargs)",
        "        super().__init__(**kwargs) -> \n        super().__init__(**kwargs)\n"
        "        self.stats = stats",
        f"self.running_mean.set_data({MOVE.format('mean')}) -> "
        "self.stats['m'] = 0.9 * self.stats.get('m', 0 * mean) + 0.1 * mean",
        f"self.running_var.set_data({MOVE.format('var')}) -> "
        "self.stats['v'] = 0.9 * self.stats.get('v', 0 * var + 1) + 0.1 * var",
        "mean, var = self.running_mean.data(), self.running_var.data() -> mean, var = "
        "self.stats.get('m', self.running_mean.data()), "
        "self.stats.get('v', self.running_var.data())",
    ],
    "moving statistics in training, moving statistics not updated": [
        "        self.axes = -> \n        self.training = autograd.is_training()\n"
        "        self.axes =",
        "if autograd.is_training() -> if self.training",
    ],
}


@pytest.mark.parametrize("key", BLOCKS)
def test_blocks(key):
    report = check.block(written(BLOCK, *BLOCKS[key]))
    assert set(report.mistakes) == names(key), report


@pytest.mark.parametrize(
    "change, said",
    [
        ("        super().__init__(**kwargs)\n -> ", "super().__init__()"),
        ("return self.gamma.data() * -> return self.gamma *", "a Parameter stands where its array"),
        ("'gamma', shape=shape -> 'gamma', shape=(1,)", "one value per channel, 3 in all"),
    ],
)
def test_errors_of_layers_are_explained(change, said):
    report = check.block(written(BLOCK, change))
    assert not report and said in " ".join(str(report).split()), report


def test_a_layer_that_moves_gamma_itself():
    report = check.block(
        written(
            BLOCK,
            f"        {RETURN} -> \n        with autograd.pause():\n"
            "            self.gamma.set_data(self.gamma.data() * 0.99)\n"
            f"        {RETURN}",
        )
    )
    assert "gamma changed in place" in report.mistakes
    assert "Trainer" in report.about("gamma is left").why


def test_a_plain_average_is_no_mistake():
    report = check.block(lambda n, d: gluon_bn.BatchNorm(n, d, momentum=None))
    assert report and "plain averages" in str(report), report


class RowsOf(ByOneHot):
    """As ByOneHot, without its check of the labels."""

    table = staticmethod(lambda hot, array: nd.dot(hot, array))

    def forward(self, X, labels):
        hot = nd.one_hot(labels, self.classes, dtype=X.dtype)
        rows = X.shape[:2] + (1,) * (X.ndim - 2)
        return self.bn(X) * self.table(hot, self.gamma.data()).reshape(rows) + self.table(
            hot, self.beta.data()
        ).reshape(rows)


def test_labels_that_come_out_as_zeros_are_not_clipped():
    report = check.conditional(RowsOf)
    assert "labels not checked" in report.mistakes and "labels clipped" not in report.mistakes
    assert "comes out as zeros" in report.about("labels that no class").why


class Checked(RowsOf):
    def forward(self, X, labels):
        if labels.min().asscalar() < 0 or labels.max().asscalar() >= self.classes:
            raise ValueError("a label that is no class")
        return super().forward(X, labels)


def test_a_table_on_its_side():
    class Transposed(Checked):
        table = staticmethod(lambda hot, array: nd.dot(hot, array.T))

        def __init__(self, num_features, num_classes):
            super().__init__(num_classes, num_features)  # (C, K)
            self.classes = num_classes

    assert "table transposed" in check.conditional(Transposed).mistakes


def test_labels_of_the_previous_call():
    class Previous(Checked):
        last = None

        def forward(self, X, labels):
            last, self.last = self.last, labels
            return super().forward(X, labels if last is None else last)

    assert "remembers" in check.conditional(Previous).mistakes


CONDITIONAL = {
    "batch reversed": ["nd.take(beta, labels) -> nd.take(beta, labels[::-1])"],
    "labels clipped": [
        "        if not 0 <= label < gamma.shape[0]:\n            raise ValueError("
        "f'label {label} is out of range')\n -> \n        pass\n"
        "    labels = labels % gamma.shape[0]\n"
    ],
    "epsilon twice": ["var + eps -> var + eps + eps"],
    "labels ignored": [
        "beta = nd.take(beta, labels).reshape(rows) -> beta = beta[0].reshape((1,) + rows[1:])"
    ],
}


@pytest.mark.parametrize("key", CONDITIONAL)
def test_conditional(key):
    report = check.conditional(written(FUNCTION, *CONDITIONAL[key]))
    assert set(report.mistakes) == names(key), report


# ------------------------------------------------------------------- right, and written differently


class InNumPy(autograd.Function):
    """Forward and backward in NumPy, between two copies."""

    def __init__(self, eps):
        super().__init__()
        self.eps = eps

    def forward(self, X, gamma, beta):
        x, gamma, beta = (a.asnumpy() for a in (X, gamma, beta))
        axes = tuple(a for a in range(x.ndim) if a != 1)
        std = np.sqrt(x.var(axes, keepdims=True) + x.dtype.type(self.eps))
        x_hat = (x - x.mean(axes, keepdims=True)) / std
        self.kept = x_hat, std, gamma, axes
        return nd.array(gamma * x_hat + beta, dtype=X.dtype)

    def backward(self, dY):
        (x, std, gamma, axes), d = self.kept, dY.asnumpy()
        dbeta, dgamma = d.sum(axes, keepdims=True), (d * x).sum(axes, keepdims=True)
        m = x.size // x.shape[1]
        return [
            nd.array(a, dtype=dY.dtype)
            for a in (gamma / std * (d - dbeta / m - x * dgamma / m), dgamma, dbeta)
        ]


def in_numpy(X, gamma, beta, moving_mean, moving_var, eps, momentum):
    Y, moving_mean, moving_var = student()(X, gamma, beta, moving_mean, moving_var, eps, momentum)
    return (InNumPy(eps)(X, gamma, beta) if autograd.is_training() else Y), moving_mean, moving_var


def by_einsum(X, gamma, beta, moving_mean, moving_var, eps, momentum):
    mean, var = moving_mean, moving_var
    if autograd.is_training():
        m, axes = X.size // X.shape[1], "nc" if X.ndim == 2 else "nchw"
        mean = (mx.np.einsum(axes + "->c", X) / m).reshape(gamma.shape)
        centred = X - mean
        var = (mx.np.einsum(f"{axes},{axes}->c", centred, centred) / m).reshape(gamma.shape)
        moving_mean = momentum * moving_mean + (1 - momentum) * mean
        moving_var = momentum * moving_var + (1 - momentum) * var
    return gamma * (X - mean) / mx.np.sqrt(var + eps) + beta, moving_mean, moving_var


def in_float64(X, *others):
    arrays = [a.astype("float64") for a in (X, *others[:4])]
    return [a.astype(X.dtype) for a in student()(*arrays, *others[4:])]


def channels_last(X, gamma, beta, moving_mean, moving_var, eps, momentum):
    Z = X if X.ndim == 2 else X.transpose((0, 2, 3, 1)).reshape((-1, X.shape[1]))
    Y, mean, var = student()(
        Z, *(a.reshape((1, -1)) for a in (gamma, beta, moving_mean, moving_var)), eps, momentum
    )
    if X.ndim == 4:
        Y = Y.reshape((X.shape[0], *X.shape[2:], X.shape[1])).transpose((0, 3, 1, 2))
    return Y, mean.reshape(gamma.shape), var.reshape(gamma.shape)


def by_channel(X, gamma, beta, moving_mean, moving_var, eps, momentum):
    parts = [
        student()(
            X.slice_axis(1, c, c + 1),
            *(a.slice_axis(1, c, c + 1) for a in (gamma, beta, moving_mean, moving_var)),
            eps,
            momentum,
        )
        for c in range(X.shape[1])
    ]
    return tuple(nd.concat(*part, dim=1) for part in zip(*parts))


def by_nd_moments(X, gamma, beta, moving_mean, moving_var, eps=1e-5, momentum=0.9, name=None):
    if not autograd.is_training():
        return student()(X, gamma, beta, moving_mean, moving_var, eps, momentum)
    mean, var = nd.moments(X, axes=[a for a in range(X.ndim) if a != 1], keepdims=True)
    scale = gamma * nd.rsqrt(var + eps)
    return (
        X * scale + (beta - scale * mean),
        momentum * moving_mean + (1 - momentum) * mean,
        momentum * moving_var + (1 - momentum) * var,
    )


class Callable:
    def __call__(self, X, gamma, beta, moving_mean, moving_var, eps, momentum):
        return student()(X, gamma, beta, moving_mean, moving_var, eps, momentum)

    def method(self, *arguments):
        return student()(*arguments)


def by_keywords(X, **others):
    return student()(X, **others)


@pytest.mark.parametrize(
    "f",
    [
        in_numpy,
        by_einsum,
        in_float64,
        channels_last,
        by_channel,
        by_nd_moments,
        Callable(),
        Callable().method,
        by_keywords,
        functools.partial(lambda one, *a: student()(*a), 1),
    ],
    ids=lambda f: getattr(f, "__name__", type(f).__name__),
)
def test_right_functions(f):
    report = check.batch_norm(f)
    assert report, report


class ByOperator(gluon.HybridBlock):
    def __init__(self, channels):
        super().__init__()
        for name, value in (
            ("gamma", "ones"),
            ("beta", "zeros"),
            ("running_mean", "zeros"),
            ("running_var", "ones"),
        ):
            learned = name in ("gamma", "beta")
            setattr(
                self,
                name,
                self.params.get(
                    name, shape=(channels,), init=value, grad_req="write" if learned else "null"
                ),
            )

    def hybrid_forward(self, F, X, **arrays):
        return F.BatchNorm(
            X,
            *(arrays[n] for n in ("gamma", "beta", "running_mean", "running_var")),
            fix_gamma=False,
            eps=1e-5,
        )


class OwnCall(gluon_bn.BatchNorm):
    def __call__(self, X, *others):
        return super().__call__(X, *others)


@pytest.mark.parametrize("made", [ByOperator, OwnCall])
def test_right_layers(made):
    report = check.block(made)
    assert report, report


class TwoEmbeddings(nn.Block):
    def __init__(self, num_features, num_classes):
        super().__init__()
        self.classes = num_classes
        self.norm = gluon_bn.BatchNorm(num_features, center=False, scale=False)
        self.scale = nn.Embedding(num_classes, num_features, weight_initializer="ones")
        self.shift = nn.Embedding(num_classes, num_features, weight_initializer="zeros")

    def forward(self, X, labels):
        assert 0 <= labels.min().asscalar() and labels.max().asscalar() < self.classes, "no class"
        lay = X.shape[:2] + (1,) * (X.ndim - 2)
        return self.norm(X) * self.scale(labels).reshape(lay) + self.shift(labels).reshape(lay)


def test_right_conditional():
    report = check.conditional(TwoEmbeddings)
    assert report, report


def welford(X, axis):
    rest = [a for a in range(X.ndim) if a not in axis]
    rows = X.transpose((*axis, *rest)).reshape((-1, *(X.shape[a] for a in rest)))
    mean = squares = rows[0] * 0
    for i, row in enumerate(rows, start=1):
        gap = row - mean
        mean = mean + gap / i
        squares = squares + gap * (row - mean)
    return mean, squares / len(rows)


@pytest.mark.parametrize("f", [welford, lambda x, axes: nd.moments(x, axes=axes)])
def test_right_moments(f):
    report = check.moments(f)
    assert report, report
