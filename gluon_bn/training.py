"""Training: `fit` and `evaluate`, runs that can be repeated and resumed, and their record.

    train_iter, test_iter = load_fashion_mnist(256)
    net = lenet(norm='textbook')
    epochs = fit(net, train_iter, test_iter, epochs=5, lr=1.0)
    epochs[-1]['test_accuracy']

Anything that can be iterated over again and again and yields `(X, y)` serves as data. Where it has
a method `set_epoch(k)`, as ours has, `fit` calls it, so that the order of epoch k is that of epoch
k in every run.
"""

import collections
import contextlib
import json
import math
import os
import random
import signal
import threading
import time

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon

from gluon_bn import checkpoint as files
from gluon_bn import runtime
from gluon_bn.checkpoint import CheckpointError

__all__ = ["Callback", "CheckpointError", "TrainingError", "evaluate", "fit", "record",
           "seed_everything", "write_json"]

# How many batches the program may run ahead of the numbers it has read back. MXNet computes in the
# background; reading a loss waits for it. Reading it two batches late, nobody has to wait.
AHEAD = 2


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why, and what to try."""


class Callback:
    """What `fit` tells about a run while it goes on. Override what you need."""

    def on_epoch_start(self, epoch, batches):
        """Epoch number `epoch`, from 1, begins; it has `batches` batches (None: unknown)."""

    def on_batch(self, epoch, batch, loss, accuracy):
        """`batch` batches of the epoch are done; averages over the epoch so far."""

    def on_epoch_end(self, epochs):
        """An epoch is over: all records so far, the last one is new."""


def fit(net, train_iter, test_iter=None, epochs=10, lr=1.0, *, optimizer="sgd",
        optimizer_params=None, seed=0, ctx=None, callbacks=(), checkpoint=None, resume=False,
        settings=None):
    """Train a classifier by the cross entropy of its scores; return the record of each epoch.

    net : a Gluon network from X (N, ...) to scores (N, classes). If it is not initialized yet,
        that is done here, with Xavier's random weights.
    train_iter, test_iter : batches (X, y), y the class numbers (N,).
    optimizer, lr, optimizer_params : a name Gluon knows, the learning rate, further options.
    seed : with the same seed, data and number of threads, two runs give the same numbers to the
        last digit. The random numbers of MXNet, NumPy and Python start anew with each epoch.
    ctx : the device, by default the one of the network's parameters, or else the CPU.
    checkpoint : a path; the state is written there before the first epoch and after each one.
    resume : go on from `checkpoint` if that file exists. The result is, bit for bit, that of a run
        that was never stopped.
    settings : a dict of plain values that must be the same when the run is resumed.

    A record is a dict: epoch (from 1), train_loss and train_accuracy (averages over the epoch,
    while the network was changing), test_accuracy (None without test_iter), seconds (of training,
    without the test), examples_per_second.

    Ctrl-C takes effect at the end of a batch, as KeyboardInterrupt.

    Raises ValueError for settings that make no sense, TrainingError if the loss is no longer a
    finite number, CheckpointError if `checkpoint` cannot be resumed from.
    """
    _check_settings(epochs, lr, seed)
    if resume and checkpoint is None:
        raise ValueError("resume=True needs a checkpoint to resume from: checkpoint='path'")
    ctx = ctx or _device(net)
    settings = {"optimizer": optimizer, "lr": lr, **(optimizer_params or {}), "seed": seed,
                **(settings or {})}
    seed_everything(seed)
    _initialize(net, train_iter, ctx)
    # A list, because a Trainer sorts what it gets as a dict, by names like dense10 and dense9.
    trainer = gluon.Trainer(list(net.collect_params().values()), optimizer,
                            {"learning_rate": lr, **(optimizer_params or {})}, kvstore=None)
    done = []
    if resume and os.path.exists(checkpoint):
        done = _resume(checkpoint, net, trainer, settings)
    elif checkpoint:
        _save(checkpoint, net, trainer, settings, done)

    with _signals_between_batches() as check_signals:
        for epoch in range(len(done) + 1, epochs + 1):
            _tell(callbacks, "on_epoch_start", epoch, _length(train_iter))
            seed_everything(seed, epoch)
            if hasattr(train_iter, "set_epoch"):
                train_iter.set_epoch(epoch - 1)
            result = _train_epoch(net, train_iter, trainer, ctx, epoch, callbacks, check_signals)
            accuracy = None if test_iter is None else evaluate(net, test_iter, ctx)
            result["test_accuracy"] = accuracy
            done.append(result)
            if checkpoint:
                _save(checkpoint, net, trainer, settings, done)
            _tell(callbacks, "on_epoch_end", done)
            check_signals()
    return done


def _train_epoch(net, train_iter, trainer, ctx, epoch, callbacks, check_signals):
    cross_entropy = gluon.loss.SoftmaxCrossEntropyLoss()
    batches, examples, total_loss, correct = 0, 0, 0.0, 0
    waiting = collections.deque()  # what the network said of the last batches, not read yet

    def read(loss, scores, y):
        nonlocal batches, examples, total_loss, correct
        batches, examples = batches + 1, examples + len(y)
        total_loss += float(loss.asnumpy().sum(dtype=np.float64))
        correct += _count_correct(scores, y)
        if not math.isfinite(total_loss):
            raise TrainingError(
                f"The loss became {total_loss} in batch {batches} of epoch {epoch}: the weights "
                f"have run away. A smaller learning rate than {trainer.learning_rate:g} helps.")
        _tell(callbacks, "on_batch", epoch, batches, total_loss / examples, correct / examples)

    start = time.perf_counter()
    for X, y in train_iter:
        X, y = X.as_in_context(ctx), y.as_in_context(ctx)
        with autograd.record(train_mode=True):
            scores = net(X)
            loss = cross_entropy(scores, y)
        loss.backward()
        trainer.step(len(y))  # the gradient of the sum, divided by the number of examples
        waiting.append((loss.detach(), scores.detach(), y))
        if len(waiting) > AHEAD:
            read(*waiting.popleft())
        check_signals()
    while waiting:
        read(*waiting.popleft())
    if not examples:
        raise TrainingError("There is no training data: train_iter yielded no batch.")
    mx.nd.waitall()
    seconds = time.perf_counter() - start
    return {"epoch": epoch, "train_loss": total_loss / examples,
            "train_accuracy": correct / examples, "test_accuracy": None,
            "seconds": seconds, "examples_per_second": examples / seconds}


def evaluate(net, data_iter, ctx=None):
    """The accuracy of `net` on all of `data_iter`: correct answers divided by examples.

    Each example counts once, also in a last batch that is smaller. The network computes in
    prediction mode, with its running statistics, even inside `autograd.record`, and it is given X
    alone, never y. An example whose scores are not numbers counts as wrong.

    Raises ValueError if there is no example.
    """
    ctx = ctx or _device(net)
    correct = examples = 0
    with autograd.pause(train_mode=False):
        for X, y in data_iter:
            correct += _count_correct(net(X.as_in_context(ctx)), y)
            examples += len(y)
    if not examples:
        raise ValueError("there is nothing to evaluate: data_iter yielded no batch")
    return correct / examples


def _count_correct(scores, y):
    scores, y = scores.asnumpy(), y.asnumpy()
    return int(((scores.argmax(axis=1) == y) & ~np.isnan(scores).any(axis=1)).sum())


def seed_everything(seed, epoch=0):
    """Start the random numbers of MXNet, NumPy and Python from `seed`.

    `epoch` chooses another stream of numbers of the same seed. (MXNet cannot tell the state of its
    generator, so it could not be saved; a new stream for each epoch makes that unnecessary.)
    """
    number = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0] >> 1)
    mx.random.seed(number)
    np.random.seed(number)
    random.seed(number)


# The start of a run -------------------------------------------------------------------------------

def _check_settings(epochs, lr, seed):
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise ValueError(f"epochs must be a whole number from 1 up, not {epochs!r}")
    if not (isinstance(lr, (int, float)) and 0 < lr < math.inf):
        raise ValueError(f"lr, the learning rate, must be a positive number, not {lr!r}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed must be a whole number from 0 to {2**32 - 1}, not {seed!r}")


def _device(net):
    for parameter in net.collect_params().values():
        with contextlib.suppress(RuntimeError):  # not initialized
            return parameter.list_ctx()[0]
    return mx.cpu()


def _initialize(net, data_iter, ctx):
    """Give every parameter that has none its first value, and every deferred one its shape."""
    for parameter in net.collect_params().values():
        try:
            parameter.list_ctx()
        except RuntimeError:
            parameter.initialize(ctx=ctx, default_init=mx.init.Xavier())
    for X, _ in data_iter:
        net(X[:1].as_in_context(ctx))  # prediction mode: no running statistic moves
        break


def _length(data_iter):
    return len(data_iter) if hasattr(data_iter, "__len__") else None


def _tell(callbacks, method, *arguments):
    for callback in callbacks:
        getattr(callback, method)(*arguments)


# Stopping and going on ----------------------------------------------------------------------------

def _save(path, net, trainer, settings, epochs):
    files.save_checkpoint(path, net, trainer, {"settings": settings, "epochs": epochs})


def _resume(path, net, trainer, settings):
    """Put a checkpoint into net and trainer; return the records of its epochs."""
    header, arrays = files.read_checkpoint(path)
    saved = header["settings"]
    for name in [*settings, *(name for name in saved if name not in settings)]:
        if saved.get(name) != settings.get(name):
            raise CheckpointError(
                f"{path} is of a run with {name} = {saved.get(name)}, and this one has "
                f"{name} = {settings.get(name)}. Use the same, or start without --resume.")
    files.restore(arrays, net, trainer)
    return header["epochs"]


@contextlib.contextmanager
def _signals_between_batches():
    """Hold back Ctrl-C (and SIGTERM, if the program handles it) until `check()` is called.

    An exception that is raised inside one of MXNet's callbacks into Python would be lost, and
    MXNet's state with it. A second Ctrl-C is not held back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # signals are the main thread's business
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    received = []

    def hold_back(number, frame):
        received.append(number)
        if len(received) > 1:
            handlers[number](number, frame)

    def check():
        if received:
            number = received[0]
            received.clear()
            handlers[number](number, None)

    for number in handlers:
        signal.signal(number, hold_back)
    try:
        yield check
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


# The record of a run ------------------------------------------------------------------------------

def record(model, norm, seed, dataset, epochs, **more):
    """The content of `metrics.json`: a dict of plain values.

    dataset : {"name", "train", "test"}, as `Dataset.summary()` gives it.  epochs : what `fit` gave.
    more : further keys, such as the settings of the run.
    """
    return {"model": model, "norm": norm, "seed": seed, "dataset": dataset, "epochs": epochs,
            "test_accuracy": epochs[-1]["test_accuracy"] if epochs else None,
            "versions": runtime.versions(), "machine": runtime.describe(), **more}


def write_json(path, content):
    """Write plain values to a JSON file, all of it or nothing."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    files.write_atomically(path, lambda file: file.write(text.encode()))
