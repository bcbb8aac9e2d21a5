"""What happens after training, measured: recalibration, folding, and memory over many epochs.

    python benchmarks/after_training.py recalibration   # the test accuracy's swing, and its repair
    python benchmarks/after_training.py averaging       # averaged weights, with and without it
    python benchmarks/after_training.py folding         # needs the runs of benchmarks/train.py
    python benchmarks/after_training.py leak            # 250 epochs of a small run

Each part writes benchmarks/results/PART.json.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet import autograd

from gluon_bn import runtime
from gluon_bn.bench import take_turns
from gluon_bn.checkpoint import named_parameters
from gluon_bn.data import dataset
from gluon_bn.inference import fold_batch_norm, recalibrate
from gluon_bn.models import MODELS
from gluon_bn.training import AveragedWeights, Callback, evaluate, fit, write_json

ROOT = Path(__file__).resolve().parent.parent
RUNS, RESULTS = ROOT / "runs" / "results", ROOT / "benchmarks" / "results"


def recalibrated_accuracy(net, batches, test_iter):
    """The test accuracy with exact statistics; afterwards the moving ones are there again."""
    moving = {n: p.data().copy() for n, p in named_parameters(net).items() if "running" in n}
    recalibrate(net, batches)
    accuracy = evaluate(net, test_iter)
    for name, value in moving.items():
        named_parameters(net)[name].set_data(value)
    return accuracy


def recalibration(epochs=10, batch_size=256, lr=1.0, seeds=(0, 1, 2)):
    """LeNet at a high, constant learning rate: test accuracy by moving averages, and by exact ones.

    After each epoch the running statistics are replaced by those of the training set, the test is
    taken again, and the moving averages are put back, so the run itself is not touched.
    """
    data = dataset()
    runs = []
    for seed in seeds:
        train_iter, test_iter = data.batches(batch_size, seed=seed)
        calibration_iter, _ = data.batches(1000, seed=seed)
        net = MODELS["lenet"]("auto")
        net.hybridize()

        class Recalibrate(Callback):
            exact = []

            def on_epoch_end(
                self, records, net=net, batches=calibration_iter, test=test_iter, seed=seed
            ):
                self.exact = [*self.exact, recalibrated_accuracy(net, batches, test)]
                print(
                    f"seed {seed}, epoch {len(records)}: test accuracy "
                    f"{records[-1]['test_accuracy']:.4f}, recalibrated {self.exact[-1]:.4f}",
                    flush=True,
                )

        callback = Recalibrate()
        records = fit(net, train_iter, test_iter, epochs, lr, seed=seed, callbacks=[callback])
        runs.append(
            {
                "seed": seed,
                "epochs": [
                    {
                        "epoch": r["epoch"],
                        "train_loss": r["train_loss"],
                        "test_accuracy": r["test_accuracy"],
                        "test_accuracy_recalibrated": accuracy,
                    }
                    for r, accuracy in zip(records, callback.exact)
                ],
            }
        )
    return {
        "model": "lenet",
        "norm": "auto",
        "lr": lr,
        "batch_size": batch_size,
        "dataset": data.summary(),
        "runs": runs,
    }


def averaging(epochs=20, start=11, batch_size=256, lr=1.0, seeds=(0, 1, 2)):
    """LeNet at the same rate: the weights averaged over the last epochs, ours and Gluon's layer."""
    data, runs = dataset(), []
    for norm, seed in itertools.product(("auto", "gluon"), seeds):
        train_iter, test_iter = data.batches(batch_size, seed=seed)
        calibration_iter, _ = data.batches(1000, seed=seed)
        net, average = MODELS["lenet"](norm), AveragedWeights(start=start)
        net.hybridize()
        fit(net, train_iter, None, epochs, lr, seed=seed, callbacks=[average])
        run = {"norm": norm, "seed": seed, "last": evaluate(net, test_iter)}
        run["last_recalibrated"] = recalibrated_accuracy(net, calibration_iter, test_iter)
        for recalibrated in (False, True):
            average.put_into(net, calibration_iter, recalibrated=recalibrated)
            run["averaged" + "_recalibrated" * recalibrated] = evaluate(net, test_iter)
        print(run, flush=True)
        runs.append(run)
    return {
        "model": "lenet",
        "lr": lr,
        "batch_size": batch_size,
        "epochs": epochs,
        "averaged_from_epoch": start,
        "dataset": data.summary(),
        "runs": runs,
    }


def folding(models=("lenet", "resnet18", "densenet"), repeats=15):
    """Trained networks with and without their batch norm: the same predictions, and faster?

    Each predicts images as large as it was trained on.
    """
    data, result = dataset(), {}
    for model in models:
        file = RUNS / f"{model}-auto-0" / "model.params"
        if not file.exists():
            print(f"{model}: no {file}; run benchmarks/train.py first")
            continue
        metrics = json.loads(file.with_name("metrics.json").read_text())
        _, test_iter = data.batches(1000, metrics.get("resize"))
        X = next(iter(test_iter))[0][:256]
        nets = {name: MODELS[model](name) for name in ("auto", "gluon")}
        for net in nets.values():
            net.load_parameters(str(file))
        nets["folded"] = fold_batch_norm(nets["auto"], X)
        for net in nets.values():
            net.hybridize(static_alloc=True, static_shape=True)
        with autograd.pause(train_mode=False):
            difference = max(
                float(abs(nets["folded"](x) - nets["auto"](x)).max().asscalar())
                for x, _ in test_iter
            )

        def predict(net, X=X):
            def run():
                with autograd.pause(train_mode=False):
                    net(X).wait_to_read()

            return run

        seconds = take_turns({name: predict(net) for name, net in nets.items()}, repeats)
        result[model] = {
            "largest_difference_in_logits": difference,
            "images": 10_000,
            "pixels": X.shape[2],
            "largest_logit": float(
                max(abs(nets["auto"](x)).max().asscalar() for x, _ in test_iter)
            ),
            "test_accuracy": {name: evaluate(net, test_iter) for name, net in nets.items()},
            "milliseconds_for_256_images": {n: 1000 * float(s) for n, s in seconds.items()},
        }
        print(model, result[model], flush=True)
    return {"models": result, "dataset": data.summary()}


def leak(epochs=250, limit=2000):
    """The memory of the process after each epoch of LeNet, checkpoints and evaluation included."""
    data = dataset(limit=limit)
    train_iter, test_iter = data.batches(256)
    megabytes = []

    class Watch(Callback):
        def on_epoch_end(self, records):
            mx.nd.waitall()
            lines = Path("/proc/self/status").read_text().splitlines()
            megabytes.append(
                int(next(li for li in lines if li.startswith("VmRSS")).split()[1]) / 1024
            )

    folder = ROOT / "runs" / "leak"
    folder.mkdir(parents=True, exist_ok=True)
    net = MODELS["lenet"]("auto")
    net.hybridize()
    fit(
        net,
        train_iter,
        test_iter,
        epochs,
        0.1,
        callbacks=[Watch()],
        checkpoint=folder / "checkpoint",
    )
    slope = np.polyfit(np.arange(10, epochs), megabytes[10:], 1)[0]
    print(
        f"{megabytes[9]:.1f} MB after epoch 10, {megabytes[-1]:.1f} MB after epoch {epochs}, "
        f"{1000 * slope:.1f} kB an epoch"
    )
    return {
        "model": "lenet",
        "megabytes_after_epoch": megabytes,
        "dataset": data.summary(),
        "kilobytes_per_epoch_after_the_tenth": 1000 * float(slope),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["recalibration", "averaging", "folding", "leak"])
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    machine = runtime.configure(options.threads)
    result = globals()[options.part]()
    write_json(
        RESULTS / f"{options.part}.json",
        {
            "command": f"python benchmarks/after_training.py {options.part}",
            **result,
            "machine": machine,
            "versions": runtime.versions(),
        },
    )


if __name__ == "__main__":
    sys.exit(main())
