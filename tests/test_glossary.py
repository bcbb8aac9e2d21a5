"""docs/glossary.md: in order, each term once, and in the chapter that it names."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "glossary.md").read_text("utf-8")
ENTRIES = [
    (terms.split("\n"), " ".join(said.split()))
    for terms, said in re.findall(
        r"^((?:\S.*\n)+)((?:  .*\n)+)", TEXT.split("```{glossary}\n")[1], flags=re.M
    )
]
HAN = r"[\u4e00-\u9fff]"


def prose(chapter):
    """The text of a chapter without its code, its marks of emphasis and its references."""
    text = re.sub(r"^```.*?^```$", "", chapter.read_text("utf-8"), flags=re.M | re.S)
    return " ".join(text.split("## References")[0].replace("*", "").split())


def test_it_is_sorted_and_says_nothing_twice():
    english = [terms[0].casefold() for terms, _ in ENTRIES]
    every = [term for terms, _ in ENTRIES for term in terms if term]
    assert english == sorted(english) and len(every) == len(set(every))
    assert 60 <= len(ENTRIES) <= 90


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry[0][0])
def test_an_entry(entry):
    (english, *chinese, end), said = entry
    assert end == "" and chinese and all(re.search(HAN, term) for term in chinese)
    assert not re.search(HAN, english)
    definition, number, name = re.fullmatch(
        r"(.+\.) \[Chapter (\d+)\]\(\.\./chapters/(\w+)\.ipynb\)†?", said
    ).groups()
    assert len(re.findall(r"[.?!](?: |$)", definition)) <= 2, "one or two sentences"
    chapter = ROOT / "chapters" / f"{name}.md"
    assert int(name[:2]) == int(number) and chapter.exists()
    word = rf"(?<![\w-]){re.escape(english)}s?(?![\w-])"
    assert re.search(word, prose(chapter), flags=re.I), f"{english} is not in {name}"
