"""What the command line says, and what it makes of errors."""

import functools
import os
import sys

import typer
from rich.console import Console

from gluon_bn import NO_MXNET
from gluon_bn.workers import world

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def say(text, to=out):
    """Print plain text, in lines as long as they are."""
    to.print(text, markup=False, soft_wrap=True)


def reports_errors(command):
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
            say("Stopped. " + "".join(str(a) for a in stop.args), err)
            raise typer.Exit(130) from None
        except Exception as error:
            if os.environ.get("GLUON_BN_DEBUG"):
                raise
            sentence = f"Error: {_sentence(error)}"
            if world().rank > 0:
                err.file = sys.__stderr__  # `main` closed the other one
            world().fail(lambda: say(sentence, err))
            raise typer.Exit(1) from None

    return wrapper


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
