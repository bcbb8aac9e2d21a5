"""Test error against batch size, for batch norm and its relatives; three seeds. Chapter 10.

    python benchmarks/batch_size.py --threads 1     # stopped, it goes on where it was
    python benchmarks/batch_size.py --search        # the learning rate, on held-out images

One small network, the same for all: four convolutions, each with a norm and a ReLU, the mean of
each channel, a dense layer. The runs of a seed start from the same weights and see the same images
once, in the same order. The learning rate is proportional to the batch size, as in Wu and He (2018,
section 4.1), and the running averages look back over the same number of images at every batch size.

At a batch of two the cost is the number of operators, not their work. So the norms here are made of
few of MXNet's; `agreement` holds them against those of `gluon_bn` at each start. The results are
written to benchmarks/results/batch_size.json after every run, and drawn at the end.
"""

import argparse
import json
import math
import time
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon, nd
from mxnet.gluon import nn

import gluon_bn
from gluon_bn import recipe, runtime
from gluon_bn.data import dataset
from gluon_bn.figures.relatives import plot_batch_sizes
from gluon_bn.inference import recalibrate
from gluon_bn.training import Run, evaluate, seed_everything, write_figure, write_json

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
BATCH_SIZES, SEEDS = (32, 16, 8, 4, 2), (0, 1, 2)
RATES = (0.05, 0.1, 0.2)

SETTINGS = {
    "network": "conv 5x5/2, 16 - conv 3x3/2, 32 - conv 3x3/2, 64 - conv 3x3/2, 64 - mean of each "
    "channel - dense 10; norm and ReLU behind each convolution",
    "initial_weights": "He et al. (2015)",
    "input": "(pixel / 255 - 0.286) / 0.353",
    "images": 20_000,
    "passes": 1,
    "lr_at_32": 0.1,
    "sgd_momentum": 0.9,
    "schedule": "cosine, from lr down to 0",
    "momentum_at_32": 0.9,
    "epsilon": 1e-5,
    "channels_in_a_group": 2,
    # Ioffe (2017), section 4: batch norm at first, then r_max up to 3 and d_max up to 5. He relaxed
    # them from step 5,000 on, to 40,000 and 25,000; these are shares of the run.
    "r_max": 3,
    "d_max": 5,
    "relaxed_from": 0.05,
    "r_relaxed_at": 0.3,
    "d_relaxed_at": 0.2,
}
# Channels, size of the kernel, height of the output.
LAYERS = ((16, 5, 14), (32, 3, 7), (64, 3, 4), (64, 3, 2))


# The norms, of few operators ----------------------------------------------------------------------


class _Affine(nn.HybridBlock):
    """gamma and beta, one per channel, behind a normalization.

    MXNet sums the gradient of a broadcast slowly. Its BatchNorm with fixed statistics, mean 0 and
    variance 1, is the same scale and shift, with a fast gradient.
    """

    def __init__(self, channels):
        super().__init__()
        unit = mx.init.Constant(1 - SETTINGS["epsilon"])
        with self.name_scope():
            for name, init in (("gamma", "ones"), ("beta", "zeros")):
                setattr(self, name, self.params.get(name, shape=(channels,), init=init))
            for name, init in (("mean0", "zeros"), ("var1", unit)):
                self._state(name, init, channels)

    def _state(self, name, init, size):
        setattr(self, name, self.params.get(name, shape=(size,), init=init, grad_req="null"))

    @staticmethod
    def affine(F, X, gamma, beta, mean0, var1):
        return F.BatchNorm(
            X,
            gamma,
            beta,
            mean0,
            var1,
            fix_gamma=False,
            use_global_stats=True,
            eps=SETTINGS["epsilon"],
        )


class Grouped(_Affine):
    """Group normalization: every group of channels of an image is one row of a layer norm.

    One group is layer normalization over (C, H, W), as many groups as channels is instance
    normalization.
    """

    def __init__(self, channels, height, groups):
        super().__init__(channels)
        self.groups = groups
        with self.name_scope():
            for name, init in (("one", "ones"), ("zero", "zeros")):
                self._state(name, init, channels // groups * height * height)

    def hybrid_forward(self, F, X, one, zero, **affine):
        rows = F.reshape(X, shape=(0, self.groups, -1))
        X_hat = F.LayerNorm(rows, one, zero, axis=-1, eps=SETTINGS["epsilon"])
        return self.affine(F, F.reshape_like(X_hat, X), **affine)


class Renorm(nn.Block):
    """Batch renormalization, with one pair of averages, as in the paper's Algorithm 1."""

    def __init__(self, channels, momentum):
        super().__init__()
        self.momentum, self.r_max, self.d_max = momentum, math.inf, math.inf
        self.inner = _Affine(channels)
        for name, init in (
            ("one", "ones"),
            ("zero", "zeros"),
            ("mean", "zeros"),
            ("stddev", "ones"),
        ):
            self.inner._state(name, init, channels)

    def forward(self, X):
        p = {name: parameter.data() for name, parameter in self.inner._reg_params.items()}
        mean, stddev, gamma, beta = p["mean"], p["stddev"], p["gamma"], p["beta"]
        eps = SETTINGS["epsilon"]
        if not autograd.is_training():
            return nd.BatchNorm(
                X,
                gamma,
                beta,
                mean,
                nd.square(stddev) - eps,
                fix_gamma=False,
                use_global_stats=True,
                eps=eps,
            )
        X_hat, batch_mean, inverse = nd.BatchNorm(
            X,
            p["one"],
            p["zero"],
            p["mean0"].copy(),
            p["var1"].copy(),
            fix_gamma=False,
            eps=eps,
            output_mean_var=True,
        )
        with autograd.pause():  # r and d are constants in the gradient
            batch_mean, batch_stddev = batch_mean.detach(), 1 / inverse.detach()
            r, d = batch_stddev / stddev, (batch_mean - mean) / stddev
            if self.r_max < math.inf:
                r = nd.clip(r, 1 / self.r_max, self.r_max)
            if self.d_max < math.inf:
                d = nd.clip(d, -self.d_max, self.d_max)
            mean[:] = self.momentum * mean + (1 - self.momentum) * batch_mean
            stddev[:] = self.momentum * stddev + (1 - self.momentum) * batch_stddev
        # gamma (X_hat r + d) + beta
        return self.inner.affine(nd, X_hat, gamma * r, gamma * d + beta, p["mean0"], p["var1"])


NORMS = {  # (channels, height of the output, momentum) -> Block
    "none": lambda channels, height, momentum: gluon_bn.models.make_norm("none")(channels, 4),
    "batch": lambda channels, height, momentum: gluon_bn.BatchNorm(
        channels, 4, momentum=momentum, epsilon=SETTINGS["epsilon"]
    ),
    "layer": lambda channels, height, momentum: Grouped(channels, height, 1),
    "instance": lambda channels, height, momentum: Grouped(channels, height, channels),
    "group": lambda channels, height, momentum: Grouped(
        channels, height, channels // SETTINGS["channels_in_a_group"]
    ),
    "renorm": lambda channels, height, momentum: Renorm(channels, momentum),
    "renorm unclipped": lambda channels, height, momentum: Renorm(channels, momentum),
}


def network(norm, momentum=0.9):
    """The network, initialized. For (N, 1, 28, 28); scores (N, 10)."""
    new_norm = NORMS[norm]
    # Renorm is plain Python: such a network cannot be hybridized as a whole.
    net = nn.Sequential() if "renorm" in norm else nn.HybridSequential()
    before = 1
    for channels, size, height in LAYERS:
        net.add(
            nn.Conv2D(
                channels,
                size,
                strides=2,
                padding=size // 2,
                use_bias=norm == "none",
                in_channels=before,
            ),
            new_norm(channels, height, momentum),
            nn.Activation("relu"),
        )
        before = channels
    net.add(nn.GlobalAvgPool2D(), nn.Flatten(), nn.Dense(10, in_units=before))
    net.initialize(mx.init.Xavier("gaussian", "in", 2))
    return net


def agreement():
    """The largest difference between each norm here and that of `gluon_bn`, in three steps.

    Outputs, gradients and, at the end, predictions, of a layer (8, 16, 14, 14).
    """
    channels, _, height = LAYERS[0]
    theirs = {
        name: gluon_bn.models.make_norm(name)(channels, 4)
        for name in ("layer", "instance", "group")
    }
    averages = {"momentum": 0.9, "renorm_momentum": 0.9}
    theirs["renorm"] = gluon_bn.BatchRenorm(**averages, r_min=2 / 3, r_max=1.5, d_max=0.5)
    theirs["renorm unclipped"] = gluon_bn.BatchRenorm(**averages)
    differences = {}
    for name, reference in theirs.items():
        ours = NORMS[name](channels, height, 0.9)
        if name == "renorm":
            ours.r_max, ours.d_max = 1.5, 0.5
        found = []
        for layer in (ours, reference):
            seed_everything(1)
            layer.initialize()
            values = []
            for _ in range(3):
                X = nd.random.normal(1, 2, shape=(8, channels, height, height))
                X.attach_grad()
                with autograd.record():
                    Y = layer(X)
                    loss = (Y * nd.random.normal(shape=X.shape)).sum()
                loss.backward()
                gamma = [p for key, p in layer.collect_params().items() if "gamma" in key][0]
                values += [Y, X.grad.copy(), gamma.grad() / 100]  # a sum of 1568 values
                gamma.data()[:] = 0.5 + nd.random.uniform(shape=channels)
            found.append([*values, layer(X)])
        differences[name] = max(float(abs(a - b).max().asscalar()) for a, b in zip(*found))
        if differences[name] > 1e-4:
            raise RuntimeError(f"{name}: differs from gluon_bn's layer by {differences[name]}")
    return differences


# A run --------------------------------------------------------------------------------------------


def prepared(images, labels):
    """Bytes (n, 28, 28) and labels as arrays for the network, mean 0 and standard deviation 1."""
    return (nd.array(images[:, np.newaxis]) / 255 - 0.286) / 0.353, nd.array(labels)


def train(net, images, labels, batch_size, lr, seed, set_clipping=None):
    """SGD once over the images, in an order that depends on the seed alone.

    Returns the mean loss of the last quarter of the images; not a number if the weights ran away.
    """
    trainer = recipe.trainer(
        net, "sgd", {"learning_rate": lr, "momentum": SETTINGS["sgd_momentum"]}
    )
    # Its steps only: at a batch of two, reading each loss would take longer than computing it.
    this = Run(net, trainer, gluon.loss.SoftmaxCrossEntropyLoss())
    losses, steps = [], SETTINGS["passes"] * len(labels) // batch_size
    for step in range(steps):
        place = step % (len(labels) // batch_size)
        if place == 0:
            order = nd.array(np.random.RandomState([seed, step]).permutation(len(labels)))
            X, y = images.take(order), labels.take(order)
        if set_clipping is not None:
            set_clipping(step / steps)
        trainer.set_learning_rate(lr * (1 + math.cos(math.pi * step / steps)) / 2)
        rows = slice(place * batch_size, (place + 1) * batch_size)
        loss, _, _ = this.step(X[rows], y[rows])
        if step >= 0.75 * steps:
            losses.append(loss)
        elif step % 50 == 0:
            nd.waitall()  # do not let Python run far ahead
    return float(np.mean([loss.asnumpy().mean() for loss in losses]))


def relax(net, share):
    """r_max and d_max at this share of the run: batch norm at first, then more and more freedom."""

    def ramp(end):
        start = SETTINGS["relaxed_from"]
        return min(max((share - start) / (end - start), 0), 1)

    for block in net:
        if isinstance(block, Renorm):
            block.r_max = 1 + ramp(SETTINGS["r_relaxed_at"]) * (SETTINGS["r_max"] - 1)
            block.d_max = ramp(SETTINGS["d_relaxed_at"]) * SETTINGS["d_max"]


def run(norm, batch_size, seed, data, lr_at_32, test):
    """One training run: its record. `test` yields the batches the error is measured on."""
    images, labels = data
    share = batch_size / 32
    start, cpu = time.perf_counter(), time.process_time()
    seed_everything(seed)
    net = network(norm, SETTINGS["momentum_at_32"] ** share)
    if "renorm" not in norm:
        net.hybridize(static_alloc=norm != "batch")
    clipping = (lambda share: relax(net, share)) if norm == "renorm" else None
    loss = train(net, images, labels, batch_size, lr_at_32 * share, seed, clipping)
    record = {
        "norm": norm,
        "batch_size": batch_size,
        "seed": seed,
        "lr": lr_at_32 * share,
        "train_loss": loss if math.isfinite(loss) else None,
        "error": 1 - evaluate(net, test),
    }
    if norm == "batch":
        recalibrate(net, [images[i : i + 500] for i in range(0, min(2000, len(labels)), 500)])
        record["error_recalibrated"] = 1 - evaluate(net, test)
    record["seconds"] = time.perf_counter() - start
    record["cpu_seconds"] = time.process_time() - cpu
    print(json.dumps(record), flush=True)
    return record


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--search", action="store_true", help="search the learning rate instead")
    parser.add_argument("--norms", nargs="+", choices=NORMS, default=list(NORMS))
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=BATCH_SIZES)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, default=RESULTS / "batch_size.json")
    options = parser.parse_args()
    machine = runtime.configure(options.threads)
    whole = dataset()
    first = slice(0, SETTINGS["images"])
    data = prepared(whole.train_images[first], whole.train_labels[first])

    content = {"runs": [], "search": []}
    if options.output.exists():
        content = json.loads(options.output.read_text())
        if content["settings"] != SETTINGS and content["runs"]:
            parser.error(f"{options.output} was made with other settings; move it away first")
    content = {
        "command": "python benchmarks/batch_size.py --threads 1",
        "settings": SETTINGS,
        "dataset": {**whole.summary(), "train": SETTINGS["images"]},
        "machine": machine,
        "versions": runtime.versions(),
        "agreement": agreement(),
        "search": content["search"],
        "runs": content["runs"],
    }
    print(content["agreement"], flush=True)

    if options.search:
        held_out = slice(50_000, 55_000)  # training images that no run is trained on
        test = [prepared(whole.train_images[held_out], whole.train_labels[held_out])]
        content["search"] = [
            run(norm, 32, 0, data, lr, test) for lr in RATES for norm in options.norms
        ]
        write_json(options.output, content)
        return
    test = [
        prepared(whole.test_images[i : i + 1000], whole.test_labels[i : i + 1000])
        for i in range(0, len(whole.test_labels), 1000)
    ]
    done = {(r["norm"], r["batch_size"], r["seed"]) for r in content["runs"]}
    for seed in options.seeds:
        for batch_size in options.batch_sizes:
            for norm in options.norms:
                if (norm, batch_size, seed) not in done:
                    content["runs"].append(
                        run(norm, batch_size, seed, data, SETTINGS["lr_at_32"], test)
                    )
                    write_json(options.output, content)
    write_figure(options.output.with_suffix(".png"), plot_batch_sizes(content["runs"]))


if __name__ == "__main__":
    main()
