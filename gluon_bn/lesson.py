"""What every chapter starts with: threads, data, and the setting for a quick run.

::

    from gluon_bn import lesson
    lesson.start()                      # threads, figures in the notebook; says what it found
    data = lesson.fashion_mnist()       # Fashion-MNIST, or the stand-in, announced

Set `GLUON_BN_FAST=1` in the environment and the chapters use less data and fewer steps: they run
from end to end in seconds, to see that they run. Their numbers mean nothing then. The tests do so.
"""

import dataclasses
import json
import os
from pathlib import Path

FAST = os.environ.get("GLUON_BN_FAST", "") not in ("", "0")


def _folder(repository, package):
    """A folder of the repository, or where the installed package has a copy of it."""
    here = Path(__file__).resolve().parent
    return here.parent / repository if (here.parent / repository).is_dir() else here / package


RESULTS = _folder("benchmarks/results", "results")  # runs that are too long for a lesson
RECORDINGS = _folder("tests/golden/tf_contrib_batch_norm", "recordings")  # what TensorFlow computed


def start(threads=None):
    """Prepare a notebook: MXNet's threads and memory, figures in the page. Say what is set.

    Parameters
    ----------
    threads : int, how many threads compute; None is all cores, or `OMP_NUM_THREADS`
        Call it before anything is computed, and restart the notebook to change the number (see
        `gluon_bn.runtime.configure`).

    Examples
    --------
    >>> lesson.start(threads=1)  # doctest: +ELLIPSIS
    MXNet 1.9.1, Python ..., 1 thread on ...
    """
    from gluon_bn import runtime

    machine = runtime.configure(threads)
    shell = _notebook()
    if shell is not None:
        shell.run_line_magic("matplotlib", "inline")
        _silence_mxnet()
    versions = runtime.versions()
    setting = "; FAST setting, the numbers mean nothing" if FAST else ""
    n = machine["threads"]
    print(
        f"MXNet {versions['mxnet']}, Python {versions['python']}, {n} thread{'s' * (n != 1)} on "
        f"{machine['cores']} cores of {machine['cpu']}{setting}"
    )
    if machine["allocator"].endswith("returned"):
        print(
            "(Often twice as fast: MALLOC_ARENA_MAX=1 before Jupyter starts; `make lab` sets it.)"
        )


def choose(full, fast):
    """One setting for a chapter as it is read, another where `GLUON_BN_FAST` asks for a quick run.

    Parameters
    ----------
    full, fast : anything

    Returns
    -------
    full or fast

    Examples
    --------
    >>> lesson.choose(10, fast=1) == (1 if lesson.FAST else 10)
    True
    """
    return fast if FAST else full


def fashion_mnist(limit=None):
    """Fashion-MNIST, or, where it cannot be had, the stand-in. Prints which of the two it is.

    Parameters
    ----------
    limit : int, keep the first training images only; or None
        Where `GLUON_BN_FAST` is set, at most 2,000 of them and 1,000 for testing.

    Returns
    -------
    gluon_bn.data.Dataset

    Examples
    --------
    >>> lesson.fashion_mnist(limit=1000).train_images.shape  # doctest: +SKIP
    Fashion-MNIST: 1,000 training images, 10,000 test images
    (1000, 28, 28)
    """
    from gluon_bn import standin
    from gluon_bn.data import Dataset, DatasetNotFound, data_folder, dataset

    limit = min(limit or 60_000, 2_000) if FAST else limit
    try:
        data = dataset(limit=limit)
    except DatasetNotFound:
        print(
            f"*** Fashion-MNIST is not in {data_folder()} and could not be downloaded.\n"
            f"*** This notebook goes on with the STAND-IN: ten classes of drawn garments. Its\n"
            f"*** numbers are not those of Fashion-MNIST, nor those in the text."
        )
        if FAST:  # to draw all 70,000 takes three seconds
            data = Dataset("stand-in", None, *standin.generate(limit, 1_000))
        else:
            data = dataset(stand_in=True, limit=limit and min(limit, 60_000))
    if FAST:
        test = {name: getattr(data, name)[:1000] for name in ("test_images", "test_labels")}
        data = dataclasses.replace(data, **test)
    counts = data.summary()
    name = "Fashion-MNIST" if data.name == "fashion-mnist" else "stand-in data"
    print(f"{name}: {counts['train']:,} training images, {counts['test']:,} test images")
    return data


def recorded(name):
    """The content of a JSON file in `benchmarks/results`: runs too long for a lesson. Prints the
    command that wrote it and where it ran.

    Parameters
    ----------
    name : str, such as 'lenet.json'

    Returns
    -------
    dict

    Raises
    ------
    FileNotFoundError : there is no such record

    Examples
    --------
    >>> sorted(lesson.recorded("lenet.json"))  # doctest: +ELLIPSIS
    recorded in benchmarks/results/lenet.json by ...
    ['command', 'machine', 'recipe', 'runs']
    """
    path = RESULTS / name
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"There is no {name} in {RESULTS}. Recorded results come with the repository and with "
            f"the package; this one may be newer than the package."
        ) from None
    where = result.get("machine") or result.get("settings") or {}
    print(
        f"recorded in benchmarks/results/{name} by `{result.get('command', '?')}` on "
        f"{where.get('cpu', '?')}"
    )
    return result


def _silence_mxnet():
    """Keep what MXNet's C++ writes out of the page: notes on how its operators were made.

    They go straight to file descriptor 2, which IPython puts into the page as if it were an error;
    Python's own errors and warnings take another way.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _notebook():
    """IPython's shell, if we run in a notebook."""
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    shell = get_ipython()
    return shell if shell is not None and hasattr(shell, "kernel") else None
