"""LeNet, or ResNet-18, with and without batch norm, each at its own best start and learning rate.

    python benchmarks/fair.py --threads 1       # LeNet, chapter 5: a quarter of an hour of one core
    python benchmarks/fair.py --threads 1 --model resnet18 --keep runs/fair   # chapter 6: two hours

With `--keep`, a command that was stopped goes on where it was.

*The search.* Every initialization with every rate, for two epochs on the first 50,000 training
images; the pair with the best accuracy on the other 10,000 is taken. The test images are not used.
*The runs.* That pair, eight epochs on all 60,000, three seeds. ResNet-18 with batch norm runs with
the pair of the other, too. *Regularization*, LeNet only: 2,000 images, so often that both networks
know them by heart.

Stochastic gradient descent with momentum 0.9 and the one-cycle schedule throughout. Times are CPU
times of the process. Writes benchmarks/results/fair.json or fair_resnet18.json.
"""

import argparse
import itertools
import json
import time
from pathlib import Path

from mxnet import init

from gluon_bn import runtime
from gluon_bn.data import dataset
from gluon_bn.models import lenet, resnet18
from gluon_bn.models.resnet import Residual
from gluon_bn.training import TrainingError, evaluate, fit, write_json

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
SEEDS = (0, 1, 2)
BATCH_SIZE = {"lenet": 256, "resnet18": 128}
# With "Xavier times 4" z keeps its size through a sigmoid, whose slope is at most 1/4.
STARTS = {
    "Xavier": lambda: init.Xavier(),
    "Xavier times 4": lambda: init.Xavier(magnitude=3 * 16),
    "He": lambda: init.MSRAPrelu("in", 0),
    "He, blocks as the identity": lambda: init.MSRAPrelu("in", 0),
}
# model -> {(activation, norm): (initializations, rates)}
CONTESTANTS = {
    "lenet": {
        ("sigmoid", "none"): (("Xavier", "Xavier times 4"), (0.3, 1.0, 3.0, 10.0)),
        ("sigmoid", "auto"): (("Xavier",), (0.3, 1.0, 3.0, 10.0)),
        ("relu", "none"): (("Xavier", "He"), (0.01, 0.03, 0.1, 0.3)),
        ("relu", "auto"): (("Xavier",), (0.03, 0.1, 0.3, 1.0)),
    },
    "resnet18": {
        ("relu", norm): (("He", "He, blocks as the identity"), rates)
        for norm, rates in (
            ("none", (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)),
            ("auto", (0.01, 0.03, 0.1, 0.3, 1.0)),
        )
    },
}


def network(model, activation, norm, start, small=False):
    """The network, whose weights are drawn in `fit`, with its seed."""
    net = resnet18(norm, small=small) if model == "resnet18" else lenet(norm, activation=activation)
    if start.endswith("as the identity"):  # what ends the path of a block is 0; chapter 6

        def begin_as_the_identity(block):
            if isinstance(block, Residual):
                last = block.conv2.weight if norm == "none" else block.norm2.gamma
                last.init = init.Zero()

        net.apply(begin_as_the_identity)
    net.initialize(STARTS[start]())
    net.hybridize()
    return net


def run(images, net, rate, epochs, batch_size, seed=0, test=True):
    """One run on the training images of a `Dataset`; None if its loss became infinite."""
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


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=CONTESTANTS, default="lenet")
    parser.add_argument("--small", action="store_true", help="the small ResNet-18: a trial")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--limit", type=int, help="keep so many training images: a trial")
    parser.add_argument("--keep", type=Path, help="a folder for finished runs, not made again")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    model, batch_size = options.model, BATCH_SIZE[options.model]
    name = "fair" if model == "lenet" else f"fair_{model}"
    machine = runtime.configure(options.threads)
    data = dataset(limit=options.limit)
    search = data.hold_out(len(data.train_labels) // 6)  # 10,000 of 60,000

    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)

    def result_of(what, images, label, epochs, size=batch_size, seed=0, test=True):
        """The result of `run`, made or read from the folder of --keep."""
        known = "-".join(map(str, (name, what, *label.values(), seed))).replace(" ", "_")
        file = options.keep and options.keep / f"{known}.json"
        if file and file.exists():
            return json.loads(file.read_text())
        net = network(model, label["activation"], label["norm"], label["start"], options.small)
        result = run(images, net, label["lr"], epochs, size, seed, test)
        if file:
            write_json(file, result)
        print(known, result and result["test_accuracy"], flush=True)
        return result

    def runs_of(label):
        return [result_of("run", data, label, options.epochs, seed=seed) for seed in SEEDS]

    contests, regularization, with_the_others_pair = [], [], None
    for (activation, norm), (starts, rates) in CONTESTANTS[model].items():
        found = []
        for start, lr in itertools.product(starts, rates):
            label = {"activation": activation, "norm": norm, "start": start, "lr": lr}
            result = result_of("search", search, label, 2, test=False)
            accuracy = result and result["test_accuracy"]
            found.append({"start": start, "lr": lr, "validation_accuracy": accuracy})
        best = max(found, key=lambda tried: tried["validation_accuracy"] or 0)
        label = {"activation": activation, "norm": norm, "start": best["start"], "lr": best["lr"]}
        contests.append({**label, "search": found, "runs": runs_of(label)})
        if model == "lenet" and activation == "relu":
            small = dataset(limit=2_000)
            runs = [result_of("few", small, label, 60, 50, seed, test=False) for seed in SEEDS]
            for result in filter(None, runs):
                del result["epochs"][:-1]  # sixty lines a run; the last one tells
            regularization.append({**label, "batch_size": 50, "runs": runs})
    if model == "resnet18":
        none = contests[0]
        label = {"activation": "relu", "norm": "auto", "start": none["start"], "lr": none["lr"]}
        with_the_others_pair = {**label, "runs": runs_of(label)}
    write_json(
        options.output or RESULTS / f"{name}.json",
        {
            "command": "python benchmarks/fair.py --threads 1"
            + f" --model {model}" * (model != "lenet"),
            "model": model,
            "optimizer": "sgd, momentum 0.9, one-cycle",
            "batch_size": batch_size,
            "dataset": data.summary(),
            "contests": contests,
            "with_the_others_pair": with_the_others_pair,
            "regularization": regularization,
            "machine": machine,
            "versions": runtime.versions(),
        },
    )


if __name__ == "__main__":
    main()
