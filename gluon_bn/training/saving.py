"""Checkpoints as a callback: written before the first epoch, after each one and when a run is
stopped; and the way back. The file itself is the business of `gluon_bn.checkpoint`."""

import os
from dataclasses import asdict

from gluon_bn.checkpoint import CheckpointError, read_checkpoint, under, write_checkpoint
from gluon_bn.training.callbacks import Callback


class Checkpoint(Callback):
    """Keep the state of a run, and of its callbacks, in the file `path`.

    settings : plain values that must be the same when the run is taken up again.
    resume : go on from the file if it exists.
    """

    def __init__(self, path, settings, resume=False):
        self.path, self.settings, self.resume = path, settings, resume

    def on_run_start(self, run):
        self.run = run
        (content, *_) = run.workers.gather(self.read() if run.workers.rank == 0 else None)
        if content is None:
            self.save()
        else:
            self.restore(*content)

    def on_epoch_end(self, epochs):
        self.save()

    def on_stop(self, run):
        self.save()

    def save(self):
        run = self.run
        sums = run.workers.gather(asdict(run.sums))
        if run.workers.rank == 0:
            self.write(sums)
        run.workers.gather(None)  # nobody goes on, or goes, before it is written

    def write(self, sums):
        run = self.run
        header, arrays = run.state()
        for name, callback in self.with_state().items():
            arrays.update({f"callback/{name}/{key}": a for key, a in callback.state().items()})
        partial = None if not run.sums.batches else sums if len(sums) > 1 else sums[0]
        header.update(settings=self.settings, epochs=run.records, partial=partial)
        write_checkpoint(self.path, header, arrays)

    def read(self):
        return read_checkpoint(self.path) if self.resume and os.path.exists(self.path) else None

    def restore(self, header, arrays):
        """Put a checkpoint into the run. CheckpointError, nothing changed, if it is of another."""
        saved = header["settings"]
        for name in [*self.settings, *(name for name in saved if name not in self.settings)]:
            if saved.get(name) != self.settings.get(name):
                raise CheckpointError(
                    f"{self.path} is of a run with {name} = {saved.get(name)}, and this one has "
                    f"{name} = {self.settings.get(name)}. Use the same, or start without --resume."
                )
        states, here = under("callback", arrays), self.with_state()
        there = {name.split("/")[0] for name in states}
        for name in sorted(there ^ here.keys()):
            raise CheckpointError(
                f"{self.path} is of a run {'with' if name in there else 'without'} the callback "
                f"{name}, and this one is not. Use the same, or start without --resume."
            )
        for name, callback in here.items():
            callback.restore(under(name, states))
        self.run.restore(header, arrays)
        self.run.records = header["epochs"]
        self.run.sums = self.sums_of(header["partial"])

    def sums_of(self, partial):
        """What this worker takes up of the sums of an epoch; the first one, what others leave."""
        run, kind = self.run, type(self.run.sums)
        if partial is None:
            return kind()
        parts = [kind(**part) for part in (partial if isinstance(partial, list) else [partial])]
        if len(parts) == run.workers.size:
            return parts[run.workers.rank]
        whole = kind.total(parts)
        return whole if run.workers.rank == 0 else kind(batches=whole.batches)

    def with_state(self):
        """{name: callback} of those that have a state; named by its class."""
        found = {}
        for callback in self.run.callbacks:
            if hasattr(callback, "state"):
                name = type(callback).__name__
                found[f"{name}.{len(found)}" if name in found else name] = callback
        return found
