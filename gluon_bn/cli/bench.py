"""gluon-bn bench"""

from pathlib import Path
from typing import Optional

import typer
from tqdm import tqdm

from gluon_bn.cli.reporting import reports_errors, say


@reports_errors
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
    with tqdm(total=contests.steps(parts, counts), unit="step", disable=None, leave=False) as bar:

        def told(line):
            with bar.external_write_mode():
                say(line)
            bar.update()

        result = contests.run(parts, counts, quick, say=told)
    for path in contests.write(result, output):
        say(f"written: {path}")
