"""The speed contests: what `gluon_bn.bench` measured."""

from gluon_bn.plotting.style import panels

# One colour, hatching and dash pattern for each contestant, in every panel.
CONTESTANTS = {
    "textbook": ("#56B4E9", "..", ":"),
    "analytic": ("#009E73", "//", "-."),
    "fused": ("#E69F00", "xx", (0, (3, 1, 1, 1))),
    "native": ("#D55E00", "", "-"),
    "gluon": ("#0072B2", "\\\\", "--"),
    "pytorch": ("#CC79A7", "++", (0, (5, 1, 1, 1, 1, 1))),
}
BOUNDS = {"2.5 copies": ("#000000", "", (0, (1, 1))), "4 copies": ("#777777", "", (0, (4, 2)))}


def plot_bench(result):
    """What `gluon_bn.bench.run` measured, in up to four panels.

    Time of a layer's training step relative to Gluon's operator, images a second of LeNet, time
    against elements, and the largest error against float64.

    Parameters
    ----------
    result : dict, what `gluon_bn.bench.run` returned

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> result = lesson.recorded("bench.json")  # doctest: +ELLIPSIS
    recorded in benchmarks/results/bench.json by ...
    >>> len(plotting.plot_bench(result).axes)
    4
    """
    settings = result["settings"]
    title = f"One layer, computed several ways ({settings['cpu']}, {settings['cores']} cores)"
    figure, four = panels(2, 2, (12, 9), title)
    (layer, network), (growth, accuracy) = four
    _bars(
        layer,
        {
            f"{n} thread{'s' * (int(n) > 1)}": part["ratio_to_gluon"]["train"]
            for n, part in result.get("layer", {}).items()
        },
        "Training step of one layer, geometric mean over the shapes",
        "time / Gluon's time",
    )
    layer.axhline(1, color="#555555", linewidth=1)
    _bars(
        network,
        {
            f"{n} thread{'s' * (int(n) > 1)}": part["lenet"]["train"]
            for n, part in result.get("network", {}).items()
        },
        "LeNet in training, batch 256",
        "images per second",
    )
    _growth(growth, result)
    _accuracy(accuracy, result)
    return figure


def _style_of(name):
    """Contestants of networks are called 'gluon hybridized', 'pytorch eager', ..."""
    return {**CONTESTANTS, **BOUNDS}.get(
        name, CONTESTANTS.get(name.split()[0], ("#999999", "", "-"))
    )


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
    axes.set_xticklabels(names, fontsize=8, rotation=30, ha="right")
    axes.grid(axis="x", visible=False)
    axes.text(
        0.99,
        0.97,
        "left to right: " + ", ".join(groups),
        transform=axes.transAxes,
        ha="right",
        va="top",
        fontsize=9,
    )


def _growth(axes, result):
    threads, part = max(result.get("growth", {}).items(), default=("", {"elements": [], "ms": {}}))
    for name, milliseconds in part["ms"].items():
        colour, _, dashes = _style_of(name)
        axes.loglog(
            part["elements"],
            milliseconds,
            color=colour,
            linestyle=dashes,
            marker="o",
            markersize=4,
            label=name,
        )
    axes.set_title(f"Training step against size, {threads} threads", loc="left")
    axes.set_xlabel("elements of X")
    axes.set_ylabel("milliseconds")
    axes.legend(fontsize=9)


def _accuracy(axes, result):
    found = result.get("accuracy", {}).get("largest_error", {})
    for name, by_offset in found.items():
        colour, _, dashes = _style_of(name)
        axes.semilogy(
            range(len(by_offset)),
            [e["Y"] for e in by_offset.values()],
            color=colour,
            linestyle=dashes,
            marker="o",
            label=name,
        )
        axes.set_xticks(range(len(by_offset)))
        axes.set_xticklabels(list(by_offset))
    axes.set_title("Largest error of Y against float64, float32 input", loc="left")
    axes.set_xlabel("offset of the input (standard deviation 1)")
    axes.set_ylabel("absolute error")
    axes.legend(fontsize=9)
