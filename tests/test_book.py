"""The web site: built once, read as files, and opened in a browser without a network."""

import copy
import functools
import gc
import re
import sys
import time
from pathlib import Path

import browser
import nbformat
import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs" / "book"))
CHAPTERS = sorted(path.stem for path in (ROOT / "chapters").glob("[0-9][0-9]_*.ipynb"))
SOLUTIONS = sorted(path.stem for path in (ROOT / "chapters" / "solutions").glob("*.ipynb"))
REFERENCE = re.findall(
    r"^ +(gluon_bn[\w.]+)$", (ROOT / "docs/reference.md").read_text("utf-8"), re.M
)
PAGES = [
    "index",
    "search",
    "docs/symbols",
    "docs/sheet",
    "docs/glossary",
    "docs/conventions",
    "docs/checking",
    "docs/results",
    "docs/reference",
    *(f"docs/reference/{name}" for name in REFERENCE),
    *(f"docs/teacher/{path.stem}" for path in sorted((ROOT / "docs/teacher").glob("*.md"))),
    *(f"chapters/{name}" for name in CHAPTERS),
    *(f"chapters/solutions/{name}" for name in SOLUTIONS),
]


@pytest.fixture(scope="session")
def read(site):
    """A page as BeautifulSoup reads it, by its name: read once, so leave it as it is."""

    @functools.lru_cache(None)
    def read(name):
        page = BeautifulSoup((site / f"{name}.html").read_text("utf-8"), "html.parser")
        gc.freeze()  # it stays, a hundred thousand objects that Python need not go through again
        return page

    return read


@pytest.fixture(scope="session")
def identities(site, read):
    """What an anchor can lead to on a page of the site, by its name."""

    @functools.lru_cache(None)
    def of(name):
        return {element["id"] for element in read(name).find_all(id=True)}

    return of


# By their scope the tests of a page come one after the other, most often in one process, which
# reads the page once.
each_page = pytest.mark.parametrize("name", PAGES, scope="module")


def test_every_page_is_there_and_no_other(site):
    pages = {
        path.relative_to(site).with_suffix("").as_posix()
        for path in site.rglob("*.html")
        if "_static" not in path.parts
    }
    sources = {name for name in pages if name.startswith("_modules/")}
    assert pages - sources == set(PAGES)
    assert {"_modules/gluon_bn/functional", "_modules/gluon_bn/blocks"} < sources


@each_page
def test_nothing_is_fetched_from_the_network(read, site, name):
    page = read(name)
    for tag, attribute in (
        ("script", "src"),
        ("link", "href"),
        ("img", "src"),
        ("iframe", "src"),
        ("source", "src"),
        ("object", "data"),
    ):
        for element in page.find_all(tag, **{attribute: True}):
            address = element[attribute]
            assert not re.match(r"(https?:)?//", address), f"{tag}: {address}"
            if not address.startswith(("data:", "#")):
                file = (site / f"{name}.html").parent / re.split("[?#]", address)[0]
                assert file.exists(), f"{tag}: {address}"


def test_no_style_fetches_from_the_network(site):
    for style in site.rglob("*.css"):
        text = style.read_text("utf-8")
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", text), style


@each_page
def test_links_between_pages_lead_somewhere(read, identities, site, name):
    for link in read(name).find_all("a", href=True):
        address, _, anchor = link["href"].partition("#")
        if re.match("[a-z]+:", address):
            continue
        file = (site / f"{name}.html").parent / address if address else site / f"{name}.html"
        assert file.exists(), link["href"]
        if anchor and file.suffix == ".html":
            place = file.resolve().relative_to(site.resolve()).with_suffix("").as_posix()
            assert anchor in identities(place), link["href"]


@each_page
def test_no_markup_is_left_over(read, name):
    article = copy.copy(read(name).find("article") or read(name).find("main"))
    for code in article.select("pre, code, .math, .sig, dt strong"):
        code.decompose()
    text = article.get_text()
    for raw in ("$", "\\frac", "```", ":::", "{math}", "{toctree}", "{note}", "](", "**"):
        assert raw not in text, f"{raw!r} near {text[max(text.find(raw) - 60, 0) :][:120]!r}"
    assert "@chapters@" not in text


@pytest.mark.parametrize("name", [f"chapters/{name}" for name in CHAPTERS])
def test_a_chapter_has_its_figures_its_notebook_and_its_neighbours(read, site, name):
    page, file = read(name), (ROOT / f"{name}.ipynb")
    figures = page.select(".cell_output img")
    assert figures, "no figure"
    assert all(" " in figure["alt"] for figure in figures), "a path is no description"
    assert page.select("p.predict"), "no question"
    notebook = site / "_sources" / f"{name}.ipynb"
    assert notebook.read_bytes() == file.read_bytes()
    assert [
        link
        for link in page.select("a[href$='.ipynb']")
        if (site / "chapters" / link["href"]).resolve() == notebook.resolve()
    ]
    neighbours = [link["href"] for link in page.select(".prev-next-area a")]
    assert len(neighbours) == 2
    assert [
        link for link in page.select("nav a.reference.internal") if "Symbols" in link.get_text()
    ], "no table of contents"


def test_the_landing_page_lists_all_chapters(read):
    """A line each: a link and the chapter's own title, or the word that it is planned."""
    lines = read("index").select("article ol > li")
    assert len(lines) == 13
    for number, line in enumerate(lines, 1):
        names = [name for name in CHAPTERS if name.startswith(f"{number:02d}_")]
        if names:
            title = read(f"chapters/{names[0]}").select_one("h1").find(string=True)
            assert line.find("a").get_text() == title
            assert "planned" not in line.get_text()
        else:
            assert "(planned)" in line.get_text()


def test_every_page_lists_the_worked_solutions(read):
    listed = [link["href"] for link in read("index").select("nav a.reference.internal")]
    assert [link for link in listed if "/solutions/" in link] == [
        f"chapters/solutions/{name}.html" for name in SOLUTIONS
    ]


@pytest.mark.parametrize("name", REFERENCE)
def test_a_page_of_the_reference_shows_its_module_with_an_example_and_its_source(read, site, name):
    page = read(f"docs/reference/{name}")
    assert page.select_one("h1").find(string=True) == name
    for entry in page.select("article dl.py.function, article dl.py.class"):
        if entry.select_one("dl.field-list"):  # more than one line to say
            assert ">>> " in entry.get_text(), entry.get_text()[:80]
        source, _, line = entry.select_one("a.reference.internal[href*=_modules]")[
            "href"
        ].partition("#")
        text = (site / "docs/reference" / source).read_text("utf-8")
        assert f'id="{line}"' in text
    assert page.select("article dl.py")


def test_mathematics_is_on_board(site, read):
    assert (site / "_static/mathjax/tex-svg.js").stat().st_size > 1e6
    assert "tex-svg.js" in str(read("docs/symbols"))


def test_a_chapter_that_does_not_exist_yet_is_planned(tmp_path):
    import website

    (tmp_path / "chapters").mkdir()
    cells = [nbformat.v4.new_markdown_cell("# Its own title\n\nmore")]
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells), tmp_path / "chapters" / "02_batch_norm.ipynb"
    )
    page = website.landing_page(tmp_path)
    assert "1. Why normalize? (planned)" in page
    assert "[Its own title](chapters/02_batch_norm.ipynb)" in page
    assert re.search(r"^2\. Its own title <chapters/02_batch_norm>$", page, flags=re.M)
    assert "<chapters/01_why_normalize>" not in page


# In a browser -------------------------------------------------------------------------------------

in_a_browser = pytest.mark.skipif(not browser.find(), reason="there is no Chromium here")


@in_a_browser
@pytest.mark.parametrize(
    "name, width",
    [
        (name, width)
        for name in PAGES
        for width in (1280, 390)
        if width == 390 or not re.search("/solutions/|/reference/", name)
    ],
)  # the narrow page is the harder one
def test_a_page_opens_from_disk(site, read, page, name, width):
    page.open((site / f"{name}.html").as_uri(), width)
    assert not page.errors
    assert all(url.startswith(("file:", "data:")) for url in page.requests), page.requests
    formulas = len(read(name).select(".math"))
    assert page.ask("document.querySelectorAll('mjx-container').length") == formulas
    assert page.ask("document.querySelectorAll('mjx-merror, [data-mml-node=merror]').length") == 0
    assert page.ask("[...document.images].every(image => image.naturalWidth > 0)")
    assert page.ask("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"


@in_a_browser
def test_search_finds_from_disk(site, page):
    page.open((site / "search.html").as_uri() + "?q=momentum")
    assert page.wait(
        "[...document.querySelectorAll('#search-results li a')]"  # one after another
        ".some(a => a.href.includes('docs/conventions.html'))"
    )
    assert not page.errors


@in_a_browser
@pytest.mark.parametrize("name", CHAPTERS)
def test_the_notebook_can_be_saved_from_disk(site, page, tmp_path, name):
    page.open((site / "chapters" / f"{name}.html").as_uri())
    page.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.ask("document.querySelector('.btn-download-source-button').click()")
    saved, original = tmp_path / f"{name}.ipynb", ROOT / "chapters" / f"{name}.ipynb"
    end = time.monotonic() + 60
    while not saved.exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert saved.read_bytes() == original.read_bytes()
    assert not page.errors


@in_a_browser
def test_code_can_be_copied(site, page):
    page.open((site / "index.html").as_uri())
    page.ask("document.querySelector('button.copybtn').click()")
    assert page.wait("document.querySelector('button.copybtn.success') !== null")


@in_a_browser
def test_the_dark_page_is_dark_and_mathematics_bright(site, page):
    page.open((site / "docs/symbols.html").as_uri(), dark=True)
    brightness = (
        "(element, property) => getComputedStyle(element)[property]"
        ".match(/[0-9.]+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0) / 3"
    )
    assert page.ask(f"({brightness})(document.body, 'backgroundColor')") < 60
    assert page.ask(f"({brightness})(document.querySelector('mjx-container'), 'color')") > 160


@pytest.mark.parametrize("name", CHAPTERS)
def test_an_answer_is_folded_until_it_is_asked_for(read, name):
    """Behind each question a cell whose output is closed, and somewhere closed text."""
    page = read(f"chapters/{name}")
    for question in page.select("p.predict"):
        output = question.find_next("div", class_="cell_output")
        fold = output.find_parent("details")
        assert fold and not fold.has_attr("open"), question.get_text()
        assert "Predict" in fold.find("summary").get_text()
    assert page.select("article details:not(.hide) > summary")


@in_a_browser
def test_an_answer_opens_with_the_keyboard(site, page):
    page.open((site / "chapters/02_batch_norm.html").as_uri(), 390)
    for kind in (".hide", ":not(.hide)"):
        fold = f"document.querySelector('.bd-article details{kind}')"
        assert page.ask(f"{fold}.open") is False
        page.ask(f"{fold}.querySelector('summary').focus()")
        for event in ("keyDown", "keyUp"):
            page.send("Input.dispatchKeyEvent", type=event, key="Enter", code="Enter", text="\r")
        assert page.wait(f"{fold}.open")
    assert page.ask("document.documentElement.scrollWidth") <= 390


@in_a_browser
def test_a_guess_is_compared_without_a_network(site, page):
    page.open((site / "chapters/02_batch_norm.html").as_uri(), 390)
    for kind, guesses in {
        "form.guess[data-right='5.57']": {
            "": "Your answer first.",
            "many": "A number, such as 0.5.",
            "100": "Too large.",
            "1": "Too small.",
            "5,6": "Right, or close enough.",
        },
        "form.guess[data-right='always']": {"never": "No. Open the output.", "always": "Right."},
    }.items():
        form = f'document.querySelector("{kind}")'
        for guess, verdict in guesses.items():
            page.ask(f"{form}.elements.guess.value = '{guess}'")
            page.ask(f"{form}.querySelector('button').click()")
            assert page.ask(f"{form}.querySelector('output').textContent") == verdict
    assert not page.errors
