"""The chapters, and what holds for their worked solutions too: text and notebook in step, complete,
and running from end to end."""

import os
import re
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
from jupyter_client.provisioning import local_provisioner

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs" / "book"))
import notebooks  # noqa: E402

TEXTS = notebooks.chapters()
each_chapter = pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.stem)
each_notebook = pytest.mark.parametrize(
    "text",
    TEXTS + notebooks.solutions(),
    ids=lambda text: text.relative_to(notebooks.CHAPTERS).with_suffix("").as_posix(),
)


def read(text):
    return nbformat.read(text.with_suffix(".ipynb"), as_version=4)


def said(notebook):
    """All that the cells of a notebook printed or returned as text."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            yield output.get("text", "")
            for kind, content in output.get("data", {}).items():
                if kind.startswith("text/"):
                    yield content


def prose(notebook):
    """The text of the chapter without code and formulas."""
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for code in (r"```.*?```", r"\$\$.*?\$\$", r"`[^`]*`", r"\$[^$]*\$"):
        text = re.sub(code, "", text, flags=re.S)
    return text


# As they lie there --------------------------------------------------------------------------------


def test_every_notebook_has_a_text_and_every_text_its_number():
    names = sorted(path.stem for path in notebooks.CHAPTERS.glob("*.ipynb"))
    assert names == [text.stem for text in TEXTS]
    numbers = [text.stem[:2] for text in TEXTS]
    assert len(set(numbers)) == len(numbers)


@each_notebook
def test_text_and_notebook_are_in_step(text):
    notebook = read(text)
    assert notebooks.steps(notebook) == notebooks.steps(jupytext.read(text)), "run make notebooks"
    assert notebooks.in_step(text), "a recorded result was measured again: run make notebooks"
    nbformat.validate(notebook)
    assert jupytext.read(text).metadata["jupytext"]["formats"] == "ipynb,md:myst"
    assert notebook.metadata["jupytext"]["formats"] == "ipynb,md:myst"


@each_notebook
def test_the_cells_ran_in_order_and_without_complaint(text):
    notebook = read(text)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", output.text


@each_notebook
def test_the_outputs_are_those_a_reader_should_see(text):
    notebook = read(text)
    most = 1_000_000 if text in notebooks.solutions() else 2_000_000
    assert text.with_suffix(".ipynb").stat().st_size < most
    for words in said(notebook):
        assert not re.search(r"/work/|/home/|/root/|/tmp/|/Users/", words), words
        assert not re.search(r" at 0x[0-9a-f]{6,}", words), f"an address in memory: {words}"
        assert not any(mark in words for mark in notebooks.NOT_FOR_READERS), words
    assert all(set(cell.metadata) <= set(notebooks.KEPT) for cell in notebook.cells)


def descriptions(notebook):
    """What the cells with a picture say about it, for those who do not see it; None: nothing."""
    for cell in notebook.cells:
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
            yield cell.metadata.get("mystnb", {}).get("image", {}).get("alt")


@each_notebook
def test_every_picture_is_described(text):
    found = list(descriptions(read(text)))
    assert all(found) and len(set(found)) == len(found)
    assert all(30 < len(description) < 260 for description in found)


@each_chapter
def test_a_chapter_has_all_its_parts(text):
    notebook = read(text)
    first = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"][0]
    headings = [line for line in prose(notebook).splitlines() if line.startswith("#")]
    assert re.match(r"# \D", first), "the title, without a number, comes first"
    assert sum(line.startswith("# ") for line in headings) == 1
    opening = prose(notebook).split("\n## ")[0]
    assert "After this chapter you can" in opening
    assert re.search(r"Time: .*\d+ minutes", opening)
    assert [line for line in headings if "What surprised people" in line]
    assert [line[3:] for line in headings[-3:]] == ["Summary", "Exercises", "References"]
    assert re.search(r"^\*\*Predict\.\*\*", prose(notebook), flags=re.M)
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert pictures, "no figure"
    exercises = prose(notebook).split("## Exercises")[1].split("## References")[0]
    assert 4 <= len(re.findall(r"^\d\. ", exercises, flags=re.M)) <= 6


@each_chapter
def test_a_chapter_starts_as_all_do(text):
    code = [cell.source for cell in read(text).cells if cell.cell_type == "code"]
    assert 'sys.path.insert(0, "..")' in code[0]
    assert "lesson.start()" in code[0]


@each_chapter
def test_the_markup_is_what_every_reader_shows(text):
    """Jupyter, editors, GitHub and Sphinx agree on Markdown only, see docs/writing.md."""
    notebook = read(text)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"^\s*(```+|~~~+|:::+)\s*\{", cell.source, flags=re.M), cell.source
            assert ":::" not in cell.source
            for line in cell.source.splitlines():  # a formula has its lines for itself
                assert "$$" not in line.strip("$ "), line
    assert not re.search(r"</?[a-zA-Z][^>]*>", prose(notebook).replace("<http", "")), "HTML"


@each_chapter
def test_links_of_a_chapter_lead_somewhere(text):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(read(text))):
        if not re.match(r"https?:|#", link):
            assert (text.parent / link.split("#")[0]).exists(), link


def test_the_list_of_chapters_names_those_there_are():
    readme = (ROOT / "chapters" / "README.md").read_text("utf-8")
    listed = re.findall(r"^\d+\. \[(.*)\]\((\d\d_\w+)\.ipynb\)", readme, flags=re.M)
    assert listed == [
        (jupytext.read(text).cells[0].source.split("\n")[0].lstrip("# "), text.stem)
        for text in TEXTS
    ]


# Running ------------------------------------------------------------------------------------------


def settings():
    """What a kernel of the tests gets: a quick run, one thread, and no wait for a download."""
    from gluon_bn.data import data_info

    chosen = {"GLUON_BN_FAST": "1", "OMP_NUM_THREADS": "1"}
    if set(data_info()["files"].values()) != {"ok"}:  # the stand-in, then
        chosen.update(dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9"))
    return chosen


@pytest.fixture
def run(request, monkeypatch):
    """To execute a notebook as it is for the tests; on Linux in a kernel of the fork_server."""
    if sys.platform == "linux":
        fork_server = request.getfixturevalue("fork_server")
        monkeypatch.setattr(local_provisioner, "launch_kernel", fork_server.launch)
    return lambda text: notebooks.execute(text, settings())  # raises where a cell does


@each_chapter
def test_a_chapter_runs(text, run):
    notebook = run(text)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error", cell.source
    assert any("FAST" in words for words in said(notebook))


# The tool -----------------------------------------------------------------------------------------

CHAPTER = """\
---
jupytext:
  formats: ipynb,md:myst
kernelspec:
  display_name: Python 3 (ipykernel)
  language: python
  name: python3
---

# A chapter

```{code-cell} ipython3
import os
import sys

print(os.path.basename(os.getcwd()), sys.prefix)
```

```{code-cell} ipython3
import ipywidgets

ipywidgets.IntSlider()
```

```{code-cell} ipython3
print("one")
print("two")
```
"""


@pytest.fixture
def chapter(tmp_path):
    path = tmp_path / "chapters" / "01_one.md"
    path.parent.mkdir()
    path.write_text(CHAPTER, encoding="utf-8")
    return path


def make_notebooks(chapter, *arguments):
    return notebooks.main([*arguments, "--folder", str(chapter.parent)])


def test_make_notebooks_executes_what_changed(chapter, capfd):
    assert make_notebooks(chapter, "--check") == 1
    assert make_notebooks(chapter) == 0
    notebook = read(chapter)
    assert notebook.cells[1].outputs[0].text == f"chapters {sys.prefix}\n"
    assert notebook.cells[2].outputs == []  # a widget outlives no kernel
    assert [output.text for output in notebook.cells[3].outputs] == ["one\ntwo\n"]
    assert notebook.metadata["language_info"] == {"name": "python", "pygments_lexer": "ipython3"}

    first = chapter.with_suffix(".ipynb").read_bytes()
    capfd.readouterr()
    assert make_notebooks(chapter, "--check") == 0
    assert make_notebooks(chapter) == 0
    assert "in step" in capfd.readouterr().out
    os.utime(chapter, (2e9, 2e9))  # times of files say nothing: git sets them as it likes
    assert make_notebooks(chapter, "--check") == 0
    assert make_notebooks(chapter, "01_one") == 0  # named: executed in any case
    assert chapter.with_suffix(".ipynb").read_bytes() == first

    chapter.write_text(CHAPTER.replace('"one"', '"three"'), encoding="utf-8")
    assert make_notebooks(chapter, "--check") == 1
    assert make_notebooks(chapter) == 0
    assert read(chapter).cells[3].outputs[0].text == "three\ntwo\n"


def test_make_notebooks_keeps_the_old_notebook_when_a_cell_fails(chapter, capfd):
    good = chapter.with_name("02_two.md")
    good.write_text(CHAPTER, encoding="utf-8")
    chapter.write_text(CHAPTER.replace('print("two")', "1 / 0"), encoding="utf-8")
    chapter.with_suffix(".ipynb").write_text(
        nbformat.writes(nbformat.v4.new_notebook()), encoding="utf-8"
    )
    old = chapter.with_suffix(".ipynb").read_bytes()
    assert make_notebooks(chapter) == 1
    assert chapter.with_suffix(".ipynb").read_bytes() == old
    assert "ZeroDivisionError" in capfd.readouterr().err
    assert good.with_suffix(".ipynb").exists()  # the others are made


@pytest.mark.parametrize("mark", notebooks.NOT_FOR_READERS)
def test_make_notebooks_writes_no_numbers_that_mean_nothing(chapter, capfd, mark):
    chapter.write_text(CHAPTER.replace('"one"', f'"*** {mark} ***"'), encoding="utf-8")
    assert make_notebooks(chapter) == 1
    assert not chapter.with_suffix(".ipynb").exists()
    assert "not those of the text" in capfd.readouterr().err


def test_make_notebooks_executes_what_shows_a_result_that_was_measured_again(
    chapter, capfd, monkeypatch, tmp_path
):
    result = tmp_path / "benchmarks" / "results" / "runs.json"
    result.parent.mkdir(parents=True)
    result.write_text("[1]")
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    chapter.write_text(
        CHAPTER.replace(
            'print("two")',
            (
                'print("recorded in benchmarks/results/runs.json by `x` on a machine")\n'
                'print(open("../benchmarks/results/runs.json").read())'
            ),
        ),
        encoding="utf-8",
    )
    assert make_notebooks(chapter) == 0
    assert make_notebooks(chapter, "--check") == 0
    result.write_text("[2]")
    assert make_notebooks(chapter, "--check") == 1
    assert make_notebooks(chapter) == 0
    assert "[2]" in read(chapter).cells[3].outputs[0].text


def test_make_notebooks_names_the_chapters_there_are(chapter, capsys):
    with pytest.raises(SystemExit):
        make_notebooks(chapter, "07_seven")
    assert "there are 01_one" in capsys.readouterr().err
