"""The figure of chapter 6: residual blocks, box by box."""

from gluon_bn.figures.diagrams import arrow, box
from gluon_bn.plotting.style import panels

# A text and a fill for each kind of box.
_KINDS = {
    "conv": ("convolution 3x3", "#FFFFFF"),
    "norm": ("batch norm", "#F6D58F"),
    "relu": ("relu", "#DDDDDD"),
}


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
        arrow(panel, (0, 9.5), (0, 8.85), arrowstyle="-")
        panel.text(0.15, 9.3, "$X$", fontsize=12, va="center")
        for index, kind in enumerate(order):
            y = 8.5 - 1.1 * index
            _box(panel, 0, y, kind)
            head = "-|>" if index + 1 < len(order) else "-"
            arrow(panel, (0, y - 0.33), (0, y - 0.77), arrowstyle=head)
        y -= 0.77
        if shortcut:
            arrow(panel, (0, 9.05), (1.7, 9.05), arrowstyle="-")
            arrow(panel, (1.7, 9.05), (1.7, y - 0.2), arrowstyle="-")
            arrow(panel, (1.7, y - 0.2), (0.24, y - 0.2))
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
            arrow(panel, (0, y), (0, y - 0.3))
            _box(panel, 0, y - 0.62, "relu")
            y -= 0.94
        arrow(panel, (0, y), (0, y - 0.5))
        panel.text(0.15, y - 0.35, "$Y$", fontsize=12, va="center")
    return figure


def _box(panel, x, y, kind):
    text, fill = _KINDS[kind]
    is_norm = kind == "norm"
    look = {"facecolor": fill, "linewidth": 1.6 if is_norm else 1, "zorder": 3}
    font = {"fontsize": 10, "fontweight": "bold" if is_norm else "normal"}
    box(panel, x - 1.3, y - 0.25, 2.6, 0.5, text, pad=0.08, look=look, **font)
