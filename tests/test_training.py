"""fit, evaluate, checkpoints: runs that repeat themselves, and resume to the last bit."""

import csv
import functools
import json
import os
import random
import signal
import subprocess
import sys
import time

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, nd
from mxnet.gluon import nn

from gluon_bn import BatchNorm, GroupNorm, adversarial, recipe, runtime, training
from gluon_bn.checkpoint import pack, previous, read_checkpoint, write_atomically
from gluon_bn.data import Batches, load_fashion_mnist
from gluon_bn.models import lenet
from gluon_bn.runtime import settle
from gluon_bn.training import Callback, CheckpointError, TrainingError, evaluate, fit
from gluon_bn.workers import World


def images(n, seed=0):
    """Two bars of noise at a place that tells the class: learnable, uint8 (n, 28, 28)."""
    random_state = np.random.RandomState(seed)
    labels = random_state.randint(0, 10, n)
    pictures = random_state.randint(0, 60, (n, 28, 28)).astype(np.uint8)
    for picture, label in zip(pictures, labels):
        picture[2 * label + 3 : 2 * label + 6] += 150
    return pictures, labels.astype(np.int32)


def batches(n=100, batch_size=32, **options):
    return Batches(*images(n), batch_size, **options)


def small_net():
    net = nn.HybridSequential()
    with net.name_scope():
        net.add(
            nn.Conv2D(4, 5, strides=3),
            BatchNorm(4, kernel="textbook"),
            nn.Dropout(0.3),
            nn.Dense(10),
        )
    return net


def parameters(net):
    settle()
    return {name: p.data().asnumpy() for name, p in net._collect_params_with_prefix().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name]), name


def without_times(records):
    return [
        {k: v for k, v in r.items() if k not in ("seconds", "examples_per_second")} for r in records
    ]


class StopAfter(Callback):
    def __init__(self, epoch, batch=None):
        self.where = (epoch, batch)

    def on_batch(self, epoch, batch, loss, accuracy):
        if (epoch, batch) == self.where:
            raise KeyboardInterrupt

    def on_epoch_end(self, records):
        if (len(records), None) == self.where:
            raise KeyboardInterrupt


# fit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["textbook", "auto", "gluon", "none"])
def test_lenet_learns(norm):
    records = fit(lenet(norm, activation="relu"), batches(400, shuffle=True), batches(100), 4, 0.1)
    assert [r["epoch"] for r in records] == [1, 2, 3, 4]
    assert records[-1]["train_loss"] < 0.7 * records[0]["train_loss"]


@pytest.mark.parametrize("norm", ["textbook", "auto", "gluon"])
def test_two_runs_are_equal_to_the_last_digit(norm):
    def run():
        net = lenet(norm)
        records = fit(net, batches(shuffle=True), batches(50), 2, 1.0, seed=7)
        return without_times(records), parameters(net)

    first, second = run(), run()
    assert first[0] == second[0]
    assert_same(first[1], second[1])


def test_another_seed_gives_another_run():
    losses = {
        seed: fit(lenet("gluon"), batches(), None, 1, seed=seed)[0]["train_loss"] for seed in (0, 1)
    }
    assert losses[0] != losses[1]


def test_record_of_an_epoch_is_right():
    """Loss and accuracy against a sum over the same steps, taken by hand with plain SGD."""
    train_iter = batches(70)  # batches of 32, 32 and 6
    net, twin = nn.Dense(10), nn.Dense(10)
    for dense in (net, twin):
        dense.initialize(mx.init.Constant(0.01))
    record = fit(net, train_iter, None, 1, lr=0.5)[0]

    X, y = (np.concatenate([a.asnumpy() for a in arrays]) for arrays in zip(*train_iter))
    X = X.reshape(70, -1).astype(np.float64)
    W, b, loss, correct = np.full((10, 784), 0.01), np.zeros(10), 0.0, 0
    for start in (0, 32, 64):
        x, t = X[start : start + 32], y[start : start + 32].astype(int)
        scores = x @ W.T + b
        p = np.exp(scores - scores.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        loss -= np.log(p[range(len(t)), t]).sum()
        correct += (scores.argmax(1) == t).sum()
        p[range(len(t)), t] -= 1
        W, b = W - 0.5 / len(t) * p.T @ x, b - 0.5 / len(t) * p.sum(0)
    assert record["train_loss"] == pytest.approx(loss / 70, rel=1e-4)
    assert record["train_accuracy"] == pytest.approx(correct / 70, abs=0.03)  # ties of equal scores
    np.testing.assert_allclose(net.weight.data().asnumpy(), W, rtol=1e-3, atol=1e-5)
    assert record["examples_per_second"] == pytest.approx(70 / record["seconds"])
    assert record["test_accuracy"] is None


def test_test_accuracy_is_that_of_the_network_at_the_end_of_the_epoch():
    net, test_iter = lenet("textbook"), batches(50)
    assert fit(net, batches(), test_iter, 1)[0]["test_accuracy"] == evaluate(net, test_iter)


def test_weights_that_are_there_are_kept():
    net = nn.Dense(10)
    net.initialize(mx.init.Constant(0.25))
    fit(net, batches(32), None, 1, lr=1e-9)
    np.testing.assert_allclose(net.weight.data().asnumpy(), 0.25, atol=1e-6)


def test_callbacks_hear_everything():
    heard = []

    class Listener(Callback):
        def on_epoch_start(self, epoch, batches):
            heard.append(("start", epoch, batches))

        def on_batch(self, epoch, batch, loss, accuracy):
            heard.append(("batch", epoch, batch))
            self.last = loss, accuracy

        def on_epoch_end(self, records):
            heard.append(("end", len(records)))
            assert self.last == (records[-1]["train_loss"], records[-1]["train_accuracy"])

    fit(lenet("none"), batches(70), None, 2, callbacks=[Listener()])
    steps = [
        [("start", e, 3), ("batch", e, 1), ("batch", e, 2), ("batch", e, 3), ("end", e)]
        for e in (1, 2)
    ]
    assert heard == steps[0] + steps[1]


def test_plain_lists_of_arrays_are_data_too():
    X, y = nd.random.uniform(shape=(6, 1, 28, 28)), nd.array([0, 1, 2, 3, 4, 5], dtype="int32")
    assert fit(lenet("none"), [(X, y)], [(X, y)], 1)[0]["epoch"] == 1


def test_a_loss_that_is_not_a_number_stops_the_run():
    good = [(X, y) for X, y in batches()]
    bad = [good[0], (good[1][0] * np.inf, good[1][1]), *good[2:]]
    with pytest.raises(TrainingError, match="nan in batch 2 of epoch 1.*learning rate"):
        fit(nn.Dense(10), bad, None, 3)


@pytest.mark.parametrize(
    "bad",
    [
        {"epochs": 0},
        {"lr": 0},
        {"lr": -1.0},
        {"lr": float("nan")},
        {"seed": -1},
        {"seed": 2**32},
        {"resume": True},
    ],
)
def test_bad_settings(bad):
    with pytest.raises(ValueError):
        fit(lenet("none"), batches(), None, **{"epochs": 1, **bad})


@pytest.mark.parametrize(
    "call",
    [
        lambda n: fit(lenet("none"), batches(), None, epochs=n),
        lambda n: fit(lenet("none"), batches(), None, epochs=1, seed=n),
        lambda n: adversarial.fit(None, None, [], epochs=n),
        lambda n: load_fashion_mnist(8, stand_in=True, limit=n),
        lambda n: load_fashion_mnist(n, stand_in=True),
        lambda n: runtime.configure(threads=n),
        lambda n: GroupNorm(num_groups=n),
        lambda n: BatchNorm(n),
    ],
    ids=[
        "epochs",
        "seed",
        "epochs of a GAN",
        "limit",
        "batch_size",
        "threads",
        "num_groups",
        "num_features",
    ],
)
@pytest.mark.parametrize("number", [2.5, "2", True])
def test_what_must_be_an_integer(call, number):
    """The same kind of error everywhere."""
    with pytest.raises(TypeError, match=str(number)):
        call(number)


def test_no_data():
    with pytest.raises(TrainingError, match="no batch"):
        fit(lenet("none"), [], None, 1)


X_BAD, Y_BAD = nd.zeros((4, 1, 28, 28)), nd.array([0, 1, 2, 3])
BAD_BATCHES = {
    "no pair": (X_BAD, TypeError, "pair"),
    "three things": ((X_BAD, Y_BAD, Y_BAD), TypeError, "got tuple of 3"),
    "NumPy": ((X_BAD.asnumpy(), Y_BAD), TypeError, r"mx.nd.array\(X\)"),
    "y of NumPy": ((X_BAD, Y_BAD.asnumpy()), TypeError, r"mx.nd.array\(y\)"),
    "lengths": ((X_BAD, Y_BAD[:3]), ValueError, r"shape \(4,\).*got \(3,\)$"),
    "one-hot": ((X_BAD, nd.one_hot(Y_BAD, 10)), ValueError, "argmax"),
    "a column": ((X_BAD, Y_BAD.reshape((4, 1))), ValueError, "reshape"),
    "counted from 1": ((X_BAD, Y_BAD + 7), ValueError, "label 10.0 at index 3"),
    "negative": ((X_BAD, Y_BAD - 1), ValueError, "label -1.0 at index 0"),
    "halves": ((X_BAD, Y_BAD / 2), ValueError, "label 0.5 at index 1 is not an integer"),
    "other images": ((nd.zeros((4, 1, 32, 32)), Y_BAD), ValueError, r"float32 of shape \(4, 1, 32"),
}


@pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "hybridized"])
@pytest.mark.parametrize("name", BAD_BATCHES)
def test_bad_batches(name, hybridize):
    """MXNet's loss takes the last class for a label that is too large; the rest it says in C++."""
    batch, error, says = BAD_BATCHES[name]
    net = lenet("textbook")
    net.initialize(mx.init.Xavier())
    net(X_BAD)
    if hybridize:
        net.hybridize()
    for refuse in (lambda: fit(net, [batch], None, 1), lambda: evaluate(net, [batch])):
        with pytest.raises(error, match=says) as refused:
            refuse()
        assert "Traceback" not in str(refused.value)


@pytest.mark.parametrize(
    "last",
    [
        lambda F, X: X,
        lambda F, X: F.split(X, num_outputs=2),
        lambda F, X: F.mean(X, axis=(1, 2, 3)),
    ],
)
def test_scores_of_another_shape(last):
    net = nn.HybridSequential()
    net.add(nn.Conv2D(10, 28), nn.HybridLambda(last))
    with pytest.raises(ValueError, match=r"scores of shape \(4, classes\)"):
        fit(net, [(X_BAD, Y_BAD)], None, 1)


def test_nothing_to_train():
    with pytest.raises(ValueError, match="no parameters"):
        fit(nn.Flatten(), [(X_BAD, Y_BAD)], None, 1)


def test_gradients_that_would_add_up():
    net = small_net()
    net.collect_params().setattr("grad_req", "add")
    with pytest.raises(ValueError, match="conv0_weight has grad_req='add'.*'write'"):
        fit(net, batches(), None, 1)


def test_data_that_can_be_gone_over_once():
    net = lenet("none")
    with pytest.raises(TypeError, match=r"train_iter .* generator, .* list\(train_iter\)"):
        fit(net, (batch for batch in batches()), None, 1)
    with pytest.raises(TypeError, match="test_iter .* needed 2 times"):
        fit(net, batches(), iter([]), 2)
    with pytest.raises(TypeError, match="train_iter must yield batches.* got int"):
        fit(net, 5, None, 1)
    assert len(fit(net, batches(), (batch for batch in batches()), 1, 0.1)) == 1
    assert evaluate(net, (batch for batch in batches())) >= 0


def test_seed_everything():
    def draw():
        return (mx.nd.random.uniform(shape=4).asnumpy().tolist(), np.random.rand(), random.random())

    draws = []
    for seed, epoch in [(1, 0), (1, 0), (2, 0), (1, 1)]:
        training.seed_everything(seed, epoch)
        draws.append(draw())
    assert draws[0] == draws[1]
    assert all(draws[0][i] != other[i] for other in draws[2:] for i in range(3))


# evaluate -----------------------------------------------------------------------------------------


def test_evaluate_is_exact_on_a_short_last_batch():
    scores = np.random.RandomState(0).randn(103, 10).astype(np.float32)
    y = np.random.RandomState(1).randint(0, 10, 103)
    data = [(nd.array(scores[i : i + 25]), nd.array(y[i : i + 25])) for i in range(0, 103, 25)]
    identity = nn.HybridLambda("identity")
    assert evaluate(identity, data) == (scores.argmax(1) == y).sum() / 103


def test_evaluate_predicts_even_inside_record():
    net = nn.HybridSequential()
    net.add(nn.Dropout(0.9))
    X = nd.array(np.eye(10, dtype=np.float32))
    with autograd.record():
        assert evaluate(net, [(X, nd.arange(10))]) == 1
        assert autograd.is_training() and autograd.is_recording()


def test_evaluate_moves_nothing():
    net = lenet("textbook")
    net.initialize(mx.init.Xavier())
    net(nd.zeros((1, 1, 28, 28)))
    before = parameters(net)
    evaluate(net, batches())
    assert_same(before, parameters(net))


def test_evaluate_counts_scores_that_are_not_numbers_as_wrong():
    scores = nd.array([[np.nan] * 3, [0, 1, 0]])
    assert evaluate(nn.HybridLambda("identity"), [(scores, nd.array([0, 1]))]) == 0.5


def test_evaluate_without_data():
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate(nn.HybridLambda("identity"), [])


# Checkpoints --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimizer, options", [("sgd", {}), ("sgd", {"momentum": 0.9}), ("adam", {}), ("nadam", {})]
)
@pytest.mark.parametrize("stop", [(1, None), (2, 2), (1, 1)])
def test_resumed_equals_uninterrupted(optimizer, options, stop, tmp_path):
    """Also with Dropout, which draws random numbers, and with data in a new order each epoch."""

    def run(path, net, **more):
        return fit(
            net,
            batches(shuffle=True),
            batches(40),
            3,
            0.01,
            optimizer=optimizer,
            optimizer_params=options,
            checkpoint=path,
            **more,
        )

    straight, stopped, resumed = small_net(), small_net(), small_net()
    records = run(tmp_path / "straight", straight)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", stopped, callbacks=[StopAfter(*stop)])
    mx.random.seed(12345)  # whatever went on in between
    again = run(tmp_path / "stopped", resumed, resume=True)
    assert without_times(again) == without_times(records)
    assert_same(parameters(resumed), parameters(straight))
    _, one = read_checkpoint(tmp_path / "straight")
    _, other = read_checkpoint(tmp_path / "stopped")
    assert_same(one, other)


@pytest.mark.parametrize("norm", ["textbook", "auto", "gluon"])
def test_resumed_lenet_equals_uninterrupted(norm, tmp_path):
    nets = lenet(norm), lenet(norm), lenet(norm)
    data = batches(shuffle=True)
    fit(nets[0], data, None, 2)
    fit(nets[1], data, None, 1, checkpoint=tmp_path / "checkpoint")
    fit(nets[2], data, None, 2, checkpoint=tmp_path / "checkpoint", resume=True)
    assert_same(parameters(nets[0]), parameters(nets[2]))


def test_resume_does_not_depend_on_the_networks_made_before(tmp_path):
    """Gluon counts layers, and dense9 sorts after dense10; the optimizer's state must not."""

    def run(layers_before, epochs, **more):
        with mx.name.NameManager():  # counts from 0
            for _ in range(layers_before):
                nn.Dense(1)
            net = nn.HybridSequential()  # without name_scope: the layers go on counting
            net.add(nn.Dense(10), nn.Dense(10))
        fit(net, batches(shuffle=True), None, epochs, 0.1, optimizer="adam", **more)
        return parameters(net)

    straight = run(0, 2)
    run(0, 1, checkpoint=tmp_path / "checkpoint")
    assert_same(run(9, 2, checkpoint=tmp_path / "checkpoint", resume=True), straight)


def test_resume_without_a_checkpoint_starts_from_the_beginning(tmp_path):
    straight, resumed = lenet("none"), lenet("none")
    fit(straight, batches(), None, 1)
    fit(resumed, batches(), None, 1, checkpoint=tmp_path / "new", resume=True)
    assert_same(parameters(straight), parameters(resumed))


def test_resume_of_a_finished_run_trains_no_more(tmp_path):
    first = fit(lenet("none"), batches(), None, 2, checkpoint=tmp_path / "c")
    assert fit(lenet("none"), batches(), None, 2, checkpoint=tmp_path / "c", resume=True) == first


@pytest.fixture
def checkpoint(tmp_path):
    fit(lenet("none"), batches(), None, 1, checkpoint=tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def resume_from(path, **options):
    return fit(lenet("none"), batches(), None, 2, checkpoint=path, resume=True, **options)


def rewrite(path, **changes):
    """Write the checkpoint again with another header."""
    with np.load(path) as file:
        arrays = dict(file)
    header = {**json.loads(arrays["header"].tobytes()), **changes}
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    write_atomically(path, lambda file: np.savez(file, **arrays))


def test_a_truncated_checkpoint_is_refused_at_every_length(checkpoint):
    content = checkpoint.read_bytes()
    lengths = [
        0,
        1,
        4,
        100,
        len(content) // 2,
        len(content) - 1,
        *np.random.RandomState(0).randint(1, len(content), 20),
    ]
    for length in lengths:
        checkpoint.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=str(checkpoint)):
            resume_from(checkpoint)
        assert checkpoint.read_bytes() == content[:length]  # not replaced


def test_a_damaged_checkpoint_is_refused(checkpoint):
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        resume_from(checkpoint)


@pytest.mark.parametrize("content", [b"hello\n" * 100, b"\x80\x04N.", "npy", "npz", "params"])
def test_a_foreign_file_is_refused(content, tmp_path):
    path = tmp_path / "checkpoint"
    if content == "npy":
        np.save(tmp_path / "x.npy", np.zeros(3))
        (tmp_path / "x.npy").rename(path)
    elif content == "npz":
        np.savez(tmp_path / "x.npz", header=np.zeros(3))
        (tmp_path / "x.npz").rename(path)
    elif content == "params":
        nd.save(str(path), [nd.zeros(3)])
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a checkpoint|damaged"):
        resume_from(path)


def test_a_pickle_is_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    np.savez(tmp_path / "x.npz", header=np.array([Trap()], dtype=object))
    (tmp_path / "x.npz").rename(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError):
        resume_from(tmp_path / "checkpoint")
    assert not (tmp_path / "trapped").exists()


def test_a_newer_version_is_refused(checkpoint):
    rewrite(checkpoint, version=3)
    with pytest.raises(CheckpointError, match="version 3"):
        resume_from(checkpoint)


def test_other_settings_are_refused(checkpoint):
    with pytest.raises(CheckpointError, match="seed = 0.*seed = 1"):
        resume_from(checkpoint, seed=1)
    with pytest.raises(CheckpointError, match="lr = 1.0.*lr = 0.5"):
        resume_from(checkpoint, lr=0.5)


def test_another_network_is_refused_and_nothing_changed(checkpoint):
    net = lenet("gluon")
    with pytest.raises(CheckpointError, match="another network: parameter 1.beta"):
        fit(net, batches(), None, 2, checkpoint=checkpoint, resume=True)


def test_a_checkpoint_where_no_folder_is(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder") as refused:
        fit(lenet("none"), batches(), None, 1, checkpoint=tmp_path / "none" / "checkpoint")
    assert refused.value.filename == str(tmp_path / "none")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def half(file):
        file.write(b"ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, half)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_new_name_comes_last_and_at_once(tmp_path, monkeypatch):
    """The file is complete under its temporary name when it is renamed; there is no copying."""
    path, seen = tmp_path / "file", []
    path.write_bytes(b"old")

    def replace(source, target):
        seen.append((open(source, "rb").read(), open(target, "rb").read()))
        raise OSError("the power fails")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="power"):
        write_atomically(path, lambda file: file.write(b"new"))
    assert seen == [(b"new", b"old")]
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


KILLED = """
import sys
from mxnet import gluon
from gluon_bn.checkpoint import pack, write_checkpoint
net = gluon.nn.Dense(50000, in_units=20)
net.initialize()
trainer = gluon.Trainer(list(net.collect_params().values()), 'sgd')
header, arrays = pack(net, trainer)
write_checkpoint(sys.argv[1], {**header, 'n': 0}, arrays)
print('ready', flush=True)
for n in range(1, 10**6):
    write_checkpoint(sys.argv[1], {**header, 'n': n}, arrays)
"""


def test_killed_while_writing(tmp_path):
    """kill -9 at random moments while checkpoints are written as fast as possible."""
    random_state = np.random.RandomState(0)
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "checkpoint")], stdout=subprocess.PIPE
        )
        process.stdout.readline()
        time.sleep(random_state.uniform(0.05, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        header, arrays = read_checkpoint(tmp_path / "checkpoint")
        assert header["n"] >= 0 and arrays["parameter/weight"].shape == (50000, 20)


class Interrupts(nn.HybridSequential):
    """A network during whose `at`-th call, in training or in prediction, Ctrl-C is pressed."""

    def __init__(self, at, training=True):
        super().__init__()
        self.calls, self.at, self.training = 0, at, training

    def forward(self, X):
        if autograd.is_training() == self.training:
            self.calls += 1
            if self.calls == self.at:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)  # time for Python to notice
                self.still_running = True
        return super().forward(X)


def interrupted(*at):
    net = Interrupts(*at)
    net.add(
        nn.Conv2D(4, 5, strides=3), BatchNorm(4, kernel="textbook"), nn.Dropout(0.3), nn.Dense(10)
    )
    return net


def test_ctrl_c_waits_for_the_end_of_the_batch():
    """A signal that comes while the network computes is raised between two batches."""
    net = interrupted(2)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(net, batches(), None, 1)
    assert net.still_running and net.calls == 2
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize(
    "at, stands_at",
    [
        ((3,), (0, 8)),
        ((8,), (0, 8)),
        ((25 + 9,), (1, 16)),
        ((25 + 25,), (1, 25)),
        ((9, False), (1, 25)),
    ],
)  # prediction: 1 call finds the shapes, 5 batches test an epoch
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_resumed_in_the_middle_of_an_epoch(at, stands_at, optimizer, tmp_path):
    """Stopped after the group of eight batches, or in the test: nothing of the run is lost."""

    def run(net, path, **more):
        train_iter = batches(100, 4, shuffle=True, augment="crop-flip")
        return fit(
            net,
            train_iter,
            batches(40, 10),
            3,
            0.01,
            optimizer=optimizer,
            schedule="one-cycle",
            clip=1.0,
            checkpoint=path,
            **more,
        )

    straight, stopped, resumed = small_net(), interrupted(*at), small_net()
    records = run(straight, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        run(stopped, tmp_path / "stopped")
    header = read_checkpoint(tmp_path / "stopped")[0]
    assert (len(header["epochs"]), header["partial"]["batches"]) == stands_at
    mx.random.seed(12345)
    again = run(resumed, tmp_path / "stopped", resume=True)
    assert without_times(again) == without_times(records)
    assert_same(parameters(resumed), parameters(straight))


RUN = """
import sys
from test_training import batches, small_net
from gluon_bn.training import AveragedWeights, fit
net = small_net()
fit(net, batches(200, 4, shuffle=True), batches(40), 6, 0.01, optimizer='adam',
    callbacks=[AveragedWeights(2, decay=0.9)], checkpoint=sys.argv[1], resume=True)
net.save_parameters(sys.argv[2])
"""


def test_a_run_that_is_killed_again_and_again(tmp_path):
    """kill -9 at random moments of a run, --resume each time: the last weights are the same, and
    so is their average, which the checkpoint holds."""

    def start(name):
        here = os.path.dirname(__file__)
        return subprocess.Popen(
            [sys.executable, "-c", RUN, str(tmp_path / name), str(tmp_path / f"{name}.params")],
            env={**os.environ, "PYTHONPATH": here, "OMP_NUM_THREADS": "1"},
        )

    assert start("straight").wait() == 0
    random_state, kills = np.random.RandomState(0), 0
    for _ in range(40):
        process = start("killed")
        checkpoint = tmp_path / "killed"
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while process.poll() is None and not (
            checkpoint.exists() and checkpoint.stat().st_mtime_ns != before
        ):
            time.sleep(0.005)  # until it has come one epoch further
        time.sleep(random_state.uniform(0, 0.25))
        process.kill()
        kills += process.wait() != 0
        if (tmp_path / "killed.params").exists():
            break
    assert kills > 2
    nets = small_net(), small_net()
    for net, name in zip(nets, ("straight", "killed")):
        net.load_parameters(str(tmp_path / f"{name}.params"))
    assert_same(parameters(nets[0]), parameters(nets[1]))
    assert_same(*(read_checkpoint(tmp_path / name)[1] for name in ("straight", "killed")))


def test_the_checkpoint_before_is_kept_and_named(tmp_path):
    path = tmp_path / "checkpoint"
    run = functools.partial(fit, lenet("none"), batches(), None, checkpoint=path)
    run(2)
    assert len(read_checkpoint(path)[0]["epochs"]) == 2
    assert len(read_checkpoint(previous(path))[0]["epochs"]) == 1
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged.*checkpoint.previous"):
        run(2, resume=True)
    previous(path).rename(path)
    straight = lenet("none")
    fit(straight, batches(), None, 2)
    resumed = lenet("none")
    fit(resumed, batches(), None, 2, checkpoint=path, resume=True)
    assert_same(parameters(resumed), parameters(straight))


def test_the_checkpoint_before_where_files_cannot_be_linked(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError("not on a USB stick")

    monkeypatch.setattr(os, "link", no_links)
    for content in (b"one", b"two"):
        write_atomically(tmp_path / "c", lambda file, c=content: file.write(c), keep_previous=True)
    assert (tmp_path / "c").read_bytes() == b"two"
    assert previous(tmp_path / "c").read_bytes() == b"one"
    assert sorted(os.listdir(tmp_path)) == ["c", "c.previous"]


# Callbacks ----------------------------------------------------------------------------------------


class Counter(Callback):
    """Counts steps, and remembers the order of what it heard; its state is the number."""

    def __init__(self):
        self.steps, self.heard = 0, []

    def on_step(self, run):
        self.steps += 1

    def on_epoch_end(self, epochs):
        self.heard.append(self.steps)

    def state(self):
        return {"steps": np.array(self.steps)}

    def restore(self, state):
        self.steps = int(state["steps"])


class PressesCtrlC(Callback):
    def __init__(self, *at):
        self.at = at

    def on_batch(self, epoch, batch, *means):
        if (epoch, batch) == self.at:
            os.kill(os.getpid(), signal.SIGINT)


def test_the_state_of_callbacks_is_resumed(tmp_path):
    """Two of one class, each with its own; stopped after 8 of 25 batches, after the first epoch."""
    run = functools.partial(
        fit, train_iter=batches(100, 4), epochs=3, lr=0.1, checkpoint=tmp_path / "c"
    )
    counters = Counter(), Counter()
    counters[1].steps = 1000
    with pytest.raises(KeyboardInterrupt):
        run(small_net(), callbacks=[*counters, PressesCtrlC(2, 3)])
    assert [c.steps for c in counters] == [33, 1033]
    again = Counter(), Counter()
    run(small_net(), callbacks=again, resume=True)
    assert [c.heard for c in again] == [[50, 75], [1050, 1075]]


def test_callbacks_with_a_state_must_be_the_same(tmp_path):
    run = functools.partial(
        fit, lenet("none"), batches(), epochs=1, checkpoint=tmp_path / "c", resume=True
    )
    run(callbacks=[Counter()])
    with pytest.raises(CheckpointError, match="with the callback Counter"):
        run()
    os.remove(tmp_path / "c")
    run()
    with pytest.raises(CheckpointError, match="without the callback Counter"):
        run(callbacks=[Counter()])


def test_what_fails_after_an_epoch_does_not_cost_it(tmp_path):
    """The checkpoint is written before callbacks without a state hear of the end of the epoch."""
    with pytest.raises(KeyboardInterrupt):
        fit(lenet("none"), batches(), None, 2, checkpoint=tmp_path / "c", callbacks=[StopAfter(1)])
    assert len(read_checkpoint(tmp_path / "c")[0]["epochs"]) == 1


def test_the_end_of_a_run_is_told_whatever_ends_it():
    heard, handler = [], signal.getsignal(signal.SIGINT)

    class Ends(Callback):
        def on_run_start(self, run):
            heard.append("start")

        def on_run_end(self, run):
            assert signal.getsignal(signal.SIGINT) is handler  # given back before
            heard.append("end")
            raise OSError

    for callbacks in ([Ends()], [Ends(), StopAfter(1, 2)]):
        with pytest.raises(OSError):
            fit(lenet("none"), batches(), None, 1, callbacks=callbacks)
    assert heard == ["start", "end"] * 2 and signal.getsignal(signal.SIGINT) is handler


def test_what_has_only_some_of_the_methods_is_a_callback_too():
    class Old:
        def on_epoch_end(self, epochs):
            self.epochs = len(epochs)

    old = Old()
    fit(lenet("none"), batches(), None, 2, callbacks=[old])
    assert old.epochs == 2


def test_a_run_can_be_stepped_by_hand():
    """Against NumPy: one step of SGD on the mean cross entropy of a linear network."""
    X, y = next(iter(batches(20, 20)))
    net = nn.Dense(10)
    net.initialize(mx.init.Normal(0.1))
    x = X.asnumpy().reshape(20, -1).astype(np.float64)
    net(X)
    W = net.weight.data().asnumpy().astype(np.float64)
    run = training.Run(
        net, recipe.trainer(net, "sgd", {"learning_rate": 0.5}), recipe.cross_entropy()
    )
    loss, scores, _ = run.step(X, y)
    p = np.exp(x @ W.T)
    p /= p.sum(1, keepdims=True)
    rows = range(20), y.asnumpy().astype(int)
    np.testing.assert_allclose(loss.asnumpy(), -np.log(p[rows]), rtol=1e-4)
    p[rows] -= 1
    np.testing.assert_allclose(net.weight.data().asnumpy(), W - 0.5 / 20 * p.T @ x, atol=1e-5)


class Pair(World):
    """Worker `rank` of two; the other one has the same examples, and may be stopped."""

    size, store = 2, None

    def __init__(self, rank, other_stopped_at=None):
        self.rank, self.asked, self.stopped_at = rank, 0, other_stopped_at

    def part(self, batch):
        X, y = batch
        half = len(y) // 2
        rows = slice(half) if self.rank == 0 else slice(half, None)
        return X[rows], y[rows]

    def gather(self, value):
        other = value
        if isinstance(value, bool):
            self.asked += 1
            other = self.asked == self.stopped_at
        return [value, other]


def test_one_of_two_workers():
    """It trains on its part, divides by the whole batch, and tells the sums of both."""

    class Sizes(Callback):
        def __init__(self):
            self.seen = []

        def on_gradients(self, run, examples):
            self.seen.append(examples)

    for rank in (0, 1):
        sizes, net = Sizes(), nn.Dense(10)
        (record,) = fit(
            net, batches(40, 16), batches(40, 10), 1, 0.1, workers=Pair(rank), callbacks=[sizes]
        )
        assert sizes.seen == [16, 16, 8]
        halves = [Pair(rank).part(batch) for batch in batches(40, 10)]
        assert record["test_accuracy"] == evaluate(net, halves)
        assert record["examples_per_second"] == pytest.approx(40 / record["seconds"])


def test_all_workers_stop_where_one_is_stopped_and_the_first_one_writes(tmp_path):
    run = functools.partial(fit, train_iter=batches(100, 4), epochs=2, lr=0.1)
    with pytest.raises(KeyboardInterrupt, match="another worker"):
        run(small_net(), checkpoint=tmp_path / "c", workers=Pair(0, other_stopped_at=2))
    partial = read_checkpoint(tmp_path / "c")[0]["partial"]
    assert [part["batches"] for part in partial] == [16, 16] and partial[0]["examples"] == 32
    with pytest.raises(KeyboardInterrupt):
        run(small_net(), checkpoint=tmp_path / "none", workers=Pair(1, other_stopped_at=2))
    assert not (tmp_path / "none").exists()
    (first, *_) = run(small_net(), checkpoint=tmp_path / "c", resume=True)  # one takes up both
    assert first["examples_per_second"] * first["seconds"] == pytest.approx(2 * 32 + 9 * 4)


# Recipes ------------------------------------------------------------------------------------------


def rates(schedule, epochs=4, **more):
    """The learning rate of each update, as the optimizer was really given it."""
    seen = []

    class Watch(mx.optimizer.SGD):
        def update_multi_precision(self, index, weight, grad, state):
            super().update_multi_precision(index, weight, grad, state)
            if 0 in (index if isinstance(index, (tuple, list)) else [index]):
                seen.append(self._get_lrs([0])[0])

    mx.optimizer.Optimizer.opt_registry["watch"] = Watch
    try:
        fit(
            nn.Dense(10),
            batches(100, 4),
            None,
            epochs,
            0.5,
            optimizer="watch",
            optimizer_params={"multi_precision": False},
            schedule=schedule,
            **more,
        )
    finally:
        del mx.optimizer.Optimizer.opt_registry["watch"]
    return np.array(seen)


def test_constant():
    assert set(rates("constant")) == {0.5}


def test_cosine():
    t = np.arange(1, 101) / 100
    np.testing.assert_allclose(
        rates("cosine"), 0.0005 + 0.4995 * (1 + np.cos(np.pi * t)) / 2, rtol=1e-6
    )


def test_one_cycle():
    seen = rates("one-cycle")
    up = 0.02 + (0.5 - 0.02) * np.arange(1, 30) / 30
    down = 0.0005 + 0.4995 * (1 + np.cos(np.pi * np.arange(0, 71) / 70)) / 2
    np.testing.assert_allclose(seen, np.concatenate([up, down]), rtol=1e-6)


def test_a_resumed_schedule_needs_the_same_number_of_epochs(tmp_path):
    run = functools.partial(fit, lenet("none"), batches(), None, lr=0.1, checkpoint=tmp_path / "c")
    run(epochs=1, schedule="cosine")
    with pytest.raises(CheckpointError, match="epochs = 1, and this one has epochs = 2"):
        run(epochs=2, schedule="cosine", resume=True)


def test_a_schedule_needs_to_know_the_length():
    class Endless:
        def __iter__(self):
            return iter(batches())

    with pytest.raises(ValueError, match="no len"):
        fit(nn.Dense(10), Endless(), None, 1, schedule="cosine")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_clipped_gradients(dtype):
    """One step of SGD with lr 1 moves the weights by the gradient: it has the largest norm."""

    def step(**more):
        net = nn.Dense(10)
        net.initialize()
        net.cast(dtype)
        X, y = next(iter(batches(32)))
        X = X.astype(dtype)
        net(X)
        before = parameters(net)
        fit(net, [(X, y)], None, 1, 1.0, **more)
        return {name: value - before[name] for name, value in parameters(net).items()}

    mx.random.seed(1)
    free = step()
    norm = np.sqrt(sum(float((d.astype(np.float64) ** 2).sum()) for d in free.values()))
    mx.random.seed(1)
    clipped = step(clip=norm / 10)
    for name in free:
        np.testing.assert_allclose(clipped[name], free[name] / 10, rtol=1e-3, atol=1e-7)
    mx.random.seed(1)
    assert_same(step(clip=norm * 10), free)


@pytest.mark.parametrize("numpy_arrays", [False, True])
def test_smoothed_labels(numpy_arrays):
    """Against the definition in float64, and against finite differences of it."""
    random_state = np.random.RandomState(3)
    scores, y = 3 * random_state.randn(6, 5), np.array([0, 4, 2, 2, 1, 3])
    target = 0.9 * np.eye(5)[y] + 0.1 / 5

    def expected(scores):
        return -(target * (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)))).sum(axis=1)

    new = mx.np.array if numpy_arrays else nd.array
    with mx.util.np_array(numpy_arrays):
        X = new(scores, dtype="float32")
        X.attach_grad()
        with autograd.record():
            loss = recipe.cross_entropy(0.1)(X, new(y))
        loss.backward()
    np.testing.assert_allclose(loss.asnumpy(), expected(scores), rtol=1e-5)
    for place in np.ndindex(scores.shape):
        step = np.zeros_like(scores)
        step[place] = 1e-5
        slope = (expected(scores + step) - expected(scores - step))[place[0]] / 2e-5
        assert abs(X.grad.asnumpy()[place] - slope) < 1e-5


def test_fit_with_smoothed_labels(tmp_path):
    """A network sure of its answers is told to be less so: its loss is not small any more."""
    net = nn.Dense(2, in_units=1, use_bias=False)
    net.initialize(mx.init.Constant(0))
    net.weight.set_data(mx.nd.array([[30.0], [-30.0]]))
    data = [(mx.nd.ones((4, 1)), mx.nd.zeros(4))]
    (free,) = fit(net, data, None, 1, 1e-30)
    (smoothed,) = fit(net, data, None, 1, 1e-30, label_smoothing=0.1, checkpoint=tmp_path / "c")
    assert free["train_loss"] < 1e-6 and smoothed["train_loss"] == pytest.approx(0.05 * 60)
    with pytest.raises(CheckpointError, match="label_smoothing"):
        fit(net, data, None, 2, 1e-30, checkpoint=tmp_path / "c", resume=True)


@pytest.mark.parametrize(
    "bad, says",
    [
        ({"label_smoothing": 1}, "less than 1"),
        ({"label_smoothing": -0.1}, "-0.1"),
        ({"label_smoothing": "0.1"}, "label_smoothing"),
        ({"schedule": "linear"}, "constant, cosine, one-cycle"),
        ({"optimizer": "sgdd"}, "adam"),
        ({"optimizer_params": {"momentun": 0.9}}, "momentun"),
        ({"clip": 0}, "clip"),
        ({"clip": "1"}, "clip"),
    ],
)
def test_bad_recipes(bad, says):
    with pytest.raises(ValueError, match=says):
        fit(lenet("none"), batches(), None, 1, **bad)


def test_checkpoints_are_for_one_device():
    net = nn.Dense(2, in_units=2)
    net.initialize(ctx=[mx.cpu(0), mx.cpu(1)])
    trainer = mx.gluon.Trainer(list(net.collect_params().values()), "sgd")
    with pytest.raises(CheckpointError, match="one device"):
        pack(net, trainer)


# The record ---------------------------------------------------------------------------------------


def test_record_has_the_contracts_keys(tmp_path):
    epochs = fit(lenet("none"), batches(), batches(40), 2)
    dataset = {"name": "stand-in", "train": 100, "test": 40}
    training.write_json(
        tmp_path / "metrics.json", training.record("lenet", "none", 0, dataset, epochs)
    )
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert {
        "model",
        "norm",
        "seed",
        "dataset",
        "epochs",
        "test_accuracy",
        "versions",
    } <= metrics.keys()
    assert metrics["test_accuracy"] == metrics["epochs"][-1]["test_accuracy"]
    for epoch in metrics["epochs"]:
        assert epoch.keys() == {
            "epoch",
            "train_loss",
            "train_accuracy",
            "test_accuracy",
            "seconds",
            "examples_per_second",
        }
    assert metrics["versions"]["mxnet"] == mx.__version__


def test_csv(tmp_path):
    records = fit(lenet("none"), batches(), batches(40), 2)
    training.write_csv(tmp_path / "metrics.csv", records)
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{k: float(v) for k, v in row.items()} for row in rows] == records
