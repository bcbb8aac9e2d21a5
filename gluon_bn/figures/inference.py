"""The figures of chapter 11: statistics that lag behind, and a layer folded away."""

import numpy as np

from gluon_bn.figures.diagrams import arrow, box
from gluon_bn.plotting.style import STYLES, panels

_GREY = "#666666"


def plot_swing(exact, running, losses, title=None, xlabel="step"):
    """A training run tested often, by running and by exact statistics: a Figure.

    exact, running : a dict or pairs, step -> test accuracy.  losses : step -> training loss.
    """
    figure, axes = panels(1, 2, (10, 3.9), title)
    axes[0].plot(*_curve(losses), **{**STYLES[3], "marker": "", "linestyle": "-"})
    axes[0].set_title("Training loss", loc="left")
    axes[0].set_ylabel("cross entropy (nats)")
    for label, values, style in (
        ("running statistics", running, STYLES[3]),
        ("recalibrated", exact, STYLES[4]),
    ):
        steps, accuracy = _curve(values)
        axes[1].plot(steps, 100 * accuracy, label=label, **style)
    axes[1].set_title("Test accuracy", loc="left")
    axes[1].set_ylabel("images classified correctly (%)")
    axes[1].legend(handlelength=3, frameon=False, loc="lower right")
    for panel in axes:
        panel.set_xlabel(xlabel)
    return figure


def _curve(values):
    steps, values = zip(*(values.items() if isinstance(values, dict) else values))
    return np.array(steps), np.array(values)


def plot_folding(title=None):
    """A convolution and its batch norm, in training, in prediction, and folded: a Figure."""
    figure, panel = panels(1, 1, (9.5, 4.2), title)
    panel.set_axis_off()
    rows = (
        (
            "training",
            2.0,
            (
                ("u = W x + c", "white", None),
                ("y = γ (u − μ) / σ + β\nμ, σ of the batch", "white", "//"),
            ),
        ),
        (
            "prediction",
            1.0,
            (("u = W x + c", "white", None), ("y = a u + b\na, b fixed", "#DDDDDD", None)),
        ),
        ("folded", 0.0, (("y = (a W) x + (a c + b)", "#DDDDDD", None),)),
    )
    for name, y, boxes in rows:
        panel.text(-0.35, y + 0.3, name, ha="right", va="center", fontsize=12, fontweight="bold")
        panel.text(0.05, y + 0.3, "x", ha="right", va="center", fontsize=13)
        ends = []
        wide = 2.6 if len(boxes) == 2 else 5.8
        for index, (text, colour, hatch) in enumerate(boxes):
            left = 0.6 + index * 3.2
            arrow(panel, (0.12 if not index else left - 0.6, y + 0.3), (left, y + 0.3))
            look = {"facecolor": colour, "linewidth": 1}
            box(panel, left, y, wide, 0.6, text, hatch=hatch, look=look)
            ends.append(left + wide)
        arrow(panel, (ends[-1], y + 0.3), (7.0, y + 0.3))
        panel.text(7.1, y + 0.3, "y", va="center", fontsize=13)
    panel.text(1.9, 2.72, "convolution", ha="center", fontsize=11, color=_GREY)
    panel.text(5.1, 2.72, "batch norm", ha="center", fontsize=11, color=_GREY)
    panel.set_xlim(-1.7, 7.4)
    panel.set_ylim(-0.15, 2.95)
    return figure


CONTEST = {
    "auto": ("ours", STYLES[1]["color"], ""),
    "gluon": ("Gluon's", STYLES[2]["color"], "//"),
    "folded": ("folded", STYLES[3]["color"], ".."),
}


def plot_folding_speed(milliseconds, title=None, images=256):
    """Time for a prediction with batch norm and with it folded away: a Figure, a panel a network.

    milliseconds : a dict, network -> {'auto', 'gluon', 'folded': milliseconds}, any of the three.
    """
    figure, axes = panels(
        1, len(milliseconds), (max(3.4 * len(milliseconds), 5), 3.4), title, squeeze=False
    )
    for panel, (network, times) in zip(axes[0], milliseconds.items()):
        for place, (name, value) in enumerate(times.items()):
            label, colour, hatch = CONTEST.get(name, (name, "white", ""))
            panel.bar(place, value, 0.62, color=colour, hatch=hatch, edgecolor="black")
            panel.text(place, value, f"{value:.3g}", ha="center", va="bottom", fontsize=10)
        panel.set_xticks(range(len(times)), [CONTEST.get(n, (n,))[0] for n in times])
        panel.set_ylim(0, 1.15 * max(times.values()))
        panel.set_title(network, loc="left")
        panel.grid(visible=False, axis="x")
    axes[0][0].set_ylabel(f"ms for {images} images")
    return figure
