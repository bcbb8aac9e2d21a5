"""What a student reads: lines that say 'ok', 'not yet' or 'note', with a reason and an example."""

import textwrap

import numpy as np

WIDTH = 92


class Report:
    """The outcome of one exercise. True when nothing is left to do; printing it shows the lines.

    Attributes
    ----------
    title: the exercise.
    lines: the `Line`s, in the order in which they were found.
    mistakes: names of the mistakes that were recognized, each once, such as 'no epsilon'; a
        difference that matches no known mistake is 'difference', code that fails is 'error'.
    """

    def __init__(self, title):
        self.title, self.lines = title, []

    def ok(self, what):
        self.lines.append(Line("ok", what))

    def note(self, what):
        self.lines.append(Line("note", what))

    def not_yet(self, what, why, mistakes=("difference",), example=None):
        """`what` is not right yet; `mistakes` name the kinds, `why` says them in a sentence.

        A reason that was given before is not given twice.
        """
        why = why.replace("?.", "?")
        if any(line.why == why for line in self.lines):
            why = "For the same reason as above."
        self.lines.append(Line("not yet", what, why, tuple(mistakes), example))

    def changed_in_place(self, name, who="whoever called finds other numbers in it afterwards"):
        """An array that was passed in is not what it was; `who` says whose business that is."""
        self.not_yet(
            f"{name} is left as it was",
            f"{name} is changed in place: {who}. Look for -=, *= or [:] =.",
            (f"{name} changed in place",),
        )

    @property
    def mistakes(self):
        return tuple(dict.fromkeys(name for line in self.lines for name in line.mistakes))

    def about(self, what):
        """The first line whose subject contains `what`; None if there is none."""
        return next((line for line in self.lines if what in line.what), None)

    def __bool__(self):
        return all(line.status != "not yet" for line in self.lines)

    def __str__(self):
        left = sum(line.status == "not yet" for line in self.lines)
        done = sum(line.status == "ok" for line in self.lines)
        head = (
            f"{self.title}: all {done} checks passed."
            if self
            else f"{self.title}: {done} right, {left} not yet."
        )
        return "\n".join([head, *map(str, self.lines)])

    __repr__ = __str__

    def _repr_pretty_(self, printer, cycle):
        printer.text(str(self))


class Line:
    """One thing that was looked at."""

    def __init__(self, status, what, why="", mistakes=(), example=None):
        self.status, self.what, self.why = status, what, why
        self.mistakes, self.example = mistakes, example

    def __str__(self):
        indent = " " * 9
        parts = [
            textwrap.fill(
                self.what, WIDTH, initial_indent=f"{self.status:<9}", subsequent_indent=indent
            )
        ]
        if self.why:
            parts.append(
                textwrap.fill(self.why, WIDTH, initial_indent=indent, subsequent_indent=indent)
            )
        if self.example:
            parts.append(textwrap.indent(str(self.example), indent))
        return "\n".join(parts)


class Example:
    """A small input, what was expected for it, and what came."""

    def __init__(self, given, expected, got, what="Y"):
        self.given, self.expected, self.got, self.what = given, expected, got, what

    def __str__(self):
        given = textwrap.fill(
            ", ".join(f"{k} = {show(v)}" for k, v in self.given.items()),
            WIDTH,
            initial_indent="For ",
            subsequent_indent="    ",
            break_long_words=False,
        )
        where = ""
        expected, got = self.expected, self.got
        if np.size(expected) > 16 and np.shape(expected) == np.shape(got):
            index = worst(expected, got)
            where = f"[{', '.join(map(str, index))}]"
            expected, got = expected[index], got[index]
        width = max(len("expected"), len("got"))
        return "\n".join(
            [
                given,
                *(
                    f"{name:<{width}} {self.what}{where} = {show(value)}"
                    for name, value in (("expected", expected), ("got", got))
                ),
            ]
        )


def worst(expected, got):
    """The index of the largest difference; one that is not a number counts most."""
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(np.asarray(expected) - np.asarray(got))
    gap = np.where(np.isnan(gap), np.inf, gap)
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(gap)), gap.shape))


def show(value):
    """A number, an array on one line, or what it is if it is too large."""
    if isinstance(value, str):
        return value
    value = np.asarray(value)
    if value.dtype == object or value.size > 32:
        return f"an array of shape {value.shape}"
    text = np.array2string(
        value.astype("float64") if value.dtype.kind == "f" else value,
        separator=", ",
        max_line_width=10**6,
        formatter={"float_kind": lambda x: f"{x:.6g}"},
    )
    return " ".join(text.split())
