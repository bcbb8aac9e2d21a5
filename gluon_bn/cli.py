"""The command `gluon-bn`: train, demo, compare, bench, data.

Exit codes: 0 done, 1 it went wrong (a sentence on the error stream says what), 2 the command line
makes no sense, 130 stopped by Ctrl-C or SIGTERM. What computes is imported inside the commands, so
that mistakes are reported at once.
"""

import contextlib
import errno
import functools
import importlib
import inspect
import os
import shutil
import signal
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Optional

import typer
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from gluon_bn import NO_MXNET, __version__

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Batch normalization, built from scratch in MXNet Gluon.",
)
data_app = typer.Typer(no_args_is_help=True, help="Look for Fashion-MNIST, or download it.")
app.add_typer(data_app, name="data")

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


@app.callback()
def _options(
    version: bool = typer.Option(
        False,
        "--version",
        is_eager=True,
        callback=lambda asked: asked and _print_versions(),
        help="Print the versions of the package, Python, NumPy and MXNet, and the kernels.",
    ),
):
    """Batch normalization, built from scratch in MXNet Gluon."""


def main():
    """Run the command line; the entry point of `gluon-bn` and of `python -m gluon_bn`."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop as after Ctrl-C
    for stream in (sys.stdout, sys.stderr):  # a letter that the terminal has not ends no run
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = lambda message, *where, **more: err.print(
        f"Note: {message}", markup=False
    )
    app(prog_name="gluon-bn")


def _reports_errors(command):
    """Turn exceptions of a command into a sentence on the error stream and an exit code.

    With GLUON_BN_DEBUG=1 in the environment you see where an error comes from.
    """

    @functools.wraps(command)
    def wrapper(*args, **kwargs):
        try:
            return command(*args, **kwargs)
        except (typer.Exit, typer.BadParameter):
            raise
        except KeyboardInterrupt as stop:
            err.print("Stopped. " + "".join(str(a) for a in stop.args), markup=False)
            raise typer.Exit(130) from None
        except Exception as error:
            if os.environ.get("GLUON_BN_DEBUG"):
                raise
            err.print(f"Error: {_sentence(error)}", markup=False, soft_wrap=True)
            raise typer.Exit(1) from None

    return wrapper


@_reports_errors
def _print_versions():
    from gluon_bn import kernels, runtime

    found = runtime.versions()
    out.print(
        f"gluon-bn {__version__}, Python {found['python']}, NumPy {found['numpy']}, "
        f"MXNet {found['mxnet']}; kernels: {', '.join(kernels.available())}",
        soft_wrap=True,
    )
    for name in kernels.NAMES:
        if kernels.why_not(name):
            out.print(f"without {name}: {kernels.why_not(name)}", soft_wrap=True, markup=False)
    raise typer.Exit()


def _sentence(error):
    """What an exception says. Those of ours are written to be read; others get their name."""
    if type(error).__module__.startswith("gluon_bn."):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name == "mxnet":
        return NO_MXNET
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (
        f"{type(error).__name__}: {lines[-1] if lines else 'no message'} "
        f"(GLUON_BN_DEBUG=1 shows where)"
    )


# The options --------------------------------------------------------------------------------------


def _check_one_of(module, names):
    """A callback: is the value one of these names of a module of ours, loaded when it is needed?"""

    @_reports_errors  # it imports MXNet, which Ctrl-C may interrupt
    def check(name):
        known = getattr(importlib.import_module(f"gluon_bn.{module}"), names)
        if name not in known:
            raise typer.BadParameter(f"{name!r} is unknown; choose one of {', '.join(known)}.")
        return name

    return check


@_reports_errors
def _check_norm(name):
    from gluon_bn.models import make_norm

    try:
        make_norm(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return name


def _check_lr(lr):
    if not 0 < lr < 3.4e38:  # the largest number of MXNet's float32
        raise typer.BadParameter(f"{lr} is not a positive number that MXNet can hold.")
    return lr


def _check_clip(clip):
    if clip is not None and not 0 < clip < 3.4e38:
        raise typer.BadParameter(f"{clip} is not a positive number.")
    return clip


def _check_decay(decay):
    if not 0 < decay < 1:
        raise typer.BadParameter(f"{decay} is not between 0 and 1.")
    return decay


ModelArgument = typer.Argument(
    callback=_check_one_of("models", "MODELS"),
    help="The network.",
    metavar="lenet|resnet18|densenet",
)
NormOption = typer.Option(
    "auto",
    "--norm",
    callback=_check_norm,
    help=(
        "The layer that normalizes: ours (auto, textbook, analytic, ...), gluon, none, or a "
        "relative (layer, instance, group, ...)."
    ),
)
EpochsOption = functools.partial(typer.Option, min=1, help="Passes over the training images.")
LrOption = typer.Option(1.0, "--lr", callback=_check_lr, help="The learning rate, at its largest.")
OptimizerOption = typer.Option(
    "sgd",
    help=(
        "One of Gluon's optimizers: sgd, adam, nag (in MXNet 1.9.1 not the same to the last bit in "
        "two runs), ..."
    ),
)
MomentumOption = typer.Option(None, min=0, max=1, help="Momentum, for sgd and nag.")
WeightDecayOption = typer.Option(0.0, min=0, help="Weight decay.")
ScheduleOption = typer.Option(
    "constant",
    callback=_check_one_of("recipe", "SCHEDULES"),
    metavar="NAME",
    help="The learning rate over the run: constant, cosine or one-cycle.",
)
ClipOption = typer.Option(
    None, callback=_check_clip, help="Shorten gradients that are longer than this."
)
LabelSmoothingOption = typer.Option(
    0.0,
    min=0,
    max=0.99,
    help=("The share of the probability that all classes get alike, 0.1 for example."),
)
AugmentOption = typer.Option(
    "none",
    callback=_check_one_of("augment", "AUGMENTATIONS"),
    metavar="NAME",
    help="Change the training images: none, crop, flip, erase, crop-flip or flip-erase.",
)
ResizeOption = typer.Option(
    None, min=28, help=("Enlarge the images to so many pixels a side, as the book does (96).")
)
BatchSizeOption = typer.Option(256, min=1, help="Images in a batch.")
SeedOption = typer.Option(0, min=0, max=2**32 - 1, help="The same seed gives the same run.")
DataDirOption = typer.Option(
    None,
    help=(
        "The folder of Fashion-MNIST's four files. Default: $FASHION_MNIST_ROOT, else MXNet's own."
    ),
)
LimitOption = typer.Option(None, min=1, help="Keep only the first N training images.")
OutputOption = typer.Option(
    None,
    file_okay=False,
    help=("The folder for the results. Default: runs/MODEL-NORM, for the demo: demo."),
)
ResumeOption = typer.Option(False, "--resume", help="Go on from the checkpoint in --output.")
StandInOption = typer.Option(
    False,
    "--stand-in",
    help=("Train on drawn garments instead of Fashion-MNIST; needs no download."),
)
SmallOption = typer.Option(
    False, "--small", help="The small variant of resnet18 or densenet, for small images and a CPU."
)
AverageOption = typer.Option(
    "none",
    callback=_check_one_of("training.averaging", "METHODS"),
    metavar="NAME",
    help=(
        "Write averaged weights: swa, those at the ends of the last epochs, or ema, an exponential "
        "average over all steps. Such weights have no running statistics of their own, so these "
        "are measured on the training images afterwards."
    ),
)
AverageStartOption = typer.Option(
    None,
    min=1,
    help=(
        "The first epoch that is averaged. Default: for swa the first of the last quarter, or of "
        "the last two; for ema 1."
    ),
)
AverageDecayOption = typer.Option(
    0.999, callback=_check_decay, help="The weight of the past in ema, at each step."
)
HybridizeOption = typer.Option(
    True,
    "--hybridize/--imperative",
    help=("Whether MXNet compiles the network to a graph, or calls it layer by layer."),
)
ThreadsOption = typer.Option(None, min=1, help="How many threads compute. Default: all cores.")


# gluon-bn train -----------------------------------------------------------------------------------


@app.command()
@_reports_errors
def train(
    model: str = ModelArgument,
    norm: str = NormOption,
    epochs: int = EpochsOption(10),
    batch_size: int = BatchSizeOption,
    lr: float = LrOption,
    optimizer: str = OptimizerOption,
    momentum: Optional[float] = MomentumOption,
    weight_decay: float = WeightDecayOption,
    schedule: str = ScheduleOption,
    clip: Optional[float] = ClipOption,
    label_smoothing: float = LabelSmoothingOption,
    augment: str = AugmentOption,
    resize: Optional[int] = ResizeOption,
    seed: int = SeedOption,
    data_dir: Optional[Path] = DataDirOption,
    limit: Optional[int] = LimitOption,
    output: Optional[Path] = OutputOption,
    resume: bool = ResumeOption,
    stand_in: bool = StandInOption,
    small: bool = SmallOption,
    average: str = AverageOption,
    average_start: Optional[int] = AverageStartOption,
    average_decay: float = AverageDecayOption,
    hybridize: bool = HybridizeOption,
    threads: Optional[int] = ThreadsOption,
):
    """Train a network; leaves metrics.json and .csv, curves.png, model.params, a checkpoint."""
    from gluon_bn import runtime
    from gluon_bn.checkpoint import write_atomically
    from gluon_bn.data import dataset
    from gluon_bn.plotting import plot_run
    from gluon_bn.training import write_figure

    _check_small(model, small)
    averaged = _averaged_weights(average, average_start, average_decay, epochs)
    folder = output or Path("runs") / f"{model}{'-small' * small}-{norm}"
    checkpoint = folder / "checkpoint"
    folder.mkdir(parents=True, exist_ok=True)
    runtime.configure(threads)
    with _limit_is_an_option():
        data = dataset(data_dir, stand_in=stand_in, limit=limit)
    _announce(f"{model}{', the small variant' * small}", [norm], data)
    if resume and not checkpoint.exists():
        out.print(
            f"There is no checkpoint in {folder} yet: starting from the beginning.", markup=False
        )
    try:
        metrics, net = _train(
            model,
            norm,
            data,
            epochs,
            batch_size,
            lr,
            seed,
            folder=folder,
            resume=resume,
            augment=augment,
            resize=resize,
            optimizer=optimizer,
            optimizer_params={
                "wd": weight_decay,
                **({} if momentum is None else {"momentum": momentum}),
            },
            schedule=schedule,
            clip=clip,
            label_smoothing=label_smoothing,
            hybridize=hybridize,
            small=small,
            averaged=averaged,
        )
    except KeyboardInterrupt:
        if checkpoint.exists():
            raise KeyboardInterrupt(
                f"The run so far is kept in {checkpoint}; the same command "
                f"with --resume goes on from there."
            ) from None
        raise
    write_atomically(folder / "model.params", _parameters_writer(net))
    write_figure(folder / "curves.png", plot_run(metrics))
    last = metrics["epochs"][-1]
    out.print(
        f"{model}, norm={norm}, {data.name}: test accuracy {last['test_accuracy']:.4f}, "
        f"training loss {last['train_loss']:.4f} after epoch {last['epoch']}, "
        f"{last['examples_per_second']:,.0f} images/s. {_tell_average(metrics)}Results in {folder}",
        markup=False,
        soft_wrap=True,
    )


def _check_small(model, small):
    from gluon_bn.models import MODELS

    if small and "small" not in inspect.signature(MODELS[model]).parameters:
        raise typer.BadParameter(f"{model} has no small variant.", param_hint="--small")


def _averaged_weights(method, start, decay, epochs):
    """The callback that `--average` asks for, or None."""
    from gluon_bn.training import AveragedWeights

    if method == "none":
        if start is not None:
            raise typer.BadParameter("it goes with --average.", param_hint="--average-start")
        return None
    if start is None:
        start = 1 if method == "ema" else max(1, min(1 + 3 * epochs // 4, epochs - 1))
    if start > epochs:
        raise typer.BadParameter(
            f"{start} is after the last epoch, {epochs}.", param_hint="--average-start"
        )
    return AveragedWeights(start, decay if method == "ema" else None)


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


def _tell_average(metrics):
    average = metrics.get("average")
    if not average:
        return ""
    without = average.get("test_accuracy_not_recalibrated")
    return (
        f"Averaged weights, in model.params: test accuracy {average['test_accuracy']:.4f}"
        + ("" if without is None else f" ({without:.4f} with the statistics of the last weights)")
        + ". "
    )


def _train(
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
            **options,
            **{name: settings[name] for name in ("batch_size", "augment", "resize", "hybridize")},
            small=small,
            average=average,
        )

    def write_metrics(records):
        if folder:
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
                    out.print(
                        f"{label or norm}: epoch {last['epoch']}/{epochs}, loss "
                        f"{last['train_loss']:.4f}, accuracy {last['train_accuracy']:.4f}, test "
                        f"accuracy {last['test_accuracy']:.4f}, {last['seconds']:.1f} s",
                        markup=False,
                        soft_wrap=True,
                    )

    net = MODELS[model](norm, **({"small": True} if small else {}))
    if hybridize:
        net.hybridize()
    train_iter, test_iter = data.batches(batch_size, resize, seed=seed, augment=augment)
    with _progress_bar(label or norm, epochs * len(train_iter)) as bar:
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
            **options,
        )
    if averaged:
        average.update(_average(averaged, net, train_iter, test_iter))
    write_metrics(records)
    return metrics_of(records), net


def _announce(model, norms, data):
    """Say at the start of a run which data, which layer and how many threads."""
    from gluon_bn import runtime

    machine = runtime.describe()
    counts = data.summary()
    name = "Fashion-MNIST" if data.name == "fashion-mnist" else "the stand-in (drawn garments)"
    where = f", from {data.folder}" if data.folder else ""
    layers = ", then ".join(_describe_norm(norm) for norm in norms)
    out.print(
        f"data     {name}: {counts['train']:,} training images, {counts['test']:,} test "
        f"images{where}\nnetwork  {model}\nlayer    {layers}\n"
        f"threads  {machine['threads']} on {machine['cores']} cores; memory allocator: "
        f"{machine['allocator']}",
        markup=False,
        soft_wrap=True,
    )
    busy = runtime.busy_cores()
    if machine["threads"] and machine["threads"] > 1 and busy > 0.5:
        err.print(
            f"Note: other programs keep {busy:.1f} cores busy. Threads that wait for a core "
            f"stop each other; --threads 1 may be several times faster.",
            markup=False,
            soft_wrap=True,
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
def _limit_is_an_option():
    """A --limit that is larger than the data is a usage error, though only the data can tell."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--limit") from None


def _progress_bar(description, steps):
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


def _parameters_writer(net):
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


# gluon-bn demo ------------------------------------------------------------------------------------

DEMO = (("none", "without batch norm"), ("auto", "ours, from scratch"), ("gluon", "Gluon's layer"))


@app.command()
@_reports_errors
def demo(
    epochs: int = EpochsOption(6),
    batch_size: int = BatchSizeOption,
    lr: float = LrOption,
    seed: int = SeedOption,
    data_dir: Optional[Path] = DataDirOption,
    limit: Optional[int] = LimitOption,
    output: Optional[Path] = OutputOption,
    threads: Optional[int] = ThreadsOption,
):
    """Train LeNet without batch norm, with ours and with Gluon's; leaves a table and a picture."""
    from gluon_bn import runtime
    from gluon_bn.plotting import plot_runs
    from gluon_bn.training import write_figure, write_json

    folder = output or Path("demo")
    folder.mkdir(parents=True, exist_ok=True)
    runtime.configure(threads)
    with _limit_is_an_option():
        data = _fashion_mnist_or_stand_in(data_dir, limit)
    _announce("lenet", [norm for norm, _ in DEMO], data)
    runs = [
        _train("lenet", norm, data, epochs, batch_size, lr, seed, label=label)[0]
        for norm, label in DEMO
    ]
    labels = [label for _, label in DEMO]
    write_json(folder / "metrics.json", {"dataset": data.summary(), "runs": runs})
    write_figure(folder / "curves.png", plot_runs(runs, labels, _title(data)))
    out.print(_table(runs, labels, _title(data)))
    out.print(
        f"The three curves: {folder / 'curves.png'}    all numbers: {folder / 'metrics.json'}",
        markup=False,
        soft_wrap=True,
    )


def _fashion_mnist_or_stand_in(data_dir, limit):
    from gluon_bn.data import DatasetNotFound, data_folder, dataset

    try:
        return dataset(data_dir, limit=limit)
    except DatasetNotFound:
        out.print(
            Panel(
                f"Fashion-MNIST is not in {escape(str(data_folder(data_dir)))} and could not be "
                f"downloaded; `gluon-bn data fetch` says why and what helps.\n\n"
                f"[bold]The demo goes on with the STAND-IN[/bold]: ten classes of drawn garments. "
                f"Its numbers are not those of Fashion-MNIST.",
                title="No Fashion-MNIST: this run uses stand-in data",
                style="yellow",
            )
        )
        return dataset(stand_in=True, limit=limit)


def _title(data):
    from gluon_bn.plotting import describe_dataset

    return f"LeNet on {describe_dataset(data.summary())}"


def _table(runs, labels, title):
    table = Table(title=title)
    table.add_column("", no_wrap=True)
    for heading in ("training loss", "accuracy", "test accuracy", "s/epoch", "images/s"):
        table.add_column(heading, justify="right")
    for run, label in zip(runs, labels):
        last, count = run["epochs"][-1], len(run["epochs"])
        seconds = sum(record["seconds"] for record in run["epochs"]) / count
        table.add_row(
            label,
            f"{last['train_loss']:.4f}",
            f"{last['train_accuracy']:.4f}",
            f"{last['test_accuracy']:.4f}",
            f"{seconds:.1f}",
            f"{run['dataset']['train'] / seconds:,.0f}",
        )
    return table


# gluon-bn compare ---------------------------------------------------------------------------------

SHOWN_STEPS = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000}


@app.command()
@_reports_errors
def compare(
    model: str = ModelArgument,
    norm: str = NormOption,
    steps: int = typer.Option(100, min=1, help="Training steps."),
    batch_size: int = BatchSizeOption,
    lr: float = typer.Option(0.1, "--lr", callback=_check_lr, help="The learning rate of SGD."),
    seed: int = SeedOption,
    data_dir: Optional[Path] = DataDirOption,
    limit: Optional[int] = LimitOption,
    output: Optional[Path] = OutputOption,
    stand_in: bool = StandInOption,
    threads: Optional[int] = ThreadsOption,
):
    """Train a network with our layer and with Gluon's: the differences, step by step."""
    from gluon_bn import runtime
    from gluon_bn.comparison import compare_with_gluon
    from gluon_bn.data import dataset
    from gluon_bn.models.layers import KERNELS
    from gluon_bn.plotting import plot_comparison
    from gluon_bn.training import write_figure, write_json

    if norm not in KERNELS:
        raise typer.BadParameter(
            f"{norm} is not our batch norm; choose {', '.join(KERNELS)}.", param_hint="--norm"
        )
    folder = output or Path("runs") / f"compare-{model}"
    folder.mkdir(parents=True, exist_ok=True)
    runtime.configure(threads)
    with _limit_is_an_option():
        data = dataset(data_dir, stand_in=stand_in, limit=limit)
    _announce(model, [norm, "gluon"], data)
    train_iter, _ = data.batches(batch_size, seed=seed)
    with _progress_bar("compare", steps) as bar:
        records = compare_with_gluon(
            model,
            train_iter,
            steps,
            lr,
            norm=norm,
            seed=seed,
            on_step=lambda record: bar.update(),
        )
    result = {
        "model": model,
        "norm": norm,
        "seed": seed,
        "lr": lr,
        "batch_size": batch_size,
        "dataset": data.summary(),
        "steps": records,
        "versions": runtime.versions(),
        "machine": runtime.describe(),
    }
    write_json(folder / "compare.json", result)
    write_figure(folder / "compare.png", plot_comparison(result))
    out.print(_comparison_table(result))
    out.print(
        f"The picture: {folder / 'compare.png'}    all steps: {folder / 'compare.json'}",
        markup=False,
        soft_wrap=True,
    )


def _comparison_table(result):
    from gluon_bn.plotting import describe_dataset

    table = Table(
        title=f"{result['model']}, ours ({result['norm']}) against Gluon's layer, "
        f"{describe_dataset(result['dataset'])}",
        caption="Largest absolute differences when both take the step from our weights; drift: of "
        "the outputs, when each has gone its own way since step 1.",
    )
    for heading in ("step", "loss", "Gluon's", "outputs", "gradients", "statistics", "drift"):
        table.add_column(heading, justify="right", no_wrap=True)

    def differences(choose):
        return [
            f"{choose(name):.1e}"
            for name in (
                ("one_step", "outputs"),
                ("one_step", "gradients"),
                ("one_step", "running_statistics"),
                ("drift", "outputs"),
            )
        ]

    records = result["steps"]
    for record in (r for r in records if r["step"] in SHOWN_STEPS or r is records[-1]):
        table.add_row(
            str(record["step"]),
            *(f"{loss:.4f}" for loss in record["loss"].values()),
            *differences(lambda name, record=record: record[name[0]][name[1]]),
        )
    table.add_section()
    table.add_row(
        "largest", "", "", *differences(lambda name: max(r[name[0]][name[1]] for r in records))
    )
    return table


# gluon-bn bench -----------------------------------------------------------------------------------


@app.command()
@_reports_errors
def bench(
    output: Path = typer.Option(
        Path("bench"), file_okay=False, help="Where bench.json and bench.png go."
    ),
    only: Optional[list[str]] = typer.Option(
        None,
        help=("One part, may be repeated: layer, network, growth, first_call, accuracy, memory."),
    ),
    threads: Optional[list[int]] = typer.Option(
        None,
        min=1,
        help=("A number of threads, may be repeated. Default: 1 and 2, as far as there are cores."),
    ),
    quick: bool = typer.Option(False, "--quick", help="Few repeats: a look, not a measurement."),
):
    """Measure the layers and the networks, side by side in one run: tables, a picture, JSON."""
    from gluon_bn import bench as contests
    from gluon_bn import runtime

    parts = tuple(only or contests.PARTS)
    for part in parts:
        if part not in contests.PARTS:
            raise typer.BadParameter(
                f"{part!r} is unknown; choose from {', '.join(contests.PARTS)}.",
                param_hint="--only",
            )
    counts = tuple(threads or (n for n in (1, 2) if n <= runtime.cores()))
    result = contests.run(
        parts, counts, quick, say=lambda line: out.print(line, markup=False, soft_wrap=True)
    )
    for path in contests.write(result, output):
        out.print(f"written: {path}", markup=False, soft_wrap=True)


# gluon-bn data ------------------------------------------------------------------------------------


@data_app.command("info")
@_reports_errors
def data_info_command(data_dir: Optional[Path] = DataDirOption):
    """Say which files are there and whether they are right; downloads nothing."""
    from gluon_bn.data import data_info

    info = data_info(data_dir)
    out.print(f"Fashion-MNIST in {info['folder']}", markup=False, soft_wrap=True)
    for name, state in info["files"].items():
        out.print(f"  {name:28} {state}", markup=False, soft_wrap=True)


@data_app.command("fetch")
@_reports_errors
def data_fetch_command(data_dir: Optional[Path] = DataDirOption):
    """Download the files that are not there yet, and check all of them."""
    from gluon_bn.data import fetch

    out.print(f"Fashion-MNIST is complete in {fetch(data_dir)}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
