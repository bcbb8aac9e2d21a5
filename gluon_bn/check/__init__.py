"""Exercises that check themselves: a student's code in, what works and what kind of mistake out.

::

    from gluon_bn import check
    check.batch_norm(my_batch_norm)

    not yet  Y in training
             The variance is divided by m - 1 = 39. Batch norm divides by m = 40: ...
             For X = [[[[0]]], [[[2]]]], gamma = [1], beta = [0], eps = 0.25
             expected Y = [[[[-0.894427]]], [[[0.894427]]]]
             got      Y = ...

Each takes functions (and Blocks) written with `mx.nd` or `mx.np`, and returns a `Report`, true when
all is right. How a mistake is recognized: an exercise has one right solution, as text, and a table
of mistakes, each a line of that text written differently. Right and wrong solutions are run as the
student's is; what the student's code gives is compared with each, and with pairs of them. So a
mistake that is named is evidence, and one that is not known is shown as a plain difference, on the
smallest input that has it. No state of MXNet's, NumPy's or autograd's is left changed. How to add a
mistake: docs/checking.md.
"""

from gluon_bn.check.engine import Mistake
from gluon_bn.check.exercises import (
    batch_norm,
    batch_norm_backward,
    group_norm,
    layer_norm,
    moments,
    normalize,
    recalibrate,
)
from gluon_bn.check.of_layers import block, conditional
from gluon_bn.check.report import Report

__all__ = [
    "Mistake",
    "Report",
    "batch_norm",
    "batch_norm_backward",
    "block",
    "conditional",
    "group_norm",
    "layer_norm",
    "moments",
    "normalize",
    "recalibrate",
]
