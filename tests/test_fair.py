"""benchmarks/results/fair.json, the comparison of chapter 5: the best that was tried was taken."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RECORD = json.loads((ROOT / "benchmarks/results/fair.json").read_text())
each_contest = pytest.mark.parametrize(
    "contest", RECORD["contests"], ids=lambda c: f"{c['activation']}-{c['norm']}"
)


@each_contest
def test_each_network_ran_at_its_own_best_and_no_rate_was_left_untried_beyond_it(contest):
    found = {(t["start"], t["lr"]): t["validation_accuracy"] or 0 for t in contest["search"]}
    best = max(found, key=found.get)
    assert best == (contest["start"], contest["lr"])
    rates = [rate for start, rate in found if start == best[0]]
    assert min(rates) < best[1] < max(rates), "the best rate is at the edge of the search"


@each_contest
def test_three_seeds_on_all_images(contest):
    assert [run["seed"] for run in contest["runs"]] == [0, 1, 2]
    assert RECORD["dataset"] == {"name": "fashion-mnist", "train": 60_000, "test": 10_000}


def test_the_record_is_that_of_the_script():
    spec = importlib.util.spec_from_file_location("fair", ROOT / "benchmarks/fair.py")
    fair = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fair)
    for contest in RECORD["contests"]:
        starts, rates = fair.CONTESTANTS[contest["activation"], contest["norm"]]
        tried = {(found["start"], found["lr"]) for found in contest["search"]}
        assert tried == {(start, rate) for start in starts for rate in rates}
