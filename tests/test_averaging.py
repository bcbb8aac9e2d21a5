"""Averaged weights: against NumPy in float64, resumed, with and without exact statistics; and the
options `--average` and `--small` of `gluon-bn train`."""

import json

import mxnet as mx
import numpy as np
import pytest
from mxnet import nd
from mxnet.gluon import nn
from test_cli import TRAIN, check_metrics, run, train
from test_training import PressesCtrlC, assert_same, batches, parameters, small_net

from gluon_bn import BatchNorm, training
from gluon_bn.checkpoint import read_checkpoint
from gluon_bn.data import Batches, dataset
from gluon_bn.models import lenet, resnet18
from gluon_bn.training import AveragedWeights, Callback, CheckpointError, evaluate, fit


class Watch(Callback):
    """The weights after each step, and after each epoch, in float64."""

    def on_run_start(self, run):
        self.net, self.steps, self.epochs = run.net, [], []

    def on_step(self, run):
        self.steps.append(self.values())

    def on_epoch_end(self, epochs):
        self.epochs.append(self.values())

    def values(self):
        return {
            name: value.astype("float64")
            for name, value in parameters(self.net).items()
            if "running" not in name
        }


def watched(average, epochs=4, lr=0.1):
    watch, net = Watch(), small_net()
    fit(net, batches(100, 20, shuffle=True), None, epochs, lr, callbacks=[watch, average])
    return net, watch


@pytest.mark.parametrize("start", [1, 3])
def test_the_equal_average_is_that_of_the_last_epochs(start):
    average = AveragedWeights(start)
    net, watch = watched(average)
    statistics = {k: v for k, v in parameters(net).items() if "running" in k}
    average.put_into(net, recalibrated=False)
    found = parameters(net)
    for name in watch.epochs[0]:
        expected = np.mean([values[name] for values in watch.epochs[start - 1 :]], axis=0)
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-7, err_msg=name)
        # The bias in front of the norm stays where it is: its gradient is nought.
        assert abs(expected - watch.epochs[-1][name]).max() > 1e-4 or name == "0.bias"
    assert average.count == 5 - start
    assert_same(statistics, {k: v for k, v in found.items() if "running" in k})


@pytest.mark.parametrize("start, decay", [(1, 0.9), (3, 0.5), (1, 0.999)])
def test_the_exponential_average(start, decay):
    """Each step's share, written out: 1 / n while that is larger, then 1 - decay."""
    average = AveragedWeights(start, decay)
    net, watch = watched(average)
    steps = watch.steps[5 * (start - 1) :]
    coefficients = np.ones(1)
    for n in range(2, len(steps) + 1):
        share = max(1 / n, 1 - decay)
        coefficients = np.append((1 - share) * coefficients, share)
    if decay == 0.999:
        np.testing.assert_allclose(coefficients, 1 / 20)  # twenty steps are no thousand: all alike
    if decay == 0.5:
        np.testing.assert_allclose(coefficients[-3:], [1 / 8, 1 / 4, 1 / 2])
    average.put_into(net, recalibrated=False)
    found = parameters(net)
    for name in steps[0]:
        expected = sum(c * values[name] for c, values in zip(coefficients, steps))
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("options", [{"start": 2}, {"start": 1, "decay": 0.9}], ids=["swa", "ema"])
@pytest.mark.parametrize("at", [(1, 3), (3, 10)])
def test_resumed_to_the_last_bit(options, at, tmp_path):
    """Stopped in the middle of an epoch, before and after the average has begun."""

    def result(path, callbacks=(), **more):
        net, average = small_net(), AveragedWeights(**options)
        data = batches(100, 4, shuffle=True, augment="crop-flip")
        fit(
            net,
            data,
            None,
            4,
            0.01,
            optimizer="adam",
            callbacks=[average, *callbacks],
            checkpoint=path,
            **more,
        )
        average.put_into(net, data)
        return parameters(net)

    straight = result(tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        result(tmp_path / "stopped", [PressesCtrlC(*at)])
    assert read_checkpoint(tmp_path / "stopped")[0]["partial"]["batches"] % 8 == 0
    mx.random.seed(12345)
    assert_same(result(tmp_path / "stopped", resume=True), straight)
    # A finished run is averaged once more, to the same weights and statistics.
    assert_same(result(tmp_path / "stopped", resume=True), straight)
    with pytest.raises(CheckpointError, match="start=7"):
        fit(
            small_net(),
            batches(100, 4, shuffle=True, augment="crop-flip"),
            None,
            8,
            0.01,
            optimizer="adam",
            checkpoint=tmp_path / "stopped",
            resume=True,
            callbacks=[AveragedWeights(7)],
        )


@pytest.mark.parametrize("norm", ["auto", "gluon"])
def test_without_statistics_of_their_own_they_predict_worse(norm):
    """A network that moves fast: with the last statistics the average is worse than its last part,
    with exact ones it is better."""
    average, net = AveragedWeights(decay=0.99), lenet(norm)
    data = dataset(stand_in=True, limit=1000)
    train_iter, test_iter = (
        Batches(data.train_images, data.train_labels, 50, shuffle=True),
        Batches(data.test_images[:1000], data.test_labels[:1000], 250),
    )
    net.hybridize()
    last = fit(net, train_iter, test_iter, 4, 1.0, callbacks=[average])[-1]["test_accuracy"]
    average.put_into(net, recalibrated=False)
    without = evaluate(net, test_iter)
    average.put_into(net, train_iter)
    exact = evaluate(net, test_iter)
    assert without + 0.05 < last < exact


def test_the_statistics_are_those_behind_the_averaged_weights():
    average, net = AveragedWeights(1), small_net()
    train_iter = batches(100, 32)
    fit(net, train_iter, None, 3, 0.3, callbacks=[average])
    average.put_into(net, train_iter)
    enters = np.concatenate([net[0](X).asnumpy() for X, _ in train_iter]).astype("float64")
    found = parameters(net)
    np.testing.assert_allclose(found["1.running_mean"], enters.mean((0, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(found["1.running_var"], enters.var((0, 2, 3)), rtol=1e-4)


def test_half_precision_is_averaged_in_float32():
    average, net = AveragedWeights(), nn.Dense(1, in_units=1, use_bias=False)
    net.cast("float16")
    net.initialize()
    average.on_run_start(training.Run(net, None, None))  # as `fit` does
    for value in (1000.0, 1001.0, 1001.0):
        net.weight.set_data(nd.full((1, 1), value, dtype="float16"))
        average.add()
    assert average.average["weight"].asscalar() == pytest.approx(1000 + 2 / 3, abs=1e-3)
    average.put_into(net)
    assert net.weight.data().dtype == np.float16
    assert net.weight.data().asscalar() == np.float16(1000 + 2 / 3)


def test_arrays_of_numpys_kind():
    with mx.util.np_array(True):
        net = nn.HybridSequential()
        net.add(nn.Dense(3, in_units=2), BatchNorm(3), nn.Dense(2, in_units=3))
        X, y = mx.np.random.normal(size=(6, 2)), mx.np.array([0, 1, 0, 1, 1, 0])
        average = AveragedWeights(decay=0.9)
        fit(net, [(X, y)], None, 3, 0.1, callbacks=[average])
        average.put_into(net, [(X, y)])
        assert average.count == 3 and np.isfinite(net(X).asnumpy()).all()


def test_a_network_without_batch_norm_needs_no_data():
    average, net = AveragedWeights(), lenet("none")
    fit(net, batches(), None, 2, 0.1, callbacks=[average])
    average.put_into(net)


def test_what_cannot_be_averaged():
    for bad in ({"start": 0}, {"decay": 1}, {"decay": 0}, {"decay": "0.9"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            AveragedWeights(**bad)
    with pytest.raises(TypeError, match="start must be an integer"):
        AveragedWeights(1.5)
    average, net = AveragedWeights(3), small_net()
    fit(net, batches(), None, 2, 0.1, callbacks=[average])
    with pytest.raises(ValueError, match="begins in epoch 3, and the run did not come to the end"):
        average.put_into(net, batches())
    average = AveragedWeights()
    fit(net, batches(), None, 1, 0.1, callbacks=[average])
    with pytest.raises(ValueError, match="no running statistics of their own.*train_iter"):
        average.put_into(net)


# The command --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method, more", [("swa", ()), ("ema", ("--average-decay", 0.9))])
def test_the_command_writes_the_averaged_model(method, more, tmp_path):
    stdout, _ = train(tmp_path, "--epochs", 3, "--average", method, *more)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    check_metrics(metrics)
    average = metrics["average"]
    assert average["method"] == method and average["recalibrated"] is True
    assert (average["start"], average["weights"]) == {"swa": (2, 2), "ema": (1, 6)}[method]
    assert f"test accuracy {average['test_accuracy']:.4f}" in stdout.splitlines()[-1]
    assert f"{average['test_accuracy_not_recalibrated']:.4f}" in stdout.splitlines()[-1]
    _, arrays = read_checkpoint(tmp_path / "checkpoint")
    net = lenet("gluon")
    net.load_parameters(str(tmp_path / "model.params"))
    for name, value in parameters(net).items():
        if "running" not in name:
            kept = arrays[f"callback/AveragedWeights/average/{name}"]
            np.testing.assert_array_equal(value, kept, err_msg=name)
            assert not np.array_equal(value, arrays[f"parameter/{name}"])
    model = (tmp_path / "model.params").read_bytes()
    train(tmp_path, "--epochs", 3, "--average", method, *more, "--resume")
    assert (tmp_path / "model.params").read_bytes() == model
    _, stderr = train(tmp_path, "--epochs", 3, "--resume", code=1)
    assert "with the callback AveragedWeights" in stderr


def test_the_command_without_batch_norm(tmp_path):
    stdout, _ = train(tmp_path, "--norm", "none", "--epochs", 1, "--average", "swa")
    average = json.loads((tmp_path / "metrics.json").read_text())["average"]
    assert average["recalibrated"] is False and "statistics" not in stdout


def test_the_small_variant(tmp_path, monkeypatch):
    monkeypatch.setattr(training.run, "count", lambda *_: (1, 2))  # no 10,000 test images
    run(
        *("train", "resnet18", "--small", "--stand-in", "--limit", 32, "--batch-size", 16),
        *("--threads", 1, "--epochs", 1, "--output", tmp_path, "--norm", "gluon"),
    )
    assert json.loads((tmp_path / "metrics.json").read_text())["small"] is True
    resnet18("gluon", small=True).load_parameters(str(tmp_path / "model.params"))
    _, stderr = train(tmp_path, "--small", code=2)
    assert "lenet has no small variant" in stderr


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("--average", "mean"), "swa"),
        (("--average-start", 2), "--average"),
        (("--average", "swa", "--epochs", 2, "--average-start", 3), "last epoch"),
        (("--average", "ema", "--average-decay", 1), "between 0 and 1"),
    ],
)
def test_usage_errors(arguments, says):
    _, stderr = run(*TRAIN, *arguments, code=2)
    assert says in stderr
