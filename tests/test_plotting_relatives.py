"""Figures of chapter 10: the numbers that were given are those that are drawn."""

import sys

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer

from gluon_bn.figures import relatives


def run(norm, batch_size, seed, error, train_loss=0.5):
    return {
        "norm": norm,
        "batch_size": batch_size,
        "seed": seed,
        "error": error,
        "train_loss": train_loss,
    }


def errorbars(axes):
    """Of each curve: its label, x and y, and the lower and upper end of each bar."""
    for container in axes.containers:
        assert isinstance(container, ErrorbarContainer)
        line, _, (bars,) = container
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        yield container.get_label(), *line.get_data(), ends[:, 0], ends[:, 1]


# The cube -----------------------------------------------------------------------------------------


def test_cubes_mark_what_is_averaged_on_all_three_faces():
    together = np.zeros((2, 3, 4), dtype=bool)  # batch norm of the last channel
    together[:, 2] = True
    figure = relatives.plot_cubes({"batch": together})
    (axes,) = figure.axes
    assert axes.get_title() == "batch"
    cells = axes.patches
    assert len(cells) == 3 * 4 + 2 * 4 + 2 * 3  # front, side, top
    marked = [cell for cell in cells if cell.get_gid() == "averaged"]
    assert len(marked) == 4 + 2 * 4 + 2  # a column, the whole side, a strip of the top
    assert all(cell.get_hatch() for cell in marked)  # grey prints tell them apart
    assert not any(cell.get_hatch() for cell in cells if cell.get_gid() != "averaged")
    assert {text.get_text() for text in axes.texts} == {"C", "H, W", "N", "m = 8 of 24"}


def test_cubes_put_the_first_example_in_front_and_the_last_channel_to_the_right():
    together = np.zeros((2, 3, 4), dtype=bool)
    together[0, 0, 3] = True  # first example, first channel, last position
    (axes,) = relatives.plot_cubes({"one": together}).axes
    (cell,) = [cell for cell in axes.patches if cell.get_gid() == "averaged"]
    corners = cell.get_xy()
    assert (corners.min(axis=0) == [0, -4]).all() and (corners.max(axis=0) == [1, -3]).all()

    together = np.zeros((2, 3, 4), dtype=bool)
    together[1, 2, 0] = True  # the corner at the back: seen from the side and from above
    (axes,) = relatives.plot_cubes({"one": together}).axes
    cells = [cell for cell in axes.patches if cell.get_gid() == "averaged"]
    assert len(cells) == 2
    assert min(cell.get_xy()[:, 0].min() for cell in cells) > 2


def test_cubes_stand_side_by_side_inside_their_pictures():
    sets = {name: np.ones((3, 4, 5), dtype=bool) for name in ("a", "b", "c")}
    figure = relatives.plot_cubes(sets)
    assert [axes.get_title() for axes in figure.axes] == list(sets)
    for axes in figure.axes:
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        corners = np.concatenate([cell.get_xy() for cell in axes.patches])
        assert left <= corners[:, 0].min() and corners[:, 0].max() <= right
        assert low <= corners[:, 1].min() and corners[:, 1].max() <= high
        assert all(low <= text.get_position()[1] <= high for text in axes.texts)


def test_cubes_want_three_axes():
    with pytest.raises(ValueError, match=r"'batch'.*\(2, 3\)"):
        relatives.plot_cubes({"batch": np.ones((2, 3), dtype=bool)})


# The size of the batch ----------------------------------------------------------------------------

RUNS = [
    run("batch", 2, 0, 0.20, 0.9),
    run("batch", 2, 1, 0.26, 1.1),
    run("batch", 32, 0, 0.13),
    run("group", 2, 0, 0.14),
    run("group", 32, 0, 0.14, None),
    run("group", 32, 1, 0.16),
]


def test_batch_sizes_show_the_mean_and_the_range_of_the_seeds():
    error, loss = relatives.plot_batch_sizes(RUNS).axes
    (name, x, y, low, high), (other, *_, group_low, group_high) = errorbars(error)
    assert (name, other) == ("batch", "group")
    np.testing.assert_allclose(np.round(x), [1, 5])  # log2 of 2 and 32
    np.testing.assert_allclose(y, [23, 13])
    np.testing.assert_allclose(low, [20, 13])
    np.testing.assert_allclose(high, [26, 13])
    np.testing.assert_allclose(group_low, [14, 14])
    np.testing.assert_allclose(group_high, [14, 16])
    (_, _, y, *_), (_, _, group, *_) = errorbars(loss)
    np.testing.assert_allclose(y, [1.0, 0.5])
    np.testing.assert_allclose(group, [0.5, 0.5])  # the run without a loss is left out


def test_batch_sizes_shrink_to_the_right_and_bars_stand_beside_each_other():
    error, _ = relatives.plot_batch_sizes(RUNS).axes
    assert error.get_xlim()[0] > error.get_xlim()[1]
    assert [label.get_text() for label in error.get_xticklabels()] == ["2", "32"]
    (_, first, *_), (_, second, *_) = errorbars(error)
    assert (abs(first - second) > 0.01).all()


def test_batch_sizes_show_the_norms_that_are_asked_for():
    figure = relatives.plot_batch_sizes(RUNS, quantities=("error",), norms=["group", "batch"])
    (axes,) = figure.axes
    assert [name for name, *_ in errorbars(axes)] == ["group", "batch"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["group", "batch"]
    with pytest.raises(ValueError, match="no run with norm 'layer'; there are batch, group"):
        relatives.plot_batch_sizes(RUNS, norms=["layer"])


def test_every_norm_has_a_look_of_its_own():
    norms = relatives.NORMS
    for part in range(4):
        assert len({str(look[part]) for look in norms.values()}) == len(norms)
    runs = [run(norm, 2, 0, 0.1) for norm in (*norms, "mine")]
    axes = relatives.plot_batch_sizes(runs).axes[0]
    assert [name for name, *_ in errorbars(axes)] == [*(n for n, *_ in norms.values()), "mine"]


# The noise ----------------------------------------------------------------------------------------


def test_noise_draws_measured_points_and_predicted_curves():
    mean, var = relatives.plot_noise(
        {"pixels": {2: (0.1, 0.3), 8: (0.05, 0.2)}}, {"theory": {2: (0.2, 0.4), 8: (0.1, 0.25)}}
    ).axes
    for axes, values in ((mean, [0.1, 0.05]), (var, [0.3, 0.2])):
        points, curve = axes.lines
        np.testing.assert_array_equal(points.get_xdata(), [2, 8])
        np.testing.assert_array_equal(points.get_ydata(), values)
        assert points.get_linestyle() == "None" and curve.get_marker() == "None"
    np.testing.assert_array_equal(mean.lines[1].get_ydata(), [0.2, 0.1])
    np.testing.assert_array_equal(var.lines[1].get_ydata(), [0.4, 0.25])
    assert mean.get_legend_handles_labels()[1] == ["pixels", "theory"]
    assert mean.get_xlim()[0] > mean.get_xlim()[1]
    assert [label.get_text() for label in mean.get_yticklabels()] == ["0.05", "0.1", "0.2"]


def test_figures_leave_pyplot_alone():
    before = "matplotlib.pyplot" in sys.modules
    relatives.plot_batch_sizes(RUNS)
    assert ("matplotlib.pyplot" in sys.modules) == before
