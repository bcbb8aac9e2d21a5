"""Images a second of one worker and of two, with statistics of their own and synchronized.

    python benchmarks/workers.py          # a quiet machine with two cores; ten minutes

One thread a worker. The batch is the same for one worker and for two, so each of two has half of
it. Every contestant is a run of its own, in a process for each worker, and they take turns, round
after round: the machine has fast and slow minutes. A run warms up and then counts whole steps
(forward, backward, sum of the gradients, update); the slowest worker counts. Results, medians of
the rounds, are written to benchmarks/results/workers.json.

`fused` is there to tell what synchronizing costs from what another kernel costs: alone the native
kernel computes (`auto`), synchronized layers are computed by the fused one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"
BATCHES = {"lenet": 256, "resnet18": 128}
CONTESTANTS = (("auto", 1), ("fused", 1), ("auto", 2), ("fused", 2), ("sync", 2))


def measure(model, norm, seconds):
    """Images a second of this process and the other workers, which run the same."""
    import mxnet as mx
    from mxnet import autograd, gluon, nd

    from gluon_bn import runtime
    from gluon_bn.models import MODELS
    from gluon_bn.workers import world

    here, n = world(), BATCHES[model]
    runtime.configure(1)
    mx.random.seed(0)
    net = MODELS[model](norm)
    net.initialize(mx.init.Xavier())
    net.hybridize()
    X, y = here.part((nd.random.uniform(shape=(n, 1, 28, 28)), nd.arange(n) % 10))
    net(X[:1])
    trainer = gluon.Trainer(
        list(net.collect_params().values()), "sgd", {"learning_rate": 0.05}, kvstore=here.store
    )
    loss_of = gluon.loss.SoftmaxCrossEntropyLoss()

    def steps(how_many):
        start = time.perf_counter()
        for _ in range(how_many):
            with autograd.record():
                loss = loss_of(net(X), y)
            loss.backward()
            trainer.step(n)
        nd.waitall()
        return max(here.gather(time.perf_counter() - start))

    steps(5)
    how_many = max(5, int(5 * seconds / steps(5)))
    speed = n * how_many / steps(how_many)
    if here.rank == 0:
        weights = sum(p.data().size for p in net.collect_params().values() if p.grad_req != "null")
        print(json.dumps({"images_per_second": speed, "weights": weights}))


def run(model, norm, workers, seconds):
    from gluon_bn.workers import launch

    command = [sys.executable, __file__, "--measure", model, norm, "--seconds", str(seconds)]
    if workers > 1:
        command = [launch.mpiexec(), "-n", str(workers), *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--measure", nargs=2, metavar=("MODEL", "NORM"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(*options.measure, options.seconds)

    from gluon_bn import runtime
    from gluon_bn.training import write_json

    rows = []
    for model, batch_size in BATCHES.items():
        found = {contestant: [] for contestant in CONTESTANTS}
        for _ in range(options.rounds):
            for contestant, runs in found.items():
                runs.append(run(model, *contestant, options.seconds))
        speeds = {
            c: statistics.median(r["images_per_second"] for r in runs) for c, runs in found.items()
        }
        for (norm, workers), speed in speeds.items():
            rows.append(
                {
                    "model": model,
                    "norm": norm,
                    "workers": workers,
                    "batch_size": batch_size,
                    "weights": found[norm, workers][0]["weights"],
                    "images_per_second": speed,
                    "times_one_worker": speed / speeds["auto", 1],
                    "rounds": [r["images_per_second"] for r in found[norm, workers]],
                }
            )
            print(
                f"{model:9} {norm:6} {workers} workers {speed:10,.0f} images/s, "
                f"{speed / speeds['auto', 1]:.2f} times one worker"
            )
    machine = {**runtime.describe(), "threads": 1}
    result = {"rows": rows, "machine": machine, "versions": runtime.versions()}
    write_json(options.output / "workers.json", result)


if __name__ == "__main__":
    main()
