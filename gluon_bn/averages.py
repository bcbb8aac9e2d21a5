"""How the running statistics of a layer follow the statistics of its batches: parts to plug in.

An average, as in `BatchNorm(average=Cumulative())`, is an object with::

    by_kernel       True: the kernel's batch_norm averages by itself, exponentially, by the
                    layer's momentum. False: it is called with momentum=0, hands back the
                    statistics of the batch, and `moved` says what becomes of them
    states          initializers of the parameters it keeps beside running_mean and running_var
    moved(layer, mean, var, **running)
                    new values by name, from the batch's (biased, or with `unbiased`) statistics and
                    the old values, `mx.nd` arrays of one shape
"""

import mxnet as mx
from mxnet import autograd, nd

from gluon_bn.arguments import as_nd, cast
from gluon_bn.functional import moving_average


class Exponential:
    """running = momentum * running + (1 - momentum) * batch.

    Examples
    --------
    >>> averages.Exponential().by_kernel
    True
    """

    by_kernel = True
    states: dict = {}

    def moved(self, layer, mean, var, **running):
        return {"running_mean": mean, "running_var": var}


class Cumulative:
    """The plain average of all batches so far (`momentum=None`).

    Examples
    --------
    >>> averages.Cumulative().states
    {'num_batches': 'zeros'}
    """

    by_kernel, states = False, {"num_batches": "zeros"}

    def moved(self, layer, mean, var, running_mean, running_var, num_batches):
        n = num_batches + 1
        momentum = 1 - 1 / n if layer.momentum is None else layer.momentum
        return {
            "num_batches": n,
            "running_mean": moving_average(running_mean, mean, momentum),
            "running_var": moving_average(running_var, var, momentum),
        }


class ZeroDebiased:
    """Exponential, the mean divided by 1 - momentum^t, as Adam's averages are (TensorFlow's
    zero_debias_moving_mean).

    Examples
    --------
    >>> sorted(averages.ZeroDebiased().states)
    ['num_batches', 'running_mean_biased']
    """

    by_kernel, states = False, {"num_batches": "zeros", "running_mean_biased": "zeros"}

    def moved(self, layer, mean, var, running_mean, running_var, num_batches, running_mean_biased):
        n, momentum = num_batches + 1, layer.momentum
        biased = moving_average(running_mean_biased, mean, momentum)
        return {
            "num_batches": n,
            "running_mean_biased": biased,
            "running_mean": biased / (1 - momentum**n),
            "running_var": moving_average(running_var, var, momentum),
        }


class Renorm:
    """The averages of TensorFlow 1.15 for batch renormalization: of standard deviations, one pair
    for training, by the layer's renorm_momentum, and one for prediction.

    Parameters
    ----------
    variance_initializer : str or Initializer, of the variance whose root the deviations start at

    Examples
    --------
    >>> sorted(averages.Renorm().states)
    ['renorm_mean', 'renorm_stddev', 'running_stddev']
    """

    by_kernel = False

    def __init__(self, variance_initializer="ones"):
        root = RootOf(variance_initializer)
        self.states = {"running_stddev": root, "renorm_mean": "zeros", "renorm_stddev": root}

    def moved(
        self,
        layer,
        mean,
        var,
        running_mean,
        running_var,
        running_stddev,
        renorm_mean,
        renorm_stddev,
    ):
        stddev = nd.sqrt(var + layer.epsilon)
        moved = moving_average(running_stddev, stddev, layer.momentum)
        return {
            "renorm_mean": moving_average(renorm_mean, mean, layer.renorm_momentum),
            "renorm_stddev": moving_average(renorm_stddev, stddev, layer.renorm_momentum),
            "running_mean": moving_average(running_mean, mean, layer.momentum),
            "running_stddev": moved,
            "running_var": nd.relu(nd.square(moved) - layer.epsilon),
        }


class RootOf(mx.init.Initializer):
    """The square root of what another initializer gives.

    Parameters
    ----------
    variance : str or Initializer

    Examples
    --------
    >>> stddev = gluon.Parameter("stddev", shape=(2,), init=averages.RootOf(mx.init.Constant(9)))
    >>> stddev.initialize()
    >>> print(stddev.data().asnumpy())
    [3. 3.]
    """

    def __init__(self, variance):
        super().__init__()
        self.variance = variance

    def _init_weight(self, name, arr):
        mx.init.create(self.variance)._init_weight(name, arr)
        as_nd(arr)[:] = nd.sqrt(as_nd(arr))


def keep(layer, mean, var, running):
    """Move the running statistics of a layer, in place, by its average of the batch's; not those of
    a channel whose batch statistics were NaN or infinite, if it skips those.

    Parameters
    ----------
    layer : BatchNorm
    mean, var : arrays (C,), of the batch
    running : dict, name -> array (C,), what is moved

    Examples
    --------
    >>> running = {"running_mean": nd.zeros(1), "running_var": nd.ones(1)}
    >>> layer = gluon_bn.BatchNorm(1)  # skip_nonfinite=True
    >>> averages.keep(layer, nd.array([10]), nd.array([np.nan]), running)
    >>> print(running["running_mean"].asnumpy())
    [0.]
    """
    with autograd.pause():
        mean, var = (cast(s, running["running_mean"].dtype) for s in (mean, var))
        finite = None
        if layer.skip_nonfinite:
            finite = nd.contrib.isfinite(mean) * nd.contrib.isfinite(var)
        for name, value in layer.average.moved(layer, mean, var, **running).items():
            old = running[name]
            old[:] = value if finite is None else nd.where(finite, value, old)


def average_for(momentum, zero_debias):
    """The average that these options of a `BatchNorm` ask for.

    Parameters
    ----------
    momentum : float or None
    zero_debias : bool

    Returns
    -------
    Exponential, Cumulative or ZeroDebiased

    Examples
    --------
    >>> type(averages.average_for(None, False)).__name__
    'Cumulative'
    """
    if zero_debias:
        return ZeroDebiased()
    return Cumulative() if momentum is None else Exponential()
