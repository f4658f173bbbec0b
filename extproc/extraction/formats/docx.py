"""Word: headings, paragraphs, lists and tables of the document and its notes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from extproc.extraction.bounds import Bounds
from extproc.extraction.opc import Package, Sink, local

_HEADING = re.compile(r"(?:heading|berschrift|titre|t.tulo|rubrik|kop)\s*([1-9])$", re.IGNORECASE)
_NOTES = ("footnotes", "endnotes")


def read(file: BinaryIO, _filename: str, bounds: Bounds) -> Iterator[str]:
    """Yield the text of each part: the document, then its notes."""
    with Package(file, bounds) as package:
        main = package.main_part()
        related = package.related(main).values()
        for part in (main, *(part for kind, part in related if kind in _NOTES)):
            body = _Body()
            package.feed(part, body)
            yield from body.lines


class _Body(Sink):
    """Puts paragraphs together; what is in a table becomes rows."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._paragraph: list[str] = []
        self._mark = ""
        self._cells: list[list[str]] = []
        self._in_text = False
        # Depth in what stands there a second time, for older readers.
        self._fallback = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        name = local(tag)
        if name == "Fallback" or self._fallback:
            self._fallback += 1
        elif name == "t":
            self._in_text = True
        elif name in ("tab", "br", "cr"):
            self._paragraph.append("\t" if name == "tab" else "\n")
        elif name == "pStyle":
            self._mark = _heading(_value(attributes)) or self._mark
        elif name == "numPr":
            self._mark = self._mark or "- "
        elif name == "tr":
            self._cells.append([])
        elif name == "tc" and self._cells:
            self._cells[-1].append("")

    def end(self, tag: str) -> None:
        name = local(tag)
        if self._fallback:
            self._fallback -= 1
        elif name == "t":
            self._in_text = False
        elif name == "p":
            self._end_paragraph()
        elif name == "tr" and self._cells:
            self._end_row()
        elif name == "tbl" and not self._cells:
            self.lines.append("\n")

    def data(self, text: str) -> None:
        if self._in_text and not self._fallback:
            self._paragraph.append(text)

    def _end_paragraph(self) -> None:
        text, mark = "".join(self._paragraph).strip(), self._mark
        self._paragraph, self._mark = [], ""
        if not text:
            return
        if self._cells and self._cells[-1]:
            row = self._cells[-1]
            row[-1] = f"{row[-1]} {text}".strip()
        else:
            self.lines.append(f"{mark}{text}\n" if mark == "- " else f"{mark}{text}\n\n")

    def _end_row(self) -> None:
        row = " | ".join(cell.replace("\n", " ") for cell in self._cells.pop())
        if not row.strip(" |"):
            return
        if self._cells and self._cells[-1]:
            # A table in a cell.
            outer = self._cells[-1]
            outer[-1] = f"{outer[-1]} {row}".strip()
        else:
            self.lines.append(f"{row}\n")


def _value(attributes: dict[str, str]) -> str:
    return next((value for name, value in attributes.items() if local(name) == "val"), "")


def _heading(style: str) -> str:
    if style.lower() == "title":
        return "# "
    found = _HEADING.search(style)
    return "#" * min(int(found[1]), 6) + " " if found else ""
