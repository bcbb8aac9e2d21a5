"""How the contests time: contestants in turns, medians, a process for each number of threads."""

import json
import statistics
import subprocess
import sys
import time
from math import exp, log

from mxnet import nd


def in_a_process(part, threads, repeats, say):
    """A contest in a process of its own: one process never changes its number of threads, for
    oneDNN keeps what it prepared for the first number, and that is too small for a larger one."""
    code = (
        f"import json; from gluon_bn import bench, runtime; runtime.configure({threads}); "
        f"found = bench.{part}({threads}, {repeats}, lambda line: print(line, flush=True)); "
        "print(json.dumps(found))"
    )
    # close_fds=False lets Python 3.9 start it without a fork, which MXNet may not survive.
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, close_fds=False
    ) as child:
        last = ""
        for line in child.stdout:
            if last:
                say(last.rstrip())
            last = line
    if child.returncode:
        raise RuntimeError(
            f"the {part} contest with {threads} threads ended with exit code {child.returncode}"
        )
    return json.loads(last)


def printed_by(code, env=None):
    """The numbers that a program prints, run in a process of its own."""
    child = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        capture_output=True,
        text=True,
        check=True,
        close_fds=False,
    )  # no fork, as above
    return [float(word) for word in child.stdout.split()]


def take_turns(contestants, repeats, warm_up=2, clock=time.perf_counter):
    """Median seconds of each function in a dict: one round after another, all in each round.

    clock : `time.process_time` leaves out what other programs take, but adds up all threads: it is
    for one thread on a busy machine.
    """
    seconds = {name: [] for name in contestants}
    for i in range(warm_up + repeats):
        for name, function in contestants.items():
            start = clock()
            function()
            nd.waitall()
            if i >= warm_up:
                seconds[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def geometric_mean(values):
    return exp(sum(map(log, values)) / len(values))
