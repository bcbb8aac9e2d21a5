"""Who is averaged with whom, and what the size of the batch does: the figures of chapter 10.

Arguments are plain numbers and NumPy arrays, or the records of benchmarks/results/batch_size.json.
"""

import numpy as np

from gluon_bn.plotting.style import panels

_BLUE, _GREY = "#0072B2", "#666666"
# What a step along an axis of the cube does on paper: examples go back, channels to the right,
# positions down.
_BACK, _RIGHT, _DOWN = np.array([0.42, 0.36]), np.array([1.0, 0.0]), np.array([0.0, -1.0])

# A colour, dashes and a marker for each norm: the same in every picture of the chapter.
NORMS = {
    "none": ("none", "#000000", (0, (1, 1.2)), "s"),
    "batch": ("batch", "#E69F00", "-", "o"),
    "layer": ("layer", "#56B4E9", (0, (6, 1.5)), "x"),
    "instance": ("instance", "#CC79A7", (0, (3, 1, 1, 1, 1, 1)), "D"),
    "group": ("group", "#009E73", (0, (5, 1, 1, 1)), "^"),
    "renorm": ("batch renorm", "#D55E00", (0, (8, 2)), "v"),
    "renorm unclipped": ("batch renorm, unclipped", "#999999", (0, (2, 1)), "P"),
}


# The cube -----------------------------------------------------------------------------------------


def plot_cubes(sets, title=None):
    """Which values are averaged together, as Wu and He (2018, figure 2) draw it: a Figure.

    sets : a dict, name of the norm -> boolean array (N, C, P), True for the values that share one
    mean and one variance. P are the positions, height and width as one axis. A cube for each; what
    can be seen of it are the first example (front), the last channel (right), the first position
    (top).
    """
    figure, axes = panels(1, len(sets), (2.5 * len(sets), 3.0), title, squeeze=False)
    for panel, (name, together) in zip(axes[0], sets.items()):
        together = np.asarray(together, dtype=bool)
        if together.ndim != 3:
            raise ValueError(
                f"the set of {name!r} must be an array (N, C, P), got shape {together.shape}"
            )
        _draw_cube(panel, together)
        panel.set_title(name)
        panel.text(
            together.shape[1] / 2,
            -together.shape[2] - 1.25,
            f"m = {together.sum()} of {together.size}",
            ha="center",
            va="top",
            fontsize=10,
        )
    low = min(panel.dataLim.y0 for panel in axes[0]) - 1.8
    for panel in axes[0]:
        panel.set_ylim(low, panel.dataLim.y1 + 0.4)
    return figure


def _draw_cube(panel, together):
    """The three visible faces, cell by cell."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Polygon

    examples, channels, positions = together.shape
    faces = (
        [
            ((0, c, p), (c * _RIGHT + p * _DOWN, _RIGHT, _DOWN))
            for c in range(channels)
            for p in range(positions)
        ],
        [
            ((n, channels - 1, p), (channels * _RIGHT + n * _BACK + p * _DOWN, _BACK, _DOWN))
            for n in range(examples)
            for p in range(positions)
        ],
        [
            ((n, c, 0), (n * _BACK + c * _RIGHT, _BACK, _RIGHT))
            for n in range(examples)
            for c in range(channels)
        ],
    )
    for shade, cells in zip((1.0, 0.75, 0.88), faces):
        for cell, (corner, one, other) in cells:
            marked = together[cell]
            panel.add_patch(
                Polygon(
                    [corner, corner + one, corner + one + other, corner + other],
                    closed=True,
                    facecolor=[shade * part for part in to_rgb(_BLUE if marked else "#FFFFFF")],
                    hatch="///" if marked else None,
                    edgecolor="white" if marked else "#999999",
                    linewidth=0.8,
                    zorder=3 if marked else 2,
                    gid="averaged" if marked else "other",
                )
            )
    panel.set_aspect("equal")
    panel.set_axis_off()
    width, height = channels + examples * _BACK[0], positions + examples * _BACK[1]
    panel.update_datalim([(-0.2, -positions), (width, height - positions)])
    panel.autoscale_view()
    panel.text(channels / 2, -positions - 0.3, "C", ha="center", va="top", fontsize=11)
    panel.text(-0.3, -positions / 2, "H, W", ha="right", va="center", fontsize=11, rotation=90)
    middle = examples / 2 * _BACK
    panel.text(middle[0] - 0.35, middle[1] + 0.2, "N", ha="right", va="bottom", fontsize=11)


# The size of the batch ----------------------------------------------------------------------------

QUANTITIES = {
    "error": ("Test error", "images classified wrongly (%)", 100),
    "train_loss": ("Training loss", "cross entropy (nats)", 1),
}


def plot_batch_sizes(runs, title=None, quantities=("error", "train_loss"), norms=None):
    """Error and loss against the size of the batch, a curve for each norm: a Figure.

    runs : records {"norm", "batch_size", "seed", "error", "train_loss"}; those whose value is None
    are left out.  norms : which of them, in this order; by default all that `runs` has. A curve
    joins the means over the seeds, the bars reach from the lowest to the highest seed. The batch
    shrinks to the right.
    """
    present = [name for name in NORMS if any(run["norm"] == name for run in runs)]
    present += [name for name in dict.fromkeys(run["norm"] for run in runs) if name not in NORMS]
    norms = present if norms is None else norms
    for name in norms:
        if name not in present:
            raise ValueError(f"there is no run with norm {name!r}; there are {', '.join(present)}")
    figure, axes = panels(
        1, len(quantities), (1.5 + 4.6 * len(quantities), 4.4), title, squeeze=False
    )
    for panel, quantity in zip(axes[0], quantities):
        name, unit, scale = QUANTITIES[quantity]
        for index, norm in enumerate(norms):
            _curve(
                panel,
                [run for run in runs if run["norm"] == norm],
                quantity,
                scale,
                norm,
                0.05 * (index - (len(norms) - 1) / 2),
            )
        sizes = sorted({run["batch_size"] for run in runs})
        panel.set_xticks(np.log2(sizes), [str(size) for size in sizes])
        panel.invert_xaxis()
        panel.set_xlabel("images in a batch")
        panel.set_ylabel(unit)
        panel.set_title(name, loc="left")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", handlelength=3.4, frameon=False)
    return figure


def _curve(panel, runs, quantity, scale, norm, shift):
    """Mean and range over the seeds, at each batch size; `shift` keeps the bars apart."""
    found = {}
    for run in runs:
        if run[quantity] is not None:
            found.setdefault(run["batch_size"], []).append(scale * run[quantity])
    if not found:
        return
    label, colour, dashes, marker = NORMS.get(norm, (norm, _GREY, "-", "."))
    sizes = sorted(found)
    values = [np.array(found[size]) for size in sizes]
    middle = np.array([v.mean() for v in values])
    low, high = [v.min() for v in values], [v.max() for v in values]
    reach = np.maximum([middle - low, high - middle], 0)  # rounding
    panel.errorbar(
        np.log2(sizes) + shift,
        middle,
        reach,
        label=label,
        color=colour,
        linestyle=dashes,
        marker=marker,
        markersize=6,
        linewidth=1.8,
        capsize=2.5,
        elinewidth=1.1,
    )


# The noise of a small batch -----------------------------------------------------------------------


def plot_noise(measured, predicted, title=None):
    """How far the mean and variance of batches scatter, measured and predicted: a Figure.

    measured : a dict, label -> {batch size: (scatter of the mean, scatter of the variance)}, in
    units of the standard deviation and of the variance of all values.
    predicted : the same for what theory says; its curves are drawn without markers.
    """
    figure, axes = panels(1, 2, (10, 3.9), title)
    styles = [NORMS[name][1:] for name in ("group", "instance", "renorm", "layer")]
    for column, (panel, name, unit) in enumerate(
        (
            (axes[0], "of the batch mean", r"in units of $\sigma$"),
            (axes[1], "of the batch variance", r"in units of $\sigma^2$"),
        )
    ):
        for index, (label, points) in enumerate(measured.items()):
            colour, _, marker = styles[index % len(styles)]
            panel.plot(
                list(points),
                [v[column] for v in points.values()],
                color=colour,
                linestyle="",
                marker=marker,
                markersize=7,
                label=label,
            )
        for index, (label, points) in enumerate(predicted.items()):
            colour, dashes, _ = styles[index % len(styles)]
            panel.plot(
                list(points),
                [v[column] for v in points.values()],
                color=colour,
                linestyle=dashes,
                linewidth=1.4,
                label=label,
            )
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        sizes = sorted({size for points in measured.values() for size in points})
        panel.set_xticks(sizes, [str(size) for size in sizes])
        low, high = panel.get_ylim()
        marks = [mark for mark in 0.1 * 2.0 ** np.arange(-12, 8) if low <= mark <= high]
        panel.set_yticks(marks, [f"{mark:.2g}" for mark in marks])
        panel.minorticks_off()
        panel.invert_xaxis()
        panel.set_xlabel("images in a batch")
        panel.set_ylabel(f"standard deviation {name}\n{unit}")
    axes[0].legend(handlelength=3, frameon=False, fontsize=10, loc="upper left")
    return figure
