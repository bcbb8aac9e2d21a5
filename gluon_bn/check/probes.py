"""What a student's code is tried on: inputs that tell the mistakes apart, and small ones to show.

No mean is zero, no variance is one, and the values are exact in float32. The images are as wide as
they have channels, so that a vector laid along the wrong axis runs, and shows in the numbers. The
random numbers are this module's own: MXNet's and NumPy's generators are not touched.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

SHAPES = {4: (4, 5, 2, 5), 2: (6, 3)}
CLASSES = 5
LABELS = (3, 0, 4, 3, 2, 0, 1)  # not sorted, two of them twice, the last class among them
SMALL = {
    4: "2111 1112 2211 2112 1212 2212 2222 2312",
    3: "112 212 122 222 223",
    2: "21 12 22 32 23",
}


@dataclass(frozen=True, eq=False)
class Case:
    """One call: its arguments by name, NumPy float64, and the mode. What belongs to a channel is a
    vector (C,); gamma and beta are (K, C) where there are labels."""

    given: dict
    training: bool = False
    recording: bool = False

    def __getitem__(self, name):
        return self.given[name]

    def but(self, **changes):
        """The same call in the same mode, with other arguments."""
        return Case({**self.given, **changes}, self.training, self.recording)

    @cached_property
    def silent(self):
        """The same call while autograd does not record."""
        return Case(self.given, self.training) if self.recording else self

    @property
    def shape(self):
        return (self.given["X"] if "X" in self.given else self.given["batches"][0]).shape


def exact(values):
    return np.asarray(values, dtype="float32").astype("float64")


def upstream(shape, number=0):
    """A gradient to send back, different in every place."""
    return np.round(np.random.RandomState(7 + number).standard_normal(shape) * 4 + 2) / 4


def along(row, axis, ndim):
    return np.reshape(row, [-1 if a == axis % ndim else 1 for a in range(ndim)])


def ordinary(shape, axis=1, classes=0, seed=0):
    """Unequal means and spreads per channel, gamma, beta and moving statistics to match."""
    shape = (len(LABELS), *shape[1:]) if classes else shape
    random, n = np.random.RandomState(seed), shape[axis]

    def row(*values):
        return exact(np.resize(values, n))

    X = random.standard_normal(shape) * along(row(0.5, 1.3, 2.2, 0.8, 1.7), axis, len(shape))
    X += along(row(1.5, -0.7, 3.1, 0.4, -2.0), axis, len(shape))
    X += along(np.linspace(-0.5, 0.7, shape[0]), 0, len(shape))
    values = {"X": exact(X), "labels": None, "eps": 0.1, "momentum": 0.7}
    values.update(gamma=row(1.7, 0.6, 2.3, 1.2, 0.9), beta=row(0.8, -1.1, 0.3, 2.0, -0.6))
    values["moving_mean"] = row(-0.4, 0.9, 1.8, -1.2, 0.5)
    values["moving_var"] = row(2.6, 0.4, 1.9, 0.7, 3.3)
    if classes:
        values["labels"] = np.array(LABELS) % classes
        values["gamma"] = exact(values["gamma"] + random.uniform(-0.5, 2, (classes, n)))
        values["beta"] = exact(values["beta"] + random.uniform(-2, 2, (classes, n)))
    return values


def battery(*how):
    """Ordinary values; little variance and a negative gamma; a channel without any variance; and,
    to predict, values so near a moving mean of zero that what is added to a small Y shows."""
    base, tiny = ordinary(*how), ordinary(*how, seed=1)
    channel, still = np.arange(base["moving_mean"].size), base["X"].copy()
    tiny.update({n: exact(tiny[n] / 128) for n in ("X", "moving_mean")}, eps=1e-3, momentum=0.9)
    tiny["gamma"] = tiny["gamma"] * np.where(channel == 1, -1, 1)
    tiny["moving_var"] = exact(tiny["moving_var"] / 10000)
    still[:, 0] = 2.0
    flat = {"X": still, "eps": 0.25, "moving_var": base["moving_var"] * (channel != 0)}
    near = {name: base[name] * 0 for name in ("beta", "moving_mean")}
    near.update(X=base["X"] / 1024, gamma=base["gamma"] * 0 + 1)
    return base, tiny, {**base, **flat}, {**base, **near}


def small(rank, axis, channels, classes):
    """Small arguments in whole numbers, the simplest first."""
    for digits in SMALL[rank].split():
        shape = [int(d) for d in digits]
        c = shape[axis] = channels or shape[axis]
        rows = (classes, c) if classes else (c,)
        X = np.resize((0.0, 2, 3, 7, 1, 6, 4, 9, 5, 8, 0, 3, 1, 7, 2, 5), shape)
        labels = np.array([2, 0, 1])[: shape[0]] % classes if classes else None
        simple = {"X": X, "labels": labels, "eps": 0.25, "momentum": 0.75}
        simple.update(gamma=np.ones(rows), beta=np.zeros(rows))
        yield {**simple, "moving_mean": np.zeros(c), "moving_var": np.ones(c)}
        numbers = np.array([np.resize(np.roll((2.0, 3, 5, 4), -k), c) for k in range(5)])
        gamma, beta = numbers[0], numbers[2] - 4
        if classes:
            gamma, beta = np.resize(numbers, rows), np.resize(numbers[::-1], rows) - 6
        simple.update(gamma=gamma, beta=beta)
        yield {**simple, "moving_mean": numbers[1], "moving_var": np.resize((4.0, 9.0, 16.0), c)}
