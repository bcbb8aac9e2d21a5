"""The assignments: every solution earns all points, and the real nbgrader grades what comes in."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import gluon_bn
from gluon_bn import functional

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "assignments"))
import grading  # noqa: E402
import make_course as course  # noqa: E402

TEXTS = course.texts()
each = pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.stem)
NAME = "02_batch_norm"


def marked(cell):
    return cell.metadata.get("nbgrader", {"grade": False, "solution": False})


@pytest.fixture(autouse=True)
def the_checker_stays():
    """`grading` loads the checker anew; the tests that follow keep the one they know."""
    before, checker = dict(sys.modules), gluon_bn.check
    yield
    sys.modules.update(before)
    gluon_bn.check = checker


def test_the_chapters_that_have_assignments():
    assert [text.stem[:2] for text in TEXTS] == ["00", "01", "02", "03", "04", "08", "10"]
    for text in TEXTS[1:]:
        assert (ROOT / "chapters" / text.name).exists()


@each
def test_the_solutions_earn_all_points_and_the_stubs_none(text, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "assignments"))
    notebook, solved, empty = course.notebook_of(text), {}, {}
    possible = by_hand = 0
    for cell in notebook.cells:
        mark = marked(cell)
        if mark["grade"]:
            possible += mark["points"]
            by_hand += mark["points"] * mark["solution"]
        if cell.cell_type == "code":
            known = set(solved)
            exec(cell.source, solved)
            if mark["solution"] or mark["grade"]:
                exec(emptied(cell.source), empty)
            else:
                empty.update({name: solved[name] for name in set(solved) - known})
            if mark["grade"]:
                assert (solved["score"].total, empty["score"].total) == (mark["points"], 0)
                assert "HIDDEN TESTS" in cell.source, "numbers that nobody has seen"
    said = re.search(r"(\d+) points\.", notebook.cells[0].source)
    assert possible == int(said.group(1))
    assert by_hand > 0 and by_hand <= possible / 2


def emptied(source):
    gap = r"### BEGIN SOLUTION.*?### END SOLUTION"
    return re.sub(gap, "raise NotImplementedError", source, flags=re.S)


@each
def test_no_solution_is_on_the_site(text):
    website = (ROOT / "docs/book/website.py").read_text("utf-8")
    assert "assignments" not in website
    assert "docs" not in text.relative_to(ROOT).parts


def test_points_for_a_part_of_the_numbers_of_a_call(capsys):
    score = grading.Score(3)
    score.agrees("right", lambda: (1.0, [2.0, 3.0]), (1, [2, 3]), 1)
    score.agrees("wrong", lambda: 1.1, 1, 1)
    score.agrees("of another shape", lambda: [1.0], 1, 1)
    score.agrees("not a number", lambda: float("nan"), 1, 1)
    score.agrees("too few", lambda: 1, (1, 2), 1)
    score.agrees("exit", sys.exit, 1, 1)
    assert score.total == 1
    score.check("moments", functional.moments, 5)
    assert score.total == 3, "no more than all"
    shown = capsys.readouterr().out
    assert "SystemExit" in shown and "(1,)" in shown and "2 values are to be returned" in shown


# nbgrader itself ----------------------------------------------------------------------------------

WRONG = {
    "return X.mean(axis=axis), var": "return X.mean(axis=axis), var * X.size / (X.size - 1)",
    "gamma * (X - mean) / nd.sqrt(var + eps)": "gamma * (X - mean) / (nd.sqrt(var) + eps)",
    "return 1 - m": "return m",
}
HOSTILE = {
    "moments": """
import grading
from gluon_bn import check
class Fine:
    lines, mistakes = [type("Line", (), {"status": "ok"})], ()
for name in ("moments", "batch_norm"):
    setattr(check, name, lambda f: Fine())
grading.checker = check
grading.Score.agrees = lambda self, *_, **__: self.add(100)
grading.Score.check = lambda self, *_: self.add(100)
grading.Score.total = 100
def moments(X, axis):
    return X, X
""",
    "batch_norm": """
import time
def batch_norm(*arrays, **numbers):
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            pass
""",
    "momentum": """
import sys
def gluon_momentum(m):
    sys.exit()
def batches_until(share, alpha):
    return 1
while True:
    time.sleep(0.01)
""",
}


def filled(released, solutions):
    """The released notebook with a student's cells."""
    notebook = nbformat.read(released, as_version=4)
    for cell in notebook.cells:
        mark = marked(cell)
        if mark["solution"] and not mark["grade"] and mark["grade_id"] in solutions:
            cell.source = solutions[mark["grade_id"]]
    return notebook


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """A course folder in which nbgrader has graded four students, and what it put down."""
    pytest.importorskip("nbgrader", reason="nbgrader comes with pip install 'gluon-bn[classroom]'")
    folder = tmp_path_factory.mktemp("course")
    course.write(folder)

    def nbgrader(*arguments):
        kinds = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
        places = dict.fromkeys(kinds, str(folder / ".jupyter"))
        kernels = str(Path(sys.prefix, "share", "jupyter"))
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # alembic is there
        more = {"PYTHONPATH": str(ROOT), "JUPYTER_PATH": kernels, "PATH": path}
        environment = {**os.environ, **places, **more}
        command = [sys.executable, "-m", "nbgrader", *arguments, NAME]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    nbgrader("generate_assignment")
    released = folder / "release" / NAME / f"{NAME}.ipynb"
    right = {
        marked(cell)["grade_id"]: cell.source
        for cell in course.notebook_of(ROOT / "assignments" / f"{NAME}.md").cells
        if marked(cell)["solution"] and not marked(cell)["grade"]
    }
    wrong = dict(right)
    for name, source in wrong.items():
        for old, new in WRONG.items():
            source = source.replace(old, new)
        wrong[name] = source
    for student, cells in {"right": right, "wrong": wrong, "empty": {}, "hostile": HOSTILE}.items():
        handed_in = folder / "submitted" / student / NAME
        handed_in.mkdir(parents=True)
        nbformat.write(filled(released, cells), handed_in / released.name)
        if student == "hostile":
            (handed_in / "grading.py").write_text("raise SystemExit")
    nbgrader("autograde", "--Execute.timeout=15")
    nbgrader("generate_feedback")
    return folder


@pytest.fixture(scope="module")
def points(graded):
    """A student's points by test cell."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{graded / 'gradebook.db'}") as book:
        return {
            student: {
                grade.name.replace("-test", ""): grade.auto_score
                for grade in book.find_submission_notebook(NAME, NAME, student).grades
                if grade.cell.cell_type == "code"
            }
            for student in ("right", "wrong", "empty", "hostile")
        }


def test_the_released_notebook_holds_no_solution_and_no_hidden_test(graded):
    released = (graded / "release" / NAME / f"{NAME}.ipynb").read_text("utf-8")
    for secret in ("SOLUTION", "HIDDEN", "mean.detach()", "0.997", "layer norm's: over the"):
        assert secret not in released
    assert released.count("raise NotImplementedError") == 4
    assert "Your answer here." in released


def test_the_points(points):
    full = {"moments": 3, "batch_norm": 9, "momentum": 2}
    assert points["right"] == full
    assert points["empty"] == dict.fromkeys(full, 0)
    assert points["hostile"] == {"moments": 0, "batch_norm": 0, "momentum": 0.5}
    for name in full:
        assert 0 < points["wrong"][name] < full[name], name


def test_the_feedback_names_the_mistakes(graded):
    def feedback(student):
        return (graded / "feedback" / student / NAME / f"{NAME}.html").read_text("utf-8")

    assert "Epsilon is added after the root" in feedback("wrong")
    assert "all 9 checks passed" in feedback("right")
    assert "NotImplementedError" in feedback("empty")
    assert "endless loop" in feedback("hostile") and "SystemExit" in feedback("hostile")


# The teacher's pages ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page", sorted((ROOT / "docs/teacher").glob("[0-9]*.md")), ids=lambda p: p.stem
)
def test_a_teachers_page_fits_its_chapter(page):
    """Minutes add up, mistakes are those that the checker knows, ten questions have ten answers."""
    text = page.read_text("utf-8")
    assert (ROOT / "chapters" / page.name).exists()
    plan = re.findall(r"^\| (\d*) \|[^|]*\| (\d*) \|", text, flags=re.M)
    assert sum(int(first or 0) for first, _ in plan) in range(45, 51)
    assert sum(int(second or 0) for _, second in plan) in range(80, 91)
    known = "".join(path.read_text("utf-8") for path in (ROOT / "gluon_bn/check").glob("*.py"))
    mistakes = text.split("## Mistakes")[1].split("## Ten")[0]
    first_column = "\n".join(re.findall(r"^\| (`[^|]*) \|", mistakes, flags=re.M))
    for name in re.findall("`([^`]*)`", first_column):
        assert f'"{name}"' in known, name
    recall, answers = text.split("## Ten questions of recall")[1].split("<details>")
    for part in (recall, answers.split("</details>")[0]):
        assert [int(n) for n in re.findall(r"^(\d+)\. ", part, flags=re.M)] == list(range(1, 11))
    assert "50 minutes" in text and "## A project" in text


def test_the_points_in_the_teachers_table():
    table = (ROOT / "docs/teacher/grading.md").read_text("utf-8").split("| assignment |")[1]
    rows = re.findall(r"^\| (\d\d) [^|]*\| (\d+) \| (\d+) \|", table, flags=re.M)
    found = []
    for text in TEXTS:
        marks = [marked(cell) for cell in course.notebook_of(text).cells]
        graded = [mark for mark in marks if mark["grade"]]
        total = sum(mark["points"] for mark in graded)
        by_hand = sum(mark["points"] for mark in graded if mark["solution"])
        found.append((text.stem[:2], str(total), str(by_hand)))
    assert rows == found
