"""Train the generators of chapter 8, and let a classifier that never met them say what they drew.

    python benchmarks/gan.py --threads 1           # about an hour; stopped, it goes on where it was

The classifier is a LeNet, trained on the 60,000 real images. The generator of the chapter is
trained with ConditionalBatchNorm for EPOCHS epochs. Beside it, each for SHORT epochs: the same one,
batch norm without a label, batch norm and pixel norm with the label beside the noise. Results go to
benchmarks/results/gan: gan.json, gan.png, generator.params and classifier.params.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from gluon_bn import adversarial, runtime
from gluon_bn.data import CLASS_NAMES, dataset
from gluon_bn.models import lenet
from gluon_bn.models.gan import discriminator, generator
from gluon_bn.plotting import plot_images
from gluon_bn.training import Callback, evaluate, fit, write_figure, write_json

ROOT = Path(__file__).resolve().parent.parent
RUNS, RESULTS = ROOT / "runs" / "gan", ROOT / "benchmarks" / "results" / "gan"
EPOCHS, SHORT, BATCH, LR, SEED = 10, 2, 64, 1e-3, 0
IMAGES_PER_CLASS = 200

SHORT_RUNS = {  # how the label reaches the generator, and what normalizes it
    "conditional batch norm": {"norm": "conditional"},
    "batch norm, no label": {"norm": "auto"},
    "batch norm, label beside the noise": {"norm": "auto", "label_input": True},
    "pixel norm, label beside the noise": {"norm": "pixel", "label_input": True},
}


def trained_classifier(data, path):
    """The LeNet that judges, trained or read; and its accuracy on the real test images."""
    net = lenet()
    net.hybridize()
    train_iter, test_iter = data.batches(256)
    if path.exists():
        net.load_parameters(str(path))
    else:
        fit(
            net,
            train_iter,
            epochs=10,
            lr=1.0,
            optimizer_params={"momentum": 0.9},
            schedule="one-cycle",
            seed=SEED,
        )
        net.save_parameters(str(path))
    return net, evaluate(net, test_iter)


class Scores(Callback):
    """What the classifier sees in the drawings after each epoch; kept in the checkpoint."""

    def __init__(self, G, classifier, say):
        self.G, self.classifier, self.say = G, classifier, say
        self.shares, self.counts = [], []

    def on_epoch_end(self, epochs):
        share, self.counts = adversarial.score(self.G, self.classifier, IMAGES_PER_CLASS)
        self.shares.append(share)
        last = epochs[-1]
        print(
            f"{self.say}: epoch {last['epoch']}, losses {last['discriminator_loss']:.3f} and "
            f"{last['generator_loss']:.3f}, score {share:.3f}, {last['seconds']:.0f} s",
            flush=True,
        )

    def state(self):
        return {"shares": np.array(self.shares), "counts": np.array(self.counts)}

    def restore(self, state):
        self.shares, self.counts = state["shares"].tolist(), state["counts"]


def run(data, classifier, epochs, options):
    """Train one generator: `(generator, record)`; the record has an entry for each epoch."""
    G, D = generator(**options), discriminator()
    name = "-".join(map(str, [epochs, *options.values()]))
    scores = Scores(G, classifier, f"{options}, {epochs} epochs")
    RUNS.mkdir(parents=True, exist_ok=True)
    records = adversarial.fit(
        G,
        D,
        data.batches(BATCH)[0],
        epochs,
        LR,
        SEED,
        callbacks=[scores],
        checkpoint=RUNS / name,
        resume=True,
    )
    return G, {
        "options": options,
        "epochs": [{**record, "score": share} for record, share in zip(records, scores.shares)],
        "score": scores.shares[-1],
        "counts": scores.counts.tolist(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, help="default: all cores")
    machine = runtime.configure(parser.parse_args().threads)
    RESULTS.mkdir(parents=True, exist_ok=True)
    data = dataset()
    classifier, accuracy = trained_classifier(data, RESULTS / "classifier.params")
    path = RESULTS / "gan.json"
    result = (
        json.loads(path.read_text())
        if path.exists()
        else {
            "command": "python benchmarks/gan.py --threads 1",
            "settings": {
                "batch_size": BATCH,
                "learning_rate": LR,
                "seed": SEED,
                **adversarial.ADAM,
                "images_per_class": IMAGES_PER_CLASS,
            },
            "dataset": data.summary(),
            "classifier_test_accuracy": accuracy,
            "machine": machine,
            "versions": runtime.versions(),
            "short": {},
        }
    )
    if "long" not in result:
        G, result["long"] = run(data, classifier, EPOCHS, SHORT_RUNS["conditional batch norm"])
        G.save_parameters(str(RESULTS / "generator.params"))
        write_json(path, result)
    for name, options in SHORT_RUNS.items():
        if name not in result["short"]:
            _, result["short"][name] = run(data, classifier, SHORT, options)
            write_json(path, result)
    write_figure(RESULTS / "gan.png", plot_images(drawings(), CLASS_NAMES))


def drawings(columns=12):
    """What the recorded generator draws: (10, columns, 1, 28, 28), a row for each class."""
    G = generator()
    G.load_parameters(str(RESULTS / "generator.params"))
    images = adversarial.draw(G, np.repeat(np.arange(10), columns)).asnumpy()
    return images.reshape(10, columns, *images.shape[1:])


if __name__ == "__main__":
    main()
