"""ResNet-18 as *Dive into Deep Learning* builds it (He et al., 2016a, "Deep Residual Learning for
Image Recognition"), and with the order of layers of the second paper (He et al., 2016b, "Identity
Mappings in Deep Residual Networks").
"""

from __future__ import annotations

from mxnet.gluon import nn

from gluon_bn.arguments import check_count
from gluon_bn.models.layers import Network, Norm, make_norm


def resnet18(
    norm: Norm = "auto",
    *,
    num_classes: int = 10,
    preactivation: bool = False,
    small: bool = False,
) -> Network:
    """ResNet-18 for images (N, C, 28, 28) and larger; the output (N, num_classes) holds scores.

    ::

                                                            28x28              96x96
        convolution 7x7, 64, stride 2 -> norm -> relu       (N, 64, 14, 14)    (N, 64, 48, 48)
        max pooling 3x3, stride 2                           (N, 64, 7, 7)      (N, 64, 24, 24)
        2 residual blocks, 64 channels                      (N, 64, 7, 7)      (N, 64, 24, 24)
        2 residual blocks, 128, the first with stride 2     (N, 128, 4, 4)     (N, 128, 12, 12)
        2 residual blocks, 256, the first with stride 2     (N, 256, 2, 2)     (N, 256, 6, 6)
        2 residual blocks, 512, the first with stride 2     (N, 512, 1, 1)     (N, 512, 3, 3)
        average over height and width, dense, num_classes   (N, num_classes)

    11,178,378 weights for one input channel and ten classes (gamma and beta among them, running
    statistics not). It is the network of the book's Gluon edition (d2l-zh 1, the package d2lzh),
    section "ResNet"; the English editions for MXNet have the same. The book trains it at 96x96.

    Parameters
    ----------
    norm : str or function, which layer normalizes; see `make_norm`
    num_classes : int
    preactivation : bool; True puts norm and relu in front of each convolution of a residual block
        He et al., 2016b, figure 4e: nothing stands in the way of the sum. One more norm and relu
        stand behind the last block.
    small : bool; True is for small images and a CPU
        The stem is a convolution 3x3 with stride 1 and no pooling, the blocks have 16, 32, 64 and
        128 channels. The first blocks then see all 28x28 pixels instead of 7x7, with 701,930
        weights and about as many multiplications.

    Returns
    -------
    HybridSequential, not yet initialized

    Raises
    ------
    TypeError, ValueError : the norm is unknown, or num_classes is no count

    Examples
    --------
    >>> net = models.resnet18(small=True)
    >>> net.initialize()
    >>> net(nd.ones((2, 1, 28, 28))).shape
    (2, 10)
    """
    new_norm = make_norm(norm)
    check_count("num_classes", num_classes, least=1)
    widths = (16, 32, 64, 128) if small else (64, 128, 256, 512)
    net = Network()
    with net.name_scope():
        net.add(*stem(new_norm, widths[0], small))
        in_channels = widths[0]
        for channels in widths:
            stage = nn.HybridSequential()
            with stage.name_scope():
                for strides in (1 if channels == widths[0] else 2, 1):
                    stage.add(Residual(new_norm, in_channels, channels, strides, preactivation))
                    in_channels = channels
            net.add(stage)
        if preactivation:
            net.add(new_norm(in_channels, 4), nn.Activation("relu"))
        net.add(nn.GlobalAvgPool2D(), nn.Dense(num_classes))
    return net


def stem(new_norm, channels, small):
    """The first layers: 7x7 with stride 2 and pooling, or, if small, 3x3 at full resolution."""
    if small:
        convolution = nn.Conv2D(channels, kernel_size=3, padding=1)
        return [convolution, new_norm(channels, 4), nn.Activation("relu")]
    convolution = nn.Conv2D(channels, kernel_size=7, strides=2, padding=3)
    return [
        convolution,
        new_norm(channels, 4),
        nn.Activation("relu"),
        nn.MaxPool2D(pool_size=3, strides=2, padding=1),
    ]


class Residual(nn.HybridBlock):
    """Two convolutions 3x3 and a way past them.

        relu(norm2(conv2(relu(norm1(conv1(X))))) + X)       preactivation=False
        conv2(relu(norm2(conv1(relu(norm1(X)))))) + X       preactivation=True

    Where the number of channels or the resolution changes, a convolution 1x1, conv3, takes X to the
    new shape; in the second form it takes relu(norm1(X)).

    Input: (N, in_channels, H, W). Output: (N, channels, H / strides, W / strides), rounded up.
    """

    def __init__(self, new_norm, in_channels, channels, strides=1, preactivation=False, **kwargs):
        super().__init__(**kwargs)
        self.preactivation = preactivation
        with self.name_scope():
            self.conv1 = nn.Conv2D(channels, kernel_size=3, padding=1, strides=strides)
            self.conv2 = nn.Conv2D(channels, kernel_size=3, padding=1)
            changes = strides != 1 or in_channels != channels
            self.conv3 = nn.Conv2D(channels, kernel_size=1, strides=strides) if changes else None
            self.norm1 = new_norm(in_channels if preactivation else channels, 4)
            self.norm2 = new_norm(channels, 4)
            self.relu = nn.Activation("relu")

    def hybrid_forward(self, F, X):
        if self.preactivation:
            A = self.relu(self.norm1(X))
            Y = self.conv2(self.relu(self.norm2(self.conv1(A))))
            return Y + (self.conv3(A) if self.conv3 else X)
        Y = self.relu(self.norm1(self.conv1(X)))
        Y = self.norm2(self.conv2(Y))
        return self.relu(Y + (self.conv3(X) if self.conv3 else X))
