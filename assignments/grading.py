"""What the assignments' test cells call: points for a report of `gluon_bn.check`, and for numbers.

    score = Score(points=6)
    score.check("batch_norm", batch_norm, 4)     # up to 4 points, fewer for each mistake found
    score.agrees("a sequence", lambda: f(X), Y, 2)      # 2 points for the right numbers
    score.total                                  # nbgrader takes a cell's last value as points

Every test cell loads this file anew, and with it the checker: whatever a submission did to either
is gone. Endless loops are stopped, `sys.exit` is a mistake like any other. A submission still runs
in the same process as its marks; who grades strangers puts nbgrader into a container.
"""

import importlib
import math
import signal
import sys
from contextlib import contextmanager, redirect_stderr
from io import StringIO

import numpy as np

SECONDS = 5  # for one call
for name in [name for name in sys.modules if name.split(".")[:2] == ["gluon_bn", "check"]]:
    del sys.modules[name]
checker = importlib.import_module("gluon_bn.check")


class Endless(BaseException):
    """Not an Exception: a submission's `except Exception` must not catch it."""


class Score:
    """Points of one test cell: at most `points`, and never less than 0."""

    def __init__(self, points):
        self.points, self.total, self.endless = points, 0.0, False

    def check(self, exercise, f, points):
        """Add `points` if `check.<exercise>(f)` is content, else a part of them.

        A line 'not yet' takes back what a line 'ok' gives: a function that does nothing is right in
        a few things, too, such as leaving its arguments alone.
        """
        with quiet():
            report = getattr(checker, exercise)(f)
        right = sum(line.status == "ok" for line in report.lines)
        wrong = sum(line.status == "not yet" for line in report.lines)
        print(report)
        self.endless = "endless loop" in report.mistakes
        self.add(points * max(right - wrong, 0) / max(right + wrong, 1))

    def agrees(self, what, call, expected, points, tolerance=1e-4):
        """Add `points` if `call()` returns `expected`: a number, an array, or a tuple of them.

        After an endless loop nothing more is called: a class of thirty has to be graded today.
        """
        if self.endless:
            print(f"not yet  {what}: not called, after an endless loop")
            return
        try:
            with quiet(), seconds(SECONDS):
                difference = distance(call(), expected)
        except (Exception, SystemExit, Endless) as error:
            self.endless = isinstance(error, Endless)
            print(f"not yet  {what}: {type(error).__name__}: {error}")
        else:
            right = difference <= tolerance  # not a number is not right
            self.add(points * right)
            print(
                f"{'ok' if right else 'not yet':8} {what}: off by {difference:.1g} of the largest"
            )

    def add(self, points):
        self.total = round(min(self.total + float(points), self.points), 2)


def distance(got, expected):
    """The largest difference, divided by the largest expected value; all shapes must agree."""
    if isinstance(expected, tuple):
        if not isinstance(got, (tuple, list)) or len(got) != len(expected):
            raise TypeError(f"{len(expected)} values are to be returned, not {got!r:.60}")
        return max(distance(g, e) for g, e in zip(got, expected))
    got = np.asarray(got.asnumpy() if hasattr(got, "asnumpy") else got, dtype="float64")
    expected = np.asarray(expected, dtype="float64")
    if got.shape != expected.shape:
        raise ValueError(f"the shape is {got.shape}, expected is {expected.shape}")
    difference = abs(got - expected).max() / max(abs(expected).max(), 1e-12)
    return difference if math.isfinite(difference) else math.inf


@contextmanager
def seconds(limit):
    """Stop what takes longer, where the system has Unix's alarm; elsewhere nbgrader's own limit."""

    def stop(*_):
        raise Endless(f"no answer within {limit} seconds: is there an endless loop?")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def quiet():
    """Hold back warnings: nbgrader gives no points to a cell that writes to stderr."""
    with redirect_stderr(StringIO()):
        yield
