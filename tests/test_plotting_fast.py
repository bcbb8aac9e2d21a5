"""The figures of chapter 12: the right numbers in them, and what cannot be drawn."""

import numpy as np
import pytest
from test_plotting_depth import drawn

from gluon_bn.figures import fast


def words(axes):
    return [text.get_text().strip() for text in axes.texts]


def test_passes():
    figure = drawn(fast.plot_passes({"one": ("X>Y", "dY,X>dX"), "two": ("X X>Y >S", "")}, "T"))
    (axes,) = figure.axes
    assert words(axes) == ["X", "Y", "dY", "X", "dX", "5 times", "X", "X", "Y", "S", "4 times"]
    boxes = [box for box in axes.patches if np.isfinite(box.get_x())]
    assert [bool(box.get_hatch()) for box in boxes] == [
        False,
        True,
        False,
        False,
        True,
        False,
        False,
        True,
        True,
    ]  # hatched: written
    assert boxes[0].get_facecolor() == boxes[3].get_facecolor()  # X has one colour everywhere
    left = [box.get_x() for box in boxes[:5]]
    assert np.diff(left)[1] > 2 > np.diff(left)[0]  # a gap between forward and backward
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "two"]


@pytest.mark.parametrize("bad", ["X>Y>Z", ">", "X;Y", "X-Y"])
def test_passes_that_name_nothing(bad):
    with pytest.raises(ValueError, match="a pass reads like 'X', 'X,dY' or 'X>Y', not"):
        fast.plot_passes({"bad": (bad, "")})


def test_bandwidth():
    sizes = [2**k for k in range(14, 20)]
    rising, flat = [1e9 * k for k in range(1, 7)], [2e9] * 6
    figure = drawn(
        fast.plot_bandwidth(
            sizes,
            {"one way": {"a": rising, "b": flat}, "back": {"a": flat, "b": rising}},
            {"an array": 5e4, "two": 3e5},
        )
    )
    left, right = figure.axes
    for axes, heights in ((left, (range(1, 7), [2] * 6)), (right, ([2] * 6, range(1, 7)))):
        first, second, *marks = axes.get_lines()
        for curve, expected in zip((first, second), heights):
            np.testing.assert_allclose(curve.get_xdata(), np.array(sizes) / 1e6)
            np.testing.assert_allclose(curve.get_ydata(), expected)
        assert first.get_color() != second.get_color()
        assert first.get_marker() != second.get_marker()
        assert [mark.get_xdata()[0] for mark in marks] == [0.05, 0.3]
        assert words(axes) == ["an array", "two"]
    assert [axes.get_title(loc="left") for axes in (left, right)] == ["one way", "back"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    drawn(fast.plot_bandwidth(sizes, {"one": {"a": rising}}))


def test_roofline():
    points = {"native": (0.5, 4e9), "gluon": (0.5, 1e9), "matrix product": (100, 5e10)}
    figure = drawn(fast.plot_roofline(6e10, {"memory": 2e10, "cache": 6e10}, points))
    (axes,) = figure.axes
    memory, cache, *dots = axes.get_lines()
    for roof, bandwidth in ((memory, 20), (cache, 60)):
        x, y = roof.get_data()
        np.testing.assert_allclose(y, np.minimum(60, x * bandwidth))
        assert x[0] * bandwidth < 60 < x[-1] * bandwidth  # both parts of the roof are seen
    assert [dot.get_data()[1] for dot in dots] == [4, 1, 50]
    assert len({dot.get_marker() for dot in dots}) == 3
    assert words(axes) == ["peak, 60 billion a second", *points]
    assert memory.get_label() == "memory, 20 GB/s"


def test_labels_of_the_roofline_do_not_cover_each_other():
    points = {"a": (100, 5e10), "b": (100, 5.01e10), "c": (120, 4.9e10), "far": (0.1, 5e10)}
    (axes,) = drawn(fast.plot_roofline(6e10, {"memory": 2e10}, points)).axes
    down = {text.get_text(): text.xyann[1] for text in axes.texts}
    assert down["b"] == 0 and down["far"] == 0
    assert -11 <= down["a"] < -9 and -22 < down["c"] < -15  # a line below, two lines below


def test_copies():
    copies = {
        (128, 64): {"textbook": 80.0, "native": 7.0},
        (4, 4): {"textbook": 900.0, "other": 12.3},
    }
    figure = drawn(fast.plot_copies(copies, (2.5, 4)))
    first, second = figure.axes
    slow, native, *bounds = first.get_lines()
    assert [line.get_xdata()[0] for line in (slow, native)] == [80, 7]
    assert slow.get_ydata()[0] > native.get_ydata()[0]  # from top to bottom
    assert slow.get_marker() != native.get_marker()
    assert [line.get_xdata()[0] for line in bounds] == [2.5, 4]
    assert not first.patches  # no bars where zero is not on the axis
    assert words(second) == ["900", "12.3"]
    assert first.get_title(loc="left") == "(128, 64)"
    assert first.get_xlabel() == "copies (lines: 2.5 and 4)"
    assert first.get_xlim()[1] > 80 and first.get_xscale() == "log"
    drawn(fast.plot_copies({"one": {"native": 2.0}}))


def test_amdahl():
    figure = drawn(
        fast.plot_amdahl({"LeNet": 0.25, "ResNet": 0.0}, {"LeNet": (2, 1.2), "ResNet": (0.8, 0.9)})
    )
    (axes,) = figure.axes
    lines = [line for line in axes.get_lines() if not line.get_label().startswith("_")]
    law, point, flat, _ = lines
    x, y = law.get_data()
    np.testing.assert_allclose(y, 1 / (0.75 + 0.25 / x))
    assert x[0] == pytest.approx(0.8) and x[-1] == pytest.approx(10)  # every mark is in the picture
    assert (point.get_xdata()[0], point.get_ydata()[0]) == (2, 1.2)
    distance = axes.get_lines()[1]  # from what the law says to what was measured
    np.testing.assert_allclose(distance.get_data(), [[2, 2], [1 / (0.75 + 0.25 / 2), 1.2]])
    assert set(flat.get_ydata()) == {1}
    assert flat.get_label().startswith("ResNet: the layer takes 0 %")
    drawn(fast.plot_amdahl({"LeNet": 0.25}))
