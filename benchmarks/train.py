"""Train the networks of the course with our layer and with Gluon's, three seeds each.

    python benchmarks/train.py                     # all: a day. Stopped, it goes on where it was
    python benchmarks/train.py --models lenet      # a few minutes
    python benchmarks/train.py --cost              # what an epoch of each takes: two minutes

Each run is one `gluon-bn train` in a process of its own, in runs/results/MODEL-NORM-SEED, so that
`--resume` can take it up. What they leave is gathered in benchmarks/results/MODEL.json and .png.
The cost is that of a part of an epoch, all networks in turns, in CPU time of one thread, which
other programs hardly change; benchmarks/results/epochs.json.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from gluon_bn import runtime, training
from gluon_bn.bench.timing import take_turns
from gluon_bn.data import dataset
from gluon_bn.models import MODELS
from gluon_bn.plotting import plot_runs

ROOT = Path(__file__).resolve().parent.parent
RUNS, RESULTS = ROOT / "runs" / "results", ROOT / "benchmarks" / "results"
NORMS, SEEDS = ("auto", "gluon"), (0, 1, 2)
IMAGES, ROUNDS = 1280, 5  # of which the cost is measured

# Options of `gluon-bn train`. The small networks' were chosen on 5,000 training images
# (--held-out 5000), among those that cost no more than a run of resnet18 (--cost).
RECIPES = {
    "lenet": "--epochs 10 --batch-size 256 --lr 1.0 --momentum 0.9 --schedule one-cycle",
    "resnet18": "--epochs 15 --batch-size 128 --resize 32 --lr 0.1 --momentum 0.9 "
    "--weight-decay 5e-4 --schedule one-cycle --augment crop-flip --label-smoothing 0.1",
    "densenet": "--epochs 15 --batch-size 128 --resize 40 --lr 0.1 --momentum 0.9 "
    "--weight-decay 5e-4 --schedule one-cycle --augment flip",
    "resnet18-small": "--epochs 19 --batch-size 128 --lr 0.1 --momentum 0.9 --weight-decay 5e-4 "
    "--schedule one-cycle --augment crop-flip --label-smoothing 0.1 --average ema",
    "densenet-small": "--epochs 12 --batch-size 64 --lr 0.1 --momentum 0.9 --weight-decay 5e-4 "
    "--schedule one-cycle --augment flip --label-smoothing 0.1 --average ema",
}


def words(model):
    """A recipe as a command line."""
    name, _, small = model.partition("-")
    return [name] + ["--small"] * bool(small) + RECIPES[model].split()


def train(model, norm, seed, threads):
    folder = RUNS / f"{model}-{norm}-{seed}"
    if (folder / "model.params").exists():  # written last
        return
    command = [sys.executable, "-m", "gluon_bn", "train", *words(model)]
    command += ["--norm", norm, "--seed", str(seed), "--output", str(folder), "--resume"]
    command += ["--threads", str(threads)] if threads else []
    subprocess.run(command, check=True, cwd=ROOT)


def gather(model):
    """Put the metrics of all finished runs of a model into one file, and draw those of seed 0."""
    runs = [
        json.loads((RUNS / f"{model}-{norm}-{seed}" / "metrics.json").read_text())
        for seed in SEEDS
        for norm in NORMS
        if (RUNS / f"{model}-{norm}-{seed}" / "model.params").exists()
    ]
    if not runs:
        return
    training.write_json(
        RESULTS / f"{model}.json",
        {
            "command": f"python benchmarks/train.py --models {model}",
            "recipe": f"gluon-bn train {' '.join(words(model))}",
            "machine": runs[0]["machine"],
            "runs": runs,
        },
    )
    first = [run for run in runs if run["seed"] == 0]
    labels = {"auto": "ours", "gluon": "Gluon's"}
    figure = plot_runs(first, [labels[run["norm"]] for run in first])
    training.write_figure(RESULTS / f"{model}.png", figure)


def part_of_an_epoch(model, norm, images):
    """A function that trains a network on these images, as its recipe says; and the network."""
    name, _, small = model.partition("-")
    recipe = RECIPES[model].split()
    recipe = dict(zip(recipe[::2], recipe[1::2]))
    net = MODELS[name](norm, **({"small": True} if small else {}))
    net.hybridize()
    size, side = int(recipe["--batch-size"]), int(recipe.get("--resize", 28))
    batches, _ = images.batches(size, side, augment=recipe.get("--augment"))
    average = [training.AveragedWeights(decay=0.999)] * ("--average" in recipe)
    options = {"momentum": 0.9, "wd": float(recipe.get("--weight-decay", 0))}

    def run():
        rate = 0.004  # where each begins, or less
        training.fit(net, batches, None, 1, rate, optimizer_params=options, callbacks=average)

    return run, net


def cost():
    """CPU seconds of an epoch of 60,000 images, and weights, by model and layer."""
    machine, images = runtime.configure(1), dataset(limit=IMAGES)
    runs = {(m, norm): part_of_an_epoch(m, norm, images) for m in RECIPES for norm in NORMS}
    seconds = take_turns({k: f for k, (f, _) in runs.items()}, ROUNDS, clock=time.process_time)
    networks = {}
    for (model, norm), (_, net) in runs.items():
        learned = [p for p in net.collect_params().values() if p.grad_req != "null"]
        found = networks.setdefault(model, {"weights": sum(p.data().size for p in learned)})
        found[norm] = seconds[model, norm] * 60_000 / IMAGES
    training.write_json(
        RESULTS / "epochs.json",
        {
            "command": "python benchmarks/train.py --cost",
            "what": "CPU seconds of an epoch of 60,000 images, one thread",
            "networks": networks,
            "machine": machine,
            "versions": runtime.versions(),
        },
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--norms", nargs="+", choices=NORMS, default=NORMS)
    parser.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=SEEDS)
    parser.add_argument("--threads", type=int, help="threads of each run; default: all cores")
    parser.add_argument("--cost", action="store_true", help="measure the cost, train nothing")
    options = parser.parse_args()
    if options.cost:
        cost()
        return
    for model in options.models:
        for seed in options.seeds:
            for norm in options.norms:
                train(model, norm, seed, options.threads)
                gather(model)


if __name__ == "__main__":
    main()
