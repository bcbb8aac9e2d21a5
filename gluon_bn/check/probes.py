"""What a student's code is tried on: inputs that tell the mistakes apart, and small ones to show.

Sizes differ, no mean is zero, no variance is one, and the values are exact in float32. The random
numbers are this module's own: MXNet's and NumPy's generators are not touched.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

SHAPES = {4: (5, 3, 2, 4), 3: (4, 3, 5), 2: (6, 3)}
CLASSES = 5
LABELS = (3, 0, 4, 3, 2, 0, 1)  # not sorted, two of them twice, the last class among them


@dataclass(frozen=True, eq=False)
class Case:
    """One call: its arguments by name, NumPy float64, and the mode. What belongs to a channel is a
    vector (C,); gamma and beta are (K, C) where there are labels."""

    given: dict
    training: bool = False
    recording: bool = False

    def __getitem__(self, name):
        return self.given[name]

    def but(self, training=None, recording=None, **changes):
        return replace(
            self,
            given={**self.given, **changes},
            training=self.training if training is None else training,
            recording=self.recording if recording is None else recording,
        )

    @cached_property
    def silent(self):
        """The same call while autograd does not record."""
        return self.but(recording=False)

    @property
    def shape(self):
        return (self.given["X"] if "X" in self.given else self.given["batches"][0]).shape


def exact(values):
    return np.asarray(values, dtype="float32").astype("float64")


def upstream(shape, number=0):
    """A gradient to send back, different in every place."""
    return np.round(np.random.RandomState(7 + number).standard_normal(shape) * 4 + 2) / 4


def ordinary(shape, seed=0, axis=1, labels=False):
    """Unequal means and spreads per channel, gamma, beta and moving statistics to match."""
    shape = (len(LABELS), *shape[1:]) if labels else shape
    random, axis = np.random.RandomState(seed), axis % len(shape)
    n, lay = shape[axis], [-1 if a == axis else 1 for a in range(len(shape))]

    def row(*values):
        return exact(np.resize(values, n))

    X = (
        random.standard_normal(shape) * row(0.5, 1.3, 2.2, 0.8, 1.7).reshape(lay)
        + row(1.5, -0.7, 3.1, 0.4, -2.0).reshape(lay)
        + np.linspace(-0.5, 0.7, shape[0]).reshape((-1,) + (1,) * (len(shape) - 1))
    )
    gamma, beta = row(1.7, 0.6, 2.3, 1.2, 0.9), row(0.8, -1.1, 0.3, 2.0, -0.6)
    if labels:
        gamma = exact(gamma + random.uniform(-0.5, 2, (CLASSES, n)))
        beta = exact(beta + random.uniform(-2, 2, (CLASSES, n)))
    return {
        "X": exact(X),
        "gamma": gamma,
        "beta": beta,
        "eps": 0.1,
        "momentum": 0.7,
        "moving_mean": row(-0.4, 0.9, 1.8, -1.2, 0.5),
        "moving_var": row(2.6, 0.4, 1.9, 0.7, 3.3),
        "labels": np.array(LABELS) if labels else None,
    }


def battery(shape, **how):
    """Ordinary values; little variance and a negative gamma; a channel without any variance."""
    base, tiny = ordinary(shape, **how), ordinary(shape, seed=1, **how)
    channel = np.arange(base["moving_mean"].size)
    tiny.update(
        X=exact(tiny["X"] / 128),
        eps=1e-3,
        momentum=0.9,
        gamma=tiny["gamma"] * np.where(channel == 1, -1, 1),
        moving_mean=exact(tiny["moving_mean"] / 128),
        moving_var=exact(tiny["moving_var"] * 0.0001),
    )
    still = base["X"].copy()
    still[:, 0] = 2.0
    return [
        base,
        tiny,
        {
            **base,
            "X": still,
            "eps": 0.25,
            "moving_var": np.where(channel == 0, 0, base["moving_var"]),
        },
    ]


def far_from_zero(shape, labels=False):
    """Values around 10,000 with a spread of one."""
    base = ordinary(shape, seed=2, labels=labels)
    offset = np.resize([10000.0, -12000.0, 15000.0], shape[1])
    return {**base, "X": exact(base["X"] + offset.reshape((1, -1) + (1,) * (len(shape) - 2)))}


def near_zero(shape, labels=False):
    """Values so near a moving mean of zero that Y is small: what is added to it shows."""
    base = ordinary(shape, labels=labels)
    return {
        **base,
        "X": base["X"] / 1024,
        "gamma": base["gamma"] * 0 + 1,
        "beta": base["beta"] * 0,
        "moving_mean": base["moving_mean"] * 0,
    }


SMALL = {
    4: (
        (2, 1, 1, 1),
        (1, 1, 1, 2),
        (2, 2, 1, 1),
        (2, 1, 1, 2),
        (1, 2, 1, 2),
        (2, 2, 1, 2),
        (2, 2, 2, 2),
        (2, 3, 1, 2),
    ),
    3: ((1, 1, 2), (2, 1, 2), (1, 2, 2), (2, 2, 2), (2, 2, 3)),
    2: ((2, 1), (1, 2), (2, 2), (3, 2), (2, 3)),
}
NUMBERS = (0, 2, 3, 7, 1, 6, 4, 9, 5, 8, 0, 3, 1, 7, 2, 5)


def small(rank, axis=1, labels=False):
    """Small arguments in whole numbers, the simplest first."""
    for shape in SMALL[rank]:
        c = shape[axis]
        rows = (3, c) if labels else (c,)
        numbers = np.array([np.roll((2, 3, 5, 4), -k)[:c] for k in range(3)], dtype="float64")
        simple = {
            "X": np.array(NUMBERS[: int(np.prod(shape))], "float64").reshape(shape),
            "gamma": np.ones(rows),
            "beta": np.zeros(rows),
            "moving_mean": np.zeros(c),
            "moving_var": np.ones(c),
            "eps": 0.25,
            "momentum": 0.75,
            "labels": np.array([2, 0, 1])[: shape[0]] if labels else None,
        }
        yield simple
        yield {
            **simple,
            "gamma": numbers if labels else numbers[0],
            "moving_mean": numbers[1],
            "beta": numbers[::-1] - 6 if labels else numbers[2] - 4,
            "moving_var": np.array([4.0, 9.0, 16.0])[:c],
        }
