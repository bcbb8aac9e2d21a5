"""The figures that the command line and several chapters draw, and the one style of all figures.

Curves differ in colour, in dashes and in markers, so they can be told apart by colour-blind readers
and on a black-and-white print. The functions return a `matplotlib.figure.Figure` and leave
pyplot, its current figure and its back-end alone; a notebook shows the figure as the value of a
cell, and `figure.savefig(path)` writes it. matplotlib is imported when the first figure is drawn.

The style is in `style.py`; each kind of picture has a module of its own. What only one chapter
draws is in `gluon_bn.figures`.
"""

from gluon_bn.plotting.comparison import plot_comparison
from gluon_bn.plotting.contests import CONTESTANTS, plot_bench
from gluon_bn.plotting.curves import plot_curves, plot_losses, plot_moving_averages, plot_sweep
from gluon_bn.plotting.images import plot_images
from gluon_bn.plotting.reports import plot_depth, plot_report, plot_statistics
from gluon_bn.plotting.runs import (
    describe_dataset,
    plot_recalibration,
    plot_run,
    plot_runs,
    plot_seeds,
)
from gluon_bn.plotting.style import SETTINGS, STYLES, panels

__all__ = [
    "CONTESTANTS",
    "SETTINGS",
    "STYLES",
    "describe_dataset",
    "panels",
    "plot_bench",
    "plot_comparison",
    "plot_curves",
    "plot_depth",
    "plot_images",
    "plot_losses",
    "plot_moving_averages",
    "plot_recalibration",
    "plot_report",
    "plot_run",
    "plot_runs",
    "plot_seeds",
    "plot_statistics",
    "plot_sweep",
]
