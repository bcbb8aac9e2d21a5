"""The options that several commands share, and the checks of their values.

Options are declared once, here, and stand as defaults in the signatures of the commands.
"""

import functools
import importlib

import typer

from gluon_bn.cli.reporting import reports_errors


def _check_one_of(module, names):
    """A callback: is the value one of these names of a module of ours, loaded when it is needed?"""

    @reports_errors  # it imports MXNet, which Ctrl-C may interrupt
    def check(name):
        known = getattr(importlib.import_module(f"gluon_bn.{module}"), names)
        if name not in known:
            raise typer.BadParameter(f"{name!r} is unknown; choose one of {', '.join(known)}.")
        return name

    return check


@reports_errors
def _check_norm(name):
    from gluon_bn.models import make_norm

    try:
        make_norm(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return name


def check_lr(lr):
    if lr is not None and not 0 < lr < 3.4e38:  # the largest number of MXNet's float32
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
RATES = {"lenet": 1.0, "resnet18": 0.05, "densenet": 0.1}  # those of the book
RATES_BY_MODEL = ", ".join(f"{rate} for {model}" for model, rate in RATES.items())
LrOption = functools.partial(
    typer.Option, callback=check_lr, help="The learning rate, at its largest."
)
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
HeldOutOption = typer.Option(
    None,
    min=1,
    help=(
        "The last N training images take the place of the test images: for choosing a recipe "
        "without looking at the test set."
    ),
)
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
WorkersOption = typer.Option(
    None,
    min=1,
    help=(
        "Start so many processes that share each batch; --norm sync shares its statistics, too. "
        "Under mpiexec or srun leave it out."
    ),
)
StatisticsOption = typer.Option(
    "average",
    callback=_check_one_of("training.statistics", "WAYS"),
    metavar="NAME",
    help=(
        "What becomes of running statistics that differ between workers: average, recalibrate (on "
        "all training images, exactly) or own."
    ),
)
