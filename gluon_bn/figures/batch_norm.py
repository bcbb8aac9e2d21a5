"""The figures of chapter 2: who is averaged with whom, before and after, lost digits."""

import numpy as np

from gluon_bn.plotting.style import panels, styles, thin

# A colour and a hatching for each channel.
CHANNELS = (("#56B4E9", ""), ("#E69F00", "//"), ("#009E73", ".."), ("#CC79A7", "xx"))


def plot_batch(X, title=None):
    """A small batch of images, number by number, the channels told apart: a Figure.

    X : a NumPy array (N, C, H, W). Under each channel stand the mean and the variance of all its
    values, over examples, rows and columns.
    """
    examples, channels, height, width = X.shape
    figure, axes = panels(
        1, 1, (2.3 + 2.2 * channels, 1.0 + 1.15 * examples * height / 2 + 0.6), title
    )
    for n in range(examples):
        top = -n * (height + 0.6)
        axes.text(-0.4, top - height / 2, f"example {n}", ha="right", va="center")
        for c in range(channels):
            left = c * (width + 0.8)
            colour, hatch = CHANNELS[c % len(CHANNELS)]
            for i in range(height):
                for j in range(width):
                    axes.bar(
                        left + j + 0.5,
                        -0.94,
                        0.94,
                        bottom=top - i,
                        color=colour,
                        alpha=0.45,
                        hatch=hatch,
                        edgecolor="white",
                    )
                    axes.text(
                        left + j + 0.5,
                        top - i - 0.47,
                        f"{X[n, c, i, j]:g}",
                        ha="center",
                        va="center",
                        fontsize=12,
                        fontweight="bold",
                        bbox={
                            "boxstyle": "round,pad=0.15",
                            "fc": "white",
                            "ec": "none",
                            "alpha": 0.85 if hatch else 0,
                        },
                    )
    bottom = -(examples - 1) * (height + 0.6) - height
    for c in range(channels):
        values = X[:, c]
        middle = c * (width + 0.8) + width / 2
        axes.text(middle, 0.25, f"channel {c}", ha="center", va="bottom")
        axes.text(
            middle,
            bottom - 0.2,
            f"$\\mu$ = {values.mean():g},  $\\sigma^2$ = {values.var():g}\nof {values.size} values",
            ha="center",
            va="top",
        )
    axes.set_xlim(-2.2, channels * (width + 0.8))
    axes.set_ylim(bottom - 1.2, 0.9)
    axes.axis("off")
    return figure


def plot_normalization(before, after, title=None, bins=30, span=(-6, 6)):
    """Histograms of the values of one channel before and after the layer: a Figure.

    before, after : NumPy arrays.  span : of both axes; values outside are counted in the last bar
    of their side. The line is the mean, the grey band a standard deviation to both sides.
    """
    figure, axes = panels(1, 2, (10, 3.6), title, sharey=True)
    for panel, values, label, colour, hatch in (
        (axes[0], before, "before, x", "#56B4E9", ""),
        (axes[1], after, "after, y", "#E69F00", "//"),
    ):
        heights, edges = np.histogram(np.clip(values, *span), bins=bins, range=span)
        panel.bar(
            edges[:-1],
            100 * heights / values.size,
            np.diff(edges),
            align="edge",
            color=colour,
            hatch=hatch,
            edgecolor="white",
        )
        panel.axvline(np.clip(values.mean(), *span), color="#000000", linewidth=1.8)
        panel.axvspan(
            values.mean() - values.std(),
            values.mean() + values.std(),
            color="#000000",
            alpha=0.12,
            linewidth=0,
        )
        panel.set_xlim(*span)
        mean = round(float(values.mean()), 2) + 0.0  # 0.00, never -0.00
        panel.set_title(
            f"{label}: mean {mean:.2f}, standard deviation {values.std():.2f}",
            loc="left",
            fontsize=11,
        )
        panel.set_xlabel("value")
    axes[0].set_ylabel("values (%)")
    return figure


def plot_errors(offsets, errors, title=None, ylabel="largest error of Y"):
    """Errors against the offset of the input, both on logarithmic axes: a Figure.

    offsets : the offsets.  errors : a dict, label -> one error for each offset.
    """
    figure, panel = panels(1, 1, (8, 4.4), title)
    for (label, values), style in zip(errors.items(), styles(errors)):
        panel.loglog(offsets, values, label=label, **thin(style, len(offsets)))
    panel.axhline(1, color="#777777", linewidth=0.8)
    panel.text(
        offsets[len(offsets) // 2],
        1.3,
        "as large as the output itself",
        fontsize=9,
        color="#555555",
    )
    panel.set_xlabel("offset of the input (its standard deviation is 1)")
    panel.set_ylabel(ylabel)
    panel.legend(handlelength=3, frameon=False)
    return figure
