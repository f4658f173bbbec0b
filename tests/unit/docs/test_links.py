"""Every link of the documents leads somewhere, and the index leads to every document."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]
)
_FENCE = re.compile(r"^ *(```|~~~).*?^ *\1", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+?)#*$", re.MULTILINE)
_NOT_IN_ANCHORS = re.compile(r"[^\w\- ]")


def _prose(path: Path) -> str:
    return _FENCE.sub("", path.read_text(encoding="utf-8"))


@cache
def _anchors(path: Path) -> frozenset[str]:
    """Return the anchors that GitHub gives the headings of a document."""
    seen: dict[str, int] = {}
    found = set()
    for heading in _HEADING.findall(_prose(path)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip())
        anchor = _NOT_IN_ANCHORS.sub("", text.lower()).replace(" ", "-")
        number = seen.get(anchor, 0)
        seen[anchor] = number + 1
        found.add(f"{anchor}-{number}" if number else anchor)
    return frozenset(found)


def _problem(document: Path, target: str) -> str | None:
    if target.startswith(("http://", "https://", "mailto:")):
        return None
    file, _, anchor = target.partition("#")
    path = (document.parent / file).resolve() if file else document
    if not path.exists():
        return f"{target}: there is no such file"
    if not path.is_relative_to(ROOT):
        return f"{target}: outside of the project"
    if anchor and anchor not in _anchors(path):
        return f"{target}: there is no such heading"
    return None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """H3: files and headings that a document names are there."""
    links = _LINK.findall(_CODE.sub("", _prose(document)))
    assert [wrong for link in links if (wrong := _problem(document, link))] == []


def test_the_index_leads_to_every_document() -> None:
    """H3: what is written can be found."""
    linked = {
        (ROOT / "docs" / target.partition("#")[0]).resolve()
        for target in _LINK.findall(_prose(ROOT / "docs" / "README.md"))
    }
    there = set((ROOT / "docs").glob("*.md")) - {ROOT / "docs" / "README.md"}
    assert there <= linked


def test_a_broken_link_would_be_found() -> None:
    """H3: of a file, of a heading, and out of the project."""
    index = ROOT / "docs" / "README.md"
    assert _problem(index, "nowhere.md")
    assert _problem(index, "api.md#nothing-of-the-kind")
    assert _problem(index, "../../elsewhere.md")
    assert _problem(index, "api.md#connectors") is None
