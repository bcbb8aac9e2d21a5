"""The figures: the right numbers in them, labels, and curves that can be told apart."""

import subprocess
import sys

import numpy as np
import pytest

from gluon_bn.plotting import STYLES, describe_dataset, plot_run, plot_runs


def metrics(norm="auto", name="fashion-mnist", epochs=3, test=True):
    return {
        "model": "lenet",
        "norm": norm,
        "seed": 0,
        "dataset": {"name": name, "train": 6000, "test": 10000},
        "epochs": [
            {
                "epoch": e,
                "train_loss": 2 / e,
                "train_accuracy": 1 - 0.5 / e,
                "test_accuracy": 0.9 - 0.5 / e if test else None,
            }
            for e in range(1, epochs + 1)
        ],
    }


def curves(axes):
    return {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}


def test_curves_of_a_run():
    loss, accuracy = plot_run(metrics()).axes
    assert curves(loss) == {"training": [[1, 2], [2, 1], [3, 2 / 3]]}
    np.testing.assert_allclose(curves(accuracy)["training"], [[1, 50], [2, 75], [3, 100 - 50 / 3]])
    np.testing.assert_allclose(curves(accuracy)["test"], [[1, 40], [2, 65], [3, 90 - 50 / 3]])


def test_curves_of_several_runs():
    figure = plot_runs([metrics("none"), metrics("auto"), metrics("gluon")], ["a", "b", "c"])
    assert list(curves(figure.axes[0])) == list(curves(figure.axes[1])) == ["a", "b", "c"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "c"]
    assert list(curves(plot_runs([metrics("none"), metrics("gluon")]).axes[0])) == ["none", "gluon"]


@pytest.mark.parametrize("draw", [plot_run, lambda record: plot_runs([record])])
def test_everything_is_labelled(draw):
    figure = draw(metrics())
    for axes in figure.axes:
        assert axes.get_xlabel() == "epoch"
        assert "(" in axes.get_ylabel()  # the unit
        assert axes.get_title(loc="left")


@pytest.mark.parametrize("draw", [plot_run, lambda record: plot_runs([record])])
def test_the_stand_in_is_named_in_every_title(draw):
    def title(record):
        return draw(record)._suptitle.get_text()

    assert "stand-in" in title(metrics(name="stand-in"))
    assert "stand-in" not in title(metrics())
    assert "Fashion-MNIST" in title(metrics())


def test_curves_differ_without_colour():
    assert len({(str(s["linestyle"]), s["marker"]) for s in STYLES}) == len(STYLES)


@pytest.mark.parametrize("epochs", [1, 2, 50])
def test_any_number_of_epochs(epochs, tmp_path):
    figure = plot_run(metrics(epochs=epochs, test=False))
    figure.savefig(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    ticks = figure.axes[0].get_xticks()
    assert all(tick == round(tick) for tick in ticks)


def test_describe_dataset():
    assert describe_dataset({"name": "fashion-mnist", "train": 60000}) == (
        "Fashion-MNIST, 60,000 training images"
    )


def test_no_global_state_is_touched():
    """Neither pyplot nor a change of matplotlib's settings, and matplotlib only when drawing."""
    code = """
import sys
import gluon_bn.plotting as plotting
assert 'matplotlib' not in sys.modules
import matplotlib
def settings():  # without asking for the back-end by name, which chooses one
    return {k: dict.__getitem__(matplotlib.rcParams, k) for k in matplotlib.rcParams}
before = settings()
sys.path.insert(0, 'tests')
from test_plotting import metrics
plotting.plot_run(metrics()).savefig(sys.argv[1], format='png')
assert settings() == before
assert 'matplotlib.pyplot' not in sys.modules
"""
    subprocess.run(
        [sys.executable, "-c", code, "/dev/null"], check=True, cwd=__file__.rpartition("/tests/")[0]
    )
