"""Training a generator against a discriminator, and asking a third network what it drew.

::

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

__all__ = [
    "discriminator_loss",
    "draw",
    "fit",
    "generator_loss",
    "new_trainers",
    "score",
    "step",
]

ADAM = {"beta1": 0.0, "beta2": 0.9}  # no momentum: the other network changes what is right


@either_kind
def discriminator_loss(real_scores, fake_scores):
    """The hinge loss (Lim and Ye, 2017): real images should score above 1, drawn ones below -1;
    what is beyond is good enough.

    Parameters
    ----------
    real_scores, fake_scores : arrays (N,)

    Returns
    -------
    array (1,)

    Examples
    --------
    >>> print(adversarial.discriminator_loss(nd.array([3]), nd.array([0])).asnumpy())
    [1.]
    """
    return nd.relu(1 - real_scores).mean() + nd.relu(1 + fake_scores).mean()


@either_kind
def generator_loss(fake_scores):
    """Drawn images should score high.

    Parameters
    ----------
    fake_scores : array (N,)

    Returns
    -------
    array (1,)

    Examples
    --------
    >>> print(adversarial.generator_loss(nd.array([3, 1])).asnumpy())
    [-2.]
    """
    return -fake_scores.mean()


def new_trainers(G, D, lr, schedule=None):
    """Adam for both networks, the learning rate and its schedule the same for both.

    Parameters
    ----------
    G, D : Blocks, generator and discriminator
    lr : float
    schedule : function that makes a scheduler of MXNet's, or None

    Returns
    -------
    list of two gluon.Trainer

    Examples
    --------
    >>> G, D = models.generator(width=8), models.discriminator(width=4)
    >>> training.initialize(G)
    >>> training.initialize(D)
    >>> [trainer.learning_rate for trainer in adversarial.new_trainers(G, D, lr=5e-4)]
    [0.0005, 0.0005]
    """
    return [
        recipe.trainer(
            net, "adam", {"learning_rate": lr, "lr_scheduler": schedule and schedule(), **ADAM}
        )
        for net in (G, D)
    ]


def step(G, D, X, labels, trainers):
    """One step of both networks on real images and their labels.

    The generator draws one image for each label; the discriminator learns to tell them from X, and
    then the generator from the discriminator.

    Parameters
    ----------
    G, D : Blocks, generator and discriminator
    X : array (N, 1, H, W)
    labels : array (N,)
    trainers : one for G, one for D; see `new_trainers`

    Returns
    -------
    loss_d, loss_g : arrays (1,), not waited for

    Examples
    --------
    >>> G, D = models.generator(width=8), models.discriminator(width=4)
    >>> training.initialize(G)
    >>> training.initialize(D)
    >>> trainers = adversarial.new_trainers(G, D, lr=5e-4)
    >>> X, labels = nd.zeros((2, 1, 28, 28)), nd.array([3, 7])
    >>> [loss.shape for loss in adversarial.step(G, D, X, labels, trainers)]
    [(1,), (1,)]
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

    Parameters
    ----------
    G, D : Blocks, generator and discriminator
    train_iter : batches (X, labels), with a length
    epochs : int
    lr : float
    seed : int
    after_epoch : function of (epoch from 1, mean loss of D, mean loss of G), or None
    callbacks, checkpoint, resume : as for `training.fit`; `on_batch` is told the two losses
        A run that was stopped goes on to the same last bit.

    Returns
    -------
    list of dict, the record of each epoch
        epoch (from 1), discriminator_loss, generator_loss (averages over the epoch), seconds.

    Raises
    ------
    TrainingError : a loss is no longer a finite number
    CheckpointError : as `training.fit`

    Examples
    --------
    >>> G, D = models.generator(width=8), models.discriminator(width=4)
    >>> batches = [(nd.zeros((2, 1, 28, 28)), nd.array([3, 7]))]
    >>> sorted(adversarial.fit(G, D, batches, epochs=1)[0])
    ['discriminator_loss', 'epoch', 'generator_loss', 'seconds']
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
    """Images of G for labels, in prediction mode.

    Parameters
    ----------
    G : Block, generator
    labels : array or sequence (N,)
    seed : int, of the noise
    z : array (N, latent), the noise, if it is not to be drawn

    Returns
    -------
    array (N, 1, H, W)

    Examples
    --------
    >>> G = models.generator(width=8)
    >>> G.initialize()
    >>> adversarial.draw(G, [3, 7]).shape
    (2, 1, 28, 28)
    """
    array = mx.np.array if mx.util.is_np_array() else nd.array
    labels = labels if isinstance(labels, nd.NDArray) else array(labels, dtype="float32")
    if z is None:
        z = array(np.random.RandomState(seed).normal(size=(len(labels), G.latent)), dtype="float32")
    return G(z, labels)


def score(G, classifier, images_per_class=100, seed=0):
    """How often `classifier` sees in a drawn image the class that G was asked for.

    Parameters
    ----------
    G : Block, generator
    classifier : Block from images (N, 1, H, W) to scores (N, num_classes)
    images_per_class : int
    seed : int, of the noise

    Returns
    -------
    share : float, of all images
    counts : NumPy array (num_classes asked, num_classes seen)

    Examples
    --------
    >>> G, classifier = models.generator(width=8), nn.Dense(10)
    >>> G.initialize(), classifier.initialize()
    (None, None)
    >>> share, counts = adversarial.score(G, classifier, images_per_class=2)
    >>> counts.shape, int(counts.sum())
    ((10, 10), 20)
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
