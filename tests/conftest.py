"""One thread for all tests, set before MXNet is loaded; the web site, a browser, kernels.

A process must not raise its number of threads once it has computed: oneDNN keeps what it prepared
for fewer, and writes past its end (see `gluon_bn.runtime.configure`). And a busy machine runs one
thread several times faster than two that wait for each other. What needs more has a process of its
own.
"""

import fcntl
import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gluon_bn import runtime

os.environ["OMP_NUM_THREADS"] = "1"

# And freed memory is kept for the next array (see there, too), from the start, not only after the
# first test of the command line: a tenth of the time.
runtime._allocator = runtime._keep_freed_memory()

# The tests start more than a hundred Pythons. Containers like to forbid bytecode, and then each of
# them would compile the package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Before 3.10 Python forks to start a program, MXNet starts its engine anew in the child, and now
# and then that hangs. A program that inherits all open files is started without a fork.
if sys.version_info < (3, 10):
    subprocess.Popen.__init__ = functools.partialmethod(subprocess.Popen.__init__, close_fds=False)

# Where the tests run in the background of a shell, Ctrl-C is ignored, by what they start too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def fork_server():
    """Where the kernels of Jupyter come from that need not be started from nothing."""
    import jupyter_kernels

    with jupyter_kernels.ForkServer() as fork_server:
        yield fork_server


def pytest_xdist_auto_num_workers(config):
    """For `pytest -n auto`: one process more than there are cores, because many tests wait, for a
    program that they stop or for one that stops by itself."""
    return runtime.cores() + 1


WEBSITE = Path(__file__).parent.parent / "docs" / "book" / "website.py"


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The site, built with warnings as errors and in a process of its own, as `make book` does;
    once for all processes that test it."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    target, built = folder / "site", folder / "site is built"
    with open(folder / "site.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            command = [sys.executable, WEBSITE, target, "--strict"]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            assert not done.stderr, done.stderr
            built.touch()
    return target


@pytest.fixture(scope="session")
def page():
    """A tab of a headless Chromium, without a network."""
    import browser

    with browser.chromium() as page:
        yield page
