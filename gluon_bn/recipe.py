"""What a training run chooses: the loss, Gluon's optimizers, and schedules of the learning rate."""

import mxnet as mx
from mxnet import gluon, nd

from gluon_bn.arguments import as_nd

SCHEDULES = ("constant", "cosine", "one-cycle")

# Smith and Topin (2017, "Super-Convergence", arXiv:1708.07120) as fastai and PyTorch set it.
WARM_UP, START, END = 0.3, 1 / 25, 1e-3  # share of the updates; fractions of the learning rate


def cross_entropy(label_smoothing=0.0):
    """The loss of each example, a function of scores (N, classes) and class numbers y (N,).

    With label_smoothing = e it is the cross entropy to 1 - e + e / classes for the right class and
    e / classes for every other one: the network is not asked to be more certain than that (Szegedy
    et al., 2016, "Rethinking the Inception Architecture", section 7, arXiv:1512.00567).

    Raises ValueError for a label_smoothing that is not at least 0 and less than 1.
    """
    if not (isinstance(label_smoothing, (int, float)) and 0 <= label_smoothing < 1):
        raise ValueError(
            f"label_smoothing must be at least 0 and less than 1, the share of the "
            f"probability that all classes get alike, not {label_smoothing!r}"
        )
    to_class = gluon.loss.SoftmaxCrossEntropyLoss()
    to_all = gluon.loss.SoftmaxCrossEntropyLoss(sparse_label=False)

    def smoothed(scores, y):
        F = mx.np if isinstance(scores, mx.np.ndarray) else mx.nd
        uniform = F.ones_like(scores) / scores.shape[-1]
        return (1 - label_smoothing) * to_class(scores, y) + label_smoothing * to_all(
            scores, uniform
        )

    return smoothed if label_smoothing else to_class


def learning_rates(schedule, lr, epochs, batches):
    """One of Gluon's schedulers for `epochs * batches` updates; None for 'constant'.

    Raises ValueError for an unknown name, or if the number of batches is unknown (None).
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, not {schedule!r}")
    if schedule == "constant":
        return None
    if batches is None:
        raise ValueError(
            f"schedule={schedule!r} has to know how many batches there are, and "
            f"train_iter has no len(); use schedule='constant'"
        )
    updates = epochs * batches
    warm_up = int(WARM_UP * updates) if schedule == "one-cycle" else 0
    return mx.lr_scheduler.CosineScheduler(
        updates, base_lr=lr, final_lr=END * lr, warmup_steps=warm_up, warmup_begin_lr=START * lr
    )


def trainer(net, optimizer, options, store=None):
    """A `gluon.Trainer` of all parameters of `net`, one step for each backward pass.

    store : what adds up the gradients of many workers, an `mx.kvstore.KVStoreBase`.

    Raises ValueError for a name or an option that Gluon does not know, and for a network with
    nothing to train, or whose gradients would add up over the steps.
    """
    known = mx.optimizer.Optimizer.opt_registry
    if isinstance(optimizer, str) and optimizer.lower() not in known:
        raise ValueError(
            f"optimizer {optimizer!r} is unknown; Gluon has {', '.join(sorted(known))}"
        )
    # A list, because a Trainer sorts what it gets as a dict, by names like dense10 and dense9.
    parameters = list(net.collect_params().values())
    if not parameters:
        raise ValueError("the network has no parameters, so there is nothing to train")
    for parameter in parameters:
        if parameter.grad_req == "add":
            raise ValueError(
                f"{parameter.name} has grad_req='add', so the gradients of all steps "
                "would add up: net.collect_params().setattr('grad_req', 'write')"
            )
    try:
        # The optimizer runs here, also where a store adds up the gradients.
        here = None if store is None else False
        return gluon.Trainer(parameters, optimizer, options, store, update_on_kvstore=here)
    except TypeError as error:
        raise ValueError(f"optimizer {optimizer!r} does not take these options: {error}") from None


def clip_gradients(trainer, largest):
    """Shorten the gradient of all parameters together to the norm `largest` if it is longer."""
    gradients = [as_nd(p.grad()) for p in trainer._params if p.grad_req != "null"]
    # Gluon's clip_global_norm wants float32 throughout.
    flat = [g.astype("float32", copy=False).reshape(-1) for g in gradients]
    norm = nd.add_n(*(nd.dot(x, x).as_in_context(flat[0].context) for x in flat)).sqrt()
    scale = nd.minimum(largest / (norm + 1e-8), 1)
    for gradient in gradients:
        gradient *= scale.as_in_context(gradient.context).astype(gradient.dtype)
