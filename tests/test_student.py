"""The student's edition, and predictions whose answers are folded (docs/book)."""

import re
import sys
from pathlib import Path

import jupytext
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs" / "book"))
import predictions  # noqa: E402
import student_edition as student  # noqa: E402

TEXTS = student.chapters()
each = pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.stem)


def code(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def words(text):
    """What is said, without the folds, the numbers of a list and the white space."""
    text = re.sub(r"</?details>|<summary>.*?</summary>|^#+ Exercise \d+$", "", text, flags=re.M)
    return re.sub(r"^\d\. |[\s()]", "", text, flags=re.M)


@each
def test_nothing_of_the_chapter_is_lost_but_the_way_to_the_solutions(text):
    edition, chapter = student.edition(text), jupytext.read(text)
    assert code(edition)[: len(code(chapter))] == code(chapter)
    told = re.sub(r"Worked solutions: .*", "", prose(chapter))
    shown = prose(edition)
    assert words(shown) == words(told)
    assert "solutions/" not in shown


@each
def test_every_exercise_has_a_gap_and_nothing_is_executed(text):
    edition = student.edition(text)
    asked = text.read_text("utf-8").split("## Exercises")[1].split("## References")[0]
    titles = [i for i, c in enumerate(edition.cells) if c.source.startswith("### Exercise ")]
    assert len(titles) == len(re.findall(r"^\d\. ", asked, flags=re.M)) >= 4
    for title in titles:
        assert edition.cells[title + 1].source == student.GAP
    assert all(not c.outputs and c.execution_count is None for c in edition.cells if "outputs" in c)
    for source in code(edition):
        compile(source, text.stem, "exec")


@each
def test_what_follows_a_question_is_folded(text):
    questions, shown = 0, []
    for cell in student.edition(text).cells:
        if cell.cell_type == "markdown":
            open_text = re.sub(r"<details>.*?</details>", "FOLDED", cell.source, flags=re.S)
            assert cell.source.count("<details>") == cell.source.count("</details>")
            for fold in re.findall(r"<details>.*?</details>", cell.source, flags=re.S):
                assert fold.count("$$") % 2 == 0 and "\n#" not in fold
            questions += open_text.count("**Predict.**")
            shown.append(open_text)
    assert questions == text.read_text("utf-8").count("**Predict.**") >= 3
    behind = "\n\n".join(shown).split("**Predict.**")[1:]
    for part in behind:
        answer = part.split("\n#")[0]  # an output may be the whole answer: the next section then
        assert "FOLDED" in answer or "\n\n" not in answer.strip(), part[:300]


def test_the_rule_of_folding():
    cells = ["a\n\n**Predict.** b?", None, None, "c\n\nleads on", None, "d\n\n**Predict.** e?"]
    cells += [None, "f\n\n$$\ng\n$$\n\n## h\n\ni", "**Predict.** j", None, "k\n\n**l.** m"]
    cells += ["**Predict.** n", "DEFINES", "o", None, "p"]
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    notebook = new_notebook(
        cells=[
            new_code_cell("1" if c is None else "def f():\n    return 1\n\na = f()")
            if c in (None, "DEFINES")
            else new_markdown_cell(c)
            for c in cells
        ]
    )
    done = predictions.fold(notebook).cells
    hidden = [i for i, c in enumerate(done) if "hide-output" in c.metadata.get("tags", [])]
    assert hidden == [1, 2, 6, 9, 12, 14]
    assert done[10].source == predictions.folded("k") + "\n\n**l.** m"
    assert [done[13].source, done[15].source] == ["o", predictions.folded("p")]
    assert done[3].source == predictions.folded("c") + "\n\nleads on"
    assert done[5].source == "d\n\n**Predict.** e?"
    assert done[7].source == predictions.folded("f\n\n$$\ng\n$$") + "\n\n## h\n\ni"


def test_an_exercise_brings_its_check_and_keeps_its_result_for_later():
    cells = student.exercise_cells(
        "2", "Write `f`. `check.moments(f)` says more. (You find 4 (or 5).)"
    )
    question, gap, check, result = (cell.source for cell in cells)
    assert question == "### Exercise 2\n\nWrite `f`. `check.moments(f)` says more."
    assert gap == student.GAP
    assert check == "from gluon_bn import check\n\ncheck.moments(f)"
    assert "You find 4 (or 5)." in result and "<details>" in result
    assert len(student.exercise_cells("1", "Print them (all).")) == 2


def test_the_check_of_chapter_2_judges(tmp_path):
    """The gap filled rightly and wrongly, and the cell behind it."""
    student.write(tmp_path)
    edition = jupytext.read(tmp_path / "02_batch_norm.ipynb")
    title = next(i for i, c in enumerate(edition.cells) if c.source.startswith("### Exercise 2"))
    check = edition.cells[title + 2].source.replace("check.batch", "report = check.batch")
    from gluon_bn import functional

    for solution, right in ((functional.batch_norm, True), (lambda X, *rest, **more: X, False)):
        space = {"my_batch_norm": solution}
        exec(check, space)
        assert bool(space["report"]) is right


@pytest.mark.parametrize("chapter", predictions.yaml.safe_load(predictions.GUESSES.read_text()))
def test_a_guess_belongs_to_a_question_and_agrees_with_the_chapter(chapter):
    """Each entry meets one question, and its `shown` stands in what the chapter answers there."""
    folded = predictions.fold(jupytext.read(ROOT / "chapters" / f"{chapter}.md"))
    paragraphs = "\n\n".join(c.source for c in folded.cells if c.cell_type == "markdown")
    questions = [p for p in paragraphs.split("\n\n") if p.startswith(predictions.QUESTION)]
    for guess in predictions.guesses(chapter):
        asked = [q for q in questions if guess in predictions.found(q, chapter)]
        assert len(asked) == 1, guess["question"]
        answer = paragraphs.split(asked[0])[1].split("</details>")[0]
        assert str(guess["shown"]) in " ".join(answer.split()), guess
        assert guess["right"] in guess["choices"] if "choices" in guess else guess["within"] >= 0
