"""The figures of chapter 5: what the norms learned."""

from gluon_bn.plotting.style import panels

_GREY, _BLUE = "#666666", "#0072B2"


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
