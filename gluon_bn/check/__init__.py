"""Exercises that check themselves: a student's code in, what works and what kind of mistake out.

    from gluon_bn import check
    check.batch_norm(my_batch_norm)

    not yet  Y in training
             The variance is divided by m - 1 = 39. Batch norm divides by m = 40: ...
             For X = [[[[0]]], [[[2]]]], gamma = [1], beta = [0], eps = 0.25
             expected Y = [[[[-0.894427]]], [[[0.894427]]]]
             got      Y = ...

`moments(f)`, `normalize(f)`, `batch_norm(f)`, `batch_norm_backward(f)`, `block(MyBlock)` and
`conditional(f)` take functions (and Blocks) written with `mx.nd` or `mx.np`, and return a `Report`,
true when all is right. How a mistake is recognized: `suspects` holds the right answer and more than
a hundred deliberate mistakes in NumPy; what the student's code gives is compared with each, and
with pairs of them. So a mistake that is named is evidence, and one that is not known is shown as a
plain difference, on the smallest input that has it. Nothing of MXNet's or NumPy's state is changed.
"""

from gluon_bn.check._backward import batch_norm_backward
from gluon_bn.check._batch_norm import batch_norm
from gluon_bn.check._block import block
from gluon_bn.check._conditional import conditional
from gluon_bn.check._moments import moments
from gluon_bn.check._normalize import normalize
from gluon_bn.check.report import Report

__all__ = ["Report", "batch_norm", "batch_norm_backward", "block", "conditional", "moments",
           "normalize"]
