"""Ours beside Gluon's in one network, and the command `gluon-bn compare`."""

import json

import numpy as np
import pytest
from mxnet import nd
from test_cli import run
from test_training import batches

from gluon_bn import comparison
from gluon_bn.plotting import plot_comparison


def test_equal_layers_do_not_differ():
    for record in comparison.compare_with_gluon("lenet", batches(64), 3, 0.1, norm="gluon"):
        assert record["loss"]["ours"] == record["loss"]["gluon"]
        assert set(record["one_step"].values()) | set(record["drift"].values()) == {0.0}


@pytest.mark.parametrize("norm", ["auto", "textbook"])
@pytest.mark.parametrize(
    "model, options", [("lenet", {"pooling": "avg"}), ("resnet18", {"small": True})]
)
def test_ours_differs_by_rounding_and_drifts(model, options, norm):
    heard = []
    records = comparison.compare_with_gluon(
        model, batches(64), 4, 0.01, norm=norm, on_step=heard.append, **options
    )
    assert heard == records and [record["step"] for record in records] == [1, 2, 3, 4]
    assert records[0]["one_step"] == records[0]["drift"]  # they start from the same weights
    for record in records:
        assert 0 < record["one_step"]["outputs"] < 1e-3
        assert record["one_step"]["running_statistics"] < 1e-4
        assert record["one_step"]["gradients"] < 1e-2
    assert records[-1]["loss"]["ours"] == pytest.approx(records[-1]["loss"]["gluon"], abs=1e-2)


def test_a_wrong_layer_is_seen(monkeypatch):
    from gluon_bn.models import layers

    right = layers.make_norm("auto")

    def half_the_momentum(channels, dims):
        layer = right(channels, dims)
        return type(layer)(channels, dims, momentum=0.45)

    monkeypatch.setitem(
        comparison.MODELS,
        "wrong",
        lambda norm: comparison.MODELS["lenet"](half_the_momentum if norm == "auto" else norm),
    )
    record = comparison.compare_with_gluon("wrong", batches(64), 1, 0.1)[0]
    assert record["one_step"]["outputs"] < 1e-3  # training does not look at the momentum
    assert record["one_step"]["running_statistics"] > 0.05


def test_the_command(tmp_path):
    stdout, _ = run(
        "compare",
        "lenet",
        "--stand-in",
        "--limit",
        300,
        "--batch-size",
        50,
        "--steps",
        3,
        "--norm",
        "textbook",
        "--threads",
        1,
        "--output",
        tmp_path,
    )
    result = json.loads((tmp_path / "compare.json").read_text())
    assert [record["step"] for record in result["steps"]] == [1, 2, 3]
    assert result["dataset"] == {"name": "stand-in", "train": 300, "test": 10000}
    assert "stand-in" in stdout and f"{result['steps'][2]['loss']['ours']:.4f}" in stdout
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
    left, right = plot_comparison(result).axes
    ours = left.get_lines()[0].get_xydata()
    np.testing.assert_allclose(ours[:, 1], [r["loss"]["ours"] for r in result["steps"]])
    assert len(right.get_lines()) == 6


@pytest.mark.parametrize("norm", ["gluon", "layer", "none"])
def test_only_ours_is_compared(norm):
    _, stderr = run("compare", "lenet", "--norm", norm, "--stand-in", code=2)
    assert "our batch norm" in stderr


def test_what_cannot_be_compared():
    with pytest.raises(ValueError, match="'alexnet' is unknown; choose one of lenet"):
        comparison.compare_with_gluon("alexnet", batches(), 1, 0.1)
    with pytest.raises(TypeError, match="pair"):
        comparison.compare_with_gluon("lenet", [nd.zeros((4, 1, 28, 28))], 1, 0.1)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        comparison.compare_with_gluon("lenet", batches(), 0, 0.1)
    with pytest.raises(ValueError, match="no batch"):
        comparison.compare_with_gluon("lenet", [], 1, 0.1)
    two = iter(list(batches(64)))
    assert len(comparison.compare_with_gluon("lenet", two, 2, 0.1)) == 2
    with pytest.raises(ValueError, match="no more of them"):
        comparison.compare_with_gluon("lenet", iter(list(batches(64))), 3, 0.1)
