"""The file from which a stopped run goes on as if it had never been stopped.

A checkpoint is an ordinary `.npz` file without any pickled object, so opening a stranger's runs no
code, and you can look inside: `numpy.load('runs/lenet/checkpoint').files`. It holds

    parameter/NAME      weights and running statistics, under the names of `save_parameters`
    optimizer/i/j       the optimizer's arrays for parameter i (none for plain SGD)
    optimizer/updates   how often each parameter was updated
    header              JSON: what the file is, its version, the epochs done, the place in the data,
                        the run's settings, the optimizer's plain numbers
    callback/NAME/...   what a callback keeps, averaged weights for example

The checkpoint before it stays beside it, as `checkpoint.previous`.

The zip format inside `.npz` keeps a checksum of each array and a directory at its end: a file that
was cut short or damaged is recognized, never believed.
"""

import errno
import io
import json
import os
import shutil
import zipfile
import zlib
from pathlib import Path

import numpy as np
from mxnet import nd

from gluon_bn import runtime
from gluon_bn.arguments import as_nd

WHAT, VERSION = "gluon_bn checkpoint", 2
ZIP = b"PK\3\4"  # how a zip file starts


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used; the message says why, and what to do."""


def pack(net, trainer):
    """The state of a network and its trainer: (dict of plain values, dict of NumPy arrays)."""
    updater, optimizer = _updater(trainer), trainer.optimizer
    runtime.settle()
    arrays = {
        f"parameter/{name}": parameter.data().asnumpy()
        for name, parameter in named_parameters(net).items()
    }
    for index, state in updater.states.items():
        for j, array in enumerate(_flat(state)):
            arrays[f"optimizer/{index}/{j}"] = array.asnumpy()
    counts = sorted(optimizer._index_update_count.items())
    arrays["optimizer/updates"] = np.array(counts, dtype=np.int64).reshape(-1, 2)
    # Some keep numbers in Python: Nadam's product of momenta is one.
    numbers = {
        name: value for name, value in vars(optimizer).items() if type(value) in (int, float)
    }
    return {"optimizer": numbers}, arrays


def write_checkpoint(path, header, arrays):
    """Write a dict of plain values and one of NumPy arrays to `path`.

    At every moment, whatever interrupts it, the file is complete: the old one or the new one.
    """
    header = json.dumps({"what": WHAT, "version": VERSION, **header})
    arrays = {**arrays, "header": np.frombuffer(header.encode(), dtype=np.uint8)}
    whole = io.BytesIO()  # NumPy leaves a zip open that a full disk cut short, and Python complains
    np.savez(whole, **arrays)
    write_atomically(path, lambda file: file.write(whole.getbuffer()), keep_previous=True)


def previous(path):
    """The path under which the checkpoint before the one at `path` is kept."""
    return Path(path).with_name(Path(path).name + ".previous")


def read_checkpoint(path):
    """Return `(header, arrays)`: a dict of plain values, and a dict of NumPy arrays.

    Raises FileNotFoundError, or CheckpointError for a file that is damaged, foreign or newer.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder, not a checkpoint.")
    with open(path, "rb") as file:
        start = file.read(4)
    try:
        if not (start and ZIP.startswith(start)):  # numpy.load would take a file of one array
            raise EOFError("it is empty") if not start else ValueError("not a zip file")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop("header").tobytes())
        is_ours = isinstance(header, dict) and header.get("what") == WHAT
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged or was cut short ({error}). {_advice(path)}"
        ) from error
    except (AttributeError, KeyError, ValueError):  # no zip, no header, or no JSON in it
        is_ours = False
    if not is_ours:
        raise CheckpointError(f"{path} is not a checkpoint of gluon_bn. {_advice(path)}")
    if header.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has version {header.get('version')} of the format, and this "
            f"program reads version {VERSION}. Use the gluon_bn that wrote it, "
            f"or start without --resume."
        )
    return header, arrays


def unpack(header, arrays, net, trainer):
    """Put what `pack` gave into an initialized network and its trainer.

    Raises CheckpointError, having changed nothing, if they are those of another network.
    """
    parameters = named_parameters(net)
    saved = under("parameter", arrays)
    expected = {name: tuple(p.shape) for name, p in parameters.items()}
    found = {name: array.shape for name, array in saved.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise CheckpointError(
                f"the checkpoint is of another network: parameter {name} has "
                f"shape {found.get(name, 'none')} there and "
                f"{expected.get(name, 'none')} here."
            )
    for name, parameter in parameters.items():
        set_value(parameter, saved[name])

    updater, optimizer = _updater(trainer), trainer.optimizer
    for index, count in arrays["optimizer/updates"].tolist():
        weight = trainer._params[index].data()
        # A new state has the right structure; the saved numbers go into its arrays.
        state = optimizer.create_state_multi_precision(index, weight)
        for j, array in enumerate(_flat(state)):
            array[:] = arrays[f"optimizer/{index}/{j}"]
        updater.states[index], updater.states_synced[index] = state, True
        optimizer._index_update_count[index] = count
    for name, value in header["optimizer"].items():
        setattr(optimizer, name, value)


def under(prefix, arrays):
    """Those arrays whose names begin with `prefix/`, without it."""
    start = f"{prefix}/"
    return {name[len(start) :]: a for name, a in arrays.items() if name.startswith(start)}


def named_parameters(net):
    """`{name: Parameter}` with the names of `save_parameters`, such as '0.weight' and '1.gamma'.

    They follow from the structure alone. (`Parameter.name` counts the networks made before.)
    """
    return net._collect_params_with_prefix()


def set_value(parameter, value):
    """Write a NumPy array into an initialized parameter, of `mx.nd` or of `mx.np`."""
    for array in parameter.list_data():
        as_nd(array)[:] = nd.array(value, dtype=value.dtype)


def write_atomically(path, write, keep_previous=False):
    """Call `write(file)` on a temporary file beside `path`, then give it that name.

    The rename comes after the bytes are on the disk, so even a power cut leaves the old file or the
    new one, complete. With `keep_previous` the old one gets a second name first: `previous(path)`.
    An OSError says which file it is about.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(path.parent))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if keep_previous and path.exists():
            _second_name(path, previous(path))
        os.replace(temporary, path)
    except BaseException as error:  # also Ctrl-C
        temporary.unlink(missing_ok=True)
        if getattr(error, "errno", None) and error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise


def _second_name(path, other):
    """Make `other` name the file that `path` names, without a moment at which either is missing."""
    link = other.with_name(f".{other.name}.{os.getpid()}.tmp")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # a USB stick's file system has no links
        shutil.copyfile(path, link)
    os.replace(link, other)


def _updater(trainer):
    """The part of a Gluon Trainer that holds the optimizer's state; one per device."""
    if len(trainer._updaters) != 1:
        raise CheckpointError("checkpoints are written for training on one device only.")
    return trainer._updaters[0]


def _flat(state):
    """The arrays in an optimizer's state, which is None, an array, or a tuple of states."""
    if state is None:
        return []
    if isinstance(state, (tuple, list)):
        return [array for part in state for array in _flat(part)]
    return [state]


def _advice(path):
    before = previous(path)
    if before.exists():
        return (
            f"The one before it is {before.name}: give that file the name {path.name} and "
            f"--resume goes on from there; or start without --resume."
        )
    return f"Start without --resume, or move {path.name} away."
