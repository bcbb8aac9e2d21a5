"""The figures of chapter 9: the knobs of the layer, and what some of them do."""

import numpy as np

from gluon_bn.figures.diagrams import arrow, box
from gluon_bn.plotting.style import panels, styles, thin

_GREY = "#666666"


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
    width, gap, bold = 1.75, 0.5, {"fontweight": "bold"}
    for index, (name, options) in enumerate(stages):
        left = index * (width + gap)
        box(panel, left, 0, width, 0.8, name, **bold)
        arrow(panel, (left - gap, 0.4), (left, 0.4))
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
    arrow(panel, (right, 0.4), (right + gap, 0.4))
    panel.text(-gap - 0.1, 0.4, "X", ha="right", va="center", fontsize=14, fontweight="bold")
    panel.text(right + gap + 0.1, 0.4, "Y", ha="left", va="center", fontsize=14, fontweight="bold")
    left = width + gap
    box(panel, left, -1.9, width, 0.95, "running\nstatistics", hatch="//", **bold)
    arrow(panel, (left + 0.55, 0), (left + 0.55, -0.95))
    arrow(panel, (left + width - 0.55, -0.95), (left + width - 0.55, 0))
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
    looks = styles(f"penalty {label}" for label in gammas)  # 'none' is no penalty, not no norm
    for (label, values), style in zip(gammas.items(), looks):
        values = np.sort(np.abs(values))[::-1]
        panel.plot(np.arange(1, len(values) + 1), values, label=label, **thin(style, len(values)))
    if threshold is not None:
        panel.axhline(threshold, color=_GREY, linewidth=1)
        panel.text(1, threshold, f"{threshold:g}", color=_GREY, va="bottom", fontsize=9)
    panel.set_xlabel(r"channels, from the largest $|\gamma|$ to the smallest")
    panel.set_ylabel(r"$|\gamma|$ after training (began at 1)")
    panel.set_ylim(bottom=0)
    panel.legend(handlelength=3, frameon=True, loc="center right")
    return figure
