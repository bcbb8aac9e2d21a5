"""Make the environment: `python3 tools/environment.py .venv`, which `make` calls.

Any Python 3 runs this file; it looks for one that MXNet 1.9.1 works with, or fetches one, makes a
virtual environment with it, installs requirements.lock, and proves that MXNet can be imported. What
the system lacks is installed if we are root and there is a package manager; otherwise one sentence
says the one command to type. The files beside it import nothing but the standard library, as old
as Python 3.6.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time

from programs import Stop, answers, output
from pythons import ROOT, find_python, find_uv, make_venv
from system import prove


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("venv", help="the folder of the environment, such as .venv")
    parser.add_argument("--python", default="", help="use this Python, not the first that fits")
    parser.add_argument(
        "--offline",
        default="",
        help="a folder made by `make classroom`: install "
        "from its wheels and take Fashion-MNIST from it, without a network",
    )
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
    print(
        f"The environment is ready in {options.venv}: {output(python, '-c', ABOUT).strip()} "
        f"({time.time() - start:.0f} s)"
    )


ABOUT = """
import platform, mxnet, numpy
print("Python", platform.python_version() + ", NumPy", numpy.__version__ + ", MXNet",
      mxnet.__version__)
"""


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
            [*command, "--quiet", *source, *own]
        ):
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
    command = [
        python,
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar",
        "off",
        *arguments,
    ]
    with open(os.path.join(ROOT, "requirements.lock")) as file:
        total = sum("==" in line and not line.startswith((" ", "#")) for line in file)
    said, count = [], 0
    pip = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True
    )
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
        print(
            f"Fashion-MNIST could not be put into {target} ({error.strerror}): set "
            f"FASHION_MNIST_ROOT={os.path.abspath(source)}",
            flush=True,
        )
    else:
        print(f"Fashion-MNIST is in {target}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except Stop as stop:
        sys.exit(f"\n{stop}")
    except KeyboardInterrupt:
        sys.exit(130)
