"""The figures of chapter 3: the computation graph, and the geometry of the gradient."""

import math

import numpy as np

from gluon_bn.figures.diagrams import arrow
from gluon_bn.plotting.style import panels

_ORANGE, _BLUE, _GREY = "#B35A00", "#0072B2", "#555555"  # dark enough to read as text

# No two edges cross: X, mean, var and X_hat are all joined, so one of them stands in the middle.
_PLACES = {
    "x": (0, 0),
    "mean": (3, 0),
    "var": (3, 2),
    "x_hat": (6, 0),
    "y": (8.5, 0),
    "gamma": (8.5, 2),
    "beta": (8.5, -1.3),
    "L": (10.6, 0),
}


_FORMULAS = {
    "x": r"$x_i$",
    "mean": r"$\mu = \frac{1}{m}\sum_i x_i$",
    "var": r"$\sigma^2 = \frac{1}{m}\sum_i (x_i - \mu)^2$",
    "x_hat": r"$\hat{x}_i = \frac{x_i - \mu}{\sqrt{\sigma^2 + \epsilon}}$",
    "y": r"$y_i = \gamma\,\hat{x}_i + \beta$",
    "gamma": r"$\gamma$",
    "beta": r"$\beta$",
    "L": r"$L$",
}


_GRADIENTS = {
    "x": r"$\frac{\partial L}{\partial x_i}$",
    "mean": r"$\frac{\partial L}{\partial \mu}$",
    "var": r"$\frac{\partial L}{\partial \sigma^2}$",
    "x_hat": r"$\frac{\partial L}{\partial \hat{x}_i}$",
    "y": r"$\frac{\partial L}{\partial y_i}$",
    "gamma": r"$\frac{\partial L}{\partial \gamma}$",
    "beta": r"$\frac{\partial L}{\partial \beta}$",
    "L": r"$1$",
}


# (from, to): the factor that the chain rule multiplies by on the way back, where it is written
# (beside the middle of the edge), and how much the edge is bent.
_EDGES = {
    ("x", "mean"): (r"$\frac{1}{m}$", (0, 0.36), 0),
    ("x", "var"): (r"$\frac{2}{m}(x_i - \mu)$", (-0.62, 0.3), 0),
    ("x", "x_hat"): (r"$\frac{1}{\sqrt{\sigma^2 + \epsilon}}$", (0, -1.62), 0.42),
    ("mean", "var"): ("0 (step 4)", (0.62, -0.3), 0),
    ("mean", "x_hat"): (r"$\frac{-1}{\sqrt{\sigma^2 + \epsilon}}$", (0, -0.44), 0),
    ("var", "x_hat"): (
        r"$-\frac{1}{2}\,\frac{x_i - \mu}{(\sigma^2 + \epsilon)^{3/2}}$",
        (1.15, 0.34),
        0,
    ),
    ("x_hat", "y"): (r"$\gamma$", (0, 0.3), 0),
    ("gamma", "y"): (r"$\hat{x}_i$", (0.32, 0), 0),
    ("beta", "y"): (r"$1$", (0.25, 0), 0),
    ("y", "L"): ("", (0, 0), 0),
}


def plot_computation_graph():
    """The graph of batch normalization for one channel: a Figure of two panels.

    Above, forward: what is computed from what. Below, backward: the same edges the other way, each
    with the derivative that the chain rule multiplies by; where several arrows arrive, it adds.
    """
    figure, (forward, backward) = panels(2, 1, size=(10, 8.6))
    _graph(forward, _FORMULAS, "Forward: what is computed from what", back=False)
    _graph(
        backward, _GRADIENTS, "Backward: multiply along an arrow, add where arrows meet", back=True
    )
    return figure


def _graph(axes, texts, title, back):
    axes.set_axis_off()
    axes.set_xlim(-0.9, 11.2)
    axes.set_ylim(-2.25, 2.6)
    axes.set_title(title, loc="left")
    boxes = {
        name: _box(
            axes,
            _PLACES[name],
            text,
            17 if back and name != "L" else 14,
            _ORANGE if back else "black",
        )
        for name, text in texts.items()
    }
    for (tail, head), (label, (dx, dy), bend) in _EDGES.items():
        start, end = (head, tail) if back else (tail, head)
        _arrow(
            axes,
            _PLACES[start],
            _PLACES[end],
            boxes[start],
            boxes[end],
            bend=-bend if back else bend,
            dashed=back,
            color=_ORANGE if back else "black",
        )
        if back and label:
            x, y = ((a + b) / 2 for a, b in zip(_PLACES[tail], _PLACES[head]))
            axes.text(x + dx, y + dy, label, ha="center", va="center", fontsize=13)


def _box(axes, place, text, size, color="black", fill="white"):
    return axes.text(
        *place,
        text,
        ha="center",
        va="center",
        fontsize=size,
        zorder=3,
        bbox={"boxstyle": "round,pad=0.4", "facecolor": fill, "edgecolor": color, "linewidth": 1.4},
    )


def _arrow(axes, start, end, start_box, end_box, bend=0, dashed=False, color="black"):
    """An arrow from box to box; it ends at their edges, however large the text makes them."""
    from matplotlib.patches import FancyArrowPatch

    # How large the boxes are is known only once their text is drawn; so they do the clipping, and
    # the arrows are drawn after them.
    arrow = FancyArrowPatch(
        start,
        end,
        arrowstyle="-|>",
        mutation_scale=14,
        linewidth=1.5,
        color=color,
        linestyle=(0, (4, 2)) if dashed else "-",
        connectionstyle=f"arc3,rad={bend}",
        patchA=start_box.get_bbox_patch(),
        patchB=end_box.get_bbox_patch(),
        shrinkA=2,
        shrinkB=2,
        zorder=4,
    )
    axes.add_patch(arrow)
    return arrow


def plot_projection(X, dY):
    """Batch normalization of a batch of three numbers, drawn exactly: a Figure of two panels.

    X, dY : three numbers each, the batch and the gradient that arrives (gamma is 1).

    Three numbers are a point in space. Subtracting their mean puts it on a plane, and that plane is
    the picture. Dividing by the standard deviation puts it on a circle of radius sqrt(3).
    """
    # Two directions of length 1 that span the plane perpendicular to (1, 1, 1).
    plane = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])
    X, dY = (np.asarray(v, dtype="float64") for v in (X, dY))
    if X.shape != (3,) or dY.shape != (3,):
        raise ValueError(f"X and dY must be three numbers each, got shapes {X.shape}, {dY.shape}")
    if np.ptp(X) == 0:
        raise ValueError(
            f"the three numbers of X are all equal ({X[0]:g}): they have no direction "
            "in the plane, and x_hat is zero"
        )
    centred = X - X.mean()
    x_hat = centred / np.sqrt((centred**2).mean())
    flat = dY - dY.mean()
    tangent = flat - x_hat * (flat * x_hat).mean()
    point, hat, flat, tangent = (plane @ v for v in (centred, x_hat, flat, tangent))

    figure, (left, right) = panels(1, 2, size=(10, 5.2))
    reach = 1.2 * max(math.sqrt(3), *(abs(v).max() for v in (point, hat + flat, hat + tangent)))
    for axes in (left, right):
        turn = np.linspace(0, 2 * np.pi, 200)
        axes.plot(
            math.sqrt(3) * np.cos(turn), math.sqrt(3) * np.sin(turn), color=_GREY, linewidth=1.2
        )
        axes.plot(0, 0, "+", color="black")
        axes.plot(*hat, "o", color="black", markersize=8, zorder=4)
        axes.set_aspect("equal")
        axes.set_xlim(-reach, reach)
        axes.set_ylim(-reach, reach)
        axes.set_xlabel(r"along $(1, -1, 0)/\sqrt{2}$")
        axes.set_ylabel(r"along $(1, 1, -2)/\sqrt{6}$")

    left.set_title("Forward: a whole ray becomes one point", loc="left")
    ray = point / np.linalg.norm(point)
    left.plot(*zip(0 * ray, 1.3 * reach * ray), color=_BLUE, linestyle=(0, (4, 2)), linewidth=1.6)
    for k, text in ((0.5, r"$\frac{1}{2}(x - \mu)$"), (1, r"$x - \mu$"), (2, r"$2\,(x - \mu)$")):
        left.plot(*(k * point), "s", color=_BLUE, markersize=7, zorder=3)
        _beside(left, k * point, text, _right_of(ray), _BLUE)
    _beside(left, hat, r"$\hat{x}$", -_right_of(ray), "black")
    left.text(0, -1.2, r"circle of radius $\sqrt{3}$", ha="center", color=_GREY)

    right.set_title("Backward: what is left points along the circle", loc="left")
    right.plot(*zip((0, 0), hat), color=_GREY, linewidth=1)
    right.plot(*zip(hat + flat, hat + tangent), color="black", linewidth=1, linestyle=":")
    for vector, color, dashes, name in (
        (flat, _GREY, (0, (1, 1.2)), "arrives (less its mean)"),
        (tangent, _ORANGE, "-", r"goes on (less its part along $\hat{x}$, too)"),
    ):
        right.plot([], [], color=color, linestyle=dashes, linewidth=2.2, label=name)
        look = {"color": color, "linestyle": dashes, "linewidth": 2.2, "mutation_scale": 16}
        arrow(right, hat, hat + vector, zorder=3, **look)
    _beside(right, hat, r"$\hat{x}$", _right_of(ray), "black")
    right.legend(loc="lower center", fontsize=10, handlelength=2.6)
    return figure


def _right_of(direction):
    return np.array([direction[1], -direction[0]])


def _beside(axes, place, text, direction, color, distance=0.2):
    """Text beside a point, on the side that `direction` (of length 1) points to."""
    x, y = (p + distance * d for p, d in zip(place, direction))
    axes.text(
        x,
        y,
        text,
        color=color,
        fontsize=12,
        ha="left" if direction[0] > 0.3 else "right" if direction[0] < -0.3 else "center",
        va="bottom" if direction[1] > 0.3 else "top" if direction[1] < -0.3 else "center",
    )
