"""What is told of a run while it goes on: `Callback`, and the ones that `fit` adds."""

import signal
import threading

from gluon_bn import recipe


class Callback:
    """What `fit` tells about a run while it goes on. Override what you need.

    `run` is the `Run`, with its `net`, `trainer`, `epoch` (from 1), `sums` and `records`.

    A callback with two methods more keeps its state over a stop, in the checkpoint: `state()`
    returns a dict of NumPy arrays, and `restore(state)`, called after `on_run_start`, is given it
    back. What moves the state belongs in `on_step` or `on_epoch_end`.

    Examples
    --------
    >>> class Say(training.Callback):
    ...     def on_epoch_end(self, epochs):
    ...         print("epoch", epochs[-1]["epoch"])
    >>> batches = [(nd.array([[0], [1]]), nd.array([0, 1]))]
    >>> _ = training.fit(nn.Dense(2, in_units=1), batches, epochs=2, callbacks=[Say()])
    epoch 1
    epoch 2
    """

    def on_run_start(self, run):
        """Everything is ready, nothing is trained."""

    def on_epoch_start(self, epoch, batches):
        """Epoch number `epoch`, from 1, begins; it has `batches` batches (None: unknown)."""

    def on_gradients(self, run, examples):
        """The gradients of the summed loss of `examples` examples are there, to be used next."""

    def on_step(self, run):
        """The weights have moved. (MXNet may still compute; whoever reads them waits.)"""

    def on_batch(self, epoch, batch, loss, accuracy):
        """`batch` batches of the epoch are done; averages over the epoch so far.

        This comes up to two steps late: the program does not wait for MXNet's numbers.
        """

    def on_group_end(self, run):
        """A stopped run could go on from here: between two groups of batches, or in the test."""

    def on_stop(self, run):
        """The run is being stopped, at such a place."""

    def on_test(self, run):
        """All batches of the epoch are trained on; the test comes."""

    def on_epoch_end(self, epochs):
        """An epoch is over: all records so far, the last one is new."""

    def on_run_end(self, run):
        """The run is over, or an exception ends it."""


class Clipping(Callback):
    """A gradient whose norm is larger than `largest` is shortened to it.

    The norm is that of all parameters together, of the gradient of the mean loss.
    """

    def __init__(self, largest):
        self.largest = largest

    def on_gradients(self, run, examples):
        recipe.clip_gradients(run.trainer, self.largest * examples)  # theirs is of the sum


class Interruption(Callback):
    """Ctrl-C, and SIGTERM if the program handles it, wait until the run can be stopped.

    An exception that is raised while MXNet works, inside one of its callbacks into Python, would be
    lost, and MXNet's state with it. A signal to one worker stops all of them, at the same place.
    """

    def __init__(self):
        self.received, self.handlers = [], {}

    def on_run_start(self, run):
        self.run = run
        if threading.current_thread() is threading.main_thread():  # signals are its business alone
            handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
            self.handlers = {n: handler for n, handler in handlers.items() if callable(handler)}
        for number in self.handlers:
            signal.signal(number, self.hold_back)

    def on_run_end(self, run):
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def hold_back(self, number, frame):
        self.received.append(number)
        if len(self.received) > 1:  # somebody is in a hurry
            self.handlers[number](number, frame)

    def on_group_end(self, run):
        if self.asked():
            run.catch_up()
            run.tell("on_stop", run)
            self.deliver()

    def on_epoch_end(self, epochs):
        if self.asked():
            self.deliver()

    def asked(self):
        return any(self.run.workers.gather(bool(self.received)))

    def deliver(self):
        if not self.received:
            raise KeyboardInterrupt("another worker was stopped")
        number = self.received[0]
        self.received.clear()
        self.handlers[number](number, None)
