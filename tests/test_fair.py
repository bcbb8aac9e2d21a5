"""benchmarks/fair.py, the comparison of chapters 5 and 6: the best that was tried was taken."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from mxnet import autograd, nd

from gluon_bn.data import dataset

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("fair", ROOT / "benchmarks/fair.py")
fair = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fair)
RECORDS = {
    model: json.loads((ROOT / "benchmarks/results" / name).read_text())
    for model, name in (("lenet", "fair.json"), ("resnet18", "fair_resnet18.json"))
}
each_contest = pytest.mark.parametrize(
    "model, contest",
    [(model, contest) for model, record in RECORDS.items() for contest in record["contests"]],
    ids=lambda it: it if isinstance(it, str) else f"{it['activation']}-{it['norm']}",
)


@each_contest
def test_each_network_ran_at_its_own_best_and_no_rate_was_left_untried_beyond_it(model, contest):
    found = {(t["start"], t["lr"]): t["validation_accuracy"] or 0 for t in contest["search"]}
    best = max(found, key=found.get)
    assert best == (contest["start"], contest["lr"])
    rates = [rate for start, rate in found if start == best[0]]
    assert min(rates) < best[1] < max(rates), "the best rate is at the edge of the search"


@each_contest
def test_three_seeds_on_all_images(model, contest):
    assert [run["seed"] for run in contest["runs"]] == [0, 1, 2]
    assert RECORDS[model]["dataset"] == {"name": "fashion-mnist", "train": 60_000, "test": 10_000}


@each_contest
def test_the_record_is_that_of_the_script(model, contest):
    starts, rates = fair.CONTESTANTS[model][contest["activation"], contest["norm"]]
    tried = {(found["start"], found["lr"]) for found in contest["search"]}
    assert tried == {(start, rate) for start in starts for rate in rates}


def few_images():
    """A few drawn images, four of them as test images, too."""
    data = dataset(limit=24, stand_in=True)
    return dataclasses.replace(
        data, test_images=data.train_images[:4], test_labels=data.train_labels[:4]
    )


def test_resnet_with_one_command(tmp_path, monkeypatch, capsys):
    images = few_images()
    monkeypatch.setattr(fair, "dataset", lambda limit=None: images)
    monkeypatch.setattr(fair, "SEEDS", (0,))
    contestants = {
        key: (starts, (0.01,)) for key, (starts, _) in fair.CONTESTANTS["resnet18"].items()
    }
    monkeypatch.setitem(fair.CONTESTANTS, "resnet18", contestants)
    command = ["--model", "resnet18", "--small", "--epochs", "1", "--keep", str(tmp_path / "runs")]
    fair.main([*command, "--output", str(tmp_path / "one.json")])
    record = json.loads((tmp_path / "one.json").read_text())
    none, ours = record["contests"]
    same = none["start"] == ours["start"]  # then batch norm ran with the pair of the other
    assert capsys.readouterr().out.count("\n") == 2 * (2 + 1) + (not same)  # two starts and a run
    other = record["with_the_others_pair"]
    assert (other["norm"], other["start"], other["lr"]) == ("auto", none["start"], none["lr"])
    assert (other["runs"] == ours["runs"]) == same
    assert [contest["norm"] for contest in record["contests"]] == ["none", "auto"]
    for contest in record["contests"]:
        assert len(contest["search"]) == 2 and len(contest["runs"]) == 1
        assert contest["start"] in fair.STARTS
    assert record["regularization"] == [] and record["batch_size"] == 128
    fair.main([*command, "--output", str(tmp_path / "two.json")])
    assert capsys.readouterr().out == ""  # all were kept
    assert json.loads((tmp_path / "two.json").read_text())["contests"] == record["contests"]


@pytest.mark.parametrize("norm", ["none", "auto"])
def test_blocks_that_begin_as_the_identity(norm):
    net = fair.network("resnet18", "relu", norm, "He, blocks as the identity", small=True)
    net.hybridize(False)
    X = nd.random.uniform(shape=(2, 1, 28, 28))
    with autograd.train_mode():
        stem = net[:3](X)
        net(X)
        np.testing.assert_array_equal(net[3](stem).asnumpy(), stem.asnumpy())
        assert net[3][0].conv1.weight.data().abs().max().asscalar() > 0
