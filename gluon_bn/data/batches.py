"""Images and labels of a data set, handed out in batches: `Batches`."""

import math
import os

import numpy as np

from ..augment import find as find_augmentation


class Batches:
    """Images and labels in batches `(X, y)`, as often as you like: `for X, y in batches`.

    X is float32 (N, 1, H, W) in [0, 1]. y is float32 (N,), so that under `mx.nd`, which compares
    only arrays of one type, `net(X).argmax(axis=1) == y` works; Gluon's losses, `pick`, `one_hot`
    and indexing take it as it is. Both are `mx.nd.NDArray`, or `mx.np.ndarray` where NumPy
    semantics are on (`npx.set_np()`). The last batch is smaller where the numbers ask for it.

    With `shuffle` each pass has its own order, which depends on `seed` and on the number of the
    pass and on nothing else. Passes count from 0, when they start. A run that resumes with pass k
    says `batches.set_epoch(k)`.

    Parameters
    ----------
    images : NumPy array uint8 (n, H, W)
    labels : NumPy array (n,)
    batch_size : int
    resize : None, int, or (height, width)
    shuffle : bool
    seed : int, or None, which takes a new seed from the operating system
    augment : str or function of `gluon_bn.augment`, which changes the images
        Its random numbers depend on `seed`, the pass and the batch.

    Raises
    ------
    TypeError, ValueError : an argument is not as above

    Examples
    --------
    >>> images, labels = np.zeros((5, 28, 28), np.uint8), np.arange(5)
    >>> [X.shape for X, y in data.Batches(images, labels, batch_size=3)]
    [(3, 1, 28, 28), (2, 1, 28, 28)]
    """

    def __init__(
        self, images, labels, batch_size, *, resize=None, shuffle=False, seed=0, augment=None
    ):
        import mxnet as mx

        from ..arguments import check_seed

        self.batch_size = whole_number("batch_size", batch_size)
        self.size = height_and_width(resize) or images.shape[1:]
        self.shuffle = shuffle
        self.seed = int.from_bytes(os.urandom(4), "big") if seed is None else check_seed(seed)
        self.epoch = 0
        self._augment = find_augmentation(augment)
        # All images in one array: a batch is then one `take`, and a pass costs 0.1 s where Gluon's
        # DataLoader, image by image, needs 4 s. As bytes they fill a quarter of the memory.
        # `augment` works on NumPy's.
        self._images = (
            images
            if self._augment is not None
            else mx.nd.array(images[..., np.newaxis], dtype="uint8")
        )  # (n, 28, 28, 1)
        self._labels = mx.nd.array(labels, dtype="float32")
        self._enlarge = tuple(self.size) != images.shape[1:]

    @property
    def examples(self):
        """The number of images."""
        return len(self._labels)

    def __len__(self):
        """The number of batches in a pass."""
        return math.ceil(self.examples / self.batch_size)

    def set_epoch(self, epoch):
        """Make the next pass the one with this number, counted from 0."""
        self.epoch = whole_number("epoch", epoch, least=0)

    def order(self, epoch):
        """Which image comes when in pass number `epoch`: int (n,)."""
        if not self.shuffle:
            return np.arange(self.examples)
        # RandomState, the old generator, promises the same numbers in every version of NumPy.
        return np.random.RandomState([self.seed, epoch]).permutation(self.examples)

    def __iter__(self):
        epoch, order = self.epoch, self.order(self.epoch)
        self.epoch += 1
        starts = range(0, self.examples, self.batch_size)
        return (
            self._batch(order[start : start + self.batch_size], (epoch, number))
            for number, start in enumerate(starts)
        )

    def _batch(self, indices, place):
        import mxnet as mx

        if self._augment is None:
            X = self._images.take(mx.nd.array(indices, dtype="int32"))
        else:
            images = self._augment(
                self._images[indices], np.random.RandomState([self.seed, *place])
            )
            X = mx.nd.array(images[..., np.newaxis], dtype="uint8")
        y = self._labels.take(mx.nd.array(indices, dtype="int32"))
        if self._enlarge:
            height, width = self.size  # MXNet's resize wants (width, height)
            X = mx.nd.image.resize(X, size=(width, height))  # bilinear, as d2l's
        X = X.reshape((-1, 1, *self.size)).astype("float32") / 255
        return (X.as_np_ndarray(), y.as_np_ndarray()) if mx.util.is_np_array() else (X, y)

    def __repr__(self):
        return (
            f"Batches({self.examples} images of {self.size[0]} x {self.size[1]}, "
            f"batch_size={self.batch_size}, shuffle={self.shuffle})"
        )


def whole_number(name, value, least=1):
    """`value` as an int; TypeError or ValueError, naming it, for what is no whole number."""
    from ..arguments import check_count  # with MXNet, which whoever only downloads can do without

    check_count(name, value, least)
    return int(value)


def height_and_width(resize):
    """`resize` as (height, width); None for None. TypeError or ValueError for anything else."""
    if resize is None:
        return None
    pair = tuple(resize) if isinstance(resize, (tuple, list)) else (resize, resize)
    if len(pair) != 2:
        raise ValueError(f"resize must be one number or (height, width), not {resize!r}")
    return tuple(whole_number("resize", side) for side in pair)
