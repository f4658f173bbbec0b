"""From a document to its text: the kind is told by the content, then by the name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

from extproc.extraction.bounds import Bounds, Unreadable, too_much_text
from extproc.extraction.formats import docx, html, pdf, plain, pptx, xlsx
from extproc.extraction.kinds import Kind, kind_of

Read = Callable[[BinaryIO, str, Bounds], Iterator[str]]
"""Yields the text of a document in pieces; raises Unreadable."""

_READERS: dict[Kind, Read] = {
    "docx": docx.read,
    "html": html.read,
    "markdown": plain.read,
    "pdf": pdf.read,
    "pptx": pptx.read,
    "text": plain.read,
    "xlsx": xlsx.read,
}
# Their headings are written as Markdown has them.
_MARKUP: frozenset[Kind] = frozenset({"docx", "html", "markdown", "pptx"})
_NAMES: dict[Kind, str] = {
    "docx": "a Word document",
    "html": "an HTML page",
    "pdf": "a PDF",
    "pptx": "a PowerPoint presentation",
    "xlsx": "an Excel workbook",
}

# NUL is no text in Postgres; others are layout of printers, and what PDF has for a hyphen at a line's end.
_HYPHENS = re.compile("[\x02\ufffe]\n?")
_CONTROLS = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\uffff]")
_NEWLINES = re.compile("\r\n|[\r\x0c\x85\u2028\u2029]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def read_document(file: BinaryIO, filename: str, bounds: Bounds) -> tuple[str, bool]:
    """Return a document's text and whether its headings are Markdown's; raises Unreadable."""
    kind: Kind | None = None
    try:
        kind = kind_of(file, filename, bounds)
        text = _bounded(_READERS[kind](file, filename, bounds), bounds.text_bytes)
    except (Unreadable, MemoryError):
        raise
    except Exception as error:  # parsers of foreign bytes fail in every way there is
        named = _NAMES.get(kind, "a document") if kind else "a document"
        raise Unreadable(f"The file is not {named} that can be read: it is damaged.") from error
    if not text.strip():
        raise Unreadable("The document has no text.")
    return text, kind in _MARKUP


def _bounded(pieces: Iterator[str], most: int) -> str:
    taken, size = [], 0
    for piece in pieces:
        cleaned = _clean(piece)
        size += len(cleaned.encode())
        if size > most:
            raise too_much_text(most)
        taken.append(cleaned)
    return "".join(taken)


def _clean(text: str) -> str:
    text = _NEWLINES.sub("\n", text)
    return _SURROGATES.sub("\ufffd", _CONTROLS.sub("", _HYPHENS.sub("", text)))
