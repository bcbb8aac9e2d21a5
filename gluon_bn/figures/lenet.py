"""The figures of chapter 5: what an image becomes on its way, and what the norms learned."""

import numpy as np

from gluon_bn.plotting.style import panels

_GREY, _BLUE = "#666666", "#0072B2"


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
