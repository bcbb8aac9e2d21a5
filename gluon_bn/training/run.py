"""A training run as an object: a network, its trainer, its loss, and the sums so far; and the loop.

    run = Run(net, trainer, loss)
    run.step(X, y)                           # one step
    run.train(train_iter, test_iter, 10)     # all of them, with records and callbacks

What else there is to a run, such as checkpoints, Ctrl-C and clipping, is told of it as a callback.
A run of another kind, with two networks for example, is another `step` and other `Sums`:
`gluon_bn.adversarial` has one.
"""

import collections
import math
import time
from dataclasses import dataclass, fields

import mxnet as mx
import numpy as np
from mxnet import autograd

from gluon_bn import checkpoint
from gluon_bn.arguments import check_pair
from gluon_bn.training.evaluation import count, count_correct, device_of, scores_of, share
from gluon_bn.training.start import length, seed_everything
from gluon_bn.workers import World

# How many steps the program may run ahead of the numbers it has read back. MXNet computes in the
# background; reading a loss waits for it. Reading it two steps late, nobody has to wait.
AHEAD = 2

# Random numbers start anew for each group of so many batches; a run can be resumed between groups.
GROUP = 8


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why, and what to try."""


@dataclass
class Sums:
    """How far an epoch is, and its sums so far: what a checkpoint in its middle has to remember."""

    batches: int = 0
    seconds: float = 0.0

    @classmethod
    def total(cls, parts):
        """The sums of all workers together. Batches and seconds they share."""
        shared = {"batches": parts[0].batches, "seconds": max(part.seconds for part in parts)}
        names = [field.name for field in fields(cls) if field.name not in shared]
        return cls(**shared, **{name: sum(getattr(p, name) for p in parts) for name in names})


@dataclass
class ClassifierSums(Sums):
    examples: int = 0
    loss: float = 0.0
    correct: int = 0

    def add(self, loss, scores, y):
        """What the network said of a batch; waits until it has said it."""
        self.correct += count_correct(scores, y)
        self.examples += len(y)
        self.loss += float(loss.asnumpy().sum(dtype=np.float64))

    def means(self):
        """What `Callback.on_batch` is told: the averages of the epoch so far."""
        examples = self.examples or 1  # the part of one of many workers may be empty
        return self.loss / examples, self.correct / examples

    def record(self, epoch, test_accuracy):
        """The record of the epoch."""
        loss, accuracy = self.means()
        return {
            "epoch": epoch,
            "train_loss": loss,
            "train_accuracy": accuracy,
            "test_accuracy": test_accuracy,
            "seconds": self.seconds,
            "examples_per_second": self.examples / self.seconds,
        }


class Run:
    """A run: what is trained, how far it is, and who is told.

    Parameters
    ----------
    net : Block
    trainer : gluon.Trainer, which does not update on a kvstore
    loss : function of scores and y, to the loss of each example
    callbacks : told in this order; see `Callback`
    seed : int
    ctx : device, by default that of the network's parameters
    group : int; the run can be stopped after every so many batches
    workers : the `gluon_bn.workers.World` that shares the batches; None, nobody

    Examples
    --------
    >>> net = nn.Dense(2, in_units=1)
    >>> training.initialize(net)
    >>> trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 1}, kvstore=None)
    >>> run = training.Run(net, trainer, gluon.loss.SoftmaxCrossEntropyLoss())
    >>> loss, scores, y = run.step(nd.array([[0], [1]]), nd.array([0, 1]))
    >>> loss.shape, scores.shape
    ((2,), (2, 2))
    """

    new_sums: type = ClassifierSums

    def __init__(
        self, net, trainer, loss, callbacks=(), *, seed=0, ctx=None, group=GROUP, workers=None
    ):
        self.net, self.trainer, self.loss, self.callbacks = net, trainer, loss, list(callbacks)
        self.seed, self.ctx, self.group = seed, ctx or device_of(net), group
        self.workers = workers or World()
        self.records, self.sums = [], self.new_sums()
        self.waiting, self.since = collections.deque(), None

    def train(self, train_iter, test_iter=None, epochs=1):
        """Train until `epochs` epochs are done; return their records."""
        try:
            self.tell("on_run_start", self)  # where a checkpoint is, the run is now as far as that
            while len(self.records) < epochs:
                self.tell("on_epoch_start", self.epoch, length(train_iter))
                self.since = time.perf_counter()
                for number, batch, examples in self.batches_to_come(train_iter):
                    said = self.step(*batch, examples)
                    self.waiting.append(None if self.workers.idle else said)
                    if len(self.waiting) > AHEAD:
                        self.read()
                    if number % self.group == 0:
                        self.tell("on_group_end", self)
                self.catch_up()
                self.since = None
                self.records.append(self.record(self.test(test_iter)))
                self.sums = self.new_sums()
                self.tell("on_epoch_end", self.records)
        finally:
            self.tell("on_run_end", self)
        return self.records

    def step(self, X, y, examples=None):
        """Move the weights by one batch; return its losses, its scores and y, not waited for.

        examples : those of the whole batch, where (X, y) is one worker's part of it.
        """
        loss, scores = self.gradients(X, y)
        self.trainer.allreduce_grads()
        examples = len(y) if examples is None else examples
        self.tell("on_gradients", self, examples)
        self.trainer.update(examples)  # the gradient of the sum, divided by the examples
        self.tell("on_step", self)
        return loss.detach(), scores.detach(), y

    def gradients(self, X, y):
        """Forward and backward; return the losses and the scores."""
        with autograd.record(train_mode=True):
            scores = scores_of(self.net, X)
            loss = self.loss(scores, y)
            if self.workers.idle:  # these examples are another worker's
                loss = loss * 0
        loss.backward()
        return loss, scores

    @property
    def epoch(self):
        """The number of the epoch that goes on, from 1."""
        return len(self.records) + 1

    def batches_to_come(self, train_iter):
        """(number from 1, batch, its examples) of those batches of the epoch not trained on yet.

        Random numbers start anew for each group of GROUP batches. MXNet cannot tell the state of
        its generator, so it cannot be saved; a run that goes on between two groups does not need
        it. (Seeding takes a millisecond, too long to do it for each batch.)
        """
        done = self.sums.batches
        seed_everything(self.seed, self.epoch)
        if hasattr(train_iter, "set_epoch"):
            train_iter.set_epoch(self.epoch - 1)
        for number, batch in enumerate(map(check_pair, train_iter), 1):
            if number > 1 and number % GROUP == 1:
                seed_everything(self.seed, self.epoch, number - 1)
            if number > done:
                part = [array.as_in_context(self.ctx) for array in self.workers.part(batch)]
                yield number, part, len(batch[1])

    def read(self):
        """Add up what the network said of a batch. That waits for it."""
        said = self.waiting.popleft()
        if said is not None:
            self.sums.add(*said)
        self.sums.batches += 1
        means = self.sums.means()
        for value in means:
            if not math.isfinite(value):
                raise TrainingError(
                    f"The loss became {value} in batch {self.sums.batches} of epoch {self.epoch}: "
                    f"the weights have run away. A smaller learning rate than "
                    f"{self.trainer.optimizer.lr:g} helps."
                )
        self.tell("on_batch", self.epoch, self.sums.batches, *means)

    def catch_up(self):
        """Read all that is waiting, so that the sums are those of every step that was taken."""
        while self.waiting:
            self.read()
        if self.since is not None:  # in the test no time is counted
            mx.nd.waitall()
            now = time.perf_counter()
            self.sums.seconds, self.since = self.sums.seconds + now - self.since, now

    def test(self, test_iter):
        """The test accuracy now; None without a test set."""
        self.tell("on_test", self)
        if test_iter is None:
            return None
        return share(self.workers.gather(count(self.net, self.test_batches(test_iter), self.ctx)))

    def test_batches(self, batches):
        for batch in batches:
            part = self.workers.part(batch)
            if not self.workers.idle:
                yield part
            self.tell("on_group_end", self)

    def record(self, test_accuracy):
        """The record of the epoch that is over now."""
        whole = self.sums.total(self.workers.gather(self.sums))
        if not whole.batches:
            raise TrainingError("There is no training data: train_iter yielded no batch.")
        return whole.record(self.epoch, test_accuracy)

    def tell(self, event, *arguments):
        """Call the method `event` of every callback; at the end of the run the last one first."""
        step = -1 if event == "on_run_end" else 1
        for callback in self.callbacks[::step]:
            method = getattr(callback, event, None)
            if method is not None:
                method(*arguments)

    def state(self):
        """What a checkpoint holds of the run besides its records: (header, arrays)."""
        return checkpoint.pack(self.net, self.trainer)

    def restore(self, header, arrays):
        """Take over what `state` gave; raise CheckpointError, nothing changed, if it cannot be."""
        checkpoint.unpack(header, arrays, self.net, self.trainer)
