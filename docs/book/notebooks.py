"""Execute the chapters: `chapters/NN_name.md` becomes `chapters/NN_name.ipynb`, with outputs.

    python docs/book/notebooks.py                    # every chapter whose text changed
    python docs/book/notebooks.py 03_backward        # these chapters, changed or not
    python docs/book/notebooks.py solutions/03_backward    # the same for worked solutions
    python docs/book/notebooks.py --check            # name those that changed, execute nothing

A chapter has changed when its cells differ from those of its notebook, or a recorded result that it
shows has been measured again: times of files say nothing after a `git checkout`. Jupytext reads the
text, nbclient executes it; this file decides when, and keeps out of the notebook what would differ
from run to run without meaning anything.
"""

import argparse
import hashlib
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = ROOT / "chapters"
SECONDS_PER_CELL = 1200
WIDGET = "application/vnd.jupyter.widget-view+json"
METADATA = {  # no versions: they would differ from machine to machine
    "jupytext": {"formats": "ipynb,md:myst"},
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}
KEPT = ("tags", "mystnb")  # of a cell's metadata: for the web site, what a picture shows
# What `gluon_bn.lesson.recorded` prints of a file.
RECORDED = re.compile(r"^recorded in (benchmarks/results/\S+) by ", flags=re.M)
# What `gluon_bn.lesson` prints when the numbers are not those the text speaks of.
NOT_FOR_READERS = {
    "FAST setting": "GLUON_BN_FAST is set: unset it",
    "STAND-IN": "there is no Fashion-MNIST here: see `gluon-bn data info`",
}


def chapters(folder=CHAPTERS):
    """The texts of the chapters, in their order."""
    return sorted(Path(folder).glob("[0-9][0-9]_*.md"))


def solutions(folder=CHAPTERS):
    """The texts of the worked solutions, one floor down."""
    return chapters(Path(folder) / "solutions")


def steps(notebook):
    """What a notebook is apart from its outputs: kind, source and metadata of its cells."""
    return [(cell.cell_type, cell.source, kept(cell)) for cell in notebook.cells]


def kept(cell):
    return nbformat.from_dict({k: v for k, v in cell.metadata.items() if k in KEPT})


def said(notebook):
    """What the cells of a notebook printed."""
    return "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )


def metadata(notebook):
    """The metadata of an executed notebook: ours, and what it read of recorded results, as the
    files are now."""
    read = {
        name: hashlib.sha256((ROOT / name).read_bytes()).hexdigest()[:16]
        for name in sorted(set(RECORDED.findall(said(notebook))))
    }
    return nbformat.from_dict({**METADATA, **({"recorded": read} if read else {})})


def in_step(text):
    """Whether the notebook is the chapter's: the cells of its text, run once, in order, by us, and
    with the results that are recorded now."""
    path = text.with_suffix(".ipynb")
    if not path.exists():
        return False
    notebook = nbformat.read(path, as_version=4)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    return (
        steps(notebook) == steps(jupytext.read(text))
        and notebook.metadata == metadata(notebook)
        and counts == list(range(1, len(counts) + 1))
    )


def execute(text, environment=None):
    """Return the chapter as a notebook, executed beside its text by a kernel of this Python.

    environment : variables for the kernel, besides those of this process.
    """
    notebook = jupytext.read(text)
    client = NotebookClient(
        notebook,
        timeout=SECONDS_PER_CELL,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(text.parent)}},
    )
    # Jupyter looks for kernels in JUPYTER_PATH first, and starts that one with sys.executable: a
    # kernel 'python3' that the user installed elsewhere cannot get in between.
    os.environ["JUPYTER_PATH"] = str(Path(sys.prefix, "share", "jupyter"))
    with tempfile.TemporaryDirectory() as ipython:  # no profile, no history
        always = {"IPYTHONDIR": ipython, "MALLOC_ARENA_MAX": "1"}  # runtime.py says why
        client.execute(env={**os.environ, **always, **(environment or {})})
    return notebook


def tidy(notebook):
    """Take out what changes from run to run: versions, random identities, widgets.

    A widget lives as long as its kernel; in a file it is a box that nobody can open.
    """
    notebook.metadata = metadata(notebook)
    seen = set()
    for cell in notebook.cells:
        name, copies = cell.source, 0
        while (identity := hashlib.sha256(f"{copies}{name}".encode()).hexdigest()[:8]) in seen:
            copies += 1
        seen.add(identity)
        cell.id = identity
        cell.metadata = kept(cell)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if WIDGET not in o.get("data", {})]
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return notebook


def write(notebook, path):
    """Write all of it or nothing: whoever interrupts us finds the old file."""
    printed = said(notebook)
    for mark, remedy in NOT_FOR_READERS.items():
        if mark in printed:
            raise ValueError(f"the numbers are not those of the text; {remedy}")
    new = path.with_suffix(".ipynb.new")
    nbformat.write(notebook, new)
    os.replace(new, path)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="such as 03_backward; none: all that changed")
    parser.add_argument("--check", action="store_true", help="name what changed, execute nothing")
    parser.add_argument("--folder", type=Path, default=CHAPTERS)
    chosen = parser.parse_args(arguments)

    texts = {
        text.relative_to(chosen.folder).with_suffix("").as_posix(): text
        for text in chapters(chosen.folder) + solutions(chosen.folder)
    }
    unknown = set(chosen.names) - set(texts)
    if unknown:
        parser.error(f"no chapter {', '.join(sorted(unknown))}; there are {', '.join(texts)}")
    wanted = {
        name: text
        for name, text in texts.items()
        if name in chosen.names or not chosen.names and not in_step(text)
    }
    if chosen.check:
        for name in wanted:
            print(f"{name}: its notebook is not in step; run make notebooks")
        return int(bool(wanted))

    failed = 0
    for name, text in wanted.items():
        print(f"{name} ...", flush=True)
        start = time.monotonic()
        try:
            write(tidy(execute(text)), text.with_suffix(".ipynb"))
        except (CellExecutionError, CellTimeoutError, DeadKernelError, ValueError) as error:
            failed += 1
            print(f"{name}: not written. {error}", file=sys.stderr)
        else:
            print(f"{name}: {time.monotonic() - start:.0f} s")
    if not wanted:
        print("Every notebook is in step with its text.")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
