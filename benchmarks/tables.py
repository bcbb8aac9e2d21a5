"""Write the tables of README.md and docs/results.md again from the files in benchmarks/results.

    python benchmarks/tables.py           write the two pages
    python benchmarks/tables.py --check   exit 1 if one of them is not in step with the files

Each table stands between two comments, `<!-- table: NAME -->` and `<!-- end -->`.
"""

import json
import re
import sys
from pathlib import Path

from gluon_bn.bench.layers import fastest

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def demo():
    """The three LeNets of `gluon-bn demo`."""
    metrics = json.loads((RESULTS / "demo" / "metrics.json").read_text())
    names = {"none": "no batch norm", "auto": "ours, from scratch", "gluon": "Gluon's"}
    rows = [
        [
            names[run["norm"]],
            f"{run['epochs'][-1]['train_loss']:.3f}",
            f"{run['epochs'][-1]['train_accuracy']:.3f}",
            f"{run['test_accuracy']:.3f}",
            f"{max(e['test_accuracy'] for e in run['epochs']):.3f}",
        ]
        for run in metrics["runs"]
    ]
    run = metrics["runs"][0]
    data = metrics["dataset"]
    name = {"fashion-mnist": "Fashion-MNIST", "stand-in": "stand-in data"}[data["name"]]
    return table(
        ["LeNet", "training loss", "training accuracy", "test accuracy", "best epoch"], rows
    ) + (
        f"\n{name}, {data['train']:,} training images, {len(run['epochs'])} epochs, "
        f"seed {run['seed']}, {run['machine']['cpu']}, threads: {run['machine']['threads']}; "
        "`gluon-bn demo --threads 1 --output benchmarks/results/demo`.\n"
    )


def layer():
    """Time of one layer relative to Gluon's operator, geometric means over the shapes."""
    bench = read_bench()
    names = list(next(iter(bench["layer"].values()))["ratio_to_gluon"]["train"])
    rows = []
    for name in (n for n in names if n[0].isalpha()):
        rows.append([f"`{name}`" if name != "pytorch" else "PyTorch"])
        for mode in ("train", "predict"):
            rows[-1] += [
                f"{part['ratio_to_gluon'][mode][name]:.2f}" for part in bench["layer"].values()
            ]
    threads = list(bench["layer"])
    head = ["one layer"] + [
        f"{what}, {n} thread{'s' * (n != '1')}"
        for what in ("training step", "prediction")
        for n in threads
    ]
    return table(head, rows) + source(bench)


def shapes():
    """One layer by shape: the fastest setting of each, in units of Gluon's and of copies."""
    bench = read_bench()
    rows = []
    shapes = [row["shape"] for row in next(iter(bench["layer"].values()))["rows"]]
    for shape in dict.fromkeys(map(tuple, shapes)):
        row = [str(shape)]
        for mode, bound in (("train", "2.5 copies"), ("predict", "1 copy")):
            for part in bench["layer"].values():
                ms = next(
                    fastest(row["ms"])
                    for row in part["rows"]
                    if tuple(row["shape"]) == shape and row["mode"] == mode
                )
                row.append(
                    f"{ms['native'] / ms['gluon']:.2f} / {ms['pytorch'] / ms['gluon']:.2f} / "
                    f"{ms['native'] / ms[bound]:.1f}"
                )
        rows.append(row)
    head = ["shape"] + [
        f"{what}, {n} thread{'s' * (n != '1')}"
        for what in ("training step", "prediction")
        for n in bench["layer"]
    ]
    return table(head, rows) + source(bench)


def network():
    """Images a second of LeNet, and relative to Gluon's hybridized network."""
    bench = read_bench()
    rows = []
    parts = bench["network"]
    for model in next(iter(parts.values())):
        for name in next(iter(parts.values()))[model]["predict"]:
            row = [model, name]
            for mode in ("train", "predict"):
                for part in parts.values():
                    if name not in part[model][mode]:
                        row.append("")
                        continue
                    rate, gluon = part[model][mode][name], part[model][mode]["gluon hybridized"]
                    row.append(f"{rate:,.0f} ({rate / gluon:.2f})")
            rows.append(row)
    head = ["network", "layer"] + [
        f"{what}, {n} thread{'s' * (n != '1')}"
        for what in ("training", "prediction")
        for n in parts
    ]
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
    memory = bench["memory"]
    rows = [
        [f"`{name}`", f"{t['cold']:.1f}", f"{t['warm']:.2f}", f"{memory[name]:.1f}"]
        for name, t in bench["first_call"].items()
    ]
    rows.append(["`gluon`", "", "", f"{memory['gluon']:.1f}"])
    return table(
        [
            "kernel",
            "first step, nothing cached (s)",
            "first step, cached (s)",
            "peak memory of a step (times X)",
        ],
        rows,
    ) + source(bench)


MODELS = ("lenet", "resnet18", "resnet18-small", "densenet", "densenet-small")
LAYERS = (("auto", "ours"), ("gluon", "Gluon's"))


def trained(model):
    """The recorded runs of a network by its layer, and their recipe; those that there are."""
    path = RESULTS / f"{model}.json"
    if not path.exists():
        return {}, None
    result = json.loads(path.read_text())
    assert {run["dataset"]["name"] for run in result["runs"]} == {"fashion-mnist"}
    runs = {label: [r for r in result["runs"] if r["norm"] == norm] for norm, label in LAYERS}
    return {label: some for label, some in runs.items() if some}, result["recipe"]


def mean(values):
    return sum(values) / len(values)


def spread(values, digits=4):
    """Their mean, and in brackets the lowest and the highest."""
    middle, low, high = (f"{f(values):.{digits}f}" for f in (mean, min, max))
    return f"{middle} ({low} to {high})"


def results():
    """A line for each network: what it costs, and its test accuracy with ours and with Gluon's."""
    measured, rows = json.loads((RESULTS / "epochs.json").read_text()), []
    cost = measured["networks"]
    for model in MODELS:
        runs, _ = trained(model)
        if not runs:
            continue
        epochs = len(next(iter(runs.values()))[0]["epochs"])
        seconds = " / ".join(f"{cost[model][norm]:.0f}" for norm, _ in LAYERS)
        found = [f"{mean([run['test_accuracy'] for run in some]):.4f}" for some in runs.values()]
        rows.append([model, f"{cost[model]['weights']:,}", str(epochs), seconds, *found])
    head = ["network", "weights", "epochs", "CPU seconds an epoch, ours / Gluon's"]
    return table(head + [f"test accuracy, {label}" for _, label in LAYERS], rows) + (
        "\nFashion-MNIST, 60,000 training images, all 10,000 test images, means of three seeds; "
        f"{measured['machine']['cpu']}, one thread; `python benchmarks/train.py --threads 1`, the "
        f"seconds by `{measured['command']}`.\n"
    )


def networks():
    """Test accuracy of the recorded runs, ours and Gluon's, over the seeds."""
    rows, recipes = [], []
    for model in MODELS:
        runs, recipe = trained(model)
        recipes += [f"`{recipe}`"] * bool(runs)
        for label, some in runs.items():
            found = [run["test_accuracy"] for run in some]
            rows.append(
                [
                    model,
                    label,
                    str(len(some[0]["epochs"])),
                    f"{mean(found):.4f}",
                    " ".join(f"{a:.4f}" for a in found),
                    f"{mean([r['epochs'][-1]['train_accuracy'] for r in some]):.3f}",
                ]
            )
    data, machine = some[0]["dataset"], some[0]["machine"]
    head = "network; layer; epochs; test accuracy, mean; by seed (0, 1, 2); training accuracy"
    return table(head.split("; "), rows) + (
        f"\nFashion-MNIST, {data['train']:,} training images, all 10,000 test images, accuracy "
        f"after the last epoch; {machine['cpu']}, {machine['threads']} thread; "
        "`python benchmarks/train.py --threads 1`, which runs\n" + ",\n".join(recipes) + ".\n"
    )


def averages():
    """The small networks, whose rate falls to zero: the same of the exponential average."""
    rows = []
    for model in MODELS:
        for label, some in trained(model)[0].items():
            if not some[0].get("average"):
                continue
            ways = [
                [run["test_accuracy"] for run in some],
                [run["average"]["test_accuracy"] for run in some],
                [run["average"]["test_accuracy_not_recalibrated"] for run in some],
            ]
            rows.append([model, label] + [spread(way) for way in ways])
    head = "network; layer; the last weights; averaged, exact statistics; averaged, those of the "
    return table((head + "last weights").split("; "), rows)


def recalibration():
    """LeNet at lr 1.0: the test accuracy by moving averages and by exact statistics."""
    result = json.loads((RESULTS / "recalibration.json").read_text())
    rows = []
    for run in result["runs"]:
        row = [str(run["seed"])]
        for key in ("test_accuracy", "test_accuracy_recalibrated"):
            found = [epoch[key] for epoch in run["epochs"]]
            row += [f"{min(found[2:]):.3f} to {max(found[2:]):.3f}", f"{found[-1]:.3f}"]
        rows.append(row)
    epochs = len(result["runs"][0]["epochs"])
    return table(
        [
            "seed",
            f"moving averages, epochs 3 to {epochs}",
            "last epoch",
            f"recalibrated, epochs 3 to {epochs}",
            "last epoch",
        ],
        rows,
    ) + origin(result)


def averaging():
    """LeNet at lr 1.0: last and averaged weights, with and without exact statistics."""
    result = json.loads((RESULTS / "averaging.json").read_text())
    ways = ("last", "last_recalibrated", "averaged", "averaged_recalibrated")
    rows = []
    for norm, label in LAYERS:
        some = [run for run in result["runs"] if run["norm"] == norm]
        rows.append([label] + [spread([run[way] for run in some]) for way in ways])
    head = "layer; last weights; exact statistics; averaged weights, statistics of the last; exact "
    return table((head + "statistics").split("; "), rows) + origin(result)


def folding():
    """Trained networks without their batch norm layers."""
    result = json.loads((RESULTS / "folding.json").read_text())
    rows = [
        [
            model,
            f"{found['pixels']}x{found['pixels']}",
            f"{found['largest_difference_in_logits']:.1e}",
            *(
                f"{found['milliseconds_for_256_images'][n]:.1f}"
                for n in ("auto", "gluon", "folded")
            ),
        ]
        for model, found in result["models"].items()
    ]
    return table(
        [
            "network",
            "images",
            "largest difference of a logit",
            "256 images with ours (ms)",
            "with Gluon's (ms)",
            "folded (ms)",
        ],
        rows,
    ) + origin(result)


def batch_sizes():
    """Test error against the size of the batch, for each norm."""
    result = json.loads((RESULTS / "batch_size.json").read_text())
    runs = result["runs"]
    sizes = sorted({run["batch_size"] for run in runs}, reverse=True)
    rows = []
    for norm in dict.fromkeys(run["norm"] for run in runs):
        errors = [
            [run["error"] for run in runs if (run["norm"], run["batch_size"]) == (norm, size)]
            for size in sizes
        ]
        rows.append([norm, *(spread([100 * value for value in some], 1) for some in errors)])
    return table(["norm", *(f"batches of {size}" for size in sizes)], rows) + origin(result)


def generators():
    """The generators of chapter 8, by the score of a classifier that never met them."""
    result = json.loads((RESULTS / "gan" / "gan.json").read_text())
    runs = [("conditional batch norm", result["long"]), *result["short"].items()]
    rows = [[name, str(len(run["epochs"])), f"{run['score']:.3f}"] for name, run in runs]
    head = ["generator", "epochs", "drawings recognized as what was asked for"]
    return table(head, rows) + origin(result)


def workers():
    """Images a second of two workers, relative to one."""
    result = json.loads((RESULTS / "workers.json").read_text())
    names = {"apart": "nothing (the bound)", "own": "gradients", "sync": "gradients and statistics"}
    models = {"lenet": "LeNet", "resnet18": "ResNet-18"}
    rows = [
        [
            models[row["model"]],
            str(row["workers"]),
            f"{row['batch_size'] // row['workers']}",
            names[row["statistics"]] if row["workers"] > 1 else "",
            f"{row['images_per_second']:,.0f}",
            f"{row['times_one_worker']:.2f}",
            f"{row['of_the_bound']:.2f}" if row["workers"] > 1 else "",
        ]
        for row in result["rows"]
    ]
    head = "network; workers; images a worker and step; what they add up; images a second; "
    head += "times one worker; of the bound"
    machine, rounds = result["machine"], len(result["rows"][0]["rounds"])
    return table(head.split("; "), rows) + (
        f"\nOne thread a worker, random images, seed 0, medians of {rounds} rounds, "
        f"{machine['cpu']}, {machine['cores']} cores, MXNet "
        f"{result['versions']['mxnet']}; `{result['command']}`.\n"
    )


def origin(result):
    machine = result["machine"]
    return (
        f"\nFashion-MNIST, {machine['cpu']}, threads: {machine['threads']}; "
        f"`{result['command']}`.\n"
    )


def read_bench():
    return json.loads((RESULTS / "bench.json").read_text())


def source(bench):
    settings = bench["settings"]
    return (
        f"\n{settings['cpu']}, {settings['cores']} cores, MXNet {bench['versions']['mxnet']}, "
        f"PyTorch {bench['versions']['torch']}; `{bench['command']} --output "
        "benchmarks/results`.\n"
    )


def table(head, rows):
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


TABLES = {
    f.__name__: f
    for f in (
        demo,
        layer,
        shapes,
        network,
        accuracy,
        first_call,
        results,
        networks,
        averages,
        recalibration,
        averaging,
        folding,
        generators,
        batch_sizes,
        workers,
    )
}


def render(text):
    """A page with every table written again."""

    def fill(match):
        return f"<!-- table: {match[1]} -->\n{TABLES[match[1]]()}<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end -->", fill, text, flags=re.S)


def main():
    pages = {path: path.read_text() for path in (ROOT / "README.md", ROOT / "docs/results.md")}
    if "--check" in sys.argv:
        sys.exit(any(render(text) != text for text in pages.values()))
    for path, text in pages.items():
        path.write_text(render(text))


if __name__ == "__main__":
    main()
