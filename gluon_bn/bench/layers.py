"""One layer: a training step and a prediction, by shape, and by the number of elements.

Every contestant at its best: a layer of Gluon's and ours alone and in a hybridized network, one of
PyTorch's eager, compiled and in channels_last. A contestant's name begins with its family, and the
fastest of a family on a shape is what counts.
"""

from math import prod

import numpy as np
from mxnet import autograd, gluon, nd

from gluon_bn import blocks, kernels
from gluon_bn.bench import pytorch
from gluon_bn.bench.timing import geometric_mean, take_turns

SHAPES = [
    (256, 120),
    (256, 6, 24, 24),
    (256, 16, 8, 8),
    (128, 64, 24, 24),
    (32, 64, 24, 24),
    (64, 256, 12, 12),
    (128, 512, 3, 3),
]
GROWTH = [10**n for n in range(3, 9)]
# In copies of X. A training step cannot do with less than reading X and writing Y, then reading X
# and dY and writing dX: five times the array, two and a half copies. Where the array does not fit
# the caches, two sweeps in each direction make it eight times, four copies.
BOUNDS = {"train": {"2.5 copies": 2.5, "4 copies": 4}, "predict": {"1 copy": 1}}


def layer(threads, repeats, say):
    """Milliseconds of a training step and of a prediction of one layer, by shape and contestant."""
    rows = []
    for shape in SHAPES:
        for mode, contestants in layer_contestants(shape, threads).items():
            ms = milliseconds(contestants, mode, repeats)
            rows.append({"shape": list(shape), "mode": mode, "ms": ms})
            best = fastest(ms)
            say(
                f"  {shape} {mode}: "
                + ", ".join(f"{name} {t / best['gluon']:.2f}" for name, t in best.items())
            )
    ratios = {}
    for mode in ("train", "predict"):
        chosen = [fastest(row["ms"]) for row in rows if row["mode"] == mode]
        ratios[mode] = {
            name: geometric_mean([ms[name] / ms["gluon"] for ms in chosen]) for name in chosen[0]
        }
    return {"rows": rows, "ratio_to_gluon": ratios}


def growth(threads, repeats, say):
    """Milliseconds of a training step against the number of elements, 64 channels of 24 x 24."""
    result = {"elements": [], "ms": {}}
    for elements in GROWTH:
        side = 24 if elements >= 10**5 else 4
        shape = (max(1, round(elements / (64 * side * side))), 64, side, side)
        contestants = layer_contestants(shape, threads, compiled=False)["train"]
        rounds = max(3, min(repeats, 10**8 // prod(shape) * 2))
        best = fastest(milliseconds(contestants, "train", rounds, 1))
        result["elements"].append(prod(shape))
        for name, ms in best.items():
            result["ms"].setdefault(name, []).append(ms)
        say(
            f"  {prod(shape):.0e} elements: "
            + ", ".join(f"{name} {ms:.2f} ms" for name, ms in best.items())
        )
    return result


def milliseconds(contestants, mode, repeats, warm_up=2):
    """By contestant, and the bounds, from the copy that takes its turn with them."""
    ms = {n: 1e3 * s for n, s in take_turns(contestants, repeats, warm_up).items()}
    copy = ms.pop("copy")
    return {**ms, **{name: copies * copy for name, copies in BOUNDS[mode].items()}}


def fastest(ms):
    """The fastest of each family: `native` of "native" and "native hybridized"."""
    best = {}
    for name, t in ms.items():
        family = name if name[0].isdigit() else name.split()[0]
        best[family] = min(t, best.get(family, t))
    return best


def layer_contestants(shape, threads, compiled=True):
    """By mode and name, functions that do one step of one layer on arrays of this shape."""
    X, dY = (nd.random.normal(shape=shape) for _ in range(2))
    steps = {}
    for name in kernels.available():
        made = (
            (lambda: gluon.nn.BatchNorm(in_channels=shape[1]))
            if name == "gluon"
            else (lambda name=name: blocks.BatchNorm(shape[1], kernel=name))
        )
        steps[name] = gluon_steps(made(), X, dY)
        if name in ("native", "gluon"):  # the others call Python from a graph
            hybridized = gluon.nn.HybridSequential()
            hybridized.add(made())
            hybridized.hybridize(static_alloc=True, static_shape=True)
            steps[f"{name} hybridized"] = gluon_steps(hybridized, X, dY)
    steps.update(pytorch.layer_steps(shape, threads, compiled))
    source, target = np.ones(shape, "float32"), np.empty(shape, "float32")
    steps["copy"] = (lambda: np.copyto(target, source),) * 2
    return {
        mode: {name: two[i] for name, two in steps.items()}
        for i, mode in enumerate(("train", "predict"))
    }


def gluon_steps(net, X, dY):
    """A training step and a prediction; dX is computed, as inside a network."""
    net.initialize()
    X = X.copy()
    X.attach_grad()

    def train():
        with autograd.record():
            Y = net(X)
        Y.backward(dY)

    return train, lambda: net(X)
