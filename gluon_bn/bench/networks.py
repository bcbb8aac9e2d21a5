"""Whole networks: images a second, in training and in prediction."""

import mxnet as mx
import numpy as np
from mxnet import gluon, nd

from gluon_bn import kernels, recipe
from gluon_bn.bench import pytorch
from gluon_bn.bench.timing import take_turns
from gluon_bn.inference import optimize
from gluon_bn.models import MODELS
from gluon_bn.training import Run

NETWORKS = {"lenet": (256, 1, 28, 28), "resnet18": (64, 1, 28, 28), "densenet": (32, 1, 28, 28)}


def network(threads, repeats, say):
    """Images a second of whole networks, in training and in prediction."""
    result = {}
    for model, shape in NETWORKS.items():
        contestants = network_contestants(model, shape, threads)
        result[model] = {"batch": shape[0]}
        for mode in ("train", "predict"):
            taking_part = {n: f[mode] for n, f in contestants.items() if mode in f}
            slow = {n: f for n, f in taking_part.items() if n == "textbook"}
            fast = {n: f for n, f in taking_part.items() if n != "textbook"}
            seconds = take_turns(fast, repeats if model == "lenet" else max(3, repeats // 3))
            if slow:
                seconds.update(take_turns(slow, max(2, repeats // 8), warm_up=1))
            result[model][mode] = {n: shape[0] / s for n, s in seconds.items()}
            reference = result[model][mode]["gluon hybridized"]
            say(
                f"  {model} {mode}: "
                + ", ".join(
                    f"{n} {v:.0f}/s ({v / reference:.2f})" for n, v in result[model][mode].items()
                )
            )
    return result


def network_contestants(model, shape, threads):
    X = nd.random.uniform(shape=shape)
    y = nd.array(np.arange(shape[0]) % 10)
    found = {}
    norms = ["none", "auto"]
    if model == "lenet":  # the larger networks would take minutes a round
        norms += [n for n in kernels.available() if n != "gluon"]
    for norm in norms:
        found[norm] = network_steps(MODELS[model](norm=norm), X, y, hybridize=True)
    found["gluon hybridized"] = network_steps(MODELS[model](norm="gluon"), X, y, hybridize=True)
    found["gluon imperative"] = network_steps(MODELS[model](norm="gluon"), X, y, hybridize=False)
    trained = MODELS[model](norm="auto")
    network_steps(trained, X, y, hybridize=True)
    optimized = optimize(trained, X, say=lambda line: None)
    found["auto, optimized"] = {"predict": lambda: optimized(X)}
    found.update(pytorch.network_steps(model, shape, threads))
    return found


def network_steps(net, X, y, hybridize):
    """A training step and a prediction of a whole network, by SGD on one batch."""
    net.initialize(mx.init.Xavier())
    if hybridize:
        net.hybridize(static_alloc=True, static_shape=True)
    net(X)
    trainer = recipe.trainer(net, "sgd", {"learning_rate": 0.01})
    run = Run(net, trainer, gluon.loss.SoftmaxCrossEntropyLoss())
    return {"train": lambda: run.step(X, y), "predict": lambda: net(X)}
