"""The options of the layer and what happens after training: the figures of chapters 9 and 11.

Arguments are plain numbers and NumPy arrays.
"""

import numpy as np

from gluon_bn.plotting.depth import thin
from gluon_bn.plotting.style import STYLES, panels

_GREY, _BLUE, _ORANGE = "#666666", "#0072B2", "#E69F00"


# The options --------------------------------------------------------------------------------------

KNOBS = (
    ("which values?", ("data_format", "batch_weights")),
    ("mean, variance", ("is_training",)),
    ("x̂", ("epsilon", "renorm", "renorm_clipping", "adjustment")),
    ("γ x̂ + β", ("scale", "center", "param_initializers", "param_regularizers")),
    ("activation", ("activation_fn",)),
)
MEMORY = ("decay", "zero_debias_moving_mean", "fused", "updates_collections", "renorm_decay")


def plot_knobs(title=None, stages=KNOBS, memory=MEMORY):
    """The layer as a chain of stages, with the options that act on each: a Figure.

    stages : (what it makes, options) from X to Y.  memory : options of the running statistics.
    """
    figure, panel = panels(1, 1, (11, 4.3), title)
    panel.set_axis_off()
    width, gap = 1.75, 0.5
    for index, (name, options) in enumerate(stages):
        left = index * (width + gap)
        _box(panel, left, 0, width, 0.8, name, bold=True)
        _arrow(panel, (left - gap, 0.4), (left, 0.4))
        for row, option in enumerate(options):
            y = 1.75 + 0.5 * (len(options) - 1 - row)
            panel.text(
                left + width / 2,
                y,
                option,
                ha="center",
                va="center",
                family="monospace",
                fontsize=10,
            )
        panel.plot([left + width / 2] * 2, [0.85, 1.5], color=_GREY, linewidth=1)
    right = len(stages) * (width + gap) - gap
    _arrow(panel, (right, 0.4), (right + gap, 0.4))
    panel.text(-gap - 0.1, 0.4, "X", ha="right", va="center", fontsize=14, fontweight="bold")
    panel.text(right + gap + 0.1, 0.4, "Y", ha="left", va="center", fontsize=14, fontweight="bold")
    left = width + gap
    _box(panel, left, -1.9, width, 0.95, "running\nstatistics", bold=True, hatch="//")
    _arrow(panel, (left + 0.55, 0), (left + 0.55, -0.95))
    _arrow(panel, (left + width - 0.55, -0.95), (left + width - 0.55, 0))
    panel.text(left + 0.42, -0.48, "training", ha="right", va="center", fontsize=9)
    panel.text(left + width - 0.42, -0.48, "prediction", ha="left", va="center", fontsize=9)
    for row, option in enumerate(memory):
        panel.text(
            left + width + 0.25 + 3.6 * (row % 2),
            -1.15 - 0.45 * (row // 2) - 0.1,
            option,
            va="center",
            family="monospace",
            fontsize=10,
        )
    panel.set_xlim(-0.95, right + gap + 0.45)
    panel.set_ylim(-2.5, 3.6)
    return figure


def _box(
    panel, left, bottom, width, height, text, bold=False, hatch=None, colour="white", fontsize=11
):
    from matplotlib.patches import FancyBboxPatch

    shape = {"boxstyle": "round,pad=0.03", "linewidth": 1.4 if bold else 1}
    panel.add_patch(
        FancyBboxPatch(
            (left, bottom),
            width,
            height,
            facecolor=colour,
            zorder=2,
            edgecolor="#BBBBBB" if hatch else "black",
            hatch=hatch,
            **shape,
        )
    )
    if hatch:
        panel.add_patch(
            FancyBboxPatch(
                (left, bottom),
                width,
                height,
                facecolor="none",
                zorder=3,
                edgecolor="black",
                **shape,
            )
        )
    panel.text(
        left + width / 2,
        bottom + height / 2,
        text,
        ha="center",
        va="center",
        zorder=4,
        fontsize=fontsize,
        fontweight="bold" if bold else "normal",
        bbox={"boxstyle": "round,pad=0.12", "facecolor": colour, "edgecolor": "none"},
    )


def _arrow(panel, start, end):
    panel.annotate(
        "",
        xy=end,
        xytext=start,
        zorder=1,
        arrowprops={
            "arrowstyle": "-|>",
            "color": "black",
            "linewidth": 1.3,
            "shrinkA": 0,
            "shrinkB": 0,
            "mutation_scale": 13,
        },
    )


def plot_padding(X, lengths, title=None, channel=0):
    """A batch of padded sequences, one to a row: a Figure.

    X : (N, T, C), of which one channel is drawn.  lengths : (N,), what comes after it is padding.
    """
    examples, steps = X.shape[:2]
    figure, panel = panels(1, 1, (8, 0.9 + 0.36 * examples), title)
    values = np.ma.array(X[:, :, channel])
    real = np.arange(steps) < np.asarray(lengths)[:, np.newaxis]
    values[~real] = np.ma.masked
    picture = panel.imshow(values, cmap="cividis", aspect="auto", interpolation="nearest")
    for row, length in enumerate(np.asarray(lengths, dtype=int)):
        if length < steps:
            panel.barh(
                row,
                steps - length,
                0.94,
                left=length - 0.5,
                color="white",
                hatch="///",
                edgecolor="#999999",
                linewidth=0.5,
                label="padding" if not panel.patches else None,
            )
    panel.set_yticks(range(examples))
    panel.set_ylabel("sequence")
    panel.set_xlabel("position")
    panel.grid(visible=False)
    figure.colorbar(picture, ax=panel, label=f"channel {channel}", pad=0.01)
    if panel.patches:
        panel.legend(loc="lower right", frameon=True, framealpha=1)
    return figure


def plot_gammas(gammas, title=None, threshold=None):
    """The sizes of a layer's gammas, from the largest to the smallest: a Figure.

    gammas : a dict, label -> vector (C,).  threshold : what counts as nothing, a line.
    """
    figure, panel = panels(1, 1, (8, 4), title)
    for index, (label, values) in enumerate(gammas.items()):
        values = np.sort(np.abs(values))[::-1]
        panel.plot(np.arange(1, len(values) + 1), values, label=label, **thin(index, len(values)))
    if threshold is not None:
        panel.axhline(threshold, color=_GREY, linewidth=1)
        panel.text(1, threshold, f"{threshold:g}", color=_GREY, va="bottom", fontsize=9)
    panel.set_xlabel(r"channels, from the largest $|\gamma|$ to the smallest")
    panel.set_ylabel(r"$|\gamma|$ after training (began at 1)")
    panel.set_ylim(bottom=0)
    panel.legend(handlelength=3, frameon=True, loc="center right")
    return figure


# After training -----------------------------------------------------------------------------------


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
            _arrow(panel, (0.12 if not index else left - 0.6, y + 0.3), (left, y + 0.3))
            _box(panel, left, y, wide, 0.6, text, hatch=hatch, colour=colour, fontsize=11)
            ends.append(left + wide)
        _arrow(panel, (ends[-1], y + 0.3), (7.0, y + 0.3))
        panel.text(7.1, y + 0.3, "y", va="center", fontsize=13)
    panel.text(1.9, 2.72, "convolution", ha="center", fontsize=11, color=_GREY)
    panel.text(5.1, 2.72, "batch norm", ha="center", fontsize=11, color=_GREY)
    panel.set_xlim(-1.7, 7.4)
    panel.set_ylim(-0.15, 2.95)
    return figure


CONTEST = {
    "auto": ("ours", _BLUE, ""),
    "gluon": ("Gluon's", "#DDDDDD", ".."),
    "folded": ("folded", _ORANGE, "//"),
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


def plot_swing(exact, running, losses, title=None, xlabel="step"):
    """A training run tested often, by running and by exact statistics: a Figure.

    exact, running : a dict or pairs, step -> test accuracy.  losses : step -> training loss.
    """
    figure, axes = panels(1, 2, (10, 3.9), title)
    axes[0].plot(*_curve(losses), **{**STYLES[0], "marker": ""})
    axes[0].set_title("Training loss", loc="left")
    axes[0].set_ylabel("cross entropy (nats)")
    for label, values, style in (
        ("running statistics", running, STYLES[0]),
        ("recalibrated", exact, STYLES[2]),
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
