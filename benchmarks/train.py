"""Train LeNet, ResNet-18 and DenseNet with our layer and with Gluon's, three seeds each.

    python benchmarks/train.py                     # all: hours. Stopped, it goes on where it was
    python benchmarks/train.py --models lenet      # a few minutes

Each run is one `gluon-bn train` in a process of its own, in runs/results/MODEL-NORM-SEED, so that
`--resume` can take it up. What they leave is gathered in benchmarks/results/MODEL.json and .png.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from gluon_bn.plotting import plot_runs
from gluon_bn.training import write_figure, write_json

ROOT = Path(__file__).resolve().parent.parent
RUNS, RESULTS = ROOT / "runs" / "results", ROOT / "benchmarks" / "results"
NORMS, SEEDS = ("auto", "gluon"), (0, 1, 2)

RECIPES = {
    "lenet": "--epochs 10 --batch-size 256 --lr 1.0 --momentum 0.9 --schedule one-cycle",
    "resnet18": "--epochs 15 --batch-size 128 --resize 32 --lr 0.1 --momentum 0.9 "
    "--weight-decay 5e-4 --schedule one-cycle --augment crop-flip "
    "--label-smoothing 0.1",
    "densenet": "--epochs 15 --batch-size 128 --resize 40 --lr 0.1 --momentum 0.9 "
    "--weight-decay 5e-4 --schedule one-cycle --augment flip",
    # Chosen on 5,000 held-out training images (--held-out 5000): 22 epochs take as long as 15 of
    # resnet18 above.
    "resnet18-small": "--small --epochs 22 --batch-size 128 --lr 0.1 --momentum 0.9 "
    "--weight-decay 5e-4 --schedule one-cycle --augment crop-flip "
    "--label-smoothing 0.1 --average ema",
}


def train(model, norm, seed, threads):
    folder = RUNS / f"{model}-{norm}-{seed}"
    if (folder / "model.params").exists():  # written last
        return
    command = [
        sys.executable,
        "-m",
        "gluon_bn",
        "train",
        model.partition("-")[0],
        "--norm",
        norm,
        "--seed",
        str(seed),
        *RECIPES[model].split(),
        "--output",
        str(folder),
        "--resume",
        *(["--threads", str(threads)] if threads else []),
    ]
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
    write_json(
        RESULTS / f"{model}.json",
        {
            "command": f"python benchmarks/train.py --models {model}",
            "recipe": f"gluon-bn train {model.partition('-')[0]} {RECIPES[model]}",
            "machine": runs[0]["machine"],
            "runs": runs,
        },
    )
    first = [run for run in runs if run["seed"] == 0]
    labels = {"auto": "ours", "gluon": "Gluon's"}
    figure = plot_runs(first, [labels[run["norm"]] for run in first])
    write_figure(RESULTS / f"{model}.png", figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--norms", nargs="+", choices=NORMS, default=NORMS)
    parser.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=SEEDS)
    parser.add_argument("--threads", type=int, help="threads of each run; default: all cores")
    options = parser.parse_args()
    for model in options.models:
        for seed in options.seeds:
            for norm in options.norms:
                train(model, norm, seed, options.threads)
                gather(model)


if __name__ == "__main__":
    main()
