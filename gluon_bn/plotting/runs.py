"""Training runs: loss and accuracy, epoch by epoch."""

from gluon_bn.plotting.style import STYLES, legend_below, panels, styles


def plot_run(metrics):
    """The loss and the accuracies of one run, epoch by epoch.

    Parameters
    ----------
    metrics : dict, the content of its metrics.json

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> epochs = [{"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.6, "test_accuracy": 0.7}]
    >>> run = training.record("lenet", "auto", 0, {"name": "stand-in", "train": 9}, epochs)
    >>> len(plotting.plot_run(run).axes)
    2
    """
    title = f"{metrics['model']}, norm={metrics['norm']}, trained on "
    figure, (left, right) = panels(1, 2, title=title + describe_dataset(metrics["dataset"]))
    _curve(left, metrics, "train_loss", "training", STYLES[3])
    _curve(right, metrics, "train_accuracy", "training", STYLES[3], scale=100)
    _curve(right, metrics, "test_accuracy", "test", STYLES[4], scale=100)
    _finish(left, "Loss", "cross entropy (nats)", metrics)
    _finish(right, "Accuracy", "images classified correctly (%)", metrics)
    legend_below(figure, right)
    return figure


def plot_runs(runs, labels=None, title=None):
    """The training loss and the test accuracy of several runs of one model.

    Parameters
    ----------
    runs : list of dict, their records
    labels : their names in the legend, by default their norms
    title : str or None

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> epochs = [{"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.6, "test_accuracy": 0.7}]
    >>> run = training.record("lenet", "auto", 0, {"name": "stand-in", "train": 9}, epochs)
    >>> len(plotting.plot_runs([run, run], labels=["a", "b"]).axes)
    2
    """
    first = runs[0]
    title = title or f"{first['model']} on {describe_dataset(first['dataset'])}"
    figure, (left, right) = panels(1, 2, title=title)
    labels = labels or [run["norm"] for run in runs]
    looks = styles(run["norm"] for run in runs)
    for index, (run, label, style) in enumerate(zip(runs, labels, looks)):
        _curve(left, run, "train_loss", label, style, zorder=2 + index)
        _curve(right, run, "test_accuracy", label, style, scale=100, zorder=2 + index)
    _finish(left, "Training loss", "cross entropy (nats)", *runs)
    _finish(right, "Test accuracy", "images classified correctly (%)", *runs)
    legend_below(figure, left)
    return figure


NORMS = {"auto": ("ours", 1), "gluon": ("Gluon's", 2), "none": ("no batch norm", 0)}


def plot_seeds(runs, title=None):
    """Loss and test accuracy of recorded runs, every seed: a thin line for each run.

    Parameters
    ----------
    runs : records as in benchmarks/results/lenet.json, with norm 'auto', 'gluon' or 'none'
    title : str or None

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> epochs = [{"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.6, "test_accuracy": 0.7}]
    >>> run = training.record("lenet", "auto", 0, {"name": "stand-in", "train": 9}, epochs)
    >>> len(plotting.plot_seeds([run]).axes)
    2
    """
    figure, axes = panels(1, 2, (10, 4.2), title)
    for panel, key, scale in ((axes[0], "train_loss", 1), (axes[1], "test_accuracy", 100)):
        named = set()
        for run in runs:
            label, index = NORMS.get(run["norm"], (run["norm"], 3))
            style = {**STYLES[index], "linewidth": (1.4, 2.6, 1.4, 1.4)[index], "markersize": 5}
            panel.plot(
                [e["epoch"] for e in run["epochs"]],
                [scale * e[key] for e in run["epochs"]],
                alpha=0.8,
                label=None if label in named else label,
                **style,
            )
            named.add(label)
        panel.set_xlabel("epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_title("Training loss", loc="left")
    axes[0].set_ylabel("cross entropy (nats)")
    axes[1].set_title("Test accuracy", loc="left")
    axes[1].set_ylabel("images classified correctly (%)")
    axes[1].legend(
        handlelength=3, title="one line for each seed", title_fontsize=9, fontsize=10, frameon=False
    )
    return figure


def plot_recalibration(runs, title=None):
    """Test accuracy after each epoch, by the running statistics and by exact ones.

    Parameters
    ----------
    runs : those of benchmarks/results/recalibration.json; a panel for each seed
    title : str or None

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> epochs = [{"epoch": 1, "test_accuracy": 0.7, "test_accuracy_recalibrated": 0.8}]
    >>> len(plotting.plot_recalibration([{"seed": 0, "epochs": epochs}]).axes)
    1
    """
    figure, axes = panels(
        1, len(runs), (max(3.4 * len(runs), 5), 3.9), title, sharey=True, squeeze=False
    )
    for panel, run in zip(axes[0], runs):
        epochs = [e["epoch"] for e in run["epochs"]]
        for key, label, style in (
            ("test_accuracy", "running statistics", STYLES[3]),
            ("test_accuracy_recalibrated", "recalibrated", STYLES[4]),
        ):
            panel.plot(epochs, [100 * e[key] for e in run["epochs"]], label=label, **style)
        panel.set_title(f"seed {run['seed']}", loc="left")
        panel.set_xlabel("epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
    axes[0][0].set_ylabel("test accuracy (%)")
    legend_below(figure, panel)
    return figure


def describe_dataset(dataset):
    """A data set in words; the stand-in is always called by its name.

    Parameters
    ----------
    dataset : dict {"name", "train", "test"}

    Returns
    -------
    str

    Examples
    --------
    >>> plotting.describe_dataset({"name": "fashion-mnist", "train": 60000, "test": 10000})
    'Fashion-MNIST, 60,000 training images'
    """
    name = {
        "fashion-mnist": "Fashion-MNIST",
        "stand-in": "the stand-in data (not Fashion-MNIST)",
    }.get(dataset["name"])
    return f"{name or dataset['name']}, {dataset['train']:,} training images"


def _curve(axes, metrics, key, label, style, scale=1, zorder=2):
    points = [
        (record["epoch"], scale * record[key])
        for record in metrics["epochs"]
        if record.get(key) is not None
    ]
    if points:
        axes.plot(*zip(*points), label=label, zorder=zorder, **style)


def _finish(axes, title, unit, *runs):
    axes.set_title(title, loc="left")
    axes.set_xlabel("epoch")
    axes.set_ylabel(unit)
    last = max(len(run["epochs"]) for run in runs)
    axes.set_xlim(min(0.5, 1 - 0.04 * last), max(1.5, 1.04 * last))
    axes.xaxis.get_major_locator().set_params(integer=True)
    if last <= 12:
        axes.set_xticks(range(1, last + 1))
    low, high = axes.dataLim.intervaly
    least = 10 if "%" in unit else 0.1  # a flat curve should look flat
    padding = max(0.08 * (high - low), (least - (high - low)) / 2, 0.01 * abs(high))
    axes.set_ylim(low - padding, high + padding)
