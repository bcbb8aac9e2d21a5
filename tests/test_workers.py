"""Several workers on one batch: the same weights as one, and no process left whatever happens.

The workers are started as anybody starts them, with mpiexec, and run `workers_program.py`. Two or
four of them on the cores of one machine, which is more than there may be: MPI waits busily, so what
they compute is tiny.
"""

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

from gluon_bn import BatchNorm, BatchRenorm, ConditionalBatchNorm, GhostBatchNorm  # noqa: E402
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


@pytest.mark.parametrize("workers", [2, 4])
def test_several_workers_compute_what_one_computes(alone, workers, tmp_path):
    code, said, _ = run(workers, "equal", tmp_path)
    assert code == 0, said
    each = [np.load(tmp_path / f"{rank}.npz") for rank in range(workers)]
    assert {name.partition("/")[0] for name in each[0].files} == {"fused", "analytic", "float32"}
    for name in each[0].files:
        kind, _, rest = name.partition("/")
        kind, largest = ("float32", 1e-4) if kind == "float32" else ("float64", 1e-12)
        for other in each[1:]:
            assert np.array_equal(each[0][name], other[name]), name  # to the bit
        np.testing.assert_allclose(
            each[0][name], alone[f"{kind}/{rest}"], rtol=0, atol=largest, err_msg=name
        )


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


def test_more_workers_than_cores_are_refused(tmp_path):
    cores = len(os.sched_getaffinity(0))
    code, said, _ = run(cores + 1, "crowd", tmp_path, GLUON_BN_OVERSUBSCRIBE="")
    assert code == 1 and said.count(f"{cores + 1} workers on") == 1


@pytest.mark.parametrize("victim", ["worker", "launcher"])
def test_nothing_is_left_of_a_run_when_a_process_is_killed(victim, tmp_path):
    launched = start(2, TESTS / "workers_program.py", "together", tmp_path)
    workers = workers_at_work(tmp_path, 2)
    os.kill(workers[1] if victim == "worker" else launched.pid, signal.SIGKILL)
    until(lambda: not any(map(alive, workers)), SOON, "the end of the workers")
    launched.communicate(timeout=SOON)
    assert launched.returncode != 0
