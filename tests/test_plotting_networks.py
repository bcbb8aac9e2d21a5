"""Figures of chapters 5 to 7: the numbers that were given are those that are drawn."""

import sys

import numpy as np
import pytest

from gluon_bn import plotting
from gluon_bn.figures import densenet, lenet, resnet


def runs(norms=("auto", "gluon"), seeds=(0, 1)):
    return [
        {
            "norm": norm,
            "seed": seed,
            "epochs": [
                {"epoch": e, "train_loss": 2 / e + seed, "test_accuracy": 0.9 - 0.5 / e}
                for e in (1, 2, 3)
            ],
        }
        for seed in seeds
        for norm in norms
    ]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def labels(axes):
    return axes.get_legend_handles_labels()[1]


def test_residual_blocks_have_the_orders_of_the_papers():
    plain, post, pre = resnet.plot_residual_blocks().axes
    kinds = ("batch norm", "relu", "convolution 3x3", "+")
    order = [[text for text in texts(axes) if text in kinds] for axes in (plain, post, pre)]
    assert order[0] == ["convolution 3x3", "batch norm", "relu"] * 2
    assert order[1] == [
        "convolution 3x3",
        "batch norm",
        "relu",
        "convolution 3x3",
        "batch norm",
        "+",
        "relu",
    ]
    assert order[2] == ["batch norm", "relu", "convolution 3x3"] * 2 + ["+"]


def test_dense_block_grows():
    (axes,) = densenet.plot_dense_block(10, 4, 2).axes
    assert [t for t in texts(axes) if "channels" in t] == [
        "10 channels",
        "14 channels",
        "18 channels",
    ]
    assert [bar.get_height() for bar in axes.patches if hasattr(bar, "get_height")] == [
        10,
        10,
        4,
        10,
        4,
        4,
    ]


def test_seeds_name_each_layer_once_and_draw_each_run():
    loss, accuracy = plotting.plot_seeds(runs()).axes
    assert len(loss.lines) == len(accuracy.lines) == 4
    assert labels(accuracy) == ["ours", "Gluon's"]
    np.testing.assert_allclose(loss.lines[2].get_ydata(), [3, 2, 1 + 2 / 3])
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), [40, 65, 90 - 50 / 3])


@pytest.mark.parametrize("count", [1, 3])
def test_recalibration_has_a_panel_for_each_seed(count):
    recorded = [
        {
            "seed": s,
            "epochs": [{"epoch": 1, "test_accuracy": 0.7, "test_accuracy_recalibrated": 0.9}],
        }
        for s in range(count)
    ]
    figure = plotting.plot_recalibration(recorded)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        f"seed {s}" for s in range(count)
    ]
    assert [line.get_ydata()[0] for line in figure.axes[0].lines] == [70, 90]


def test_networks_side_by_side():
    rows = {
        "A": {"accuracies": [0.9, 0.8], "parameters": 44_878, "images_per_second": 1234.5},
        "B": {"accuracies": [0.93], "parameters": 11_178_378, "images_per_second": 40},
    }
    accuracy, parameters, speed = densenet.plot_networks(rows).axes
    assert [list(line.get_ydata()) for line in accuracy.lines] == [[90, 80], [93]]
    assert texts(parameters) == ["45,000", "11,000,000"]
    assert texts(speed) == ["1,200", "40"]


@pytest.mark.parametrize("count, visible", [(1, 1), (4, 4), (5, 5)])
def test_gamma_and_beta(count, visible):
    layers = {f"norm {i}": (np.array([1.0, 2.0]), np.array([0.0, i])) for i in range(count)}
    figure = lenet.plot_gamma_beta(layers)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == visible
    assert shown[-1].lines[-1].get_xydata().tolist() == [[1, 0], [2, count - 1]]


def test_statistics_with_and_without_single_batches():
    running, exact = (np.array([1.0, 2]), np.array([3.0, 4])), (np.zeros(2), np.ones(2))
    mean, variance = plotting.plot_statistics(running, exact).axes
    assert labels(mean) == ["exact, over many images", "running"]
    assert list(variance.lines[1].get_ydata()) == [3, 4]
    batches = np.ones((2, 5, 2))
    assert len(labels(plotting.plot_statistics(running, exact, batches).axes[0])) == 3


def test_readers_leave_out_what_they_do_not_read():
    values = np.array([[1.0, np.nan], [2.0, 3.0]])
    panel = densenet.plot_readers(values, boundaries=[1], middle=1).axes[0]
    drawn = panel.images[0].get_array()
    assert drawn.mask.tolist() == [[False, True], [False, False]]
    assert panel.images[0].get_clim() == (-1, 3)


def test_pyplot_is_left_alone():
    before = "matplotlib.pyplot" in sys.modules
    resnet.plot_residual_blocks()
    assert ("matplotlib.pyplot" in sys.modules) == before
