"""The statistics of a batch whose parts are on several workers.

Forward, each worker has of its part, by channel, the number of values n, their mean m and their
variance. With a number c that all workers share,

    n,    n (m - c),    n (variance + (m - c)^2)

are sums over values, so those of the whole batch are their sums over the workers: one message, in
float64. c is the running mean, near the mean of the batch, so that nothing is lost where the last
line is divided by n and the square of the mean subtracted.

Backward, dX needs two sums over the whole batch, of gamma dgamma and gamma dbeta (chapter 3).
dgamma and dbeta themselves stay those of the part: the Trainer adds up the gradients of parameters,
and would count them twice.
"""

import itertools
import threading
from contextlib import contextmanager

import numpy as np

from gluon_bn.workers.world import world

_layers = itertools.count(1)


class Channel:
    """What a layer with synchronized=True talks through; None in its place for a lone worker.

    Every layer has a communicator of its own, and every call of it a number. Where MXNet computes
    in an order of its own, the backward passes of two branches run on its threads, on each worker
    in another order; without names, a worker would add the sums of one branch to those of another.
    `MPI.Allreduce` knows no names within a communicator; messages do.

    `by_native`: in a hybridized network the native kernel adds up, as engine.py arranges it, and
    this is `layer`, the number by which it knows this one.
    """

    def __init__(self, here):
        self.world, self.comm, self.layer = here, here.comm.Dup(), next(_layers)
        self.numbers, self.by_native = itertools.count(), here.native_adds_up()
        here.leave_first()

    def call(self):
        """The next call of the layer; within a graph's operator, the one that it is about."""
        keeper = getattr(_here, "keeper", None)
        if keeper is None:
            return Call(self)
        keeper.call = keeper.call or Call(self)
        return keeper.call

    def sum(self, values, name):
        """The sum over the workers. Each gets all parts and adds them in the same order, so it is
        the same everywhere, to the last bit."""
        from mpi4py import MPI

        parts, waiting = np.empty((self.comm.size, *values.shape)), []
        parts[self.comm.rank] = values
        for rank in range(self.comm.size):
            if rank != self.comm.rank:
                waiting.append(self.comm.Irecv(parts[rank], rank, name))
                waiting.append(self.comm.Isend(values, rank, name))
        MPI.Request.Waitall(waiting)
        return parts.sum(axis=0)


def channel(layer):
    """A `Channel` for a new `BatchNorm`, or None for a lone worker.

    Raises ValueError for a layer or a kernel that does not add its sums up over workers.
    """
    from gluon_bn import kernels

    if not layer._synchronizes:
        raise ValueError(
            f"{layer.name}, a {type(layer).__name__}, cannot take the statistics of several "
            "workers: use a BatchNorm, or a ConditionalBatchNorm without per_class_statistics"
        )
    if layer.kernel != "auto" and "workers" not in kernels.get(layer.kernel).OPTIONS:
        raise ValueError(
            f"the kernel {layer.kernel!r} cannot take the statistics of several workers: use "
            "'auto', 'fused' or 'analytic' with synchronized=True"
        )
    here = world()
    return Channel(here) if here.size > 1 else None


class Call:
    """One call of a layer in training: what its kernel asks of the other workers."""

    def __init__(self, channel):
        self.channel, self.idle = channel, channel.world.idle
        self.number = 2 * next(channel.numbers) % 2**15  # the largest that every MPI has room for
        self.batch = None

    def moments(self, n, mean, var, center):
        """n, mean and variance of the whole batch; given n, a number, mean and (biased) variance of
        this worker's part, and c, the same on all workers; arrays (C,). float64."""
        if self.batch is None:  # a graph computes the forward pass again for the backward pass
            c = np.where(np.isfinite(center), center, 0).astype(np.float64)
            far = mean - c
            counts = np.full_like(far, n)
            counts, *sums = self._sum(self.number, counts, n * far, n * (var + far**2))
            n = counts[0]
            far = sums[0] / n
            self.batch = n, c + far, np.maximum(sums[1] / n - far**2, 0)
        return self.batch

    def gradients(self, *sums):
        """The sums over the whole batch that the backward pass needs; arrays (C,). float64."""
        return self._sum(self.number + 1, *sums)

    def _sum(self, name, *sums):
        sums = np.array(sums, np.float64)
        return self.channel.sum(np.zeros_like(sums) if self.idle else sums, name)


_here = threading.local()


@contextmanager
def kept_by(operator):
    """In here the call of the layer is `operator.call`, made if it is None."""
    _here.keeper = operator
    try:
        yield
    finally:
        _here.keeper = None
