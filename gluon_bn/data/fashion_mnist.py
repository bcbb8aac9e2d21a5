"""Fashion-MNIST in memory: find the four files, download what is missing, read them.

Where the files live: the folder you name, else `$FASHION_MNIST_ROOT`, else
`$MXNET_HOME/datasets/fashion-mnist` (`~/.mxnet/datasets/fashion-mnist`). Without any network there
is the stand-in, drawn by `gluon_bn.standin`; you get it only by asking.
"""

import functools
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import numpy as np

from .. import standin
from ..augment import find as find_augmentation
from .batches import Batches, height_and_width, whole_number
from .download import download
from .files import (
    MD5,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    DatasetError,
    WrongFile,
    read_checked,
    read_set,
)


def load_fashion_mnist(
    batch_size,
    resize=None,
    root=None,
    *,
    limit=None,
    shuffle=True,
    seed=0,
    augment=None,
    stand_in=False,
):
    """Fashion-MNIST in batches, for training and for testing.

    Parameters
    ----------
    batch_size : int; the last batch of a pass is smaller if it must be
    resize : None (28 by 28), int, or (height, width): images are enlarged batch by batch
    root : str or Path, the folder of the four files
        None: `$FASHION_MNIST_ROOT` or MXNet's own folder.
    limit : int, keep only so many of the training images, the first
    shuffle, seed : the order of the training images; see `Batches`
    augment : 'crop', 'flip', 'erase', 'crop-flip', 'flip-erase' or a function
        It changes the training images each time they come; see `gluon_bn.augment`.
    stand_in : bool; True gives the drawn stand-in instead of Fashion-MNIST

    Returns
    -------
    train_iter, test_iter : Batches

    Raises
    ------
    DatasetNotFound : the files are missing and cannot be downloaded
    WrongFile : one is there but is not right
    TypeError, ValueError : an argument makes no sense

    Examples
    --------
    >>> train_iter, test_iter = data.load_fashion_mnist(256, limit=1000, stand_in=True)
    >>> X, y = next(iter(train_iter))
    >>> X.shape, y.shape
    ((256, 1, 28, 28), (256,))
    """
    # A wrong argument should be reported before a download, not after it.
    whole_number("batch_size", batch_size)
    height_and_width(resize)
    find_augmentation(augment)
    if limit is not None:
        whole_number("limit", limit)
    data = dataset(root, stand_in=stand_in, limit=limit)
    return data.batches(batch_size, resize, shuffle=shuffle, seed=seed, augment=augment)


@dataclass(frozen=True)
class Dataset:
    """Images and labels in memory, as NumPy arrays, and where they are from.

    Parameters
    ----------
    name : 'fashion-mnist' or 'stand-in'
    folder : Path, or None for the stand-in, which has no files
    train_images, train_labels : uint8 (n, 28, 28), and int32 (n,) in 0..9
    test_images, test_labels : the same; `CLASS_NAMES[label]` is the garment
    held_out : how many training images stand in for the test images, see `hold_out`

    Examples
    --------
    >>> data.dataset(stand_in=True, limit=100).train_images.shape
    (100, 28, 28)
    """

    name: str
    folder: Optional[Path]
    train_images: np.ndarray = field(repr=False)
    train_labels: np.ndarray = field(repr=False)
    test_images: np.ndarray = field(repr=False)
    test_labels: np.ndarray = field(repr=False)
    held_out: int = 0

    def summary(self):
        """What metrics.json says of the data: `{"name", "train", "test"}`."""
        counts = {"train": len(self.train_labels), "test": len(self.test_labels)}
        held_out = {"held_out": self.held_out} if self.held_out else {}
        return {"name": self.name, **counts, **held_out}

    def hold_out(self, n):
        """The same without its test images: the last n training images take their place.

        For choosing a recipe. Whoever looks at the test images while choosing has trained on them.

        Examples
        --------
        >>> data.dataset(stand_in=True, limit=100).hold_out(20).summary()
        {'name': 'stand-in', 'train': 80, 'test': 20, 'held_out': 20}
        """
        if whole_number("held_out", n) >= len(self.train_labels):
            raise ValueError(
                f"held_out must be less than {len(self.train_labels)} training images, got {n}"
            )
        X, y = self.train_images, self.train_labels
        return Dataset(self.name, self.folder, X[:-n], y[:-n], X[-n:], y[-n:], n)

    def batches(self, batch_size, resize=None, *, shuffle=True, seed=0, augment=None):
        """Return `(train_iter, test_iter)`; only the training images are shuffled and augmented."""
        return (
            Batches(
                self.train_images,
                self.train_labels,
                batch_size,
                resize=resize,
                shuffle=shuffle,
                seed=seed,
                augment=augment,
            ),
            Batches(self.test_images, self.test_labels, batch_size, resize=resize),
        )


def dataset(root=None, *, stand_in=False, limit=None):
    """The whole `Dataset`: Fashion-MNIST, downloaded if need be, or the stand-in.

    Parameters
    ----------
    root, stand_in, limit : as for `load_fashion_mnist`

    Returns
    -------
    Dataset

    Raises
    ------
    RuntimeError, TypeError, ValueError : as `load_fashion_mnist`

    Examples
    --------
    >>> data.dataset(stand_in=True, limit=100).summary()["train"]
    100
    """
    if stand_in:
        name, folder, arrays = "stand-in", None, _stand_in()
    else:
        name, folder = "fashion-mnist", fetch(root)
        arrays = (
            *read_set(folder, TRAIN_IMAGES, TRAIN_LABELS),
            *read_set(folder, TEST_IMAGES, TEST_LABELS),
        )
    train_images, train_labels, *test = arrays
    if limit is not None:
        if whole_number("limit", limit) > len(train_labels):
            raise ValueError(
                f"limit is {limit}, but there are only {len(train_labels)} training "
                f"images; leave limit out to use them all"
            )
        train_images, train_labels = train_images[:limit], train_labels[:limit]
    return Dataset(name, folder, train_images, train_labels, *test)


@functools.lru_cache(maxsize=1)
def _stand_in():
    arrays = standin.generate()
    for array in arrays:
        array.setflags(write=False)  # everyone who asks gets the same arrays
    return arrays


def data_folder(root=None):
    """The folder of the files: `root`, else `$FASHION_MNIST_ROOT`, else MXNet's own.

    Parameters
    ----------
    root : str or Path, or None

    Returns
    -------
    Path

    Examples
    --------
    >>> data.data_folder("/tmp/fashion").name
    'fashion'
    """
    chosen = root or os.environ.get("FASHION_MNIST_ROOT")
    return Path(chosen).expanduser() if chosen else _default_folder()


def _default_folder():
    from mxnet.base import data_dir

    return Path(data_dir()).expanduser() / "datasets" / "fashion-mnist"


def fetch(root=None):
    """Make sure that the four files are there and right, downloading what is missing.

    A wrong file in a folder of yours (`root`, `$FASHION_MNIST_ROOT`) is left as it is and reported.
    In the default folder, which is a cache, a warning says that it is wrong, and a good download
    takes its place (so it does with the copies that MXNet's own FashionMNIST class has left there;
    that class will download them again).

    Parameters
    ----------
    root : as for `data_folder`

    Returns
    -------
    Path, the folder

    Raises
    ------
    WrongFile : a file of yours is not right
    DatasetNotFound : a download fails; nothing is lost then

    Examples
    --------
    >>> data.fetch().name  # doctest: +SKIP
    'fashion-mnist'
    """
    folder = data_folder(root)
    is_cache = not (root or os.environ.get("FASHION_MNIST_ROOT"))
    if folder.exists() and not folder.is_dir():
        raise DatasetError(
            f"{folder} is a file; the data set needs a folder. Name another one "
            f"by root=, --data-dir or $FASHION_MNIST_ROOT."
        )
    wanted = []
    for name in MD5:
        try:
            read_checked(folder / name)
        except (FileNotFoundError, NotADirectoryError):
            wanted.append(name)
        except WrongFile as error:
            if not is_cache or (folder / name).is_dir():  # a download cannot replace a folder
                raise
            warnings.warn(f"{error}\nDownloading it again.", stacklevel=2)
            wanted.append(name)
    if wanted:
        download(wanted, folder)
    return folder


def data_info(root=None):
    """Look at the folder without downloading.

    Parameters
    ----------
    root : as for `data_folder`

    Returns
    -------
    dict {"folder": Path, "files": {name: state}}
        The state is 'ok', 'missing', or the reason why the file is not right.

    Examples
    --------
    >>> set(data.data_info("/nowhere")["files"].values())
    {'missing'}
    """
    folder, files = data_folder(root), {}
    for name in MD5:
        try:
            read_checked(folder / name)
            files[name] = "ok"
        except (FileNotFoundError, NotADirectoryError):
            files[name] = "missing"
        except WrongFile as error:
            files[name] = str(error)
    return {"folder": folder, "files": files}
