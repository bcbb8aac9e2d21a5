"""The three networks of the course: how they are built, how they train, what their norms learned.

Arguments are plain numbers and NumPy arrays, or the records that `benchmarks/results` keeps.
"""

import numpy as np

from gluon_bn.plotting.style import STYLES, panels

_GREY, _BLUE, _ORANGE = "#666666", "#0072B2", "#E69F00"
# A fill, a hatch and a text for each kind of box in a diagram, so that grey prints tell them apart.
_KINDS = {"conv": ("#FFFFFF", None), "norm": ("#F6D58F", None), "relu": ("#DDDDDD", None)}
NORMS = {"auto": ("ours", 1), "gluon": ("Gluon's", 2), "none": ("no batch norm", 0)}


# How they are built -------------------------------------------------------------------------------


def plot_feature_maps(image, stages, title=None, channels=6):
    """What an image becomes on its way through a network: a Figure.

    image : (H, W).  stages : a list of (label, maps), maps (C, H, W); the first `channels` of each
    are shown, a column for each stage, every map in its own grey scale.
    """
    figure, axes = panels(
        channels, 1 + len(stages), (1.15 * (1 + len(stages)), 1.05 * channels), title
    )
    for row in range(channels):
        for column, (label, maps) in enumerate([("image", np.asarray(image)[np.newaxis]), *stages]):
            panel = axes[row][column]
            panel.set_xticks([])
            panel.set_yticks([])
            panel.grid(visible=False)
            for side in panel.spines.values():
                side.set_visible(False)
            if row < len(maps):
                panel.imshow(maps[row], cmap="gray", interpolation="nearest")
            if row == 0:
                panel.set_title(label, fontsize=9)
    return figure


def plot_residual_blocks(title=None):
    """A plain block, a residual block, and one with pre-activation, as diagrams: a Figure."""
    figure, axes = panels(1, 3, (9.5, 5.2), title)
    post = ("conv", "norm", "relu", "conv", "norm")
    for panel, name, order, shortcut, last in (
        (axes[0], "plain", (*post, "relu"), False, False),
        (axes[1], "residual\n(He et al., 2016a)", post, True, True),
        (
            axes[2],
            "pre-activation\n(He et al., 2016b)",
            ("norm", "relu", "conv", "norm", "relu", "conv"),
            True,
            False,
        ),
    ):
        panel.set_axis_off()
        panel.set_title(name, fontsize=11, x=1.6 / 4.2)
        panel.set_xlim(-1.6, 2.6)
        panel.set_ylim(0, 9.6)
        _line(panel, (0, 9.5), (0, 8.85))
        panel.text(0.15, 9.3, "$X$", fontsize=12, va="center")
        for index, kind in enumerate(order):
            y = 8.5 - 1.1 * index
            _box(panel, 0, y, kind)
            _line(panel, (0, y - 0.33), (0, y - 0.77), arrow=index + 1 < len(order))
        y -= 0.77
        if shortcut:
            _line(panel, (0, 9.05), (1.7, 9.05))
            _line(panel, (1.7, 9.05), (1.7, y - 0.2))
            _line(panel, (1.7, y - 0.2), (0.24, y - 0.2), arrow=True)
            panel.text(1.82, 5.3, "shortcut", rotation=90, va="center", fontsize=10)
            panel.text(
                0,
                y - 0.2,
                "+",
                ha="center",
                va="center",
                fontsize=13,
                zorder=4,
                bbox={"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": "black"},
            )
            y -= 0.45
        if last:
            _line(panel, (0, y), (0, y - 0.3), arrow=True)
            _box(panel, 0, y - 0.62, "relu")
            y -= 0.94
        _line(panel, (0, y), (0, y - 0.5), arrow=True)
        panel.text(0.15, y - 0.35, "$Y$", fontsize=12, va="center")
    return figure


def _box(panel, x, y, kind):
    from matplotlib.patches import FancyBboxPatch

    names = {"conv": "convolution 3x3", "norm": "batch norm", "relu": "relu"}
    panel.add_patch(
        FancyBboxPatch(
            (x - 1.3, y - 0.25),
            2.6,
            0.5,
            zorder=3,
            boxstyle="round,pad=0.08",
            facecolor=_KINDS[kind][0],
            edgecolor="black",
            linewidth=1.6 if kind == "norm" else 1,
        )
    )
    panel.text(
        x,
        y,
        names[kind],
        ha="center",
        va="center",
        fontsize=10,
        zorder=4,
        fontweight="bold" if kind == "norm" else "normal",
    )


def _line(panel, start, end, arrow=False):
    panel.annotate(
        "",
        xy=end,
        xytext=start,
        zorder=2,
        arrowprops={
            "arrowstyle": "-|>" if arrow else "-",
            "color": "black",
            "linewidth": 1.3,
            "shrinkA": 0,
            "shrinkB": 0,
            "mutation_scale": 12,
        },
    )


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
            panel.annotate(
                "",
                xy=(column + 1 - width / 2, low + growth / 2),
                zorder=4,
                xytext=(column + width / 2, low / 2),
                arrowprops={
                    "arrowstyle": "-|>",
                    "color": "black",
                    "linewidth": 1.3,
                    "connectionstyle": "arc3,rad=-0.12",
                    "mutation_scale": 13,
                },
            )
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


# How they train -----------------------------------------------------------------------------------


def plot_seeds(runs, title=None):
    """Loss and test accuracy of recorded runs, every seed: a thin line for each run, a Figure.

    runs : records as in benchmarks/results/lenet.json, with norm 'auto', 'gluon' or 'none'.
    """
    figure, axes = panels(1, 2, (10, 4.2), title)
    for panel, key, scale in ((axes[0], "train_loss", 1), (axes[1], "test_accuracy", 100)):
        named = set()
        for run in runs:
            label, index = NORMS.get(run["norm"], (run["norm"], 3))
            style = {**STYLES[index], "linewidth": (1.4, 2.6, 1.4, 1.4)[index], "markersize": 5}
            panel.plot(
                [e["epoch"] for e in run["epochs"]],
                [scale * e[key] for e in run["epochs"]],
                alpha=0.8,
                label=None if label in named else label,
                **style,
            )
            named.add(label)
        panel.set_xlabel("epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_title("Training loss", loc="left")
    axes[0].set_ylabel("cross entropy (nats)")
    axes[1].set_title("Test accuracy", loc="left")
    axes[1].set_ylabel("images classified correctly (%)")
    axes[1].legend(
        handlelength=3, title="one line for each seed", title_fontsize=9, fontsize=10, frameon=False
    )
    return figure


def plot_recalibration(runs, title=None):
    """Test accuracy after each epoch, by the running statistics and by exact ones: a Figure.

    runs : those of benchmarks/results/recalibration.json; a panel for each seed.
    """
    figure, axes = panels(
        1, len(runs), (max(3.4 * len(runs), 5), 3.9), title, sharey=True, squeeze=False
    )
    for panel, run in zip(axes[0], runs):
        epochs = [e["epoch"] for e in run["epochs"]]
        for key, label, style in (
            ("test_accuracy", "running statistics", STYLES[0]),
            ("test_accuracy_recalibrated", "recalibrated", STYLES[2]),
        ):
            panel.plot(epochs, [100 * e[key] for e in run["epochs"]], label=label, **style)
        panel.set_title(f"seed {run['seed']}", loc="left")
        panel.set_xlabel("epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
    axes[0][0].set_ylabel("test accuracy (%)")
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncol=2, handlelength=3, frameon=False
    )
    return figure


def plot_networks(rows, title=None):
    """Networks side by side: test accuracy, parameters, images a second. A Figure.

    rows : a dict, name -> {"accuracies": one for each run, "parameters": number,
    "images_per_second": number}.
    """
    figure, axes = panels(1, 3, (10.5, 3.6), title)
    where = np.arange(len(rows))
    for panel, key, label in (
        (axes[1], "parameters", "parameters"),
        (axes[2], "images_per_second", "images a second, training"),
    ):
        values = [row[key] for row in rows.values()]
        panel.bar(where, values, 0.55, color=_BLUE, edgecolor="black")
        panel.set_yscale("log")
        panel.set_ylim(min(values) / 3, 3 * max(values))
        for x, value in zip(where, values):
            panel.text(x, value * 1.1, f"{float(f'{value:.2g}'):,.0f}", ha="center", fontsize=9)
        panel.set_title(label.capitalize(), loc="left")
    for x, row in zip(where, rows.values()):
        axes[0].plot(
            [x] * len(row["accuracies"]),
            [100 * a for a in row["accuracies"]],
            "o",
            color=_BLUE,
            markeredgecolor="black",
            alpha=0.8,
            markersize=9,
        )
    axes[0].set_title("Test accuracy (%), each run", loc="left")
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(low - 0.5, high + 0.5)
    for panel in axes:
        panel.set_xticks(where, list(rows))
        panel.set_xlim(-0.6, len(rows) - 0.4)
        panel.grid(visible=False, axis="x")
    return figure


# What the norms learned ---------------------------------------------------------------------------


def plot_gamma_beta(layers, title=None):
    """gamma and beta of each channel, a panel for each layer: a Figure.

    layers : a dict, name of the layer -> (gamma, beta), two vectors (C,).
    """
    columns = min(4, len(layers))
    rows = -(-len(layers) // columns)
    figure, axes = panels(
        rows,
        columns,
        (2.7 * columns, 0.5 + 2.8 * rows),
        title,
        squeeze=False,
        sharex=True,
        sharey=True,
    )
    for panel, (name, (gamma, beta)) in zip(axes.flat, layers.items()):
        panel.axvline(1, color=_GREY, linewidth=1, linestyle=(0, (4, 3)))
        panel.axhline(0, color=_GREY, linewidth=1, linestyle=(0, (4, 3)))
        panel.plot(
            gamma,
            beta,
            "o",
            color=_BLUE,
            alpha=0.65,
            markersize=5,
            markeredgecolor="black",
            markeredgewidth=0.5,
        )
        panel.set_title(f"{name}: {len(gamma)} channels", loc="left", fontsize=10)
    for panel in axes.flat[len(layers) :]:
        panel.set_visible(False)
    for panel in axes[-1]:
        panel.set_xlabel(r"$\gamma$ (began at 1)")
    for line in axes:
        line[0].set_ylabel(r"$\beta$ (began at 0)")
    return figure


def plot_statistics(running, exact, batches=None, title=None):
    """Running statistics beside exact ones, channel by channel: a Figure, mean and variance.

    running, exact : (mean, var), vectors (C,).  batches : (means, vars), (number of batches, C),
    drawn as the range from the 5th to the 95th percentile.
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
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=3, fontsize=10, frameon=False)
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
