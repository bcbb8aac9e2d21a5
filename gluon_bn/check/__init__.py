"""Exercises that check themselves."""

from gluon_bn.check._backward import batch_norm_backward
from gluon_bn.check._batch_norm import batch_norm
from gluon_bn.check._moments import moments
from gluon_bn.check._normalize import normalize
from gluon_bn.check.report import Report

__all__ = ["Report", "batch_norm", "batch_norm_backward", "moments", "normalize"]
