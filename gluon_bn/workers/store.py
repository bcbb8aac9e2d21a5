"""Gradients added up over the workers: a store for `gluon.Trainer`, by MPI.

    trainer = gluon.Trainer(net.collect_params(), 'sgd', {'momentum': 0.9}, kvstore=world().store)

The Trainer gives every worker the parameters of the first one before its first step, and in each
step the sum of all gradients. Each worker then takes the same step with an optimizer of its own.
"""

import ctypes

import mxnet as mx
import numpy as np
from mxnet.base import _LIB, check_call

from gluon_bn.arguments import as_nd


class Store(mx.kvstore.KVStoreBase):
    """The sum over all workers of a `World`, as MXNet's Trainer asks for it.

    For one device a worker, float32 or float64 (the sum of float16 is rounded in float32).
    """

    type = "workers"  # the Trainer looks for the word 'dist' in it, and means its own servers

    def __init__(self, world):
        self.world = world

    rank = property(lambda self: self.world.rank)
    num_workers = property(lambda self: self.world.size)

    @staticmethod
    def is_capable(capability):
        """False: the optimizer runs on the workers, not here."""
        return False

    def broadcast(self, key, value, out, priority=0):
        """Write the first worker's `value` to `out`.

        Raises WorkersError, on all workers, if theirs differ in shape or type.
        """
        self.world.compare(parameter=(key, tuple(value.shape), np.dtype(value.dtype).name))
        _in_memory(_one(out), self.world.copy_first)

    def pushpull(self, key, value, out=None, priority=0):
        """Write the sum of all workers' `value` to `out`, or where it was."""
        value = _one(value)
        target = value if out is None else _one(out)
        if target is not value:
            target[:] = value
        _in_memory(target, self.world.add_up)


def _one(arrays):
    if not isinstance(arrays, (list, tuple)):
        return arrays
    if len(arrays) > 1:
        raise ValueError(
            f"a parameter is on {len(arrays)} devices, and a worker computes on one: start a "
            "worker for each"
        )
    return arrays[0]


def _in_memory(array, change):
    """change(numbers): what MPI does to the memory of an NDArray, which is ready for it."""
    kind = np.dtype(array.dtype)
    if array.context.device_type.startswith("cpu") and kind in (np.float32, np.float64):
        check_call(_LIB.MXNDArrayWaitToWrite(array.handle))
        pointer = ctypes.c_void_p()
        check_call(_LIB.MXNDArrayGetData(array.handle, ctypes.byref(pointer)))
        memory = (ctypes.c_char * (array.size * kind.itemsize)).from_address(pointer.value)
        change(np.frombuffer(memory, kind))
        return
    numbers = array.asnumpy().astype(np.promote_types(kind, np.float32))
    change(numbers)
    as_nd(array)[:] = mx.nd.array(numbers, ctx=array.context, dtype=array.dtype)
