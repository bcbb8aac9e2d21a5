"""The figures of chapter 1: values, gradients and training without normalization."""

import numpy as np

from gluon_bn.plotting.style import legend_below, panels


def plot_histograms(reports, layers=None, title=None, bins=50, span=None):
    """Histograms of what leaves some layers: a row of panels for each report, a Figure.

    reports : a dict, label -> report.  layers : positions in the report, by default five, evenly.
    span : (low, high) of all axes; by default that of all values.
    """
    first = next(iter(reports.values())).rows
    if layers is None:
        layers = sorted({round(p) for p in np.linspace(0, len(first) - 1, 5)})
    if span is None:
        found = np.concatenate(
            [report.rows[i].values for report in reports.values() for i in layers]
        )
        span = float(found.min()), float(found.max())
    figure, axes = panels(
        len(reports),
        len(layers),
        (2.2 * len(layers), 1.2 + 1.6 * len(reports)),
        title,
        squeeze=False,
        sharex=True,
    )
    for index, (line, (label, report)) in enumerate(zip(axes, reports.items())):
        for panel, position in zip(line, layers):
            values = report.rows[position].values
            heights, edges = np.histogram(np.clip(values, *span), bins=bins, range=span)
            panel.bar(
                edges[:-1],
                100 * heights / len(values),
                np.diff(edges),
                align="edge",
                color=("#0072B2", "#E69F00", "#009E73", "#CC79A7")[index % 4],
            )
            panel.set_ylim(0, 1.25 * max(panel.get_ylim()[1] / 1.05, 1e-9))
            panel.text(
                0.97,
                0.97,
                f"std {values.std():.2g}",
                transform=panel.transAxes,
                ha="right",
                va="top",
                fontsize=9,
            )
            panel.tick_params(labelsize=8)
            if index == 0:
                panel.set_title(f"layer {position + 1}", fontsize=11)
            if index == len(axes) - 1:
                panel.set_xlabel("output")
        line[0].set_ylabel(f"{label}\nvalues (%)", fontsize=10)
    return figure


def plot_saturation(groups, title=None):
    """The sigmoid, its slope, and where some values fall on it: a Figure.

    groups : a dict, label -> values in front of the sigmoid (a NumPy array).
    """
    size = (4.8 * len(groups), 3.8)
    figure, axes = panels(1, len(groups), size, title, sharey=True, squeeze=False)
    limit = max(6, *(abs(values).max() for values in groups.values()))
    x = np.linspace(-limit, limit, 400)
    sigmoid = 1 / (1 + np.exp(-x))
    for panel, (label, values) in zip(axes[0], groups.items()):
        heights, edges = np.histogram(values, bins=40, range=(-limit, limit))
        panel.bar(
            edges[:-1],
            0.9 * heights / heights.max(),
            np.diff(edges),
            align="edge",
            color="#CCCCCC",
            label="values that arrive (histogram)",
        )
        panel.plot(x, sigmoid, color="#0072B2", linewidth=2.2, label=r"$\sigma(z)$")
        panel.plot(
            x,
            4 * sigmoid * (1 - sigmoid),
            color="#D55E00",
            linestyle=(0, (4, 2)),
            linewidth=2.2,
            label=r"slope $\sigma'(z)$, in parts of its largest, 1/4",
        )
        at = 1 / (1 + np.exp(-values))
        panel.set_title(
            f"{label}\nmean slope {np.mean(at * (1 - at)):.3f}", loc="left", fontsize=11
        )
        panel.set_xlabel("z, what arrives at the sigmoid")
    axes[0][0].set_ylabel("share of the largest")
    legend_below(figure, panel, ncol=3, fontsize=10)
    return figure


def plot_ravine(problems, title=None):
    """Gradient descent on quadratic bowls of two weights: contours and path, a Figure.

    problems : a dict, label -> (hessian, minimum, path): arrays (2, 2), (2,) and (steps, 2).
    """
    figure, axes = panels(1, len(problems), (5.2 * len(problems), 4.4), title, squeeze=False)
    for panel, (label, (hessian, minimum, path)) in zip(axes[0], problems.items()):
        reach = 1.15 * max(abs(path - minimum).max(), 1e-9)
        u, v = np.meshgrid(*(np.linspace(m - reach, m + reach, 121) for m in minimum))
        away = np.stack([u - minimum[0], v - minimum[1]])
        height = 0.5 * np.einsum("iyx,ij,jyx->yx", away, hessian, away)
        levels = height.max() * np.geomspace(1e-4, 1, 14)
        panel.contour(u, v, height, levels, colors="#888888", linewidths=0.8)
        panel.plot(
            *path.T,
            color="#D55E00",
            marker="o",
            markersize=4,
            linewidth=1.3,
            label=f"{len(path) - 1} steps of gradient descent",
        )
        panel.plot(
            *minimum, marker="*", markersize=14, color="#000000", linestyle="none", label="minimum"
        )
        panel.set_title(label, loc="left", fontsize=11)
        panel.set_xlabel("weight of feature 1")
        panel.set_ylabel("weight of feature 2")
        panel.set_aspect("equal")
        panel.grid(visible=False)
        panel.legend(loc="upper right", fontsize=9, frameon=True, framealpha=0.9)
    return figure


def plot_drift(runs, title=None, unit="what arrives at the activation"):
    """How the distribution of one unit's input moves in training: a panel for each run, a Figure.

    runs : a dict, label -> (steps, quantiles): (n,) and (n, 3), the 15th, 50th and 85th percentile
    of the values of a unit (those of figure 1 of Ioffe and Szegedy, 2015).
    """
    figure, axes = panels(1, len(runs), (5 * len(runs), 3.8), title, sharey=True, squeeze=False)
    for panel, (label, (steps, quantiles)) in zip(axes[0], runs.items()):
        low, middle, high = np.asarray(quantiles).T
        panel.fill_between(steps, low, high, color="#BBBBBB", label="15th to 85th percentile")
        panel.plot(steps, middle, color="#0072B2", linewidth=1.8, label="median")
        panel.set_title(label, loc="left")
        panel.set_xlabel("training step")
    axes[0][0].set_ylabel(unit)
    legend_below(figure, panel, ncol=2)
    return figure


def plot_landscape(runs, title=None):
    """What the loss does along its own gradient, step by step: a panel for each run, a Figure.

    runs : a dict, label -> (steps, low, high): the smallest and the largest loss that is met when
    one walks from the weights of that step along the gradient (figure 4a of Santurkar et al.,
    2018).
    """
    figure, axes = panels(1, len(runs), (5 * len(runs), 3.8), title, sharey=True, squeeze=False)
    for panel, (label, (steps, low, high)) in zip(axes[0], runs.items()):
        panel.fill_between(steps, low, high, color="#BBBBBB", label="losses on the way")
        panel.plot(steps, high, color="#D55E00", linewidth=1.5, label="largest")
        panel.plot(
            steps, low, color="#0072B2", linewidth=1.5, linestyle=(0, (4, 2)), label="smallest"
        )
        panel.set_title(label, loc="left")
        panel.set_xlabel("training step")
        panel.set_yscale("log")
    low, high = axes[0][0].get_ylim()
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= tick <= high]
    if len(ticks) > 1:
        for panel in axes[0]:
            panel.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
            panel.set_yticks([], minor=True)
    axes[0][0].set_ylabel("loss (nats)")
    legend_below(figure, panel, ncol=3)
    return figure
