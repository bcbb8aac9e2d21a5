"""DenseNet as *Dive into Deep Learning* builds it (Huang et al., 2017, "Densely Connected
Convolutional Networks").
"""

from __future__ import annotations

from mxnet.gluon import nn
from mxnet.util import is_np_array

from gluon_bn.arguments import check_count
from gluon_bn.models.layers import Network, Norm, make_norm
from gluon_bn.models.resnet import stem

# The dense blocks: how many convolutions, and how many channels each adds.
LARGE = ((4, 32), (4, 32), (4, 32), (4, 32))
SMALL = ((1, 16), (3, 48), (4, 64))


def densenet(norm: Norm = "auto", *, num_classes: int = 10, small: bool = False) -> Network:
    """DenseNet for images (N, C, 28, 28) and larger; the output (N, num_classes) holds scores.

    ::

                                                            28x28              96x96
        convolution 7x7, 64, stride 2 -> norm -> relu       (N, 64, 14, 14)    (N, 64, 48, 48)
        max pooling 3x3, stride 2                           (N, 64, 7, 7)      (N, 64, 24, 24)
        4 convolutions, each adds 32 channels               (N, 192, 7, 7)     (N, 192, 24, 24)
        transition: half the channels, half the size        (N, 96, 4, 4)      (N, 96, 12, 12)
        4 convolutions                                      (N, 224, 4, 4)     (N, 224, 12, 12)
        transition                                          (N, 112, 2, 2)     (N, 112, 6, 6)
        4 convolutions                                      (N, 240, 2, 2)     (N, 240, 6, 6)
        transition                                          (N, 120, 1, 1)     (N, 120, 3, 3)
        4 convolutions -> norm -> relu                      (N, 248, 1, 1)     (N, 248, 3, 3)
        average over height and width, dense, num_classes   (N, num_classes)

    758,226 weights for one input channel and ten classes (gamma and beta among them, running
    statistics not). It is the network of the book's Gluon edition (d2l-zh 1, the package d2lzh),
    section "DenseNet"; the English editions for MXNet have the same. The book trains it at 96x96;
    its pooling drops the last row of an odd number and could not halve 7x7 three times. Ours keeps
    it (7, 4, 2, 1), which changes nothing where the numbers are even.

    Parameters
    ----------
    norm : str or function, which layer normalizes; see `make_norm`
    num_classes : int
    small : bool; True is for small images and a CPU
        The stem is a convolution 3x3 to 16 channels with stride 1 and no pooling. Three dense
        blocks see 28x28, 14x14 and 7x7 pixels: 1 convolution adds 16 channels, 3 add 48 each, 4 add
        64 each. That makes 511,018 weights. All these numbers of channels, and their halves, are
        multiples of 16, for oneDNN computes sixteen at a time.

    Returns
    -------
    HybridSequential, not yet initialized

    Raises
    ------
    TypeError, ValueError : the norm is unknown, or num_classes is no count

    Examples
    --------
    >>> net = models.densenet(small=True)
    >>> net.initialize()
    >>> net(nd.ones((2, 1, 28, 28))).shape
    (2, 10)
    """
    new_norm = make_norm(norm)
    check_count("num_classes", num_classes, least=1)
    channels, blocks = (16, SMALL) if small else (64, LARGE)
    net = Network()
    with net.name_scope():
        net.add(*stem(new_norm, channels, small))
        for i, (convolutions, growth) in enumerate(blocks):
            if i > 0:
                net.add(transition(new_norm, channels, channels // 2))
                channels //= 2
            net.add(DenseBlock(new_norm, channels, growth, convolutions))
            channels += convolutions * growth
        net.add(
            new_norm(channels, 4),
            nn.Activation("relu"),
            nn.GlobalAvgPool2D(),
            nn.Dense(num_classes),
        )
    return net


def transition(new_norm, in_channels, channels):
    """norm -> relu -> convolution 1x1 -> average pooling 2x2, between two dense blocks.

    Input: (N, in_channels, H, W). Output: (N, channels, H / 2, W / 2), rounded up.
    """
    block = nn.HybridSequential()
    # count_include_pad=False changes no output; without it MXNet 1.9.1 divides the gradient of the
    # last row of an odd number by 4 where the output was divided by 2.
    pooling = nn.AvgPool2D(pool_size=2, strides=2, ceil_mode=True, count_include_pad=False)
    with block.name_scope():
        block.add(
            new_norm(in_channels, 4),
            nn.Activation("relu"),
            nn.Conv2D(channels, kernel_size=1),
            pooling,
        )
    return block


class DenseBlock(nn.HybridBlock):
    """Convolutions that each see the input and the results of all before them.

    Each is norm -> relu -> convolution 3x3 to `growth` channels, which are appended to its input.

    Input: (N, in_channels, H, W). Output: (N, in_channels + convolutions * growth, H, W).
    """

    def __init__(self, new_norm, in_channels, growth, convolutions, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.layers = nn.HybridSequential()
            with self.layers.name_scope():
                for i in range(convolutions):
                    self.layers.add(
                        _norm_relu_convolution(new_norm, in_channels + i * growth, growth)
                    )

    def hybrid_forward(self, F, X):
        for layer in self.layers:
            X = _append_channels(F, X, layer(X))
        return X


def _norm_relu_convolution(new_norm, in_channels, channels):
    block = nn.HybridSequential()
    with block.name_scope():
        block.add(
            new_norm(in_channels, 4),
            nn.Activation("relu"),
            nn.Conv2D(channels, kernel_size=3, padding=1),
        )
    return block


def _append_channels(F, X, Y):
    return F.np.concatenate((X, Y), axis=1) if is_np_array() else F.concat(X, Y, dim=1)
