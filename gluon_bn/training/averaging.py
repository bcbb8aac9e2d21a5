"""Averages of the weights over a run, and the statistics that such weights need.

    average = AveragedWeights(start=8)      # of the weights at the ends of epochs 8, 9, ...
    fit(net, train_iter, test_iter, epochs=10, callbacks=[average])
    average.put_into(net, train_iter)

At a learning rate that stays high, the weights keep wandering around a region of small loss. At any
one moment they are near its border; their average is further inside and predicts better on new
data (Izmailov et al., 2018, "Averaging Weights Leads to Wider Optima and Better Generalization",
arXiv:1803.05407).
"""

import numpy as np
from mxnet import nd

from gluon_bn import runtime
from gluon_bn.arguments import as_nd, check_count
from gluon_bn.checkpoint import CheckpointError, named_parameters, set_value, under
from gluon_bn.inference.statistics import measured_layers, recalibrate
from gluon_bn.training.callbacks import Callback

METHODS = ("none", "swa", "ema")  # how the command line calls them


class AveragedWeights(Callback):
    """The average of the weights, beside a run; with a checkpoint it is resumed to the last bit.

    Only what is trained is averaged, in float32 at least. `count` says of how many weights.

    Parameters
    ----------
    start : int, the first epoch that counts, from 1
    decay : None, or float in (0, 1)
        None gives the weights at the ends of the epochs from `start` on the same share: stochastic
        weight averaging (Izmailov et al., 2018, Algorithm 1, with a cycle of an epoch). It wants a
        learning rate that stays high: the weights at the end of a schedule that falls to zero
        hardly differ. A number, 0.999 for example, averages after each step from `start` on: in the
        n-th step `average = average + share (weights - average)` with
        `share = max(1 / n, 1 - decay)`, all alike at first, and then exponentially less the longer
        they are past, so that the first weights, which are random, are not favoured.

    Raises
    ------
    TypeError, ValueError : start is no integer from 1 up, or decay is another number

    Examples
    --------
    >>> batches = [(nd.array([[0], [1]]), nd.array([0, 1]))]
    >>> net = nn.Dense(2, in_units=1)
    >>> average = training.AveragedWeights(start=2)
    >>> _ = training.fit(net, batches, epochs=3, callbacks=[average])
    >>> average.count
    2
    """

    def __init__(self, start=1, decay=None):
        check_count("start", start, least=1)
        if decay is not None and not (isinstance(decay, (int, float)) and 0 < decay < 1):
            raise ValueError(
                f"decay must be None, for an equal average, or between 0 and 1, not {decay!r}"
            )
        self.start, self.decay, self.count = start, decay, 0

    def on_run_start(self, run):
        self.run, self.count, self.average = run, 0, {}
        self.trained = {
            name: parameter
            for name, parameter in named_parameters(run.net).items()
            if parameter.grad_req != "null"
        }

    def on_step(self, run):
        if self.decay is not None and run.epoch >= self.start:
            self.add()

    def on_epoch_end(self, epochs):
        if self.decay is None and len(epochs) >= self.start:
            runtime.settle()
            self.add()

    def add(self):
        """Move the average towards the weights as they are now."""
        self.count += 1
        share = 1 / self.count if self.decay is None else max(1 / self.count, 1 - self.decay)
        for name, parameter in self.trained.items():
            weights = as_nd(parameter.list_data()[0])
            dtype = np.promote_types(weights.dtype, "float32")
            weights = weights.astype(dtype, copy=self.count == 1)
            if self.count == 1:
                self.average[name] = weights
            else:
                self.average[name] += share * (weights - self.average[name])

    def put_into(self, net, data=None, recalibrated=True):
        """Give `net` the averaged weights, and the statistics of its batch norm layers for them.

        The running statistics in `net` were measured behind the last weights. Behind the averaged
        ones every layer hands on other values, whose means and variances nobody has seen: averaged
        weights have no running statistics of their own, and with those of other weights a network
        may predict nonsense. So they are measured here, on `data` (see `inference.recalibrate`).

        Parameters
        ----------
        net : Block
        data : the training batches, gone over once; not needed by a network without batch norm
        recalibrated : bool; False leaves the statistics as they are, to see what becomes of it

        Raises
        ------
        ValueError : nothing was averaged, or data is missing
        """
        if not self.count:
            raise ValueError(
                f"nothing was averaged: the average begins in epoch {self.start}, and the run did "
                f"not come to the {'first step' if self.decay else 'end'} of that"
            )
        recalibrated = recalibrated and bool(measured_layers(net))
        if recalibrated and data is None:
            raise ValueError(
                "averaged weights have no running statistics of their own: give the training "
                "batches, put_into(net, train_iter), and they are measured; recalibrated=False "
                "leaves those of the last weights"
            )
        parameters = named_parameters(net)
        for name, average in self.average.items():
            set_value(parameters[name], average.asnumpy().astype(parameters[name].dtype))
        if recalibrated:
            if hasattr(data, "set_epoch"):
                data.set_epoch(0)  # the same order and augmentation each time
            recalibrate(net, data)

    def state(self):
        runtime.settle()
        return {
            "start": np.array(self.start),
            "decay": np.array(self.decay or 0.0),
            "count": np.array(self.count),
            **{f"average/{name}": value.asnumpy() for name, value in self.average.items()},
        }

    def restore(self, state):
        saved = int(state["start"]), float(state["decay"]) or None
        if saved != (self.start, self.decay):
            raise CheckpointError(
                f"the run averages its weights with start={saved[0]}, decay={saved[1]}, and this "
                f"one has start={self.start}, decay={self.decay}. Use the same, or start without "
                f"--resume."
            )
        self.count = int(state["count"])
        self.average = {
            name: nd.array(value, ctx=self.run.ctx, dtype=value.dtype)
            for name, value in under("average", state).items()
        }
