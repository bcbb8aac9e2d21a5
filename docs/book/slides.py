"""Slides of the chapters: `make slides`, which calls `slides.py slides`.

A deck is made of a chapter's executed notebook, by rule, and says nothing that the chapter does
not: its title and what one learns; each picture, with the sentences under it; each numbered
equation, with the sentences that lead to it; code that names the equations of its lines; each
**Predict.**, and on the next slide what answers it; the summary. A section's heading stands on all
of its slides. Sphinx makes the pages, with reveal.js out of the package sphinx-revealjs; they open
from disk and ask nothing of the network.
"""

import argparse
import copy
import re
import sys
from pathlib import Path

import nbformat
import offline
from equations import NUMBERED, in_rows
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from notebooks import METADATA, ROOT, chapters
from predictions import QUESTION, fold

WORDS = 60  # of a paragraph that stand on a slide; the chapter has the rest
LINES = 20  # of an output
LONG = 140  # characters of an equation that has one line
NEXT = "```{revealjs-break}\n```"
SETTINGS = {  # Sphinx's
    "extensions": ["myst_nb", "sphinx.ext.mathjax", "sphinx_revealjs"],
    "nb_execution_mode": "off",
    "nb_ipywidgets_js": {},
    "nb_mime_priority_overrides": [
        ("revealjs", "text/html", 1),
        ("revealjs", "image/png", 2),
        ("revealjs", "text/plain", 3),
    ],
    "revealjs_static_path": [str(Path(__file__).with_name("slides.css"))],
    "revealjs_style_theme": "slides.css",
    "revealjs_script_conf": {
        "width": 1280,
        "height": 720,
        "margin": 0.02,
        "center": False,
        "hash": True,
        "slideNumber": "c/t",
        "navigationMode": "linear",  # one key leads through all of them
        "transition": "none",
    },
}


def slides(notebook):
    """The slides of a chapter, in its order: a list of (title, list of cells)."""
    opening, *sections = sections_of(notebook)
    name, (after, goals, _, *rest) = opening
    found = [(name, [text(f"{after}\n\n{goals}")])]
    for title, items in [(name, rest), *sections]:
        if title not in ("Exercises", "References"):
            found += [(title, cells) for cells in slides_of(items)]
    return found


def sections_of(notebook):
    """What stands under each heading: a list of (title, list of paragraphs and code cells).

    The code cells that answer a question are marked, as in the folded chapter.
    """
    found = []
    folded = fold(copy.deepcopy(notebook))
    for cell, marked in zip(notebook.cells, folded.cells):
        if cell.cell_type == "code":
            found[-1][1].append(marked)
            continue
        for paragraph in re.split(r"\n\n+", cell.source.strip()):
            if paragraph.startswith("#"):
                found.append((paragraph.lstrip("# "), []))
            else:
                found[-1][1].append(paragraph)
    return found


def slides_of(items):
    """The slides of a section: a list of lists of cells."""
    found, lead, bare = [[]], "", False  # the paragraph before; outputs that want one under them
    for item in items:
        last = found[-1]
        if not isinstance(item, str):
            if re.search(r"# \(\d+\)$", item.source, flags=re.M):
                found.append([text(f"```python\n{item.source}\n```")])
            for cell in outputs(item):
                if bare and not pictures([*found[-1], cell]):
                    found[-1].append(cell)
                else:
                    found.append([cell])
                bare = True
            lead = ""
            continue
        stands = bool(last) and last[-1].source == text(lead).source  # the paragraph before does
        if item.startswith(QUESTION):
            found.append([text(part) for part in ("" if stands else end_of(lead), item) if part])
            bare = False
        elif numbered(item) and stands and not pictures(last):
            last.append(text(item))
        elif numbered(item):
            found.append([text(part) for part in (end_of(lead), item) if part])
            bare = False
        elif bare and prose(item):
            last.append(text(beginning_of(item)))
            bare = False
        lead = "" if item.startswith(QUESTION) else item
    return [kept for kept in map(without_promise, found[1:] or [in_short(items)]) if kept]


def in_short(items):
    """One slide for a section without any: how its text begins, and a first, short output."""
    said = next((item for item in items if isinstance(item, str)), "")
    if not items:
        return []
    shown = [cell for item in items if not isinstance(item, str) for cell in outputs(item, True)]
    short = [c for c in shown if c.outputs[0].get("text", "").count("\n") < LINES]
    return [text(beginning_of(said)), *(short[:1] if prose(said) else [])]


def without_promise(cells):
    """The slide without a last sentence that ends in a colon: what it announces is not on it."""
    said = cells[-1].source if cells and cells[-1].cell_type == "markdown" else ""
    if not said.endswith(":"):
        return cells
    *kept, _ = sentences(said) or [said]
    return [*cells[:-1], *([text(" ".join(kept))] if kept else [])]


def text(source):
    """A cell of text; what it links to in the repository is not beside the slides."""
    if numbered(source) and len(source) > LONG:
        source = NUMBERED.sub(lambda found: f"$${in_rows(found[1])} \\tag{{{found[2]}}}$$", source)
    return new_markdown_cell(re.sub(r"\[([^]]+)\]\((?!http)[^)]+\)", r"\1", source))


def pictures(cells):
    """The cells among these that show one."""
    return [cell for cell in cells if any("data" in o for o in cell.get("outputs", []))]


def numbered(paragraph):
    return bool(NUMBERED.fullmatch(paragraph))


def prose(paragraph):
    return not paragraph.startswith(("|", "- ", "1. ", "> ", "$$"))


def sentences(paragraph):
    end = r"(?:(?<=[.?!])|(?<=[.?!][)*]))\s+(?=[A-Z*$`(])"
    return re.split(end, paragraph) if prose(paragraph) else []


def beginning_of(paragraph, words=WORDS):
    """The first sentences, one at least, as many as there is room for."""
    kept = []
    for sentence in sentences(paragraph) or [paragraph]:
        if kept and len(" ".join([*kept, sentence]).split()) > words:
            break
        kept.append(sentence)
    if len(kept) > 1 and kept[-1][-1] not in ".?!)*:,":  # it ends in what follows
        kept.pop()
    return " ".join(kept)


def end_of(paragraph, words=WORDS):
    """The last sentences, one at least, as many as there is room for."""
    kept = []
    for sentence in reversed(sentences(paragraph)):
        if kept and sentence[0].islower():  # the end of what began before an equation
            break
        if kept and len(" ".join([sentence, *kept]).split()) > words:
            break
        kept.insert(0, sentence)
    return " ".join(kept)


def outputs(cell, all_of_them=False):
    """The slides of a code cell: each of its pictures and, if it answers a question, its text."""
    found = []
    for output in cell.outputs:
        picture = "image/png" in output.get("data", {})
        if picture or all_of_them or "hide-output" in cell.metadata.get("tags", []):
            lines = output.get("text", "").splitlines()
            wide = len(lines) > 14 or max(map(len, lines), default=0) > 84
            tags = ["remove-input", *(["wide"] if wide else [])]
            metadata = {**cell.metadata, "tags": tags}
            found.append(new_code_cell(cell.source, outputs=[output], metadata=metadata))
    return found


def deck(notebook):
    """The notebook of a deck, given that of the chapter. A slide of the same title is a break."""
    cells, last = [], None
    for title, shown in slides(notebook):
        heading = NEXT if title == last else f"{'##' if cells else '#'} {title}"
        cells += [text(heading), *shown]
        last = title
    return new_notebook(cells=cells, metadata={"kernelspec": METADATA["kernelspec"]})


def index(decks):
    """The page that lists the decks: one slide."""
    lines = [
        f"{name[:2].lstrip('0')}. [{notebook.cells[0].source.lstrip('# ')}]({name}.ipynb)"
        for name, notebook in decks.items()
    ]
    hidden = "\n".join(decks)
    return "\n".join(
        ["# Batch normalization from scratch: slides", "", *lines, "", "```{toctree}\n:hidden:\n"]
        + [f"{hidden}\n```", ""]
    )


def build(target, names=None, strict=False):
    """Write the decks of the chapters `names`, or of all, and an index.html into `target`.

    Return Sphinx's exit status. A failure leaves what was in `target`.
    """
    decks = {
        path.stem: deck(nbformat.read(path.with_suffix(".ipynb"), as_version=4))
        for path in chapters()
        if not names or path.stem in names
    }
    sources = {f"{name}.ipynb": nbformat.writes(notebook) for name, notebook in decks.items()}
    return offline.build(
        {"index.md": index(decks), **sources}, target, "revealjs", SETTINGS, strict
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "slides")
    parser.add_argument("names", nargs="*", help="such as 03_backward; none: all chapters")
    parser.add_argument("--strict", action="store_true", help="a warning is a failure")
    chosen = parser.parse_args()
    unknown = set(chosen.names) - {path.stem for path in chapters()}
    if unknown:
        parser.error(f"no chapter {', '.join(sorted(unknown))}")
    status = build(chosen.folder, chosen.names, chosen.strict)
    if not status:
        print(f"Open {chosen.folder / 'index.html'} in a browser; it needs no network.")
    return status


if __name__ == "__main__":
    sys.exit(main())
