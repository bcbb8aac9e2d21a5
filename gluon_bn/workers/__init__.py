"""One batch on several workers: processes, on one machine or on many, that train one network.

    mpiexec -n 2 python program.py          # or: gluon-bn train lenet --workers 2

    from gluon_bn.workers import world
    from gluon_bn.workers.store import Store

    here = world()                          # .rank, .size; a world of one if nobody started several
    net = lenet('sync')                     # statistics of the whole batch
    trainer = gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': 1}, kvstore=Store(here))
    mine = here.part(len(X))                # the slice of each batch that is this worker's
    ...                                     # record, backward of the sum of the losses
    trainer.step(len(X))                    # the whole batch

    world.py    which worker this is, what all of them know, how all of them end
    store.py    gradients added up, for `gluon.Trainer`
    sync.py     statistics of the whole batch, for `BatchNorm(synchronized=True)`
    launch.py   starting the workers

MPI carries what they tell each other (`pip install gluon-bn[workers]` brings mpi4py and MPICH); it
is imported only where several workers were started.
"""

from gluon_bn.workers.world import World, WorkersError, world

__all__ = ["World", "WorkersError", "world"]
