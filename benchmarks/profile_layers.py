"""Where the time of a network's step goes: each kind of operator, ours beside Gluon's.

    OMP_NUM_THREADS=1 python benchmarks/profile_layers.py resnet18 train

Every operator runs alone (no bulks). The figure is the sum over an operator's calls in a step of
the fastest of that call over the steps, so that other programs on the machine disturb it little.
DNNL_VERBOSE=1 before it shows the reorders that oneDNN makes inside the operators.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
from collections import defaultdict
from pathlib import Path

import mxnet as mx
from mxnet import nd

from gluon_bn import bench, runtime
from gluon_bn.models import MODELS

SHOWN = 0.05  # milliseconds, below which an operator is left out


def profile(model, norm, mode, steps, threads):
    """{operator: (milliseconds, calls) in one step}."""
    runtime.configure(threads)
    batch = bench.NETWORKS[model]
    X, y = nd.random.uniform(shape=batch), nd.arange(batch[0]) % 10
    net = MODELS[model](norm=norm)
    step = bench.network_steps(net, X, y, hybridize=True)[mode]
    net.hybridize(static_alloc=True, static_shape=True, forward_bulk_size=0, backward_bulk_size=0)
    for _ in range(3):
        step()
    nd.waitall()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "profile.json")
        mx.profiler.set_config(profile_imperative=True, profile_symbolic=True, filename=str(file))
        mx.profiler.set_state("run")
        for _ in range(steps):
            step()
        nd.waitall()
        mx.profiler.set_state("stop")
        mx.profiler.dump()
        events = json.loads(file.read_text())["traceEvents"]
    return by_operator(events, steps)


def by_operator(events, steps):
    began, found = {}, defaultdict(list)
    for event in events:
        if event.get("cat") == "operator":
            if event["ph"] == "B":
                began[event["tid"]] = event["ts"]
            elif event["ph"] == "E":
                found[event["name"]].append((event["ts"] - began[event["tid"]]) / 1e3)
    table = {}
    for name, all_calls in found.items():
        calls = len(all_calls) // steps
        if calls:
            table[name] = sum(min(all_calls[i::calls]) for i in range(calls)), calls
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("mode", choices=["train", "predict"])
    parser.add_argument("--norms", nargs="+", default=["gluon", "auto"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=25)
    args = parser.parse_args()
    os.environ["MXNET_EXEC_BULK_EXEC_INFERENCE"] = "0"  # read by the processes below
    # MXNet's profiler writes one file a process: a new process for each network.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        found = pool.starmap(
            profile,
            [(args.model, norm, args.mode, args.steps, args.threads) for norm in args.norms],
            chunksize=1,
        )
    tables = dict(zip(args.norms, found))
    rows = {
        name: [table.get(name, (0, 0)) for table in tables.values()]
        for name in {name for table in tables.values() for name in table}
    }
    print("| operator | " + " | ".join(f"{norm}, ms (calls)" for norm in tables) + " |")
    print("| --- |" + " ---: |" * len(tables))
    total = [(sum(ms for ms, _ in table.values()), "") for table in tables.values()]
    shown = {name: row for name, row in rows.items() if max(row)[0] >= SHOWN}
    for name, row in [*sorted(shown.items(), key=lambda item: -max(item[1])[0]), ("sum", total)]:
        print(
            f"| {name} | "
            + " | ".join(f"{ms:.2f} ({calls})" if calls else f"{ms:.2f}" for ms, calls in row)
            + " |"
        )


if __name__ == "__main__":
    main()
