"""What `gluon_bn.inspection` sees inside a network: layer by layer, channel by channel.

Reports are those of `activation_report`; anything with `rows` that have the same attributes serves.
"""

import numpy as np

from gluon_bn.plotting.style import STYLES, legend_below, panels, styles, thin

# What a column of a report is called on an axis.
QUANTITIES = {
    "mean": "mean of the output",
    "std": "standard deviation of the output",
    "between": "spread between examples",
    "flat": "flat values (%)",
    "dead": "dead units (%)",
    "gradient": r"gradient length $\|\partial L/\partial y\|$",
    "weight_gradient": r"gradient length $\|\partial L/\partial w\|$",
    "update": r"update / weight $\|\Delta w\| / \|w\|$",
}


SHARES = ("flat", "dead")


def plot_depth(reports, quantities=("between", "gradient"), title=None, log=True):
    """One panel for each quantity, one curve for each report, layer by layer.

    Parameters
    ----------
    reports : dict, label -> `gluon_bn.inspection.ActivationReport`
    quantities : columns of a report, keys of `QUANTITIES`
    title : str or None
    log : bool, logarithmic axes, except for shares; values of 0 are left out there

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError : there is no such quantity

    Examples
    --------
    >>> net = nn.Dense(2, in_units=2)
    >>> net.initialize()
    >>> report = gluon_bn.inspection.activation_report(net, nd.ones((2, 2)))
    >>> len(plotting.plot_depth({"net": report}).axes)
    2
    """
    unknown = [quantity for quantity in quantities if quantity not in QUANTITIES]
    if unknown:
        raise ValueError(f"there is no quantity {unknown[0]!r}; there are {', '.join(QUANTITIES)}")
    figure, axes = panels(1, len(quantities), (5 * len(quantities), 4.2), title, squeeze=False)
    for panel, quantity in zip(axes[0], quantities):
        share = quantity in SHARES
        for (label, report), style in zip(reports.items(), styles(reports)):
            values = [getattr(row, quantity) for row in report.rows]
            values = [np.nan if v is None or (log and not share and v == 0) else v for v in values]
            panel.plot(
                range(1, len(values) + 1),
                np.array(values) * (100 if share else 1),
                label=label,
                **thin(style, len(values)),
            )
        if share:
            panel.set_ylim(-4, 104)
        elif log:
            panel.set_yscale("log")
        panel.set_xlabel("layer, from the input to the output")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set_ylabel(QUANTITIES[quantity])
    legend_below(figure, axes[0][0])
    return figure


def plot_report(report, title=None):
    """A report as a picture: spread, gradients, and flat values by layer.

    Parameters
    ----------
    report : `gluon_bn.inspection.ActivationReport`
    title : str or None

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> net = nn.Dense(2, in_units=2)
    >>> net.initialize()
    >>> report = gluon_bn.inspection.activation_report(net, nd.ones((2, 2)))
    >>> len(plotting.plot_report(report).axes)
    2
    """
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
    axes[0].plot(where, mean, label="mean", **thin(STYLES[3], count))
    axes[0].set_title("Output", loc="left")
    for name, label, style in (
        ("gradient", "to the output of the layer", STYLES[4]),
        ("weight_gradient", "to its weights", STYLES[5]),
    ):
        values = [getattr(row, name) or np.nan for row in rows]
        if not np.isnan(values).all():
            axes[1].plot(where, values, label=label, **thin(style, count))
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


def plot_statistics(running, exact, batches=None, title=None):
    """Running statistics beside exact ones, channel by channel: mean and variance.

    Parameters
    ----------
    running, exact : (mean, var), vectors (C,)
    batches : (means, vars), (number of batches, C), or None
        Drawn as the range from the 5th to the 95th percentile.
    title : str or None

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> len(plotting.plot_statistics(([0, 0], [1, 1]), ([0.1, 0.2], [1, 2])).axes)
    2
    """
    figure, axes = panels(2, 1, (9, 5.4), title, sharex=True)
    channels = np.arange(len(exact[0]))
    for index, (panel, name) in enumerate(zip(axes, ("mean", "variance"))):
        if batches is not None:
            low, high = np.percentile(batches[index], [5, 95], axis=0)
            panel.bar(
                channels,
                high - low,
                0.62,
                bottom=low,
                color="#CCCCCC",
                label="single batches, 5th to 95th percentile",
            )
        panel.plot(
            channels,
            exact[index],
            linestyle="none",
            marker="_",
            markersize=15,
            markeredgewidth=2.4,
            color="black",
            label="exact, over many images",
        )
        panel.plot(
            channels,
            running[index],
            linestyle="none",
            marker="x",
            markersize=8,
            markeredgewidth=2,
            color="#D55E00",
            label="running",
        )
        panel.set_ylabel(name)
        panel.use_sticky_edges = False  # the markers stand beyond the bars
        panel.margins(y=0.12)
        panel.grid(visible=False, axis="x")
    axes[1].set_yscale("log")
    axes[1].set_xlabel("channel")
    axes[1].set_xticks(channels[:: max(1, len(channels) // 16)])
    legend_below(figure, axes[0], fontsize=10)
    return figure
