"""The generator and its discriminator, their training, and the judge's score."""

import json
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, nd
from test_training import PressesCtrlC, without_times

from gluon_bn import adversarial
from gluon_bn.checkpoint import read_checkpoint
from gluon_bn.data import dataset
from gluon_bn.models import discriminator, generator, lenet
from gluon_bn.runtime import settle
from gluon_bn.training import CheckpointError, TrainingError, seed_everything

RECORDED = Path(__file__).parent.parent / "benchmarks" / "results" / "gan"


@pytest.fixture
def networks():
    seed_everything(0)
    return initialized(generator(width=16)), initialized(discriminator(width=8))


def initialized(net):
    net.initialize(mx.init.Xavier())
    return net


def values(net):
    settle()
    return [
        parameter.data().asnumpy().copy()
        for parameter in net.collect_params().values()
        if parameter.grad_req != "null"
    ]


def same(before, after):
    return all((a == b).all() for a, b in zip(before, after))


# The networks -------------------------------------------------------------------------------------


def test_the_generator_is_that_of_gluons_layers(networks):
    """An independent build: Gluon's layers, gamma and beta put in by hand."""
    G, _ = networks
    z, labels = nd.random.normal(shape=(5, 64)), nd.array([0, 9, 3, 3, 1])
    G(z, labels)
    for norm in G.norms:
        for parameter in (norm.gamma, norm.beta):
            parameter.set_data(nd.random.normal(1, 0.5, shape=parameter.shape))
    dense = gluon.nn.Dense(16 * 49)
    layers = [
        gluon.nn.Conv2DTranspose(12, 4, 2, 1),
        gluon.nn.Conv2DTranspose(6, 4, 2, 1),
        gluon.nn.Conv2D(1, 3, padding=1),
    ]
    norms = [gluon.nn.BatchNorm(center=False, scale=False) for _ in range(3)]
    for net in (dense, *layers, *norms):
        net.initialize()

    def independent():
        with autograd.train_mode():
            X = dense(z).reshape((5, 16, 7, 7))
            for norm, ours, layer in zip(norms, G.norms, layers):
                rows = [
                    nd.array(p.data().asnumpy()[[0, 9, 3, 3, 1]].reshape(5, -1, 1, 1))
                    for p in (ours.gamma, ours.beta)
                ]
                X = layer(nd.maximum(norm(X) * rows[0] + rows[1], 0))
            return X.sigmoid().asnumpy()

    independent()  # gives every layer its shape
    for theirs, ours in zip((dense, *layers), (G.dense, *G.convolutions)):
        theirs.weight.set_data(ours.weight.data())
        theirs.bias.set_data(ours.bias.data())
    with autograd.train_mode():
        images = G(z, labels).asnumpy()
    np.testing.assert_allclose(images, independent(), atol=1e-5)
    assert images.shape == (5, 1, 28, 28)
    assert images.min() >= 0 and images.max() <= 1


def test_a_label_reaches_the_image_through_its_row_only(networks):
    G, _ = networks
    z = nd.random.normal(shape=(1, 64))
    before = [G(z, nd.array([k])).asnumpy() for k in range(3)]
    assert (before[0] == before[1]).all()  # all rows start the same
    G.norms[1].beta.data()[1] += 1
    after = [G(z, nd.array([k])).asnumpy() for k in range(3)]
    assert [bool((a == b).all()) for a, b in zip(before, after)] == [True, False, True]


@pytest.mark.parametrize("norm", ["auto", "pixel", "gluon"])
@pytest.mark.parametrize("told", [False, True])
def test_other_norms_see_the_label_beside_the_noise_or_not_at_all(norm, told):
    G = initialized(generator(norm, width=8, label_input=told))
    z = nd.random.normal(shape=(2, 64))
    a, b = (G(z, nd.array(labels)).asnumpy() for labels in ([1, 2], [3, 4]))
    assert (a == b).all() != told


def test_the_discriminator_divides_by_the_largest_singular_value(networks):
    _, D = networks
    X, labels = nd.random.uniform(shape=(4, 1, 28, 28)), nd.array([1, 1, 7, 0])
    for _ in range(200):
        with autograd.train_mode():
            D(X, labels)

    def plain(layer):
        weight = layer.weight.data().asnumpy()
        return nd.array(weight / np.linalg.svd(weight.reshape(len(weight), -1))[1][0])

    A = X
    for layer, stride in zip(D.features[::2], (2, 2, 1)):
        weight = plain(layer)
        A = nd.Convolution(
            A,
            weight,
            layer.bias.data(),
            kernel=weight.shape[2:],
            stride=(stride, stride),
            pad=(1, 1),
            num_filter=len(weight),
        )
        A = nd.maximum(A, 0.1 * A)
    phi = A.asnumpy().sum(axis=(2, 3), dtype=np.float64)
    w, v = plain(D.real).asnumpy()[0], plain(D.of_class).asnumpy().T
    expected = [phi[n] @ w + phi[n] @ v[k] for n, k in enumerate((1, 1, 7, 0))]
    np.testing.assert_allclose(
        D(X, labels).asnumpy(), expected + D.real.bias.data().asnumpy(), rtol=2e-3
    )


@pytest.mark.parametrize(
    "arguments", [{"latent": 0}, {"num_classes": 0}, {"width": -1}, {"norm": "batchnorm5"}]
)
def test_bad_arguments_of_the_generator(arguments):
    with pytest.raises(ValueError):
        generator(**arguments)


@pytest.mark.parametrize("options", [{}, {"norm": "auto", "label_input": True}, {"norm": "auto"}])
def test_bad_labels_are_named(networks, options):
    """MXNet's one_hot makes a row of zeros of them."""
    G, D = generator(**options), networks[1]
    G.initialize()
    for refuse in (
        lambda: G(nd.random.normal(shape=(2, 64)), nd.array([0, 10])),
        lambda: D(nd.zeros((2, 1, 28, 28)), nd.array([0, 10])),
    ):
        with pytest.raises(ValueError, match="label 10"):
            refuse()


# Training -----------------------------------------------------------------------------------------


def test_losses_by_hand():
    real, fake = nd.array([2.0, 0.5, -1.0]), nd.array([-3.0, 0.0, 1.0])
    assert adversarial.discriminator_loss(real, fake).asscalar() == pytest.approx(2.5 / 3 + 3 / 3)
    assert adversarial.generator_loss(fake).asscalar() == pytest.approx(2 / 3)


@pytest.mark.parametrize("learner", [0, 1])
def test_a_step_changes_each_network_by_its_own_loss(networks, learner):
    G, D = networks
    X, labels = nd.random.uniform(shape=(6, 1, 28, 28)), nd.arange(6)
    G(nd.zeros((6, 64)), labels)
    trainers = adversarial.new_trainers(G, D, 1e-3)
    trainers[1 - learner].set_learning_rate(0)
    before = values(G), values(D)
    adversarial.step(G, D, X, labels, trainers)
    assert same(before[learner], values((G, D)[learner])) is False
    assert same(before[1 - learner], values((G, D)[1 - learner])) is True


def test_the_discriminator_learns_to_tell_and_the_generator_to_please(networks):
    G, D = networks
    X, labels = nd.random.uniform(0.8, 1, shape=(8, 1, 28, 28)), nd.arange(8)
    still = adversarial.new_trainers(G, D, 2e-3)
    still[0].set_learning_rate(0)
    losses = [float(adversarial.step(G, D, X, labels, still)[0].asscalar()) for _ in range(40)]
    assert losses[-1] < 0.7 * losses[0]
    still = adversarial.new_trainers(G, D, 2e-3)
    still[1].set_learning_rate(0)
    losses = [float(adversarial.step(G, D, X, labels, still)[1].asscalar()) for _ in range(40)]
    assert losses[-1] < losses[0] - 0.5


def test_fit_repeats_itself(networks):
    batches = dataset(stand_in=True, limit=64).batches(16)[0]
    told = []
    weights = []
    for _ in range(2):
        seed_everything(5)
        G, D = generator(width=8), discriminator(width=4)
        adversarial.fit(G, D, batches, epochs=2, seed=3, after_epoch=lambda *now: told.append(now))
        weights.append(values(G) + values(D))
    assert same(*weights)
    assert told[:2] == told[2:] and [epoch for epoch, _, _ in told] == [1, 2, 1, 2]


def test_a_loss_that_is_no_number_stops_the_run(networks):
    class Broken:
        def __len__(self):
            return 1

        def set_epoch(self, epoch):
            pass

        def __iter__(self):
            yield nd.full((4, 1, 28, 28), np.nan), nd.arange(4)

    with pytest.raises(TrainingError, match="learning rate"):
        adversarial.fit(*networks, Broken(), epochs=1)


@pytest.mark.parametrize("at", [(1, 3), (2, 5)])
def test_a_stopped_run_goes_on_to_the_last_bit(at, tmp_path):
    """Both networks, both optimizers, the state of the spectral norms, the losses so far."""

    def run(**more):
        G, D = generator(width=8), discriminator(width=4)
        batches = dataset(stand_in=True, limit=64).batches(4)[0]
        records = adversarial.fit(G, D, batches, epochs=2, seed=3, **more)
        settle()
        parameters = {**G.collect_params(), **D.collect_params()}.values()
        return without_times(records), [p.data().asnumpy() for p in parameters]

    straight = run()
    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=path, callbacks=[PressesCtrlC(*at)])
    header, _ = read_checkpoint(path)
    assert (len(header["epochs"]), header["partial"]["batches"]) == (at[0] - 1, 8)
    resumed = run(checkpoint=path, resume=True)
    assert resumed[0] == straight[0] and same(resumed[1], straight[1])
    with pytest.raises(CheckpointError, match="lr = 0.0005, and this one has lr = 0.1"):
        run(checkpoint=path, resume=True, lr=0.1)
    with pytest.raises(ValueError, match="needs a checkpoint"):
        run(resume=True)


# Drawing and judging ------------------------------------------------------------------------------


def test_draw_is_a_matter_of_seed_and_label(networks):
    G, _ = networks
    a, b, c = (adversarial.draw(G, [1, 2, 3], seed).asnumpy() for seed in (0, 0, 1))
    assert (a == b).all() and not (a == c).all()
    z = np.random.RandomState(0).normal(size=(3, 64))
    assert (adversarial.draw(G, nd.array([1, 2, 3]), z=nd.array(z)).asnumpy() == a).all()


def test_score_counts_what_was_asked_and_what_was_seen():
    class Painter:
        """Paints its label as a shade of grey; class 2 it paints as class 0."""

        latent, num_classes = 3, 4

        def __call__(self, z, labels):
            shade = nd.where(labels == 2, nd.zeros_like(labels), labels)
            return shade.reshape((-1, 1, 1, 1)) * nd.ones((1, 1, 5, 5))

    def classifier(images):
        return nd.one_hot(images[:, 0, 2, 2], 4)

    share, counts = adversarial.score(Painter(), classifier, images_per_class=150)
    assert share == 0.75
    assert counts.tolist() == [[150, 0, 0, 0], [0, 150, 0, 0], [150, 0, 0, 0], [0, 0, 0, 150]]


def test_the_recorded_generator_scores_what_its_record_says():
    record = json.loads((RECORDED / "gan.json").read_text())
    assert record["dataset"] == {"name": "fashion-mnist", "train": 60000, "test": 10000}
    G, judge = generator(), lenet()
    G.load_parameters(str(RECORDED / "generator.params"))
    judge.load_parameters(str(RECORDED / "classifier.params"))
    share, counts = adversarial.score(G, judge, record["settings"]["images_per_class"])
    assert share == pytest.approx(record["long"]["score"], abs=0.005)  # other machines round
    assert share >= 0.8
    assert np.diag(counts).min() > 0.5 * counts.sum(axis=1)[0], "a class that it cannot draw"
