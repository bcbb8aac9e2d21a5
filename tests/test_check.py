"""The exercises that check themselves: batch_norm. Right in many styles; each mistake by its name.

The students here write MXNet. Each mistake is the right function with a line or two changed, as
text, so that the code that is checked shares nothing with the suspects in `gluon_bn.check`.
"""

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, nd, npx

import gluon_bn
from gluon_bn import check

STUDENT = """
def f(X, gamma, beta, moving_mean, moving_var, eps, momentum):
    if not autograd.is_training():
        X_hat = (X - moving_mean) / nd.sqrt(moving_var + eps)
    else:
        if X.ndim == 2:
            axes = (0,)
        else:
            axes = (0, 2, 3)
        m = X.size // X.shape[1]
        mean = X.mean(axis=axes, keepdims=True)
        var = ((X - mean) ** 2).mean(axis=axes, keepdims=True)
        X_hat = (X - mean) / nd.sqrt(var + eps)
        moving_mean = momentum * moving_mean + (1 - momentum) * mean
        moving_var = momentum * moving_var + (1 - momentum) * var
    Y = gamma * X_hat + beta
    return Y, moving_mean, moving_var
"""


def written(source, *changes):
    """The function f of a source, with every `old -> new` of the changes made."""
    for change in changes:
        old, new = change.split(" -> ")
        assert old in source, old
        source = source.replace(old, new)
    space = {"nd": nd, "autograd": autograd, "numpy": np, "mx": mx, "gluon": gluon, "nn": gluon.nn}
    exec(source, space)
    return space["f"]


def student(*changes):
    return written(STUDENT, *changes)


# -------------------------------------------------------------------------------------- right ones


def by_operator(X, gamma, beta, moving_mean, moving_var, eps, momentum):
    """MXNet's own operator, which moves the statistics in the backward pass."""
    return (
        nd.BatchNorm(
            X, gamma, beta, moving_mean, moving_var, eps=eps, momentum=momentum, fix_gamma=False
        ),
        moving_mean,
        moving_var,
    )


def by_two_functions(X, gamma, beta, moving_mean, moving_var, eps, momentum):
    if autograd.is_training():
        axes = [a for a in range(X.ndim) if a != 1]
        mean, var = gluon_bn.moments(X, axes, keepdims=True)
        moving_mean = moving_mean * momentum + mean * (1 - momentum)
        moving_var = moving_var * momentum + var * (1 - momentum)
    else:
        mean, var = moving_mean, moving_var
    return gluon_bn.normalize(X, mean, var, beta, gamma, eps), moving_mean, moving_var


def by_reshaping(X, gamma, beta, moving_mean, moving_var, eps, momentum):
    """The channels in front, everything else in a row; statistics in place."""
    rows = X.swapaxes(0, 1).reshape((X.shape[1], -1))
    if autograd.is_training():
        mean = rows.mean(axis=1, keepdims=True)
        var = nd.square(rows - mean).mean(axis=1, keepdims=True)
        with autograd.pause():
            moving_mean[:] = momentum * moving_mean + (1 - momentum) * mean.reshape(
                moving_mean.shape
            )
            moving_var[:] = momentum * moving_var + (1 - momentum) * var.reshape(moving_var.shape)
    else:
        mean, var = moving_mean.reshape((-1, 1)), moving_var.reshape((-1, 1))
    rows = (rows - mean) / (var + eps).sqrt() * gamma.reshape((-1, 1)) + beta.reshape((-1, 1))
    swapped = (X.shape[1], X.shape[0]) + X.shape[2:]
    return rows.reshape(swapped).swapaxes(0, 1), moving_mean, moving_var


def by_numpy_style(X, gamma, beta, moving_mean, moving_var, eps, momentum):
    if not autograd.is_training():
        X_hat = (X - moving_mean) / mx.np.sqrt(moving_var + eps)
    else:
        axes = 0 if len(X.shape) == 2 else (0, 2, 3)
        mean = X.mean(axis=axes, keepdims=True)
        var = ((X - mean) ** 2).mean(axis=axes, keepdims=True)
        X_hat = (X - mean) / mx.np.sqrt(var + eps)
        moving_mean = momentum * moving_mean + (1.0 - momentum) * mean
        moving_var = momentum * moving_var + (1.0 - momentum) * var
    return gamma * X_hat + beta, moving_mean, moving_var


def by_vectors_in_numpy_style(X, gamma, beta, moving_mean, moving_var, eps, momentum):
    """Where arrays laid against X run as well, but broadcast to something else."""
    from mxnet import np as mnp

    axes, lay = [a for a in range(X.ndim) if a != 1], (1, -1) + (1,) * (X.ndim - 2)
    mean, var = moving_mean, moving_var
    if autograd.is_training():
        mean = X.mean(axis=tuple(axes))
        var = mnp.mean((X - mean.reshape(lay)) ** 2, axis=tuple(axes))
        moving_mean = momentum * moving_mean + (1 - momentum) * mean
        moving_var = momentum * moving_var + (1 - momentum) * var
    scale = gamma / mnp.sqrt(var + eps)
    return (X - mean.reshape(lay)) * scale.reshape(lay) + beta.reshape(lay), moving_mean, moving_var


def with_a_flag(X, gamma, beta, moving_mean, moving_var, eps, momentum, training):
    with autograd.train_mode() if training else autograd.predict_mode():
        return student()(X, gamma, beta, moving_mean, moving_var, eps, momentum)


class ByHand(autograd.Function):
    """Forward and backward by hand; vectors only."""

    def __init__(self, eps):
        super().__init__()
        self.eps = eps

    def forward(self, X, gamma, beta):
        self.axes = tuple(a for a in range(X.ndim) if a != 1)
        mean = X.mean(axis=self.axes, keepdims=True)
        var = ((X - mean) ** 2).mean(axis=self.axes, keepdims=True)
        std = nd.sqrt(var + self.eps)
        X_hat = (X - mean) / std
        self.save_for_backward(X_hat, gamma, std)
        return gamma * X_hat + beta

    def backward(self, dY):
        X_hat, gamma, std = self.saved_tensors

        def average(Z):
            return Z.mean(axis=self.axes, keepdims=True)

        m = X_hat.size // X_hat.shape[1]
        dX = gamma / std * (dY - average(dY) - X_hat * average(dY * X_hat))
        return dX, average(dY * X_hat) * m, average(dY) * m


def by_autograd_function(X, gamma, beta, moving_mean, moving_var, eps, momentum):
    if not autograd.is_training():
        return student()(X, gamma, beta, moving_mean, moving_var, eps, momentum)
    _, moving_mean, moving_var = student()(X, gamma, beta, moving_mean, moving_var, eps, momentum)
    return ByHand(eps)(X, gamma, beta), moving_mean, moving_var


RIGHT = [
    student(),
    by_operator,
    by_two_functions,
    by_reshaping,
    by_numpy_style,
    by_vectors_in_numpy_style,
    with_a_flag,
    by_autograd_function,
    gluon_bn.batch_norm,
]


@pytest.mark.parametrize("f", RIGHT, ids=lambda f: f.__name__)
def test_right(f):
    report = check.batch_norm(f)
    assert report, report
    assert report.mistakes == ()


def test_right_under_numpy_semantics():
    npx.set_np()
    try:
        assert check.batch_norm(by_numpy_style)
        assert mx.util.is_np_array() and mx.util.is_np_shape()
    finally:
        npx.reset_np()
    assert check.batch_norm(student())


# ---------------------------------------------------------------------------------------- mistakes

# Those of the table are tried in test_check_table.py; here are some that are combined below, and
# those that it does not hold: how a function behaves.
MISTAKES = {
    # the axes
    "wrong axes: per example": ["axes = (0, 2, 3) -> axes = (1, 2, 3)"],
    "wrong axes: per instance": ["axes = (0, 2, 3) -> axes = (2, 3)"],
    "wrong axes: everything": [
        "axes = (0, 2, 3) -> axes = (0, 1, 2, 3)",
        "axes = (0,) -> axes = (0, 1)",
    ],
    # epsilon and the root
    "no epsilon": ["sqrt(var + eps) -> sqrt(var)", "sqrt(moving_var + eps) -> sqrt(moving_var)"],
    "epsilon outside the root": ["nd.sqrt(var + eps) -> (nd.sqrt(var) + eps)"],
    "no root": [
        "nd.sqrt(var + eps) -> (var + eps)",
        "nd.sqrt(moving_var + eps) -> (moving_var + eps)",
    ],
    # the variance
    "std for the variance": [
        "var = ((X - mean) ** 2).mean(axis=axes, keepdims=True) -> "
        "var = nd.sqrt(((X - mean) ** 2).mean(axis=axes, keepdims=True))"
    ],
    "unbiased variance": [
        "((X - mean) ** 2).mean(axis=axes, keepdims=True) -> "
        "((X - mean) ** 2).sum(axis=axes, keepdims=True) / (m - 1)"
    ],
    "cancellation": [
        "((X - mean) ** 2).mean(axis=axes, keepdims=True) -> "
        "(X ** 2).mean(axis=axes, keepdims=True) - mean ** 2"
    ],
    # gamma and beta
    "no gamma": ["gamma * X_hat -> X_hat"],
    "no beta": ["gamma * X_hat + beta -> gamma * X_hat"],
    "gamma and beta swapped": ["gamma * X_hat + beta -> beta * X_hat + gamma"],
    "shifted before scaling": ["gamma * X_hat + beta -> gamma * (X_hat + beta)"],
    "sign turned": ["(X - mean) / -> (mean - X) /"],
    # the moving statistics
    "momentum reversed": [
        "momentum * moving_mean + (1 - momentum) * mean -> "
        "(1 - momentum) * moving_mean + momentum * mean",
        "momentum * moving_var + (1 - momentum) * var -> "
        "(1 - momentum) * moving_var + momentum * var",
    ],
    "unbiased variance stored": ["(1 - momentum) * var -> (1 - momentum) * var * m / (m - 1)"],
    "momentum hard-coded": [
        "momentum * moving_mean + (1 - momentum) * mean -> 0.9 * moving_mean + 0.1 * mean"
    ],
    "mean and variance swapped": [
        "return Y, moving_mean, moving_var -> return Y, moving_var, moving_mean"
    ],
    "return order": ["return Y, moving_mean, moving_var -> return moving_mean, moving_var, Y"],
    "statistics not returned": ["return Y, moving_mean, moving_var -> return Y"],
    # gradients
    "gradient not through the variance": [
        "((X - mean) ** 2).mean(axis=axes, keepdims=True) -> "
        "((X - mean) ** 2).mean(axis=axes, keepdims=True).detach()"
    ],
    "gradient cut": [
        "Y = gamma * X_hat + beta -> Y = nd.array((gamma * X_hat + beta).asnumpy(), dtype=X.dtype)"
    ],
    # side effects, shapes and types
    "X changed in place": [
        "    if not autograd -> \n    X[:] = X * 1\n    X[0] = X[0] + 1\n    if not autograd"
    ],
    "gamma changed in place": ["    Y = -> \n    gamma *= 1.5\n    Y ="],
    "type changed": [
        "    Y = gamma * X_hat + beta -> \n    Y = (gamma * X_hat + beta).astype('float32')"
    ],
    "type changed ": ["    Y = -> \n    X_hat = X_hat * nd.ones(X.shape)\n    Y ="],
    "shape changed": ["return Y, -> return Y.reshape((X.shape[0], -1)),"],
    "only rank 2 works": ["axes = (0, 2, 3) -> raise NotImplementedError"],
    "only rank 4 works": ["axes = (0,) -> raise ValueError('X must have rank 4')"],
    "nothing returned": ["    return Y, moving_mean, moving_var -> "],
    "order of the arguments": ["gamma, beta, moving -> beta, gamma, moving"],
    "wrong arguments": [", eps, momentum): -> ):\n    eps, momentum = 1e-5, 0.9"],
    "error": ["X_hat = (X - mean) -> X_hat = (X - mean).cast()"],
}


BEHAVIOUR = list(MISTAKES)[list(MISTAKES).index("return order") :]


@pytest.mark.parametrize("name", ["gradient cut", *BEHAVIOUR])
def test_mistake(name):
    report = check.batch_norm(student(*MISTAKES[name]))
    assert not report
    assert name.strip() in report.mistakes, report
    text = str(report)
    assert "Traceback" not in text and "../src" not in text
    # Nothing is claimed beside the mistake that was made, and what comes with it of itself.
    aside = {"error", "changed in place", "no gradient for gamma"}
    assert set(report.mistakes) - aside <= {name.strip(), *TOGETHER.get(name.strip(), ())}, report


TOGETHER = {
    "unbiased variance": {"unbiased variance stored"},
    "std for the variance": {"std stored"},
    "gradient cut": {"type changed"},
    "X changed in place": {"difference", "remembers"},
    "gamma changed in place": {"difference", "gamma twice"},
}

UNKNOWN = {
    "times 1.01": ["gamma * X_hat + beta -> 1.01 * (gamma * X_hat + beta)"],
    "clipped": ["gamma * X_hat -> gamma * X_hat.clip(-1, 1)"],
    "median": [
        "mean = X.mean(axis=axes, keepdims=True) -> mean = nd.array(numpy.median("
        "X.asnumpy(), axis=axes, keepdims=True), dtype=X.dtype)"
    ],
    "an activation": ["gamma * X_hat + beta -> nd.relu(gamma * X_hat + beta)"],
    "tanh": ["gamma * X_hat -> gamma * nd.tanh(X_hat)"],
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_mistakes_are_shown_as_a_difference(name):
    report = check.batch_norm(student(*UNKNOWN[name]))
    assert report.about("Y in training").mistakes == ("difference",), report
    example = report.about("Y in training").example
    assert np.size(example.given["X"]) <= 6
    assert not np.allclose(example.expected, example.got)


PAIRS = [
    ("no epsilon", "gamma and beta swapped"),
    ("no gamma", "epsilon outside the root"),
    ("std for the variance", "no beta"),
    ("wrong axes: per instance", "shifted before scaling"),
    ("unbiased variance", "momentum reversed"),
    ("no root", "mean and variance swapped"),
    ("gradient not through the variance", "momentum hard-coded"),
    ("unbiased variance", "no gamma"),
    ("unbiased variance stored", "gradient cut"),
]


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_two_mistakes_at_once(pair):
    report = check.batch_norm(student(*MISTAKES[pair[0]], *MISTAKES[pair[1]]))
    assert set(pair) <= set(report.mistakes), report
    allowed = set(pair) | TOGETHER.get(pair[0], set()) | TOGETHER.get(pair[1], set())
    assert set(report.mistakes) <= allowed, report


@pytest.mark.parametrize(
    "names",
    [
        ("no gamma", "no root", "unbiased variance"),
        ("sign turned", "std for the variance", "shifted before scaling"),
    ],
    ids="+".join,
)
def test_three_mistakes_are_not_misnamed(names):
    report = check.batch_norm(student(*[c for n in names for c in MISTAKES[n]]))
    assert set(report.about("Y in training").mistakes) <= {"difference", *names}, report


# ------------------------------------------------------------------------------------- the report


def test_no_generator_is_touched():
    mx.random.seed(3)
    np.random.seed(3)
    want = nd.random.uniform(shape=3).asnumpy(), np.random.uniform(size=3)
    mx.random.seed(3)
    np.random.seed(3)
    check.batch_norm(student())
    check.block(gluon.nn.BatchNorm)
    np.testing.assert_array_equal(nd.random.uniform(shape=3).asnumpy(), want[0])
    np.testing.assert_array_equal(np.random.uniform(size=3), want[1])


@pytest.mark.parametrize(
    "exercise",
    ["moments", "normalize", "batch_norm", "batch_norm_backward", "block", "conditional"],
)
@pytest.mark.parametrize(
    "thing",
    [
        None,
        3,
        nd.ones((2, 2)),
        lambda: None,
        lambda *a: None,
        print,
        lambda *a: 1 / 0,
        lambda *a: "Y",
        lambda *a: (),
        dict,
    ],
    ids=lambda t: type(t).__name__,
)
def test_anything_may_be_passed(exercise, thing):
    report = getattr(check, exercise)(thing)
    assert not report
    assert report.mistakes and "Traceback" not in str(report)


def test_the_report_reads_well():
    report = check.batch_norm(student(*MISTAKES["unbiased variance"]))
    assert "m - 1 = 39" in report.about("Y in training").why
    lines = str(report).split("\n")
    assert max(map(len, lines)) <= 120
    assert repr(report) == str(report)
    assert report.about("Y in prediction").status == "ok"


def test_inside_a_record_scope_and_with_np_left_alone():
    with autograd.record():
        assert check.batch_norm(student())
        assert autograd.is_recording() and autograd.is_training()
    assert not mx.util.is_np_array()
