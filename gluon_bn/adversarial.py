"""Training a generator against a discriminator, and asking a third network what it drew.

    G, D = models.generator(), models.discriminator()
    fit(G, D, data.batches(64)[0], epochs=1)
    images = draw(G, labels, seed=0)
    score(G, classifier, images_per_class=100)

The networks are those of `gluon_bn.models.gan`; chapter 8 explains the losses.
"""

from dataclasses import dataclass

import mxnet as mx
import numpy as np
from mxnet import autograd, nd

from gluon_bn import recipe
from gluon_bn.arguments import check_count, either_kind
from gluon_bn.checkpoint import pack, under, unpack
from gluon_bn.training import Callback, around, check_resume, initialize, seed_everything
from gluon_bn.training.run import GROUP, Run, Sums
from gluon_bn.training.saving import Checkpoint

ADAM = {"beta1": 0.0, "beta2": 0.9}  # no momentum: the other network changes what is right


@either_kind
def discriminator_loss(real_scores, fake_scores):
    """The hinge loss (Lim and Ye, 2017): real images should score above 1, drawn ones below -1;
    what is beyond is good enough. From scores (N,) to one number, shape (1,)."""
    return nd.relu(1 - real_scores).mean() + nd.relu(1 + fake_scores).mean()


@either_kind
def generator_loss(fake_scores):
    """Drawn images should score high. From scores (N,) to one number, shape (1,)."""
    return -fake_scores.mean()


def new_trainers(G, D, lr, schedule=None):
    """Adam for both networks, the learning rate and its schedule the same for both."""
    return [
        recipe.trainer(
            net, "adam", {"learning_rate": lr, "lr_scheduler": schedule and schedule(), **ADAM}
        )
        for net in (G, D)
    ]


def step(G, D, X, labels, trainers):
    """One step of both networks on real images X (N, 1, H, W) and their labels (N,).

    The generator draws one image for each label; the discriminator learns to tell them from X, and
    then the generator from the discriminator. Returns the two losses, not waited for.
    """
    of_generator, of_discriminator = trainers
    n = len(labels)
    with autograd.record():
        fake = G(_noise(n, G, labels), labels)
        # In one batch: the discriminator's power iteration then takes one step, as it should.
        scores = D(_together(X, fake.detach()), _together(labels, labels))
        loss_d = discriminator_loss(scores[:n], scores[n:])
    loss_d.backward()
    of_discriminator.step(1)
    with autograd.record():
        loss_g = generator_loss(D(fake, labels))
    loss_g.backward()
    of_generator.step(1)
    return loss_d, loss_g


def _noise(n, G, like):
    z = nd.random.normal(shape=(n, G.latent))
    return z.as_np_ndarray() if isinstance(like, mx.np.ndarray) else z


@either_kind
def _together(one, other):
    return nd.concat(one, other, dim=0)


@dataclass
class Losses(Sums):
    """The sums of the two losses of an epoch so far."""

    discriminator: float = 0.0
    generator: float = 0.0

    def add(self, loss_d, loss_g):
        self.discriminator += loss_d.asnumpy().item()
        self.generator += loss_g.asnumpy().item()

    def means(self):
        return self.discriminator / self.batches, self.generator / self.batches

    def record(self, epoch, _):
        loss_d, loss_g = self.means()
        return {
            "epoch": epoch,
            "discriminator_loss": loss_d,
            "generator_loss": loss_g,
            "seconds": self.seconds,
        }


class AdversarialRun(Run):
    """A run of two networks, each with a trainer and a loss of its own. `net` is the generator."""

    new_sums = Losses

    def __init__(self, G, D, trainers, callbacks=(), *, seed=0, group=GROUP):
        super().__init__(G, trainers[0], None, callbacks, seed=seed, group=group)
        self.parts = dict(zip(("generator", "discriminator"), zip((G, D), trainers)))

    def step(self, X, labels, examples=None):
        (G, of_generator), (D, of_discriminator) = self.parts.values()
        losses = step(G, D, X, labels, (of_generator, of_discriminator))
        self.tell("on_step", self)
        return losses

    def state(self):
        header, arrays = {}, {}
        for name, part in self.parts.items():
            header[name], found = pack(*part)
            arrays.update({f"{name}/{key}": array for key, array in found.items()})
        return header, arrays

    def restore(self, header, arrays):
        for name, part in self.parts.items():
            unpack(header[name], under(name, arrays), *part)


class _AfterEpoch(Callback):
    def __init__(self, function):
        self.function = function

    def on_epoch_end(self, epochs):
        last = epochs[-1]
        self.function(last["epoch"], last["discriminator_loss"], last["generator_loss"])


def fit(
    G,
    D,
    train_iter,
    epochs,
    lr=5e-4,
    seed=0,
    after_epoch=None,
    *,
    callbacks=(),
    checkpoint=None,
    resume=False,
):
    """Train G and D on batches (X, labels); the learning rate falls like a cosine to zero.

    after_epoch : called with (epoch from 1, mean loss of D, mean loss of G).
    callbacks, checkpoint, resume : as in `training.fit`; `on_batch` is told the two losses. A run
        that was stopped goes on to the same last bit.

    Returns the record of each epoch, a dict: epoch (from 1), discriminator_loss, generator_loss
    (averages over the epoch), seconds.
    Raises TrainingError if a loss is no longer a finite number, CheckpointError as `training.fit`.
    """
    check_count("epochs", epochs, least=1)
    check_resume(checkpoint, resume)
    seed_everything(seed)
    _prepare(G, D, train_iter)
    updates = epochs * len(train_iter)
    trainers = new_trainers(G, D, lr, lambda: mx.lr_scheduler.CosineScheduler(updates, lr))
    settings = {"adversarial": True, "lr": lr, "seed": seed, "epochs": epochs}
    callbacks = around(
        [*callbacks, *([_AfterEpoch(after_epoch)] if after_epoch else [])],
        checkpoint and Checkpoint(checkpoint, settings, resume),
    )
    run = AdversarialRun(G, D, trainers, callbacks, seed=seed, group=GROUP if checkpoint else 1)
    return run.train(train_iter, epochs=epochs)


def _prepare(G, D, train_iter):
    """The first values of both networks; for a deferred parameter its shape, from a first image."""
    for net in (G, D):
        initialize(net)
    for X, labels in train_iter:
        G(_noise(1, G, labels), labels[:1])  # prediction mode: no state moves
        D(X[:1], labels[:1])
        break


def draw(G, labels, seed=0, z=None):
    """Images (N, 1, H, W) of G for labels (N,), in prediction mode, from noise of `seed`.

    z : the noise (N, latent), if it is not to be drawn.
    """
    array = mx.np.array if mx.util.is_np_array() else nd.array
    labels = labels if isinstance(labels, nd.NDArray) else array(labels, dtype="float32")
    if z is None:
        z = array(np.random.RandomState(seed).normal(size=(len(labels), G.latent)), dtype="float32")
    return G(z, labels)


def score(G, classifier, images_per_class=100, seed=0):
    """How often `classifier` sees in a drawn image the class that G was asked for.

    Returns (share of all images, the table of counts (num_classes asked, num_classes seen)).
    """
    asked = np.repeat(np.arange(G.num_classes), images_per_class)
    images = draw(G, asked, seed)
    seen = np.concatenate(
        [
            classifier(images[i : i + 500]).asnumpy().argmax(axis=1)
            for i in range(0, len(asked), 500)
        ]
    )
    counts = np.zeros((G.num_classes, G.num_classes), int)
    np.add.at(counts, (asked, seen), 1)
    return float((asked == seen).mean()), counts
