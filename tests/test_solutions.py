"""The worked solutions: one for each exercise, linked, and running. More in test_chapters.py."""

import re
import sys

import jupytext
import nbformat
import pytest
from test_chapters import ROOT, notebooks, prose, read, run, said  # noqa: F401

TEXTS = notebooks.solutions()
each = pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.stem)


def chapter_of(text):
    return text.parent.parent / text.name


def exercises(text):
    """The numbers of a chapter's exercises."""
    asked = prose(read(text)).split("## Exercises")[1].split("## References")[0]
    return re.findall(r"^(\d)\. ", asked, flags=re.M)


def test_every_chapter_has_its_solutions_and_says_where():
    executed = [text for text in notebooks.chapters() if text.with_suffix(".ipynb").exists()]
    assert [text.name for text in TEXTS] == [text.name for text in executed]
    for text in executed:
        link = f"Worked solutions: [solutions/{text.stem}](solutions/{text.stem}.ipynb)."
        asked = text.read_text("utf-8").split("## Exercises")[1].split("## References")[0]
        assert link in asked, text.stem
    notebooks_there = sorted((notebooks.CHAPTERS / "solutions").glob("*.ipynb"))
    assert [path.stem for path in notebooks_there] == [text.stem for text in TEXTS]
    assert "solutions/" in (notebooks.CHAPTERS / "README.md").read_text("utf-8")


@each
def test_each_exercise_has_its_solution(text):
    solved = re.findall(r"^## Exercise (\d): \S", prose(read(text)), flags=re.M)
    assert solved == exercises(chapter_of(text))


@each
def test_a_solution_starts_as_all_do_and_links_lead_somewhere(text):
    notebook = read(text)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert 'sys.path.insert(0, "../..")' in code[0]
    assert "lesson.start()" in code[0]
    title = notebook.cells[0].source.split("\n")[0]
    assert title.startswith("# Solutions: ")
    assert f"](../{text.stem}.ipynb)" in notebook.cells[0].source
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(notebook)):
        if not re.match(r"https?:|#", link):
            assert (text.parent / link.split("#")[0]).exists(), link
    assert not re.search(r"</?[a-zA-Z][^>]*>|:::|```\{", prose(notebook)), "Markdown only"


@each
def test_a_solution_runs(text, run):  # noqa: F811
    notebook = run(text)
    assert any("FAST" in words for words in said(notebook))


# The tools ----------------------------------------------------------------------------------------


@pytest.fixture
def chapter_code(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "chapters" / "solutions"))
    import chapter

    monkeypatch.setattr(chapter, "CHAPTERS", tmp_path)
    cells = [
        nbformat.v4.new_code_cell(source)
        for source in (
            "import math\n\ndef f(x):\n    # as it is\n    return g(x)\n\ndef g(x):\n    return -x",
            "a, b = 1, 2\n\nclass C:\n    pass",
            "def g(x):\n    return x + a",
        )
    ]
    cells.insert(1, nbformat.v4.new_markdown_cell("def f(: no code"))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "01_one.ipynb")
    yield chapter.code
    sys.modules.pop("chapter")


def test_the_code_of_a_chapter(chapter_code):
    space = {}
    exec(chapter_code("01_one", "g", "f", "a", "b"), space)
    assert space["f"](1) == 2  # the later g
    assert "C" not in space and space["b"] == 2
    assert chapter_code("01_one", "f") == "def f(x):\n    # as it is\n    return g(x)"
    assert chapter_code("01_one", "a", "b") == "a, b = 1, 2"
    with pytest.raises(KeyError, match="does not define h"):
        chapter_code("01_one", "f", "h")


def test_make_notebooks_executes_solutions_too(tmp_path, capfd):
    solution = tmp_path / "solutions" / "01_one.md"
    solution.parent.mkdir()
    source = nbformat.v4.new_code_cell("import os\nprint(os.path.basename(os.getcwd()))")
    notebook = nbformat.v4.new_notebook(cells=[source], metadata=notebooks.METADATA)
    jupytext.write(notebook, solution, fmt="md:myst")
    (tmp_path / "01_one.md").write_text(solution.read_text("utf-8"), "utf-8")
    arguments = ["--folder", str(tmp_path)]
    assert notebooks.main([*arguments, "--check"]) == 1
    assert "solutions/01_one: its notebook is not in step" in capfd.readouterr().out
    assert notebooks.main([*arguments, "solutions/01_one"]) == 0
    assert read(solution).cells[0].outputs[0].text == "solutions\n"
    assert not (tmp_path / "01_one.ipynb").exists()
