"""gluon-bn compare: a network with our layer and with Gluon's, step by step."""

from pathlib import Path
from typing import Optional

import typer
from rich.table import Table

from gluon_bn.cli import options as o
from gluon_bn.cli.reporting import out, reports_errors, say
from gluon_bn.cli.runs import announce, progress_bar, usage_errors_of

SHOWN_STEPS = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000}


@reports_errors
def compare(
    model: str = o.ModelArgument,
    norm: str = o.NormOption,
    steps: int = typer.Option(100, min=1, help="Training steps."),
    batch_size: int = o.BatchSizeOption,
    lr: float = o.LrOption(0.1, help="The learning rate of SGD."),
    seed: int = o.SeedOption,
    data_dir: Optional[Path] = o.DataDirOption,
    limit: Optional[int] = o.LimitOption,
    output: Optional[Path] = o.OutputOption,
    stand_in: bool = o.StandInOption,
    threads: Optional[int] = o.ThreadsOption,
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
    with usage_errors_of("--limit"):
        data = dataset(data_dir, stand_in=stand_in, limit=limit)
    announce(model, [norm, "gluon"], data)
    train_iter, _ = data.batches(batch_size, seed=seed)
    with progress_bar("compare", steps) as bar:
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
    say(f"The picture: {folder / 'compare.png'}    all steps: {folder / 'compare.json'}")


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
