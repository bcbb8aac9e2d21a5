"""The figures of chapters 1 and 2: the right numbers in them, and what cannot be drawn."""

import io
from types import SimpleNamespace

import numpy as np
import pytest

from gluon_bn import plotting
from gluon_bn.figures import batch_norm

LAYER_COLOURS = "#000000", "#E69F00", "#0072B2"  # no norm, ours, Gluon's


def report(n=6, **changes):
    rows = [
        SimpleNamespace(
            name=str(i),
            mean=0.1 * i,
            std=1.0,
            between=0.5**i,
            flat=0.25,
            dead=None if i == 2 else 0.5,
            gradient=2.0**i,
            weight_gradient=None,
            values=np.random.RandomState(i).normal(size=200),
        )
        for i in range(n)
    ]
    for row in rows:
        vars(row).update(changes)
    return SimpleNamespace(rows=rows)


def drawn(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=40)
    assert file.getvalue().startswith(b"\x89PNG")
    return figure


def lines(axes):
    return {line.get_label(): line.get_ydata() for line in axes.get_lines()}


def test_depth():
    figure = drawn(
        plotting.plot_depth({"one": report(), "two": report(gradient=0)}, ("gradient", "flat"))
    )
    gradient, flat = figure.axes
    np.testing.assert_array_equal(lines(gradient)["one"], 2.0 ** np.arange(6))
    assert np.isnan(lines(gradient)["two"]).all()  # 0 has no place on a logarithmic axis
    assert gradient.get_yscale() == "log" and flat.get_yscale() == "linear"
    assert set(lines(flat)["one"]) == {25.0}
    with pytest.raises(ValueError, match="no quantity 'slope'; there are mean, std"):
        plotting.plot_depth({"one": report()}, ("slope",))


@pytest.mark.parametrize("changes", [{}, {"flat": None, "dead": None}, {"gradient": 0}])
@pytest.mark.parametrize("n", [1, 6, 40])
def test_report(n, changes):
    figure = drawn(plotting.plot_report(report(n, **changes)))
    assert len(figure.axes) == (2 if "flat" in changes else 3)


def test_sweep_marks_what_broke():
    figure = drawn(
        plotting.plot_sweep([0.1, 1, 10], {"a": [1, np.nan, np.inf], "b": [1, 2, 9]}, ceiling=3)
    )
    found = lines(figure.axes[0])
    np.testing.assert_array_equal(found["a"], [1, np.nan, np.nan])
    np.testing.assert_array_equal(found["b"], [1, 2, np.nan])
    assert len(found["a: above 3, or NaN"]) == 2
    drawn(plotting.plot_sweep([0.1, 1], {"a": [1, 2]}))
    drawn(plotting.plot_sweep([0.1, 1], {"a": [np.nan, np.inf]}))


def test_losses():
    drawn(plotting.plot_losses({"a": [3, 2, 1, 1], "b": [3, 3, 3, 3]}, smooth=2))


def test_batch_states_mean_and_variance():
    X = np.arange(48.0).reshape(2, 3, 2, 4)
    figure = drawn(batch_norm.plot_batch(X))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert f"$\\mu$ = {X[:, 1].mean():g},  $\\sigma^2$ = {X[:, 1].var():g}\nof 16 values" in texts
    assert sum(text in {f"{x:g}" for x in X.ravel()} for text in texts) == 48


def test_normalization_and_moving_averages_and_errors():
    before = np.array([1.0, 2, 3, 900])
    figure = drawn(batch_norm.plot_normalization(before, before * 0 - 1e-9))
    assert figure.axes[1].get_title(loc="left").startswith("after, y: mean 0.00,")  # not -0.00
    assert sum(bar.get_height() for bar in figure.axes[0].patches[:30]) == pytest.approx(100)
    figure = drawn(plotting.plot_moving_averages([1, 2, 3], {"a": [1, 1.5, 2]}, truth=[2, 2, 2]))
    assert {"of one batch", "true mean", "a"} == set(lines(figure.axes[0]))
    figure = drawn(batch_norm.plot_errors([1, 10], {"a": [1e-6, 1e-3]}))
    np.testing.assert_array_equal(lines(figure.axes[0])["a"], [1e-6, 1e-3])


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
@pytest.mark.parametrize(
    "draw",
    [
        lambda names: plotting.plot_losses({name: [2, 1] for name in names}),
        lambda names: plotting.plot_sweep([0.1, 1], {name: [2, 1] for name in names}),
        lambda names: plotting.plot_moving_averages([1, 2], {name: [2, 1] for name in names}),
        lambda names: plotting.plot_depth({name: report() for name in names}),
        lambda names: plotting.plot_curves(
            {"title": "", "xlabel": "", "ylabel": "", "curves": {name: [2, 1] for name in names}}
        ),
    ],
)
def test_a_layer_has_its_colour_in_every_picture(draw, order):
    names = ["tanh, no norm", "relu", "batch norm", "tanh", "Gluon's", "3 layers, no norm"][order]
    lines = draw(names).axes[0].get_lines()
    colours = {line.get_label(): line.get_color() for line in lines if line.get_label() in names}
    first = next(name for name in names if name.endswith("no norm"))
    assert (colours[first], colours["batch norm"], colours["Gluon's"]) == LAYER_COLOURS
    assert len(set(colours.values())) == 6  # and nothing else has one of these


def test_runs_have_the_colours_of_their_layers():
    epochs = [{"epoch": 1, "train_loss": 1, "test_accuracy": 1}]
    runs = [
        {"model": "m", "norm": norm, "dataset": {"name": "stand-in", "train": 9}, "epochs": epochs}
        for norm in ("group", "none", "auto", "gluon", "auto")
    ]
    other, *layers, again = (
        line.get_color() for line in plotting.plot_runs(runs).axes[0].get_lines()
    )
    assert tuple(layers) == LAYER_COLOURS
    assert len({other, again, *layers}) == 5
