"""LeNet with normalization, as *Dive into Deep Learning* builds it in its batch norm chapter."""

from __future__ import annotations

from mxnet.gluon import nn

from gluon_bn.models.layers import Network, Norm, make_norm


def lenet(
    norm: Norm = "auto",
    *,
    num_classes: int = 10,
    activation: str = "sigmoid",
    pooling: str = "max",
) -> Network:
    """LeNet of 1998 with normalization between each layer of weights and its activation.

    For images (N, 1, 28, 28); the output (N, num_classes) holds scores, not probabilities::

        convolution 5x5, 6 channels    -> norm -> sigmoid -> pooling 2x2    (N, 6, 12, 12)
        convolution 5x5, 16 channels   -> norm -> sigmoid -> pooling 2x2    (N, 16, 4, 4)
        dense, 120                     -> norm -> sigmoid                   (N, 120)
        dense, 84                      -> norm -> sigmoid                   (N, 84)
        dense, num_classes                                                  (N, num_classes)

    This is the network of the book's Gluon edition (d2l-zh 1, the package d2lzh), section
    "Batch normalization", which pools by maxima; the English editions for MXNet since 2022 have the
    same network with `pooling='avg'`. Neither pads its convolutions.

    Parameters
    ----------
    norm : str or function, which layer normalizes; see `make_norm`
    num_classes : int
    activation : 'sigmoid', 'relu', 'tanh', 'softrelu' or 'softsign'
    pooling : 'max' or 'avg'

    Returns
    -------
    HybridSequential, not yet initialized

    Raises
    ------
    ValueError : the norm, activation or pooling is unknown

    Examples
    --------
    >>> net = models.lenet("layer")
    >>> net.initialize()
    >>> net(nd.ones((2, 1, 28, 28))).shape
    (2, 10)
    """
    new_norm = make_norm(norm)
    new_pooling = {"max": nn.MaxPool2D, "avg": nn.AvgPool2D}.get(pooling)
    if new_pooling is None:
        raise ValueError(f"pooling must be 'max' or 'avg', not {pooling!r}")
    if activation not in ("sigmoid", "relu", "tanh", "softrelu", "softsign"):
        raise ValueError(
            f"activation must be 'sigmoid', 'relu', 'tanh', 'softrelu' or 'softsign', "
            f"not {activation!r}"
        )
    net = Network()
    with net.name_scope():
        for channels in (6, 16):
            net.add(
                nn.Conv2D(channels, kernel_size=5),
                new_norm(channels, 4),
                nn.Activation(activation),
                new_pooling(pool_size=2, strides=2),
            )
        for units in (120, 84):
            net.add(nn.Dense(units), new_norm(units, 2), nn.Activation(activation))
        net.add(nn.Dense(num_classes))
    return net
