"""A run of a network as `train` and `demo` do it: data, progress, files."""

import contextlib
import errno
import os
import shutil
import sys
import tempfile

import typer

from gluon_bn.cli.reporting import err, say
from gluon_bn.workers import world


def train_network(
    model,
    norm,
    data,
    epochs,
    batch_size,
    lr,
    seed,
    *,
    label=None,
    folder=None,
    resume=False,
    augment="none",
    resize=None,
    hybridize=True,
    small=False,
    averaged=None,
    workers=None,
    statistics="average",
    **options,
):
    """Train one network under a progress bar; return the record of the run, and the network.

    averaged : the `AveragedWeights` that the network has in the end.
    folder : where the metrics go, epoch by epoch, and the checkpoint; None: nothing is written.
    options : more for `training.fit`.
    """
    from gluon_bn import training
    from gluon_bn.models import MODELS

    settings = {
        "model": model,
        "norm": norm,
        "batch_size": batch_size,
        "augment": augment,
        "resize": resize,
        "hybridize": hybridize,
        "small": small or None,  # as in checkpoints from before there was a choice
    }
    average = averaged and {
        "method": "ema" if averaged.decay else "swa",
        "start": averaged.start,
        "decay": averaged.decay,
    }

    def metrics_of(records):
        return training.record(
            model,
            norm,
            seed,
            data.summary(),
            records,
            lr=lr,
            workers=workers.size if workers else 1,
            **options,
            **{name: settings[name] for name in ("batch_size", "augment", "resize", "hybridize")},
            small=small,
            average=average,
        )

    def write_metrics(records):
        if folder and (workers is None or workers.rank == 0):
            training.write_json(folder / "metrics.json", metrics_of(records))
            training.write_csv(folder / "metrics.csv", records)

    class Bar(training.Callback):
        def on_epoch_start(self, epoch, batches):
            self.done = (epoch - 1) * batches
            bar.set_description_str(f"{label or norm}: epoch {epoch}/{epochs}", refresh=False)

        def on_batch(self, epoch, batch, loss, accuracy):
            bar.set_postfix_str(f"loss {loss:.3f}, accuracy {accuracy:.3f}", refresh=False)
            bar.update(self.done + batch - bar.n)

        def on_epoch_end(self, records):
            write_metrics(records)
            last = records[-1]
            bar.set_postfix_str(
                f"loss {last['train_loss']:.3f}, test accuracy {last['test_accuracy']:.3f}"
            )
            if folder or bar.disable:  # where no bar moves, lines tell how it goes
                with bar.external_write_mode():
                    say(
                        f"{label or norm}: epoch {last['epoch']}/{epochs}, loss "
                        f"{last['train_loss']:.4f}, accuracy {last['train_accuracy']:.4f}, test "
                        f"accuracy {last['test_accuracy']:.4f}, {last['seconds']:.1f} s"
                    )

    net = MODELS[model](norm, **({"small": True} if small else {}))
    if hybridize:
        net.hybridize()
    train_iter, test_iter = data.batches(batch_size, resize, seed=seed, augment=augment)
    with progress_bar(label or norm, epochs * len(train_iter)) as bar:
        records = training.fit(
            net,
            train_iter,
            test_iter,
            epochs,
            lr,
            seed=seed,
            callbacks=[Bar(), *([averaged] if averaged else [])],
            checkpoint=folder and folder / "checkpoint",
            resume=resume,
            settings={**settings, "data": data.summary()},
            workers=workers,
            statistics=statistics,
            **options,
        )
    if averaged:
        average.update(_average(averaged, net, train_iter, test_iter))
    write_metrics(records)
    return metrics_of(records), net


def _average(averaged, net, train_iter, test_iter):
    """Put the averaged weights into the network; what `metrics.json` says of them.

    The accuracy with the statistics of the last weights is there to show what they are worth.
    """
    from gluon_bn.inference.statistics import measured_layers
    from gluon_bn.training import evaluate

    found = {"recalibrated": bool(measured_layers(net))}
    if found["recalibrated"]:
        averaged.put_into(net, recalibrated=False)
        found["test_accuracy_not_recalibrated"] = evaluate(net, test_iter)
    averaged.put_into(net, train_iter)
    return {**found, "weights": averaged.count, "test_accuracy": evaluate(net, test_iter)}


def announce(model, norms, data):
    """Say at the start of a run which data, which layer and how many threads."""
    from gluon_bn import runtime

    machine = runtime.describe()
    counts = data.summary()
    name = "Fashion-MNIST" if data.name == "fashion-mnist" else "the stand-in (drawn garments)"
    where = f", from {data.folder}" if data.folder else ""
    tested = "held-out training" if data.held_out else "test"
    size = world().size
    workers = f"workers  {size}, each with its part of every batch\n" if size > 1 else ""
    layers = ", then ".join(_describe_norm(norm) for norm in norms)
    say(
        f"data     {name}: {counts['train']:,} training images, {counts['test']:,} "
        f"{tested} images{where}\nnetwork  {model}\nlayer    {layers}\n{workers}"
        f"threads  {machine['threads']} on {machine['cores']} cores; memory allocator: "
        f"{machine['allocator']}"
    )
    busy = runtime.busy_cores()
    if machine["threads"] and machine["threads"] > 1 and busy > 0.5:
        say(
            f"Note: other programs keep {busy:.1f} cores busy. Threads that wait for a core "
            f"stop each other; --threads 1 may be several times faster.",
            err,
        )


def _describe_norm(norm):
    from mxnet import nd

    from gluon_bn import kernels
    from gluon_bn.models.layers import KERNELS

    if norm == "auto":
        kernel = kernels.choose("auto", nd.zeros((2, 2, 2, 2))).__name__.rpartition(".")[2]
        return f"our BatchNorm, kernel {kernel} (chosen by auto)"
    if norm in KERNELS:
        return f"our BatchNorm, kernel {norm}"
    return {"gluon": "gluon.nn.BatchNorm", "none": "no normalization"}.get(norm, norm)


@contextlib.contextmanager
def usage_errors_of(option):
    """A ValueError in here is a usage error of this option, such as a --limit that is larger than
    the data, which only the data can tell."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def progress_bar(description, steps):
    """A bar on standard output, if that is a terminal."""
    from tqdm import tqdm

    return tqdm(
        desc=description,
        total=steps,
        file=sys.stdout,
        disable=None,
        dynamic_ncols=True,
        bar_format="{desc} {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}{postfix}]",
    )


def parameters_writer(net):
    """`write(file)` for `write_atomically`.

    MXNet writes by name, knows only names in UTF-8, and may say nothing when a disk is full: so
    into another file, which is read again, and copied.
    """
    import mxnet as mx

    from gluon_bn import runtime

    def write(file):
        runtime.settle()
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.params")
            try:
                net.save_parameters(path)
                mx.nd.load(path)
            except mx.MXNetError:
                raise OSError(
                    errno.EIO, "MXNet could not write it; is the disk full?", path
                ) from None
            with open(path, "rb") as saved:
                shutil.copyfileobj(saved, file)

    return write
