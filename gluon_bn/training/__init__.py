"""Training: `fit` and `evaluate`, runs that can be repeated and resumed, and their record.

::

    train_iter, test_iter = load_fashion_mnist(256)
    net = lenet(norm='textbook')
    epochs = fit(net, train_iter, test_iter, epochs=5, lr=1.0)
    epochs[-1]['test_accuracy']

Anything that can be iterated over again and again and yields `(X, y)` serves as data. Where it has
a method `set_epoch(k)`, as ours has, `fit` calls it, so that the order of epoch k is that of epoch
k in every run. ::

    run.py          a run: a network, its trainer, its loss, the sums so far; and the loop
    callbacks.py    what is told of a run while it goes on: clipping, Ctrl-C
    averaging.py    the callback that averages the weights
    saving.py       the callback that writes checkpoints and takes runs up again
    start.py        random numbers, and the first values of a network
    evaluation.py   the accuracy of a network
    records.py      the files that tell of a run
"""

import json
import math

from gluon_bn import recipe
from gluon_bn.arguments import check_count, check_data, check_seed
from gluon_bn.checkpoint import CheckpointError
from gluon_bn.training.averaging import AveragedWeights
from gluon_bn.training.callbacks import Callback, Clipping, Interruption
from gluon_bn.training.evaluation import device_of, evaluate
from gluon_bn.training.records import record, write_csv, write_figure, write_json
from gluon_bn.training.run import GROUP, Run, TrainingError
from gluon_bn.training.saving import Checkpoint
from gluon_bn.training.start import initialize, length, prepare, same_start, seed_everything
from gluon_bn.training.statistics import Statistics
from gluon_bn.workers import World

__all__ = [
    "AveragedWeights",
    "Callback",
    "CheckpointError",
    "Run",
    "TrainingError",
    "evaluate",
    "fit",
    "initialize",
    "record",
    "seed_everything",
    "write_csv",
    "write_figure",
    "write_json",
]


def fit(
    net,
    train_iter,
    test_iter=None,
    epochs=10,
    lr=1.0,
    *,
    optimizer="sgd",
    optimizer_params=None,
    schedule="constant",
    clip=None,
    label_smoothing=0.0,
    seed=0,
    ctx=None,
    callbacks=(),
    checkpoint=None,
    resume=False,
    settings=None,
    workers=None,
    statistics="average",
):
    """Train a classifier by the cross entropy of its scores.

    Ctrl-C takes effect between batches (with a checkpoint between groups of eight, where the random
    numbers start anew), as KeyboardInterrupt. A second Ctrl-C takes effect at once.

    Parameters
    ----------
    net : Block from X (N, ...) to scores (N, classes)
        If it is not initialized yet, that is done here, with Xavier's random weights.
    train_iter, test_iter : batches (X, y), y the class numbers (N,)
    epochs : int
    lr : float, the learning rate
    optimizer, optimizer_params : a name Gluon knows ('sgd', 'adam', ...), and its further options
        Such as {'momentum': 0.9, 'wd': 5e-4}.
    schedule : 'constant', 'cosine' or 'one-cycle'
        'cosine' goes from lr down to almost nothing; 'one-cycle' from lr / 25 up to lr in the first
        30 % of the updates and down like a cosine (Smith and Topin, 2017).
    clip : float, the largest norm of the gradient of the mean loss; a longer one is shortened to it
    label_smoothing : float, the share of the probability that all classes get alike
        See `recipe.cross_entropy`; the train_loss is then that of the smoothed labels.
    seed : int; the same seed, data and number of threads give the same numbers to the last digit
        The random numbers of MXNet, NumPy and Python start anew every few batches. (Not with 'nag',
        which in MXNet 1.9.1 does not round the same way in every run.)
    ctx : device, by default the one of the network's parameters, or else the CPU
    callbacks : instances of `Callback`; those that have a state are saved with the run
    checkpoint : path, where the state is written
        Before the first epoch, after each one, and when Ctrl-C or SIGTERM stops the run.
    resume : bool; True goes on from `checkpoint` if that file exists
        The result is, bit for bit, that of a run that was never stopped ('nag' excepted, for the
        same reason).
    settings : dict of plain values that must be the same when the run is resumed
    workers : `gluon_bn.workers.World`, who shares the batches of this run; None, nobody
        The result does not depend on how many there are, but for rounding, if the network has
        synchronized statistics.
    statistics : str, what becomes of running statistics that differ between workers
        After each epoch, if they are not synchronized: see `gluon_bn.training.statistics`.

    Returns
    -------
    list of dict, the record of each epoch
        epoch (from 1), train_loss and train_accuracy (averages over the epoch, while the network
        was changing), test_accuracy (None without test_iter), seconds (of training, without the
        test), examples_per_second.

    Raises
    ------
    ValueError : settings that make no sense
    TypeError, ValueError : batches, as for `evaluate`; a label, up to three batches late
    TrainingError : the loss is no longer a finite number
    CheckpointError : `checkpoint` cannot be resumed from

    Examples
    --------
    >>> batches = [(nd.array([[0], [1]]), nd.array([0, 1]))]
    >>> net = nn.Dense(2, in_units=1)
    >>> epochs = training.fit(net, batches, epochs=20, lr=1.0)
    >>> len(epochs), training.evaluate(net, batches)
    (20, 1.0)
    """
    _check_settings(epochs, lr, seed, clip)
    check_resume(checkpoint, resume)
    check_data("train_iter", train_iter, passes=epochs + 1)  # and the first batch, for the shapes
    if test_iter is not None:
        check_data("test_iter", test_iter, passes=epochs)
    loss = recipe.cross_entropy(label_smoothing)
    ctx, workers = ctx or device_of(net), workers or World()
    options = {"learning_rate": lr, **(optimizer_params or {})}
    scheduler = recipe.learning_rates(schedule, lr, epochs, length(train_iter))
    if scheduler is not None:
        options["lr_scheduler"] = scheduler
    settings = _plain(
        {
            "optimizer": optimizer,
            "lr": lr,
            **(optimizer_params or {}),
            "schedule": schedule,
            "clip": clip,
            "label_smoothing": label_smoothing or None,
            "seed": seed,
            **({} if scheduler is None else {"epochs": epochs}),
            **(settings or {}),
        }
    )
    seed_everything(seed)
    prepare(net, train_iter, ctx)
    same_start(workers, net, settings=settings, epochs=epochs, batches=length(train_iter))
    trainer = recipe.trainer(net, optimizer, options, workers.store)
    if clip is not None:
        callbacks = [Clipping(clip), *callbacks]
    if workers.size > 1:
        callbacks = [Statistics(statistics, train_iter), *callbacks]
    callbacks = around(callbacks, checkpoint and Checkpoint(checkpoint, settings, resume))
    group = GROUP if checkpoint or workers.size > 1 else 1
    run = Run(net, trainer, loss, callbacks, seed=seed, ctx=ctx, group=group, workers=workers)
    return run.train(train_iter, test_iter, epochs)


def around(callbacks, saving):
    """The callbacks in the order in which they are told, with what every run has.

    At the end of an epoch those with a state move it before the checkpoint is written. The others
    come after it: what they do, or fail to do, cannot cost the epoch. Ctrl-C takes effect last.
    """
    before = [callback for callback in callbacks if hasattr(callback, "state")]
    after = [callback for callback in callbacks if not hasattr(callback, "state")]
    return [*before, *([saving] if saving else []), *after, Interruption()]


def check_resume(checkpoint, resume):
    if resume and checkpoint is None:
        raise ValueError("resume=True needs a checkpoint to resume from: checkpoint='path'")


def _check_settings(epochs, lr, seed, clip):
    check_count("epochs", epochs, least=1)
    if not (isinstance(lr, (int, float)) and 0 < lr < math.inf):
        raise ValueError(f"lr, the learning rate, must be a positive number, not {lr!r}")
    check_seed(seed)
    if clip is not None and not (isinstance(clip, (int, float)) and 0 < clip < math.inf):
        raise ValueError(
            f"clip, the largest norm of the gradient, must be a positive number or "
            f"None, not {clip!r}"
        )


def _plain(settings):
    """Settings as JSON gives them back; of an object, such as a scheduler, the kind remains."""
    return json.loads(json.dumps(settings, default=lambda value: type(value).__name__))
