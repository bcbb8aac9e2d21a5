"""The workers of one run: which one this is, how many there are, what all of them have to know.

A worker is a process. `mpiexec` or `srun` starts all of them with the same command, and MPI carries
what they tell each other. What is called here on one worker has to be called on all of them, in the
same order: they wait for each other.

MPI itself waits for ever for a worker that does not come. So what could differ is compared at the
start (`World.compare`), and a worker that ends before the others ends them, too.
"""

import atexit
import contextlib
import ctypes
import math
import os
import sys
import time

from gluon_bn.workers import engine

# How many workers a launcher says that it started: MPICH and its kin, Open MPI, Slurm.
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")

# The tests run more workers than there are cores. Nobody else should: MPI waits busily.
OVERSUBSCRIBE = "GLUON_BN_OVERSUBSCRIBE"

PATIENCE = 5  # seconds that a worker which is done waits for the others to be done

NO_MPI = (
    "several workers need mpi4py and an MPI, and {error}: pip install 'gluon-bn[workers]' brings "
    "both, mpi4py and MPICH"
)

EARLY = "Worker {} has ended before the others, so all of them end."


class WorkersError(RuntimeError):
    """The workers cannot start, or cannot go on together; the message says why."""


def world():
    """The `World` of this process. MPI starts with the first call, if a launcher started several.

    Call it before anything is computed: then MXNet computes in the same order on all workers, and
    synchronized layers of a hybridized network need no Python in the step (engine.py).

    Returns
    -------
    World

    Raises
    ------
    WorkersError : there should be several workers, and MPI does not work

    Examples
    --------
    >>> workers.world().size
    1
    """
    global _world
    if _world is None:
        _world = World(_communicator() if started() > 1 else None)
    return _world


_world = None


def started():
    """How many workers the launcher of this process started; 1 without a launcher."""
    return max(int(os.environ.get(name) or 1) for name in SIZES)


def _communicator():
    if "OMPI_COMM_WORLD_SIZE" in os.environ:  # the wheel of mpi4py would take MPICH if it is there
        os.environ.setdefault("MPI4PY_MPIABI", "openmpi")
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: mpi4py found no MPI
        raise WorkersError(NO_MPI.format(error=str(error).splitlines()[0])) from None
    if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        raise WorkersError(
            "this MPI does not let several threads talk (MPI_THREAD_MULTIPLE), and the backward "
            "pass of MXNet runs on threads of its own: pip install mpich brings one that does"
        )
    if MPI.COMM_WORLD.size != started():
        raise WorkersError(
            f"the launcher started {started()} workers, but MPI sees {MPI.COMM_WORLD.size}: "
            "mpiexec or srun belongs to another MPI than the one mpi4py uses, "
            f"{MPI.Get_library_version().splitlines()[0]}. Use the mpiexec beside "
            f"{sys.executable}, or srun --mpi=pmi2"
        )
    return MPI.COMM_WORLD


class World:
    """All workers of a run, seen from one of them: the one with `rank`, from 0, of `size`.

    `idle` says that this worker's part of the batch is empty (see `part`).

    Parameters
    ----------
    comm : MPI's communicator; None for a world of one

    Examples
    --------
    >>> alone = workers.World()
    >>> alone.rank, alone.gather(3)
    (0, [3])
    """

    rank, size, idle = 0, 1, False
    in_order = False  # whether MXNet computes each operator where it is called (engine.py)

    def __init__(self, comm=None):
        if comm is None:
            return
        self.rank, self.size = comm.rank, comm.size
        self.comm, self._leaving, self._failing = (comm.Dup() for _ in range(3))
        self.in_order, self._native = engine.start_in_order(), None
        self._excepthook, sys.excepthook = sys.excepthook, self._uncaught
        self.leave_first()

    @property
    def store(self):
        """What adds up gradients, for `gluon.Trainer`; None for a lone worker."""
        if self.size == 1:
            return None
        from gluon_bn.workers.store import Store

        return Store(self)

    def part(self, batch):
        """This worker's part of a batch, which is a sequence of arrays, X and y for instance.

        The parts differ by one example at most. A last batch may have fewer examples than there are
        workers. One that gets none computes on the first example, for the others wait for it in
        each layer, and is `idle`: it adds nothing to the statistics, and its loss has to be
        multiplied by zero.
        """
        if self.size == 1:
            return batch
        n = len(batch[0])
        first, last = n * self.rank // self.size, n * (self.rank + 1) // self.size
        self.idle = first == last
        if self._native:
            self._native.idle = self.idle
        return [array[0:1] if self.idle else array[first:last] for array in batch]

    def native_adds_up(self):
        """Whether the native kernel takes the statistics of all workers. Asked of all of them."""
        if self._native is None and self.size > 1:
            native = engine.tell_native(self)
            self._native = native if all(self.gather(bool(native))) else False
        return bool(self._native)

    def gather(self, value):
        """The list of what each worker passes, the same on all of them."""
        return [value] if self.size == 1 else self.comm.allgather(value)

    def add_up(self, values):
        """Replace the numbers of an array by their sums over all workers, the same to the bit."""
        if self.size > 1:
            from mpi4py import MPI

            self.comm.Allreduce(MPI.IN_PLACE, values)

    def copy_first(self, values):
        """Replace the numbers of an array by those of worker 0."""
        if self.size > 1:
            self.comm.Bcast(values)

    def compare(self, **facts):
        """Raise WorkersError on all workers unless all of them pass the same values."""
        everyone = self.gather(facts)
        for rank, theirs in enumerate(everyone):
            for name in [*everyone[0], *theirs]:
                if everyone[0].get(name) != theirs.get(name):
                    raise WorkersError(
                        f"the workers differ in {name}: worker 0 has "
                        f"{_difference(everyone[0].get(name), theirs.get(name))}, worker {rank} "
                        f"has {_difference(theirs.get(name), everyone[0].get(name))}. Start all of "
                        "them with the same command, on the same data"
                    )

    def wait(self):
        """Until all workers are here."""
        if self.size > 1:
            self._all_there(self.comm, math.inf)

    @contextlib.contextmanager
    def first_alone(self):
        """What worker 0 does in here, it does before the others; if it fails, they all do."""
        error = None
        if self.rank == 0:
            try:
                yield
            except BaseException as raised:
                error = raised
        self.wait()
        error = self.gather(error)[0]
        if error is not None:
            raise error
        if self.rank > 0:
            yield

    def threads(self):
        """How many threads this worker should compute with: its share of its machine's cores. None
        leaves it to `runtime.configure`: alone, and where `OMP_NUM_THREADS` says it.

        Raises WorkersError where there are more workers than cores.
        """
        from gluon_bn import runtime

        if self.size == 1:
            return None
        from mpi4py import MPI

        machine = self.comm.Split_type(MPI.COMM_TYPE_SHARED)
        mine = _usable_cores()
        together = set().union(*machine.allgather(mine))
        # An mpiexec may have given each worker cores of its own.
        cores = runtime.cores() if together == mine else len(together)
        share = cores // machine.size
        least, workers, on = self.comm.allreduce((share, machine.size, cores), MPI.MIN)
        machine.Free()
        if not least and not os.environ.get(OVERSUBSCRIBE):
            raise WorkersError(too_many(workers, on))
        if os.environ.get("OMP_NUM_THREADS"):
            return None
        return max(1, min(share, len(mine)))

    # How all of them end ---------------------------------------------------------------------

    def fail(self, say):
        """After an error: `say()` what it was. If the other workers did not fail as well, end them,
        and this one; if they did, only the first one speaks, and each comes to its own end."""
        if self.size == 1:
            say()
        elif not self._all_there(self._failing, seconds=1):
            self._end_all(say)
        elif self.rank == 0:
            say()

    def leave_first(self):
        """At its end this process waits for the others before it does anything else. (MXNet would
        wait for what still computes, and that may be waiting for a worker that will not come.)"""
        atexit.unregister(self._leave)
        atexit.register(self._leave)

    def _leave(self):
        """If the others do not come to their end, they wait for this one, in vain."""
        if not self._all_there(self._leaving, PATIENCE):
            self._end_all(lambda: print(EARLY.format(self.rank), file=sys.stderr))

    def _uncaught(self, *error):
        if issubclass(error[0], KeyboardInterrupt):  # it stopped all of them
            self._excepthook(*error)
        else:
            self.fail(lambda: self._excepthook(*error))

    def _end_all(self, say):
        say()
        sys.stdout.flush()
        sys.stderr.flush()
        # MPI ends by exit(), in which MXNet's threads, still at work, would make it a crash.
        getattr(ctypes.CDLL(None), "__cxa_atexit")(_exit_at_once, None, None)
        self.comm.Abort(1)

    def _all_there(self, comm, seconds):
        arrived, late = comm.Ibarrier(), time.monotonic() + seconds
        while not arrived.Test() and time.monotonic() < late:
            time.sleep(0.002)  # other waits of MPI keep the cores busy, this one does not
        return arrived.Test()


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _exit_at_once(_):
    os._exit(1)


def too_many(workers, cores):
    """The sentence that refuses more workers than cores."""
    return (
        f"{workers} workers on {cores} cores: a worker that waits for another keeps its core busy, "
        "so there must not be more workers than cores. Use fewer, or more machines"
    )


def _usable_cores():
    try:
        return os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return set(range(os.cpu_count() or 1))


def _difference(mine, other):
    """A value in a message; of two long lists only where they part."""
    if isinstance(mine, (list, tuple)) and isinstance(other, (list, tuple)):
        for i, (a, b) in enumerate(zip(mine, other)):
            if a != b:
                return f"{a!r} at place {i}"
        return f"{len(mine)} of them"
    return repr(mine)
