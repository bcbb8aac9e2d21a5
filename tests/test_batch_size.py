"""benchmarks/batch_size.py: the norms it is made of, going on where it was, and its record."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from mxnet import nd

from gluon_bn.runtime import settle
from gluon_bn.training import seed_everything

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("batch_size", ROOT / "benchmarks/batch_size.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_norms_are_those_of_the_package(script):
    assert set(script.agreement()) == set(script.NORMS) - {"none", "batch"}


def test_a_norm_that_differs_is_noticed(script, monkeypatch):
    monkeypatch.setitem(script.NORMS, "layer", script.NORMS["instance"])
    with pytest.raises(RuntimeError, match="layer: differs"):
        script.agreement()


def test_all_networks_of_a_seed_start_from_the_same_weights(script):
    weights = []
    for norm in script.NORMS:
        seed_everything(3)
        net = script.network(norm)
        assert net(nd.ones((2, 1, 28, 28))).shape == (2, 10)
        settle()
        weights.append([net[i].weight.data().asnumpy() for i in (0, 3, 6, 9, -1)])
    for others in weights[1:]:
        for a, b in zip(weights[0], others):
            np.testing.assert_array_equal(a, b)


def test_renormalization_is_relaxed_in_the_course_of_the_run(script):
    net = script.network("renorm")
    bounds = []
    for share in (0, 0.05, 0.125, 0.2, 0.3, 1):
        script.relax(net, share)
        bounds.append((net[1].r_max, net[1].d_max))
    assert bounds[0] == bounds[1] == (1, 0)  # batch norm
    assert bounds[2] == pytest.approx((1.6, 2.5))
    assert bounds[3][1] == 5 and bounds[3][0] < 3 and bounds[4] == bounds[5] == (3, 5)


def test_it_goes_on_where_it_was_and_refuses_other_settings(script, monkeypatch, tmp_path, capsys):
    from gluon_bn import data

    monkeypatch.setattr(script, "dataset", lambda: data.dataset(stand_in=True, limit=300))
    monkeypatch.setitem(script.SETTINGS, "images", 256)
    output = tmp_path / "batch_size.json"

    def main(*norms, seeds=("0",)):
        monkeypatch.setattr(
            sys,
            "argv",
            [
                "batch_size.py",
                "--norms",
                *norms,
                "--batch-sizes",
                "32",
                "--seeds",
                *seeds,
                "--threads",
                "1",
                "--output",
                str(output),
            ],
        )
        script.main()
        return json.loads(output.read_text())["runs"]

    (first,) = main("none")
    assert first["train_loss"] > 0 and 0 <= first["error"] <= 1
    again, batch = main("none", "batch")
    assert again == first  # with its time: not run again
    assert "error_recalibrated" in batch and output.with_suffix(".png").exists()
    output = output.with_name("fresh.json")
    (repeated,) = main("none")
    assert (repeated["train_loss"], repeated["error"]) == (first["train_loss"], first["error"])
    monkeypatch.setitem(script.SETTINGS, "lr_at_32", 0.3)
    with pytest.raises(SystemExit):
        main("none")
    assert "other settings" in capsys.readouterr().err


def test_the_record_is_complete_and_made_with_these_settings(script):
    record = json.loads((ROOT / "benchmarks/results/batch_size.json").read_text())
    assert record["settings"] == script.SETTINGS
    assert record["dataset"] == {"name": "fashion-mnist", "train": 20_000, "test": 10_000}
    keys = [(run["norm"], run["batch_size"], run["seed"]) for run in record["runs"]]
    assert sorted(keys) == sorted(
        (norm, size, seed)
        for norm in script.NORMS
        for size in script.BATCH_SIZES
        for seed in script.SEEDS
    )
    for run in record["runs"]:
        assert run["lr"] == pytest.approx(0.1 * run["batch_size"] / 32)
    assert len(record["search"]) == len(script.NORMS) * len(script.RATES)
