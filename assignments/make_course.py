"""Make a course folder for nbgrader: `make assignments`, which calls `make_course.py course`.

The texts `NN_name.md` beside this file are MyST Markdown. Three kinds of cells have a line in their
metadata, from which nbgrader's own is made:

    solution: id            code; what stands between BEGIN SOLUTION and END SOLUTION becomes a gap
    test: id, points: 6     code; marked by what it adds to `score`, a `grading.Score`
    answer: id, points: 4   text; marked by hand, and what stands there is an answer for the teacher

FOLDER/source/NN_name/ gets the notebook and grading.py. docs/teacher/grading.md says how to go on.
"""

import argparse
import shutil
from pathlib import Path

import jupytext
import nbformat

HERE = Path(__file__).resolve().parent
BEFORE = """import importlib, grading
importlib.reload(grading)    # the original, whatever stands above
score = grading.Score(points={points})
"""
AFTER = "\nscore.total"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def texts():
    return sorted(HERE.glob("[0-9][0-9]_*.md"))


def notebook_of(text):
    """The source notebook of an assignment, with solutions and hidden tests."""
    notebook = jupytext.read(text, fmt="md:myst")
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{text.stem[:2]}-{number}"
        kinds = [kind for kind in ("solution", "test", "answer") if kind in cell.metadata]
        if kinds:
            mark(cell, kinds[0])
        elif cell.cell_type == "code":
            cell.outputs = []
    nbformat.validate(notebook)
    return notebook


def mark(cell, kind):
    """Replace our line of metadata by nbgrader's."""
    points = cell.metadata.get("points", 0)
    grader = {
        "schema_version": 3,
        "grade_id": cell.metadata[kind] + ("-test" if kind == "test" else ""),
        "solution": kind != "test",
        "grade": kind != "solution",
        "locked": kind == "test",
        "task": False,
    }
    if grader["grade"]:
        grader.update(points=points, cell_type=cell.cell_type)
    if kind == "test":
        cell.source = BEFORE.format(points=points) + cell.source + AFTER
    cell.metadata = nbformat.from_dict({"nbgrader": grader})


def write(folder):
    """Write the course folder; what a teacher has put into it besides stays."""
    for text in texts():
        source = folder / "source" / text.stem
        source.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook_of(text), source / f"{text.stem}.ipynb")
        shutil.copy(HERE / "grading.py", source)
    if not (folder / "nbgrader_config.py").exists():
        shutil.copy(HERE / "nbgrader_config.py", folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=HERE.parent / "course")
    folder = parser.parse_args().folder
    write(folder)
    print(
        f"{len(texts())} assignments are in {folder / 'source'}. Next:\n"
        f"  cd {folder} && nbgrader generate_assignment {texts()[0].stem}"
    )


if __name__ == "__main__":
    main()
