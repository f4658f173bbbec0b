"""Text as it is: plain, Markdown, CSV, JSON, code."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO

from extproc.extraction.bounds import Bounds, Unreadable, too_much_text
from extproc.extraction.encodings import text_encoding
from extproc.extraction.kinds import HEAD_BYTES

_PIECE = 1 << 20


def read(file: BinaryIO, _filename: str, bounds: Bounds) -> Iterator[str]:
    """Yield the text; raises Unreadable where its encoding does not hold to its end."""
    yield from decoded(file, most=bounds.text_bytes, refused=too_much_text(bounds.text_bytes))


def decoded(file: BinaryIO, *, most: int, refused: Unreadable) -> Iterator[str]:
    """Yield the text of a file of at most so many bytes of UTF-8; `refused` is raised for a larger one."""
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(HEAD_BYTES)
    encoding = text_encoding(head, whole=size <= HEAD_BYTES) or "utf-8"
    # No encoding takes more than four bytes for what UTF-8 has in one.
    wide = 4 if "32" in encoding else 2 if "16" in encoding else 1
    if size > most * wide + 4:
        raise refused
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        yield decoder.decode(head)
        while piece := file.read(_PIECE):
            yield decoder.decode(piece)
        yield decoder.decode(b"", final=True)
    except UnicodeError as error:
        named = encoding.removesuffix("-sig").upper()
        raise Unreadable(
            f"The file is not text in {named} throughout: send it in UTF-8, or in UTF-16 with a byte order "
            "mark."
        ) from error
