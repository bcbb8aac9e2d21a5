"""Every figure the lessons and the command line draw, in one style.

Curves differ in colour, in dashes and in markers, so they can be told apart by colour-blind readers
and on a black-and-white print. The functions return a `matplotlib.figure.Figure` and leave
pyplot, its current figure and its back-end alone; a notebook shows the figure as the value of a
cell, and `figure.savefig(path)` writes it. matplotlib is imported when the first figure is drawn.
"""

# Colours of Okabe and Ito (2008), from dark to light, with widths that show a curve under another.
STYLES = (
    {"color": "#000000", "linestyle": (0, (1, 1.2)), "marker": "s", "linewidth": 1.8},
    {"color": "#E69F00", "linestyle": "-", "marker": "o", "linewidth": 4.5, "markersize": 9},
    {"color": "#0072B2", "linestyle": (0, (4, 2)), "marker": "x", "linewidth": 1.8,
     "markersize": 8, "markeredgewidth": 1.8},
    {"color": "#009E73", "linestyle": (0, (5, 1, 1, 1)), "marker": "^", "linewidth": 1.8},
    {"color": "#CC79A7", "linestyle": (0, (3, 1, 1, 1, 1, 1)), "marker": "D", "linewidth": 1.8},
)
_SETTINGS = {
    "font.size": 11, "axes.titlesize": 12, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#DDDDDD", "grid.linewidth": 0.8, "axes.axisbelow": True,
    "legend.frameon": False, "lines.markersize": 6, "figure.dpi": 100, "savefig.dpi": 150,
}


def plot_run(metrics):
    """The loss and the accuracies of one run, epoch by epoch: a Figure.

    metrics : the record of a run, the content of its metrics.json.
    """
    figure, (left, right) = _two_panels(f"{metrics['model']}, norm={metrics['norm']}, trained on "
                                        f"{describe_dataset(metrics['dataset'])}")
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
        title or f"{first['model']} on {describe_dataset(first['dataset'])}")
    labels = labels or [run["norm"] for run in runs]
    for index, (run, label) in enumerate(zip(runs, labels)):
        style = STYLES[index % len(STYLES)]
        _curve(left, run, "train_loss", label, style, zorder=2 + index)
        _curve(right, run, "test_accuracy", label, style, scale=100, zorder=2 + index)
    _finish(left, "Training loss", "cross entropy (nats)", *runs)
    _finish(right, "Test accuracy", "images classified correctly (%)", *runs)
    return _legend(figure, left)


def describe_dataset(dataset):
    """`{"name", "train", "test"}` in words; the stand-in is always called by its name."""
    name = {"fashion-mnist": "Fashion-MNIST",
            "stand-in": "the stand-in data (not Fashion-MNIST)"}.get(dataset["name"])
    return f"{name or dataset['name']}, {dataset['train']:,} training images"


def _two_panels(title):
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(10, 4.2))
        panels = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.07, right=0.98, top=0.83, bottom=0.24, wspace=0.2)
    figure.suptitle(title, fontsize=13, fontweight="bold", y=0.97)
    return figure, panels


def _curve(axes, metrics, key, label, style, scale=1, zorder=2):
    points = [(record["epoch"], scale * record[key])
              for record in metrics["epochs"] if record.get(key) is not None]
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
    figure.legend(handles, names, loc="lower center", ncol=len(names), handlelength=3.2,
                  fontsize=11, frameon=False)
    return figure


# The speed contests -------------------------------------------------------------------------------

# One colour, hatching and dash pattern for each contestant, in every panel.
CONTESTANTS = {
    "textbook": ("#56B4E9", "..", ":"), "analytic": ("#009E73", "//", "-."),
    "fused": ("#E69F00", "xx", (0, (3, 1, 1, 1))), "native": ("#D55E00", "", "-"),
    "gluon": ("#0072B2", "\\\\", "--"), "pytorch": ("#CC79A7", "++", (0, (5, 1, 1, 1, 1, 1))),
}


def plot_bench(result):
    """What `gluon_bn.bench.run` measured: a Figure of up to four panels.

    Time of a layer's training step relative to Gluon's operator, images a second of LeNet, time
    against elements, and the largest error against float64.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(12, 9))
        panels = figure.subplots(2, 2)
    figure.subplots_adjust(left=0.07, right=0.98, top=0.92, bottom=0.07, wspace=0.22, hspace=0.32)
    settings = result["settings"]
    figure.suptitle(f"One layer, computed several ways ({settings['cpu']}, {settings['cores']} "
                    "cores)", fontsize=13, fontweight="bold")
    (layer, network), (growth, accuracy) = panels
    _bars(layer, {f"{n} thread{'s' * (int(n) > 1)}": part["ratio_to_gluon"]["train"]
                  for n, part in result.get("layer", {}).items()},
          "Training step of one layer, geometric mean over the shapes", "time / Gluon's time")
    layer.axhline(1, color="#555555", linewidth=1)
    _bars(network, {f"{n} thread{'s' * (int(n) > 1)}": part["lenet"]["train"]
                    for n, part in result.get("network", {}).items()},
          "LeNet in training, batch 256", "images per second")
    _growth(growth, result)
    _accuracy(accuracy, result)
    return figure


def _style_of(name):
    """Contestants of networks are called 'gluon hybridized', 'pytorch eager', ..."""
    return CONTESTANTS.get(name.split()[0], ("#999999", "", "-"))


def _bars(axes, groups, title, unit):
    axes.set_title(title, loc="left")
    axes.set_ylabel(unit)
    names = [n for n in next(iter(groups.values()), {}) if n[0].isalpha()]  # not "4 copies"
    for i, name in enumerate(names):
        colour, hatch, _ = _style_of(name)
        for j, group in enumerate(groups.values()):
            x = i + (j - (len(groups) - 1) / 2) * 0.4
            axes.bar(x, group[name], 0.38, color=colour, hatch=hatch, edgecolor="white")
            value = f"{group[name]:.2f}" if group[name] < 100 else f"{group[name] / 1e3:.1f}k"
            axes.text(x, group[name], value, ha="center", va="bottom", fontsize=7)
    axes.set_xticks(range(len(names)))
    axes.set_xticklabels([n.replace(" ", "\n") for n in names], fontsize=8)
    axes.grid(axis="x", visible=False)
    axes.text(0.99, 0.97, "left to right: " + ", ".join(groups), transform=axes.transAxes,
              ha="right", va="top", fontsize=9)


def _growth(axes, result):
    threads, part = max(result.get("growth", {}).items(), default=("", {"elements": [], "ms": {}}))
    for name, milliseconds in part["ms"].items():
        colour, _, dashes = _style_of(name)
        axes.loglog(part["elements"], milliseconds, color=colour, linestyle=dashes, marker="o",
                    markersize=4, label=name)
    axes.set_title(f"Training step against size, {threads} threads", loc="left")
    axes.set_xlabel("elements of X")
    axes.set_ylabel("milliseconds")
    axes.legend(fontsize=9)


def _accuracy(axes, result):
    found = result.get("accuracy", {}).get("largest_error", {})
    for name, by_offset in found.items():
        colour, _, dashes = _style_of(name)
        axes.semilogy(range(len(by_offset)), [e["Y"] for e in by_offset.values()], color=colour,
                      linestyle=dashes, marker="o", label=name)
        axes.set_xticks(range(len(by_offset)))
        axes.set_xticklabels(list(by_offset))
    axes.set_title("Largest error of Y against float64, float32 input", loc="left")
    axes.set_xlabel("offset of the input (standard deviation 1)")
    axes.set_ylabel("absolute error")
    axes.legend(fontsize=9)
