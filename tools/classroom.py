"""The course for machines without a network: `make classroom FOLDER=/media/stick/gluon_bn`.

The folder gets the repository as it is committed and, in its `classroom`, the wheels of
requirements.lock for the platforms and Pythons named, Fashion-MNIST, the web site, and the two
libraries of the system that MXNet needs. Copied to another machine, `make demo` works there.
"""

import argparse
import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from packaging.requirements import Requirement
from pythons import PIP

ROOT = Path(__file__).resolve().parents[1]
# What the markers in requirements.lock ask, and what pip calls the platform.
PLATFORMS = {
    "linux-x86_64": (
        {
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": "x86_64",
            "os_name": "posix",
        },
        [f"manylinux_2_{n}_x86_64" for n in (28, 27, 24, 17, 12, 5)]
        + ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"],
    ),
    "linux-aarch64": (
        {
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": "aarch64",
            "os_name": "posix",
        },
        [f"manylinux_2_{n}_aarch64" for n in (28, 27, 26, 24, 17)] + ["manylinux2014_aarch64"],
    ),
    "macos-x86_64": (
        {
            "sys_platform": "darwin",
            "platform_system": "Darwin",
            "platform_machine": "x86_64",
            "os_name": "posix",
        },
        [
            f"macosx_{v}_{kind}"
            for kind in ("x86_64", "universal2")
            for v in ("13_0", "12_0", "11_0", *(f"10_{n}" for n in range(16, 8, -1)))
        ],
    ),
}
PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--platforms", nargs="+", choices=PLATFORMS, default=["linux-x86_64"])
    parser.add_argument("--pythons", nargs="+", choices=PYTHONS, default=["3.11"])
    options = parser.parse_args()
    if options.folder == Path():  # `make classroom` without FOLDER=
        parser.error("name the folder: make classroom FOLDER=/media/stick/gluon_bn")
    if options.folder.exists() and any(options.folder.iterdir()):
        parser.error(f"{options.folder} is not empty")

    course, extra = options.folder, options.folder / "classroom"
    copy_repository(course)
    for platform in options.platforms:
        for python in options.pythons:
            download(platform, python, extra / "wheels")
    copy_fashion_mnist(extra / "fashion-mnist")
    copy_libraries(extra)
    subprocess.run(
        [sys.executable, ROOT / "docs" / "book" / "website.py", extra / "site"], check=True
    )
    size = sum(f.stat().st_size for f in course.rglob("*") if f.is_file())
    print(
        f"{course} is ready, {size / 2**20:.0f} MB, for {', '.join(options.platforms)} with "
        f"Python {', '.join(options.pythons)}. Copy it to another machine and type make demo; "
        "the chapters as a web site are in classroom/site/index.html."
    )


def copy_repository(course):
    """What is committed, without its history."""
    archive = subprocess.run(
        ["git", "-C", ROOT, "archive", "HEAD"], check=True, stdout=subprocess.PIPE
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(course, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))


def download(platform, python, wheels):
    """The wheels of requirements.lock for another machine, whose markers pip would not ask: for the
    first and for any later release of that Python, since some pins tell 3.11.4 from 3.11.5.
    """
    markers, tags = PLATFORMS[platform]
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "requirements.lock").read_text(), flags=re.M)
    done = set()
    for release in (f"{python}.0", f"{python}.99"):
        here = {
            **markers,
            "python_version": python,
            "python_full_version": release,
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
        }
        pins = {
            f"{r.name}{r.specifier}"
            for r in map(Requirement, text.splitlines())
            if r.marker is None or r.marker.evaluate(here)
        }
        pins.add(f"pip=={PIP.split('-')[1]}")  # for Pythons without ensurepip
        if not pins - done:
            continue
        print(f"{len(pins - done)} wheels for {platform}, Python {release}", flush=True)
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("\n".join(sorted(pins - done)))
            file.flush()
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "pip",
                    "download",
                    "--quiet",
                    "--no-deps",
                    "--disable-pip-version-check",
                    "--only-binary",
                    ":all:",
                    "--python-version",
                    release,
                    "--implementation",
                    "cp",
                    *(word for tag in tags for word in ("--platform", tag)),
                    "--dest",
                    wheels,
                    "-r",
                    file.name,
                ],
                check=True,
            )
        done |= pins


def copy_fashion_mnist(target):
    from gluon_bn.data import MD5, fetch

    source = fetch()
    target.mkdir(parents=True)
    for name in MD5:
        shutil.copy(source / name, target)


def copy_libraries(extra):
    """libgomp and libquadmath as this process has loaded them, for machines that lack them."""
    import platform

    import mxnet  # noqa: F401

    target = extra / f"lib-{platform.machine()}"
    target.mkdir()
    loaded = Path("/proc/self/maps")
    for path in set(
        re.findall(r"/\S*/lib(?:gomp|quadmath)\.so\.\d+\S*", loaded.read_text())
        if loaded.exists()
        else ()
    ):
        shutil.copy(path, target / re.match(r"lib\w+\.so\.\d+", Path(path).name)[0])


if __name__ == "__main__":
    main()
