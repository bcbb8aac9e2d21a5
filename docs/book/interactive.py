"""Put the figures of interactive.yaml into the chapters, on the web site only.

The notebooks have their own figures, drawn by their cells. Those here answer without a kernel:
interactive.js fills the `<figure>` written here.
"""

import re
from html import escape
from pathlib import Path

import yaml

FIGURES = Path(__file__).with_name("interactive.yaml")
HEADING = re.compile(r"(#+) (.*)")
HTML = """\
<figure class="interactive" id="{figure}" data-figure="{figure}" data-alt="{alt}">
<figcaption><strong>{title}.</strong> {text}</figcaption>
<noscript>This figure needs JavaScript. Without it, change the cells of the notebook.</noscript>
</figure>"""


def figures(chapter):
    """The entries of interactive.yaml for a chapter, such as '02_batch_norm'."""
    return yaml.safe_load(FIGURES.read_text("utf-8")).get(chapter, [])


def place_figures(notebook, chapter):
    """Put each figure of a chapter at the end of its section, in place; return the notebook.

    Raises ValueError when the chapter has no such section.
    """
    for entry in figures(chapter):
        cell, paragraph = end_of_section(notebook, entry["section"])
        paragraphs = cell.source.split("\n\n")
        paragraphs.insert(paragraph, HTML.format(**{k: escape(str(v)) for k, v in entry.items()}))
        cell.source = "\n\n".join(paragraphs)
    return notebook


def end_of_section(notebook, title):
    """The cell and the paragraph of it before which the section ends: those of the next heading
    of the same level or a higher one."""
    level = None
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for number, paragraph in enumerate(cell.source.split("\n\n")):
                heading = HEADING.match(paragraph)
                if heading and level and len(heading[1]) <= level:
                    return cell, number
                if heading and heading[2].strip() == title:
                    level = len(heading[1])
    raise ValueError(
        f"interactive.yaml puts a figure into the section {title!r}, and the chapter has "
        "no such section with another behind it: give the section's new title there"
    )
