"""The tables of `gluon_bn.check`: each mistake differs from the right solution and from every other
one, and is found by its name. A mistake of the reader's own; functions that never return."""

import re
import time
from itertools import combinations
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, nd, npx
from test_check import student, written
from test_check_block import BLOCK

import gluon_bn
from gluon_bn import check
from gluon_bn.check import engine, exercises

EXERCISES = {
    "moments": exercises.MOMENTS,
    "normalize": exercises.NORMALIZE,
    "batch_norm": exercises.BATCH_NORM,
    "batch_norm_backward": exercises.BACKWARD,
    "conditional": exercises.CONDITIONAL,
    "layer_norm": exercises.LAYER_NORM,
    "group_norm": exercises.GROUP_NORM,
    "recalibrate": exercises.RECALIBRATE,
}


def own_mistakes(name):
    """Those of an exercise; conditional shares the others with batch_norm."""
    mistakes = EXERCISES[name].mistakes
    return [m for m in mistakes if name != "conditional" or m not in exercises.BATCH_NORM.mistakes]


def fingerprint(exercise, mistakes=()):
    """All that a solution gives on all cases, in float64, with its gradients, in one row of
    numbers; what does not run or does not come in the right size gives none."""
    row, classes = [], 5 * ("labels" in exercise.names)
    for case in [
        case for some in engine.cases(exercise, classes=classes).values() for case in some
    ]:
        keys = [*exercise.outputs, *[f"d{name}" for name in exercise.wrt if case.recording]]
        values, right = (exercise.values(case, m, keys) for m in (mistakes, ()))
        for key in keys:
            came = np.ravel(values[key]) if values else np.zeros(0)
            fits = came.size == right[key].size
            row.append(came if fits else np.full(right[key].size, np.inf))
    return np.concatenate(row)


@pytest.mark.parametrize("name", EXERCISES)
def test_every_mistake_differs_from_the_right_solution_and_from_every_other(name):
    """But for cancellation, which only float32 shows: that it is found by its name is all."""
    mistakes = [m for m in own_mistakes(name) if m.name != "cancellation"]
    prints = [((), fingerprint(EXERCISES[name]))]
    prints += [(m, fingerprint(EXERCISES[name], (m,))) for m in mistakes]
    alike = [
        (one, other)
        for (one, a), (other, b) in combinations(prints, 2)
        if np.allclose(a, b, rtol=1e-5, atol=2e-8, equal_nan=True)
    ]
    assert not alike


@pytest.mark.parametrize("name", EXERCISES)
def test_every_mistake_is_found_by_its_name(name):
    for mistake in own_mistakes(name):
        wrong = engine.compiled(engine.with_mistakes(EXERCISES[name].source, (mistake,)))
        report = getattr(check, name)(wrong)
        assert mistake.name in report.mistakes, (mistake, report)
        assert "{" not in report.lines[0].why + mistake.name


@pytest.mark.parametrize("name", EXERCISES)
def test_the_right_solution_is_right(name):
    report = getattr(check, name)(engine.compiled(EXERCISES[name].source))
    assert report or name == "conditional" and report.mistakes == ("labels clipped",), report


def test_a_mistake_of_the_readers_own_is_one_entry():
    """The code of docs/checking.md."""
    text = (Path(__file__).parent.parent / "docs" / "checking.md").read_text(encoding="utf-8")
    wrong = student(
        "mean = X.mean(axis=axes, keepdims=True) -> mean = 0.5 * X.max(axis=axes, "
        "keepdims=True) + 0.5 * X.min(axis=axes, keepdims=True)"
    )
    space = {"my_batch_norm": wrong}
    exec(re.search(r"```python\n(.*?)```", text, flags=re.S)[1], space)
    assert "difference" in check.batch_norm(wrong).mistakes
    report = space["report"]
    assert report.mistakes == ("middle of the range",), report
    assert "all 40 of them" in report.about("Y in training").why
    assert check.batch_norm(student(), mistakes=[space["mine"]])


# --------------------------------------------------------------------------- it leaves no trace


def endless(*arguments):
    while True:
        pass


def stubborn(*arguments):
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            pass


@pytest.mark.parametrize("f", [endless, stubborn, lambda *a: time.sleep(3600)])
@pytest.mark.parametrize("exercise", ["batch_norm", "moments", "block"])
def test_a_function_that_never_returns(exercise, f, monkeypatch):
    monkeypatch.setattr("gluon_bn.check.calling.SECONDS", 0.2)
    report = getattr(check, exercise)(f)
    assert report.mistakes == ("endless loop",), report
    assert "loop" in str(report)


def test_a_call_that_waits_for_a_processor_is_not_endless(monkeypatch):
    """Other programs may have it; sleeping is as good as that."""
    monkeypatch.setattr("gluon_bn.check.calling.SECONDS", 1)
    waits = iter([1.2])

    def moments(X, axis):
        time.sleep(next(waits, 0))
        return gluon_bn.moments(X, axis)

    assert check.moments(moments)


def test_a_loop_without_an_end_in_one_mode_only(monkeypatch):
    monkeypatch.setattr("gluon_bn.check.calling.SECONDS", 0.2)
    report = check.batch_norm(
        student(
            "        X_hat = (X - moving_mean) -> \n        while True:"
            "\n            pass\n        X_hat = (X - moving_mean)"
        )
    )
    assert report.mistakes == ("endless loop",)


@pytest.mark.parametrize(
    "line", ["autograd.set_training(True)", "autograd.set_recording(True)", "mx.npx.set_np()"]
)
def test_modes_that_a_student_leaves_on_are_put_back_and_named(line):
    report = check.batch_norm(student(f"    return Y -> \n    {line}\n    return Y"))
    state = autograd.is_training(), autograd.is_recording(), mx.util.is_np_array()
    npx.reset_np()
    autograd.set_training(False), autograd.set_recording(False)
    assert state == (False, False, False)
    assert "mode left on" in report.mistakes
    report = check.block(
        written(
            BLOCK,
            "        return self.gamma -> \n        autograd."
            "set_training(True)\n        return self.gamma",
        )
    )
    assert not autograd.is_training() and "mode left on" in report.mistakes


def test_it_takes_less_than_three_seconds():
    for change in ("gamma * X_hat -> gamma * X_hat.clip(-1, 1)", "X_hat + beta -> X_hat * 1.01"):
        start = time.process_time()
        assert not check.batch_norm(student(change))
        assert time.process_time() - start < 3


# ------------------------------------------------------------------ right, in styles of their own


def by_exclusion(X, gamma, beta, moving_mean, moving_var, eps, momentum):
    """Vectors (C,) only."""
    assert gamma.ndim == 1
    lay = (1, -1) + (1,) * (X.ndim - 2)
    mean, var = moving_mean, moving_var
    if autograd.is_training():
        mean = X.mean(axis=1, exclude=True)
        var = (X - mean.reshape(lay)).square().mean(axis=1, exclude=True)
        moving_mean = moving_mean * momentum + mean * (1.0 - momentum)
        moving_var = moving_var * momentum + var * (1.0 - momentum)
    scale = gamma / (var + eps).sqrt()
    return (X - mean.reshape(lay)) * scale.reshape(lay) + beta.reshape(lay), moving_mean, moving_var


def as_a_line(X, gamma, beta, moving_mean, moving_var, eps, momentum):
    """a X + b; the statistics move by steps, and what comes back is a list."""
    C = X.shape[1]
    rows = X.swapaxes(0, 1).reshape((C, -1))
    mean, var = moving_mean.reshape((C,)), moving_var.reshape((C,))
    if autograd.is_training():
        mean = rows.mean(axis=1)
        var = ((rows - mean.reshape((C, 1))) ** 2).mean(axis=1)
        moving_mean = moving_mean + (1 - momentum) * (mean.reshape(moving_mean.shape) - moving_mean)
        moving_var = moving_var + (1 - momentum) * (var.reshape(moving_var.shape) - moving_var)
    a = gamma.reshape((C,)) / nd.sqrt(var + eps)
    b = beta.reshape((C,)) - a * mean
    lay = (1, C) + (1,) * (X.ndim - 2)
    return [X * a.reshape(lay) + b.reshape(lay), moving_mean, moving_var]


def squares_in_float64(X, gamma, beta, moving_mean, moving_var, eps, momentum):
    """E[x^2] - E[x]^2, which float64 can afford."""
    if not autograd.is_training():
        return student()(X, gamma, beta, moving_mean, moving_var, eps, momentum)
    axes, Z = [a for a in range(X.ndim) if a != 1], X.astype("float64")
    mean = Z.mean(axis=axes, keepdims=True)
    var = ((Z**2).mean(axis=axes, keepdims=True) - mean**2).astype(X.dtype)
    mean = mean.astype(X.dtype)
    return (
        gamma * (X - mean) / nd.sqrt(var + eps) + beta,
        momentum * moving_mean + (1 - momentum) * mean,
        momentum * moving_var + (1 - momentum) * var,
    )


def with_keywords_only(
    X, gamma, beta, running_mean, running_var, *, epsilon, momentum=0.9, is_training=True
):
    with autograd.train_mode() if is_training else autograd.predict_mode():
        return student()(X, gamma, beta, running_mean, running_var, epsilon, momentum)


@pytest.mark.parametrize("f", [by_exclusion, as_a_line, squares_in_float64, with_keywords_only])
def test_right_functions(f):
    report = check.batch_norm(f)
    assert report, report


def backward_in_numpy(dY, X, gamma, eps):
    axes = tuple(a for a in range(X.ndim) if a != 1)

    def mean(Z):
        return np.mean(Z, axes, keepdims=True)

    inverse = 1 / np.sqrt(mean((X - mean(X)) ** 2) + eps)
    x_hat = (X - mean(X)) * inverse
    return (
        gamma * inverse * (dY - mean(dY) - x_hat * mean(dY * x_hat)),
        (dY * x_hat).sum(axes),
        dY.sum(axes),
    )


def test_right_backward():
    report = check.batch_norm_backward(backward_in_numpy)
    assert report, report


def layer_norm(X, gamma, beta, eps):
    return nd.LayerNorm(X, gamma, beta, axis=-1, eps=eps)


def group_norm(X, gamma, beta, num_groups, eps):
    Z = X.reshape((1, len(X) * num_groups, -1))
    ones = nd.ones((Z.shape[1],), dtype=X.dtype)
    with autograd.train_mode():
        Z = nd.BatchNorm(Z, ones, 0 * ones, 0 * ones, ones, eps=eps, fix_gamma=False)
    return gamma * Z.reshape(X.shape) + beta


def recalibrated(batches):
    """All values at once."""
    X = nd.concat(*batches, dim=0)
    return nd.moments(X, axes=[a for a in range(X.ndim) if a != 1])


def running_sums(batches):
    """Chan's update, batch by batch, in float64."""
    n, mean, squares = 0, 0, 0
    for X in batches:
        axes = tuple(a for a in range(X.ndim) if a != 1)
        x = X.asnumpy().astype("float64")
        count, gap = x.size // x.shape[1], x.mean(axes) - mean
        squares = squares + count * x.var(axes) + gap**2 * n * count / (n + count)
        mean, n = mean + gap * count / (n + count), n + count
    return [nd.array(v, dtype=batches[0].dtype) for v in (mean, squares / n)]


@pytest.mark.parametrize(
    "exercise, f",
    [
        ("layer_norm", layer_norm),
        ("group_norm", group_norm),
        ("recalibrate", recalibrated),
        ("recalibrate", running_sums),
    ],
)
def test_right_relatives(exercise, f):
    report = getattr(check, exercise)(f)
    assert report, report
