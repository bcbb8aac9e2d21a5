"""The command line as a user meets it: files, exit codes, one sentence for each mistake."""

import contextlib
import inspect
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mxnet import gluon
from typer.testing import CliRunner

from gluon_bn import runtime
from gluon_bn.checkpoint import read_checkpoint, write_atomically
from gluon_bn.cli import app
from gluon_bn.cli.runs import parameters_writer, progress_bar

ROOT = Path(__file__).parent.parent
NOWHERE = {
    "FASHION_MNIST_URL": "http://127.0.0.1:9/",
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "no_proxy": "",
}


# The command line over a stand-in of 2,000 and 500 garments: it is drawn in no time. For processes
# that could do what they are tested for with any data.
SMALL = """
from gluon_bn import cli, standin
standin.generate.__defaults__ = (2000, 500, 0)
cli.main()
"""


def start(*arguments, program=("-m", "gluon_bn"), **environment):
    env = {k: v for k, v in os.environ.items() if k != "FASHION_MNIST_ROOT"}
    env.update(environment, COLUMNS="200", PYTHONPATH=str(ROOT), PYTHONUNBUFFERED="1")
    return subprocess.Popen(
        [sys.executable, *program, *map(str, arguments)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_outside(*arguments, code=0, **environment):
    """Run the command in a process of its own; return what it wrote to both streams."""
    process = start(*arguments, **environment)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == code, stdout + stderr
    assert "Traceback" not in stderr
    return stdout, stderr


def run(*arguments, code=0, **environment):
    """The same inside this process, which need not be started and draws the stand-in once."""
    before = runtime.threads()
    # Click before 8.2, which Python 3.9 gets, mixes the two streams unless told not to.
    apart = "mix_stderr" in inspect.signature(CliRunner.__init__).parameters
    runner = CliRunner(**{"mix_stderr": False} if apart else {})
    result = runner.invoke(
        app,
        [str(a) for a in arguments],
        prog_name="gluon-bn",
        env={"FASHION_MNIST_ROOT": "", "COLUMNS": "200", **environment},
    )
    runtime.configure(before)
    assert result.exit_code == code, result.output
    assert not result.exception or isinstance(result.exception, SystemExit)
    return result.stdout, result.stderr


TRAIN = ("train", "lenet", "--stand-in", "--limit", 300, "--threads", 1)


def train(folder, *more, code=0):
    return run(*TRAIN, "--output", folder, *more, code=code)


def check_metrics(metrics, **expected):
    assert {
        "model",
        "norm",
        "seed",
        "dataset",
        "epochs",
        "test_accuracy",
        "versions",
    } <= metrics.keys()
    assert metrics["dataset"].keys() == {"name", "train", "test"}
    for number, epoch in enumerate(metrics["epochs"], 1):
        assert epoch["epoch"] == number
        assert {
            "train_loss",
            "train_accuracy",
            "test_accuracy",
            "seconds",
            "examples_per_second",
        } <= epoch.keys()
        assert epoch["seconds"] * epoch["examples_per_second"] == pytest.approx(
            metrics["dataset"]["train"]
        )
    assert metrics["test_accuracy"] == metrics["epochs"][-1]["test_accuracy"]
    for key, value in expected.items():
        assert metrics[key] == value


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    stdout, _ = run_outside(
        *TRAIN, "--output", folder, "--norm", "textbook", "--epochs", 2, "--seed", 3
    )
    return folder, stdout


def test_train_writes_the_files_of_the_contract(trained):
    folder, stdout = trained
    assert {p.name for p in folder.iterdir()} == {
        "metrics.json",
        "metrics.csv",
        "curves.png",
        "model.params",
        "checkpoint",
        "checkpoint.previous",
    }
    metrics = json.loads((folder / "metrics.json").read_text())
    check_metrics(
        metrics,
        model="lenet",
        norm="textbook",
        seed=3,
        dataset={"name": "stand-in", "train": 300, "test": 10000},
    )
    assert len(metrics["epochs"]) == 2
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_train_says_data_layer_threads_and_a_summary(trained):
    folder, stdout = trained
    first, *_, summary = stdout.splitlines()
    assert "stand-in" in first and "300" in first
    assert "kernel textbook" in stdout and "1 on " in stdout
    accuracy = json.loads((folder / "metrics.json").read_text())["test_accuracy"]
    assert f"test accuracy {accuracy:.4f}" in summary and str(folder) in summary


def test_model_params_load_into_gluons_layer(trained):
    from gluon_bn.models import lenet

    net = lenet("gluon")
    net.load_parameters(str(trained[0] / "model.params"))
    saved = read_checkpoint(trained[0] / "checkpoint")[1]
    for name, parameter in net._collect_params_with_prefix().items():
        assert np.array_equal(parameter.data().asnumpy(), saved[f"parameter/{name}"])


def test_two_runs_and_a_resumed_run_are_the_same(trained, tmp_path):
    folder, _ = trained
    train(tmp_path, "--norm", "textbook", "--epochs", 1, "--seed", 3)
    stdout, _ = train(tmp_path, "--norm", "textbook", "--epochs", 2, "--seed", 3, "--resume")
    assert "epoch 1/2" not in stdout
    one, other = (json.loads((f / "metrics.json").read_text()) for f in (folder, tmp_path))
    for a, b in zip(one["epochs"], other["epochs"]):
        assert (a["train_loss"], a["test_accuracy"]) == (b["train_loss"], b["test_accuracy"])
    one, other = (read_checkpoint(f / "checkpoint")[1] for f in (folder, tmp_path))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_enlarged_images_and_smoothed_labels(tmp_path):
    train(tmp_path, "--epochs", 1, "--resize", 32, "--label-smoothing", 0.1)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    check_metrics(metrics, resize=32, label_smoothing=0.1)
    assert metrics["epochs"][0]["train_loss"] > 0.5  # the entropy of (0.91, 0.01, ...) is 0.50
    weights = read_checkpoint(tmp_path / "checkpoint")[1].values()
    assert (120, 16 * 5 * 5) in {w.shape for w in weights}  # LeNet keeps 4 x 4 of 28 x 28
    _, stderr = train(
        tmp_path, "--epochs", 1, "--resize", 40, "--label-smoothing", 0.1, "--resume", code=1
    )
    assert "resize = 32" in stderr and "resize = 40" in stderr


def test_each_network_has_the_learning_rate_of_the_book(monkeypatch, tmp_path):
    """Chapters 5 to 7; ResNet-18 and DenseNet do not learn at LeNet's."""
    rates = {}

    def stop(model, norm, data, epochs, batch_size, lr, *more, **options):
        rates[model] = lr
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["gluon_bn.cli.train"], "train_network", stop)
    for model in ("lenet", "resnet18", "densenet"):
        run("train", model, "--stand-in", "--limit", 100, "--output", tmp_path, code=130)
    assert rates == {"lenet": 1.0, "resnet18": 0.05, "densenet": 0.1}


def test_resume_with_another_norm_or_a_broken_checkpoint(trained):
    folder, _ = trained
    _, stderr = train(folder, "--norm", "gluon", "--seed", 3, "--resume", code=1)
    assert "norm = textbook" in stderr and "norm = gluon" in stderr
    content = (folder / "checkpoint").read_bytes()
    try:
        (folder / "checkpoint").write_bytes(content[:5000])
        _, stderr = train(folder, "--norm", "textbook", "--seed", 3, "--resume", code=1)
        assert "cut short" in stderr
    finally:
        (folder / "checkpoint").write_bytes(content)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_keeps_its_checkpoint_and_goes_on(number, tmp_path):
    command = [
        "train",
        "lenet",
        "--stand-in",
        "--limit",
        2000,
        "--threads",
        1,
        "--norm",
        "gluon",
        "--batch-size",
        32,
        "--output",
        tmp_path,
    ]
    process = start(*command, "--epochs", 1000, program=("-c", SMALL))
    for line in process.stdout:
        if "epoch 1/" in line:
            break
    time.sleep(0.3)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr and "--resume" in stderr
    assert {p.name for p in tmp_path.iterdir()} == {
        "checkpoint",
        "checkpoint.previous",
        "metrics.json",
        "metrics.csv",
    }
    done = len(read_checkpoint(tmp_path / "checkpoint")[0]["epochs"])
    assert done >= 1
    more = (*command, "--epochs", done + 1, "--resume")
    stdout, _ = run_outside(*more, program=("-c", SMALL))
    assert f"epoch {done + 1}/{done + 1}" in stdout and f"epoch {done}/" not in stdout


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="needs Linux")
@pytest.mark.parametrize("seconds", [0, 0.3, 1.0])
def test_stopped_before_it_has_begun(seconds, tmp_path):
    """While MXNet is being imported, or the layers are made."""
    process = start("train", "lenet", "--stand-in", "--epochs", 1000, "--output", tmp_path)
    while "libmxnet" not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.005)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    # -SIGINT: stopped inside an exec() of MXNet's, Python ends itself so; a shell shows 130, too.
    assert process.returncode in (130, -signal.SIGINT) and "Traceback" not in stderr, stderr


LOST = """
import signal, weakref
from gluon_bn import cli, data

def interrupted(*where, **more):
    class Module: pass
    module = Module()
    reference = weakref.ref(module, lambda _: signal.raise_signal(signal.SIGINT))
    del module  # the interrupt is raised, and lost, in the callback
    while True: pass

data.dataset = interrupted
cli.main()
"""


def test_an_interrupt_that_python_loses_is_sent_again(tmp_path):
    """The callback could be one of the locks of an import; Python says "Exception ignored in"."""
    _, stderr = run_outside("train", "lenet", "--output", tmp_path, program=("-c", LOST), code=130)
    assert "Stopped" in stderr and "ignored" not in stderr


def test_stopped_while_the_data_is_made(tmp_path):
    """The interrupt may come at any moment once the program says what it does."""
    process = start(
        "data", "fetch", "--data-dir", tmp_path, FASHION_MNIST_URL="http://10.255.255.1"
    )
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode in (130, 1)  # 1: without a network it may be over by then
    assert "Traceback" not in stderr
    assert not any(p.suffix == ".gz" for p in tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["train"], "Missing argument"),
        (["train", "alexnet"], "lenet"),
        (["train", "lenet", "--norm", "foo"], "textbook"),
        (["train", "lenet", "--epochs", "0"], "epochs"),
        (["train", "lenet", "--epochs", "two"], "epochs"),
        (["train", "lenet", "--batch-size", "0"], "batch-size"),
        (["train", "lenet", "--lr", "-1"], "lr"),
        (["train", "lenet", "--lr", "0"], "lr"),
        (["train", "lenet", "--lr", "nan"], "lr"),
        (["train", "lenet", "--lr", "1e39"], "lr"),
        (["train", "lenet", "--limit", "0"], "limit"),
        (["train", "lenet", "--limit", "70000", "--stand-in"], "60000"),
        (["train", "lenet", "--limit", "40", "--held-out", "40", "--stand-in"], "held-out"),
        (["train", "lenet", "--seed", "-1"], "seed"),
        (["train", "lenet", "--threads", "0"], "threads"),
        (["train", "lenet", "--resize", "20"], "resize"),
        (["train", "lenet", "--label-smoothing", "1"], "smoothing"),
        (["train", "lenet", "--output", __file__], "output"),
        (["demo", "--epochs", "0"], "epochs"),
        (["data", "burn"], "burn"),
        (["fly"], "fly"),
    ],
)
def test_usage_errors(arguments, says):
    _, stderr = run(*arguments, code=2)
    assert says in stderr


def test_a_usage_error_in_a_process_of_its_own():
    _, stderr = run_outside("train", "lenet", "--norm", "foo", code=2)
    assert "textbook" in stderr


def test_other_errors(tmp_path):
    _, stderr = run(
        "train",
        "lenet",
        "--data-dir",
        tmp_path / "none",
        "--output",
        tmp_path / "o",
        code=1,
        **NOWHERE,
    )
    assert "Fashion-MNIST is not in" in stderr
    _, stderr = run("data", "fetch", "--data-dir", __file__, code=1)
    assert "is a file" in stderr
    if os.geteuid():  # root may write everywhere
        _, stderr = train("/proc/nothing", code=1)
        assert "/proc/nothing" in stderr


def test_data_info(tmp_path):
    stdout, _ = run("data", "info", "--data-dir", tmp_path)
    assert str(tmp_path) in stdout and stdout.count("missing") == 4


def test_demo_without_a_network(tmp_path):
    stdout, _ = run(
        "demo",
        "--limit",
        500,
        "--epochs",
        2,
        "--threads",
        1,
        "--batch-size",
        50,
        "--output",
        tmp_path / "demo",
        "--data-dir",
        tmp_path / "none",
        **NOWHERE,
    )
    assert "STAND-IN" in stdout and "╭" in stdout  # the box
    for name in ("without batch norm", "ours, from scratch", "Gluon's layer"):
        assert name in stdout
    assert "stand-in data" in stdout.split("The demo goes on")[1]  # the title of the table
    demo = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    assert [run["norm"] for run in demo["runs"]] == ["none", "auto", "gluon"]
    for metrics in demo["runs"]:
        check_metrics(metrics, dataset={"name": "stand-in", "train": 500, "test": 10000})
    assert demo["runs"][1]["epochs"][0]["train_loss"] == pytest.approx(
        demo["runs"][2]["epochs"][0]["train_loss"], rel=0.05
    )  # the same weights, the same batches
    assert (tmp_path / "demo" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "none" / "train-images-idx3-ubyte.gz").exists()


def test_help():
    stdout, _ = run_outside("--help")
    assert all(command in stdout for command in ("train", "demo", "data"))


@pytest.mark.parametrize(
    "name, environment",
    [
        ("donn\u00e9es", {"PYTHONIOENCODING": "ascii"}),
        ("donn\u00e9es", {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}),
        (os.fsdecode(b"donn\xe9es"), {}),
    ],
    ids=["ascii", "C", "no UTF-8"],
)
def test_letters_that_the_terminal_has_not(name, environment, tmp_path):
    """An accent ends no run, nor does a name that is no UTF-8, which MXNet could not write to."""
    folder = tmp_path / name
    arguments = (*TRAIN, "--epochs", 1, "--output", folder)
    run_outside(*arguments, program=("-c", SMALL), **environment)
    assert {path.name for path in folder.iterdir()} >= {"metrics.json", "model.params"}
    _, stderr = run_outside(
        "data", "fetch", "--data-dir", folder / "checkpoint", code=1, **environment
    )
    assert "is a file" in stderr


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_drawn_only_in_a_terminal(terminal, monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stdout", stream)
    with progress_bar("lenet", 4) as bar:
        bar.set_postfix_str("loss 0.500")
        bar.update(4)
    assert ("lenet 100%" in stream.getvalue() and "loss 0.500" in stream.getvalue()) == terminal
    assert terminal or not stream.getvalue()


@contextlib.contextmanager
def files_no_larger_than(size):
    """As if the disk were full then: the system writes no more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [40_000, 186_000])
def test_a_full_disk_in_a_process_of_its_own(size, tmp_path):
    """One sentence, which names the file; nothing half written, and no traceback behind it."""
    with files_no_larger_than(size):
        arguments = (*TRAIN, "--epochs", 1, "--output", tmp_path / "run")
        process = start(*arguments, program=("-c", SMALL))
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert stderr.count("Error: ") == 1 and str(tmp_path / "run" / "checkpoint: ") in stderr
    assert "Traceback" not in stderr and "ignored" not in stderr
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("missing", [1, 500, 100_000])
def test_a_full_disk_while_the_weights_are_written(missing, tmp_path):
    """MXNet itself says nothing where only the last bytes are missing."""
    net = gluon.nn.Dense(200, in_units=200)
    net.initialize()
    path = tmp_path / "model.params"
    write_atomically(path, parameters_writer(net))
    content = path.read_bytes()
    net.weight.set_data(2 * net.weight.data())
    with files_no_larger_than(len(content) - missing), pytest.raises(OSError, match="disk full"):
        write_atomically(path, parameters_writer(net))
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]
