"""Curves of an experiment: losses step by step, against the learning rate, side by side."""

import numpy as np

from gluon_bn.plotting.style import legend_below, panels, styles, thin


def plot_curves(*parts, title=None, size=None, legend="below"):
    """Curves side by side, the same names in every panel.

    Parameters
    ----------
    *parts : a dict for each panel
        title, xlabel, ylabel, curves {name: (x, y) or y}; and if wanted log='x', 'y' or 'xy', ylim,
        xticks, markers=True for few points, lines [(value, text)]: horizontal lines to compare
        with.
    title : str or None
    size : pair of float, inches, or None
    legend : 'below' the panels, or 'inside' the first

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> part = {"title": "a", "xlabel": "x", "ylabel": "y", "curves": {"c": [1, 2]}}
    >>> len(plotting.plot_curves(part, part).axes)
    2
    """
    names = list(dict.fromkeys(name for part in parts for name in part["curves"]))
    looks = dict(zip(names, styles(names)))
    figure, axes = panels(
        1, len(parts), size=size or (5 * len(parts), 4.2), title=title, squeeze=False
    )
    handles = {}
    for ax, part in zip(axes[0], parts):
        for name, values in part["curves"].items():
            x, y = values if isinstance(values, tuple) else (range(1, len(values) + 1), values)
            style = dict(looks[name])
            if not part.get("markers"):
                style.pop("marker")
            # Thin lines over thick ones, so that two equal curves are both seen.
            (handles[name],) = ax.plot(x, y, label=name, zorder=9 - style["linewidth"], **style)
        for value, text in part.get("lines", ()):
            ax.axhline(value, color="#555555", linewidth=1)
            ax.annotate(
                text,
                (1, value),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="bottom",
                fontsize=9,
                color="#555555",
            )
        ax.set_title(part["title"], loc="left")
        ax.set_xlabel(part["xlabel"])
        ax.set_ylabel(part["ylabel"])
        if "x" in part.get("log", ""):
            ax.set_xscale("log")
        if "y" in part.get("log", ""):
            ax.set_yscale("log")
        if "ylim" in part:
            ax.set_ylim(part["ylim"])
        if "xticks" in part:
            ax.set_xticks(part["xticks"])
    if legend == "below" and len(names) > 1:
        look = {"ncol": min(len(names), 4), "handlelength": 3.2, "fontsize": 11, "frameon": False}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", **look)
    elif len(names) > 1:
        axes[0][0].legend(handlelength=3.2, fontsize=10)
    return figure


def plot_losses(losses, title=None, smooth=1):
    """Training loss step by step, one curve for each run.

    Parameters
    ----------
    losses : dict, label -> one loss a step, nats
    title : str or None
    smooth : int, average over so many steps

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> len(plotting.plot_losses({"a": [2.3, 1.2, 0.8]}).axes)
    1
    """
    figure, panel = panels(1, 1, (8, 4.2), title)
    for (label, values), style in zip(losses.items(), styles(losses)):
        values = np.convolve(values, np.ones(smooth) / smooth, mode="valid")
        steps = np.arange(len(values)) + smooth
        panel.plot(steps, values, label=label, **thin(style, len(values)))
    panel.set_xlabel("training step" + (f" (average of {smooth})" if smooth > 1 else ""))
    panel.set_ylabel("training loss (nats)")
    panel.set_ylim(bottom=0)
    panel.legend(handlelength=3, frameon=False)
    return figure


def plot_sweep(
    rates, losses, title=None, ylabel="training loss (nats)", ceiling=None, xlabel="learning rate"
):
    """A result against the learning rate, one curve for each network.

    Parameters
    ----------
    rates : the learning rates
    losses : dict, label -> one loss for each rate; NaN or infinite where the run broke off
        Those, and all above `ceiling`, stand as large crosses at the top.
    title, ylabel : str
    ceiling : float or None
    xlabel : str

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> len(plotting.plot_sweep([0.1, 1], {"a": [0.5, np.nan]}).axes)
    1
    """
    figure, panel = panels(1, 1, (8, 4.4), title)
    rates = np.asarray(rates, dtype=float)
    known = np.array([v for values in losses.values() for v in values], dtype=float)
    top = ceiling or 1.1 * known[np.isfinite(known)].max(initial=0.1)
    for index, ((label, values), style) in enumerate(zip(losses.items(), styles(losses))):
        values = np.array(values, dtype=float)
        with np.errstate(invalid="ignore"):
            broken = ~(values <= top)
        style = thin(style, len(rates), len(rates))
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
    legend_below(figure, panel, ncol=min(2 * len(losses), 4), fontsize=10)
    return figure


def plot_moving_averages(batches, averages, truth=None, title=None, ylabel="mean of a channel"):
    """What arrives batch by batch, and moving averages that follow it.

    Parameters
    ----------
    batches : one number for each batch
    averages : dict, label -> as many numbers
    truth : what the batches scatter around, if known
    title, ylabel : str

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> len(plotting.plot_moving_averages([1, 3], {"a": [0.1, 0.4]}).axes)
    1
    """
    figure, panel = panels(1, 1, (9, 4.4), title)
    steps = np.arange(1, len(batches) + 1)
    panel.plot(steps, batches, linestyle="none", marker=".", color="#BBBBBB", label="of one batch")
    if truth is not None:
        panel.plot(steps, truth, color="#000000", linewidth=1, label="true mean")
    for (label, values), style in zip(averages.items(), styles(averages)):
        panel.plot(steps, values, label=label, **thin(style, len(steps)))
    panel.set_xlabel("batch")
    panel.set_ylabel(ylabel)
    legend_below(figure, panel, ncol=3)
    return figure
