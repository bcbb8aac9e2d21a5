"""The exercises that check themselves: moments, normalize, and the backward pass by hand."""

import numpy as np
import pytest
from mxnet import autograd, nd
from test_check import ByHand, written

import gluon_bn
from gluon_bn import check

MOMENTS = """
def f(X, axis):
    mean = X.mean(axis=axis, keepdims=True)
    var = ((X - mean) ** 2).mean(axis=axis)
    return mean.reshape(var.shape), var
"""


def by_sums(X, axis):
    m = X.size / nd.sum(nd.ones_like(X), axis=axis, exclude=True)[0].asscalar() if False else 1
    for a in axis:
        m = m * X.shape[a]
    mean = X.sum(axis=axis, keepdims=True) / m
    return mean, nd.square(X - mean).sum(axis=axis, keepdims=True) / m


def per_channel(X):
    rows = X.swapaxes(0, 1).reshape((X.shape[1], -1))
    mean = rows.mean(axis=1)
    return mean, (rows - mean.reshape((-1, 1))).square().mean(axis=1)


def in_numpy(X, axis):
    return np.mean(X, axis, dtype=X.dtype), np.var(X, axis, dtype=X.dtype)


@pytest.mark.parametrize("f", [written(MOMENTS), by_sums, per_channel, gluon_bn.moments])
def test_moments_right(f):
    report = check.moments(f)
    assert report, report


MOMENTS_MISTAKES = {
    "type changed": "return mean.reshape(var.shape), var -> return "
    "mean.reshape(var.shape).astype('float32'), var.astype('float32')",
    "X changed in place": "    mean = -> \n    X *= 2\n    X /= 2\n    X += 1e-3\n    mean =",
    "nothing returned": "    return mean.reshape(var.shape), var -> ",
    "wrong number of return values": "return mean.reshape(var.shape), var -> return var",
    "error": "X.mean(axis=axis, keepdims=True) -> X.average(axis)",
}


@pytest.mark.parametrize("name", MOMENTS_MISTAKES)
def test_moments_mistake(name):
    report = check.moments(written(MOMENTS, MOMENTS_MISTAKES[name]))
    assert not report
    assert name in report.mistakes, report
    assert set(report.mistakes) <= {
        name,
        "changed in place",
        "difference" if "place" in name else name,
    }, report


def test_var_is_no_method_of_mx_nd():
    report = check.moments(lambda X, axis: (X.mean(axis), X.var(axis)))
    assert not report
    assert "no var()" in str(report).replace("\n         ", " ")


def test_moments_unknown():
    def median(X, axis):
        mean, var = written(MOMENTS)(X, axis)
        return nd.array(np.median(X.asnumpy(), axis=axis), dtype=X.dtype), var

    report = check.moments(median)
    assert report.about("variance").status == "ok"
    assert report.about("mean").mistakes == ("difference",)


NORMALIZE = """
def f(X, mean, var, beta, gamma, eps):
    X_hat = (X - mean) / nd.sqrt(var + eps)
    Y = gamma * X_hat + beta
    return Y
"""


def without_gamma_and_beta(X, mean, var, eps):
    return (X - mean) * (var + eps) ** -0.5


def gamma_first(X, mean, var, gamma, beta, eps=1e-5):
    return gamma * (X - mean) / (var + eps).sqrt() + beta


@pytest.mark.parametrize(
    "f", [written(NORMALIZE), without_gamma_and_beta, gamma_first, gluon_bn.normalize]
)
def test_normalize_right(f):
    report = check.normalize(f)
    assert report, report


NORMALIZE_MISTAKES = {
    "difference": "gamma * X_hat -> gamma * X_hat * 0.99",
    "nothing returned": "    return Y -> ",
}


@pytest.mark.parametrize("name", NORMALIZE_MISTAKES)
def test_normalize_mistake(name):
    report = check.normalize(written(NORMALIZE, NORMALIZE_MISTAKES[name]))
    assert not report
    assert set(report.mistakes) == {name.strip()}, report


BACKWARD = """
def f(dY, X, gamma, eps):
    axes = tuple(a for a in range(X.ndim) if a != 1)
    m = X.size // X.shape[1]
    mean = X.mean(axis=axes, keepdims=True)
    centred = X - mean
    var = (centred ** 2).mean(axis=axes, keepdims=True)
    std = nd.sqrt(var + eps)
    X_hat = centred / std
    dbeta = dY.sum(axis=axes)
    dgamma = (dY * X_hat).sum(axis=axes)
    dX_hat = gamma * dY
    dvar = (dX_hat * centred).sum(axis=axes, keepdims=True) * -0.5 * (var + eps) ** -1.5
    dmean = -(dX_hat / std).sum(axis=axes, keepdims=True)
    dX = dX_hat / std + dvar * 2 * centred / m + dmean / m
    return dX, dgamma, dbeta
"""


def in_one_line(dY, X, gamma, eps):
    axes = [a for a in range(X.ndim) if a != 1]
    mean = X.mean(axis=axes, keepdims=True)
    std = (((X - mean) ** 2).mean(axis=axes, keepdims=True) + eps).sqrt()
    x = (X - mean) / std
    dgamma = (dY * x).sum(axis=axes, keepdims=True)
    dbeta = dY.sum(axis=axes, keepdims=True)
    m = X.size // X.shape[1]
    return gamma / std * (dY - dbeta / m - x * dgamma / m), dgamma, dbeta


def in_numpy_alone(dY, X, gamma, eps):
    axes = tuple(a for a in range(X.ndim) if a != 1)
    x = (X - np.mean(X, axes, keepdims=True)) / np.sqrt(np.var(X, axes, keepdims=True) + eps)
    m = X.size // X.shape[1]
    dgamma, dbeta = np.sum(dY * x, axes, keepdims=True), np.sum(dY, axes, keepdims=True)
    return (
        gamma / np.sqrt(np.var(X, axes, keepdims=True) + eps) * (dY - dbeta / m - x * dgamma / m),
        dgamma,
        dbeta,
    )


def by_autograd(dY, X, gamma, eps):
    X, gamma, beta = X.copy(), gamma.copy(), gamma * 0
    for array in (X, gamma, beta):
        array.attach_grad()
    with autograd.record():
        Y = gluon_bn.batch_norm(X, gamma, beta, gamma * 0, gamma * 0 + 1, eps, 0.9)[0]
    Y.backward(dY)
    return X.grad, gamma.grad, beta.grad


class ByHandAlways(ByHand):
    """Made with nothing."""

    def __init__(self):
        super().__init__(1e-5)


@pytest.mark.parametrize(
    "f",
    [
        written(BACKWARD),
        in_one_line,
        in_numpy_alone,
        by_autograd,
        ByHand,
        ByHand(1e-3),
        ByHandAlways,
    ],
)
def test_backward_right(f):
    report = check.batch_norm_backward(f)
    assert report, report


BACKWARD_MISTAKES = {
    "return order": ["dX, dgamma, dbeta -> dgamma, dbeta, dX"],
    "difference": ["return dX -> return dX + 0.1"],
    "nothing returned": ["    return dX, dgamma, dbeta -> "],
    "dY changed in place": ["    dbeta = -> \n    dY *= 1.25\n    dbeta ="],
}


@pytest.mark.parametrize("name", BACKWARD_MISTAKES)
def test_backward_mistake(name):
    report = check.batch_norm_backward(written(BACKWARD, *BACKWARD_MISTAKES[name]))
    assert not report
    assert name in report.mistakes, report
    together = {"difference", "return order"} if "place" in name else set()
    assert set(report.mistakes) <= {name, *together}, report


def test_what_failed_in_mxnets_engine_accuses_nobody_later():
    """MXNet computes when it likes: an error of one call may come up in another."""

    def wrong(X, mean, var, beta, gamma, eps):
        return gamma.reshape(-1).flip(axis=1) * X + beta.reshape(-1).flip(axis=1)

    for _ in range(3):
        assert check.normalize(wrong).mistakes == ("error",)
        assert check.normalize(written(NORMALIZE))
