"""gluon-bn demo: LeNet without batch norm, with ours and with Gluon's."""

from pathlib import Path
from typing import Optional

from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from gluon_bn.cli import options as o
from gluon_bn.cli.reporting import out, reports_errors, say
from gluon_bn.cli.runs import announce, train_network, usage_errors_of

DEMO = (("none", "without batch norm"), ("auto", "ours, from scratch"), ("gluon", "Gluon's layer"))


@reports_errors
def demo(
    epochs: int = o.EpochsOption(6),
    batch_size: int = o.BatchSizeOption,
    lr: float = o.LrOption(o.RATES["lenet"]),
    seed: int = o.SeedOption,
    data_dir: Optional[Path] = o.DataDirOption,
    limit: Optional[int] = o.LimitOption,
    output: Optional[Path] = o.OutputOption,
    threads: Optional[int] = o.ThreadsOption,
):
    """Train LeNet without batch norm, with ours and with Gluon's; leaves a table and a picture."""
    from gluon_bn import runtime
    from gluon_bn.plotting import plot_runs
    from gluon_bn.training import write_figure, write_json

    folder = output or Path("demo")
    folder.mkdir(parents=True, exist_ok=True)
    runtime.configure(threads)
    with usage_errors_of("--limit"):
        data = _fashion_mnist_or_stand_in(data_dir, limit)
    announce("lenet", [norm for norm, _ in DEMO], data)
    runs = [
        train_network("lenet", norm, data, epochs, batch_size, lr, seed, label=label)[0]
        for norm, label in DEMO
    ]
    labels = [label for _, label in DEMO]
    write_json(folder / "metrics.json", {"dataset": data.summary(), "runs": runs})
    write_figure(folder / "curves.png", plot_runs(runs, labels, _title(data)))
    out.print(_table(runs, labels, _title(data)))
    say(f"The three curves: {folder / 'curves.png'}    all numbers: {folder / 'metrics.json'}")


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
