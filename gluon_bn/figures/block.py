"""The figure of chapter 4: what a layer has that a function lacks."""

from gluon_bn.figures.diagrams import arrow, box
from gluon_bn.plotting.style import panels

_ORANGE, _BLUE = "#B35A00", "#0072B2"  # dark enough to read as text


def plot_layer():
    """Who reads and who writes the state of a layer, and what is saved: a Figure."""
    figure, axes = panels(size=(10, 4.9))
    axes.set_axis_off()
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 4.9)

    def named_arrow(start, end, text, place, color="black", linestyle="-", ha="center"):
        look = {"color": color, "linestyle": linestyle, "linewidth": 1.6, "mutation_scale": 14}
        arrow(axes, start, end, zorder=4, **look)
        axes.text(*place, text, color=color, fontsize=10, ha=ha, va="center", zorder=4)

    dashed = (0, (4, 2))
    box(axes, 1.55, 0.15, 6.9, 4.6, "", look={"facecolor": "#F2F2F2", "zorder": 1})
    axes.text(5, 4.65, "the layer: a Block", ha="center", va="top", fontsize=12)
    box(
        axes, 3.3, 0.35, 3.4, 1.0, "the function of chapter 2\nnormalize, scale, shift", fontsize=11
    )
    box(axes, 1.9, 2.55, 2.3, 1.0, "gamma, beta")
    look = {"linestyle": dashed}
    box(axes, 5.8, 2.55, 2.3, 1.0, "running_mean,\nrunning_var", look=look)
    axes.text(3.05, 3.8, "parameters, learned", ha="center", fontsize=10)
    axes.text(6.95, 3.8, "parameters, not learned", ha="center", fontsize=10)
    named_arrow((0.35, 0.85), (3.27, 0.85), "X", (0.2, 0.85))
    named_arrow((6.73, 0.85), (9.6, 0.85), "Y", (9.75, 0.85))
    named_arrow((3.3, 2.52), (4.1, 1.4), "read", (3.35, 1.95))
    named_arrow((6.3, 2.52), (5.7, 1.4), "read in\nprediction", (5.45, 2.0))
    moved = "moved in training,\nby the forward pass"
    named_arrow((6.5, 1.4), (7.2, 2.52), moved, (6.98, 1.75), _BLUE, dashed, "left")
    trainer = "the Trainer,\nfrom their\ngradients"
    named_arrow((0.35, 3.05), (1.87, 3.05), trainer, (0.78, 3.5), _ORANGE)
    saved = "save_parameters\nload_parameters\ncast, reset_ctx"
    axes.text(5, 3.05, saved, ha="center", va="center", fontsize=10, style="italic")
    for start, end in (((4.22, 3.05), (4.34, 3.05)), ((5.78, 3.05), (5.66, 3.05))):
        axes.plot(*zip(start, end), color="black", linewidth=1.3)
    return figure
