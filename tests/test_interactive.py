"""The figures to change on the web site: where they stand, and what they compute, in a browser.

The numbers that a figure shows are computed again with NumPy, another way where there is one: the
moving average as a weighted sum, the gradient by finite differences, the values that share a mean
by changing one and looking which outputs move. Controls are moved with the keyboard, at the width
of a small phone.
"""

import re
import sys
from pathlib import Path

import browser
import nbformat
import numpy as np
import pytest
import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs" / "book"))
import interactive  # noqa: E402

PLACES = yaml.safe_load(interactive.FIGURES.read_text("utf-8"))
ENTRIES = [(chapter, entry) for chapter, entries in PLACES.items() for entry in entries]
CHAPTER = {entry["figure"]: chapter for chapter, entry in ENTRIES}
in_a_browser = pytest.mark.skipif(not browser.find(), reason="there is no Chromium here")


# Where they stand ---------------------------------------------------------------------------------


@pytest.mark.parametrize("chapter, entry", ENTRIES, ids=[entry["figure"] for _, entry in ENTRIES])
def test_a_figure_stands_in_its_section_behind_the_questions_that_it_answers(site, chapter, entry):
    page = BeautifulSoup((site / f"chapters/{chapter}.html").read_text("utf-8"), "html.parser")
    figure = page.find("figure", id=entry["figure"])
    assert figure.find_previous("h2").find(string=True) == entry["section"]
    assert not figure.find_parent("details")
    assert "needs JavaScript" in figure.noscript.get_text()
    before = {id(element) for element in figure.find_all_previous()}
    questions = page.select("p.predict")
    for words in entry["after"]:
        (question,) = (q for q in questions if words in " ".join(q.get_text().split()))
        assert id(question.find_next("div", class_="cell_output")) in before, words
    for question in questions:  # nowhere between a question and what answers it
        if id(question) in before:
            assert id(question.find_next("div", class_="cell_output")) in before


def test_a_section_that_is_gone_is_reported_by_its_name():
    cells = [nbformat.v4.new_markdown_cell("# Title\n\n## Renamed\n\ntext\n\n## Next")]
    with pytest.raises(ValueError, match="'One formula'"):
        interactive.place_figures(nbformat.v4.new_notebook(cells=cells), "10_relatives")


def test_the_notebooks_know_nothing_of_them():
    for chapter in PLACES:
        assert "data-figure" not in (ROOT / "chapters" / f"{chapter}.ipynb").read_text("utf-8")


# What they compute --------------------------------------------------------------------------------


class Figure:
    """A figure in the browser: move its controls, read its numbers and its drawing."""

    def __init__(self, page, name):
        self.page, self.name = page, name

    def ask(self, expression):
        """An expression about `figure`."""
        return self.page.ask(
            f"(figure => {expression})(document.querySelector('figure#{self.name}'))"
        )

    def press(self, label, key, times=1):
        """Give the control whose name begins so the focus, and press a key."""
        self.ask(
            "[...figure.querySelectorAll('input, select')]"
            ".find(control => (control.ariaLabel || control.labels[0].textContent)"
            f".trim().startsWith('{label}')).focus()"
        )
        self.page.press(key, times)

    def numbers(self):
        """All numbers with a decimal point in the sentences below the drawing."""
        text = self.ask("figure.querySelector('.numbers').textContent").replace("\u2212", "-")
        return [float(number) for number in re.findall(r"-?\d+\.\d+", text)]

    def all(self, selector, expression):
        """`expression` of each `element` that the selector finds."""
        return self.ask(f"[...figure.querySelectorAll('{selector}')].map(element => {expression})")


@pytest.fixture
def figure(site, page, request):
    """Opened at the width of a small phone; afterwards nothing is wider, nothing was printed."""
    name = request.param
    page.open((site / "chapters" / f"{CHAPTER[name]}.html").as_uri(), width=360)
    figure = Figure(page, name)
    yield figure
    assert page.errors == []
    assert all(url.startswith(("file:", "data:")) for url in page.requests)
    assert page.ask("document.documentElement.scrollWidth") <= 360
    assert figure.ask("figure.scrollWidth <= figure.clientWidth")
    edge = figure.ask("figure.getBoundingClientRect().right")
    assert max(figure.all("*", "element.getBoundingClientRect().right")) <= edge


def opened(name):
    return lambda test: in_a_browser(pytest.mark.parametrize("figure", [name], indirect=True)(test))


def close(shown, expected):
    """Equal, as far as two decimals show it."""
    np.testing.assert_allclose(shown, expected, rtol=0, atol=0.0051)


def layer(x, gamma=1.0, beta=0.0, epsilon=1e-5):
    x = np.asarray(x, dtype="float64")
    return gamma * (x - x.mean()) / np.sqrt(x.var() + epsilon) + beta


@opened("channel")
def test_the_channel_is_normalized(figure):
    batch = [4.6, 2.6, 3.5, 5.4, 4.8, 0.5, 3.4, 1.8]

    def expect(x, **arguments):
        y, x_hat = layer(x, **arguments), layer(x, epsilon=arguments.get("epsilon", 1e-5))
        outlier = [x[0], x_hat[0], np.sqrt(len(x) - 1)]
        close(figure.numbers(), [np.mean(x), np.var(x), *y, y.mean(), y.std(), *outlier])
        places = figure.all(".after", "Number(element.getAttribute('x')) + 4.5")
        close((np.array(places) - 16) * 20 / 328 - 8, y)  # as drawn

    expect(batch)
    figure.press("gamma", "ArrowRight", 5)
    figure.press("beta", "ArrowLeft", 2)
    expect(batch, gamma=1.5, beta=-0.2)
    figure.press("first value", "End")
    expect([12.0, *batch[1:]], gamma=1.5, beta=-0.2)
    figure.press("epsilon", "End")
    expect([12.0, *batch[1:]], gamma=1.5, beta=-0.2, epsilon=10)
    figure.press("batch size", "Home")
    expect([12.0], gamma=1.5, beta=-0.2, epsilon=10)


@opened("channel")
@pytest.mark.parametrize("finger", [False, True], ids=["mouse", "finger"])
def test_a_value_can_be_dragged(figure, finger):
    figure.ask("figure.querySelector('.ring').scrollIntoView({ block: 'center' })")
    ((x, y),) = figure.all(
        ".ring", "(r => [r.x + r.width / 2, r.y + r.height / 2])(element.getBoundingClientRect())"
    )
    scale = figure.ask("figure.querySelector('svg').getBoundingClientRect().width") / 360

    def move(kind, right):
        place = {"x": x + right * scale, "y": y}
        if finger:
            points = [] if kind == "touchEnd" else [place]
            figure.page.send("Input.dispatchTouchEvent", type=kind, touchPoints=points)
        else:
            figure.page.send(
                "Input.dispatchMouseEvent", type=kind, **place, button="left", buttons=1
            )

    start, go, end = (
        ("touchStart", "touchMove", "touchEnd")
        if finger
        else ("mousePressed", "mouseMoved", "mouseReleased")
    )
    move(start, 0)
    for right in np.linspace(0, 3 * 328 / 20, 15):  # three units
        move(go, right)
    move(end, right)
    close(figure.ask("Number(figure.querySelector('[aria-label^=first]').value)"), 4.6 + 3)
    close(figure.numbers()[0], np.mean([7.6, 2.6, 3.5, 5.4, 4.8, 0.5, 3.4, 1.8]))


@opened("momentum")
def test_the_average_lags(figure):
    states = [1]
    for _ in range(100):
        states.append(states[-1] * 16807 % (2**31 - 1))
    noise = 0.4 * np.sqrt(12) * (np.array(states[1:]) / (2**31 - 1) - 0.5)

    def expect(alpha, drift):
        truth = 2 + drift * np.arange(1, 101)
        weights = (1 - alpha) * alpha ** np.arange(100.0)[::-1]  # equation (7)
        average = weights @ (truth + noise)
        lag = drift * alpha / (1 - alpha)
        shown = figure.numbers()
        close(shown[:2], [alpha, 1 - alpha])
        close(shown[2:], [truth[-1], average, truth[-1] - average, lag, alpha**100])
        places = figure.ask("figure.querySelector('.average').getAttribute('points')").split()
        close((180 - float(places[-1].split(",")[1])) / 24, average)
        assert len(places) == 100

    expect(0.95, 0.03)
    figure.press("momentum", "End")
    expect(0.99, 0.03)
    figure.press("momentum", "ArrowLeft", 9)
    figure.press("drift", "Home")
    expect(0.90, 0.0)


@opened("projection")
def test_the_projection_leaves_what_changes_the_outputs(figure):
    x, h = np.array([3.0, 1.0, 2.0]), 1e-5

    def expect(*dy):
        sides = ((layer(x + h * row) - layer(x - h * row)) / (2 * h) for row in np.eye(3))
        dx = np.array([side @ dy for side in sides])
        factor = 1 / np.sqrt(x.var() + 1e-5)
        shown = figure.numbers()
        close(shown, [0, 0, factor, *dx])
        rows = figure.all("td", "Number(element.textContent.replace('\u2212', '-'))")
        arrives, mean, part, left = np.reshape(rows, (4, 3))
        close(arrives, dy)
        close(mean, [-np.mean(dy)] * 3)
        close(left, dx / factor)
        np.testing.assert_allclose(arrives + mean + part, left, atol=0.021)  # each is rounded

    expect(0.8, 0.2, -0.7)
    figure.press("dY\u2081", "ArrowLeft", 3)
    figure.press("dY\u2083", "End")
    expect(0.5, 0.2, 1.0)
    for number, dy in enumerate([(0.8, 0.8, 0.8), (0.8, -0.8, 0.0), (0.5, 0.5, -1.0)]):
        figure.ask(f"figure.querySelectorAll('button')[{number}].focus()")
        figure.page.press(" ")
        expect(*dy)


@opened("axes")
def test_the_values_that_share_a_mean(figure):
    X = np.random.RandomState(0).normal(size=(4, 6, 4))

    def expect(name, images, groups, positions, at=(0, 0, 0)):
        """Which outputs move when the value at `at` moves?"""

        def normalized(X):
            split = X.reshape(4, groups, 6 // groups, 4)
            axes = tuple(a for a, on in enumerate((images, False, True, positions)) if on)
            mean = split.mean(axes, keepdims=True)
            return ((split - mean) / (split.std(axes, keepdims=True) + 1e-3)).reshape(X.shape)

        moved = X.copy()
        moved[at] += 1
        alone = 6 // groups == 1 and not images and not positions  # its output is always 0
        moves = {at} if alone else set(zip(*np.nonzero(normalized(moved) != normalized(X))))
        cells = figure.all(".together", "element.dataset.cell.split(',').map(Number)")
        assert {tuple(cell) for cell in cells} == moves
        text = figure.ask("figure.querySelector('.numbers').textContent")
        assert text.startswith(f"{name}: m = ") and f"= {len(moves)} of the 96 values" in text
        assert f"{96 // len(moves)} such sets" in text
        other_images = len({n for n, _, _ in moves}) > 1
        assert ("depends on the other images" in text) == other_images
        chosen = figure.all("input[type=radio]:checked", "element.labels[0].textContent.trim()")
        assert chosen == ([name.split()[0]] if name.endswith(" norm") else [])

    expect("Batch norm", True, 6, True)
    figure.press("Batch", "ArrowRight")
    expect("Layer norm", False, 1, True)
    figure.press("Layer", "ArrowRight")
    expect("Instance norm", False, 6, True)
    figure.press("Instance", "ArrowRight")
    expect("Group norm", False, 2, True)
    figure.press("channel", "End")
    figure.press("image", "ArrowRight", 2)
    expect("Group norm", False, 2, True, at=(2, 5, 0))
    figure.press("C", "ArrowUp")
    expect("Group norm", False, 3, True, at=(2, 5, 0))
    figure.press("H, W", " ")
    expect("None of the four norms", False, 3, False, at=(2, 5, 0))
    figure.press("N", " ")
    expect("None of the four norms", True, 3, False, at=(2, 5, 0))
    figure.all('[data-cell="1,0,3"]', "element.dispatchEvent(new Event('click', {bubbles: true}))")
    expect("None of the four norms", True, 3, False, at=(1, 0, 3))
    figure.press("H, W", " ")
    expect("None of the four norms", True, 3, True, at=(1, 0, 3))


@in_a_browser
@pytest.mark.parametrize("chapter", PLACES)
def test_every_control_has_a_name_and_the_focus_is_seen(site, page, chapter):
    page.open((site / "chapters" / f"{chapter}.html").as_uri(), width=360)
    controls = "[...document.querySelectorAll('figure.interactive :is(input, select, button)')]"
    assert page.ask(
        f"{controls}.every(c => c.ariaLabel || c.labels?.[0]?.textContent.trim() || c.textContent)"
    )
    drawings = "[...document.querySelectorAll('figure.interactive svg')]"
    assert page.ask(f"{drawings}.every(drawing => drawing.ariaLabel.length > 40)")
    page.press("ArrowDown")  # a key: from now on the focus is shown
    widths = page.ask(f"{controls}.map(c => (c.focus(), getComputedStyle(c).outlineWidth))")
    assert set(widths) == {"3px"}
