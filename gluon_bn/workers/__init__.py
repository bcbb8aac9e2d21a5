"""One batch on several workers: processes, on one machine or on many, that train one network.

::

    mpiexec -n 2 python program.py          # or: gluon-bn train lenet --workers 2

    here = world()                          # .rank of .size; a world of one, if nobody started more
    net = lenet('sync')                     # statistics of the whole batch
    trainer = gluon.Trainer(net.collect_params(), 'sgd', {'momentum': 0.9}, kvstore=here.store)
    part_of_X, part_of_y = here.part((X, y))
    ...                                     # record; backward of the loss
    trainer.step(len(X))                    # of the whole batch

    world.py    which worker this is, what all of them know, how all of them end
    store.py    gradients added up, for `gluon.Trainer`
    sync.py     statistics of the whole batch, for `BatchNorm(synchronized=True)`
    engine.py   MXNet's engine on a worker, and the sums within its operators
    launch.py   starting the workers

MPI carries what they tell each other (`pip install gluon-bn[workers]` brings mpi4py and MPICH); it
is imported only where several workers were started.
"""

from gluon_bn.workers.world import WorkersError, World, world

__all__ = ["World", "WorkersError", "world"]
