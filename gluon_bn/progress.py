"""How a run goes on, seen in a notebook: callbacks for `fit`.

    fit(net, train_iter, test_iter, 10, callbacks=[LiveCurves(10)])

All bars, these, a download's and those of the command line, are tqdm's.
"""

from gluon_bn.training import Callback

__all__ = ["LiveCurves", "Losses", "ProgressBar"]


class Losses(Callback):
    """The mean loss of each step, in the list `losses`, for batches of equal size."""

    def __init__(self):
        self.losses = []

    def on_epoch_start(self, epoch, batches):
        self.total = 0.0

    def on_batch(self, epoch, batch, loss, accuracy):
        self.losses.append(loss * batch - self.total)  # `loss` is the mean of the epoch so far
        self.total = loss * batch


class LiveCurves(Callback):
    """Training loss, training accuracy and test accuracy, drawn again and again by d2l's Animator.

    epochs : how many there will be, for the axis.  per_epoch : points of an epoch.
    """

    def __init__(self, epochs, per_epoch=5):
        self.epochs, self.per_epoch = epochs, per_epoch

    def on_epoch_start(self, epoch, batches):
        self.batches = batches
        if epoch == 1 or not hasattr(self, "animator"):
            from d2l import mxnet as d2l
            from matplotlib_inline.backend_inline import set_matplotlib_formats

            self.animator = d2l.Animator(
                xlabel="epoch",
                xlim=[0, self.epochs],
                figsize=(5, 3.2),
                legend=["train loss", "train accuracy", "test accuracy"],
            )
            set_matplotlib_formats("png")  # d2l has chosen SVG, for all figures to come

    def on_batch(self, epoch, batch, loss, accuracy):
        if self.batches and batch % max(1, self.batches // self.per_epoch) == 0:
            self.animator.add(epoch - 1 + batch / self.batches, (loss, accuracy, None))

    def on_epoch_end(self, epochs):
        last = epochs[-1]
        self.animator.add(
            last["epoch"], (last["train_loss"], last["train_accuracy"], last["test_accuracy"])
        )


class ProgressBar(Callback):
    """A bar for each epoch, by tqdm: in a notebook a widget, in a terminal a line of text."""

    def on_epoch_start(self, epoch, batches):
        from tqdm.auto import tqdm

        self.bar = tqdm(total=batches, desc=f"epoch {epoch}", leave=True)

    def on_batch(self, epoch, batch, loss, accuracy):
        self.bar.update(batch - self.bar.n)
        self.bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{accuracy:.3f}", refresh=False)

    def on_epoch_end(self, epochs):
        last = epochs[-1]
        test = last["test_accuracy"]
        self.bar.set_postfix(
            loss=f"{last['train_loss']:.3f}",
            accuracy=f"{last['train_accuracy']:.3f}",
            **({} if test is None else {"test": f"{test:.3f}"}),
        )
        self.bar.close()
