"""What code cites of docs/reference is there: the file, the heading, and the number of a list below it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CITATION = re.compile(r"\((docs/reference/[^()]*)\)")
"""Such as (docs/reference/FILE.md, Heading; Heading 3; 4): each after the first is of the file, and number, before."""


def test_every_citation_names_a_file_a_heading_and_a_number_that_are_there() -> None:
    found = list(citations())
    assert len(found) > 50, "the search finds citations"
    assert [one for one in found if one[1] not in sections(one[0])] == [], "such a heading there is not"
    numbers = [(place, sections(file)[heading], number) for file, heading, number, place in found if number]
    assert numbers
    assert [place for place, text, number in numbers if not re.search(rf"^{number}\. ", text, re.MULTILINE)] == []


def test_nothing_cites_what_is_not_in_the_repository() -> None:
    elsewhere = re.compile(r"reference: +(ESAM|fusion|section)|ESAM sections? \d|esam_sv\.md|fusion_2d3d")
    assert [file for file, text in texts() if elsewhere.search(text) and file != Path(__file__)] == []


def test_every_mention_has_the_one_form() -> None:
    """One that has another would be held against nothing."""
    for file, text in texts():
        if file != Path(__file__):
            assert text.count("docs/reference/") == sum(
                one.count("docs/reference/") for one in CITATION.findall(text)
            ), file


def citations() -> Iterator[tuple[str, str, str, str]]:
    """File, heading, number or nothing, and the source that says so."""
    for source, text in texts():
        for group in CITATION.findall(text) if source != Path(__file__) else ():
            file = heading = ""
            for piece in group.split("; "):
                path, _, rest = piece.rpartition(".md, ")
                file = f"{path}.md" if path else file
                words = re.fullmatch(r"(.*?) ?(\d*)", rest)
                assert words is not None
                heading = words[1] or heading
                yield file, heading, words[2], f"{source.relative_to(ROOT)}: {piece}"


def sections(file: str) -> dict[str, str]:
    """Heading -> the text below it, up to the next."""
    parts = re.split(r"^## (.*)$", (ROOT / file).read_text(), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def texts() -> Iterator[tuple[Path, str]]:
    """Every source file, in one line."""
    for folder in ("ditr", "tests", "tools", "benchmarks"):
        for file in (ROOT / folder).rglob("*.py"):
            yield file, re.sub(r"\s+", " ", file.read_text())
