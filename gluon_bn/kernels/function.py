"""A forward and a hand-written backward, put on MXNet's tape.

What `mxnet.autograd.Function` is for. Its `__call__` in MXNet 1.9.1 has two faults (python/mxnet/
autograd.py, `backward_entry`): it stops at the first input that wants no gradient, so those after
it get none, and it compares the request with the string 'add', so grad_req='add' adds nothing.
This one hands every gradient on as it was asked for.
"""

import atexit
import ctypes
import itertools
import os
import time
import traceback

from mxnet import autograd, nd
from mxnet.base import _LIB, MXCallbackList, NDArrayHandle, c_handle_array, check_call

NULL, WRITE, INPLACE, ADD = range(4)  # OpReqType of include/mxnet/op_attr_types.h

_BACKWARD = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.POINTER(ctypes.c_int),
    ctypes.c_int,
    ctypes.c_void_p,
)
_DELETE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
_PLAIN = ctypes.CFUNCTYPE(ctypes.c_int)

_alive: dict = {}  # what C still points to, by key
_done: list = []  # keys that C is done with; dropped later, for a callback must not free itself
_keys = itertools.count()

# A backward pass that is still under way when Python ends would call a Python that is no more, and
# the program would hang or abort.
atexit.register(nd.waitall)


def _before_fork():
    """MXNet ends its threads before a fork and waits for them, with Python's lock in its hand; a
    thread that is about to return from a callback needs that lock, and both would wait for ever."""
    nd.waitall()
    time.sleep(0.05)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)


def finish(arrays):
    """Wait until nothing reads or writes these arrays any more.

    What MXNet hands to a callback is lent for the length of the call: memory without an owner. An
    operation still waiting in the engine when the call returns would read what others then own.
    """
    for array in arrays:
        check_call(_LIB.MXNDArrayWaitToWrite(array.handle))


def differentiable(inputs, outputs, backward):
    """Tell the tape that `outputs` came from `inputs`, and how gradients go back.

    Parameters
    ----------
    inputs, outputs: sequences of NDArrays; outputs computed with recording paused.
    backward(wanted, into, *output_gradients): returns one gradient per input, None where not
        `wanted` (booleans). `into` has, for each input, the array to fill where it may be
        overwritten, else None; a gradient that was written there is returned as that array.
        MXNet calls it on a thread of its own.
    """
    if not autograd.is_recording():
        return
    key = next(_keys)
    while _done:
        _alive.pop(_done.pop(), None)
    held = [backward]

    def entry(n_out, n_in, pointers, requests, _is_train, _context):
        try:
            arrays = [
                nd.NDArray(ctypes.cast(pointers[i], NDArrayHandle), writable=i >= n_out)
                for i in range(n_out + n_in)
            ]
            requests = requests[:n_in]
            wanted = tuple(r != NULL for r in requests)
            into = tuple(a if r == WRITE else None for a, r in zip(arrays[n_out:], requests))
            with autograd.pause():
                gradients = held[0](wanted, into, *arrays[:n_out])
                if all(g is t for g, t, w in zip(gradients, into, wanted) if w):
                    return True  # written in place, nothing is under way
                for target, gradient, request in zip(arrays[n_out:], gradients, requests):
                    if request in (WRITE, INPLACE) and gradient is not target:
                        target[:] = gradient
                    elif request == ADD:
                        target += gradient
            finish(arrays)
            return True
        except Exception:  # C cannot catch it: say it here, and MXNet raises its own error
            traceback.print_exc()
            return False

    def delete(_context):
        held.clear()  # the arrays that backward kept go now, not at the next call
        _done.append(key)
        return True

    callbacks = [ctypes.cast(_BACKWARD(entry), _PLAIN), ctypes.cast(_DELETE(delete), _PLAIN)]
    record = MXCallbackList(
        len(callbacks),
        ctypes.cast((_PLAIN * len(callbacks))(*callbacks), ctypes.POINTER(_PLAIN)),
        ctypes.cast((ctypes.c_void_p * len(callbacks))(), ctypes.POINTER(ctypes.c_void_p)),
    )
    _alive[key] = (record, callbacks, entry, delete)
    check_call(
        _LIB.MXCustomFunctionRecord(
            len(inputs),
            c_handle_array(inputs),
            len(outputs),
            c_handle_array(outputs),
            ctypes.byref(record),
        )
    )
