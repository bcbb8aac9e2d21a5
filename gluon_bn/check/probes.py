"""What a student's code is tried on: inputs that tell the suspects apart, and small ones to show.

All sizes differ, no mean is zero, no variance is one, and the values are exact in float32. The
random numbers are this module's own: MXNet's and NumPy's generators are not touched.
"""

import numpy as np

from gluon_bn.check.report import Example
from gluon_bn.check.suspects import Situation, forward, same

SHAPES = {4: (5, 3, 2, 4), 2: (6, 3), 3: (4, 3, 5)}  # N, N - 1, C, H W: all different
CLASSES = 5
LABELS = (3, 0, 4, 3, 2, 0, 1)  # not sorted, two of them twice, the last class among them


def exact(values):
    return np.asarray(values, dtype="float32").astype("float64")


def ordinary(rank=4, shape=None, seed=0, labels=False):
    """Unequal means and spreads per channel, gamma, beta and moving statistics to match."""
    shape = shape or (len(LABELS) if labels else SHAPES[rank][0], *SHAPES[rank][1:])
    random, n = np.random.RandomState(seed), shape[1]
    tail = (1, -1) + (1,) * (len(shape) - 2)
    spread = np.array([0.5, 1.3, 2.2, 0.8, 1.7])[:n].reshape(tail)
    middle = np.array([1.5, -0.7, 3.1, 0.4, -2.0])[:n].reshape(tail)
    X = random.standard_normal(shape) * spread + middle
    X = X + np.linspace(-0.5, 0.7, shape[0]).reshape((-1,) + (1,) * (len(shape) - 1))
    rows = (CLASSES, n) if labels else (n,)
    gamma = np.array([1.7, 0.6, 2.3, 1.2, 0.9])[:n] + (0 if not labels else
                                                      random.uniform(-0.5, 2, rows))
    beta = np.array([0.8, -1.1, 0.3, 2.0, -0.6])[:n] + (0 if not labels else
                                                       random.uniform(-2, 2, rows))
    return Situation(
        X=exact(X), gamma=exact(gamma), beta=exact(beta),
        moving_mean=exact(np.array([-0.4, 0.9, 1.8, -1.2, 0.5])[:n]),
        moving_var=exact(np.array([2.6, 0.4, 1.9, 0.7, 3.3])[:n]),
        labels=np.array(LABELS) if labels else None)


def battery(rank, training, labels=False):
    """The situations in which Y is looked at: ordinary, little variance (and a negative gamma), no
    variance in one channel."""
    base = ordinary(rank, labels=labels).but(training=training)
    tiny = ordinary(rank, seed=1, labels=labels)
    turned = np.where(np.arange(base.X.shape[1]) == 1, -1, 1)  # training may make gamma negative
    tiny = tiny.but(X=exact(tiny.X * 0.0078125), eps=1e-3, momentum=0.9, training=training,
                    gamma=tiny.gamma * turned, moving_mean=exact(tiny.moving_mean * 0.0078125),
                    moving_var=exact(tiny.moving_var * 0.0001))
    still = base.X.copy()
    still[:, 0] = 2.0
    constant = base.but(X=still, moving_var=np.where(np.arange(base.X.shape[1]) == 0, 0,
                                                    base.moving_var), eps=0.25)
    return [base, tiny, constant]


def far_from_zero(rank, labels=False):
    """Values around 10,000 with a spread of one."""
    base = ordinary(rank, seed=2, labels=labels)
    offset = base.column(np.array([10000.0, -12000.0, 15000.0]))
    return base.but(X=exact(base.X + offset))


# ----------------------------------------------------------------------------------------- examples

SMALL = {4: ((2, 1, 1, 1), (1, 1, 1, 2), (2, 2, 1, 1), (2, 1, 1, 2), (1, 2, 1, 2), (2, 2, 1, 2),
             (2, 2, 2, 2), (2, 3, 1, 2)),
         3: ((2, 1, 1), (1, 1, 2), (2, 2, 1), (2, 1, 2), (2, 2, 2)),
         2: ((2, 1), (2, 2), (3, 2), (2, 3))}
NUMBERS = (0, 2, 3, 7, 1, 6, 4, 9, 5, 8, 0, 3, 1, 7, 2, 5)


def small(rank, training, labels=False):
    """Small situations in whole numbers, the simplest first."""
    for shape in SMALL[rank]:
        X = np.array(NUMBERS[:int(np.prod(shape))], dtype="float64").reshape(shape)
        c = shape[1]
        rows = (3, c) if labels else (c,)
        numbers = np.array([np.roll((2, 3, 5, 4), -k)[:c] for k in range(3)], dtype="float64")
        plain = Situation(X, np.ones(rows), np.zeros(rows), np.zeros(c), np.ones(c), eps=0.25,
                          momentum=0.75, training=training,
                          labels=np.array([2, 0, 1])[:shape[0]] if labels else None)
        yield plain
        yield plain.but(gamma=numbers if labels else numbers[0],
                        beta=numbers[::-1] - 6 if labels else numbers[2] - 4,
                        moving_mean=numbers[1], moving_var=np.array([4.0, 9.0, 16.0])[:c])


def describe(s, only=None):
    """The arguments of a situation, for an `Example`."""
    given = {"X": s.X, "labels": s.labels, "gamma": s.gamma, "beta": s.beta,
             "moving_mean": s.moving_mean, "moving_var": s.moving_var, "eps": s.eps,
             "momentum": s.momentum}
    return {k: v for k, v in given.items() if v is not None and (only is None or k in only)}


def smallest(run, rank, training, only, subject=None, want=forward, what="Y", last=None):
    """An `Example` of the smallest situation in which run(situation) is not what is wanted.

    `subject` adapts the situations to itself; `last` is one to fall back on, known to differ.
    """
    labels = subject is not None and subject.labels
    for s in [*small(rank, training, labels), *([last] if last is not None else [])]:
        try:
            s = s if subject is None else subject.adapt(s)
            got, expected = run(s), want(s)
        except Exception:  # it fails there: not an example of a difference
            continue
        if got is None or same(got, expected):
            continue
        got = np.asarray(got, dtype="float64")
        return Example(describe(s, only), expected,
                       got.reshape(expected.shape) if got.size == expected.size else got, what)
    return None
