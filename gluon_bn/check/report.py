"""What a student reads: lines that say 'ok', 'not yet' or 'note', with a reason and an example."""

from dataclasses import dataclass
from textwrap import fill, indent

import numpy as np

from gluon_bn.check.said import SAID

WIDTH, INDENT = 92, " " * 9


class Report:
    """The outcome of one exercise. True when nothing is left to do; printing it shows the lines.

    Parameters
    ----------
    title : str, the exercise

    Attributes
    ----------
    lines : list of `Line`, in the order in which they were found
    mistakes : tuple of str, the mistakes that were recognized, each once, such as 'no epsilon'
        A difference that matches no known mistake is 'difference', code that fails is 'error'.

    Examples
    --------
    >>> report = check.normalize(lambda X, mean, var, eps: (X - mean) / nd.sqrt(var))
    >>> bool(report), report.mistakes
    (False, ('no epsilon',))
    """

    def __init__(self, title):
        self.title, self.lines = title, []

    def ok(self, what):
        self.lines.append(Line("ok", what))

    def note(self, what):
        self.lines.append(Line("note", what))

    def not_yet(self, what, why, *mistakes, example=None):
        """`what` is not right yet; `mistakes` name the kinds, `why` says them in a sentence, which
        is said only once."""
        why = why.replace("?.", "?")
        if any(line.why == why for line in self.lines):
            why = "For the same reason as above."
        self.lines.append(Line("not yet", what, why, mistakes, example))

    def complain(self, name, *words):
        """What the table `SAID` says under this name."""
        self.not_yet(*(text.format(*words) for text in (*SAID[name], name)))

    @property
    def mistakes(self):
        return tuple(dict.fromkeys(name for line in self.lines for name in line.mistakes))

    def about(self, what):
        """The first line whose subject contains `what`; None if there is none."""
        return next((line for line in self.lines if what in line.what), None)

    def __bool__(self):
        return all(line.status != "not yet" for line in self.lines)

    def __str__(self):
        left, done = (sum(x.status == s for x in self.lines) for s in ("not yet", "ok"))
        said = f"all {done} checks passed" if self else f"{done} right, {left} not yet"
        return "\n".join([f"{self.title}: {said}.", *map(str, self.lines)])

    __repr__ = __str__


@dataclass
class Line:
    """One thing that was looked at."""

    status: str
    what: str
    why: str = ""
    mistakes: tuple = ()
    example: object = None

    def __str__(self):
        parts = [fill(f"{self.status:<9}{self.what}", WIDTH, subsequent_indent=INDENT)]
        parts += [fill(self.why, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT)]
        parts += [indent(str(self.example), INDENT)] if self.example else []
        return "\n".join(filter(None, parts))


@dataclass
class Example:
    """A small input, what was expected for it, and what came."""

    given: dict
    expected: np.ndarray
    got: np.ndarray
    what: str = "Y"

    def __str__(self):
        given = ", ".join(f"{k} = {show(v)}" for k, v in self.given.items())
        given = fill(f"For {given}", WIDTH, subsequent_indent="    ", break_long_words=False)
        what, expected, got = self.what, self.expected, self.got
        if np.size(expected) > 16 and np.shape(expected) == np.shape(got):  # the worst of them
            gap = np.nan_to_num(np.abs(expected - got), nan=np.inf)
            index = tuple(int(i) for i in np.unravel_index(np.argmax(gap), gap.shape))
            what, expected, got = f"{what}{list(index)}", expected[index], got[index]
        return f"{given}\nexpected {what} = {show(expected)}\ngot      {what} = {show(got)}"


def show(value):
    """A number, an array on one line, or what it is if it is too large."""
    if isinstance(value, (str, tuple, list)):
        return str(value) if isinstance(value, (str, tuple)) else ", ".join(map(show, value))
    value = np.asarray(value)
    if value.size > 32:
        return f"an array of shape {value.shape}"
    number = {"float_kind": lambda x: f"{x:.6g}"}
    return " ".join(np.array2string(value, 10**6, separator=", ", formatter=number).split())
