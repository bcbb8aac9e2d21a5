"""Training runs: loss and accuracy, epoch by epoch."""

from gluon_bn.plotting.style import SETTINGS, STYLES


def plot_run(metrics):
    """The loss and the accuracies of one run, epoch by epoch: a Figure.

    metrics : the record of a run, the content of its metrics.json.
    """
    figure, (left, right) = _two_panels(
        f"{metrics['model']}, norm={metrics['norm']}, trained on "
        f"{describe_dataset(metrics['dataset'])}"
    )
    _curve(left, metrics, "train_loss", "training", STYLES[2])
    _curve(right, metrics, "train_accuracy", "training", STYLES[2], scale=100)
    _curve(right, metrics, "test_accuracy", "test", STYLES[0], scale=100)
    _finish(left, "Loss", "cross entropy (nats)", metrics)
    _finish(right, "Accuracy", "images classified correctly (%)", metrics)
    return _legend(figure, right)


def plot_runs(runs, labels=None, title=None):
    """The training loss and the test accuracy of several runs of one model: a Figure.

    runs : their records.  labels : their names in the legend, by default their norms.
    """
    first = runs[0]
    figure, (left, right) = _two_panels(
        title or f"{first['model']} on {describe_dataset(first['dataset'])}"
    )
    labels = labels or [run["norm"] for run in runs]
    for index, (run, label, style) in enumerate(zip(runs, labels, _styles(runs))):
        _curve(left, run, "train_loss", label, style, zorder=2 + index)
        _curve(right, run, "test_accuracy", label, style, scale=100, zorder=2 + index)
    _finish(left, "Training loss", "cross entropy (nats)", *runs)
    _finish(right, "Test accuracy", "images classified correctly (%)", *runs)
    return _legend(figure, left)


def _styles(runs):
    """The same style for the same layer in every picture, as far as each has one of its own."""
    usual = {"none": 0, "auto": 1, "gluon": 2}
    numbers = [usual.get(run["norm"]) for run in runs]
    if None in numbers or len(set(numbers)) < len(numbers):
        numbers = range(len(runs))
    return [STYLES[number % len(STYLES)] for number in numbers]


def describe_dataset(dataset):
    """`{"name", "train", "test"}` in words; the stand-in is always called by its name."""
    name = {
        "fashion-mnist": "Fashion-MNIST",
        "stand-in": "the stand-in data (not Fashion-MNIST)",
    }.get(dataset["name"])
    return f"{name or dataset['name']}, {dataset['train']:,} training images"


def _two_panels(title):
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(10, 4.2))
        panels = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.07, right=0.98, top=0.83, bottom=0.24, wspace=0.2)
    figure.suptitle(title, fontsize=13, fontweight="bold", y=0.97)
    return figure, panels


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


def _legend(figure, axes):
    handles, names = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        names,
        loc="lower center",
        ncol=len(names),
        handlelength=3.2,
        fontsize=11,
        frameon=False,
    )
    return figure
