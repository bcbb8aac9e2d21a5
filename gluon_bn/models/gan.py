"""A generator that draws a garment of the class it is asked for, and the critic it learns from.

    G, D = generator(), discriminator()
    images = G(z, labels)          # z (N, 64), labels (N,) -> (N, 1, 28, 28) in [0, 1]
    scores = D(images, labels)     # (N,), above 0 where D takes an image of that class for real

A generative adversarial network (Goodfellow et al., 2014). The generator is told its class by the
rows of gamma and beta in `ConditionalBatchNorm` and by nothing else; the discriminator by the
projection of Miyato and Koyama (2018), with spectral normalization of its weights (Miyato et al.,
2018). Chapter 8 explains and uses them; `benchmarks/gan.py` trains them.
"""

from __future__ import annotations

from mxnet import nd
from mxnet.gluon import nn

from gluon_bn.arguments import check_count, check_labels, either_kind
from gluon_bn.conditional import ConditionalBatchNorm
from gluon_bn.models.layers import Norm, make_norm
from gluon_bn.weight_norms import SpectralNorm

one_hot = either_kind(nd.one_hot)


def generator(
    norm: Norm = "conditional",
    *,
    num_classes: int = 10,
    latent: int = 64,
    width: int = 64,
    label_input: bool = False,
) -> Generator:
    """The generator: noise z (N, latent) and labels (N,) to images (N, 1, 28, 28) in [0, 1].

    ::

        dense                                   (N, width, 7, 7)        -> norm -> relu
        transposed convolution 4x4, stride 2    (N, 3/4 width, 14, 14)  -> norm -> relu
        transposed convolution 4x4, stride 2    (N, 3/8 width, 28, 28)  -> norm -> relu
        convolution 3x3                         (N, 1, 28, 28)          -> sigmoid

    Parameters
    ----------
    norm : 'conditional' is `ConditionalBatchNorm`, which is given the labels
        Any other is as for the other models ('auto', 'pixel', ...) and sees no label.
    num_classes, latent, width : int
    label_input : bool; True appends the label, as num_classes zeros with a one, to z
        Mirza and Osindero, 2014: the other way to tell a generator its class.

    Returns
    -------
    Block, called with z and labels

    Raises
    ------
    TypeError, ValueError : the norm is unknown, or a number is below 1

    Examples
    --------
    >>> G = models.generator(width=8)
    >>> G.initialize()
    >>> G(nd.random.normal(shape=(2, 64)), nd.array([3, 7])).shape
    (2, 1, 28, 28)
    """
    for name, value in (("num_classes", num_classes), ("latent", latent), ("width", width)):
        check_count(name, value, least=1)
    return Generator(norm, num_classes, latent, width, label_input)


class Generator(nn.Block):
    """What `generator` returns. Input: z (N, latent), labels (N,). Output: (N, 1, 28, 28)."""

    def __init__(self, norm, num_classes, latent, width, label_input):
        super().__init__()
        self.latent, self.num_classes = latent, num_classes
        self.conditional, self.label_input = norm == "conditional", label_input
        channels = (width, width * 3 // 4, width * 3 // 8)
        new_norm = None if self.conditional else make_norm(norm)
        with self.name_scope():
            self.dense = nn.Dense(channels[0] * 7 * 7)
            self.convolutions, self.norms = nn.Sequential(), nn.Sequential()
            for c in channels:
                self.norms.add(
                    ConditionalBatchNorm(c, num_classes, 4) if self.conditional else new_norm(c, 4)
                )
            for c in channels[1:]:
                self.convolutions.add(nn.Conv2DTranspose(c, kernel_size=4, strides=2, padding=1))
            self.convolutions.add(nn.Conv2D(1, kernel_size=3, padding=1))
            self.relu = nn.Activation("relu")

    def forward(self, z, labels):
        check_labels(labels, z, self.num_classes)
        if self.label_input:
            z = either_kind(nd.concat)(z, one_hot(labels, self.num_classes), dim=1)
        X = self.dense(z).reshape((len(z), -1, 7, 7))
        for norm, convolution in zip(self.norms, self.convolutions):
            X = norm(X, labels) if self.conditional else norm(X)
            X = convolution(self.relu(X))
        return either_kind(nd.sigmoid)(X)


def discriminator(*, num_classes: int = 10, width: int = 32) -> Discriminator:
    """The discriminator: images (N, 1, 28, 28) and labels (N,) to scores (N,).

    ::

        convolution 4x4, stride 2    (N, width, 14, 14)     -> leaky relu
        convolution 4x4, stride 2    (N, 2 width, 7, 7)     -> leaky relu
        convolution 3x3              (N, 3 width, 7, 7)     -> leaky relu -> sum over 7x7: phi
        score = w . phi + v[label] . phi + b

    All its weights are spectrally normalized. The row v[label] asks whether the features are those
    of the class (Miyato and Koyama, 2018).

    Parameters
    ----------
    num_classes, width : int

    Returns
    -------
    Block, called with images and labels

    Raises
    ------
    TypeError, ValueError : a number is below 1

    Examples
    --------
    >>> D = models.discriminator(width=4)
    >>> D.initialize()
    >>> D(nd.ones((2, 1, 28, 28)), nd.array([3, 7])).shape
    (2,)
    """
    for name, value in (("num_classes", num_classes), ("width", width)):
        check_count(name, value, least=1)
    return Discriminator(num_classes, width)


class Discriminator(nn.Block):
    """What `discriminator` returns. Input: X (N, 1, 28, 28), labels (N,). Output: scores (N,)."""

    def __init__(self, num_classes, width):
        super().__init__()
        self.num_classes = num_classes
        with self.name_scope():
            self.features = nn.Sequential()
            for convolution in (
                nn.Conv2D(width, 4, strides=2, padding=1, in_channels=1),
                nn.Conv2D(2 * width, 4, strides=2, padding=1, in_channels=width),
                nn.Conv2D(3 * width, 3, padding=1, in_channels=2 * width),
            ):
                self.features.add(SpectralNorm(convolution), nn.LeakyReLU(0.1))
            self.real = SpectralNorm(nn.Dense(1, in_units=3 * width))
            self.of_class = SpectralNorm(nn.Dense(3 * width, use_bias=False, in_units=num_classes))

    def forward(self, X, labels):
        check_labels(labels, X, self.num_classes)
        phi = self.features(X).sum(axis=(2, 3))
        rows = self.of_class(one_hot(labels, self.num_classes))
        return self.real(phi).reshape(-1) + (rows * phi).sum(axis=1)
