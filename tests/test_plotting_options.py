"""Figures of chapters 9 and 11: the numbers that were given are those that are drawn."""

import sys

import numpy as np
import pytest

from gluon_bn.figures import inference, options


def texts(axes):
    return [text.get_text() for text in axes.texts]


def labels(axes):
    return axes.get_legend_handles_labels()[1]


def test_knobs_name_every_option_once_and_inside_the_picture():
    figure = options.plot_knobs()
    (axes,) = figure.axes
    names = [name for _, names in options.KNOBS for name in names]
    names += options.MEMORY
    assert len(names) == len(set(names)) == 17  # the title in chapter 9 says so
    drawn = texts(axes)
    assert all(drawn.count(name) == 1 for name in names)
    (low, high), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for text in axes.texts:
        x, y = text.get_position()
        assert low <= x <= high and bottom <= y <= top


def test_padding_covers_what_comes_after_the_end():
    X = np.arange(24.0).reshape(2, 6, 2)
    figure = options.plot_padding(X, [6, 2], channel=1)
    axes = figure.axes[0]
    picture = axes.images[0].get_array()
    np.testing.assert_array_equal(picture.mask, [[False] * 6, [False, False] + [True] * 4])
    np.testing.assert_array_equal(picture[0], X[0, :, 1])
    (bar,) = axes.patches
    assert (bar.get_x(), bar.get_width()) == (1.5, 4)
    assert labels(axes) == ["padding"]
    assert not options.plot_padding(X, [6, 6]).axes[0].patches


def test_gammas_are_sorted_by_size():
    (axes,) = options.plot_gammas({"a": np.array([0.1, -3, 2])}, threshold=0.01).axes
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [3, 2, 0.1])
    assert axes.lines[1].get_ydata()[0] == 0.01
    assert labels(axes) == ["a"]


def test_folding_shows_the_formula():
    (axes,) = inference.plot_folding().axes
    drawn = texts(axes)
    assert "y = (a W) x + (a c + b)" in drawn
    assert drawn.count("x") == drawn.count("y") == 3


@pytest.mark.parametrize("networks", [1, 3])
def test_folding_speed_has_a_panel_for_each_network_and_starts_at_zero(networks):
    times = {f"net {i}": {"auto": 10.0 + i, "gluon": 12.0, "folded": 7.5} for i in range(networks)}
    figure = inference.plot_folding_speed(times, images=128)
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(times)
    axes = figure.axes[-1]
    assert [bar.get_height() for bar in axes.patches] == [9.0 + networks, 12, 7.5]
    assert len({(bar.get_facecolor(), bar.get_hatch()) for bar in axes.patches}) == 3
    assert [t.get_text() for t in axes.get_xticklabels()] == ["ours", "Gluon's", "folded"]
    assert axes.get_ylim()[0] == 0
    assert "128" in figure.axes[0].get_ylabel()


def test_swing_draws_losses_and_both_accuracies():
    loss, accuracy = inference.plot_swing(
        {10: 0.8, 20: 0.9}, {10: 0.5, 20: 0.7}, [(10, 2.0), (20, 1.0)]
    ).axes
    assert list(loss.lines[0].get_ydata()) == [2, 1]
    assert labels(accuracy) == ["running statistics", "recalibrated"]
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), [50, 70])
    np.testing.assert_allclose(accuracy.lines[1].get_ydata(), [80, 90])


def test_figures_leave_pyplot_alone():
    before = "matplotlib.pyplot" in sys.modules
    inference.plot_folding()
    assert ("matplotlib.pyplot" in sys.modules) == before
