"""After training: better statistics, fewer layers, another library's layer.

::

    recalibrate(net, train_iter)           # exact statistics instead of moving averages
    fast = optimize(net, X)                # the same prediction, folded and as one graph
    fold_batch_norm(net, X)                # the same prediction without any batch norm
    to_gluon(net).export('lenet')          # a symbol file that MXNet loads without this package

(`net.export` writes a file that needs this package, see docs/conventions.md.)

All of it takes networks with our `BatchNorm` and with `gluon.nn.BatchNorm`, hybridized or not.
`optimize`, `fold_batch_norm`, `to_gluon` and `from_gluon` return a copy; their argument stays as
it is.
"""

from gluon_bn.inference.conversion import from_gluon, to_gluon
from gluon_bn.inference.folding import ScaleShift, fold_batch_norm
from gluon_bn.inference.optimizing import optimize
from gluon_bn.inference.statistics import population_statistics, recalibrate

__all__ = [
    "ScaleShift",
    "fold_batch_norm",
    "from_gluon",
    "optimize",
    "population_statistics",
    "recalibrate",
    "to_gluon",
]
