"""A Python that MXNet 1.9.1 works with, found here or fetched; an environment with it."""

import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request

from programs import Stop, answers, output, uname
from system import get

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OLDEST, NEWEST = (3, 9), (3, 13)
VERSIONS = "Python 3.9 to 3.13"
PIP = "pip-25.0.1-py3-none-any.whl"  # for Pythons without one; it runs under all of these
# What MXNet 1.9.1 has wheels for: the answers of `uname -s` and `uname -m`.
WHEELS = {("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "x86_64")}
ROSETTA = ("Darwin", "arm64")  # Apple silicon runs the programs of Intel Macs


def find_python(asked=""):
    """The path of a Python that MXNet works with: the one asked for, one that is here, or one that
    uv fetches."""
    host = (uname("-s"), uname("-m").replace("amd64", "x86_64"))
    if host not in WHEELS and host != ROSETTA:
        raise Stop(
            f"MXNet 1.9.1 has no wheel for {host[0]} on {host[1]}, only for Linux on x86-64 "
            "and aarch64 and for macOS on x86-64. On Windows use WSL; README.md, 'Where it "
            "runs', has more."
        )
    if host[0] == "Linux" and glob.glob("/lib/ld-musl-*") and not glob.glob("/lib*/ld-linux-*"):
        raise Stop(
            "MXNet 1.9.1 has no wheel for a Linux with musl instead of glibc, such as "
            "Alpine: use a container of Debian, see Dockerfile"
        )
    minors = (11, 12, 13, 10, 9)  # 3.11 first: the newest for which d2l's own pins hold
    pyenv = os.path.expanduser("~/.pyenv/versions")
    candidates = (
        [asked]
        if asked
        else [
            *(f"python3.{minor}" for minor in minors),
            "python3",
            "python",
            *(
                path
                for minor in minors
                for path in sorted(glob.glob(f"{pyenv}/3.{minor}.*/bin/python"))
            ),
        ]
    )
    for candidate in candidates:
        if fits(candidate):
            return candidate
    if asked:
        raise Stop(
            f"{asked} is not {VERSIONS} for x86-64 or aarch64: choose another with "
            "PYTHON=..., or leave it out"
        )
    return fetch_python(host)


def fits(python):
    """Whether a command is a Python of a version and for a processor that MXNet has a wheel for."""
    said = answers(
        python,
        "import platform, sys; print(sys.version_info[0], sys.version_info[1], platform.machine())",
    )
    if not said:
        return False
    major, minor, machine = said.split()
    return OLDEST <= (int(major), int(minor)) <= NEWEST and (
        machine.replace("AMD64", "x86_64") in ("x86_64", "aarch64")
    )


def fetch_python(host):
    """Let uv fetch a CPython 3.11 into .python; on Apple silicon the one for Intel."""
    folder = os.path.join(ROOT, ".python")
    wanted = "cpython-3.11-macos-x86_64-none" if host == ROSETTA else "3.11"
    intel = " for Intel, which runs under Rosetta" if host == ROSETTA else ""
    print(
        f"There is no {VERSIONS} here that MXNet has a wheel for; uv fetches CPython 3.11{intel}",
        flush=True,
    )
    uv = find_uv() or install_uv(os.path.join(folder, "uv"))
    environment = dict(os.environ, UV_PYTHON_INSTALL_BIN="0")  # nothing into ~/.local/bin
    done = (
        uv
        and subprocess.call(
            [*uv, "python", "install", "--install-dir", folder, wanted], env=environment
        )
        == 0
    )
    found = [
        path
        for path in sorted(glob.glob(os.path.join(folder, "cpython-*", "bin", "python3")))
        if fits(path)
    ]
    if not done or not found:
        raise Stop(
            f"no Python could be fetched. Install {VERSIONS}, from your system or from "
            "https://www.python.org/downloads/, or use conda: conda env create -f "
            "environment.yml"
        )
    return found[-1]


def find_uv():
    """The command that runs uv, as a list; None where it is not installed."""
    return [shutil.which("uv")] if shutil.which("uv") else None


def install_uv(folder):
    """uv from the package index, into an environment of its own; None where that fails."""
    python = os.path.join(folder, "bin", "python")
    if not answers(python, "import uv; print(1)"):
        make_venv(folder, sys.executable)
        subprocess.call(
            [python, "-m", "pip", "install", "--quiet", "uv"], stderr=subprocess.DEVNULL
        )
    return [python, "-m", "uv"] if answers(python, "import uv; print(1)") else None


def make_venv(folder, python, offline=""):
    """A virtual environment with pip."""
    print(f"Making {folder} with {output(python, '--version').strip()}", flush=True)
    uv = find_uv()
    if answers(python, "import venv, ensurepip; print(1)"):
        subprocess.check_call([python, "-m", "venv", "--clear", folder])
    elif uv:
        subprocess.check_call([*uv, "venv", "--quiet", "--seed", "--python", python, folder])
    # Debian and Ubuntu keep ensurepip, which brings pip, in a package of its own.
    elif not venv_with_fetched_pip(folder, python, offline):
        get("venv", "This Python has no ensurepip, which brings pip into an environment")
        if subprocess.call([python, "-m", "venv", "--clear", folder]):
            minor = answers(python, "import sys; print(sys.version_info[1])")
            raise Stop(
                f"{python} still cannot make an environment: install the package for this "
                f"version, such as python3.{minor}-venv, or choose another Python with "
                "PYTHON=..."
            )


def venv_with_fetched_pip(folder, python, offline):
    """An environment with a pip from the package index. Return whether that worked."""
    if not answers(python, "import venv; print(1)"):
        return False
    with tempfile.TemporaryDirectory() as place:
        try:
            wheel = (
                glob.glob(os.path.join(offline, "wheels", "pip-*.whl"))
                if offline
                else [fetch_pip(place)]
            )[0]
        except (OSError, ValueError, KeyError, IndexError):  # no network, or an index of its own
            return False
        subprocess.check_call([python, "-m", "venv", "--clear", "--without-pip", folder])
        return (
            subprocess.call(
                [
                    os.path.join(folder, "bin", "python"),
                    os.path.join(wheel, "pip"),
                    "install",
                    "--quiet",
                    "--no-index",
                    wheel,
                ]
            )
            == 0
        )


def fetch_pip(place):
    """Download the wheel of PIP from the package index into the folder `place`."""
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
    page = urllib.request.urlopen(
        urllib.request.Request(
            index + "/pip/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}
        ),
        timeout=20,
    )
    files = {file["filename"]: file for file in json.loads(page.read().decode())["files"]}
    found = files[PIP]
    content = urllib.request.urlopen(
        urllib.parse.urljoin(page.url, found["url"]), timeout=60
    ).read()
    if hashlib.sha256(content).hexdigest() != found["hashes"]["sha256"]:
        raise ValueError("not what the index promised")
    with open(os.path.join(place, PIP), "wb") as file:
        file.write(content)
    return os.path.join(place, PIP)
