"""Several workers on one batch: the same weights as one, and no process left whatever happens.

The workers are started as anybody starts them, with mpiexec, and run `workers_program.py`. Two or
four of them on the cores of one machine, which is more than there may be: MPI waits busily, so what
they compute is tiny.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

pytest.importorskip("mpi4py", reason="pip install gluon-bn[workers]")

import workers_program  # noqa: E402

from gluon_bn import (  # noqa: E402
    BatchNorm,
    BatchRenorm,
    ConditionalBatchNorm,
    GhostBatchNorm,
    runtime,
)
from gluon_bn.checkpoint import read_checkpoint  # noqa: E402
from gluon_bn.workers import launch  # noqa: E402

TESTS = Path(__file__).parent
SOON = 10  # seconds after which nothing may be left of a run that went wrong


def start(workers, *program, **more):
    """The launcher of so many workers, in a session of its own, as a shell would start it."""
    environment = {**os.environ, "GLUON_BN_OVERSUBSCRIBE": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    return subprocess.Popen(
        [launch.mpiexec(), "-n", str(workers), sys.executable, *map(str, program)],
        env={**environment, **more},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        close_fds=False,
        start_new_session=True,
    )


def run(workers, case, folder, **more):
    """(exit code, what was said, seconds)."""
    began = time.monotonic()
    launched = start(workers, TESTS / "workers_program.py", case, folder, **more)
    said, _ = launched.communicate(timeout=120)
    return launched.returncode, said, time.monotonic() - began


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition, seconds, what):
    late = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < late, f"{what} took more than {seconds} seconds"
        time.sleep(0.05)


def workers_at_work(folder, workers):
    """The process numbers of the workers, once all of them run."""
    files = [folder / f"{rank}.pid" for rank in range(workers)]
    until(lambda: all(f.exists() and f.read_text() for f in files), 60, "the start")
    return [int(f.read_text()) for f in files]


# ------------------------------------------------------------------------------ the same training


@pytest.fixture(scope="module")
def alone():
    """What one process computes from the whole batches, by another kernel: autograd's gradients."""
    found = {}
    for kind, dtype in (("float64", "float64"), ("float32", "float32")):
        nets = workers_program.networks(
            lambda n, dims: BatchNorm(n, dims, kernel="textbook"),
            lambda n: ConditionalBatchNorm(n, 3, kernel="textbook"),
        )
        for name, net in nets.items():
            if kind == "float64" or name in ("lenet", "branching"):
                values = workers_program.train(net, None, name == "conditional", dtype)
                found.update({f"{kind}/{name}/{key}": value for key, value in values.items()})
    return found


@pytest.mark.parametrize("workers, engine", [(2, None), (4, None), (2, "ThreadedEnginePerDevice")])
def test_several_workers_compute_what_one_computes(alone, workers, engine, tmp_path):
    chosen = {"MXNET_ENGINE_TYPE": engine} if engine else {}
    code, said, _ = run(workers, "equal", tmp_path, **chosen)
    assert code == 0, said
    assert ("MXNet start using engine" in said) == bool(engine)
    each = [np.load(tmp_path / f"{rank}.npz") for rank in range(workers)]
    kinds = {"auto", "fused", "analytic", "float32"}
    assert {name.partition("/")[0] for name in each[0].files} == kinds
    for name in each[0].files:
        kind, _, rest = name.partition("/")
        kind, largest = ("float32", 1e-4) if kind == "float32" else ("float64", 1e-12)
        for other in each[1:]:
            assert np.array_equal(each[0][name], other[name]), name  # to the bit
        np.testing.assert_allclose(
            each[0][name], alone[f"{kind}/{rest}"], rtol=0, atol=largest, err_msg=name
        )


def test_a_run_on_several_workers_is_stopped_resumed_and_the_run_of_one(tmp_path):
    code, said, _ = run(2, "stopped_and_resumed", tmp_path)
    assert code == 0, said
    assert said.count("the running statistics of the workers differ") == 1  # said by one of them
    each = [np.load(tmp_path / f"{rank}.npz") for rank in range(2)]
    for name in each[0].files:
        assert np.array_equal(each[0][name], each[1][name]), name
    names = [name for name in each[0].files if not name.startswith(("again/", "own/"))]
    assert "exact/1.running_var" in names  # recalibrated, each worker on its part
    for name in names:  # stopped by a signal to one of them, and resumed
        assert np.array_equal(each[0][name], each[0][f"again/{name}"]), name
    records, again, own = json.loads((tmp_path / "0.json").read_text())
    without_seconds = [
        [{k: v for k, v in r.items() if "second" not in k} for r in part]
        for part in (records, again)
    ]
    assert without_seconds[0] == without_seconds[1]

    (tmp_path / "alone").mkdir()
    for path in (tmp_path / "alone", tmp_path):  # from the start, and from where two were stopped
        alone_records, values = workers_program.small_run(path, kernel="textbook")
        for name in names:
            np.testing.assert_allclose(each[0][name], values[name], rtol=0, atol=1e-12)
        for one, other in zip(alone_records, records):
            assert one["test_accuracy"] == other["test_accuracy"]
            assert one["train_accuracy"] == other["train_accuracy"]
            assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-12)
    # And without synchronization it is another training.
    assert max(np.abs(each[0][f"own/{name}"] - values[name]).max() for name in names) > 1e-3


def test_what_cannot_be_synchronized_is_refused():
    for kernel in ("textbook", "gluon"):
        with pytest.raises(ValueError, match="'fused' or 'analytic'"):
            BatchNorm(3, synchronized=True, kernel=kernel)
    for layer, options in (
        (ConditionalBatchNorm, {"num_classes": 2, "per_class_statistics": True}),
        (BatchRenorm, {}),
        (GhostBatchNorm, {}),
    ):
        with pytest.raises(ValueError, match=f"{layer.__name__}, cannot take"):
            layer(3, synchronized=True, **options)
    layer = BatchNorm(3, synchronized=True)
    layer.initialize()
    with pytest.raises(ValueError, match="sample_weight"):
        layer(mx.nd.ones((4, 3)), mx.nd.ones(4))


def test_importing_the_package_and_a_lone_synchronized_layer_need_no_mpi():
    program = (
        "import gluon_bn, mxnet as mx, sys; from mxnet import autograd\n"
        "layer = gluon_bn.BatchNorm(2, synchronized=True); layer.initialize()\n"
        "with autograd.record(): layer(mx.nd.ones((3, 2)))\n"
        "sys.exit('mpi4py' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, close_fds=False, timeout=120)


# ------------------------------------------------------------------------------------------ faults


def test_a_worker_that_raises_ends_all_with_its_message(tmp_path):
    code, said, seconds = run(2, "raises", tmp_path)
    assert code != 0 and "ValueError: the dog ate the batch" in said
    assert seconds < 2 * SOON


def test_a_worker_that_exits_early_ends_all(tmp_path):
    code, said, seconds = run(2, "exits", tmp_path)
    assert code != 0 and "Worker 1 has ended before the others" in said
    assert seconds < 2 * SOON


def test_what_differs_between_workers_is_an_error_not_a_hang(tmp_path):
    code, said, _ = run(2, "differ", tmp_path)
    assert code == 1
    assert said.count("the workers differ in batch_size: worker 0 has 32, worker 1 has 33") == 1
    code, said, _ = run(3, "fewer", tmp_path)
    assert code == 1 and said.count("the workers differ in batches: worker 0 has 10") == 1


def test_layers_called_in_different_orders_are_an_error_not_a_wrong_sum(tmp_path):
    code, said, _ = run(2, "other_order", tmp_path)
    assert code == 1 and "the workers call their layers in different orders" in said


def test_more_workers_than_cores_are_refused(tmp_path):
    cores = len(os.sched_getaffinity(0))
    code, said, _ = run(cores + 1, "crowd", tmp_path, GLUON_BN_OVERSUBSCRIBE="")
    assert code == 1 and said.count(f"{cores + 1} workers on") == 1


def command(*arguments, **environment):
    """(exit code, what was said) of the command line."""
    done = subprocess.run(
        [sys.executable, "-m", "gluon_bn", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(TESTS.parent), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        close_fds=False,
        timeout=120,
    )
    return done.returncode, done.stdout


def test_the_command_line_says_in_a_sentence_why_it_starts_no_workers(tmp_path):
    (tmp_path / "mpi4py.py").write_text("raise ImportError('it is not installed')")
    path = os.pathsep.join([str(tmp_path), str(TESTS.parent)])
    code, said = command("data", "info", PYTHONPATH=path, PMI_SIZE="2", PMI_RANK="0")
    assert code == 1 and said.startswith("Error: several workers need mpi4py and an MPI")
    assert "pip install 'gluon-bn[workers]'" in said and "Traceback" not in said
    code, said = command(
        "train", "lenet", "--workers", runtime.cores() + 1, GLUON_BN_OVERSUBSCRIBE=""
    )
    assert code == 1 and "workers on" in said and "Traceback" not in said


@pytest.mark.parametrize("victim", ["worker", "launcher"])
def test_nothing_is_left_of_a_run_when_a_process_is_killed(victim, tmp_path):
    launched = start(2, TESTS / "workers_program.py", "together", tmp_path)
    workers = workers_at_work(tmp_path, 2)
    os.kill(workers[1] if victim == "worker" else launched.pid, signal.SIGKILL)
    until(lambda: not any(map(alive, workers)), SOON, "the end of the workers")
    launched.communicate(timeout=SOON)
    assert launched.returncode != 0


def test_a_full_disk_of_the_first_worker_ends_all(tmp_path):
    code, said, _ = run(2, "full_disk", tmp_path)
    assert code != 0 and "File too large" in said


# What each Python reads when it starts: the stand-in has 2,000 and 500 garments, drawn in no time.
SMALL = """
from gluon_bn import standin
standin.generate.__defaults__ = (2000, 500, 0)
"""


def test_ctrl_c_stops_the_workers_of_the_command_line_with_a_checkpoint(tmp_path):
    command = "-m gluon_bn train lenet --norm sync --stand-in --epochs 99 --batch-size 8"
    (tmp_path / "sitecustomize.py").write_text(SMALL)
    path = os.pathsep.join([str(tmp_path), str(TESTS.parent)])
    environment = {**os.environ, "GLUON_BN_OVERSUBSCRIBE": "1", "PYTHONPATH": path}
    started = subprocess.Popen(
        [sys.executable, *command.split(), "--workers", "2", "--output", str(tmp_path)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        close_fds=False,
        start_new_session=True,
    )
    until((tmp_path / "checkpoint").exists, 100, "the start")
    time.sleep(1)
    workers = descendants(started.pid)
    started.send_signal(signal.SIGINT)
    said, _ = started.communicate(timeout=60)
    assert started.returncode == 130, said
    assert said.count("Stopped. The run so far is kept in") == 1 and "Traceback" not in said
    assert len(workers) >= 2 and not any(map(alive, workers))
    header, _ = read_checkpoint(tmp_path / "checkpoint")
    assert header["partial"][0]["batches"] == header["partial"][1]["batches"] > 0


def descendants(pid):
    """The process numbers of all that a process started, and they."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            child, parent = stat.parent.name, stat.read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if int(parent) == pid:
            found += [int(child), *descendants(int(child))]
    return found
