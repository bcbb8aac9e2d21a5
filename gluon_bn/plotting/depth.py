"""Through the depth of a network: what leaves each layer, the gradients, and how far a step may go.

Reports are those of `gluon_bn.inspection.activation_report`; anything with `rows` that have the
same attributes serves.
"""

import numpy as np

from gluon_bn.plotting.style import STYLES, panels

# What a column of a report is called on an axis.
QUANTITIES = {
    "mean": "mean of the output",
    "std": "standard deviation of the output",
    "between": "spread between examples",
    "flat": "flat values (%)",
    "dead": "dead units (%)",
    "gradient": r"gradient length $\|\partial L/\partial y\|$",
    "weight_gradient": r"gradient length $\|\partial L/\partial w\|$",
}
SHARES = ("flat", "dead")


def thin(index, count, markers=10):
    """STYLES[index] with narrow lines and a marker at every so many points."""
    style = {**STYLES[index % len(STYLES)], "markevery": max(1, count // markers)}
    return {**style, "linewidth": min(style["linewidth"], 3), "markersize": 6}


def plot_depth(reports, quantities=("between", "gradient"), title=None, log=True):
    """One panel for each quantity, one curve for each report, layer by layer: a Figure.

    reports : a dict, label -> report.  quantities : columns of a report, keys of `QUANTITIES`.
    log : logarithmic axes, except for shares; values of 0 are left out there.
    """
    unknown = [quantity for quantity in quantities if quantity not in QUANTITIES]
    if unknown:
        raise ValueError(f"there is no quantity {unknown[0]!r}; there are {', '.join(QUANTITIES)}")
    figure, axes = panels(1, len(quantities), (5 * len(quantities), 4.2), title, squeeze=False)
    for panel, quantity in zip(axes[0], quantities):
        share = quantity in SHARES
        for index, (label, report) in enumerate(reports.items()):
            values = [getattr(row, quantity) for row in report.rows]
            values = [np.nan if v is None or (log and not share and v == 0) else v for v in values]
            panel.plot(
                range(1, len(values) + 1),
                np.array(values) * (100 if share else 1),
                label=label,
                **thin(index, len(values)),
            )
        if share:
            panel.set_ylim(-4, 104)
        elif log:
            panel.set_yscale("log")
        panel.set_xlabel("layer, from the input to the output")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set_ylabel(QUANTITIES[quantity])
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        frameon=False,
        ncol=min(len(labels), 4),
        handlelength=3,
    )
    return figure


def plot_report(report, title=None):
    """A report as a picture: spread, gradients, and flat values by layer, a Figure."""
    rows = report.rows
    shares = any(row.flat is not None for row in rows)
    count = len(rows)
    figure, axes = panels(1, 2 + shares, (4.4 * (2 + shares), 4.2), title)
    where = np.arange(1, count + 1)
    mean, std = (np.array([getattr(row, name) for row in rows]) for name in ("mean", "std"))
    axes[0].fill_between(
        where,
        mean - std,
        mean + std,
        color="#BBBBBB",
        label="mean ± standard deviation",
        step="mid" if count < 3 else None,
    )
    axes[0].plot(where, mean, label="mean", **thin(0, count))
    axes[0].set_title("Output", loc="left")
    for index, (name, label) in enumerate(
        (("gradient", "to the output of the layer"), ("weight_gradient", "to its weights"))
    ):
        values = [getattr(row, name) or np.nan for row in rows]
        if not np.isnan(values).all():
            axes[1].plot(where, values, label=label, **thin(index + 1, count))
    axes[1].set_yscale("log")
    axes[1].set_title("Length of the gradient", loc="left")
    if shares:
        for index, (name, label) in enumerate((("flat", "flat values"), ("dead", "dead units"))):
            values = [
                np.nan if getattr(row, name) is None else 100 * getattr(row, name) for row in rows
            ]
            axes[2].bar(
                where + (index - 0.5) * 0.4,
                values,
                0.38,
                label=label,
                color=("#56B4E9", "#333333")[index],
                hatch=("", "//")[index],
                edgecolor="white",
            )
        axes[2].set_ylim(0, 104)
        axes[2].set_title("Flat and dead (%)", loc="left")
    for panel in axes:
        panel.set_xticks(where[:: max(1, count // 12)])
        panel.set_xticklabels(
            [row.name for row in rows][:: max(1, count // 12)],
            rotation=90 if max(len(row.name) for row in rows) > 3 else 0,
        )
        panel.set_xlabel("layer, from the input to the output")
        panel.legend(loc="best", fontsize=9, frameon=False)
    return figure


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
    figure, axes = panels(1, len(groups), (4.8 * len(groups), 3.8), title, sharey=True)
    limit = max(6, *(abs(values).max() for values in groups.values()))
    x = np.linspace(-limit, limit, 400)
    sigmoid = 1 / (1 + np.exp(-x))
    for panel, (label, values) in zip(np.atleast_1d(axes), groups.items()):
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
    np.atleast_1d(axes)[0].set_ylabel("share of the largest")
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", frameon=False, ncol=3, fontsize=10)
    return figure


def plot_sweep(
    rates, losses, title=None, ylabel="training loss (nats)", ceiling=None, xlabel="learning rate"
):
    """A result against the learning rate, one curve for each network: a Figure.

    rates : the learning rates.  losses : a dict, label -> one loss for each rate; NaN or infinite
    where the run broke off. Those, and all above `ceiling`, stand as large crosses at the top.
    """
    figure, panel = panels(1, 1, (8, 4.4), title)
    rates = np.asarray(rates, dtype=float)
    known = np.array([v for values in losses.values() for v in values], dtype=float)
    top = ceiling or 1.1 * known[np.isfinite(known)].max(initial=0.1)
    for index, (label, values) in enumerate(losses.items()):
        values = np.array(values, dtype=float)
        with np.errstate(invalid="ignore"):
            broken = ~(values <= top)
        style = thin(index, len(rates), len(rates))
        panel.plot(rates, np.where(broken, np.nan, values), label=label, **style)
        # One above the other, so that two networks that break at one rate are both seen.
        panel.plot(
            rates[broken],
            np.full(broken.sum(), top * (1 - 0.05 * index)),
            linestyle="none",
            marker="X",
            markersize=10,
            color=style["color"],
            label=f"{label}: above {top:.2g}, or NaN" if broken.any() else None,
        )
    panel.set_xscale("log")
    panel.set_xlabel(xlabel)
    panel.set_ylabel(ylabel)
    panel.set_ylim(0, top * 1.06)
    figure.legend(
        loc="outside lower center",
        frameon=False,
        ncol=min(2 * len(losses), 4),
        handlelength=3,
        fontsize=10,
    )
    return figure


def plot_ravine(problems, title=None):
    """Gradient descent on quadratic bowls of two weights: contours and path, a Figure.

    problems : a dict, label -> (hessian, minimum, path): arrays (2, 2), (2,) and (steps, 2).
    """
    figure, axes = panels(1, len(problems), (5.2 * len(problems), 4.4), title)
    for panel, (label, (hessian, minimum, path)) in zip(np.atleast_1d(axes), problems.items()):
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
    figure, axes = panels(1, len(runs), (5 * len(runs), 3.8), title, sharey=True)
    for panel, (label, (steps, quantiles)) in zip(np.atleast_1d(axes), runs.items()):
        low, middle, high = np.asarray(quantiles).T
        panel.fill_between(steps, low, high, color="#BBBBBB", label="15th to 85th percentile")
        panel.plot(steps, middle, color="#0072B2", linewidth=1.8, label="median")
        panel.set_title(label, loc="left")
        panel.set_xlabel("training step")
    np.atleast_1d(axes)[0].set_ylabel(unit)
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", frameon=False, ncol=2)
    return figure


def plot_losses(losses, title=None, smooth=1):
    """Training loss step by step, one curve for each run: a Figure.

    losses : a dict, label -> one loss a step.  smooth : average over so many steps.
    """
    figure, panel = panels(1, 1, (8, 4.2), title)
    for index, (label, values) in enumerate(losses.items()):
        values = np.convolve(values, np.ones(smooth) / smooth, mode="valid")
        panel.plot(np.arange(len(values)) + smooth, values, label=label, **thin(index, len(values)))
    panel.set_xlabel("training step" + (f" (average of {smooth})" if smooth > 1 else ""))
    panel.set_ylabel("training loss (nats)")
    panel.set_ylim(bottom=0)
    panel.legend(handlelength=3, frameon=False)
    return figure


def plot_landscape(runs, title=None):
    """What the loss does along its own gradient, step by step: a panel for each run, a Figure.

    runs : a dict, label -> (steps, low, high): the smallest and the largest loss that is met when
    one walks from the weights of that step along the gradient (figure 4a of Santurkar et al.,
    2018).
    """
    figure, axes = panels(1, len(runs), (5 * len(runs), 3.8), title, sharey=True)
    for panel, (label, (steps, low, high)) in zip(np.atleast_1d(axes), runs.items()):
        panel.fill_between(steps, low, high, color="#BBBBBB", label="losses on the way")
        panel.plot(steps, high, color="#D55E00", linewidth=1.5, label="largest")
        panel.plot(
            steps, low, color="#0072B2", linewidth=1.5, linestyle=(0, (4, 2)), label="smallest"
        )
        panel.set_title(label, loc="left")
        panel.set_xlabel("training step")
        panel.set_yscale("log")
    low, high = np.atleast_1d(axes)[0].get_ylim()
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= tick <= high]
    if len(ticks) > 1:
        for panel in np.atleast_1d(axes):
            panel.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
            panel.set_yticks([], minor=True)
    np.atleast_1d(axes)[0].set_ylabel("loss (nats)")
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", frameon=False, ncol=3)
    return figure
