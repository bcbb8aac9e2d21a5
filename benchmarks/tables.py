"""Write the README's tables again from the files in benchmarks/results.

    python benchmarks/tables.py           write README.md
    python benchmarks/tables.py --check   exit 1 if README.md is not in step with the files

Each table stands between two comments, `<!-- table: NAME -->` and `<!-- end -->`.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def demo():
    """The three LeNets of `gluon-bn demo`."""
    metrics = json.loads((RESULTS / "demo" / "metrics.json").read_text())
    names = {"none": "no batch norm", "auto": "ours, from scratch", "gluon": "Gluon's"}
    rows = [[names[run["norm"]], f"{run['epochs'][-1]['train_loss']:.3f}",
             f"{run['epochs'][-1]['train_accuracy']:.3f}", f"{run['test_accuracy']:.3f}",
             f"{max(e['test_accuracy'] for e in run['epochs']):.3f}"] for run in metrics["runs"]]
    run = metrics["runs"][0]
    data = metrics["dataset"]
    name = {"fashion-mnist": "Fashion-MNIST", "stand-in": "stand-in data"}[data["name"]]
    return table(["LeNet", "training loss", "training accuracy", "test accuracy", "best epoch"],
                 rows) + (
        f"\n{name}, {data['train']:,} training images, {len(run['epochs'])} epochs, "
        f"seed {run['seed']}, {run['machine']['cpu']}, {run['machine']['threads']} threads; "
        "`gluon-bn demo --output benchmarks/results/demo`.\n")


def layer():
    """Time of one layer relative to Gluon's operator, geometric means over the shapes."""
    bench = read_bench()
    names = list(next(iter(bench["layer"].values()))["ratio_to_gluon"]["train"])
    rows = []
    for name in (n for n in names if n[0].isalpha()):
        rows.append([f"`{name}`" if name != "pytorch" else "PyTorch"])
        for mode in ("train", "predict"):
            rows[-1] += [f"{part['ratio_to_gluon'][mode][name]:.2f}"
                         for part in bench["layer"].values()]
    threads = list(bench["layer"])
    head = ["one layer"] + [f"{what}, {n} thread{'s' * (n != '1')}"
                            for what in ("training step", "prediction") for n in threads]
    return table(head, rows) + source(bench)


def network():
    """Images a second of LeNet, and relative to Gluon's hybridized network."""
    bench = read_bench()
    rows = []
    parts = bench["network"]
    for model in next(iter(parts.values())):
        for name in next(iter(parts.values()))[model]["train"]:
            row = [model, name]
            for mode in ("train", "predict"):
                for part in parts.values():
                    rate, gluon = part[model][mode][name], part[model][mode]["gluon hybridized"]
                    row.append(f"{rate:,.0f} ({rate / gluon:.2f})")
            rows.append(row)
    head = ["network", "layer"] + [f"{what}, {n} thread{'s' * (n != '1')}"
                                   for what in ("training", "prediction") for n in parts]
    return table(head, rows) + source(bench)


def accuracy():
    """Largest error of Y against float64 by offset."""
    bench = read_bench()
    found = bench["accuracy"]["largest_error"]
    offsets = list(next(iter(found.values())))
    rows = [[f"`{name}`"] + [f"{found[name][o]['Y']:.1e}" for o in offsets] for name in found]
    return table(["largest error of Y"] + [f"offset {o}" for o in offsets], rows) + source(bench)


def first_call():
    """Seconds of the first call, and the peak memory of a step."""
    bench = read_bench()
    memory = json.loads((RESULTS / "memory" / "bench.json").read_text())["memory"]
    rows = [[f"`{name}`", f"{t['cold']:.1f}", f"{t['warm']:.2f}", f"{memory[name]:.1f}"]
            for name, t in bench["first_call"].items()]
    rows.append(["`gluon`", "", "", f"{memory['gluon']:.1f}"])
    return table(["kernel", "first step, nothing cached (s)", "first step, cached (s)",
                  "peak memory of a step (times X)"], rows) + source(bench) + (
        "Memory: `gluon-bn bench --only memory --output benchmarks/results/memory`.\n")


def read_bench():
    return json.loads((RESULTS / "bench.json").read_text())


def source(bench):
    settings = bench["settings"]
    return (f"\n{settings['cpu']}, {settings['cores']} cores, MXNet {bench['versions']['mxnet']}, "
            f"PyTorch {bench['versions']['torch']}; `{bench['command']} --output "
            "benchmarks/results`.\n")


def table(head, rows):
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


TABLES = {f.__name__: f for f in (demo, layer, network, accuracy, first_call)}


def render(text):
    """The README with every table written again."""
    def fill(match):
        return f"<!-- table: {match[1]} -->\n{TABLES[match[1]]()}<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end -->", fill, text, flags=re.S)


def main():
    path = ROOT / "README.md"
    text = path.read_text()
    if "--check" in sys.argv:
        sys.exit(render(text) != text)
    path.write_text(render(text))


if __name__ == "__main__":
    main()
