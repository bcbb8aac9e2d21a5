"""What the workers of test_workers.py run: `mpiexec -n N python workers_program.py CASE FOLDER`.

Each case leaves a file for each worker in FOLDER.
"""

import json
import os
import resource
import shutil
import signal
import sys
import time

import numpy as np

from gluon_bn.workers import world


def networks(norm, conditional):
    """Small networks, each with a way of its own in which sums could go astray."""
    from mxnet.gluon import nn

    from gluon_bn.models import lenet
    from gluon_bn.models.resnet import Residual

    class Branching(nn.HybridBlock):
        """Two branches side by side, whose backward passes run in any order."""

        def __init__(self):
            super().__init__()
            with self.name_scope():
                self.stem = nn.Conv2D(4, 3, strides=3)
                self.left, self.right = (nn.HybridSequential() for _ in range(2))
                for branch in (self.left, self.right):
                    branch.add(nn.Conv2D(4, 3), norm(4, 4), nn.Activation("tanh"))
                    branch.add(nn.Conv2D(4, 3), norm(4, 4))
                self.last = nn.Dense(10)

        def hybrid_forward(self, F, X):
            X = self.stem(X)
            return self.last(F.concat(self.left(X), self.right(X), dim=1))

    class Twice(nn.HybridBlock):
        """One layer on two inputs: two calls whose backward passes run in any order."""

        def __init__(self):
            super().__init__()
            with self.name_scope():
                self.first, self.second = nn.Conv2D(4, 3, strides=3), nn.Conv2D(4, 3, strides=3)
                self.norm, self.last = norm(4, 4), nn.Dense(10)

        def hybrid_forward(self, F, X):
            left, right = self.norm(self.first(X)), self.norm(self.second(X))
            return self.last(F.concat(F.tanh(left), F.sigmoid(right), dim=1))

    class Conditional(nn.HybridBlock):
        def __init__(self):
            super().__init__()
            with self.name_scope():
                self.first, self.norm, self.last = nn.Conv2D(3, 5), conditional(3), nn.Dense(10)

        def hybrid_forward(self, F, X, labels):
            return self.last(F.tanh(self.norm(self.first(X), labels)))

    residual = nn.HybridSequential()
    residual.add(nn.Conv2D(4, 3, strides=3), Residual(norm, 4, 6, 2), nn.Dense(10))
    nets = {"lenet": lenet(norm), "residual": residual, "branching": Branching(), "twice": Twice()}
    return {**nets, "conditional": Conditional()} if conditional else nets


def data(sizes=(12, 11, 3)):
    """Batches (X, y, labels); the last one has fewer examples than four workers."""
    random = np.random.RandomState(0)
    for n in sizes:
        yield random.rand(n, 1, 28, 28), random.randint(0, 10, n), random.randint(0, 3, n)


def values_of(net):
    from mxnet import nd

    nd.waitall()
    parameters = net._collect_params_with_prefix()
    return {name: p.data().asnumpy() for name, p in parameters.items()}


def train(net, store, conditional=False, dtype="float64"):
    """A step for each batch, and the values of all parameters, by name."""
    import mxnet as mx
    from mxnet import autograd, gluon, nd

    here = world()
    mx.random.seed(0)
    net.initialize(mx.init.Xavier())
    net.cast(dtype)
    batches = [[nd.array(a, dtype=dtype) for a in batch] for batch in data()]
    net(batches[0][0], *batches[0][2:] * conditional)  # prediction, for the shapes
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1}, kvstore=store)
    loss_of = gluon.loss.SoftmaxCrossEntropyLoss()
    for batch in batches:
        X, y, labels = here.part(batch)
        with autograd.record():
            loss = loss_of(net(X, labels) if conditional else net(X), y)
            if here.idle:
                loss = loss * 0
        loss.backward()
        trainer.step(len(batch[0]))
    return values_of(net)


def equal(folder):
    """Weights after some steps: each network in a graph and, by another kernel, layer by layer."""
    from gluon_bn import BatchNorm, ConditionalBatchNorm

    store, found = world().store, {}
    for kernel, hybridized in (("auto", True), ("fused", True), ("analytic", False)):
        options = {"synchronized": True, "kernel": kernel}
        nets = networks(
            lambda n, dims, o=options: BatchNorm(n, dims, **o),
            lambda n, o=options: ConditionalBatchNorm(n, 3, **o),
        )
        for name, net in nets.items():
            if hybridized:
                net.hybridize()
            values = train(net, store, name == "conditional")
            found.update({f"{kernel}/{name}/{key}": value for key, value in values.items()})
    for name, net in networks(lambda n, dims: BatchNorm(n, dims, synchronized=True), None).items():
        if name in ("lenet", "branching"):
            values = train(net, store, dtype="float32")
            found.update({f"float32/{name}/{key}": value for key, value in values.items()})
    np.savez(os.path.join(folder, f"{world().rank}.npz"), **found)


def small_run(folder, signalled_in=None, **options):
    """`fit` on three batches, the last one smaller than four workers; its records and weights."""
    import mxnet as mx
    from mxnet.gluon import nn

    from gluon_bn import BatchNorm
    from gluon_bn.inference import recalibrate
    from gluon_bn.training import Callback, fit

    class Signal(Callback):
        def on_batch(self, epoch, batch, loss, accuracy):
            if (epoch, batch) == signalled_in and world().rank == world().size - 1:
                os.kill(os.getpid(), signal.SIGTERM)

    def array(values):
        return mx.nd.array(values, dtype="float64")

    batches = [(array(X), array(y)) for X, y, _ in data((11, 9, 10, 8, 12, 9, 8, 9, 10, 3))]
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 5, strides=3), BatchNorm(4, **options), nn.Activation("tanh"))
    net.add(nn.Dense(10), BatchNorm(10, **options), nn.Dense(10))
    net.cast("float64")
    records = fit(
        net,
        batches,
        batches[5:],
        2,
        0.1,
        optimizer_params={"momentum": 0.9},
        callbacks=[Signal()],
        checkpoint=os.path.join(folder, "checkpoint"),
        resume=True,
        workers=world(),
    )
    found = values_of(net)
    recalibrate(net, batches, workers=world())
    found.update({f"exact/{name}": value for name, value in values_of(net).items()})
    return records, found


def stopped_and_resumed(folder):
    """A run that nobody stops, and one that is stopped and goes on, here and elsewhere."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rank, whole, parts = world().rank, os.path.join(folder, "whole"), os.path.join(folder, "parts")
    for path in (whole, parts, os.path.join(folder, "own")):
        os.makedirs(path, exist_ok=True)
    records, values = small_run(whole, synchronized=True)
    try:
        small_run(parts, signalled_in=(1, 2), synchronized=True)
    except KeyboardInterrupt:
        if rank == 0:
            shutil.copy(os.path.join(parts, "checkpoint"), os.path.join(folder, "checkpoint"))
        world().wait()
    again, values_again = small_run(parts, synchronized=True)
    own, values_own = small_run(os.path.join(folder, "own"), synchronized=False)
    found = {**values, **{f"again/{name}": value for name, value in values_again.items()}}
    found.update({f"own/{name}": value for name, value in values_own.items()})
    np.savez(os.path.join(folder, f"{rank}.npz"), **found)
    with open(os.path.join(folder, f"{rank}.json"), "w") as file:
        json.dump([records, again, own], file)


def full_disk(folder):
    """The first worker can write nothing more; the others know nothing of it."""
    if world().rank == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    small_run(folder, synchronized=True)


# Faults: workers that wait for each other again and again, until something happens to one of them.


def together(folder, happens=lambda here, turn: None):
    here = world()
    with open(os.path.join(folder, f"{here.rank}.pid"), "w") as file:
        file.write(str(os.getpid()))
    for turn in range(10**9):
        happens(here, turn)
        here.gather(turn)
        time.sleep(0.01)


def raises(folder):
    def happens(here, turn):
        if here.rank == 1 and turn == 3:
            raise ValueError("the dog ate the batch")

    together(folder, happens)


def exits(folder):
    # The other one waits busily for as long as this one is patient.
    sys.modules["gluon_bn.workers.world"].PATIENCE = 1
    together(folder, lambda here, turn: here.rank == 1 and turn == 3 and sys.exit(0))


def differ(folder):
    world().compare(seed=0, batch_size=32 + world().rank, names=["a", "b"])


def fewer(folder):
    """Two kinds of difference one after the other: what the first compares is the same."""
    world().compare(seed=0)
    world().compare(batches=10 - world().rank)


def other_order(folder):
    """Two networks, which the second worker trains in the other order."""
    import mxnet as mx
    from mxnet import autograd
    from mxnet.gluon import nn

    from gluon_bn import BatchNorm

    here, nets = world(), [nn.HybridSequential() for _ in range(2)]
    for net in nets:
        net.add(BatchNorm(3, synchronized=True))
        net.initialize()
        net.hybridize()
    for net in nets if here.rank == 0 else nets[::-1]:
        with autograd.record():
            net(mx.nd.ones((4, 3))).wait_to_read()


def crowd(folder):
    world().threads()


def main(case, folder):
    globals()[case](folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
