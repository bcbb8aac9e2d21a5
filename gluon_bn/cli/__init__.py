"""The command `gluon-bn`: train, demo, compare, bench, data.

Exit codes: 0 done, 1 it went wrong (a sentence on the error stream says what), 2 the command line
makes no sense, 130 stopped by Ctrl-C or SIGTERM. What computes is imported inside the commands, so
that mistakes are reported at once.
"""

import os
import signal
import sys
import threading
import warnings

import typer

from gluon_bn import __version__
from gluon_bn.cli.bench import bench
from gluon_bn.cli.compare import compare
from gluon_bn.cli.data import data_fetch_command, data_info_command
from gluon_bn.cli.demo import demo
from gluon_bn.cli.reporting import err, reports_errors, say
from gluon_bn.cli.train import train
from gluon_bn.workers import WorkersError, world

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Batch normalization, built from scratch in MXNet Gluon.",
)
data_app = typer.Typer(no_args_is_help=True, help="Look for Fashion-MNIST, or download it.")
app.add_typer(data_app, name="data")

for command in (train, demo, compare, bench):
    app.command()(command)
data_app.command("info")(data_info_command)
data_app.command("fetch")(data_fetch_command)


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
    sys.unraisablehook = _once_more
    for stream in (sys.stdout, sys.stderr):  # a letter that the terminal has not ends no run
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = lambda message, *where, **more: say(f"Note: {message}", err)
    _join_the_others()
    app(prog_name="gluon-bn")


def _once_more(lost):
    """Interrupt again where Python can only print an exception: inside callbacks, of which each
    import has one."""
    if lost.exc_type is KeyboardInterrupt:
        threading.Timer(0.1, signal.raise_signal, [signal.SIGINT]).start()
    else:
        sys.__unraisablehook__(lost)


def _join_the_others():
    """In a process that mpiexec or srun started. The first worker speaks for all; another one only
    where it alone fails."""
    try:
        here = world()
    except WorkersError as error:
        say(f"Error: {error}", err)
        sys.exit(1)
    if here.rank > 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")


@reports_errors
def _print_versions():
    from gluon_bn import kernels, runtime

    found = runtime.versions()
    say(
        f"gluon-bn {__version__}, Python {found['python']}, NumPy {found['numpy']}, "
        f"MXNet {found['mxnet']}; kernels: {', '.join(kernels.available())}"
    )
    for name in kernels.NAMES:
        if kernels.why_not(name):
            say(f"without {name}: {kernels.why_not(name)}")
    raise typer.Exit()
