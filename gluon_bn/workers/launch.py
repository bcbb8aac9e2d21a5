"""Starting the workers: `gluon-bn train lenet --workers 4` starts itself under mpiexec.

No hosts and no ssh here. Several machines are the business of the cluster's own launcher, which
starts the same command without --workers: `mpiexec -n 8 --hostfile hosts gluon-bn train lenet`, or
`srun -n 8 gluon-bn train lenet`.
"""

import importlib.util
import os
import shutil
import sys

from gluon_bn import runtime
from gluon_bn.workers.world import NO_MPI, OVERSUBSCRIBE, WorkersError, started, too_many


def mpiexec():
    """The path of the launcher: the one beside this Python first, which mpi4py's MPI came with.

    Raises WorkersError if there is none.
    """
    beside = os.path.join(os.path.dirname(sys.executable), "mpiexec")
    found = beside if os.access(beside, os.X_OK) else shutil.which("mpiexec")
    if found is None:
        raise WorkersError(NO_MPI.format(error="there is no mpiexec"))
    return found


def start(workers, arguments):
    """Become mpiexec, which starts `workers` times `gluon-bn` with these arguments, and does not
    return; in a process that a launcher started, check the number and go on. None and 1 start none.

    Raises WorkersError for more workers than cores, for a launcher that started another number, and
    without mpi4py or mpiexec.
    """
    if started() > 1:
        if workers not in (None, started()):
            raise WorkersError(
                f"--workers {workers}, but the launcher started {started()}: leave --workers out "
                "under mpiexec or srun"
            )
        return
    if workers in (None, 1):
        return
    if importlib.util.find_spec("mpi4py") is None:
        raise WorkersError(NO_MPI.format(error="there is no mpi4py"))
    if workers > runtime.cores() and not os.environ.get(OVERSUBSCRIBE):
        raise WorkersError(too_many(workers, runtime.cores()))
    launcher = mpiexec()
    sys.stdout.flush()
    sys.stderr.flush()
    command = [launcher, "-n", str(workers), sys.executable, "-m", "gluon_bn", *arguments]
    os.execv(launcher, command)
