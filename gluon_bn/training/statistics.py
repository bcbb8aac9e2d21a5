"""Running statistics of several workers whose batch norm is not synchronized.

Each worker normalizes its part of a batch by the part's own statistics, and moves its own running
statistics. So there are as many networks as workers, and one of them is tested and kept. Two ways
make one of them:

    'average'      the mean over the workers. It is what one worker would have, had it seen all the
                   parts one after the other, but for the order: a moving average is linear.
    'recalibrate'  the exact statistics of all the training data, in place of moving averages
                   (`gluon_bn.inference.recalibrate`). One more pass over it for each epoch.
    'own'          neither; each worker keeps its own, and those of the first one are written.

Layers that keep something else than means and variances (zero_debias, batch renormalization) are
averaged as they are.
"""

import warnings

import numpy as np
from mxnet.gluon import nn

from gluon_bn import runtime
from gluon_bn.arguments import as_nd
from gluon_bn.blocks import BatchNorm
from gluon_bn.checkpoint import set_value

WAYS = ("average", "recalibrate", "own")


class Statistics:
    """A callback of a run on several workers: makes their running statistics the same, in a way
    that WAYS names, before each test and each checkpoint.

    data : what 'recalibrate' measures, whole batches.
    """

    def __init__(self, way, data):
        if way not in WAYS:
            raise ValueError(f"statistics must be one of {', '.join(WAYS)}, not {way!r}")
        self.way, self.data = way, data

    def on_run_start(self, run):
        self.layers = list(unsynchronized(run.net))
        if self.layers and run.workers.rank == 0:
            warnings.warn(
                f"{len(self.layers)} batch norm layers take the statistics of each worker's part "
                "of a batch, not of the whole, so the running statistics of the workers differ. "
                f"{SAID[self.way]} synchronized=True (norm='sync') shares them in every step.",
                stacklevel=2,
            )

    def on_test(self, run):
        if not self.layers:
            return
        if self.way == "recalibrate":
            from gluon_bn.inference import recalibrate

            recalibrate(run.net, self.data, workers=run.workers)
        elif self.way == "average":
            self.average(run.workers)

    def on_stop(self, run):
        if self.way != "own":
            self.average(run.workers)

    def average(self, workers):
        runtime.settle()
        for layer in self.layers:
            for parameter in states(layer):
                values = as_nd(parameter.data()).asnumpy().astype(np.float64)
                set_value(
                    parameter, np.mean(workers.gather(values), axis=0).astype(parameter.dtype)
                )


SAID = {
    "average": "They are averaged after each epoch.",
    "recalibrate": "They are replaced after each epoch by those of all the training data.",
    "own": "Each worker keeps its own; the first one's are written.",
}


def unsynchronized(net):
    """The batch norm layers of a network, ours and Gluon's, whose statistics are the worker's."""
    found = []
    net.apply(found.append)
    for layer in found:
        ours = isinstance(layer, BatchNorm) and not layer.synchronized
        if (ours and not layer.use_global_stats) or isinstance(layer, nn.BatchNorm):
            yield layer


def states(layer):
    """The parameters that a layer moves: neither learned nor fixed."""
    return [p for name, p in layer._reg_params.items() if name not in ("gamma", "beta")]
