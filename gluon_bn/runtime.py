"""How fast MXNet runs on this machine: its threads and its memory. And which machine this is.

Importing the package changes nothing; a program says so once, before it computes::

    from gluon_bn import runtime
    runtime.configure()

The command line does it for you. Two defaults of MXNet 1.9.1 cost LeNet about half of its speed on
a small machine, and both can be mended while the program runs:

* **Threads.** On x86 processors MXNet computes with half of the cores. (Its own switch for this,
  `MXSetNumOMPThreads`, changes only the thread that calls it, and that is never the thread which
  computes.)
* **Memory.** glibc takes a large buffer from the operating system and returns it as soon as it is
  free. Each activation of each batch is then new memory, which the system fills with zeros first.

No program can mend two things itself. Where it had threads before, as Jupyter's kernels have, those
of MXNet may allocate from a part of the heap that returns its memory all the same, and a layer
takes up to twice its time: set `MALLOC_ARENA_MAX=1` before the program starts, as `make lab` does.
And a forked child (`multiprocessing` with 'fork', the default of Linux before Python 3.14) has none
of its parent's OpenMP threads, and MXNet's convolutions wait for them for ever, if the parent
computed with more than one. Our kernels do not. Start such children with 'spawn', or compute with
one thread.
"""

from __future__ import annotations

import ctypes
import os
import platform
import time

# Names and numbers from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_MADV_HUGEPAGE = 14
_LARGE, _LARGEST_OLD = 2**30, 2**25  # bytes; glibc before 2.35 takes no more than the second


def configure(threads: int | None = None) -> dict:
    """Use all cores and keep freed memory.

    Call it once, before anything is computed. A later call may lower the number but must not raise
    it: oneDNN keeps, by shape, the scratch memory it prepared for the smaller number of threads,
    and more threads write past its end. For another number start another process.

    Parameters
    ----------
    threads : int, how many threads compute, or None: what `OMP_NUM_THREADS` says, else all cores
        More threads than cores make MXNet slower, not faster.

    Returns
    -------
    dict, `describe()`: the record of what is set

    Raises
    ------
    TypeError, ValueError : threads is no number from 1 up

    Examples
    --------
    >>> sorted(runtime.configure(threads=1))
    ['allocator', 'cores', 'cpu', 'platform', 'threads']
    """
    if threads is not None:
        from gluon_bn.arguments import check_count

        check_count("threads", threads, least=1)
    if threads is None and not os.environ.get("OMP_NUM_THREADS"):
        threads = cores()
    # Asked now, because it is remembered: under Python 3.9 it starts a program, and after a fork
    # MXNet starts its threads anew, with the number it likes.
    platform.platform()
    global _allocator, _configured
    # First, because a thread keeps the arena that its first allocation gave it: the engine's own
    # threads must not have computed anything before there is only one.
    _allocator = _keep_freed_memory()
    if threads is not None:
        # On both sides of the engine: some operators (Gluon's BatchNorm backward is one) measure
        # their scratch memory on the thread that calls them and fill it on the one that computes.
        # With fewer threads here than there they write past its end.
        _on_this_thread("omp_set_num_threads", threads)
        _in_engine(_openmp("omp_set_num_threads"), threads)
        _configured = threads
    if _allocator != "default" and not _in_engine(_in_first_arena):
        _allocator = "glibc, freed memory may be returned"
    return describe()


def settle() -> None:
    """Wait until everything is computed that MXNet was asked for. Before weights are read.

    In prediction a convolution or a dense layer of oneDNN rearranges its weights, once it has used
    them, into a layout of its own. Whoever reads them meanwhile (`asnumpy`, `save_parameters`) gets
    the right numbers in the wrong order: MXNet 1.9.1 does not make him wait. It is rare, one
    network in some hundreds on a busy machine, and cannot happen once the result of the prediction
    has been read.

    And with `hybridize(static_alloc=True, static_shape=True)` MXNet forgets that batch norm,
    Gluon's or the native kernel, writes to its running statistics: whoever reads them right after a
    forward pass may get those of before.

    Examples
    --------
    >>> runtime.settle()
    """
    import mxnet as mx

    mx.nd.waitall()


def describe() -> dict:
    """What a record of a run says of the machine.

    Returns
    -------
    dict of plain values

    Examples
    --------
    >>> sorted(runtime.describe())
    ['allocator', 'cores', 'cpu', 'platform', 'threads']
    """
    return {
        "threads": threads(),
        "cores": cores(),
        "allocator": _allocator,
        "cpu": _cpu_name(),
        "platform": platform.platform(),
    }


def versions() -> dict[str, str]:
    """The versions that decide what a run computes, for `metrics.json`.

    Returns
    -------
    dict, name -> version

    Examples
    --------
    >>> sorted(runtime.versions())
    ['gluon_bn', 'mxnet', 'numpy', 'python']
    """
    import mxnet
    import numpy

    from gluon_bn import __version__

    return {
        "gluon_bn": __version__,
        "mxnet": mxnet.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }


def cores() -> int:
    """How many cores this process may use; fewer than the machine has, under taskset or a quota.

    Returns
    -------
    int

    Examples
    --------
    >>> runtime.cores() >= 1
    True
    """
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        count = os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:  # a container's quota
            quota, period = file.read().split()
        count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or the word 'max': no quota
        pass
    return count


def busy_cores(seconds: float = 0.2) -> float:
    """How many cores other programs keep busy now.

    OpenMP's threads wait for each other by spinning. When another program takes the core of one,
    the others spin in vain: two threads on two cores train LeNet ten times slower beside a busy
    program, and one thread hardly notices it.

    Parameters
    ----------
    seconds : float, for how long it looks

    Returns
    -------
    float; 0 where that cannot be found out

    Examples
    --------
    >>> runtime.busy_cores(seconds=0.01) >= 0
    True
    """

    def ticks():
        with open("/proc/stat", encoding="ascii") as file:
            numbers = [int(word) for word in file.readline().split()[1:9]]
        idle = numbers[3] + numbers[4]  # idle, and waiting for a disk
        return sum(numbers) - idle, sum(numbers)

    try:
        busy, total = ticks()
        time.sleep(seconds)
        busy_after, total_after = ticks()
        return (busy_after - busy) / (total_after - total) * (os.cpu_count() or 1)
    except (OSError, ValueError, IndexError, ZeroDivisionError):  # not Linux
        return 0.0


def own_threads() -> int:
    """How many threads loops of our own (the fused kernel's) should share: as many as MXNet was
    given, or what `OMP_NUM_THREADS` says, or one for each core.

    Returns
    -------
    int

    Examples
    --------
    >>> 1 <= runtime.own_threads() <= runtime.cores()
    True
    """
    global _configured
    if _configured is None:
        asked = os.environ.get("OMP_NUM_THREADS", "")
        _configured = min(int(asked) if asked.isdigit() and int(asked) else cores(), cores())
    return _configured


_configured: int | None = None


def threads() -> int | None:
    """How many threads MXNet's operators compute with.

    Returns
    -------
    int, or None where that cannot be found out

    Examples
    --------
    >>> runtime.threads() in (None, *range(1, 1000))
    True
    """
    return _in_engine(_openmp("omp_get_max_threads"))


# MXNet's worker thread ----------------------------------------------------------------------------


def _in_engine(function, *arguments):
    """Call a function on the thread that runs MXNet's CPU operators; return its result, or None
    if there is no function.

    OpenMP keeps the number of threads per calling thread. Operators are called by a worker thread
    of MXNet's engine, so the number has to be set there: we push a call into the engine like any
    operator, and wait for it.
    """
    import mxnet
    from mxnet.base import _LIB, check_call

    if function is None:
        return None
    result = []

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
    def call(_context, _argument):
        result.append(function(*arguments))

    cpu = (ctypes.c_int * 3)(1, 0, 0)  # struct Context: device type 1 is the CPU, device 0
    normal = ctypes.c_int(0)  # FnProperty::kNormal, the queue of ordinary operators
    check_call(
        _LIB.MXEnginePushSync(
            call,
            None,
            None,
            ctypes.byref(cpu),
            None,
            0,
            None,
            0,
            ctypes.byref(normal),
            0,
            b"gluon_bn.runtime",
        )
    )
    mxnet.nd.waitall()
    return result[0]


def _on_this_thread(name, *arguments):
    """Call a function of OpenMP on the calling thread."""
    function = _openmp(name)
    return None if function is None else function(*arguments)


def _openmp(name):
    """A function of the OpenMP library that MXNet is linked to, no other one; None without it."""
    from mxnet.base import _LIB

    return getattr(_LIB, name, None)


# Memory -------------------------------------------------------------------------------------------

_allocator = "default"


def _keep_freed_memory():
    """Tell glibc to keep freed buffers for the next batch; elsewhere do nothing. Say which."""
    if platform.libc_ver()[0] != "glibc":
        return "default"
    mallopt = ctypes.CDLL(None).mallopt
    # One arena: the others return their memory whatever the thresholds say.
    kept = (
        mallopt(_M_ARENA_MAX, 1)
        and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        and (mallopt(_M_MMAP_THRESHOLD, _LARGE) or mallopt(_M_MMAP_THRESHOLD, _LARGEST_OLD))
    )
    if kept:
        _in_huge_pages()
    return "glibc, freed memory kept" if kept else "default"


def _in_first_arena():
    """Whether the calling thread allocates from glibc's first arena, the one that keeps memory.

    In front of each block stands its size, and in the size's third bit whether the block belongs to
    another arena.
    """
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    block = libc.malloc(ctypes.c_size_t(2**16))
    size = ctypes.c_size_t.from_address(block - ctypes.sizeof(ctypes.c_size_t)).value
    libc.free(ctypes.c_void_p(block))
    return not size & 4


def _in_huge_pages():
    """Ask Linux to keep the next gigabyte that is allocated in its large pages, of 2 MiB: the
    processor finds them faster, and so does MPI. Nothing is taken before it is used."""
    libc, page, size = ctypes.CDLL(None), 2**21, _LARGE - 2**21
    libc.malloc.restype = ctypes.c_void_p
    block = libc.malloc(ctypes.c_size_t(size))
    if block:  # not mapped by itself, so the heap keeps it after `free`
        start = -(-block // page) * page
        length = (block + size - start) // page * page
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_HUGEPAGE)
        libc.free(ctypes.c_void_p(block))


def _cpu_name():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
