"""docs/conventions.md, line by line: its tables are read, its code is run.

The formulas of the other frameworks are written in NumPy from their documentation.
"""

import inspect
import re
import warnings
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, nd
from mxnet.gluon import nn

from gluon_bn import BatchNorm

TEXT = (Path(__file__).parent.parent / "docs" / "conventions.md").read_text(encoding="utf-8")


def table(first_cell):
    """The rows of the table whose header starts with this cell, as lists of cells."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in TEXT.splitlines()
        if line.startswith("|")
    ]
    start = next(i for i, row in enumerate(rows) if row[0] == first_cell)
    width = len(rows[start])
    body = rows[start + 2 :]
    end = next(
        (i for i, row in enumerate(body) if set(row[0]) == {"-"} or len(row) != width), len(body)
    )
    return rows[start], body[:end]


def values(seed, *shape):
    return np.random.RandomState(seed).standard_normal(shape) * 2 + 1


# What each framework's documentation says: the running statistic after a batch.
def gluon(old, new, t):  # and TensorFlow with 0.999, Keras with 0.99
    return old * 0.9 + new * (1 - 0.9)


def pytorch(old, new, t):
    """x_new = (1 - momentum) x_old + momentum x_t, with momentum=0.1."""
    return (1 - 0.1) * old + 0.1 * new


def cumulative(old, new, t):
    """The exponential average with the factor 1 / num_batches_tracked."""
    return old + (new - old) / t


def keras(old, new, t):
    return old * 0.99 + new * (1 - 0.99)


def contrib(old, new, t):
    """assign_moving_average: variable -= (1 - decay) (variable - value)."""
    return old - (1 - 0.999) * (old - new)


def d2l_zh(old, new, t):
    return 0.9 * old + (1.0 - 0.9) * new


def d2l_en(old, new, t):
    return (1.0 - 0.1) * old + 0.1 * new


DIALECTS = {  # framework: update, ddof of the running variance, eps, axis, what its argument says
    "Gluon (MXNet 1.x)": (gluon, 0, 1e-5, 1, "momentum=0.9"),
    "PyTorch": (pytorch, 1, 1e-5, 1, "momentum=0.1"),
    "PyTorch, `momentum=None`": (cumulative, 1, 1e-5, 1, "no momentum"),
    "Keras": (keras, 0, 1e-3, -1, "momentum=0.99"),
    "Keras 2, images": (keras, 1, 1e-3, -1, "momentum=0.99"),
    "TensorFlow 1.2, `tf.contrib.layers`": (contrib, 0, 1e-3, -1, "decay=0.999"),
    "TensorFlow 1.15, `tf.contrib.layers`": (contrib, 1, 1e-3, -1, "decay=0.999"),
    "d2l, Chinese and older editions": (d2l_zh, 0, 1e-12, 1, "momentum=0.9"),
    "d2l, English edition since 2022": (d2l_en, 0, 1e-5, 1, "momentum=0.1"),
}


def test_every_line_has_a_test():
    assert [row[0] for row in table("framework")[1]] == list(DIALECTS)


@pytest.mark.parametrize("row", table("framework")[1], ids=lambda row: row[0])
def test_what_to_write_here_moves_and_predicts_as_the_framework_does(row):
    framework, argument, formula, variance, epsilon, code = row
    update, ddof, eps, axis, says = DIALECTS[framework]
    assert argument.strip("`") == says and float(epsilon.split()[0]) == eps
    assert variance.startswith("unbiased" if ddof else "biased")
    match = re.match(r"([\d.]+) old \+ ([\d.]+) batch", formula)
    if match:
        past, new = map(float, match.groups())
        assert np.isclose(update(1.0, 0.0, 1), past) and np.isclose(update(0.0, 1.0, 1), new)

    layer = eval(code.strip("`"), {"BatchNorm": BatchNorm})
    layer.initialize()
    layer.cast("float64")
    axes = (0, 2, 3) if axis == 1 else (0, 1, 2)
    mean, var = np.zeros(3), np.ones(3)
    for t in range(1, 5):
        x = values(t, *((4, 3, 2, 2) if axis == 1 else (4, 2, 2, 3)))
        with autograd.record():
            layer(nd.array(x, dtype="float64"))
        mean, var = update(mean, x.mean(axes), t), update(var, x.var(axes, ddof=ddof), t)
        np.testing.assert_allclose(layer.running_mean.data().asnumpy(), mean, rtol=1e-10)
        np.testing.assert_allclose(layer.running_var.data().asnumpy(), var, rtol=1e-10)
    laid = (1, 3, 1, 1) if axis == 1 else (1, 1, 1, 3)
    np.testing.assert_allclose(
        layer(nd.array(x, dtype="float64")).asnumpy(),
        (x - mean.reshape(laid)) / np.sqrt(var.reshape(laid) + eps),
        rtol=1e-9,
        atol=1e-12,
    )
    assert layer.scale == ("contrib" not in framework) and layer.center


@pytest.mark.parametrize("column", range(1, 5), ids=table("here, and in Gluon")[0][1:])
def test_moving_a_checkpoint(column):
    _, rows = table("here, and in Gluon")
    names = {row[column].strip("`"): row[0].strip("`") for row in rows}
    saved = {name: np.abs(values(i, 3)) + 0.1 for i, name in enumerate(names)}
    first, second, third, fourth = saved.values()  # gamma, beta, mean, variance
    if "d2l" in table("here, and in Gluon")[0][column]:
        saved = {name: value.reshape(1, 3, 1, 1) for name, value in saved.items()}
    layer = BatchNorm(3)
    layer.initialize()
    for theirs, value in saved.items():
        getattr(layer, names[theirs]).set_data(nd.array(value.reshape(-1)))
    x = values(9, 4, 3)
    np.testing.assert_allclose(
        layer(nd.array(x)).asnumpy(),
        first * (x - third) / np.sqrt(fourth + 1e-5) + second,
        rtol=1e-5,
        atol=1e-5,
    )


def test_the_names_of_gluons_parameters_and_its_defaults_are_ours():
    assert (
        list(nn.BatchNorm()._reg_params)
        == list(BatchNorm()._reg_params)
        == [row[0].strip("`") for row in table("here, and in Gluon")[1]]
    )
    theirs = inspect.signature(nn.BatchNorm.__init__).parameters
    ours = inspect.signature(BatchNorm.__init__).parameters
    for name, parameter in theirs.items():
        if name not in ("self", "in_channels", "kwargs"):
            assert ours[name].default == parameter.default, name


# ----------------------------------------------------------- where we differ from Gluon's own layer


def steps(layer, x, backwards):
    """The running mean after one forward pass and so many backward passes."""
    layer.initialize(force_reinit=True)
    with autograd.record():
        loss = layer(nd.array(x)).sum()
    for _ in range(backwards):
        loss.backward(retain_graph=True)
    return layer.running_mean.data().asnumpy()


@pytest.mark.parametrize("backwards", [0, 1, 2])
def test_when_the_statistics_move(backwards):
    x = values(0, 8, 3)
    np.testing.assert_allclose(steps(BatchNorm(), x, backwards), 0.1 * x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(
        steps(nn.BatchNorm(in_channels=3), x, backwards),
        (1 - 0.9**backwards) * x.mean(0),
        rtol=1e-5,
    )


def test_a_beta_that_center_false_fixed():
    for layer, added in ((BatchNorm, 0), (nn.BatchNorm, 5)):
        block = layer(center=False, beta_initializer=mx.init.Constant(5))
        block.initialize()
        np.testing.assert_allclose(block(nd.zeros((2, 3))).asnumpy(), added)


def test_nan_in_a_batch():
    x = values(0, 4, 3)
    x[0, 0] = np.nan
    for layer, lost in (
        (BatchNorm(), False),
        (BatchNorm(skip_nonfinite=False), True),
        (nn.BatchNorm(), True),
    ):
        assert np.isnan(steps(layer, x, 1)[0]) == lost


@pytest.mark.parametrize("kernel", ["textbook", "analytic"])
def test_a_variance_that_overflows(kernel):
    x = values(0, 4, 3)
    x[:, 0] *= 1e25
    theirs, ours = nn.BatchNorm(in_channels=3), BatchNorm(kernel=kernel)
    for layer in (theirs, ours):
        steps(layer, x, 1)
    assert np.isinf(theirs.running_var.data().asnumpy()[0])
    assert ours.running_var.data().asnumpy()[0] == 1
    with autograd.train_mode():
        assert (theirs(nd.array(x)).asnumpy()[:, 0] == 0).all()
        Y = ours(nd.array(x)).asnumpy()
    assert np.isnan(Y[:, 0]).all() and np.isfinite(Y[:, 1:]).all()


def test_one_value_per_channel():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for layer in (nn.BatchNorm(), BatchNorm()):
            steps(layer, values(0, 1, 3), 1)
            steps(layer, values(0, 1, 3), 1)
    assert [
        "one value per channel" in str(w.message) for w in caught if w.category is UserWarning
    ] == [True]
