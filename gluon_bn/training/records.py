"""The files that tell of a run: the content of `metrics.json`, and JSON, CSV and PNG, each written
whole or not at all."""

import csv
import io
import json

from gluon_bn import runtime
from gluon_bn.checkpoint import write_atomically


def record(model, norm, seed, dataset, epochs, **more):
    """The content of `metrics.json`: a dict of plain values.

    dataset : {"name", "train", "test"}, as `Dataset.summary()` gives it.  epochs : what `fit` gave.
    more : further keys, such as the settings of the run.
    """
    return {
        "model": model,
        "norm": norm,
        "seed": seed,
        "dataset": dataset,
        "epochs": epochs,
        "test_accuracy": epochs[-1]["test_accuracy"] if epochs else None,
        "versions": runtime.versions(),
        "machine": runtime.describe(),
        **more,
    }


def write_json(path, content):
    """Write plain values to a JSON file, all of it or nothing."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def write_csv(path, epochs):
    """Write the records of the epochs to a CSV file, one line each, all of it or nothing."""
    text = io.StringIO()
    if epochs:
        writer = csv.DictWriter(text, list(epochs[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(epochs)
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))


def write_figure(path, figure):
    """Write a `matplotlib.figure.Figure` to a PNG file, all of it or nothing."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_atomically(path, lambda file: file.write(picture.getvalue()))
