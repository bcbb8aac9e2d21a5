"""Training a generator against a discriminator, and asking a third network what it drew.

    G, D = models.generator(), models.discriminator()
    fit(G, D, data.batches(64)[0], epochs=1)
    images = draw(G, labels, seed=0)
    score(G, classifier, images_per_class=100)

The networks are those of `gluon_bn.models.gan`; chapter 8 explains the losses.
"""

import mxnet as mx
import numpy as np
from mxnet import autograd, nd

from gluon_bn import recipe
from gluon_bn.arguments import as_nd, check_count, either_kind
from gluon_bn.training import TrainingError, initialize, seed_everything

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
        z = nd.random.normal(shape=(n, G.latent))
        fake = G(z.as_np_ndarray() if isinstance(labels, mx.np.ndarray) else z, labels)
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


@either_kind
def _together(one, other):
    return nd.concat(one, other, dim=0)


def fit(G, D, train_iter, epochs, lr=5e-4, seed=0, after_epoch=None):
    """Train G and D on batches (X, labels); the learning rate falls like a cosine to zero.

    after_epoch : called with (epoch from 1, mean loss of D, mean loss of G).
    Raises TrainingError if a loss is no longer a finite number.
    """
    check_count("epochs", epochs, least=1)
    seed_everything(seed)
    for net in (G, D):
        initialize(net)
    updates = epochs * len(train_iter)
    trainers = new_trainers(G, D, lr, lambda: mx.lr_scheduler.CosineScheduler(updates, lr))
    for epoch in range(1, epochs + 1):
        seed_everything(seed, epoch)
        train_iter.set_epoch(epoch - 1)
        losses = [step(G, D, X, labels, trainers) for X, labels in train_iter]
        means = [
            float(nd.concat(*map(as_nd, values), dim=0).mean().asscalar())
            for values in zip(*losses)
        ]
        if not np.isfinite(means).all():
            raise TrainingError(
                f"The losses became {means} in epoch {epoch}: the weights have run "
                f"away. A smaller learning rate than {lr:g} helps."
            )
        if after_epoch:
            after_epoch(epoch, *means)


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
