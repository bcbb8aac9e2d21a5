"""Images a second of one worker and of two, with statistics of their own and synchronized.

    python benchmarks/workers.py [lenet] [resnet18]     # a quiet machine with two cores; four
                                                        # minutes a network
One thread a worker. Two workers share one worker's batch (half of it each), or have one as large
each, so that the whole batch is twice as large. Every contestant is a run of its own, in a process
for each worker, and they take turns, round after round: the machine has fast and slow minutes. A
run warms up and then counts whole steps (forward, backward, sum of the gradients, update); the
slowest worker counts. Results, medians of the rounds, are written to
benchmarks/results/workers.json; networks that were not named stay as they are in the file.

`apart` is the bound: two processes side by side that tell each other nothing. They share the
machine's memory and its caches, and each updates all weights.
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
# What is said, how many workers, how many times the batch of one.
CONTESTANTS = [("own", 1, 1)]
CONTESTANTS += [(name, 2, times) for times in (1, 2) for name in ("apart", "own", "sync")]


def measure(model, name, times, seconds):
    """Images a second of this process and the other workers, which run the same."""
    import mxnet as mx
    from mxnet import autograd, gluon, nd

    from gluon_bn import runtime
    from gluon_bn.models import MODELS
    from gluon_bn.workers import world

    here, n = world(), BATCHES[model] * times
    runtime.configure(1)
    mx.random.seed(0)
    net = MODELS[model]("sync" if name == "sync" else "auto")
    net.initialize(mx.init.Xavier())
    net.hybridize()
    X, y = here.part((nd.random.uniform(shape=(n, 1, 28, 28)), nd.arange(n) % 10))
    net(X[:1])
    trainer = gluon.Trainer(
        list(net.collect_params().values()),
        "sgd",
        {"learning_rate": 0.05},
        kvstore=None if name == "apart" else here.store,
    )
    loss_of = gluon.loss.SoftmaxCrossEntropyLoss()

    def steps(how_many):
        here.wait()
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


def run(model, name, workers, times, seconds):
    from gluon_bn.workers import launch

    command = [sys.executable, __file__, "--measure", model, name, str(times)]
    command += ["--seconds", str(seconds)]
    if workers > 1:
        command = [launch.mpiexec(), "-n", str(workers), *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def rows_of(model, rounds, seconds):
    found = {contestant: [] for contestant in CONTESTANTS}
    for _ in range(rounds):
        for contestant, runs in found.items():
            runs.append(run(model, *contestant, seconds))
    speeds = {
        c: statistics.median(r["images_per_second"] for r in runs) for c, runs in found.items()
    }
    for (name, workers, times), speed in speeds.items():
        ratios = (
            speed / speeds["own", 1, 1],
            speed / speeds["apart" if workers > 1 else "own", workers, times],
        )
        print(
            f"{model:9} {name:6} {workers} workers, batch {BATCHES[model] * times} {speed:10,.0f} "
            f"images/s, {ratios[0]:.2f} times one worker, {ratios[1]:.2f} of the bound"
        )
        yield {
            "model": model,
            "statistics": name,
            "workers": workers,
            "batch_size": BATCHES[model] * times,
            "weights": found[name, workers, times][0]["weights"],
            "images_per_second": speed,
            "times_one_worker": ratios[0],
            "of_the_bound": ratios[1],
            "rounds": [r["images_per_second"] for r in found[name, workers, times]],
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "models", nargs="*", choices=[[], *BATCHES], help="all, unless some are named"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        model, name, times = options.measure
        return measure(model, name, int(times), options.seconds)

    from gluon_bn import runtime
    from gluon_bn.training import write_json

    path, models = options.output / "workers.json", options.models or list(BATCHES)
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = [row for row in rows if row["model"] not in models]
    for model in models:
        rows += rows_of(model, options.rounds, options.seconds)
    machine = {**runtime.describe(), "threads": 1}
    result = {"rows": rows, "machine": machine, "versions": runtime.versions()}
    result["command"] = (
        f"python benchmarks/workers.py --rounds {options.rounds} --seconds {options.seconds:g}"
    )
    write_json(path, result)


if __name__ == "__main__":
    main()
