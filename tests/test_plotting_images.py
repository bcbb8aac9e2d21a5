"""The pictures of chapter 8."""

import numpy as np

from gluon_bn.figures.conditional import plot_confusion
from gluon_bn.plotting import plot_images


def test_images_stand_where_they_belong():
    rows = np.zeros((2, 3, 1, 4, 5))
    rows[1, 2] = 0.5
    figure = plot_images(rows, labels=("a", "b"), columns=("x", "y", "z"))
    axes = figure.axes[0]
    sheet = axes.images[0].get_array()
    assert sheet.shape == (2 * 4 + 1, 3 * 5 + 2)
    assert (sheet[5:9, 12:17] == 0.5).all() and (sheet == 0.5).sum() == 20
    assert (sheet[4] == 1).all() and (sheet[:, 5] == 1).all()  # the gaps are white
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b"]
    assert axes.get_yticks().tolist() == [1.5, 6.5]
    assert axes.get_xticks().tolist() == [2, 8, 14]
    assert axes.images[0].get_clim() == (0, 1)


def test_confusion_shows_shares_of_rows():
    figure = plot_confusion([[3, 1], [0, 8]], ("bag", "boot"))
    texts = {(t.get_position()[1], t.get_position()[0]): t.get_text() for t in figure.axes[0].texts}
    assert texts == {(0, 0): "75", (0, 1): "25", (1, 1): "100"}
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["bag", "boot"]
