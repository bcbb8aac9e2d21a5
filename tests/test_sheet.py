"""The formula sheet (docs/sheet.md, docs/book/sheet.py): its counts, its defaults, its one page."""

import inspect
import re
import sys
from pathlib import Path

import browser
import pytest
from mxnet import nd
from test_conventions import DIALECTS

import gluon_bn

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs" / "book"))
import sheet  # noqa: E402

TEXT = sheet.sheet()


def rows(heading):
    """The rows of the sheet's table with this first heading, as lists of cells."""
    lines = TEXT.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {heading}"))
    body = "\n".join(lines[start + 2 :]).split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in body]


def test_each_equation_is_that_of_its_chapter():
    def letters(latex):
        return re.sub(r"\\(begin|end)\{gathered\}|\\cr|\\qquad|\\quad|[\s.,;]", "", latex)

    found = re.findall(r"^\$\$(.*?) \\tag\{([\d., ]+)\}\$\$$", TEXT, flags=re.M | re.S)
    assert len(found) > 20 and "@" not in TEXT.split("-->")[1]
    for latex, numbers in found:
        expected = ""
        for chapter, number in (one.split(".") for one in numbers.split(", ")):
            (path,) = (ROOT / "chapters").glob(f"{int(chapter):02d}_*.md")
            before = path.read_text("utf-8").split(f"\\tag{{{number}}}")[0]
            expected += letters(before.split("$$")[-1])
        assert letters(latex) == expected, numbers


def test_an_equation_that_is_named_is_there():
    for chapter, number in re.findall(r"[( ](\d+)\.(\d+)\)", TEXT.split("-->")[1]):
        (path,) = (ROOT / "chapters").glob(f"{int(chapter):02d}_*.md")
        assert f"\\tag{{{number}}}" in path.read_text("utf-8")


SWITCHES = {"gamma": "scale", "beta": "center"}  # off: it is held, but fixed


@pytest.mark.parametrize("row", rows("layer"), ids=lambda row: row[0])
def test_what_a_layer_holds(row):
    C, K = 6, 10
    sizes = {"C": C, "2C": 2 * C, "5C": 5 * C, "2KC": 2 * K * C, "0": 0}
    for code in re.findall(r"`([^`]+)`", row[0]):
        layer = eval(code, {**vars(gluon_bn), "C": C, "K": K})
        layer.initialize()
        X = nd.random.normal(shape=(4, C, 5, 5))
        layer(X, nd.array([0, 1, 2, 3])) if "K" in code else layer(X)
        held = layer.collect_params().values()
        fixed = [name for name in ("gamma", "beta") if not getattr(layer, SWITCHES[name], True)]
        learned = sum(p.data().size for p in held if p.grad_req != "null")
        kept = sum(
            p.data().size
            for p in held
            if p.grad_req == "null" and not p.name.endswith(tuple(fixed))
        )
        assert [learned, kept] == [sizes[cell.strip("$")] for cell in row[1:]], code


def test_the_defaults_are_those_that_the_conventions_prove():
    found = {row[0]: row[1:] for row in rows("framework")}
    assert list(found) == list(DIALECTS)
    for framework, (argument, variance, epsilon) in found.items():
        _, ddof, eps, _, says = DIALECTS[framework]
        assert argument.strip("`") == says and float(epsilon) == eps
        assert variance.startswith("unbiased" if ddof else "biased")
    ours = inspect.signature(gluon_bn.BatchNorm).parameters
    argument, variance, epsilon = found["Gluon (MXNet 1.x)"]
    assert argument == f"`momentum={ours['momentum'].default}`" and not ours["unbiased"].default
    assert float(epsilon) == ours["epsilon"].default


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("made") / "sheet"
    assert sheet.build(target) == 0
    return target


def test_without_a_browser_it_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sheet, "BROWSERS", ())
    monkeypatch.setattr(sheet, "build", lambda folder: 0)
    monkeypatch.setattr(sys, "argv", ["sheet.py", str(tmp_path)])
    assert sheet.main() == 0
    said = capsys.readouterr().out
    assert "no Chromium" in said and str(tmp_path / "index.html") in said and "A4" in said


@pytest.mark.skipif(not browser.find(), reason="there is no Chromium here")
def test_it_is_one_page_of_a4_that_can_be_read(folder, tmp_path):
    assert sheet.print_to_pdf(folder / "index.html", tmp_path / "sheet.pdf")
    pdf = (tmp_path / "sheet.pdf").read_bytes()
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 1
    width, height = map(float, re.search(rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)", pdf).groups())
    assert (round(width), round(height)) == (595, 842)

    with browser.chromium() as page:
        page.open((folder / "index.html").as_uri(), 734, 1062)  # A4 without its margins, in pixels
        assert not page.errors
        assert all(url.startswith(("file:", "data:")) for url in page.requests), page.requests
        formulas = page.ask("document.querySelectorAll('.math').length")
        assert page.ask("document.querySelectorAll('mjx-container').length") == formulas > 60
        assert (
            page.ask("document.querySelectorAll('mjx-merror, [data-mml-node=merror]').length") == 0
        )
        sizes = (
            "[...document.querySelectorAll('p, td, code')].map(e => getComputedStyle(e).fontSize)"
        )
        assert min(float(size[:-2]) for size in page.ask(sizes)) >= 6.2 * 96 / 72  # points
        wide = page.ask(
            "[...document.querySelectorAll('mjx-container[display=true]')].filter(box => {"
            " const column = box.parentElement.getBoundingClientRect();"
            " return box.querySelector('svg').getBoundingClientRect().width > column.width + 1"
            "   || box.scrollWidth > column.width + 1; }).map(box => box.textContent)"
        )
        assert not wide, "wider than its column"
