"""What MXNet and Python need of the system, and how to get it with its package manager."""

import os
import re
import shutil
import subprocess
import sys

from programs import Stop, output, uname

# How each package manager installs, and what it calls the two libraries that MXNet's wheel expects
# of the system (for aarch64 the first alone), and what brings ensurepip.
MANAGERS = {
    "apt-get": ("apt-get install -y", ["libgomp1", "libquadmath0"], ["python3-venv"]),
    "dnf": ("dnf install -y", ["libgomp", "libquadmath"], ["python3-pip"]),
    "apk": ("apk add", ["libgomp", "libquadmath"], ["python3", "py3-pip"]),
    "pacman": ("pacman -S --noconfirm", ["gcc-libs"], ["python", "python-pip"]),
    "zypper": ("zypper install -y", ["libgomp1", "libquadmath0"], ["python3-pip"]),
}


def prove(python, offline):
    """Import MXNet, and get the libraries that it finds missing, one after the other."""
    asked = set()
    while True:
        run = subprocess.run(
            [python, "-c", "import mxnet"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )
        if run.returncode == 0:
            return
        missing = re.search(r"(lib[\w+-]+\.so[.\d]*): cannot open shared object", run.stderr)
        library = missing.group(1) if missing else None
        if library and library.startswith(("libarmpl", "libamath", "libastring")):
            raise Stop(
                f"MXNet's wheel for aarch64 needs {library} of the Arm Performance "
                "Libraries, which no package manager has: install them from "
                "developer.arm.com, or run the x86-64 container under emulation, see "
                "Dockerfile"
            )
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
    folder = output(
        python,
        "-c",
        "import importlib.util as u; print(u.find_spec('mxnet').submodule_search_locations[0])",
    ).strip()
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
        return [*install.split(), *libraries[: 1 if uname("-m") == "aarch64" else None]]

    here = next((name for name in MANAGERS if shutil.which(name)), None)
    if here and os.geteuid() == 0:
        print(f"{why}: {' '.join(command(here))}", flush=True)
        quiet = {
            "env": dict(os.environ, DEBIAN_FRONTEND="noninteractive"),
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
        }
        if here == "apt-get":
            subprocess.call(["apt-get", "update"], **quiet)
        if subprocess.call(command(here), **quiet) == 0:
            return
        why += ", and the package manager could not install it"
    sudo = "" if os.geteuid() == 0 else "sudo "
    lines = [
        f"    {sudo}{' '.join(command(name))}" + "    (this system)" * (name == here)
        for name in MANAGERS
    ]
    raise Stop("\n".join([why + ". Install it, then type make again:", *lines]))
