"""All that a training can be made of, in a process of its own; `test_numpy_semantics` runs it.

    python -m tests.numpy_semantics legacy | before | after | reset

'before': `npx.set_np()` comes before the first import of gluon_bn, as in d2l's notebooks; 'after':
after it; 'reset': it is set before and taken back after. Prints what came out, as JSON.
"""

import json
import sys
import tempfile

import mxnet as mx
import numpy as np
from mxnet import npx

ORDER = sys.argv[1] if __name__ == "__main__" else None
if ORDER in ("before", "reset"):
    npx.set_np()

from mxnet import autograd, gluon  # noqa: E402
from mxnet.gluon import nn  # noqa: E402

import gluon_bn  # noqa: E402
from gluon_bn import (  # noqa: E402
    BatchNorm,
    BatchRenorm,
    ConditionalBatchNorm,
    GhostBatchNorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    PixelNorm,
    RMSNorm,
    SpectralNorm,
    WeightNorm,
    adversarial,
    check,
    comparison,
    inference,
    inspection,
    kernels,
    models,
    training,
)
from gluon_bn.data import Batches  # noqa: E402

if ORDER == "after":
    npx.set_np()
if ORDER == "reset":
    npx.reset_np()

STATIC = {"static_alloc": True, "static_shape": True}
LAYERS = {
    **{name: lambda name=name: BatchNorm(kernel=name) for name in kernels.available()},
    "cumulative": lambda: BatchNorm(momentum=None),
    "zero_debias": lambda: BatchNorm(zero_debias=True, activation="relu"),
    "unbiased": lambda: BatchNorm(unbiased=True, activation="tanh", scale=False, center=False),
    "renorm": BatchRenorm,
    "layer": lambda: LayerNorm(axis=1),
    "instance": InstanceNorm,
    "group": lambda: GroupNorm(2),
    "pixel": PixelNorm,
    "rms": lambda: RMSNorm(1),
    "ghost": lambda: GhostBatchNorm(ghost_size=2),
    "weight": lambda: WeightNorm(nn.Conv2D(4, 3, activation="relu")),
    "weight_dense": lambda: WeightNorm(nn.Dense(5)),
    "spectral": lambda: SpectralNorm(nn.Conv2DTranspose(4, 3)),
}
RUNS = [
    {"clip": 1e-2},
    {"schedule": "one-cycle"},
    {"label_smoothing": 0.1, "optimizer": "adam"},
    {"optimizer_params": {"momentum": 0.9, "wd": 1e-4}},
    {"optimizer": "nadam", "clip": 1.0},
]


def data(size=12, count=24, **options):
    rng = np.random.RandomState(0)
    images = rng.randint(0, 256, (count, size, size)).astype("uint8")
    return Batches(images, rng.randint(0, 3, count), 8, **options)


def first_values(net, *inputs):
    """The same weights in every process: the kinds of array draw different random numbers."""
    net.initialize()
    with autograd.pause():
        net(*inputs)
    rng = np.random.RandomState(1)
    for name, parameter in sorted(net._collect_params_with_prefix().items()):
        if name.endswith(("weight", ".u", ".g")):
            gluon_bn.checkpoint.set_value(
                parameter, rng.normal(0, 0.3, parameter.shape).astype("float32")
            )
    return net


def network(layer, flags=None):
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3), layer(), nn.Activation("relu"), nn.Dense(3))
    X, _ = next(iter(data()))
    first_values(net, X)
    if flags is not None:
        net.hybridize(**flags)
    return net


def fit(layer, flags, **options):
    net = network(layer, flags)
    record = training.fit(
        net, data(shuffle=True, augment="crop-flip"), data(), epochs=2, lr=0.01, **options
    )
    return net, [record[-1][key] for key in ("train_loss", "test_accuracy")]


class WithLabels(gluon.HybridBlock):
    def __init__(self, **options):
        super().__init__()
        with self.name_scope():
            self.before = nn.Dense(4)
            self.norm = ConditionalBatchNorm(4, 3, **options)

    def hybrid_forward(self, F, X, labels):
        return self.norm(self.before(X), labels)


class Stopped(training.Callback):
    def on_epoch_end(self, epochs):
        if len(epochs) == 1:
            raise KeyboardInterrupt


def numbers(array):
    return np.asarray(array.asnumpy(), "float64").reshape(-1)[:40].tolist()


def everything():
    found = {}
    for name, layer in LAYERS.items():
        for flags in (None, {}, STATIC):
            net, record = fit(layer, flags)
            found[f"fit, {name}, {flags}"] = record + [
                x for p in net.collect_params().values() for x in numbers(p.data())[:4]
            ]
    for options in RUNS:
        with tempfile.TemporaryDirectory() as folder:
            _, whole = fit(BatchNorm, {}, **options)
            try:
                fit(BatchNorm, {}, checkpoint=f"{folder}/run", callbacks=[Stopped()], **options)
            except KeyboardInterrupt:
                pass
            _, resumed = fit(BatchNorm, {}, checkpoint=f"{folder}/run", resume=True, **options)
        assert whole == resumed, (options, whole, resumed)
        found[f"resume, {options}"] = resumed
    for options in ({}, {"per_class_statistics": True}):
        for flags in (None, {}, STATIC):
            X, y = next(iter(data()))
            net = first_values(WithLabels(**options), X, y)
            if flags is not None:
                net.hybridize(**flags)
            with autograd.record():
                Y = net(X, y)
            Y.backward()
            found[f"conditional, {options}, {flags}"] = (
                numbers(Y) + numbers(net.before.weight.grad()) + numbers(net(X, y))
            )
    found.update(afterwards())
    return found


def afterwards():
    """What is done with a trained network."""
    found = {}
    X, y = next(iter(data()))
    for kernel, flags in (("auto", {}), ("textbook", None), ("fused", STATIC)):
        net, _ = fit(lambda kernel=kernel: BatchNorm(kernel=kernel), flags)
        say = f"{kernel}, {flags}: "
        found[say + "evaluate"] = [training.evaluate(net, data())]
        found[say + "recalibrate"] = inference.recalibrate(net, data())["1"][0].tolist()
        found[say + "predict"] = numbers(net(X))
        found[say + "fold"] = numbers(inference.fold_batch_norm(net, X)(X))
        there = inference.to_gluon(net)
        found[say + "to_gluon"] = numbers(there(X))
        back = inference.from_gluon(there, kernel=kernel)
        back.hybridize()
        found[say + "from_gluon"] = numbers(back(X))
        wide = ConditionalBatchNorm.from_batch_norm(net[1], 3)
        found[say + "from_batch_norm"] = numbers(wide(net[0](X), y))
        report = inspection.activation_report(net, X, y)
        found[say + "report"] = [len(str(report)) > 100]
        net.hybridize()
        net(X)
        with tempfile.TemporaryDirectory() as folder:
            net.export(f"{folder}/net")
            read = gluon.SymbolBlock.imports(
                f"{folder}/net-symbol.json", ["data"], f"{folder}/net-0000.params"
            )
            found[say + "export"] = numbers(read(X))
    for model in ("lenet", "resnet18", "densenet"):
        batch = [(X28[:4], y28[:4]) for X28, y28 in data(28)]
        steps = comparison.compare_with_gluon(model, batch, 2, 0.1)
        found[f"compare {model}"] = [steps[-1]["one_step"]["outputs"] < 1e-2]
    for options in ({}, {"norm": "auto", "label_input": True}):
        G, D = (
            models.generator(num_classes=3, width=8, **options),
            models.discriminator(num_classes=3, width=4),
        )
        adversarial.fit(G, D, data(28), epochs=1)
        found[f"adversarial {options}"] = [adversarial.draw(G, [0, 1, 2]).shape[-1]]
    for student in (gluon_bn.batch_norm, gluon_bn.moments):
        report = getattr(check, student.__name__)(student)
        found[f"check {student.__name__}"] = [bool(report)]
    return found


if __name__ == "__main__":
    mx.random.seed(0)
    found = everything()
    assert mx.util.is_np_array() == (ORDER in ("before", "after"))  # nobody changed it
    print(json.dumps(found))
