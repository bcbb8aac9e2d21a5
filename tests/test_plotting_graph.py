"""The figures of chapters 3 and 4: what they say is true, and they can be drawn."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from gluon_bn.figures import backward
from gluon_bn.figures.backward import plot_computation_graph, plot_projection
from gluon_bn.figures.block import plot_layer
from gluon_bn.plotting import plot_curves


def drawn(figure):
    """The figure, once it has been drawn (mathtext is only read then)."""
    assert isinstance(figure, Figure)
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    return figure


def test_computation_graph_has_every_edge_forward_and_backward():
    figure = drawn(plot_computation_graph())
    for axes in figure.axes:
        arrows = [p for p in axes.patches if isinstance(p, FancyArrowPatch)]
        assert len(arrows) == len(backward._EDGES)
        assert not axes.axison


def test_no_two_edges_of_the_graph_cross():
    """Straight ones; the bent one, x to x_hat, goes below everything."""

    def side(a, b, c):
        return np.sign((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))

    straight = [
        [backward._PLACES[n] for n in edge]
        for edge, (*_, bend) in backward._EDGES.items()
        if not bend
    ]
    for i, (a, b) in enumerate(straight):
        for c, d in straight[:i]:
            crosses = (side(a, b, c) * side(a, b, d) < 0) and (side(c, d, a) * side(c, d, b) < 0)
            assert not crosses


def test_factors_on_the_edges_are_the_derivatives():
    """The numbers that the labels stand for, against differences of the forward equations."""
    rng = np.random.RandomState(0)
    x, eps, h = rng.normal(size=5), 1e-3, 1e-6
    m, mean, var = 5, x.mean(), x.var()
    s = np.sqrt(var + eps)

    def slope(f, at):
        return (f(at + h) - f(at - h)) / (2 * h)

    def one(value):  # x with another first number
        return np.concatenate([[value], x[1:]])

    assert slope(lambda v: one(v).mean(), x[0]) == pytest.approx(1 / m)
    assert slope(lambda v: ((one(v) - mean) ** 2).mean(), x[0]) == pytest.approx(
        2 / m * (x[0] - mean)
    )
    assert slope(lambda v: ((x - v) ** 2).mean(), mean) == pytest.approx(0, abs=1e-9)
    assert slope(lambda v: (x[0] - v) / s, mean) == pytest.approx(-1 / s)
    assert slope(lambda v: (x[0] - mean) / np.sqrt(v + eps), var) == pytest.approx(
        -(x[0] - mean) / (2 * (var + eps) ** 1.5)
    )


@pytest.mark.parametrize(
    "X, dY",
    [([2.0, 0.8, 0.6], [0.7, 0.7, -0.8]), ([1, 2, 4], [0, 0, 0]), ([-3, 0, 1e3], [5, -5, 2])],
)
def test_projection_draws_a_tangent(X, dY):
    right = drawn(plot_projection(X, dY)).axes[1]
    arrows = [t for t in right.texts if t.get_text() == "" and hasattr(t, "xy")]
    hat = np.array(arrows[0].xyann)
    assert np.linalg.norm(hat) == pytest.approx(np.sqrt(3))
    tangent = np.array(arrows[1].xy) - hat
    assert tangent @ hat == pytest.approx(0, abs=1e-9)


def test_projection_refuses_what_is_not_three_numbers_that_vary():
    with pytest.raises(ValueError, match="three numbers"):
        plot_projection([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="all equal"):
        plot_projection([1, 1, 1], [1, 2, 3])


def test_layer_names_all_four_parameters():
    text = " ".join(t.get_text() for t in drawn(plot_layer()).axes[0].texts)
    for name in ("gamma", "beta", "running_mean", "running_var", "save_parameters"):
        assert name in text


def test_curves_keep_their_style_in_every_panel_and_have_one_legend():
    part = {
        "title": "a",
        "xlabel": "step",
        "ylabel": "loss",
        "log": "y",
        "lines": [(2, "guess")],
        "curves": {"one": [3, 2, 1], "two": ([1, 3], [1, 2])},
    }
    figure = drawn(
        plot_curves(part, {**part, "curves": {"two": [1, 2]}, "ylim": (1, 9)}, title="t")
    )
    left, right = figure.axes
    two = {line.get_label(): line for line in left.lines}["two"]
    assert right.lines[0].get_linestyle() == two.get_linestyle()
    assert right.lines[0].get_color() == two.get_color()
    assert len(figure.legends) == 1 and left.get_yscale() == "log"
    assert list(left.lines[0].get_xdata()) == [1, 2, 3] and right.get_ylim() == (1, 9)
    assert not drawn(plot_curves({**part, "curves": {"one": [1, 2]}})).legends
