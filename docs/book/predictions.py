"""Fold what answers a **Predict.**, on the web site and in the student's edition; take guesses.

A question is a paragraph that starts with `**Predict.**`. Its answer is what the code cells behind
it print, up to the first that does more than define things, and the text behind that one. Output
is folded by MyST-NB's tag `hide-output`, text by HTML's own `<details>`: both work without a
network and with a keyboard, in a browser and in JupyterLab. The chapters' sources know nothing of
this; they follow the order of docs/writing.md.

Under some questions the site has a field for a number or a choice: guesses.yaml, and book.js.
"""

import ast
import re
from functools import lru_cache
from html import escape
from pathlib import Path

import yaml

GUESSES = Path(__file__).with_name("guesses.yaml")
QUESTION = "**Predict.**"
FOLDED = "<details>\n<summary>{title}</summary>\n\n{text}\n\n</details>"


def fold(notebook):
    """Fold the answers of a notebook, in place, and return it."""
    asked = shown = False
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if asked:
                cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-output"]
                shown = shown or shows(cell.source)
        elif cell.cell_type == "markdown":
            cell.source, next_asked = fold_text(cell.source, asked and shown)
            if next_asked or shown or re.search(r"^(#|\*\*)", cell.source, flags=re.M):
                asked, shown = next_asked, False
    return notebook


def shows(source):
    """Whether a cell does more than define and assign: only then does it answer anything."""
    quiet = (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.Import, ast.ImportFrom)
    return not all(isinstance(statement, quiet) for statement in ast.parse(source).body)


def fold_text(source, asked):
    """Fold the answers in a Markdown cell. `asked`: a question stands above the cells before it.

    Return the new source, and whether it ends with a question that the next cells answer.
    """
    done, answer = [], []

    def close(leads_on):
        """Fold the paragraphs collected; the last of several leads on to what comes next."""
        last = [answer.pop()] if leads_on and len(answer) > 1 else []
        if answer:
            done.append(folded("\n\n".join(answer)))
        done.extend(last)
        answer.clear()

    for paragraph in source.split("\n\n"):
        if paragraph.startswith(QUESTION):
            close(leads_on=True)
            done.append(paragraph)
            asked = True
        elif paragraph.startswith(("#", "**")):  # a heading, or one that is run in
            close(leads_on=False)
            done.append(paragraph)
            asked = False
        else:
            (answer if asked else done).append(paragraph)
    asked = asked and any(paragraph.startswith(QUESTION) for paragraph in done)
    close(leads_on=not asked)
    return "\n\n".join(done), asked


def folded(text, title="Answer"):
    return FOLDED.format(title=title, text=text)


@lru_cache  # it is asked for every paragraph, and PyYAML takes its time
def guesses(chapter):
    """The entries of guesses.yaml for a chapter, such as '02_batch_norm'."""
    return yaml.safe_load(GUESSES.read_text("utf-8")).get(chapter, [])


def ask_for_guesses(notebook, chapter):
    """Put a field under each question that guesses.yaml knows, in place; return the notebook."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and QUESTION in cell.source:
            cell.source = "\n\n".join(
                part
                for paragraph in cell.source.split("\n\n")
                for part in (paragraph, *map(field, found(paragraph, chapter)))
            )
    return notebook


def found(paragraph, chapter):
    """The entries whose question this paragraph is."""
    words = " ".join(paragraph.split())
    return [g for g in guesses(chapter) if words.startswith(QUESTION) and g["question"] in words]


def field(guess):
    """One line of HTML: what is asked, a field, a button, and where the verdict will stand."""
    if "choices" in guess:
        options = "".join(f"<option>{escape(choice)}</option>" for choice in guess["choices"])
        entry = f'<select name="guess"><option value="">choose</option>{options}</select>'
        right = f'data-right="{escape(guess["right"])}"'
    else:
        entry = '<input name="guess" inputmode="decimal" size="6" autocomplete="off">'
        right = f'data-right="{guess["number"]}" data-within="{guess["within"]}"'
    return (
        f'<form class="guess" {right}><label>{escape(guess["ask"])}: {entry}</label> '
        f'<button>Compare</button> <output aria-live="polite"></output></form>'
    )
