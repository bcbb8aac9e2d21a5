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
import csv
import io
import json
import math
import os
import random
import signal
import threading
import time
from dataclasses import asdict, dataclass

import mxnet as mx
import numpy as np
from mxnet import autograd

from gluon_bn import checkpoint as files
from gluon_bn import recipe, runtime
from gluon_bn.arguments import (
    accepting,
    check_count,
    check_data,
    check_labels,
    check_pair,
    check_scores,
    check_seed,
)
from gluon_bn.checkpoint import CheckpointError

__all__ = [
    "Callback",
    "CheckpointError",
    "TrainingError",
    "evaluate",
    "fit",
    "initialize",
    "record",
    "seed_everything",
    "write_csv",
    "write_figure",
    "write_json",
]

# How many batches the program may run ahead of the numbers it has read back. MXNet computes in the
# background; reading a loss waits for it. Reading it two batches late, nobody has to wait.
AHEAD = 2

# Random numbers start anew for each group of so many batches; a run can be resumed between groups.
GROUP = 8


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


def fit(
    net,
    train_iter,
    test_iter=None,
    epochs=10,
    lr=1.0,
    *,
    optimizer="sgd",
    optimizer_params=None,
    schedule="constant",
    clip=None,
    label_smoothing=0.0,
    seed=0,
    ctx=None,
    callbacks=(),
    checkpoint=None,
    resume=False,
    settings=None,
):
    """Train a classifier by the cross entropy of its scores; return the record of each epoch.

    net : a Gluon network from X (N, ...) to scores (N, classes). If it is not initialized yet,
        that is done here, with Xavier's random weights.
    train_iter, test_iter : batches (X, y), y the class numbers (N,).
    optimizer, lr, optimizer_params : a name Gluon knows ('sgd', 'adam', ...), the learning rate,
        further options such as {'momentum': 0.9, 'wd': 5e-4}.
    schedule : 'constant'; 'cosine', from lr down to almost nothing; or 'one-cycle', from lr / 25 up
        to lr in the first 30 % of the updates and down like a cosine (Smith and Topin, 2017).
    clip : the largest norm of the gradient of the mean loss; a longer one is shortened to it.
    label_smoothing : the share of the probability that all classes get alike (see
        `recipe.cross_entropy`); the train_loss of the record is then that of the smoothed labels.
    seed : with the same seed, data and number of threads, two runs give the same numbers to the
        last digit. The random numbers of MXNet, NumPy and Python start anew every few batches.
        (Not with 'nag', which in MXNet 1.9.1 does not round the same way in every run.)
    ctx : the device, by default the one of the network's parameters, or else the CPU.
    checkpoint : a path; the state is written there before the first epoch, after each one, and
        when Ctrl-C or SIGTERM stops the run.
    resume : go on from `checkpoint` if that file exists. The result is, bit for bit, that of a run
        that was never stopped ('nag' excepted, for the same reason).
    settings : a dict of plain values that must be the same when the run is resumed.

    A record is a dict: epoch (from 1), train_loss and train_accuracy (averages over the epoch,
    while the network was changing), test_accuracy (None without test_iter), seconds (of training,
    without the test), examples_per_second.

    Ctrl-C takes effect between batches (with a checkpoint between groups of eight, where the random
    numbers start anew), as KeyboardInterrupt. A second Ctrl-C takes effect at once.

    Raises ValueError for settings that make no sense, TypeError or ValueError for batches as
    `evaluate` does (for a label up to three batches late), TrainingError if the loss is no longer a
    finite number, CheckpointError if `checkpoint` cannot be resumed from.
    """
    _check_settings(epochs, lr, seed, clip)
    check_data("train_iter", train_iter, passes=epochs + 1)  # and the first batch, for the shapes
    if test_iter is not None:
        check_data("test_iter", test_iter, passes=epochs)
    loss_of = recipe.cross_entropy(label_smoothing)
    if resume and checkpoint is None:
        raise ValueError("resume=True needs a checkpoint to resume from: checkpoint='path'")
    ctx = ctx or _device(net)
    options = {"learning_rate": lr, **(optimizer_params or {})}
    scheduler = recipe.learning_rates(schedule, lr, epochs, _length(train_iter))
    if scheduler is not None:
        options["lr_scheduler"] = scheduler
    settings = _plain(
        {
            "optimizer": optimizer,
            "lr": lr,
            **(optimizer_params or {}),
            "schedule": schedule,
            "clip": clip,
            "label_smoothing": label_smoothing or None,
            "seed": seed,
            **({} if scheduler is None else {"epochs": epochs}),
            **(settings or {}),
        }
    )
    seed_everything(seed)
    _initialize(net, train_iter, ctx)
    trainer = recipe.trainer(net, optimizer, options)
    done, partial = [], None
    if resume and os.path.exists(checkpoint):
        done, partial = _resume(checkpoint, net, trainer, settings)
    elif checkpoint:
        _save(checkpoint, net, trainer, settings, done)

    with _signals_held_back() as signals:
        for epoch in range(len(done) + 1, epochs + 1):
            run = partial or _Sums()
            partial = None

            def stop_if_asked(run=run):
                if signals.received:
                    if checkpoint:
                        _save(checkpoint, net, trainer, settings, done, run)
                    signals.deliver()

            _tell(callbacks, "on_epoch_start", epoch, _length(train_iter))
            _train_epoch(
                net,
                train_iter,
                loss_of,
                trainer,
                ctx,
                clip,
                seed,
                epoch,
                run,
                callbacks,
                signals,
                stop_if_asked,
                group=GROUP if checkpoint else 1,
            )
            accuracy = (
                None
                if test_iter is None
                else evaluate(net, _asking_after_each(test_iter, stop_if_asked), ctx)
            )
            done.append(
                {
                    "epoch": epoch,
                    "train_loss": run.loss / run.examples,
                    "train_accuracy": run.correct / run.examples,
                    "test_accuracy": accuracy,
                    "seconds": run.seconds,
                    "examples_per_second": run.examples / run.seconds,
                }
            )
            if checkpoint:
                _save(checkpoint, net, trainer, settings, done)
            _tell(callbacks, "on_epoch_end", done)
            if signals.received:
                signals.deliver()
    return done


@dataclass
class _Sums:
    """How far an epoch is, and its sums so far: what a checkpoint in its middle has to remember."""

    batches: int = 0
    examples: int = 0
    loss: float = 0.0
    correct: int = 0
    seconds: float = 0.0


def _train_epoch(
    net,
    train_iter,
    loss_of,
    trainer,
    ctx,
    clip,
    seed,
    epoch,
    run,
    callbacks,
    signals,
    stop_if_asked,
    group,
):
    """Train on the batches of an epoch that `run` has not seen yet, and add them to `run`."""
    waiting = collections.deque()  # what the network said of the last batches, not read yet

    def read(loss, scores, y):
        run.correct += _count_correct(scores, y)
        run.batches, run.examples = run.batches + 1, run.examples + len(y)
        run.loss += float(loss.asnumpy().sum(dtype=np.float64))
        if not math.isfinite(run.loss):
            raise TrainingError(
                f"The loss became {run.loss} in batch {run.batches} of epoch {epoch}: the weights "
                f"have run away. A smaller learning rate than {trainer.learning_rate:g} helps."
            )
        _tell(
            callbacks,
            "on_batch",
            epoch,
            run.batches,
            run.loss / run.examples,
            run.correct / run.examples,
        )

    def read_all():
        while waiting:
            read(*waiting.popleft())

    seen, before, start = run.batches, run.seconds, time.perf_counter()
    for number, batch in enumerate(_seeded(train_iter, seed, epoch), 1):
        if number <= seen:
            continue
        X, y = (array.as_in_context(ctx) for array in check_pair(batch))
        with autograd.record(train_mode=True):
            scores = _scores(net, X)
            loss = loss_of(scores, y)
        loss.backward()
        if clip is not None:
            recipe.clip_gradients(trainer, clip * len(y))  # backward gave that of the sum
        trainer.step(len(y))  # the gradient of the sum, divided by the number of examples
        waiting.append((loss.detach(), scores.detach(), y))
        if len(waiting) > AHEAD:
            read(*waiting.popleft())
        if signals.received and number % group == 0:
            read_all()
            run.seconds = before + time.perf_counter() - start
            stop_if_asked()
    read_all()
    if not run.examples:
        raise TrainingError("There is no training data: train_iter yielded no batch.")
    mx.nd.waitall()
    run.seconds = before + time.perf_counter() - start


def _seeded(train_iter, seed, epoch):
    """The batches of an epoch. Random numbers start anew for each group of GROUP of them.

    MXNet cannot tell the state of its generator, so it cannot be saved; a run that goes on between
    two groups does not need it. (Seeding takes a millisecond, too long to do it for each batch.)
    """
    seed_everything(seed, epoch)
    if hasattr(train_iter, "set_epoch"):
        train_iter.set_epoch(epoch - 1)
    for number, batch in enumerate(train_iter):
        if number and number % GROUP == 0:
            seed_everything(seed, epoch, number)
        yield batch


def _asking_after_each(batches, stop_if_asked):
    for batch in batches:
        yield batch
        stop_if_asked()


def evaluate(net, data_iter, ctx=None):
    """The accuracy of `net` on all of `data_iter`: correct answers divided by examples.

    Each example counts once, also in a last batch that is smaller. The network computes in
    prediction mode, with its running statistics, even inside `autograd.record`, and it is given X
    alone, never y. An example whose scores are not numbers counts as wrong.

    Raises ValueError if there is no example, TypeError or ValueError for batches that are no
    (X, y), that the network does not take, or that have a label it has no score for.
    """
    ctx = ctx or _device(net)
    check_data("data_iter", data_iter, passes=1)
    correct = examples = 0
    with autograd.pause(train_mode=False):
        for X, y in map(check_pair, data_iter):
            correct += _count_correct(_scores(net, X.as_in_context(ctx)), y)
            examples += len(y)
    if not examples:
        raise ValueError("there is nothing to evaluate: data_iter yielded no batch")
    return correct / examples


def _scores(net, X):
    with accepting(X):
        return check_scores(net(X), X)


def _count_correct(scores, y):
    """How many rows of `scores` are the largest at the class in `y`; classes that are none raise.

    (The loss does not: MXNet takes the last class for a label that is too large.)
    """
    y = check_labels(y, scores, scores.shape[1])
    scores = scores.asnumpy()
    return int(((scores.argmax(axis=1) == y) & ~np.isnan(scores).any(axis=1)).sum())


def seed_everything(seed, epoch=0, batch=0):
    """Start the random numbers of MXNet, NumPy and Python from `seed`.

    `epoch` and `batch` choose another stream of numbers of the same seed.
    """
    number = int(np.random.SeedSequence([seed, epoch, batch]).generate_state(1)[0] >> 1)
    mx.random.seed(number)
    np.random.seed(number)
    random.seed(number)


# The start of a run -------------------------------------------------------------------------------


def _check_settings(epochs, lr, seed, clip):
    check_count("epochs", epochs, least=1)
    if not (isinstance(lr, (int, float)) and 0 < lr < math.inf):
        raise ValueError(f"lr, the learning rate, must be a positive number, not {lr!r}")
    check_seed(seed)
    if clip is not None and not (isinstance(clip, (int, float)) and 0 < clip < math.inf):
        raise ValueError(
            f"clip, the largest norm of the gradient, must be a positive number or "
            f"None, not {clip!r}"
        )


def _plain(settings):
    """Settings as JSON gives them back; of an object, such as a scheduler, the kind remains."""
    return json.loads(json.dumps(settings, default=lambda value: type(value).__name__))


def _device(net):
    for parameter in net.collect_params().values():
        with contextlib.suppress(RuntimeError):  # not initialized
            return parameter.list_ctx()[0]
    return mx.cpu()


def initialize(net, ctx=None):
    """Give every parameter that has no value yet its first one: Xavier's, or the layer's own."""
    for parameter in net.collect_params().values():
        try:
            parameter.list_ctx()
        except RuntimeError:
            parameter.initialize(ctx=ctx, default_init=mx.init.Xavier())


def _initialize(net, data_iter, ctx):
    """The first values, and for a deferred parameter its shape."""
    initialize(net, ctx)
    places = {place for p in net.collect_params().values() for place in p.list_ctx()}
    if len(places) > 1:
        names = ", ".join(sorted(map(str, places)))
        raise ValueError(
            f"the network is on {len(places)} devices, {names}, and fit trains on "
            f"one: net.collect_params().reset_ctx(mx.{ctx}) moves it there"
        )
    for X, _ in map(check_pair, data_iter):
        with accepting(X):
            net(X[:1].as_in_context(ctx))  # prediction mode: no running statistic moves
        break


def _length(data_iter):
    return len(data_iter) if hasattr(data_iter, "__len__") else None


def _tell(callbacks, method, *arguments):
    for callback in callbacks:
        getattr(callback, method)(*arguments)


# Stopping and going on ----------------------------------------------------------------------------


def _save(path, net, trainer, settings, epochs, run=None):
    """Write a checkpoint: after `epochs`, or in the middle of the next one, where `run` stands."""
    files.save_checkpoint(
        path,
        net,
        trainer,
        {"settings": settings, "epochs": epochs, "partial": None if run is None else asdict(run)},
    )


def _resume(path, net, trainer, settings):
    """Put a checkpoint into net and trainer; return the records of its epochs, and the sums of the
    one it was stopped in, None if it was between two."""
    header, arrays = files.read_checkpoint(path)
    saved = header["settings"]
    for name in [*settings, *(name for name in saved if name not in settings)]:
        if saved.get(name) != settings.get(name):
            raise CheckpointError(
                f"{path} is of a run with {name} = {saved.get(name)}, and this one has "
                f"{name} = {settings.get(name)}. Use the same, or start without --resume."
            )
    files.restore(header, arrays, net, trainer)
    return header["epochs"], None if header["partial"] is None else _Sums(**header["partial"])


class _Signals:
    """Ctrl-C, and SIGTERM if the program handles it, wait here until `deliver()`."""

    def __init__(self):
        self.received, self.handlers = [], {}

    def hold_back(self, number, frame):
        self.received.append(number)
        if len(self.received) > 1:  # somebody is in a hurry
            self.handlers[number](number, frame)

    def deliver(self):
        number = self.received[0]
        self.received.clear()
        self.handlers[number](number, None)


@contextlib.contextmanager
def _signals_held_back():
    """Hold signals back while MXNet works: an exception that is raised inside one of its callbacks
    into Python would be lost, and MXNet's state with it."""
    signals = _Signals()
    if threading.current_thread() is threading.main_thread():  # signals are its business alone
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        signals.handlers = {n: handler for n, handler in handlers.items() if callable(handler)}
    for number in signals.handlers:
        signal.signal(number, signals.hold_back)
    try:
        yield signals
    finally:
        for number, handler in signals.handlers.items():
            signal.signal(number, handler)


# The record of a run ------------------------------------------------------------------------------


def record(model, norm, seed, dataset, epochs, **more):
    """The content of `metrics.json`: a dict of plain values.

    dataset : {"name", "train", "test"}, as `Dataset.summary()` gives it.  epochs : what `fit` gave.
    more : further keys, such as the settings of the run.
    """
    return {
        "model": model,
        "norm": norm,
        "seed": seed,
        "dataset": dataset,
        "epochs": epochs,
        "test_accuracy": epochs[-1]["test_accuracy"] if epochs else None,
        "versions": runtime.versions(),
        "machine": runtime.describe(),
        **more,
    }


def write_json(path, content):
    """Write plain values to a JSON file, all of it or nothing."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    files.write_atomically(path, lambda file: file.write(text.encode()))


def write_csv(path, epochs):
    """Write the records of the epochs to a CSV file, one line each, all of it or nothing."""
    text = io.StringIO()
    if epochs:
        writer = csv.DictWriter(text, list(epochs[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(epochs)
    files.write_atomically(path, lambda file: file.write(text.getvalue().encode()))


def write_figure(path, figure):
    """Write a `matplotlib.figure.Figure` to a PNG file, all of it or nothing."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    files.write_atomically(path, lambda file: file.write(picture.getvalue()))
