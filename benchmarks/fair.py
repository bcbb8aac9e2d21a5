"""LeNet with and without batch norm, each at its own best start and learning rate. Chapter 5.

    python benchmarks/fair.py --threads 1           # a quarter of an hour of one core

*The search.* Every initialization with every rate, for two epochs on the first 50,000 training
images; the pair with the best accuracy on the other 10,000 is taken. The test images are not used.
*The runs.* That pair, eight epochs on all 60,000, three seeds. *Regularization*: 2,000 images, so
often that both networks know them by heart.

Stochastic gradient descent with momentum 0.9 and the one-cycle schedule throughout. Times are CPU
times of the process. Writes benchmarks/results/fair.json.
"""

import argparse
import dataclasses
import time
from pathlib import Path

from mxnet import init

from gluon_bn import runtime
from gluon_bn.data import dataset
from gluon_bn.models import lenet
from gluon_bn.training import TrainingError, evaluate, fit, write_json

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
SEEDS = (0, 1, 2)
# With "Xavier times 4" z keeps its size through a sigmoid, whose slope is at most 1/4.
STARTS = {
    "Xavier": lambda: init.Xavier(),
    "Xavier times 4": lambda: init.Xavier(magnitude=3 * 16),
    "He": lambda: init.MSRAPrelu("in", 0),
}
# (activation, norm): initializations, rates
CONTESTANTS = {
    ("sigmoid", "none"): (("Xavier", "Xavier times 4"), (0.3, 1.0, 3.0, 10.0)),
    ("sigmoid", "auto"): (("Xavier",), (0.3, 1.0, 3.0, 10.0)),
    ("relu", "none"): (("Xavier", "He"), (0.01, 0.03, 0.1, 0.3)),
    ("relu", "auto"): (("Xavier",), (0.03, 0.1, 0.3, 1.0)),
}


def run(images, activation, norm, start, rate, epochs, seed=0, batch_size=256, test=True):
    """One run on the training images of a `Dataset`; None if its loss became infinite."""
    net = lenet(norm, activation=activation)
    net.initialize(STARTS[start]())  # drawn in `fit`, with its seed
    net.hybridize()
    train_iter, test_iter = images.batches(batch_size, seed=seed)
    began = time.process_time()
    try:
        records = fit(
            net,
            train_iter,
            test_iter if test else None,
            epochs,
            rate,
            seed=seed,
            schedule="one-cycle",
            optimizer_params={"momentum": 0.9},
        )
    except TrainingError:
        return None
    seconds = time.process_time() - began
    keys = ("epoch", "train_loss", "train_accuracy", "test_accuracy")
    return {
        "seed": seed,
        "epochs": [{key: record[key] for key in keys} for record in records],
        "final_train_accuracy": evaluate(net, images.batches(1000)[0]),
        "test_accuracy": evaluate(net, test_iter),
        "cpu_seconds": seconds,
    }


def search(data, activation, norm, epochs=2):
    """The validation accuracy of each (initialization, rate); NaN is written as None."""
    count = len(data.train_labels) * 5 // 6  # 50,000 of 60,000
    held_out = dataclasses.replace(
        data,
        train_images=data.train_images[:count],
        train_labels=data.train_labels[:count],
        test_images=data.train_images[count:],
        test_labels=data.train_labels[count:],
    )
    starts, rates = CONTESTANTS[activation, norm]
    found = []
    for start in starts:
        for rate in rates:
            result = run(held_out, activation, norm, start, rate, epochs, test=False)
            accuracy = result and result["test_accuracy"]
            found.append({"start": start, "lr": rate, "validation_accuracy": accuracy})
            print(activation, norm, found[-1], flush=True)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--limit", type=int, help="keep so many training images: a trial")
    parser.add_argument("--output", type=Path, default=RESULTS / "fair.json")
    options = parser.parse_args()
    machine = runtime.configure(options.threads)
    data, small = dataset(limit=options.limit), dataset(limit=2_000)
    contests, regularization = [], []
    for activation, norm in CONTESTANTS:
        found = search(data, activation, norm)
        best = max(found, key=lambda tried: tried["validation_accuracy"] or 0)
        runs = []
        for seed in SEEDS:
            runs.append(
                run(data, activation, norm, best["start"], best["lr"], options.epochs, seed)
            )
            print(activation, norm, best, runs[-1] and runs[-1]["test_accuracy"], flush=True)
        label = {"activation": activation, "norm": norm, "start": best["start"], "lr": best["lr"]}
        contests.append({**label, "search": found, "runs": runs})
        if activation == "relu":
            runs = [
                run(small, activation, norm, best["start"], best["lr"], 60, s, 50, test=False)
                for s in SEEDS
            ]
            print([r and (r["final_train_accuracy"], r["test_accuracy"]) for r in runs], flush=True)
            for result in filter(None, runs):
                del result["epochs"][:-1]  # sixty lines a run; the last one tells
            regularization.append({**label, "batch_size": 50, "runs": runs})
    write_json(
        options.output,
        {
            "command": "python benchmarks/fair.py --threads 1",
            "optimizer": "sgd, momentum 0.9, one-cycle",
            "batch_size": 256,
            "dataset": data.summary(),
            "contests": contests,
            "regularization": regularization,
            "machine": machine,
            "versions": runtime.versions(),
        },
    )


if __name__ == "__main__":
    main()
