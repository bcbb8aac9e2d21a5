"""The slides of the chapters (docs/book/slides.py): all there is to show, no answer too early."""

import re
import subprocess
import sys
from pathlib import Path

import browser
import nbformat
import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs" / "book"))
import slides  # noqa: E402

NAMES = [path.stem for path in slides.chapters()]
BUILT = ("02_batch_norm", "03_backward")


def chapter(name):
    return nbformat.read(ROOT / "chapters" / f"{name}.ipynb", as_version=4)


def prose(cells):
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def shown(cells):
    """The pictures and the printed texts of these cells."""
    outputs = [o for cell in cells for o in cell.get("outputs", [])]
    return [o.data["image/png"] if "image/png" in o.get("data", {}) else str(o) for o in outputs]


@pytest.mark.parametrize("name", NAMES)
def test_everything_to_show_is_on_a_slide_in_the_order_of_the_chapter(name):
    whole = chapter(name)
    found = [cell for _, cells in slides.slides(whole) for cell in cells]
    told = prose(whole.cells).partition("## Exercises")[0]
    tags = r"\\tag\{(\d+)\}"
    assert re.findall(tags, prose(found)) == re.findall(tags, told) and "## Summary" in told
    assert prose(found).count("**Predict.**") == told.count("**Predict.**") >= 3
    pictures = [o for o in shown(whole.cells) if "{" not in o]
    assert [o for o in shown(found) if "{" not in o] == pictures and pictures


@pytest.mark.parametrize("name", NAMES)
def test_no_slide_is_empty_or_announces_what_is_not_on_it(name):
    for title, cells in slides.slides(chapter(name)):
        assert cells, title
        assert cells[-1].cell_type == "code" or not cells[-1].source.endswith(":"), title


@pytest.mark.parametrize("name", NAMES)
def test_no_slide_says_what_the_chapter_does_not(name):
    def letters(text):
        return re.sub(r"\]\([^)]*\)|\\(begin|end)\{gathered\}|\\qquad|\\quad|\\cr|\W", "", text)

    whole = chapter(name)
    told = letters("".join(cell.source for cell in whole.cells))
    for title, cells in slides.slides(whole):
        assert f"# {title}\n" in prose(whole.cells) + "\n"
        for cell in cells:
            assert letters(re.sub("^```python|```$", "", cell.source)) in told
            assert set(shown([cell])) <= set(shown(whole.cells))


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_is_not_on_the_slide_of_its_question(name):
    found = [cells for _, cells in slides.slides(chapter(name))]
    for cells, following in zip(found, found[1:]):
        if "**Predict.**" in prose(cells):
            assert not shown(cells)
            assert cells[-1].source.startswith("**Predict.**"), "text behind the question"
            assert shown(following) or "$$" in prose(following), "no answer"


def test_the_sentences_that_have_room():
    paragraph = "one of (a. b) two. Three $x$ four? (Five.) *Six* seven: Eight."
    assert slides.beginning_of(paragraph, 6) == "one of (a. b) two."
    assert slides.beginning_of(paragraph, 1) == "one of (a. b) two."
    assert slides.end_of(paragraph, 4) == "(Five.) *Six* seven: Eight."
    assert slides.end_of(paragraph, 99) == "Three $x$ four? (Five.) *Six* seven: Eight."
    assert slides.end_of("| a | b |") == ""


# The decks of two chapters --------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("decks") / "slides"
    program = ROOT / "docs" / "book" / "slides.py"
    done = subprocess.run(
        [sys.executable, program, target, *BUILT, "--strict"], capture_output=True, text=True
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return target


def test_the_decks_are_there_and_ask_nothing_of_the_network(folder):
    assert {path.stem for path in folder.glob("*.html")} == {"index", *BUILT}
    listed = BeautifulSoup((folder / "index.html").read_text("utf-8"), "html.parser")
    assert [a["href"] for a in listed.select(".slides a")] == [f"{name}.html" for name in BUILT]
    for page in folder.glob("*.html"):
        text = page.read_text("utf-8")
        loaded = re.findall(r'(?:src|<link[^>]*href)="([^"]*)"', text)
        assert loaded and not [a for a in loaded if re.match("(https?:)?//", a)]
        assert all((folder / a.partition("?")[0]).exists() for a in loaded)
        images = BeautifulSoup(text, "html.parser").select("section img")
        assert all(" " in image["alt"] for image in images), "a path is no description"


EDGES = """(() => {
  const slide = Reveal.getCurrentSlide(), scale = Reveal.getScale();
  const box = document.querySelector(".slides").getBoundingClientRect();
  const parts = [...slide.querySelectorAll("h1, h2, p, li, img, pre, table, svg")];
  const edges = parts.map(part => part.getBoundingClientRect());
  return [Math.max(...edges.map(edge => edge.right - box.left)) / scale,
          Math.max(...edges.map(edge => edge.bottom - box.top)) / scale];
})()"""


@pytest.mark.skipif(not browser.find(), reason="there is no Chromium here")
def test_a_deck_opens_from_disk(folder):
    with browser.chromium() as page:
        page.open((folder / "02_batch_norm.html").as_uri(), 1280, 720)
        assert page.wait("window.Reveal && Reveal.isReady()")
        count = page.ask("Reveal.getTotalSlides()")
        assert count == len(slides.slides(chapter("02_batch_norm")))
        formulas = page.ask("document.querySelectorAll('.math').length")
        assert page.ask("document.querySelectorAll('mjx-container').length") == formulas > 50
        errors = "document.querySelectorAll('mjx-merror, [data-mml-node=merror]').length"
        assert page.ask(errors) == 0
        questions = 0
        for number in range(1, count + 1):
            right, bottom = page.ask(EDGES)
            assert right <= 1280 and bottom <= 720, f"slide {number} is too full"
            here = "Reveal.getCurrentSlide()"
            asked = page.ask(f"{here}.querySelectorAll('p.predict').length")
            answered = page.ask(f"{here}.querySelectorAll('.cell_output').length")
            assert not (asked and answered)
            questions += asked
            page.ask("Reveal.next()")
        assert page.ask("Reveal.isLastSlide()")
        assert questions == prose(chapter("02_batch_norm").cells).count("**Predict.**")
        assert not page.errors
        assert all(url.startswith(("file:", "data:")) for url in page.requests), page.requests
