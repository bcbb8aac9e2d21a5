"""Every figure the lessons and the command line draw, in one style.

Curves differ in colour, in dashes and in markers, so they can be told apart by colour-blind readers
and on a black-and-white print. The functions return a `matplotlib.figure.Figure` and leave
pyplot, its current figure and its back-end alone; a notebook shows the figure as the value of a
cell, and `figure.savefig(path)` writes it. matplotlib is imported when the first figure is drawn.

The style is in `style.py`; each kind of picture has a module of its own.
"""

from gluon_bn.plotting.comparison import plot_comparison
from gluon_bn.plotting.contests import CONTESTANTS, plot_bench
from gluon_bn.plotting.depth import (
    plot_depth,
    plot_drift,
    plot_histograms,
    plot_landscape,
    plot_losses,
    plot_ravine,
    plot_report,
    plot_saturation,
    plot_sweep,
)
from gluon_bn.plotting.fast import (
    plot_amdahl,
    plot_bandwidth,
    plot_copies,
    plot_passes,
    plot_roofline,
)
from gluon_bn.plotting.graph import (
    plot_computation_graph,
    plot_curves,
    plot_layer,
    plot_projection,
)
from gluon_bn.plotting.images import plot_confusion, plot_images
from gluon_bn.plotting.layer import (
    plot_batch,
    plot_errors,
    plot_moving_averages,
    plot_normalization,
)
from gluon_bn.plotting.networks import (
    plot_dense_block,
    plot_feature_maps,
    plot_gamma_beta,
    plot_networks,
    plot_readers,
    plot_recalibration,
    plot_residual_blocks,
    plot_seeds,
    plot_statistics,
)
from gluon_bn.plotting.options import (
    plot_folding,
    plot_folding_speed,
    plot_gammas,
    plot_knobs,
    plot_padding,
    plot_swing,
)
from gluon_bn.plotting.relatives import plot_batch_sizes, plot_cubes, plot_noise
from gluon_bn.plotting.runs import describe_dataset, plot_run, plot_runs
from gluon_bn.plotting.style import SETTINGS, STYLES, panels

__all__ = [
    "CONTESTANTS",
    "SETTINGS",
    "STYLES",
    "describe_dataset",
    "panels",
    "plot_amdahl",
    "plot_bandwidth",
    "plot_batch",
    "plot_batch_sizes",
    "plot_bench",
    "plot_comparison",
    "plot_computation_graph",
    "plot_confusion",
    "plot_copies",
    "plot_cubes",
    "plot_curves",
    "plot_dense_block",
    "plot_depth",
    "plot_drift",
    "plot_errors",
    "plot_feature_maps",
    "plot_folding",
    "plot_folding_speed",
    "plot_gamma_beta",
    "plot_gammas",
    "plot_histograms",
    "plot_images",
    "plot_knobs",
    "plot_landscape",
    "plot_layer",
    "plot_losses",
    "plot_moving_averages",
    "plot_networks",
    "plot_noise",
    "plot_normalization",
    "plot_padding",
    "plot_passes",
    "plot_projection",
    "plot_ravine",
    "plot_readers",
    "plot_recalibration",
    "plot_report",
    "plot_residual_blocks",
    "plot_roofline",
    "plot_run",
    "plot_runs",
    "plot_saturation",
    "plot_seeds",
    "plot_statistics",
    "plot_sweep",
    "plot_swing",
]
