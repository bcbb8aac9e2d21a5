"""The files that tell of a run: the content of `metrics.json`, and JSON, CSV and PNG, each written
whole or not at all."""

import csv
import io
import json

from gluon_bn import runtime
from gluon_bn.checkpoint import write_atomically


def record(model, norm, seed, dataset, epochs, **more):
    """The content of `metrics.json`.

    Parameters
    ----------
    model, norm : str
    seed : int
    dataset : dict {"name", "train", "test"}, as `Dataset.summary()` gives it
    epochs : list of dict, what `fit` gave
    **more : further keys, such as the settings of the run

    Returns
    -------
    dict of plain values

    Examples
    --------
    >>> metrics = training.record("lenet", "auto", 0, {}, [{"test_accuracy": 0.9}])
    >>> metrics["test_accuracy"], sorted(metrics)[-3:]
    (0.9, ['seed', 'test_accuracy', 'versions'])
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
    r"""Write plain values to a JSON file, all of it or nothing.

    Parameters
    ----------
    path : str or Path
    content : dict or list

    Raises
    ------
    OSError, ValueError : the file cannot be written, or a number is not finite

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     training.write_json(Path(folder, "a.json"), [1])
    ...     Path(folder, "a.json").read_text()
    '[\n  1\n]\n'
    """
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def write_csv(path, epochs):
    r"""Write the records of the epochs to a CSV file, one line each, all of it or nothing.

    Parameters
    ----------
    path : str or Path
    epochs : list of dict, what `fit` gave

    Raises
    ------
    OSError : the file cannot be written

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     training.write_csv(Path(folder, "a.csv"), [{"epoch": 1}])
    ...     Path(folder, "a.csv").read_text()
    'epoch\n1\n'
    """
    text = io.StringIO()
    if epochs:
        writer = csv.DictWriter(text, list(epochs[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(epochs)
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))


def write_figure(path, figure):
    r"""Write a `matplotlib.figure.Figure` to a PNG file, all of it or nothing.

    Parameters
    ----------
    path : str or Path
    figure : matplotlib.figure.Figure

    Raises
    ------
    OSError : the file cannot be written

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     training.write_figure(Path(folder, "a.png"), plotting.panels()[0])
    ...     Path(folder, "a.png").read_bytes()[:4]
    b'\x89PNG'
    """
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_atomically(path, lambda file: file.write(picture.getvalue()))
