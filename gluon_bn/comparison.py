"""The same network twice, with our layer and with Gluon's: how far apart are they, step by step?

Two questions, because two networks that differ in the last digit do not stay that close:

* **one step**: both start the step from the same weights (ours), on the same batch. What differs
  is rounding in one forward and one backward pass.
* **drift**: each goes its own way from the same first weights. What differs is all roundings since,
  as the training enlarges them. At a high learning rate it enlarges them fast, in any framework.
"""

import itertools

import numpy as np
from mxnet import gluon, init

from gluon_bn import recipe, runtime
from gluon_bn.arguments import check_count, check_data, check_pair
from gluon_bn.checkpoint import named_parameters, set_value
from gluon_bn.models import MODELS
from gluon_bn.training import Run, seed_everything

__all__ = ["compare_with_gluon"]

RUNNING = ("running_mean", "running_var")


def compare_with_gluon(model, batches, steps, lr, *, norm="auto", seed=0, on_step=None, **options):
    """Train `model` with our layer and with Gluon's side by side.

    Parameters
    ----------
    model : str, a name in `gluon_bn.models.MODELS`
    batches : iterable of (X, y), gone over as often as `steps` batches need it
    steps : int
    lr : float, the learning rate of plain SGD
    norm : str, our layer's kernel
    seed : int
    on_step : function, called with each dict when it is new
    **options : more for the model

    Returns
    -------
    list of dict, one a step
        {"step" (from 1), "loss": {"ours", "gluon"}, "one_step": {...}, "drift": {...}}. The last
        two hold the largest absolute difference of the "outputs" (the scores), of the "gradients"
        (of the mean loss) and of the "running_statistics" (after the step).

    Raises
    ------
    TypeError, ValueError : the model is unknown, steps is no count, or batches yields nothing

    Examples
    --------
    >>> X, y = nd.random.uniform(shape=(4, 1, 28, 28)), nd.array([0, 1, 2, 3])
    >>> [step] = comparison.compare_with_gluon("lenet", [(X, y)], steps=1, lr=0.1)
    >>> step["one_step"]["outputs"] < 1e-3
    True
    """
    if model not in MODELS:
        raise ValueError(f"model {model!r} is unknown; choose one of {', '.join(MODELS)}")
    check_count("steps", steps, least=1)
    check_data("batches", batches, passes=1)
    seed_everything(seed)
    batches = itertools.islice(_endless(batches), steps)
    X, _ = first = next(batches)
    ours, theirs, shadow = (
        _start(MODELS[model](n, **options), X, lr) for n in (norm, "gluon", "gluon")
    )
    _copy(ours.net, theirs.net)
    records = []
    for step, (X, y) in enumerate(itertools.chain([first], batches), 1):
        _copy(ours.net, shadow.net)
        loss, mine = _forward_and_backward(ours, X, y)
        loss_gluon, other = _forward_and_backward(theirs, X, y)
        _, same_start = _forward_and_backward(shadow, X, y)
        records.append(
            {
                "step": step,
                "loss": {"ours": loss, "gluon": loss_gluon},
                "one_step": _differences(mine, same_start),
                "drift": _differences(mine, other),
            }
        )
        for run in (ours, theirs):
            run.trainer.step(1)  # the loss is a mean already
        if on_step:
            on_step(records[-1])
    return records


def _start(net, X, lr):
    """A run of plain SGD on the mean loss."""
    net.initialize(init.Xavier())
    net(X[:1])  # finds the shapes
    net.hybridize()
    cross_entropy = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = recipe.trainer(net, "sgd", {"learning_rate": lr})
    return Run(net, trainer, lambda scores, y: cross_entropy(scores, y).mean())


def _forward_and_backward(run, X, y):
    """The mean loss, and what is compared: {"outputs": [arrays], "gradients": ..., ...}."""
    loss, scores = run.gradients(X, y)
    parameters = named_parameters(run.net)
    return loss.asnumpy().item(), {
        "outputs": [scores.asnumpy()],
        "gradients": [p.grad().asnumpy() for p in parameters.values() if p.grad_req != "null"],
        "running_statistics": [
            p.data().asnumpy() for name, p in parameters.items() if name.endswith(RUNNING)
        ],
    }


def _differences(one, other):
    return {
        name: max((float(np.abs(a - b).max()) for a, b in zip(one[name], other[name])), default=0.0)
        for name in one
    }


def _copy(source, target):
    runtime.settle()
    parameters = named_parameters(target)
    for name, parameter in named_parameters(source).items():
        set_value(parameters[name], parameter.data().asnumpy())


def _endless(batches):
    while True:
        batch = None
        for batch in batches:
            yield check_pair(batch)
        if batch is None:
            raise ValueError("there is no batch, or no more of them, to compare the layers on")
