"""The numbered equations of the chapters, and tables: fetched from where they stand, not copied.

The formula sheet (sheet.py) and the slides (slides.py) take them from here.
"""

import re

from notebooks import ROOT, chapters

NUMBERED = re.compile(r"^\$\$\s*(.*?)\s*\\tag\{(\d+)\}\s*\$\$$", flags=re.M | re.S)


def equations():
    """All numbered equations, without their full stop: {"2.6": LaTeX} for (6) of chapter 2."""
    return {
        f"{int(text.stem[:2])}.{number}": latex.rstrip(" .,;")
        for text in chapters()
        for latex, number in NUMBERED.findall(text.read_text("utf-8"))
    }


def in_rows(latex):
    """An equation of several parts, one under the other."""
    latex = re.sub(r"\\qquad\s*(\\text\{[^}]*\})\s*\\qquad", r"\\qquad \1\\quad", latex)
    rows = latex.replace("\\qquad", "\\cr")  # for "\\\\" Sphinx would add a split of its own
    return f"\\begin{{gathered}}{rows}\\end{{gathered}}"


def table(page, first, columns=None):
    """The table of a page of the repository whose first heading is `first`, in Markdown.

    columns : the headings to keep; all, if it is left out. Marks of footnotes are taken out.
    """
    lines = (ROOT / page).read_text("utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        rows.append([re.sub(r" \(\d\)$", "", cell) for cell in cells])
    kept = [i for i, heading in enumerate(rows[0]) if not columns or heading in columns]
    return "\n".join(f"| {' | '.join(row[i] for i in kept)} |" for row in rows)
