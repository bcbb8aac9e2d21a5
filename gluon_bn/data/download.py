"""Downloading Fashion-MNIST: several mirrors in turn, whole files or none, and why it failed.

pooch retrieves a file: it writes to a temporary one, compares the checksum and only then renames
it, so that, whenever this is interrupted, and however many processes do it at once, a file of the
right name is complete. What pooch leaves to its callers is here: it knows one address of a file
(we have several, and patience with each), waits as long as the operating system does for a host
that never answers, and believes a `Content-Encoding` that some servers put on what is not encoded.
"""

import contextlib
import os
import socket
import threading
import time
import zlib
from pathlib import Path
from urllib.parse import urlsplit

from .files import MD5, DatasetNotFound, diagnosis, md5

MIRRORS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",  # the authors' own
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",  # the one Keras uses
)
PATIENCE = 4  # how many failures in a row we forgive a mirror that answers
KNOCK_SECONDS = 4  # a mirror that has not answered by then is left alone
STALL_SECONDS = 8  # a download that brings nothing for so long is broken


def mirrors():
    """Where we download from, in order: `$FASHION_MNIST_URL` first, if it is set.

    Returns
    -------
    list of str

    Examples
    --------
    >>> data.mirrors()[-1]
    'https://storage.googleapis.com/tensorflow/tf-keras-datasets/'
    """
    own = os.environ.get("FASHION_MNIST_URL")
    urls = (own, *MIRRORS) if own else MIRRORS
    return [url.rstrip("/") + "/" for url in urls]


class _Mirror:
    """A place to download from, and how much patience we have left with it."""

    def __init__(self, url):
        self.url, self.patience, self.reason = url, PATIENCE, None
        self.known = False  # whether somebody has answered there

    def fail(self, reason, cost):
        self.reason, self.patience = reason, self.patience - cost


def download(names, folder):
    """Download files into a folder, going round the mirrors until each is there and right.

    Raises `DatasetNotFound`, with what each mirror said, once we have lost patience with all.
    """
    places = [_Mirror(url) for url in mirrors()]
    try:
        for name in names:
            pause = 0.5
            while not any(_try(mirror, name, folder) for mirror in places):
                if all(mirror.patience <= 0 for mirror in places):
                    raise _not_found(names, folder, [(m.url, m.reason) for m in places])
                time.sleep(pause)
                pause = min(2 * pause, 4)
    except OSError as error:  # no network error, which _try deals with
        raise _not_found(names, folder, [(folder, f"cannot be written: {error}")]) from error


def _try(mirror, name, folder):
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
    import pooch
    from tqdm.auto import tqdm

    def as_sent(response, **_):
        response.raw.headers.pop("Content-Encoding", None)  # or it would be unpacked on its way
        bar.leave = response.ok

    name = url.rsplit("/", 1)[-1]
    # pooch sets the total; a bar of tqdm that has none yet is neither true nor false.
    with tqdm(desc=name, total=1, unit="B", unit_scale=True, leave=False) as bar:
        pooch.HTTPDownloader(
            progressbar=bar,
            chunk_size=2**16,
            timeout=STALL_SECONDS,
            headers={"Accept-Encoding": "identity"},
            hooks={"response": as_sent},
        )(url, output_file, _pooch)
    content = Path(output_file).read_bytes()
    if md5(content) == MD5[name]:
        return
    with contextlib.suppress(zlib.error):
        unpacked = zlib.decompress(content, wbits=47)  # gzip or deflate
        if md5(unpacked) == MD5[name]:
            Path(output_file).write_bytes(unpacked)
            return
    raise ValueError(f"what was sent does not match the known hash: {diagnosis(name, content)}")


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
