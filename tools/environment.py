"""Make the environment: `python3 tools/environment.py .venv`, which `make` calls.

Any Python 3 runs this file; it looks for one that MXNet 1.9.1 works with, or fetches one, makes a
virtual environment with it, installs requirements.lock, and proves that MXNet can be imported. What
the system lacks is installed if we are root and there is a package manager; otherwise one sentence
says the one command to type. It imports nothing but the standard library, as old as Python 3.6.
"""

import argparse
import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OLDEST, NEWEST = (3, 9), (3, 13)
VERSIONS = "Python 3.9 to 3.13"
PIP = "pip-25.0.1-py3-none-any.whl"  # for Pythons without one; it runs under all of these
# What MXNet 1.9.1 has wheels for: the answers of `uname -s` and `uname -m`.
WHEELS = {("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "x86_64")}
ROSETTA = ("Darwin", "arm64")  # Apple silicon runs the programs of Intel Macs

# How each package manager installs, and what it calls the two libraries that MXNet's wheel expects
# of the system (for aarch64 the first alone), and what brings ensurepip.
MANAGERS = {
    "apt-get": ("apt-get install -y", ["libgomp1", "libquadmath0"], ["python3-venv"]),
    "dnf": ("dnf install -y", ["libgomp", "libquadmath"], ["python3-pip"]),
    "apk": ("apk add", ["libgomp", "libquadmath"], ["python3", "py3-pip"]),
    "pacman": ("pacman -S --noconfirm", ["gcc-libs"], ["python", "python-pip"]),
    "zypper": ("zypper install -y", ["libgomp1", "libquadmath0"], ["python3-pip"]),
}


class Stop(Exception):
    """What cannot be done here, in a sentence."""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("venv", help="the folder of the environment, such as .venv")
    parser.add_argument("--python", default="", help="use this Python, not the first that fits")
    parser.add_argument("--offline", default="", help="a folder made by `make classroom`: install "
                        "from its wheels and take Fashion-MNIST from it, without a network")
    options = parser.parse_args()
    if options.offline and not os.path.isdir(os.path.join(options.offline, "wheels")):
        raise Stop(f"there are no wheels in {options.offline}: make classroom makes such a folder")
    start = time.time()
    python = os.path.join(options.venv, "bin", "python")
    if not answers(python):
        make_venv(options.venv, find_python(options.python), options.offline)
    install(python, options.offline)
    prove(python, options.offline)
    if options.offline:
        copy_data(os.path.join(options.offline, "fashion-mnist"))
    print(f"The environment is ready in {options.venv}: {output(python, '-c', ABOUT).strip()} "
          f"({time.time() - start:.0f} s)")


ABOUT = """
import platform, mxnet, numpy
print("Python", platform.python_version() + ", NumPy", numpy.__version__ + ", MXNet",
      mxnet.__version__)
"""


# A Python that fits ------------------------------------------------------------------------------

def find_python(asked=""):
    """The path of a Python that MXNet works with: the one asked for, one that is here, or one that
    uv fetches."""
    host = (uname("-s"), uname("-m").replace("amd64", "x86_64"))
    if host not in WHEELS and host != ROSETTA:
        raise Stop(f"MXNet 1.9.1 has no wheel for {host[0]} on {host[1]}, only for Linux on x86-64 "
                   "and aarch64 and for macOS on x86-64. On Windows use WSL; README.md, 'Where it "
                   "runs', has more.")
    if host[0] == "Linux" and glob.glob("/lib/ld-musl-*") and not glob.glob("/lib*/ld-linux-*"):
        raise Stop("MXNet 1.9.1 has no wheel for a Linux with musl instead of glibc, such as "
                   "Alpine: use a container of Debian, see Dockerfile")
    minors = (11, 12, 13, 10, 9)  # 3.11 first: the newest for which d2l's own pins hold
    pyenv = os.path.expanduser("~/.pyenv/versions")
    candidates = [asked] if asked else [
        *(f"python3.{minor}" for minor in minors), "python3", "python",
        *(path for minor in minors
          for path in sorted(glob.glob(f"{pyenv}/3.{minor}.*/bin/python")))]
    for candidate in candidates:
        if fits(candidate):
            return candidate
    if asked:
        raise Stop(f"{asked} is not {VERSIONS} for x86-64 or aarch64: choose another with "
                   "PYTHON=..., or leave it out")
    return fetch_python(host)


def fits(python):
    """Whether a command is a Python of a version and for a processor that MXNet has a wheel for."""
    said = answers(python, "import platform, sys; "
                           "print(sys.version_info[0], sys.version_info[1], platform.machine())")
    if not said:
        return False
    major, minor, machine = said.split()
    return OLDEST <= (int(major), int(minor)) <= NEWEST and (
        machine.replace("AMD64", "x86_64") in ("x86_64", "aarch64"))


def fetch_python(host):
    """Let uv fetch a CPython 3.11 into .python; on Apple silicon the one for Intel."""
    folder = os.path.join(ROOT, ".python")
    wanted = "cpython-3.11-macos-x86_64-none" if host == ROSETTA else "3.11"
    intel = " for Intel, which runs under Rosetta" if host == ROSETTA else ""
    print(f"There is no {VERSIONS} here that MXNet has a wheel for; uv fetches CPython 3.11{intel}",
          flush=True)
    uv = find_uv() or install_uv(os.path.join(folder, "uv"))
    environment = dict(os.environ, UV_PYTHON_INSTALL_BIN="0")  # nothing into ~/.local/bin
    done = uv and subprocess.call([*uv, "python", "install", "--install-dir", folder, wanted],
                                  env=environment) == 0
    found = [path for path in sorted(glob.glob(os.path.join(folder, "cpython-*", "bin", "python3")))
             if fits(path)]
    if not done or not found:
        raise Stop(f"no Python could be fetched. Install {VERSIONS}, from your system or from "
                   "https://www.python.org/downloads/, or use conda: conda env create -f "
                   "environment.yml")
    return found[-1]


def find_uv():
    """The command that runs uv, as a list; None where it is not installed."""
    return [shutil.which("uv")] if shutil.which("uv") else None


def install_uv(folder):
    """uv from the package index, into an environment of its own; None where that fails."""
    python = os.path.join(folder, "bin", "python")
    if not answers(python, "import uv; print(1)"):
        make_venv(folder, sys.executable)
        subprocess.call([python, "-m", "pip", "install", "--quiet", "uv"],
                        stderr=subprocess.DEVNULL)
    return [python, "-m", "uv"] if answers(python, "import uv; print(1)") else None


# The environment ---------------------------------------------------------------------------------

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
            raise Stop(f"{python} still cannot make an environment: install the package for this "
                       f"version, such as python3.{minor}-venv, or choose another Python with "
                       "PYTHON=...")


def venv_with_fetched_pip(folder, python, offline):
    """An environment with a pip from the package index. Return whether that worked."""
    if not answers(python, "import venv; print(1)"):
        return False
    with tempfile.TemporaryDirectory() as place:
        try:
            wheel = (glob.glob(os.path.join(offline, "wheels", "pip-*.whl")) if offline
                     else [fetch_pip(place)])[0]
        except (OSError, ValueError, KeyError, IndexError):  # no network, or an index of its own
            return False
        subprocess.check_call([python, "-m", "venv", "--clear", "--without-pip", folder])
        return subprocess.call([os.path.join(folder, "bin", "python"), os.path.join(wheel, "pip"),
                                "install", "--quiet", "--no-index", wheel]) == 0


def fetch_pip(place):
    """Download the wheel of PIP from the package index into the folder `place`."""
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
    page = urllib.request.urlopen(urllib.request.Request(
        index + "/pip/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}), timeout=20)
    found = next(file for file in json.loads(page.read().decode())["files"]
                 if file["filename"] == PIP)
    content = urllib.request.urlopen(urllib.parse.urljoin(page.url, found["url"]),
                                     timeout=60).read()
    if hashlib.sha256(content).hexdigest() != found["hashes"]["sha256"]:
        raise ValueError("not what the index promised")
    with open(os.path.join(place, PIP), "wb") as file:
        file.write(content)
    return os.path.join(place, PIP)


def install(python, offline):
    """Install what requirements.lock pins, and this package, unless that is already done."""
    venv = os.path.dirname(os.path.dirname(python))
    stamp, wanted = os.path.join(venv, ".installed"), fingerprint()
    if os.path.exists(stamp) and open(stamp).read() == wanted:
        return
    lock = ["--no-deps", "--only-binary", ":all:", "-r", os.path.join(ROOT, "requirements.lock")]
    own = ["--no-deps", "--no-build-isolation", "--editable", ROOT]
    source = ["--no-index", "--find-links", os.path.join(offline, "wheels")] if offline else []
    uv = find_uv()
    if uv:
        print("uv installs the packages of requirements.lock", flush=True)
        command = [*uv, "pip", "install", "--python", python]
        quiet = [] if sys.stderr.isatty() else ["--quiet"]  # on a terminal it shows its progress
        if subprocess.call([*command, *quiet, *source, *lock]) or subprocess.call(
                [*command, "--quiet", *source, *own]):
            print("uv could not install the packages; pip tries.", flush=True)
            uv = None
    if not uv:
        pip_install(python, [*source, *lock])
        pip_install(python, [*source, *own], show=False)
    with open(stamp, "w") as file:
        file.write(wanted)


def fingerprint():
    """What decides the content of the environment."""
    digest = hashlib.sha256()
    for name in ("requirements.lock", "pyproject.toml", "compat/mxnet_compat.py"):
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def pip_install(python, arguments, show=True):
    """Run pip with one line of progress; its own words are shown if it fails."""
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input",
               "--progress-bar", "off", *arguments]
    with open(os.path.join(ROOT, "requirements.lock")) as file:
        total = sum("==" in line and not line.startswith((" ", "#")) for line in file)
    said, count = [], 0
    pip = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           universal_newlines=True)
    for line in pip.stdout:
        if not line.startswith(("Ignoring ", "WARNING: Retrying")):
            said.append(line)
        if line.startswith("Ignoring "):  # pinned for another Python or system
            total -= 1
        elif line.startswith(("Collecting ", "Processing ")):
            count += 1
            progress(f"{min(count, total)} of {total} packages", count, show)
        elif line.startswith("Installing collected"):
            progress(f"{total} packages are here; installing them", 0, show)
    if pip.wait():
        sys.stderr.write("".join(said[-25:]))
        raise Stop("pip could not install the packages; above is what it said")
    if show and sys.stdout.isatty():
        print()


def progress(text, count, show):
    """One line that is written over on a terminal; now and then a line elsewhere."""
    if show and sys.stdout.isatty():
        sys.stdout.write(f"\r{text:60}")
        sys.stdout.flush()
    elif show and count % 50 == 0:
        print(text, flush=True)


# MXNet and the libraries of the system -----------------------------------------------------------

def prove(python, offline):
    """Import MXNet, and get the libraries that it finds missing, one after the other."""
    asked = set()
    while True:
        run = subprocess.run([python, "-c", "import mxnet"], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, universal_newlines=True)
        if run.returncode == 0:
            return
        missing = re.search(r"(lib[\w+-]+\.so[.\d]*): cannot open shared object", run.stderr)
        library = missing.group(1) if missing else None
        if library and library.startswith(("libarmpl", "libamath", "libastring")):
            raise Stop(f"MXNet's wheel for aarch64 needs {library} of the Arm Performance "
                       "Libraries, which no package manager has: install them from "
                       "developer.arm.com, or run the x86-64 container under emulation, see "
                       "Dockerfile")
        if library is None or library in asked:
            sys.stderr.write("".join(run.stderr.splitlines(True)[-3:]))
            raise Stop("MXNet is installed but cannot be imported; above is what Python said")
        asked.add(library)
        if not from_folder(library, offline, python):
            get("libraries", f"MXNet needs {library}, which this system does not have")


def from_folder(library, offline, python):
    """Put a library that `make classroom` copied beside MXNet's own, where the loader looks."""
    copy = os.path.join(offline, "lib-" + uname("-m"), library) if offline else ""
    if not os.path.exists(copy):
        return False
    folder = output(python, "-c", "import importlib.util as u; "
                    "print(u.find_spec('mxnet').submodule_search_locations[0])").strip()
    shutil.copy(copy, folder)
    print(f"{library} is put beside MXNet, from {offline}", flush=True)
    return True


def get(thing, why):
    """Install the 'libraries' or what brings 'venv', if we may; raise Stop with the command to
    type, if not."""
    def command(manager):
        install, libraries, venv = MANAGERS[manager]
        if thing == "venv":
            return [*install.split(), *venv]
        return [*install.split(), *libraries[:1 if uname("-m") == "aarch64" else None]]

    here = next((name for name in MANAGERS if shutil.which(name)), None)
    if here and os.geteuid() == 0:
        print(f"{why}: {' '.join(command(here))}", flush=True)
        quiet = {"env": dict(os.environ, DEBIAN_FRONTEND="noninteractive"),
                 "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        if here == "apt-get":
            subprocess.call(["apt-get", "update"], **quiet)
        if subprocess.call(command(here), **quiet) == 0:
            return
        why += ", and the package manager could not install it"
    sudo = "" if os.geteuid() == 0 else "sudo "
    lines = [f"    {sudo}{' '.join(command(name))}" + "    (this system)" * (name == here)
             for name in MANAGERS]
    raise Stop("\n".join([why + ". Install it, then type make again:", *lines]))


def copy_data(source):
    """Fashion-MNIST into the folder where MXNet, and so our loader, looks for it."""
    if os.environ.get("FASHION_MNIST_ROOT") or not os.path.isdir(source):
        return
    home = os.environ.get("MXNET_HOME") or os.path.join(os.path.expanduser("~"), ".mxnet")
    target = os.path.join(home, "datasets", "fashion-mnist")
    try:
        os.makedirs(target, exist_ok=True)
        for name in sorted(os.listdir(source)):
            if not os.path.exists(os.path.join(target, name)):
                shutil.copy(os.path.join(source, name), target)
    except OSError as error:
        print(f"Fashion-MNIST could not be put into {target} ({error.strerror}): set "
              f"FASHION_MNIST_ROOT={os.path.abspath(source)}", flush=True)
    else:
        print(f"Fashion-MNIST is in {target}", flush=True)


# Asking programs ---------------------------------------------------------------------------------

def answers(python, question="print(1)"):
    """What a Python prints when asked; '' if it is none, or fails."""
    try:
        return subprocess.run([python, "-c", question], stdout=subprocess.PIPE, timeout=60,
                              stderr=subprocess.DEVNULL, universal_newlines=True).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def output(*command):
    return subprocess.check_output(command, universal_newlines=True, stderr=subprocess.STDOUT)


def uname(option):
    return output("uname", option).strip()


if __name__ == "__main__":
    try:
        main()
    except Stop as stop:
        sys.exit(f"\n{stop}")
    except KeyboardInterrupt:
        sys.exit(130)
