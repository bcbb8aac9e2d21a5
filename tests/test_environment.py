"""`make`'s way to an environment, with stand-ins for what this machine is and has: uname, Pythons,
uv, package managers. And MXNet under newer NumPys."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import dockerfile_steps  # noqa: E402
import environment  # noqa: E402
import pythons  # noqa: E402
import system  # noqa: E402
from programs import Stop  # noqa: E402


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine that has what we put on it: a folder of programs that is the whole PATH."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(pythons, "ROOT", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    def put(name, script, folder=programs):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("#!/bin/sh\nPATH=/usr/bin:/bin\n" + textwrap.dedent(script))
        (folder / name).chmod(0o755)

    def uname(kernel, processor):
        put("uname", f'[ "$1" = -s ] && echo {kernel} || echo {processor}')

    def python(name, version, processor="x86_64"):
        put(name, f'echo "{version.replace(".", " ")} {processor}"')

    put.uname, put.python, put.folder = uname, python, tmp_path
    uname("Linux", "x86_64")
    return put


# Which Python -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.11", "3.12", "3.13"])
def test_a_python_that_mxnet_works_with_is_taken(machine, version):
    machine.python("python3", version)
    assert pythons.find_python() == "python3"


def test_the_newest_for_which_the_pins_of_d2l_hold_comes_first(machine):
    for minor in (9, 11, 13):
        machine.python(f"python3.{minor}", f"3.{minor}")
    assert pythons.find_python() == "python3.11"
    assert pythons.find_python("python3.13") == "python3.13"


def test_a_version_manager_is_looked_into(machine):
    folder = machine.folder / ".pyenv" / "versions" / "3.12.1" / "bin"
    machine("python", "echo 3 12 x86_64", folder)
    assert pythons.find_python() == str(folder / "python")


def test_a_python_asked_for_that_does_not_fit_is_refused(machine):
    machine.python("python3.14", "3.14")
    with pytest.raises(Stop, match=r"python3\.14 is not Python 3\.9 to 3\.13.*PYTHON="):
        pythons.find_python("python3.14")
    with pytest.raises(Stop, match="python7"):
        pythons.find_python("python7")


def test_a_processor_without_wheels_is_named(machine):
    machine.uname("Linux", "riscv64")
    with pytest.raises(Stop, match="no wheel for Linux on riscv64.*WSL"):
        pythons.find_python()


UV = """
    [ "$1 $2" = "python install" ] || exit 9
    mkdir -p "$4/{key}/bin"
    echo "$5" > "$4/asked"
    cp "{interpreter}" "$4/{key}/bin/python3"
"""


@pytest.mark.parametrize(
    "host, version, asked",
    [
        (("Linux", "x86_64"), "3.14", "3.11"),
        (("Linux", "x86_64"), "3.8", "3.11"),
        (("Darwin", "arm64"), "3.12", "cpython-3.11-macos-x86_64-none"),
    ],
)
def test_where_no_python_fits_uv_fetches_one(machine, host, version, asked):
    machine.uname(*host)
    machine.python("python3", version, processor=host[1])
    machine("fetched", "echo 3 11 x86_64")
    machine("uv", UV.format(key="cpython-3.11.9", interpreter=machine.folder / "bin" / "fetched"))
    found = pythons.find_python()
    assert found == str(machine.folder / ".python" / "cpython-3.11.9" / "bin" / "python3")
    assert (machine.folder / ".python" / "asked").read_text().strip() == asked


def test_a_python_that_cannot_be_fetched_is_one_sentence(machine):
    machine.python("python3", "3.14")
    machine("uv", "exit 1")
    with pytest.raises(Stop, match="Install Python 3.9 to 3.13.*python.org.*environment.yml"):
        pythons.find_python()


def test_uv_is_not_asked_where_a_python_fits(machine):
    machine.python("python3.10", "3.10")
    machine("uv", f"touch {machine.folder}/called; exit 1")
    pythons.find_python()
    assert not (machine.folder / "called").exists()


# What the system lacks ----------------------------------------------------------------------------

# A Python that cannot import MXNet until a library "is installed".
BARE = """
    if [ -e {folder}/libgomp ]; then exit 0; fi
    echo 'OSError: libgomp.so.1: cannot open shared object file: No such file or directory' >&2
    exit 1
"""


@pytest.mark.parametrize(
    "manager, call",
    [
        ("apt-get", "install -y libgomp1 libquadmath0"),
        ("dnf", "install -y libgomp libquadmath"),
        ("apk", "add libgomp libquadmath"),
        ("pacman", "-S --noconfirm gcc-libs"),
        ("zypper", "install -y libgomp1 libquadmath0"),
    ],
)
def test_as_root_a_missing_library_is_installed(machine, monkeypatch, capsys, manager, call):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    machine("python", BARE.format(folder=machine.folder))
    machine(manager, f'[ "$*" = update ] || [ "$*" = "{call}" ] && touch {machine.folder}/libgomp')
    system.prove("python", "")
    said = capsys.readouterr().out
    assert f"MXNet needs libgomp.so.1, which this system does not have: {manager} {call}" in said


def test_without_root_one_sentence_has_the_command_for_every_package_manager(machine):
    machine("python", BARE.format(folder=machine.folder))
    machine("dnf", "exit 0")
    with pytest.raises(Stop) as stop:
        system.prove("python", "")
    said = str(stop.value)
    for command in (
        "sudo apt-get install -y libgomp1 libquadmath0",
        "sudo apk add libgomp",
        "sudo dnf install -y libgomp libquadmath    (this system)",
        "sudo pacman -S",
        "sudo zypper install -y libgomp1",
    ):
        assert command in said


def test_on_aarch64_there_is_no_libquadmath_to_install(machine):
    machine.uname("Linux", "aarch64")
    machine("python", BARE.format(folder=machine.folder))
    with pytest.raises(Stop) as stop:
        system.prove("python", "")
    assert "libgomp1" in str(stop.value) and "libquadmath" not in str(stop.value)


def test_a_library_that_stays_missing_ends_with_what_python_said(machine, monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    machine("python", BARE.format(folder=machine.folder))
    machine("apt-get", "exit 0")  # says that it installed something
    with pytest.raises(Stop, match="installed but cannot be imported"):
        system.prove("python", "")
    assert "libgomp.so.1" in capsys.readouterr().err


def test_the_libraries_of_arm_are_named(machine):
    machine(
        "python", "echo 'OSError: libarmpl_lp64_mp.so: cannot open shared object file' >&2; exit 1"
    )
    with pytest.raises(Stop, match="Arm Performance Libraries.*Dockerfile"):
        system.prove("python", "")


def test_a_library_from_the_folder_of_the_class_is_put_beside_mxnet(machine):
    offline, package = machine.folder / "classroom", machine.folder / "mxnet"
    (offline / "lib-x86_64").mkdir(parents=True)
    (offline / "lib-x86_64" / "libgomp.so.1").write_text("a library")
    package.mkdir()
    machine(
        "python",
        f"""
        case "$2" in *find_spec*) echo {package}; exit 0;; esac
        if [ -e {package}/libgomp.so.1 ]; then exit 0; fi
        echo 'OSError: libgomp.so.1: cannot open shared object file' >&2; exit 1
    """,
    )
    system.prove("python", str(offline))
    assert (package / "libgomp.so.1").read_text() == "a library"


def test_a_python_without_ensurepip_and_without_a_network_is_one_sentence(machine, monkeypatch):
    machine("python3", 'case "$2" in *ensurepip*|*import*) exit 1;; esac; echo Python 3.11.2')
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9")
    machine("apt-get", "exit 1")
    with pytest.raises(Stop, match="no ensurepip") as stop:
        pythons.make_venv(str(machine.folder / "venv"), "python3")
    assert "sudo apt-get install -y python3-venv    (this system)" in str(stop.value)


def test_an_index_without_that_pip_is_no_traceback(machine, monkeypatch, tmp_path):
    class Page:
        url = "http://index/simple/pip/"

        def read(self):
            return b'{"files": [{"filename": "pip-1.0.tar.gz", "url": "x"}]}'

    monkeypatch.setattr(pythons.urllib.request, "urlopen", lambda *args, **kwargs: Page())
    machine("python3", "echo 1")
    assert not pythons.venv_with_fetched_pip(str(tmp_path / "venv"), "python3", "")


# The packages -------------------------------------------------------------------------------------


def test_pip_is_tried_where_uv_fails_and_nothing_is_installed_twice(machine, capsys):
    machine("uv", "exit 2")
    folder = machine.folder / ".venv" / "bin"
    machine(
        "python",
        f"""
        echo "$*" >> {machine.folder}/calls
        echo 'Ignoring tomli: markers'; echo 'Collecting numpy'; echo 'Installing collected'
    """,
        folder,
    )
    environment.install(str(folder / "python"), "")
    calls = (machine.folder / "calls").read_text().splitlines()
    assert len(calls) == 2 and "requirements.lock" in calls[0] and "--editable" in calls[1]
    assert all("--no-deps" in call for call in calls)
    environment.install(str(folder / "python"), "")
    assert (machine.folder / "calls").read_text().splitlines() == calls
    assert "uv could not install the packages; pip tries" in capsys.readouterr().out


def test_what_pip_said_is_shown_when_it_fails(machine, capsys):
    folder = machine.folder / ".venv" / "bin"
    machine("python", "echo 'Ignoring tomli: markers'; echo 'ERROR: no space left'; exit 1", folder)
    with pytest.raises(Stop, match="pip could not install"):
        environment.install(str(folder / "python"), "")
    said = capsys.readouterr().err
    assert "no space left" in said and "Ignoring" not in said


def test_offline_nothing_but_the_folder_is_asked(machine):
    folder, offline = machine.folder / ".venv" / "bin", machine.folder / "classroom"
    machine("python", f'echo "$*" >> {machine.folder}/calls', folder)
    environment.install(str(folder / "python"), str(offline))
    for call in (machine.folder / "calls").read_text().splitlines():
        assert f"--no-index --find-links {offline}/wheels" in call


def test_fashion_mnist_of_the_class_goes_where_the_loader_looks(machine, monkeypatch):
    source = machine.folder / "stick"
    source.mkdir()
    (source / "train-labels-idx1-ubyte.gz").write_bytes(b"labels")
    monkeypatch.delenv("FASHION_MNIST_ROOT", raising=False)
    monkeypatch.setenv("MXNET_HOME", str(machine.folder / "home"))
    environment.copy_data(str(source))
    from gluon_bn.data import data_folder

    assert (Path(data_folder()) / "train-labels-idx1-ubyte.gz").read_bytes() == b"labels"


# MXNet under newer Pythons ------------------------------------------------------------------------


def run(code, *flags):
    return subprocess.run(
        [sys.executable, *flags, "-c", textwrap.dedent(code)],
        text=True,
        capture_output=True,
        timeout=120,
    )


def test_mxnet_can_be_imported_first_by_anyone():
    done = run("""
        import mxnet, numpy
        import sys
        assert not any("compat" in type(finder).__module__ for finder in sys.meta_path)
        print(mxnet.__version__)
    """)
    assert done.stdout.strip() == "1.9.1", done.stderr


def test_nothing_is_imported_or_changed_where_mxnet_is_not():
    done = run("""
        import sys
        assert "mxnet_compat" in sys.modules and "numpy" not in sys.modules
        import numpy
        before = {name: id(value) for name, value in vars(numpy).items()}
        import gluon_bn
        assert {name: id(value) for name, value in vars(numpy).items()} == before
        assert "mxnet" not in sys.modules
    """)
    assert done.returncode == 0, done.stderr


def test_names_that_numpy_has_are_left_alone():
    done = run(
        """
        import numpy
        before = {name: id(value) for name, value in vars(numpy).items()}
        import mxnet
        after = {name: id(value) for name, value in vars(numpy).items()}
        assert before.items() <= after.items()
        if tuple(map(int, numpy.__version__.split(".")[:2])) < (1, 24):
            assert not {"infty", "pv", "compat"} & (after.keys() - before.keys())
        print(numpy.trapz([1.0, 2.0]) if hasattr(numpy, "trapz") else 1.5)
    """,
        "-W",
        "error::DeprecationWarning:mxnet_compat",
    )
    assert done.stdout.strip() == "1.5", done.stderr


@pytest.mark.parametrize("before", [False, True])
def test_mxnet_gets_scipys_statistics_when_it_asks_for_them(before):
    pytest.importorskip("scipy")
    first = "import scipy.stats" if before else "import sys"
    done = run(f"""
        {first}
        import sys
        import mxnet
        from mxnet.contrib import quantization
        assert ("scipy.stats" in sys.modules) is {before}
        print(round(float(quantization.stats.entropy([0.5, 0.5])), 4))
        import scipy.stats
        assert mxnet.test_utils.ss.norm is scipy.stats.norm
    """)
    assert done.stdout.strip() == "0.6931", done.stderr


def test_mxnet_does_without_scipy(tmp_path):
    (tmp_path / "scipy.py").write_text("raise ImportError('it is not installed')")
    done = run(f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import mxnet
        from mxnet.contrib import quantization
        assert quantization.stats is None and "scipy.stats" not in sys.modules
        print(mxnet.nd.array([1, 2]).sum().asscalar())
    """)
    assert done.stdout.strip() == "3.0", done.stderr


def test_shapes_and_options_may_hold_integers_of_numpy():
    """NumPy 2 prints np.int64(3), which MXNet's parser of shapes does not take."""
    import mxnet as mx

    three = np.int64(3)
    X = mx.nd.ones((three, 4))
    assert X.reshape((np.int32(2), -1)).shape == (2, 6)
    assert mx.nd.sum(X, axis=(np.int64(0),)).shape == (4,)
    assert mx.nd.Convolution(
        mx.nd.ones((1, 1, 5, 5)),
        mx.nd.ones((1, 1, 3, 3)),
        no_bias=True,
        kernel=(three, three),
        num_filter=np.int64(1),
    ).shape == (1, 1, 3, 3)
    S = mx.sym.Reshape(mx.sym.var("X", shape=(three, 4)), shape=(np.int64(2), -1))
    assert S.infer_shape()[1] == [(2, 6)]
    assert mx.np.ones((three, 4)).reshape((np.int64(4), -1)).shape == (4, 3)
    assert mx.np.pad(mx.np.ones((2, 2)), ((np.int64(1), 1), (0, 0))).shape == (4, 2)
    net = mx.gluon.nn.Dense(np.int64(2), in_units=three)
    net.initialize()
    net.hybridize()
    assert net(mx.nd.ones((1, 3))).shape == (1, 2)


# Containers ---------------------------------------------------------------------------------------


def test_the_steps_of_the_dockerfile_are_known_and_copy_what_is_there(tmp_path):
    text = (ROOT / "Dockerfile").read_text()
    script = dockerfile_steps.script(text, str(ROOT))
    for line in text.splitlines():
        if line.startswith("COPY"):
            for source in line.split()[2:-1]:
                assert (ROOT / source).exists(), line
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    assert "make .venv/.ready" in script and "libquadmath0" in script


def test_the_environments_install_the_same_lock():
    for name in ("Dockerfile", ".binder/postBuild", "environment.yml"):
        assert "requirements.lock" in (ROOT / name).read_text(), name
