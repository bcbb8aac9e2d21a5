"""`gluon-bn bench`: that the contests run and are scored right, not how fast anything is."""

import json

import numpy as np
import pytest
from test_cli import run, run_outside

from gluon_bn import bench
from gluon_bn.bench import costs, layers, networks, pytorch, timing


class Clock:
    """Time that passes only when a contestant lets it."""

    now = 0.0

    def __call__(self):
        return self.now


def test_contestants_take_turns_and_the_median_counts():
    clock, order = Clock(), []

    def contestant(name, seconds):
        def step():
            order.append(name)
            clock.now += seconds[order.count(name) - 1]

        return step

    # Two rounds to warm up, slow, then 3, 1 and 2 seconds, and one interruption.
    found = timing.take_turns(
        {"a": contestant("a", [50, 40, 3, 1, 2]), "b": contestant("b", [9, 9, 5, 100, 4])},
        3,
        clock=clock,
    )
    assert order == ["a", "b"] * 5
    assert found == {"a": 2, "b": 5}


def test_geometric_mean():
    assert timing.geometric_mean([0.5, 2, 8]) == pytest.approx(2)


def test_a_layer_is_scored_against_gluon_shape_by_shape(monkeypatch):
    monkeypatch.setattr(layers, "SHAPES", [(8, 3), (4, 3, 5, 5)])
    monkeypatch.setattr(
        layers,
        "take_turns",
        lambda contestants, *_: {name: 0.001 * (i + 1) for i, name in enumerate(contestants)},
    )
    found = layers.layer(1, 2, say=lambda line: None)
    assert [(row["shape"], row["mode"]) for row in found["rows"]] == [
        ([8, 3], "train"),
        ([8, 3], "predict"),
        ([4, 3, 5, 5], "train"),
        ([4, 3, 5, 5], "predict"),
    ]
    for mode, bounds in (("train", {"2.5 copies": 2.5, "4 copies": 4}), ("predict", {"1 copy": 1})):
        ms = next(row["ms"] for row in found["rows"] if row["mode"] == mode)
        assert {"textbook", "gluon", "gluon hybridized", *bounds} <= set(ms)
        # By turns 1, 2, 3 ... milliseconds, so the first of a family is its fastest; the last is
        # the copy, and the bounds are multiples of it.
        turns = [name for name in ms if name not in bounds]
        copy = len(turns) + 1
        expected = {name: turns.index(name) + 1 for name in turns if " " not in name}
        expected.update({name: copies * copy for name, copies in bounds.items()})
        expected.update({"pytorch": turns.index("pytorch eager") + 1} if pytorch.version() else {})
        assert found["ratio_to_gluon"][mode] == pytest.approx(
            {name: turn / expected["gluon"] for name, turn in expected.items()}
        )


def test_of_a_family_the_fastest_counts():
    ms = {"native": 3.0, "native hybridized": 2.0, "gluon": 4.0, "gluon hybridized": 5.0}
    assert layers.fastest({**ms, "2.5 copies": 1.0, "4 copies": 1.6}) == {
        "native": 2.0,
        "gluon": 4.0,
        "2.5 copies": 1.0,
        "4 copies": 1.6,
    }


@pytest.mark.parametrize("shape", [(8, 3), (4, 3, 5, 5)])
def test_every_contestant_of_a_layer_computes(shape):
    for contestants in layers.layer_contestants(shape, 1).values():
        seconds = timing.take_turns(contestants, 1, warm_up=0)
        assert all(s > 0 for s in seconds.values())


def test_every_contestant_of_lenet_computes():
    contestants = networks.network_contestants("lenet", (4, 1, 28, 28), 1)
    assert {"none", "auto", "textbook", "gluon hybridized", "gluon imperative"} <= set(contestants)
    for name, modes in contestants.items():
        assert set(modes) == {"predict"} | ({"train"} if name != "auto, optimized" else set())
        for step in modes.values():
            step()


def test_the_reference_for_the_errors_by_finite_differences():
    random = np.random.RandomState(3)
    x, dy = random.normal(5, 2, (4, 2, 3, 3)), random.normal(size=(4, 2, 3, 3))
    y, dx = costs.float64_reference(x, dy)
    np.testing.assert_allclose(
        y[:, 1],
        (x[:, 1] - x[:, 1].mean()) / np.sqrt(((x[:, 1] - x[:, 1].mean()) ** 2).mean() + 1e-5),
        rtol=1e-12,
    )
    for at in [(0, 0, 0, 0), (3, 1, 2, 1), (2, 0, 1, 2)]:
        step = np.zeros_like(x)
        step[at] = 1e-5
        slope = (
            sum(
                (sign * costs.float64_reference(x + sign * step, dy)[0] * dy).sum()
                for sign in (1, -1)
            )
            / 2e-5
        )
        assert dx[at] == pytest.approx(slope, rel=1e-6)


def test_the_command_writes_what_it_measured(tmp_path):
    said, _ = run_outside("bench", "--quick", "--only", "accuracy", "--output", tmp_path)
    assert "bench.json" in said and "bench.png" in said
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["command"] == "gluon-bn bench --quick --only accuracy"
    assert found["versions"]["mxnet"] and found["settings"]["cpu"]
    errors = found["accuracy"]["largest_error"]
    # Variance as a mean of squared deviations keeps its digits far from zero, Gluon's does not.
    assert errors["textbook"]["10000"]["Y"] < 1e-2 < errors["gluon"]["10000"]["Y"]


def test_an_unknown_part_is_refused():
    _, error = run("bench", "--only", "layers", code=2)
    assert "layers" in error and "first_call" in error


@pytest.mark.skipif(not costs.STATUS.exists(), reason="only Linux has /proc")
def test_peak_memory_is_at_least_what_a_step_has_to_keep(monkeypatch):
    """The input of the layer and Y are alive at once; the textbook keeps every intermediate."""
    monkeypatch.setattr(costs.kernels, "available", lambda: ["textbook", "gluon"])
    peaks = bench.memory()
    assert peaks["textbook"] > peaks["gluon"] > 2


def test_without_proc_memory_is_left_out_and_said_so(monkeypatch, tmp_path):
    monkeypatch.setattr(costs, "STATUS", tmp_path / "nothing")
    said = []
    found = bench.run(("memory",), (1,), quick=True, say=said.append)
    assert "memory" not in found and "Linux" in said[0]
