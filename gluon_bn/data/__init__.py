"""Fashion-MNIST: find it, download it, check it, read it, and hand it out in batches.

::

    train_iter, test_iter = load_fashion_mnist(batch_size=256)
    for X, y in train_iter:   # X float32 (256, 1, 28, 28) in [0, 1], y float32 (256,) in 0..9
        ...

`fashion_mnist` is what you ask, `batches` what you get; below them `files` knows and reads the four
files, `download` brings them. Without any network there is the stand-in, drawn by
`gluon_bn.standin`; you get it only by asking: `load_fashion_mnist(256, stand_in=True)`.
"""

from .batches import Batches
from .download import KNOCK_SECONDS, MIRRORS, PATIENCE, STALL_SECONDS, mirrors
from .fashion_mnist import Dataset, data_folder, data_info, dataset, fetch, load_fashion_mnist
from .files import (
    CLASS_NAMES,
    MD5,
    MXNET_SHA1,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    UNPACKED,
    DatasetError,
    DatasetNotFound,
    WrongFile,
    read_idx,
)

__all__ = [
    "CLASS_NAMES",
    "KNOCK_SECONDS",
    "MD5",
    "MIRRORS",
    "MXNET_SHA1",
    "PATIENCE",
    "STALL_SECONDS",
    "TEST_IMAGES",
    "TEST_LABELS",
    "TRAIN_IMAGES",
    "TRAIN_LABELS",
    "UNPACKED",
    "Batches",
    "Dataset",
    "DatasetError",
    "DatasetNotFound",
    "WrongFile",
    "data_folder",
    "data_info",
    "dataset",
    "fetch",
    "load_fashion_mnist",
    "mirrors",
    "read_idx",
]
