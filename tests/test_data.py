"""data and standin.py. No network, no real data: small IDX files are written here, by hand."""

import gzip
import hashlib
import http.server
import itertools
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest

from gluon_bn import data, standin

TRAIN, TEST = 23, 10  # images in the small data set
NAMES = [
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
]


def idx(array, *, magic=b"\0\0", kind=8, rank=None, shape=None):
    """An IDX file, written as http://yann.lecun.com/exdb/mnist describes it."""
    shape = array.shape if shape is None else shape
    rank = len(shape) if rank is None else rank
    return magic + bytes([kind, rank]) + struct.pack(f">{len(shape)}I", *shape) + array.tobytes()


def some_images(n, seed):
    images = np.random.RandomState(seed).randint(0, 256, (n, 28, 28)).astype(np.uint8)
    images[:, 0, 0] = np.arange(n)  # so that a test can tell which image it sees
    return images


def packed(content):
    """As gzip packs it, without the time in it: the processes of xdist have to name tests alike."""
    return gzip.compress(content, mtime=0)


IMAGES, LABELS = some_images(TRAIN, 1), (np.arange(TRAIN) * 7 % 10).astype(np.uint8)
TEST_IMAGES, TEST_LABELS = some_images(TEST, 2), np.arange(TEST, dtype=np.uint8)
FILES = {
    name: packed(idx(array))
    for name, array in zip(NAMES, [IMAGES, LABELS, TEST_IMAGES, TEST_LABELS])
}

ROOT, UNPACKED = os.environ.get("FASHION_MNIST_ROOT", ""), dict(data.UNPACKED)  # the real ones


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture(autouse=True)
def small_world(monkeypatch, tmp_path):
    """The small files are the official ones, nothing of the machine is used, no pause is slept."""
    for name, content in FILES.items():
        monkeypatch.setitem(data.MD5, name, md5(content))
        unpacked = gzip.decompress(content)
        monkeypatch.setitem(data.UNPACKED, name, (len(unpacked), md5(unpacked)))
    monkeypatch.setattr(data.download, "MIRRORS", ())
    monkeypatch.setattr(data.download, "time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.delenv("FASHION_MNIST_ROOT", raising=False)
    monkeypatch.delenv("FASHION_MNIST_URL", raising=False)
    monkeypatch.setenv("MXNET_HOME", str(tmp_path / "mxnet"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def write(folder, files=FILES):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "data")


# Batches ------------------------------------------------------------------------------------------


def which(X):
    """The numbers of the images in a batch."""
    return np.rint(X[:, 0, 0, 0].asnumpy() * 255).astype(int).tolist()


def one_pass(batches):
    return list(itertools.chain.from_iterable(which(X) for X, _ in batches))


def test_official_checksums_are_those_of_the_contract():
    source = subprocess.run(
        [sys.executable, "-c", "from gluon_bn import data; print(data.MD5)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert eval(source) == {
        NAMES[0]: "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        NAMES[1]: "25c81989df183df01b3e8a0aad5dffbe",
        NAMES[2]: "bef4ecab320f06d8554ea6380940ec79",
        NAMES[3]: "bb300cfdad3c16e7a12a480ee83cd310",
    }


def test_batches_hold_the_images_and_labels_of_the_files(folder):
    train_iter, test_iter = data.load_fashion_mnist(8, None, folder)
    assert (len(train_iter), len(test_iter)) == (3, 2)
    seen = []
    for X, y in train_iter:
        assert type(X) is type(y) is mx.nd.NDArray
        assert X.dtype == y.dtype == np.float32
        assert X.shape == (len(y), 1, 28, 28)
        numbers = which(X)
        np.testing.assert_array_equal(X.asnumpy()[:, 0], IMAGES[numbers].astype("f4") / 255)
        np.testing.assert_array_equal(y.asnumpy(), LABELS[numbers])
        seen.append(numbers)
    assert [len(numbers) for numbers in seen] == [8, 8, 7]  # the last batch is short
    assert sorted(sum(seen, [])) == list(range(TRAIN))
    assert one_pass(test_iter) == one_pass(test_iter) == list(range(TEST))
    assert [int(label) for _, y in test_iter for label in y.asnumpy()] == TEST_LABELS.tolist()


def test_one_batch_may_hold_everything(folder):
    ((X, y),) = data.load_fashion_mnist(10_000, root=folder)[0]
    assert X.shape == (TRAIN, 1, 28, 28) and y.shape == (TRAIN,)


def test_each_pass_has_its_own_order_which_a_seed_repeats(folder):
    def passes(seed):
        batches, _ = data.load_fashion_mnist(8, root=folder, seed=seed)
        return [one_pass(batches) for _ in range(3)]

    first = passes(3)
    assert first == passes(3)
    assert len({tuple(order) for order in first + passes(4)}) == 6
    assert first[2] == np.random.RandomState([3, 2]).permutation(TRAIN).tolist()


def test_set_epoch_goes_on_where_another_run_stopped(folder):
    whole, _ = data.load_fashion_mnist(8, root=folder)
    orders = [one_pass(whole) for _ in range(4)]
    resumed, _ = data.load_fashion_mnist(5, root=folder)
    resumed.set_epoch(2)
    assert [one_pass(resumed), one_pass(resumed)] == orders[2:]
    next(iter(resumed))  # a pass begun is a pass
    assert resumed.epoch == 5
    with pytest.raises(ValueError, match="-1"):
        resumed.set_epoch(-1)


def test_two_passes_at_once_do_not_disturb_each_other(folder):
    batches, _ = data.load_fashion_mnist(8, root=folder)
    a, b = iter(batches), iter(batches)
    mixed = [(which(x[0]), which(y[0])) for x, y in zip(a, b)]
    batches.set_epoch(0)
    assert sum((x for x, _ in mixed), []) == one_pass(batches)
    assert sum((y for _, y in mixed), []) == one_pass(batches)


def test_without_shuffle_and_with_a_random_seed(folder):
    plain, _ = data.load_fashion_mnist(8, root=folder, shuffle=False)
    assert one_pass(plain) == one_pass(plain) == list(range(TRAIN))
    random = [data.load_fashion_mnist(8, root=folder, seed=None)[0] for _ in range(2)]
    assert one_pass(random[0]) != one_pass(random[1])


def test_nothing_global_is_touched(folder):
    mx.random.seed(1)
    np.random.seed(1)
    expected = mx.nd.random.uniform(shape=4).asnumpy(), np.random.rand(4)
    mx.random.seed(1)
    np.random.seed(1)
    one_pass(data.load_fashion_mnist(8, root=folder)[0])
    standin.generate(20, 10)
    np.testing.assert_array_equal(mx.nd.random.uniform(shape=4).asnumpy(), expected[0])
    np.testing.assert_array_equal(np.random.rand(4), expected[1])


def test_limit_keeps_the_first_training_images(folder):
    train_iter, test_iter = data.load_fashion_mnist(4, root=folder, limit=9)
    assert sorted(one_pass(train_iter)) == list(range(9))
    assert len(one_pass(test_iter)) == TEST
    with pytest.raises(ValueError, match="24.*23"):
        data.load_fashion_mnist(4, root=folder, limit=24)


def test_held_out_images_are_the_last_of_the_training_set_and_none_is_seen_twice(folder):
    found = data.dataset(folder, limit=20).hold_out(6)
    train_iter, test_iter = found.batches(4)
    assert sorted(one_pass(train_iter)) == list(range(14))
    assert one_pass(test_iter) == list(range(14, 20))
    np.testing.assert_array_equal(found.test_images, IMAGES[14:20])
    assert found.summary() == {"name": "fashion-mnist", "train": 14, "test": 6, "held_out": 6}
    for n, said in ((0, "at least 1"), (20, "less than 20 training images, got 20")):
        with pytest.raises(ValueError, match=said):
            data.dataset(folder, limit=20).hold_out(n)


def test_numpy_semantics_get_numpy_arrays(folder):
    with mx.util.np_shape(True), mx.util.np_array(True):
        X, y = next(iter(data.load_fashion_mnist(8, root=folder, shuffle=False)[0]))
        assert type(X) is type(y) is mx.np.ndarray
        np.testing.assert_array_equal(X.asnumpy()[:, 0], IMAGES[:8].astype("f4") / 255)
        np.testing.assert_array_equal(y.asnumpy(), LABELS[:8])


def bilinear(image, height, width):
    """Bilinear interpolation with pixel centers at halves, in float64."""

    def weights(new, old):
        position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(old)))

    return weights(height, 28) @ image @ weights(width, 28).T


@pytest.mark.parametrize("resize, size", [(56, (56, 56)), ((40, 52), (40, 52)), (28, (28, 28))])
def test_resize_is_bilinear(folder, resize, size):
    train_iter, test_iter = data.load_fashion_mnist(8, resize, folder, shuffle=False)
    X, _ = next(iter(train_iter))
    assert X.shape == (8, 1, *size) and X.dtype == np.float32
    expected = np.stack([bilinear(image.astype("f8"), *size) for image in IMAGES[:8]]) / 255
    np.testing.assert_allclose(X.asnumpy()[:, 0], expected, atol=1.01 / 255)  # rounded to bytes
    assert next(iter(test_iter))[0].shape == (8, 1, *size)


def test_labels_fit_gluons_losses_and_comparisons(folder):
    ((X, y),) = data.load_fashion_mnist(TRAIN, root=folder, shuffle=False)[0]
    scores = mx.nd.one_hot(mx.nd.array(LABELS), 10)
    assert ((scores.argmax(axis=1) == y).mean()).asscalar() == 1
    loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()(scores, y).asnumpy()
    np.testing.assert_allclose(loss, np.log(np.e + 9) - 1, rtol=1e-5)


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        (dict(batch_size=0), ValueError, "batch_size.*0"),
        (dict(batch_size=-3), ValueError, "batch_size.*-3"),
        (dict(batch_size=2.5), TypeError, "batch_size.*2.5"),
        (dict(batch_size="256"), TypeError, "batch_size.*'256'"),
        (dict(batch_size=True), TypeError, "batch_size.*True"),
        (dict(batch_size=8, resize=0), ValueError, "resize.*0"),
        (dict(batch_size=8, resize=(1, 2, 3)), ValueError, r"resize.*\(1, 2, 3\)"),
        (dict(batch_size=8, resize="96"), TypeError, "resize.*'96'"),
        (dict(batch_size=8, limit=0), ValueError, "limit.*0"),
    ],
)
def test_wrong_arguments_are_named_before_any_download(arguments, error, words):
    with pytest.raises(error, match=words):  # no data here: a download would be DatasetNotFound
        data.load_fashion_mnist(**arguments)
    with pytest.raises(TypeError, match="seed.*'x'"):
        data.Batches(IMAGES, LABELS, 8, seed="x")


def test_whole_numbers_of_numpy_are_whole_numbers(folder):
    assert len(data.load_fashion_mnist(np.int64(8), np.int32(30), folder)[0]) == 3


# Folders and wrong files --------------------------------------------------------------------------


def test_the_folder_is_root_then_environment_then_mxnets(monkeypatch, tmp_path):
    assert data.data_folder() == tmp_path / "mxnet" / "datasets" / "fashion-mnist"
    monkeypatch.setenv("FASHION_MNIST_ROOT", "~/clothes")
    assert str(data.data_folder()) == os.path.expanduser("~/clothes")
    assert data.data_folder(str(tmp_path)) == tmp_path
    monkeypatch.setenv("FASHION_MNIST_ROOT", "")
    monkeypatch.delenv("MXNET_HOME")
    assert str(data.data_folder()) == os.path.expanduser("~/.mxnet/datasets/fashion-mnist")


def test_files_are_found_by_each_way(monkeypatch, tmp_path):
    write(tmp_path / "mxnet" / "datasets" / "fashion-mnist")
    assert len(data.load_fashion_mnist(8)[0]) == 3
    monkeypatch.setenv("FASHION_MNIST_ROOT", str(tmp_path / "other"))
    with pytest.raises(data.DatasetNotFound, match="other"):
        data.load_fashion_mnist(8)
    write(tmp_path / "other")
    assert data.dataset().folder == tmp_path / "other"


def test_a_read_only_folder_will_do(folder):
    for path in [*folder.iterdir(), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert len(data.load_fashion_mnist(8, root=folder)[0]) == 3
    finally:
        folder.chmod(0o755)


def test_dataset_and_info(folder):
    whole = data.dataset(folder, limit=5)
    assert whole.name == "fashion-mnist" and whole.folder == folder
    assert whole.summary() == {"name": "fashion-mnist", "train": 5, "test": TEST}
    np.testing.assert_array_equal(whole.train_images, IMAGES[:5])
    np.testing.assert_array_equal(whole.test_labels, TEST_LABELS)
    assert whole.train_images.dtype == np.uint8 and whole.train_labels.dtype == np.int32
    assert data.CLASS_NAMES[9] == "ankle boot" and len(set(data.CLASS_NAMES)) == 10
    (folder / NAMES[0]).unlink()
    (folder / NAMES[1]).write_bytes(b"")
    info = data.data_info(folder)
    assert info["folder"] == folder
    assert list(info["files"]) == NAMES
    assert info["files"][NAMES[0]] == "missing" and "empty" in info["files"][NAMES[1]]
    assert info["files"][NAMES[2]] == info["files"][NAMES[3]] == "ok"
    assert set(data.data_info(folder / "nowhere")["files"].values()) == {"missing"}


@pytest.mark.parametrize(
    "content, words",
    [
        (FILES[NAMES[1]][:-9], "ends too early"),
        (FILES[NAMES[1]][:-8] + b"\0\0\0\0" + FILES[NAMES[1]][-4:], "damaged"),
        (b"", "empty"),
        (b"<!DOCTYPE html><p>404", "web page"),
        (b"\x89PNG", "not a gzip file"),
        (packed(idx(LABELS[::-1])), "other data"),
        (idx(LABELS), "it is unpacked"),
        (gzip.compress(idx(LABELS), 1, mtime=1), "the right data, but was packed again"),
        (packed(idx(LABELS)[:9]) + packed(idx(LABELS)[9:]), "right data.* packed again"),
        (packed(idx(LABELS) + bytes(7)), "right data and 7 bytes more, but was packed again"),
        (FILES[NAMES[1]] + bytes(512), "begins with the official file, and 512 bytes follow"),
        (FILES[NAMES[1]] + b"!", "begins with the official file, and 1 bytes follow"),
        (FILES[NAMES[1]][:-9] + bytes(9), "damaged"),
        (packed(FILES[NAMES[1]]), "the official file, packed once more"),
        (FILES[NAMES[3]], f"the official {NAMES[3]}, under another name"),
        (gzip.compress(idx(TEST_LABELS), mtime=1), f"the data of {NAMES[3]}, but was packed again"),
    ],
)
def test_a_wrong_checksum_is_explained_and_the_file_kept(folder, content, words):
    path = folder / NAMES[1]
    path.write_bytes(content)
    with pytest.raises(data.WrongFile) as error:
        data.load_fashion_mnist(8, root=folder)
    assert re.search(words, str(error.value))
    for part in [str(path), md5(FILES[NAMES[1]]), md5(content), "Delete the file"]:
        assert part in str(error.value)
    assert path.read_bytes() == content
    assert not isinstance(error.value, data.DatasetNotFound)  # no reason for the stand-in


@pytest.mark.skipif("FASHION_MNIST_ROOT" not in os.environ, reason="no Fashion-MNIST here")
@pytest.mark.parametrize("name", NAMES)
def test_the_official_data_are_recognized(name):
    official = Path(ROOT, name).read_bytes()
    assert UNPACKED[name][0] == len(gzip.decompress(official))
    assert UNPACKED[name][1] == md5(gzip.decompress(official))


def test_mxnets_own_files_are_recognized(folder, monkeypatch):
    repacked = gzip.compress(idx(IMAGES), mtime=1)
    monkeypatch.setitem(data.MXNET_SHA1, NAMES[0], hashlib.sha1(repacked).hexdigest())
    (folder / NAMES[0]).write_bytes(repacked)
    with pytest.raises(data.WrongFile, match="MXNet's own"):
        data.load_fashion_mnist(8, root=folder)


def test_the_sums_of_mxnets_files_are_those_in_mxnet():
    import inspect

    source = inspect.getsource(mx.gluon.data.vision.FashionMNIST.__init__)
    for name, sha1 in data.MXNET_SHA1.items():
        assert name in source and sha1 in source


@pytest.mark.parametrize(
    "name, content, words",
    [  # files whose checksum is right
        (NAMES[0], FILES[NAMES[0]][:-9], "cannot be unpacked"),
        (NAMES[0], b"\0\0\x08\x03", "cannot be unpacked"),
        (NAMES[0], packed(b"\0\0\x08\x03\0\0"), "shorter than its header"),
        (NAMES[0], packed(idx(IMAGES, magic=b"\x01\0")), "starts with 0100"),
        (NAMES[0], packed(idx(IMAGES, kind=0x0D)), "type 0x0d"),
        (NAMES[0], packed(idx(IMAGES, rank=1)), "rank 1, expected 3"),
        (NAMES[1], packed(idx(LABELS, rank=2)), "rank 2, expected 1"),
        (NAMES[0], packed(idx(IMAGES) + b"\0"), r"18033 bytes of data.*\(23, 28, 28\).*18032"),
        (NAMES[0], packed(idx(IMAGES)[:-1]), r"18031 bytes of data.*18032"),
        (NAMES[0], packed(idx(IMAGES, shape=(TRAIN, 14, 56))), "14 x 56.*expected 28 x 28"),
        (NAMES[0], packed(idx(IMAGES[1:])), "22 images.*23 labels"),
        (
            NAMES[1],
            packed(idx(np.where(LABELS == 8, 10, LABELS).astype(np.uint8))),
            "label 10 at position 4, expected 0 to 9",
        ),
    ],
)
def test_every_field_of_the_header_is_checked(folder, monkeypatch, name, content, words):
    (folder / name).write_bytes(content)
    monkeypatch.setitem(data.MD5, name, md5(content))
    with pytest.raises(data.WrongFile, match=words) as error:
        data.load_fashion_mnist(8, root=folder)
    assert name in str(error.value)


def test_a_folder_in_place_of_a_file_and_a_file_in_place_of_the_folder(folder, tmp_path):
    (folder / NAMES[2]).unlink()
    (folder / NAMES[2]).mkdir()
    with pytest.raises(data.WrongFile, match=f"{NAMES[2]} cannot be read as a file"):
        data.load_fashion_mnist(8, root=folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(data.DatasetError, match="needs a folder"):
        data.load_fashion_mnist(8, root=tmp_path / "file")


# Downloads ----------------------------------------------------------------------------------------


class Server:
    """A web server on this machine that plays a script: for each file, what goes wrong in turn."""

    def __init__(self):
        self.script, self.requests = {}, []
        self.half_sent, self.go_on = threading.Event(), threading.Event()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.rsplit("/", 1)[-1]
                server.requests.append(name)
                acts = server.script.get(name, [])
                try:
                    getattr(server, acts.pop(0) if acts else "works")(self, FILES[name])
                except OSError:
                    pass  # the client is gone, as some tests want it

            def log_message(self, *arguments):
                pass

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.httpd.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.httpd.server_port}/some/folder"
        threading.Thread(target=self.httpd.serve_forever, args=(0.02,), daemon=True).start()

    def send(self, handler, content, length=None, encoding=None):
        handler.send_response(200)
        handler.send_header("Content-Length", str(length or len(content)))
        if encoding:
            handler.send_header("Content-Encoding", encoding)
        handler.end_headers()
        handler.wfile.write(content)

    def works(self, handler, content):
        self.send(handler, content)

    def fails(self, handler, content):
        handler.send_error(500)

    def lacks(self, handler, content):
        handler.send_error(404)

    def truncates(self, handler, content):
        self.send(handler, content[: len(content) // 2], len(content))

    def truncates_silently(self, handler, content):
        self.send(handler, content[: len(content) // 2])

    def lies(self, handler, content):
        self.send(handler, content[:-1] + b"!")

    def calls_it_encoded(self, handler, content):
        self.send(handler, content, encoding="gzip")

    def encodes(self, handler, content):
        self.send(handler, packed(content), encoding="gzip")

    def deflates(self, handler, content):
        self.send(handler, zlib.compress(content), encoding="deflate")

    def encodes_in_secret(self, handler, content):
        self.send(handler, packed(content), encoding="identity")

    def encodes_in_chunks(self, handler, content):
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("Content-Encoding", "GZIP")
        handler.end_headers()
        for part in (content[:20], content[20:]):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        handler.wfile.write(b"0\r\n\r\n")

    def unpacks(self, handler, content):
        self.send(handler, gzip.decompress(content), encoding="identity")

    def shows_a_page(self, handler, content):
        self.send(handler, b"\n<html><body>Please log in to the network", encoding="gzip")

    def says_less(self, handler, content):
        self.send(handler, content, length=len(content) - 5)

    def redirects(self, handler, content):
        handler.send_response(302)
        handler.send_header("Location", self.url + "/elsewhere/" + handler.path.rsplit("/", 1)[-1])
        handler.end_headers()

    def hangs_up(self, handler, content):
        handler.connection.shutdown(socket.SHUT_RDWR)

    def hangs(self, handler, content):
        time.sleep(0.6)
        self.send(handler, content)

    def stops_halfway(self, handler, content):
        self.send(handler, content[: len(content) // 2], len(content))
        handler.wfile.flush()
        self.half_sent.set()
        self.go_on.wait(10)


@pytest.fixture
def server(monkeypatch):
    it = Server()
    monkeypatch.setenv("FASHION_MNIST_URL", it.url)
    yield it
    it.go_on.set()
    it.httpd.shutdown()
    it.httpd.server_close()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_plain_download_fills_the_folder(server, tmp_path, capfd):
    train_iter, _ = data.load_fashion_mnist(8, root=tmp_path / "new" / "folder")
    assert sorted(one_pass(train_iter)) == list(range(TRAIN))
    assert contents(tmp_path / "new" / "folder") == FILES  # and no temporary file is left
    assert server.requests == NAMES
    assert "100%" in capfd.readouterr().err  # the progress bar
    data.load_fashion_mnist(8, root=tmp_path / "new" / "folder")
    assert server.requests == NAMES  # a second time needs no server
    mode = (tmp_path / "new" / "folder" / NAMES[0]).stat().st_mode
    assert mode & 0o444 == 0o444  # readable by the whole class


def test_only_what_is_missing_is_downloaded(server, folder):
    (folder / NAMES[2]).unlink()
    data.load_fashion_mnist(8, root=folder)
    assert server.requests == [NAMES[2]] and contents(folder) == FILES


@pytest.mark.parametrize(
    "act", ["calls_it_encoded", "encodes", "deflates", "encodes_in_secret", "encodes_in_chunks"]
)
def test_packing_for_the_way_is_told_from_that_of_the_file(server, tmp_path, act):
    server.script = {name: [act] for name in NAMES}
    data.fetch(tmp_path)
    assert contents(tmp_path) == FILES and server.requests == NAMES
    server.script = {name: ["redirects", act] for name in NAMES}
    data.fetch(tmp_path / "again")
    assert contents(tmp_path / "again") == FILES


@pytest.mark.parametrize(
    "acts",
    [
        ["fails"],
        ["truncates"],
        ["truncates_silently"],
        ["lies"],
        ["hangs_up"],
        ["hangs"],
        ["fails", "truncates", "lies"],
    ],
)
def test_a_broken_download_is_started_again(server, monkeypatch, tmp_path, acts):
    if "hangs" in acts:  # the others answer, but on a busy machine not in so short a time
        monkeypatch.setattr(data.download, "STALL_SECONDS", 0.3)
    server.script = {name: list(acts) for name in NAMES}
    data.fetch(tmp_path)
    assert {name: content for name, content in contents(tmp_path).items() if name in FILES} == FILES
    assert server.requests == [name for name in NAMES for _ in range(len(acts) + 1)]


@pytest.mark.parametrize(
    "act, reason, requests",
    [
        ("fails", "500", 4),
        ("lacks", "404", 1),
        ("truncates", "Incomplete", 4),
        ("lies", "does not match the known hash: it is damaged", 4),
        ("hangs", "timed out", 2),
        ("unpacks", "it is unpacked", 4),
        ("shows_a_page", "a web page", 4),
        ("says_less", "ends too early", 4),
    ],
)
def test_a_mirror_that_never_works_is_given_up(
    server, monkeypatch, tmp_path, act, reason, requests
):
    if act == "hangs":
        monkeypatch.setattr(data.download, "STALL_SECONDS", 0.2)
    server.script = {NAMES[0]: [act] * 20}
    with pytest.raises(data.DatasetNotFound) as error:
        data.fetch(tmp_path)
    for part in [server.url, reason, str(tmp_path), "FASHION_MNIST_ROOT", "FASHION_MNIST_URL"]:
        assert part in str(error.value)
    assert len(server.requests) == requests
    assert contents(tmp_path) == {}  # nothing that a later run could believe


def test_the_next_mirror_is_asked(server, monkeypatch, tmp_path):
    other = Server()
    monkeypatch.setattr(data.download, "MIRRORS", (other.url,))
    server.script = {NAMES[0]: ["fails"], NAMES[1]: ["lacks"]}
    data.fetch(tmp_path)
    assert contents(tmp_path) == FILES
    assert server.requests == NAMES[:2]  # after the 404 nothing more is asked there
    assert other.requests == NAMES
    assert data.mirrors() == [server.url + "/", other.url + "/"]  # the student's own one first


def closed_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


def test_a_dead_network_fails_at_once_and_names_every_mirror(monkeypatch, tmp_path):
    dead = [f"http://127.0.0.1:{closed_port()}/a/", "http://no.such.host.invalid/b/"]
    monkeypatch.setattr(data.download, "MIRRORS", dead)
    monkeypatch.setenv("FASHION_MNIST_URL", "ftp://somewhere/c")
    start = time.perf_counter()
    with pytest.raises(data.DatasetNotFound) as error:
        data.load_fashion_mnist(8, root=tmp_path / "typo")
    assert time.perf_counter() - start < 10
    for part in [*dead, "ftp://somewhere/c/", "http:// or https://", *NAMES, "stand_in=True"]:
        assert part in str(error.value)
    assert not (tmp_path / "typo").exists()


def test_a_network_that_swallows_everything_fails_in_seconds(monkeypatch, tmp_path):
    assert (len(subprocess_mirrors()) + 1) * data.download.KNOCK_SECONDS <= 20

    def swallow(*_, **__):
        threading.Event().wait(6)
        raise OSError("at last")

    monkeypatch.setattr(data.download, "socket", SimpleNamespace(create_connection=swallow))
    monkeypatch.setattr(data.download, "KNOCK_SECONDS", 0.2)
    monkeypatch.setattr(data.download, "MIRRORS", ("http://127.0.0.1:1/", "http://127.0.0.1:2/"))
    start = time.perf_counter()
    with pytest.raises(data.DatasetNotFound, match="no answer within 0.2 seconds"):
        data.fetch(tmp_path)
    assert time.perf_counter() - start < 3


def subprocess_mirrors():
    """The built-in list, which `small_world` has emptied here."""
    code = "import json; from gluon_bn import data; print(json.dumps(data.MIRRORS))"
    return json.loads(subprocess.check_output([sys.executable, "-c", code]))


def test_a_folder_that_cannot_be_written_to(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(data.DatasetNotFound, match="cannot be written"):
        data.fetch(tmp_path / "file" / "data")


def test_a_wrong_file_in_the_cache_is_announced_and_replaced(server, tmp_path):
    cache = write(tmp_path / "mxnet" / "datasets" / "fashion-mnist", {NAMES[0]: b"rubbish"})
    server.script = {NAMES[0]: ["lacks"]}
    with pytest.warns(UserWarning, match=NAMES[0]), pytest.raises(data.DatasetNotFound):
        data.fetch()
    assert (cache / NAMES[0]).read_bytes() == b"rubbish"  # kept until there is a better one
    with pytest.warns(UserWarning, match="Downloading it again"):
        data.fetch()
    assert contents(cache) == FILES


def test_a_wrong_file_in_a_folder_of_yours_is_not_replaced(server, folder, monkeypatch):
    (folder / NAMES[0]).write_bytes(b"mine")
    monkeypatch.setenv("FASHION_MNIST_ROOT", str(folder))
    for root in (None, folder):
        with pytest.raises(data.WrongFile):
            data.fetch(root)
    assert server.requests == [] and (folder / NAMES[0]).read_bytes() == b"mine"


def fetch_elsewhere(folder):
    """`fetch(folder)` in a process of its own, with the small files as the official ones."""
    code = (
        "import sys, json; from gluon_bn import data; data.download.MIRRORS = ();"
        "data.MD5.update(json.loads(sys.argv[1])); data.fetch(sys.argv[2])"
    )
    sums = json.dumps({name: md5(content) for name, content in FILES.items()})
    return subprocess.Popen(
        [sys.executable, "-c", code, sums, str(folder)], stderr=subprocess.DEVNULL
    )


def test_two_processes_at_once(server, tmp_path):
    server.script = {name: ["hangs", "hangs"] for name in NAMES}
    processes = [fetch_elsewhere(tmp_path) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert contents(tmp_path) == FILES
    assert len(server.requests) > len(NAMES)  # they did overlap


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_a_download_that_is_killed_leaves_nothing_to_believe(server, tmp_path, blow):
    server.script = {NAMES[1]: ["stops_halfway"]}
    process = fetch_elsewhere(tmp_path)
    assert server.half_sent.wait(30)
    time.sleep(0.1)
    process.send_signal(blow)
    assert process.wait(30) != 0
    server.go_on.set()
    assert {name for name in contents(tmp_path) if name in FILES} == {NAMES[0]}
    if blow == signal.SIGINT:
        assert set(contents(tmp_path)) == {NAMES[0]}  # Ctrl-C clears up, too
    data.fetch(tmp_path)
    assert {name: contents(tmp_path)[name] for name in NAMES} == FILES


# The stand-in -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def garments():
    return standin.generate(3000, 1000)


def test_the_stand_in_has_fashion_mnists_shapes_and_balance(garments):
    train_images, train_labels, test_images, test_labels = garments
    assert train_images.shape == (3000, 28, 28) and test_images.shape == (1000, 28, 28)
    assert train_images.dtype == test_images.dtype == np.uint8
    assert train_labels.dtype == test_labels.dtype == np.int32
    assert np.bincount(train_labels).tolist() == [300] * 10
    assert np.bincount(test_labels).tolist() == [100] * 10
    assert len(set(train_labels[:10])) < 10 or list(train_labels[:10]) != sorted(train_labels[:10])
    assert np.bincount(standin.generate(25, 4)[1], minlength=10).tolist() == [3] * 5 + [2] * 5


def test_the_stand_in_is_the_same_each_time_and_no_image_comes_twice(garments):
    for a, b in zip(garments, standin.generate(3000, 1000)):
        np.testing.assert_array_equal(a, b)
    assert (standin.generate(100, 10, seed=1)[0] != standin.generate(100, 10)[0]).any()
    everything = np.concatenate([garments[0], garments[2]])
    assert len({image.tobytes() for image in everything}) == 4000


def test_the_stand_in_is_neither_hopeless_nor_trivial(garments):
    train_images, train_labels, test_images, test_labels = garments
    train, test = (images.reshape(len(images), -1) / 255 for images in (train_images, test_images))
    assert (train.max(axis=1) > 0.2).all()  # no image is empty
    means = np.stack([train[train_labels == label].mean(axis=0) for label in range(10)])
    distances = ((test[:, None] - means) ** 2).sum(axis=2)
    accuracy = (distances.argmin(axis=1) == test_labels).mean()
    assert 0.4 < accuracy < 0.85, accuracy  # the nearest mean image: 0.68 on Fashion-MNIST


def test_the_stand_in_is_given_only_when_asked_for_and_never_named_fashion_mnist():
    with pytest.raises(data.DatasetNotFound):
        data.load_fashion_mnist(256)
    drawn = data.dataset(stand_in=True)
    assert drawn.summary() == {"name": "stand-in", "train": 60_000, "test": 10_000}
    assert drawn.folder is None and "fashion" not in repr(drawn).lower()
    train_iter, test_iter = data.load_fashion_mnist(256, stand_in=True, limit=1000)
    assert (len(train_iter), len(test_iter)) == (4, 40)
    np.testing.assert_array_equal(drawn.train_images, data.dataset(stand_in=True).train_images)
    with pytest.raises(ValueError, match="read-only"):
        drawn.train_images[0] = 0
