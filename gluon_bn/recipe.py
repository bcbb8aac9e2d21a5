"""What a training run chooses by name: Gluon's optimizers, and schedules of the learning rate."""

import mxnet as mx
from mxnet import gluon

SCHEDULES = ("constant", "cosine", "one-cycle")

# Smith and Topin (2017, "Super-Convergence", arXiv:1708.07120) as fastai and PyTorch set it.
WARM_UP, START, END = 0.3, 1 / 25, 1e-3  # share of the updates; fractions of the learning rate


def learning_rates(schedule, lr, epochs, batches):
    """One of Gluon's schedulers for `epochs * batches` updates; None for 'constant'.

    Raises ValueError for an unknown name, or if the number of batches is unknown (None).
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, not {schedule!r}")
    if schedule == "constant":
        return None
    if batches is None:
        raise ValueError(f"schedule={schedule!r} has to know how many batches there are, and "
                         f"train_iter has no len(); use schedule='constant'")
    updates = epochs * batches
    warm_up = int(WARM_UP * updates) if schedule == "one-cycle" else 0
    return mx.lr_scheduler.CosineScheduler(
        updates, base_lr=lr, final_lr=END * lr, warmup_steps=warm_up, warmup_begin_lr=START * lr)


def trainer(net, optimizer, options):
    """A `gluon.Trainer` of all parameters of `net`.

    Raises ValueError for a name or an option that Gluon does not know.
    """
    known = mx.optimizer.Optimizer.opt_registry
    if isinstance(optimizer, str) and optimizer.lower() not in known:
        raise ValueError(f"optimizer {optimizer!r} is unknown; Gluon has "
                         f"{', '.join(sorted(known))}")
    # A list, because a Trainer sorts what it gets as a dict, by names like dense10 and dense9.
    parameters = list(net.collect_params().values())
    try:
        return gluon.Trainer(parameters, optimizer, options, kvstore=None)
    except TypeError as error:
        raise ValueError(f"optimizer {optimizer!r} does not take these options: {error}") from None


def clip_gradients(trainer, largest):
    """Shorten the gradient of all parameters together to the norm `largest` if it is longer."""
    gradients = [parameter.grad() for parameter in trainer._params if parameter.grad_req != "null"]
    gluon.utils.clip_global_norm(gradients, largest, check_isfinite=False)
