"""The figures of chapter 7: a dense block, who reads what, three networks side by side."""

import numpy as np

from gluon_bn.figures.diagrams import arrow
from gluon_bn.plotting.style import STYLES, panels

_GREEN = STYLES[3]["color"]


def plot_dense_block(in_channels=64, growth=32, convolutions=4, title=None):
    """A dense block as stacks of channels: who appends what, and who reads what. A Figure."""
    figure, panel = panels(1, 1, (9.5, 4.6), title)
    width = 0.44
    total = in_channels + growth * convolutions
    for column in range(convolutions + 1):
        low = 0
        for source in range(column + 1):
            height = growth if source else in_channels
            panel.bar(
                column,
                height,
                width,
                bottom=low,
                color=STYLES[source % 5]["color"],
                alpha=0.75 if source == column else 0.28,
                edgecolor="black",
                linewidth=1,
                hatch=(None, "//", "..", "\\\\", "xx", "++", "--")[source % 7],
            )
            low += height
        panel.text(column, low + 0.02 * total, f"{low} channels", ha="center", fontsize=10)
        if column < convolutions:
            middle = column + 0.5
            start, end = (column + width / 2, low / 2), (column + 1 - width / 2, low + growth / 2)
            bent = {"connectionstyle": "arc3,rad=-0.12", "shrinkA": 2, "shrinkB": 2}
            arrow(panel, start, end, zorder=4, **bent)
            panel.text(
                middle,
                -0.085 * total,
                f"norm {column + 1}, relu,\nconv 3x3",
                ha="center",
                va="top",
                fontsize=9,
            )
    panel.set_xticks(
        range(convolutions + 1), ["input", *(f"after {i}" for i in range(1, convolutions + 1))]
    )
    panel.set_ylabel("channels, stacked")
    panel.set_ylim(-0.24 * total, 1.12 * total)
    panel.set_yticks([t for t in panel.get_yticks() if t >= 0 and t <= total])
    panel.grid(visible=False)
    return figure


def plot_readers(values, boundaries=(), title=None, label=r"$\gamma$", middle=None):
    """What each reader of the same features does with them: a heat map, a Figure.

    values : (readers, features), NaN where a reader does not see a feature.
    boundaries : columns in front of which a new layer's features begin.
    middle : the value that is drawn in the middle grey, by default that of the data.
    """
    values = np.ma.masked_invalid(values)
    figure, panel = panels(1, 1, (10, 1.5 + 0.45 * len(values)), title)
    low, high = values.min(), values.max()
    if middle is not None:
        reach = max(high - middle, middle - low)
        low, high = middle - reach, middle + reach
    picture = panel.imshow(
        values, aspect="auto", cmap="cividis", vmin=low, vmax=high, interpolation="nearest"
    )
    for column in boundaries:
        panel.axvline(column - 0.5, color="white", linewidth=2.5)
    panel.set_yticks(range(len(values)), [f"reader {i + 1}" for i in range(len(values))])
    panel.set_xlabel("channel of the concatenated features")
    panel.grid(visible=False)
    figure.colorbar(picture, ax=panel, label=label, pad=0.01)
    return figure


def plot_networks(rows, title=None):
    """Networks side by side: test accuracy, parameters, images a second. A Figure.

    rows : a dict, name -> {"accuracies": one for each run, "parameters": number,
    "images_per_second": number}.
    """
    figure, axes = panels(1, 3, (11.5, 3.6), title)
    where = np.arange(len(rows))
    for panel, key, label in (
        (axes[1], "parameters", "parameters"),
        (axes[2], "images_per_second", "images per second, training"),
    ):
        values = [row[key] for row in rows.values()]
        panel.plot(where, values, "o", color=_GREEN, markeredgecolor="black", markersize=9)
        panel.set_yscale("log")
        panel.set_ylim(min(values) / 3, 3 * max(values))
        for x, value in zip(where, values):
            panel.text(x, value * 1.4, f"{float(f'{value:.2g}'):,.0f}", ha="center", fontsize=9)
        panel.set_title(label.capitalize(), loc="left")
    for x, row in zip(where, rows.values()):
        axes[0].plot(
            [x] * len(row["accuracies"]),
            [100 * a for a in row["accuracies"]],
            "o",
            color=_GREEN,
            markeredgecolor="black",
            alpha=0.8,
            markersize=9,
        )
    axes[0].set_title("Test accuracy (%), each run", loc="left")
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(low - 0.5, high + 0.5)
    for panel in axes:
        panel.set_xticks(where, list(rows), fontsize=9)
        panel.set_xlim(-0.6, len(rows) - 0.4)
        panel.grid(visible=False, axis="x")
    return figure
