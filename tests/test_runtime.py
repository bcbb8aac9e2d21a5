"""Threads and memory."""

import ctypes
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import mxnet as mx
import pytest

from gluon_bn import runtime


@pytest.fixture(autouse=True)
def threads_as_before():
    before = runtime.threads()
    yield
    runtime.configure(before)


def run(code, **environment):
    clean = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, **environment},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return result.stdout.split()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_are_set_where_operators_run(threads):
    assert runtime.configure(threads)["threads"] == threads
    assert runtime.threads() == threads == runtime.describe()["threads"]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux")
def test_a_convolution_really_runs_on_them():
    """OpenMP starts its threads when they are first needed: count those of the process."""
    code = """
import os, sys
from mxnet import nd
from gluon_bn import runtime
runtime.configure(int(sys.argv[1]) if len(sys.argv) > 1 else {threads})
before = len(os.listdir('/proc/self/task'))
nd.Convolution(nd.ones((8, 4, 32, 32)), nd.ones((8, 4, 3, 3)), no_bias=True, kernel=(3, 3),
               num_filter=8).wait_to_read()
print(len(os.listdir('/proc/self/task')) - before)
"""
    started = [int(run(code.format(threads=n))[0]) for n in (1, 4)]
    assert started == [0, 3]


def test_default_is_all_cores_and_the_users_choice_is_respected():
    code = "from gluon_bn import runtime; print(runtime.configure()['threads'], runtime.cores())"
    threads, cores = run(code)
    assert threads == cores
    assert run(code, OMP_NUM_THREADS="3")[0] == "3"
    explicit = code.replace("configure()", "configure(2)")
    assert run(explicit, OMP_NUM_THREADS="3")[0] == "2"


def test_import_changes_nothing():
    code = """
from mxnet import nd
import mxnet, gluon_bn.runtime as runtime, gluon_bn.training, gluon_bn.models
print(runtime.describe()['allocator'], runtime.threads())
"""
    assert run(code, OMP_NUM_THREADS="3") == ["default", "3"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_cores_respect_taskset():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert runtime.cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="needs Linux")
def test_busy_cores():
    """A program that computes all the time is one more busy core (the machine may have others)."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        assert runtime.busy_cores(1.0) > 0.4
    finally:
        process.kill()
        process.wait()
    assert 0 <= runtime.busy_cores(0.05) <= os.cpu_count()


@pytest.mark.parametrize(
    "bad, error",
    [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError), ("2", TypeError)],
)
def test_bad_threads(bad, error):
    with pytest.raises(error, match="threads"):
        runtime.configure(bad)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_kept():
    """After configure, a freed block of 64 MB stays with the process."""
    code = """
import ctypes
from gluon_bn import runtime
{configure}
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def resident():
    return int(open('/proc/self/statm').read().split()[1]) * 4096
before = resident()
block = libc.malloc(64 << 20)
ctypes.memset(block, 1, 64 << 20)
libc.free(block)
print((resident() - before) >> 20)
"""
    assert int(run(code.format(configure=""))[0]) < 10
    assert int(run(code.format(configure="runtime.configure(1)"))[0]) > 50


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_the_engine_computes_in_memory_that_is_kept():
    """The buffers of MXNet's own threads too: a new one of 19 MB would be 4608 page faults."""
    code = """
import resource
from mxnet import nd
from gluon_bn import runtime
{configure}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
X = nd.ones((128, 64, 24, 24))
for i in range(30):  # the first ones ask for what the later ones get again
    if i == 20:
        before = faults()
    X * 2 + X * 3
    nd.waitall()
print(faults() - before)
"""
    # Without this setting glibc learns from the sizes it sees, and may keep the memory by luck.
    returned = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
    assert int(run(code.format(configure=""), **returned)[0]) > 40_000
    assert int(run(code.format(configure="runtime.configure(1)"), **returned)[0]) < 20_000


LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(not LARGE_PAGES.exists(), reason="needs Linux")
@pytest.mark.skipif(
    LARGE_PAGES.exists() and "[never]" in LARGE_PAGES.read_text(), reason="large pages are off"
)
def test_what_is_computed_lies_in_large_pages():
    code = """
import re
from mxnet import nd
from gluon_bn import runtime
runtime.configure(1)
X = [nd.ones((2**20,)) for _ in range(40)]  # 160 MB
nd.waitall()
print(sum(map(int, re.findall(r"AnonHugePages: +(\\d+)", open("/proc/self/smaps").read()))) // 1024)
"""
    assert int(run(code)[0]) > 120


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_it_says_where_freed_memory_is_not_kept():
    """In a program with threads of its own, like a kernel of Jupyter; not with MALLOC_ARENA_MAX."""
    code = """
import resource, threading
from mxnet import autograd, nd
from gluon_bn import BatchNorm, runtime
for _ in range(4):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
print(runtime.configure(1)['allocator'].split()[-1])
layer = BatchNorm(32, kernel="textbook")
layer.initialize()
X = nd.ones((256, 32, 24, 24))
for _ in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    with autograd.record():
        layer(X).backward()
    nd.waitall()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    said, pages = run(code)
    kept, few = run(code, MALLOC_ARENA_MAX="1")
    assert (said, kept) == ("returned", "kept")
    assert int(few) < 100 < 1000 < int(pages)


def test_elsewhere_the_allocator_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(ctypes, "CDLL", None)  # not even looked at
    assert runtime._keep_freed_memory() == "default"


def test_describe_and_versions_are_plain_values():
    described = runtime.describe()
    assert described.keys() == {"threads", "cores", "allocator", "cpu", "platform"}
    assert described["cores"] >= 1
    versions = runtime.versions()
    assert versions["python"] == platform.python_version()
    assert {"gluon_bn", "mxnet", "numpy"} <= versions.keys()
    assert all(isinstance(value, str) for value in versions.values())


@mx.operator.register("slow_operator_of_a_test")
class Slow(mx.operator.CustomOpProp):
    done = []

    def create_operator(self, ctx, shapes, dtypes):
        class Sleeps(mx.operator.CustomOp):
            def forward(self, is_train, req, in_data, out_data, aux):
                time.sleep(0.3)
                Slow.done.append(True)

        return Sleeps()


def test_settle_waits_for_what_nobody_has_asked_the_result_of():
    mx.nd.Custom(mx.nd.ones(1), op_type="slow_operator_of_a_test")
    assert not Slow.done
    runtime.settle()
    assert Slow.done
