"""PowerPoint: each slide under its number and title, with its tables and the speaker's notes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from extproc.extraction.bounds import Bounds, Unreadable
from extproc.extraction.opc import Package, Sink, local

_TITLES = ("title", "ctrTitle")
# Placeholders that say nothing: the slide's number, a date, a footer that each slide has.
_FURNITURE = ("sldNum", "dt", "ftr", "sldImg")


def read(file: BinaryIO, _filename: str, bounds: Bounds) -> Iterator[str]:
    """Yield the text of each slide, in the order in which they are shown."""
    with Package(file, bounds) as package:
        main = package.main_part()
        order = _Order()
        package.feed(main, order)
        if len(order.ids) > bounds.pages:
            raise Unreadable(
                f"The presentation has {len(order.ids)} slides; the limit is {bounds.pages}."
            )
        parts = package.related(main)
        for number, wanted in enumerate(order.ids, 1):
            if wanted in parts:
                yield from _slide(package, parts[wanted][1], number)


def _slide(package: Package, part: str, number: int) -> Iterator[str]:
    slide = _Shapes()
    package.feed(part, slide)
    notes = _Shapes()
    for kind, other in package.related(part).values():
        if kind == "notesSlide":
            package.feed(other, notes)
    if not (slide.title or slide.lines or notes.lines):
        return
    yield f"## Slide {number}: {slide.title}\n\n" if slide.title else f"## Slide {number}\n\n"
    for line in slide.lines:
        yield f"{line}\n"
    if notes.lines:
        yield "\nNotes:\n"
        for line in notes.lines:
            yield f"{line}\n"
    yield "\n"


class _Order(Sink):
    """The ids by which a presentation names its slides."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if local(tag) == "sldId":
            named = (value for name, value in attributes.items() if name.endswith("}id"))
            self.ids.extend(named)


class _Shapes(Sink):
    """The paragraphs of a slide's shapes, and its title."""

    def __init__(self) -> None:
        self.title = ""
        self.lines: list[str] = []
        self._paragraph: list[str] = []
        self._row: list[str] | None = None
        self._placeholder = ""
        self._in_text = False
        self._fallback = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        name = local(tag)
        if name == "Fallback" or self._fallback:
            self._fallback += 1
        elif name == "sp":
            self._placeholder = ""
        elif name == "ph":
            self._placeholder = attributes.get("type", "body")
        elif name == "t":
            self._in_text = True
        elif name == "br":
            self._paragraph.append("\n")
        elif name == "tr":
            self._row = []
        elif name == "tc" and self._row is not None:
            self._row.append("")

    def end(self, tag: str) -> None:
        name = local(tag)
        if self._fallback:
            self._fallback -= 1
        elif name == "t":
            self._in_text = False
        elif name == "p":
            self._end_paragraph()
        elif name == "sp":
            self._placeholder = ""
        elif name == "tr" and self._row is not None:
            row, self._row = " | ".join(self._row), None
            self._add(row if row.strip(" |") else "")

    def data(self, text: str) -> None:
        if self._in_text and not self._fallback:
            self._paragraph.append(text)

    def _end_paragraph(self) -> None:
        text = "".join(self._paragraph).strip()
        self._paragraph = []
        if self._row:
            self._row[-1] = f"{self._row[-1]} {text}".strip().replace("\n", " ")
        elif self._placeholder in _TITLES:
            self.title = f"{self.title} {text}".strip().replace("\n", " ")
        elif self._placeholder not in _FURNITURE:
            self._add(text)

    def _add(self, line: str) -> None:
        if line:
            self.lines.append(line)
