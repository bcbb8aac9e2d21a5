"""MXNet's engine on a worker, and the sums of the whole batch within its operators.

MXNet computes on a thread of its own, and what does not depend on each other in any order. That is
in the way here. An operator that waits for the other workers keeps the thread, and if theirs wait
in the other of two parallel branches, all wait for ever. And a worker has few cores, which a thread
that calls and one that computes only share. So on a worker each operator is computed where it is
called (MXNet's `NaiveEngine`), in the same order on all workers, and the native kernel may ask the
others from inside.
"""

import contextlib
import ctypes
import os
import threading

ENGINE = "MXNET_ENGINE_TYPE"  # MXNet looks at it when it is to compute for the first time

_Operator = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)


def start_in_order():
    """Let MXNet compute where it is called, unless it has computed already or `MXNET_ENGINE_TYPE`
    says otherwise.

    Returns
    -------
    bool : whether it does
    """
    if os.environ.setdefault(ENGINE, "NaiveEngine") != "NaiveEngine":
        return False
    from mxnet.base import _LIB  # here: who asks for --help does not wait for MXNet

    threads = []
    operator = _Operator(lambda *_: threads.append(threading.get_ident()))
    place = (ctypes.c_int * 2)(1, 0)  # the CPU, number 0
    nothing = (None, None, ctypes.byref(place), None, 0, None, 0, None, 0, b"gluon_bn")
    with _without_a_word():
        _LIB.MXEnginePushSync(operator, *nothing)
        _LIB.MXNDArrayWaitAll()
    return threads == [threading.get_ident()]


@contextlib.contextmanager
def _without_a_word():
    """MXNet says on each worker which engine it takes, and no setting keeps it from that."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class _Workers(ctypes.Structure):
    """The struct of that name in kernels/native.cc."""

    _fields_ = (
        ("allreduce", ctypes.c_void_p),
        *((name, ctypes.c_ssize_t) for name in ("type", "op", "comm")),
        ("size", ctypes.c_int32),
        ("idle", ctypes.c_int32),
    )


def tell_native(world):
    """Let the native kernel add up over the workers of `world`.

    Returns
    -------
    None, or a ctypes structure whose `idle` has to follow `world.idle`. None: it must not or cannot
    """
    from gluon_bn.kernels import native

    if not world.in_order or native.available() is not None:
        return None
    from mpi4py import MPI

    try:
        allreduce = ctypes.CDLL(MPI.__file__).MPI_Allreduce
        told = native.library().gluon_bn_workers
        handles = [MPI._handleof(handle) for handle in (MPI.DOUBLE, MPI.SUM, world.comm.Dup())]
    except (AttributeError, OSError):
        return None
    workers = _Workers(ctypes.cast(allreduce, ctypes.c_void_p), *handles, world.size, world.idle)
    told(ctypes.byref(workers))
    return workers
