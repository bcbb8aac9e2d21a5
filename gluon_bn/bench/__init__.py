"""The speed contests: every kernel, Gluon's operator and PyTorch's layer, side by side.

Timings are taken in one run, the contestants taking turns, and given as medians; what counts are
ratios within a run, for these machines have fast and slow minutes. Each contestant gets the same
threads and the same memory allocator (`gluon_bn.runtime.configure`), and its best settings. PyTorch
takes part where it is installed (`pip install torch`); nothing else needs it.

`run` measures, `gluon-bn bench` calls it, `benchmarks/results/` keeps what the README quotes.
"""

from pathlib import Path

from gluon_bn import plotting, runtime
from gluon_bn.bench import costs, pytorch
from gluon_bn.bench.costs import accuracy, first_call, memory
from gluon_bn.bench.layers import GROWTH, SHAPES, gluon_steps, growth, layer
from gluon_bn.bench.networks import NETWORKS, network, network_steps
from gluon_bn.bench.timing import in_a_process, take_turns
from gluon_bn.training import write_figure, write_json

__all__ = ["gluon_steps", "network_steps", "run", "steps", "take_turns", "write"]

CONTESTS = {  # a process for each number of threads, and how many lines each says
    "layer": (layer, 2 * len(SHAPES)),
    "network": (network, 2 * len(NETWORKS)),
    "growth": (growth, len(GROWTH)),
}
COSTS = {"accuracy": accuracy, "memory": memory, "first_call": first_call}
PARTS = (*COSTS, *CONTESTS)


def run(parts=PARTS, threads=(1, 2), quick=False, say=print):
    """Measure and return everything, a dict of plain values ready for JSON."""
    repeats = 5 if quick else 25
    chosen = "".join(f" --only {p}" for p in parts) if tuple(parts) != PARTS else ""
    result = {"command": "gluon-bn bench" + " --quick" * quick + chosen, "quick": quick}
    for part in parts:
        if part == "memory" and not costs.STATUS.exists():
            say("memory is left out: only Linux says, in /proc, how much a process had at most")
        elif part in COSTS:
            say(f"{part} ...")
            result[part] = COSTS[part]()
        else:
            result[part] = {}
            for n in threads:
                say(f"{part}, {n} thread{'s' * (n > 1)} ...")
                result[part][str(n)] = in_a_process(part, n, repeats, say)
    result["settings"] = {**runtime.describe(), "threads": list(threads), "repeats": repeats}
    result["versions"] = {**runtime.versions(), "torch": pytorch.version()}
    return result


def steps(parts, threads):
    """How many lines `run` says of this: for a bar that shows how far it is."""
    return sum(1 if part in COSTS else len(threads) * (1 + CONTESTS[part][1]) for part in parts)


def write(result, folder):
    """`bench.json` and `bench.png` in `folder`; returns their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "bench.json", result)
    write_figure(folder / "bench.png", plotting.plot_bench(result))
    return folder / "bench.json", folder / "bench.png"
