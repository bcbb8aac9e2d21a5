"""Two versions of the package, in a process each, taking turns: which is faster?

    git worktree add /tmp/before <commit>
    OMP_NUM_THREADS=1 python benchmarks/before_after.py /tmp/before . --kernels native fused

A ratio below 1 says that the second one is faster. Each line gives both medians, the median of the
ratios round by round, and the ratio of the fastest rounds. What another program does to the machine
strikes both; still, compare a version with itself once, to see what a ratio is worth.
"""

import argparse
import json
import statistics
import subprocess
import sys
from math import prod
from pathlib import Path

SHAPES = [[256, 120], [256, 6, 24, 24], [256, 16, 8, 8], [128, 64, 24, 24]]
SHAPES += [[32, 64, 24, 24], [64, 256, 12, 12], [128, 512, 3, 3]]
NETWORKS = {"lenet": [256, 1, 28, 28], "resnet18": [64, 1, 28, 28], "densenet": [32, 1, 28, 28]}

WORKER = """
import json, sys, time
sys.path.insert(0, {root!r})
import numpy as np
from mxnet import nd
import gluon_bn
assert gluon_bn.__file__.startswith({root!r}), gluon_bn.__file__
from gluon_bn import bench, blocks, runtime
from gluon_bn.models import MODELS
runtime.configure()
for line in sys.stdin:
    asked, answer = json.loads(line), None
    if "rounds" in asked:
        nd.waitall()
        start = time.perf_counter()
        for _ in range(asked["rounds"]):
            steps[asked["mode"]]()
            nd.waitall()
        answer = 1e3 * (time.perf_counter() - start) / asked["rounds"]
    elif asked["model"]:
        X, n = nd.random.uniform(shape=asked["shape"]), asked["shape"][0]
        net = MODELS[asked["model"]](norm=asked["kernel"])
        steps = bench.network_steps(net, X, nd.array(np.arange(n) % 10), hybridize=True)
    else:
        X, dY = (nd.random.normal(shape=asked["shape"]) for _ in range(2))
        layer = blocks.BatchNorm(asked["shape"][1], kernel=asked["kernel"])
        steps = dict(zip(("train", "predict"), bench.gluon_steps(layer, X, dY)))
    print(json.dumps(answer), flush=True)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--kernels", nargs="*", default=["native", "fused", "analytic", "textbook"])
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    options = parser.parse_args()
    roots = [str(Path(root).resolve()) for root in (options.before, options.after)]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER.format(root=root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for root in roots
    ]

    def ask(worker, **what):
        worker.stdin.write(json.dumps(what) + "\n")
        worker.stdin.flush()
        return json.loads(worker.stdout.readline())

    contests = [(None, shape, kernel) for kernel in options.kernels for shape in SHAPES]
    contests += [(model, NETWORKS[model], "auto") for model in options.networks]
    for model, shape, kernel in contests:
        for worker in workers:
            ask(worker, model=model, shape=shape, kernel=kernel)
        rounds = 10 if not model and prod(shape) < 500_000 else 1
        for mode in ("train", "predict"):
            times = ([], [])
            for turn in range(20):
                for i in (0, 1) if turn % 2 else (1, 0):
                    times[i].append(ask(workers[i], mode=mode, rounds=rounds))
            before, after = (t[2:] for t in times)  # the first ones warm up
            ratio = statistics.median(b / a for a, b in zip(before, after))
            print(
                f"{model or kernel:9} {mode:8} {str(shape):20} before "
                f"{statistics.median(before):8.3f} ms, after {statistics.median(after):8.3f} ms, "
                f"ratio {ratio:.3f}, of the fastest {min(after) / min(before):.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
