"""gluon-bn train"""

import inspect
import sys
from pathlib import Path
from typing import Optional

import typer

from gluon_bn.cli import options as o
from gluon_bn.cli.reporting import reports_errors, say
from gluon_bn.cli.runs import announce, parameters_writer, train_network, usage_errors_of
from gluon_bn.workers import world


@reports_errors
def train(
    model: str = o.ModelArgument,
    norm: str = o.NormOption,
    epochs: int = o.EpochsOption(10),
    batch_size: int = o.BatchSizeOption,
    lr: Optional[float] = o.LrOption(None, show_default=o.RATES_BY_MODEL),
    optimizer: str = o.OptimizerOption,
    momentum: Optional[float] = o.MomentumOption,
    weight_decay: float = o.WeightDecayOption,
    schedule: str = o.ScheduleOption,
    clip: Optional[float] = o.ClipOption,
    label_smoothing: float = o.LabelSmoothingOption,
    augment: str = o.AugmentOption,
    resize: Optional[int] = o.ResizeOption,
    seed: int = o.SeedOption,
    data_dir: Optional[Path] = o.DataDirOption,
    limit: Optional[int] = o.LimitOption,
    held_out: Optional[int] = o.HeldOutOption,
    output: Optional[Path] = o.OutputOption,
    resume: bool = o.ResumeOption,
    stand_in: bool = o.StandInOption,
    small: bool = o.SmallOption,
    average: str = o.AverageOption,
    average_start: Optional[int] = o.AverageStartOption,
    average_decay: float = o.AverageDecayOption,
    hybridize: bool = o.HybridizeOption,
    threads: Optional[int] = o.ThreadsOption,
    workers: Optional[int] = o.WorkersOption,
    statistics: str = o.StatisticsOption,
):
    """Train a network; leaves metrics.json and .csv, curves.png, model.params, a checkpoint."""
    here = _start(locals())
    from gluon_bn import runtime
    from gluon_bn.checkpoint import write_atomically
    from gluon_bn.data import dataset
    from gluon_bn.plotting import plot_run
    from gluon_bn.training import write_figure

    _check_small(model, small)
    lr = o.RATES[model] if lr is None else lr
    averaged = _averaged_weights(average, average_start, average_decay, epochs)
    folder = output or Path("runs") / f"{model}{'-small' * small}-{norm}"
    checkpoint = folder / "checkpoint"
    if here.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
    runtime.configure(threads or here.threads())
    with usage_errors_of("--limit"), here.first_alone():  # it may have to download
        data = dataset(data_dir, stand_in=stand_in, limit=limit)
    if held_out is not None:
        with usage_errors_of("--held-out"):
            data = data.hold_out(held_out)
    announce(f"{model}{', the small variant' * small}", [norm], data)
    if resume and not checkpoint.exists():
        say(f"There is no checkpoint in {folder} yet: starting from the beginning.")
    try:
        metrics, net = train_network(
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
            workers=here,
            statistics=statistics,
        )
    except KeyboardInterrupt:
        if checkpoint.exists():
            raise KeyboardInterrupt(
                f"The run so far is kept in {checkpoint}; the same command "
                f"with --resume goes on from there."
            ) from None
        raise
    if here.rank == 0:
        write_atomically(folder / "model.params", parameters_writer(net))
        write_figure(folder / "curves.png", plot_run(metrics))
    here.wait()
    last = metrics["epochs"][-1]
    say(
        f"{model}, norm={norm}, {data.name}: test accuracy {last['test_accuracy']:.4f}, "
        f"training loss {last['train_loss']:.4f} after epoch {last['epoch']}, "
        f"{last['examples_per_second']:,.0f} images/s. {_tell_average(metrics)}Results in {folder}"
    )


def _start(options):
    """The `World` of this run, once all workers are there and were given the same options."""
    from gluon_bn.workers import launch

    launch.start(options["workers"], sys.argv[1:])
    world().compare(**{name: str(value) for name, value in options.items()})
    return world()


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
