"""The four files of Fashion-MNIST: which they are, what is wrong with one, and what is in it.

A file is believed only if its MD5 is that of the official file, each time it is read. This module
opens files; where they come from is the business of `download`, what becomes of them that of
`fashion_mnist`.
"""

import gzip
import hashlib
import math
import zlib

import numpy as np

CLASS_NAMES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"

# The official files' checksums, as published in the README of zalandoresearch/fashion-mnist.
MD5 = {
    TRAIN_IMAGES: "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    TRAIN_LABELS: "25c81989df183df01b3e8a0aad5dffbe",
    TEST_IMAGES: "bef4ecab320f06d8554ea6380940ec79",
    TEST_LABELS: "bb300cfdad3c16e7a12a480ee83cd310",
}

# Sizes and checksums of what is in them, to recognize the data in a file that was packed again.
UNPACKED = {
    TRAIN_IMAGES: (47040016, "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
    TRAIN_LABELS: (60008, "9018921c3c673c538a1fc5bad174d6f9"),
    TEST_IMAGES: (7840016, "8181f5470baa50b63fa0f6fddb340f0a"),
    TEST_LABELS: (10008, "15d484375f8d13e6eb1aabb0c3f46965"),
}

# gluon.data.vision.FashionMNIST keeps files of the same names in the same default folder, but
# re-packed ones, which MXNet knows by these SHA-1 sums. We recognize them only to say so.
MXNET_SHA1 = {
    TRAIN_IMAGES: "0cf37b0d40ed5169c6b3aba31069a9770ac9043d",
    TRAIN_LABELS: "236021d52f1e40852b06a4c3008d8de8aef1e40b",
    TEST_IMAGES: "626ed6a7c06dd17c0eec72fa3be1740f146a2863",
    TEST_LABELS: "17f9ab60e7257a1620f4ad76bbbaf857c3920701",
}


class DatasetError(RuntimeError):
    """Something is wrong with the data set; the message says what, and what to try."""


class DatasetNotFound(DatasetError):
    """The files are not there and cannot be downloaded (`demo` goes on with the stand-in)."""


class WrongFile(DatasetError):
    """A file is there, but it is not the right one: corrupt, cut short, or another file."""


def read_checked(path):
    """Return the bytes of a file, or raise `WrongFile` (or FileNotFoundError)."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:  # a folder of that name, or a file we may not read
        raise WrongFile(
            f"{path} cannot be read as a file ({error.strerror}). Move it away or make "
            f"it readable, or name another folder."
        ) from error
    found = md5(content)
    if found != MD5[path.name]:
        raise WrongFile(
            f"{path} is not the official file of Fashion-MNIST: "
            f"{diagnosis(path.name, content)}.\n"
            f"  expected MD5 {MD5[path.name]}\n  found MD5    {found}\n"
            f"Delete the file to download it again, or name another folder by root=, "
            f"--data-dir or $FASHION_MNIST_ROOT."
        )
    return content


def diagnosis(name, content):
    """Say what a file with the wrong checksum probably is."""
    if hashlib.sha1(content, usedforsecurity=False).hexdigest() == MXNET_SHA1[name]:
        return "it is MXNet's own re-packed copy, which only gluon.data.vision.FashionMNIST reads"
    if not content:
        return "it is empty"
    for other, checksum in MD5.items():
        if md5(content) == checksum:
            return f"it is the official {other}, under another name"
    if content.lstrip()[:1] == b"<":
        return "it is a web page, probably an error message of the server it is from"
    if content[:3] == b"\0\0\x08":
        return "it is unpacked; the official file is packed by gzip"
    if content[:2] != b"\x1f\x8b":
        return "it is not a gzip file"
    try:
        stream = zlib.decompressobj(wbits=31)
        stream.decompress(content)
        more = len(stream.unused_data)
        if md5(content[: len(content) - more]) == MD5[name]:
            return f"it begins with the official file, and {more:,} bytes follow"
        unpacked = gzip.decompress(content)
    except EOFError:
        return f"it ends too early, after {len(content):,} bytes"
    except (OSError, zlib.error):
        return "it is damaged"
    if md5(unpacked) == MD5[name]:
        return "it is the official file, packed once more"
    for other, (size, checksum) in UNPACKED.items():
        if md5(unpacked[:size]) == checksum:
            whose = "the right data" if other == name else f"the data of {other}"
            more = f" and {len(unpacked) - size:,} bytes more" if len(unpacked) > size else ""
            return f"it holds {whose}{more}, but was packed again"
    return "it is a sound gzip file, but with other data (MNIST's digits use the same names)"


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def read_set(folder, images_name, labels_name):
    """Read one set: uint8 images (n, 28, 28) and int32 labels (n,)."""
    images = read_idx(folder / images_name, rank=3)
    labels = read_idx(folder / labels_name, rank=1)
    if images.shape[1:] != (28, 28):
        raise WrongFile(
            f"{folder / images_name}: images of {images.shape[1]} x {images.shape[2]} "
            f"pixels, expected 28 x 28"
        )
    if len(images) != len(labels):
        raise WrongFile(
            f"{folder}: {len(images)} images in {images_name}, "
            f"but {len(labels)} labels in {labels_name}"
        )
    if labels.size and labels.max() >= len(CLASS_NAMES):
        raise WrongFile(
            f"{folder / labels_name}: label {labels.max()} at position "
            f"{labels.argmax()}, expected 0 to 9"
        )
    return images, labels.astype(np.int32)


def read_idx(path, rank):
    """Read a gzipped IDX file of bytes, one of the four.

    The format: two zero bytes, the type (8: unsigned bytes), the rank, the dimensions as big-endian
    32-bit integers, the data. The checksum is compared, and each of these fields as well.

    Parameters
    ----------
    path : Path
    rank : int, the number of dimensions

    Returns
    -------
    NumPy array, uint8, read-only

    Raises
    ------
    WrongFile, FileNotFoundError : the file is not right, or not there

    Examples
    --------
    >>> data.read_idx(data.fetch() / data.TEST_LABELS, rank=1).shape  # doctest: +SKIP
    (10000,)
    """

    def wrong(what):
        return WrongFile(f"{path}: {what}. Delete the file to download it again.")

    content = read_checked(path)
    try:
        content = gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise wrong(f"cannot be unpacked ({error})") from error
    header = 4 + 4 * rank
    if len(content) < header:
        raise wrong(f"only {len(content)} bytes, shorter than its header of {header}")
    if content[:2] != b"\0\0":
        raise wrong(f"not an IDX file: it starts with {content[:2].hex()}, expected 0000")
    if content[2] != 8:
        raise wrong(f"the numbers have type {content[2]:#04x}, expected 0x08, unsigned bytes")
    if content[3] != rank:
        raise wrong(f"the array has rank {content[3]}, expected {rank}")
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", rank, offset=4))
    if len(content) - header != math.prod(shape):
        raise wrong(
            f"{len(content) - header} bytes of data, but the header says {shape}, which "
            f"makes {math.prod(shape)}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
