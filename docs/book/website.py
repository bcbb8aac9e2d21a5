"""Build the web site of the book: `python docs/book/website.py [FOLDER]`.

Sphinx reads a folder that we put together first: the landing page, which lists the chapters there
are and those that are planned, the executed notebooks, and pages of `docs/`. It lies in a
temporary place and looks like the repository: the chapters' links lead where they lead on disk.
"""

import argparse
import re
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from sheet import sheet
from sphinx.cmd.build import main as sphinx

BOOK = Path(__file__).resolve().parent
ROOT = BOOK.parent.parent
CHAPTER = re.compile(r"\[([^]]+)\]\((chapters/(\d\d)_\w+)\.ipynb\)")


def gather(source, chapters=ROOT / "chapters"):
    """Put what Sphinx reads into the folder `source`."""
    (source / "chapters" / "solutions").mkdir(parents=True)
    (source / "docs").mkdir()
    for part in (".", "solutions"):
        for notebook in Path(chapters, part).glob("[0-9][0-9]_*.ipynb"):
            shutil.copy(notebook, source / "chapters" / part)
    for page in ("glossary.md", "conventions.md", "checking.md", "results.md", "reference.md"):
        shutil.copy(ROOT / "docs" / page, source / "docs")
    (source / "docs" / "sheet.md").write_text(sheet(), encoding="utf-8")
    shutil.copytree(ROOT / "docs" / "teacher", source / "docs" / "teacher")
    writing = (ROOT / "docs" / "writing.md").read_text(encoding="utf-8")
    symbols = writing[writing.index("## Symbols") :].replace("## ", "# ", 1)
    (source / "docs" / "symbols.md").write_text(symbols, encoding="utf-8")
    for name in ("gluon_bn", "benchmarks", "tests", "README.md", "CONTRIBUTING.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)  # what chapters link to, offered for download
    (source / "index.md").write_text(landing_page(source), encoding="utf-8")


def landing_page(source):
    """`index.md`; a link to a chapter gets the chapter's title, or is planned and no link."""
    text, entries = (BOOK / "index.md").read_text(encoding="utf-8"), []

    def chapter(match):
        planned, name, number = match.groups()
        notebook = source / f"{name}.ipynb"
        if not notebook.exists():
            return f"{planned} (planned)"
        entries.append(f"{int(number)}. {title_of(notebook)} <{name}>")
        return f"[{title_of(notebook)}]({name}.ipynb)"

    text = CHAPTER.sub(chapter, text)
    solved = [
        f"{int(path.stem[:2])}. {title_of(path)} <chapters/solutions/{path.stem}>"
        for path in sorted((source / "chapters" / "solutions").glob("*.ipynb"))
    ]
    return text.replace("@chapters@", "\n".join(entries)).replace("@solutions@", "\n".join(solved))


def title_of(notebook):
    return nbformat.read(notebook, as_version=4).cells[0].source.split("\n")[0].lstrip("# ")


def build(target, chapters=ROOT / "chapters", strict=False):
    """Write the site into the folder `target`, which is replaced. Return Sphinx's exit status.

    strict : a warning is a failure. A failure leaves what was in `target`.
    """
    with tempfile.TemporaryDirectory() as place:
        source, site = Path(place).resolve() / "book", Path(place, "site")
        source.mkdir()
        gather(source, chapters)
        status = sphinx(
            [
                "-b",
                "html",
                "-q",
                "--keep-going",
                *(["-W"] if strict else []),
                "-c",
                str(BOOK),
                "-d",
                str(Path(place, "doctrees")),
                str(source),
                str(site),
            ]
        )
        if not status:
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(site, target)
        return status


def main():
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("target", nargs="?", type=Path, default=ROOT / "site")
    parser.add_argument("--chapters", type=Path, default=ROOT / "chapters")
    parser.add_argument("--strict", action="store_true", help="a warning is a failure")
    chosen = parser.parse_args()
    status = build(chosen.target, chosen.chapters, chosen.strict)
    if not status:
        print(f"Open {chosen.target / 'index.html'} in a browser; it needs no network.")
    return status


if __name__ == "__main__":
    sys.exit(main())
