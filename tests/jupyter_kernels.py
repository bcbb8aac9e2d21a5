"""Kernels that have imported already what each of them imports first.

A kernel of Jupyter needs a second for IPython, Matplotlib and what MXNet asks for. The tests
execute all chapters and solutions, so each of their processes starts one (`fork_server` in
conftest.py) that imports this, and it forks a kernel for each notebook. MXNet itself is not
imported there: it must not be forked. What a notebook finds is what `python -m ipykernel_launcher`
would give it.
"""

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time

FIRST = (
    "ipykernel.kernelapp",
    "matplotlib_inline.backend_inline",
    "matplotlib.pyplot",
    "numpy.testing",
    "distutils.version",
    "scipy.sparse",
    "requests",
)


class ForkServer:
    """The process that forks kernels, seen from the tests: `launch` for Jupyter's own launcher."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "MALLOC_ARENA_MAX": "1"},  # read by glibc before the fork
        )

    def ask(self, **question):
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def launch(self, command, *, env, cwd, **_):
        """A kernel with the arguments of `command`, [python, -m, ipykernel_launcher, ...]."""
        assert command[1:3] == ["-m", "ipykernel_launcher"], command
        pid = self.ask(arguments=command[3:], environment=env, folder=str(cwd))
        return Kernel(self, pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Kernel:
    """As much of `subprocess.Popen` as Jupyter asks for."""

    stdin = stdout = stderr = returncode = None

    def __init__(self, fork_server, pid):
        self.fork_server, self.pid = fork_server, pid

    def poll(self):
        if self.returncode is None:
            self.returncode = self.fork_server.ask(ended=self.pid)
        return self.returncode

    def wait(self):
        while self.poll() is None:
            time.sleep(0.01)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        self.send_signal(signal.SIGTERM)


# The process itself -------------------------------------------------------------------------------


def main():
    """A line of JSON asks for a kernel, and its number is the answer, or whether one has ended."""
    del sys.path[0]  # this folder; ipykernel_launcher does the same
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # as ipykernel does
    for name in FIRST:
        __import__(name)
    gc.freeze()  # what is there already need not be looked at again in each kernel
    assert "mxnet" not in sys.modules and threading.active_count() == 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        question = json.loads(line)
        if "ended" in question:
            pid, status = os.waitpid(question["ended"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                return become_a_kernel(**question)
            os.setpgid(answer, answer)  # before Jupyter asks for its group, to interrupt it
        print(json.dumps(answer), flush=True)


def become_a_kernel(arguments, environment, folder):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)  # the answers to the tests are not its business
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    # Whose end is its own, too; Jupyter says it in the environment, which was read by the import.
    kernelapp = sys.modules["ipykernel.kernelapp"]
    kernelapp.launch_new_instance([*arguments, f"--IPKernelApp.parent_handle={os.getppid()}"])


if __name__ == "__main__":
    main()
