"""Fashion-MNIST: find it, download it, check it, read it, and hand it out in batches.

    train_iter, test_iter = load_fashion_mnist(batch_size=256)
    for X, y in train_iter:   # X float32 (256, 1, 28, 28) in [0, 1], y float32 (256,) in 0..9
        ...

Where the four files live: the folder you name, else `$FASHION_MNIST_ROOT`, else
`$MXNET_HOME/datasets/fashion-mnist` (`~/.mxnet/datasets/fashion-mnist`). Files that are missing
there are downloaded into it. A file is believed only if its MD5 is that of the official file, each
time it is read. Without any network there is the stand-in, drawn by `gluon_bn.standin`; you get it
only by asking: `load_fashion_mnist(256, stand_in=True)`.
"""

import contextlib
import functools
import gzip
import hashlib
import math
import os
import socket
import threading
import time
import warnings
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional
from urllib.parse import urlsplit

import numpy as np

from . import standin
from .augment import find as find_augmentation

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

MIRRORS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",  # the authors' own
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",  # the one Keras uses
)
PATIENCE = 4  # how many failures in a row we forgive a mirror that answers
KNOCK_SECONDS = 4  # a mirror that has not answered by then is left alone
STALL_SECONDS = 8  # a download that brings nothing for so long is broken


class DatasetError(RuntimeError):
    """Something is wrong with the data set; the message says what, and what to try."""


class DatasetNotFound(DatasetError):
    """The files are not there and cannot be downloaded (`demo` goes on with the stand-in)."""


class WrongFile(DatasetError):
    """A file is there, but it is not the right one: corrupt, cut short, or another file."""


# Asking for data ----------------------------------------------------------------------------------


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
    """Return `(train_iter, test_iter)`, two `Batches` of Fashion-MNIST.

    batch_size : images in a batch; the last batch of a pass is smaller if it must be.
    resize : None (28 by 28), one number, or (height, width): images are enlarged batch by batch.
    root : the folder of the four files. None: `$FASHION_MNIST_ROOT` or MXNet's own folder.
    limit : keep only the first `limit` training images.
    shuffle, seed : the order of the training images; see `Batches`.
    augment : 'crop', 'flip', 'erase', 'crop-flip', 'flip-erase' or a function changes the training
        images each time they come; see `gluon_bn.augment`.
    stand_in : True gives the drawn stand-in instead of Fashion-MNIST.

    Raises `DatasetNotFound` where the files are missing and cannot be downloaded, `WrongFile` where
    one is there but is not right, ValueError or TypeError for an argument that makes no sense.
    """
    # A wrong argument should be reported before a download, not after it.
    _check_count("batch_size", batch_size)
    _height_and_width(resize)
    find_augmentation(augment)
    if limit is not None:
        _check_count("limit", limit)
    data = dataset(root, stand_in=stand_in, limit=limit)
    return data.batches(batch_size, resize, shuffle=shuffle, seed=seed, augment=augment)


@dataclass(frozen=True)
class Dataset:
    """Images and labels in memory, as NumPy arrays, and where they are from.

    Images are uint8 (n, 28, 28), labels int32 (n,) in 0..9; `CLASS_NAMES[label]` is the garment.
    `name` is 'fashion-mnist' or 'stand-in'; `folder` is None for the stand-in, which has no files.
    """

    name: str
    folder: Optional[Path]
    train_images: np.ndarray = field(repr=False)
    train_labels: np.ndarray = field(repr=False)
    test_images: np.ndarray = field(repr=False)
    test_labels: np.ndarray = field(repr=False)

    def summary(self):
        """What metrics.json says of the data: `{"name", "train", "test"}`."""
        return {"name": self.name, "train": len(self.train_labels), "test": len(self.test_labels)}

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
    """Return the whole `Dataset`: Fashion-MNIST, downloaded if need be, or the stand-in.

    `limit` keeps the first training images only. Raises as `load_fashion_mnist` does.
    """
    if stand_in:
        name, folder, arrays = "stand-in", None, _stand_in()
    else:
        name, folder = "fashion-mnist", fetch(root)
        arrays = (
            *_read_set(folder, TRAIN_IMAGES, TRAIN_LABELS),
            *_read_set(folder, TEST_IMAGES, TEST_LABELS),
        )
    train_images, train_labels, *test = arrays
    if limit is not None:
        if _check_count("limit", limit) > len(train_labels):
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


# Batches ------------------------------------------------------------------------------------------


class Batches:
    """Images and labels in batches `(X, y)`, as often as you like: `for X, y in batches`.

    X is float32 (N, 1, H, W) in [0, 1]. y is float32 (N,), so that under `mx.nd`, which compares
    only arrays of one type, `net(X).argmax(axis=1) == y` works; Gluon's losses, `pick`, `one_hot`
    and indexing take it as it is. Both are `mx.nd.NDArray`, or `mx.np.ndarray` where NumPy
    semantics are on (`npx.set_np()`). The last batch is smaller where the numbers ask for it.

    With `shuffle` each pass has its own order, which depends on `seed` and on the number of the
    pass and on nothing else; `seed=None` takes a new seed from the operating system. Passes count
    from 0, when they start. A run that resumes with pass k says `batches.set_epoch(k)`.

    `augment`, a name or a function of `gluon_bn.augment`, changes the images; its random numbers
    depend on `seed`, the pass and the batch.
    """

    def __init__(
        self, images, labels, batch_size, *, resize=None, shuffle=False, seed=0, augment=None
    ):
        import mxnet as mx

        from .arguments import check_seed

        self.batch_size = _check_count("batch_size", batch_size)
        self.size = _height_and_width(resize) or images.shape[1:]
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
        self.epoch = _check_count("epoch", epoch, least=0)

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


def _check_count(name, value, least=1):
    from .arguments import check_count  # with MXNet, which whoever only downloads can do without

    check_count(name, value, least)
    return int(value)


def _height_and_width(resize):
    if resize is None:
        return None
    pair = tuple(resize) if isinstance(resize, (tuple, list)) else (resize, resize)
    if len(pair) != 2:
        raise ValueError(f"resize must be one number or (height, width), not {resize!r}")
    return tuple(_check_count("resize", side) for side in pair)


# Finding and downloading --------------------------------------------------------------------------


def data_folder(root=None):
    """The folder of the files: `root`, else `$FASHION_MNIST_ROOT`, else MXNet's own."""
    chosen = root or os.environ.get("FASHION_MNIST_ROOT")
    return Path(chosen).expanduser() if chosen else _default_folder()


def _default_folder():
    from mxnet.base import data_dir

    return Path(data_dir()).expanduser() / "datasets" / "fashion-mnist"


def mirrors():
    """Where we download from, in order: `$FASHION_MNIST_URL` first, if it is set."""
    own = os.environ.get("FASHION_MNIST_URL")
    urls = (own, *MIRRORS) if own else MIRRORS
    return [url.rstrip("/") + "/" for url in urls]


def fetch(root=None):
    """Make sure that the four files are there and right, downloading what is missing.

    Returns the folder. A wrong file in a folder of yours (`root`, `$FASHION_MNIST_ROOT`) is left as
    it is and reported by `WrongFile`. In the default folder, which is a cache, a warning says that
    it is wrong, and a good download takes its place (so it does with the copies that MXNet's own
    FashionMNIST class has left there; that class will download them again). Raises
    `DatasetNotFound` if a download fails; nothing is lost then.
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
            _read_checked(folder / name)
        except (FileNotFoundError, NotADirectoryError):
            wanted.append(name)
        except WrongFile as error:
            if not is_cache or (folder / name).is_dir():  # a download cannot replace a folder
                raise
            warnings.warn(f"{error}\nDownloading it again.", stacklevel=2)
            wanted.append(name)
    if wanted:
        _download(wanted, folder)
    return folder


def data_info(root=None):
    """Look at the folder without downloading: `{"folder": Path, "files": {name: state}}`.

    The state is 'ok', 'missing', or the reason why the file is not right.
    """
    folder, files = data_folder(root), {}
    for name in MD5:
        try:
            _read_checked(folder / name)
            files[name] = "ok"
        except (FileNotFoundError, NotADirectoryError):
            files[name] = "missing"
        except WrongFile as error:
            files[name] = str(error)
    return {"folder": folder, "files": files}


class _Mirror:
    """A place to download from, and how much patience we have left with it."""

    def __init__(self, url):
        self.url, self.patience, self.reason = url, PATIENCE, None
        self.known = False  # whether somebody has answered there

    def fail(self, reason, cost):
        self.reason, self.patience = reason, self.patience - cost


def _download(names, folder):
    """Download files, going round the mirrors until each file is there and right.

    pooch writes to a temporary file, compares the checksum and only then renames it: whenever this
    is interrupted, and however many processes do it at once, a file of the right name is complete.
    """
    places = [_Mirror(url) for url in mirrors()]
    try:
        for name in names:
            pause = 0.5
            while not any(_download_from(mirror, name, folder) for mirror in places):
                if all(mirror.patience <= 0 for mirror in places):
                    raise _not_found(names, folder, [(m.url, m.reason) for m in places])
                time.sleep(pause)
                pause = min(2 * pause, 4)
    except OSError as error:  # no network error, which _download_from deals with
        raise _not_found(names, folder, [(folder, f"cannot be written: {error}")]) from error


def _download_from(mirror, name, folder):
    """Try one mirror for one file, once. Return whether the file is there now."""
    import pooch
    import requests

    if mirror.patience > 0 and not mirror.known:
        silence = _knock(mirror.url)
        mirror.known = not silence
        if silence:
            mirror.fail(silence, PATIENCE)
    if mirror.patience <= 0:
        return False
    try:
        pooch.retrieve(mirror.url + name, f"md5:{MD5[name]}", name, folder, downloader=_get)
    except requests.HTTPError as error:
        hopeless = 400 <= error.response.status_code < 500  # it will say the same next time
        mirror.fail(str(error), PATIENCE if hopeless else 1)
    except requests.RequestException as error:
        # A stall has cost so many seconds that the second one is the last.
        mirror.fail(str(error), PATIENCE / 2 if "timed out" in str(error) else 1)
    except ValueError as error:  # a wrong checksum
        mirror.fail(str(error), 1)
    else:
        (folder / name).chmod(0o644)  # pooch's temporary files are readable by the owner only
        mirror.patience = PATIENCE
        return True
    return False


def _get(url, output_file, _pooch):
    """What pooch downloads with: the bytes as they are sent, under a bar that names the file.

    Some servers send a `.gz` file as `Content-Encoding: gzip`, as if the packing were their own,
    and requests would take it off; others do pack the packed file once more. Only the checksum
    tells which.
    """
    import requests
    from tqdm.auto import tqdm

    name = url.rsplit("/", 1)[-1]
    with requests.get(
        url, stream=True, timeout=STALL_SECONDS, headers={"Accept-Encoding": "identity"}
    ) as response:
        response.raise_for_status()
        response.raw.headers.pop("Content-Encoding", None)  # or it would be unpacked on its way
        length = response.headers.get("Content-Length", "")
        with (
            open(output_file, "wb") as file,
            tqdm(
                desc=name,
                unit="B",
                unit_scale=True,
                leave=False,
                total=int(length) if length.isdigit() else None,
            ) as bar,
        ):
            for chunk in response.iter_content(2**16):
                file.write(chunk)
                bar.update(len(chunk))
            bar.leave = True
    content = Path(output_file).read_bytes()
    if _md5(content) == MD5[name]:
        return
    with contextlib.suppress(zlib.error):
        unpacked = zlib.decompress(content, wbits=47)  # gzip or deflate
        if _md5(unpacked) == MD5[name]:
            Path(output_file).write_bytes(unpacked)
            return
    raise ValueError(f"what was sent does not match the known hash: {_diagnosis(name, content)}")


def _knock(url):
    """Return None if somebody answers at this address, else the reason, in KNOCK_SECONDS at most.

    A name server or a firewall that swallows everything can hold up a connection for minutes,
    whatever timeout one asks for (it applies to each of the host's addresses in turn). So the
    attempt is made in a thread, which is left to its fate when the time is over.
    """
    from requests.utils import get_environ_proxies, select_proxy

    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        return "is not an address that starts with http:// or https://"
    door = urlsplit(select_proxy(url, get_environ_proxies(url)) or url)
    answer = [f"no answer within {KNOCK_SECONDS} seconds"]

    def knock():
        try:
            port = door.port or (443 if door.scheme == "https" else 80)
            socket.create_connection((door.hostname, port), timeout=KNOCK_SECONDS).close()
            answer[0] = None
        except OSError as error:
            answer[0] = f"cannot connect: {error}"

    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(KNOCK_SECONDS)
    return answer[0]


def _not_found(names, folder, reasons):
    tried = "\n".join(f"  {place}: {reason}" for place, reason in reasons)
    return DatasetNotFound(
        f"Fashion-MNIST is not in {folder} (missing or wrong: {', '.join(names)}), "
        f"and it could not be downloaded:\n{tried}\n"
        f"What you can do:\n"
        f"  - copy the four files {', '.join(MD5)} into that folder;\n"
        f"  - or name a folder that holds them, by root=, --data-dir or $FASHION_MNIST_ROOT;\n"
        f"  - or set $FASHION_MNIST_URL to a mirror that you can reach;\n"
        f"  - or use the drawn stand-in: stand_in=True."
    )


# Reading ------------------------------------------------------------------------------------------


def _read_checked(path):
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
    found = _md5(content)
    if found != MD5[path.name]:
        raise WrongFile(
            f"{path} is not the official file of Fashion-MNIST: "
            f"{_diagnosis(path.name, content)}.\n"
            f"  expected MD5 {MD5[path.name]}\n  found MD5    {found}\n"
            f"Delete the file to download it again, or name another folder by root=, "
            f"--data-dir or $FASHION_MNIST_ROOT."
        )
    return content


def _diagnosis(name, content):
    """Say what a file with the wrong checksum probably is."""
    if hashlib.sha1(content, usedforsecurity=False).hexdigest() == MXNET_SHA1[name]:
        return "it is MXNet's own re-packed copy, which only gluon.data.vision.FashionMNIST reads"
    if not content:
        return "it is empty"
    for other, checksum in MD5.items():
        if _md5(content) == checksum:
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
        if _md5(content[: len(content) - more]) == MD5[name]:
            return f"it begins with the official file, and {more:,} bytes follow"
        unpacked = gzip.decompress(content)
    except EOFError:
        return f"it ends too early, after {len(content):,} bytes"
    except (OSError, zlib.error):
        return "it is damaged"
    if _md5(unpacked) == MD5[name]:
        return "it is the official file, packed once more"
    for other, (size, checksum) in UNPACKED.items():
        if _md5(unpacked[:size]) == checksum:
            whose = "the right data" if other == name else f"the data of {other}"
            more = f" and {len(unpacked) - size:,} bytes more" if len(unpacked) > size else ""
            return f"it holds {whose}{more}, but was packed again"
    return "it is a sound gzip file, but with other data (MNIST's digits use the same names)"


def _md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _read_set(folder, images_name, labels_name):
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
    """Read a gzipped IDX file of bytes with `rank` dimensions: a read-only uint8 array.

    The format: two zero bytes, the type (8: unsigned bytes), the rank, the dimensions as big-endian
    32-bit integers, the data. The checksum is compared, and each of these fields as well.
    """

    def wrong(what):
        return WrongFile(f"{path}: {what}. Delete the file to download it again.")

    content = _read_checked(path)
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
