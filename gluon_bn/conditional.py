"""`ConditionalBatchNorm`: a gamma and a beta for each class, `BatchNorm` for the rest.

An example is normalized like any other of its batch, then scaled and shifted by the row of its
label.
"""

from __future__ import annotations

import numpy as np
from mxnet import nd
from mxnet.gluon import nn

from gluon_bn.affine import PerClass
from gluon_bn.arguments import Array, as_nd, check_count, check_labels
from gluon_bn.base import ArrayBlock
from gluon_bn.blocks import OPTIONS, BatchNorm


class ConditionalBatchNorm(BatchNorm):
    """Batch normalization with a gamma and a beta for each class (Dumoulin et al., 2017, "A Learned
    Representation for Artistic Style"; de Vries et al., 2017, equation (4)).

    The statistics are shared by the classes: an example is normalized by the whole batch and then
    scaled and shifted by the row of its label.

    Inputs: X (N, C, ...), and labels (N,), integers in [0, num_classes) of any integer or floating
    type. Output: like X.

    Parameters
    ----------
    num_features : int, the channels C
    num_classes : int, the number of labels; gamma and beta have shape (num_classes, C)
    num_dims : int, the rank of X, or None for any from 2 up
    per_class_statistics : bool; True also keeps running statistics per class, (num_classes, C)
        Each example is then normalized by the examples of its own label (domain-specific batch
        norm, Chang et al., 2019). A class that a batch does not contain keeps its statistics.
    **options : as for `BatchNorm`

    Raises
    ------
    TypeError, ValueError : for what it cannot take; a label out of range is named

    Examples
    --------
    >>> layer = gluon_bn.ConditionalBatchNorm(2, num_classes=10)
    >>> layer.initialize()
    >>> layer(nd.ones((3, 2, 4, 4)), nd.array([0, 9, 9])).shape, layer.gamma.shape
    ((3, 2, 4, 4), (10, 2))
    """

    _options = (*BatchNorm._options, "num_classes", "per_class_statistics")

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        num_dims: int | None = None,
        *,
        per_class_statistics: bool = False,
        **options,
    ) -> None:
        check_count("num_classes", num_classes, least=1)
        # A worker without an example of a class would leave the others waiting.
        self._synchronizes = not per_class_statistics
        # Before the parameters are made: their shape depends on it.
        self._state_rows = (num_classes,) if per_class_statistics else ()
        super().__init__(num_features, num_dims, affine=PerClass(num_classes), **options)
        self.num_classes, self.per_class_statistics = num_classes, per_class_statistics

    @classmethod
    def from_batch_norm(cls, layer, num_classes: int, **options) -> ConditionalBatchNorm:
        """Widen a trained `BatchNorm`, ours or Gluon's, into a layer that computes the same: every
        class starts with a copy of its gamma and beta.

        Parameters
        ----------
        layer : BatchNorm or gluon.nn.BatchNorm, with values
        num_classes : int
        **options : of the new layer, where it is to differ

        Returns
        -------
        ConditionalBatchNorm

        Raises
        ------
        TypeError, ValueError : the layer is another one, or has no values yet
        """
        if isinstance(layer, ConditionalBatchNorm) or not isinstance(
            layer, (BatchNorm, nn.BatchNorm)
        ):
            raise TypeError(
                f"a BatchNorm, ours or Gluon's, is expected, got {type(layer).__name__}"
            )
        nd.waitall()  # see `runtime.settle`
        try:
            places = layer.gamma.list_ctx()
            values = {
                n: {place: as_nd(p.data(place)) for place in places}
                for n, p in layer._reg_params.items()
            }
        except RuntimeError as error:
            raise ValueError(
                f"{layer!r} has no values to copy yet: initialize it, and give it a "
                "batch if its channels are not known"
            ) from error
        if isinstance(layer, BatchNorm):
            same = {name: getattr(layer, name) for name in OPTIONS}
            if layer._arguments() is None:  # an average of your own
                same["average"] = layer.average
        else:
            theirs = layer._kwargs
            same = {name: theirs[name] for name in ("axis", "momentum", "use_global_stats")}
            same.update(epsilon=theirs["eps"], scale=not theirs["fix_gamma"])
            # Gluon adds a beta that center=False fixed, so one that is not zero must stay.
            same["center"] = layer.beta.grad_req != "null" or any(
                b.asnumpy().any() for b in values["beta"].values()
            )
        wide = cls(layer.gamma.shape[0], num_classes, **{**same, **options})
        wide.initialize(ctx=places)
        wide.cast(layer.gamma.dtype)
        for name, parameter in wide._reg_params.items():
            for place in places:
                as_nd(parameter.data(place))[:] = values[name][place]  # a row becomes every row
        return wide

    def forward(self, X: Array, labels: Array) -> Array:  # type: ignore[override]
        return ArrayBlock.forward(self, X, labels)

    def check(self, X, labels):
        super().check(X)
        check_labels(labels, X, self.num_classes)

    def compute(self, X, labels, **parameters):
        if not self.per_class_statistics:
            return super().compute(X, None, labels, **parameters)
        # Class by class, each with its own statistics, and back into the order of the batch.
        numbers = labels.asnumpy()
        parts, order = [], np.argsort(numbers, kind="stable")
        for number in np.unique(numbers):
            here = nd.array(np.flatnonzero(numbers == number), ctx=X.context, dtype="int32")
            own = {
                n: v if n in ("gamma", "beta") else v[int(number)] for n, v in parameters.items()
            }
            parts.append(super().compute(nd.take(X, here), None, nd.take(labels, here), **own))
        back = nd.array(np.argsort(order), ctx=X.context, dtype="int32")
        return nd.take(nd.concat(*parts, dim=0), back)

    def __repr__(self):
        return super().__repr__().replace("(", f"(num_classes={self.num_classes}, ", 1)
