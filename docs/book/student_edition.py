"""The student's edition of the chapters: `make student`, which calls `student_edition.py student`.

A chapter without outputs, its answers to predictions folded, and each exercise in cells of its own:
the question, a gap, the check, and, folded, the result that the text gives in parentheses. The
worked solutions are left out. All of it comes from `chapters/NN_name.md`.
"""

import argparse
import re
import textwrap
from pathlib import Path

import jupytext
import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell
from notebooks import METADATA, ROOT, chapters, tidy
from predictions import fold, folded

GAP = "# your code here"
EXERCISE = re.compile(r"^(\d+)\. (.*?)(?=^\d+\. |\Z)", flags=re.M | re.S)
CHECK = re.compile(r"`(check\.\w+\(.*?\))`|Check: `([^`]+\))`", flags=re.S)


def edition(text):
    """The notebook of a chapter, given the path of its text."""
    notebook = fold(jupytext.read(text))
    notebook.cells = [part for cell in notebook.cells for part in with_gaps(cell)]
    notebook = tidy(notebook)
    notebook.metadata = nbformat.from_dict({"kernelspec": METADATA["kernelspec"]})
    return notebook


def with_gaps(cell):
    """The cells that stand for a cell: more than itself where it holds the exercises."""
    before, title, after = cell.source.partition("## Exercises\n")
    if cell.cell_type == "code" or not title:
        return [cell]
    exercises, references, rest = after.partition("## References")
    exercises = exercises.split("Worked solutions:")[0]
    cells = [new_markdown_cell(f"{before}{title}")]
    for number, exercise in re.findall(
        r"^(\d+)\. (.*?)(?=^\d+\. |\Z)", exercises, flags=re.M | re.S
    ):
        cells += exercise_cells(number, textwrap.dedent(f"   {exercise}").strip())
    return [*cells, new_markdown_cell(references + rest)]


def exercise_cells(number, text):
    """Question, gap, check, and what to compare with afterwards."""
    question, result = split_result(text)
    checks = [" ".join((a or b).split()) for a, b in CHECK.findall(text)]
    cells = [new_markdown_cell(f"### Exercise {number}\n\n{question}"), new_code_cell(GAP)]
    if checks:
        # `...` stands for the student's function: nothing to run as it is
        lines = [f"# {check}" if "..." in check else check for check in checks]
        imports = ["from gluon_bn import check\n"] if "check." in "".join(checks) else []
        shown = [f"print({line})" if len(lines) > 1 and line[0] != "#" else line for line in lines]
        cells.append(new_code_cell("\n".join([*imports, *shown])))
    if result:
        cells.append(new_markdown_cell(folded(result, "Open when you have tried")))
    return cells


def split_result(text):
    """Cut off the parentheses at the end of an exercise, which say what should come out."""
    depth = 0
    for place in range(len(text) - 1, 0, -1):
        depth += {")": 1, "(": -1}.get(text[place], 0)
        if depth == 0:
            break
    if text[-1] != ")" or text[place - 1] not in " \n" or text[:place].rstrip()[-1] not in ".?!:":
        return text, ""
    return text[:place].rstrip(), text[place + 1 : -1]


def write(folder):
    """Write the student's edition of every chapter into `folder`; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for text in chapters():
        files.append(folder / f"{text.stem}.ipynb")
        nbformat.write(edition(text), files[-1])
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "student")
    folder = parser.parse_args().folder
    print(f"{len(write(folder))} notebooks are in {folder}: no outputs, gaps for the exercises.")


if __name__ == "__main__":
    main()
