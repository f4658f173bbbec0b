"""Tells what a document is by its first bytes, and by its name where these do not tell."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import BinaryIO, Literal

from extproc.extraction.bounds import Bounds, Unreadable, unsupported
from extproc.extraction.encodings import text_encoding
from extproc.extraction.opc import Package

Kind = Literal["docx", "html", "markdown", "pdf", "pptx", "text", "xlsx"]

HEAD_BYTES = 64 << 10
# Readers of PDF look for it so far.
_PDF_WITHIN = 1024

_IMAGE = "an image"
_SOUND = "audio or video"
_ARCHIVE = "an archive; its files can be sent one by one"
_PROGRAM = "a program"
_DATABASE = "a database"
_FONT = "a font"

# (offset, bytes, what it is): documents that may look like text, and are none that we read.
_TEXTUAL = (
    (0, b"{\\rtf", "RTF; it can be saved as DOCX"),
    (0, b"%!PS", "PostScript; it can be saved as PDF"),
)
_BINARY = (
    (0, b"\x89PNG", _IMAGE),
    (0, b"\xff\xd8\xff", _IMAGE),
    (0, b"GIF8", _IMAGE),
    (8, b"WEBP", _IMAGE),
    (0, b"BM", _IMAGE),
    (0, b"II*\0", _IMAGE),
    (0, b"MM\0*", _IMAGE),
    (0, b"\0\0\1\0", _IMAGE),
    (4, b"ftyphei", _IMAGE),
    (4, b"ftypavif", _IMAGE),
    (4, b"ftyp", _SOUND),
    (8, b"WAVE", _SOUND),
    (8, b"AVI ", _SOUND),
    (0, b"ID3", _SOUND),
    (0, b"OggS", _SOUND),
    (0, b"fLaC", _SOUND),
    (0, b"\x1aE\xdf\xa3", _SOUND),
    (0, b"\xff\xfb", _SOUND),
    (0, b"\xff\xf3", _SOUND),
    (0, b"\x1f\x8b", _ARCHIVE),
    (0, b"BZh", _ARCHIVE),
    (0, b"\xfd7zXZ", _ARCHIVE),
    (0, b"\x28\xb5\x2f\xfd", _ARCHIVE),
    (0, b"7z\xbc\xaf", _ARCHIVE),
    (0, b"Rar!", _ARCHIVE),
    (257, b"ustar", _ARCHIVE),
    (0, b"\x7fELF", _PROGRAM),
    (0, b"MZ", _PROGRAM),
    (0, b"\xcf\xfa\xed\xfe", _PROGRAM),
    (0, b"\xce\xfa\xed\xfe", _PROGRAM),
    (0, b"\xca\xfe\xba\xbe", _PROGRAM),
    (0, b"\0asm", _PROGRAM),
    (0, b"SQLite format 3", _DATABASE),
    (0, b"PAR1", _DATABASE),
    (0, b"OTTO", _FONT),
    (0, b"wOF", _FONT),
    (0, b"\0\1\0\0", _FONT),
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_MARKDOWN = frozenset({".md", ".markdown", ".mdown", ".mkd", ".mdx"})
_HTML = frozenset({".html", ".htm", ".xhtml"})
_READ = "PDF, DOCX, PPTX, XLSX, HTML, Markdown, CSV, JSON, code and plain text are read"


def kind_of(file: BinaryIO, filename: str, bounds: Bounds) -> Kind:
    """Return what a document is; raises Unreadable for what is not read. Leaves the file at its start."""
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if not head:
        raise Unreadable("The document is empty.")
    if b"%PDF-" in head[:_PDF_WITHIN]:
        return "pdf"
    if head.startswith(_ZIP):
        return _packed(file, bounds)
    if head.startswith(_OLE):
        return _old_office(file)
    _refuse(head, _TEXTUAL)
    if text_encoding(head, whole=len(head) < HEAD_BYTES) is None:
        _refuse(head, _BINARY)
        if b"\0" in head:
            unsupported(f"The file is of a kind that is not known: {_READ}.")
        raise Unreadable(
            "The file is text in an encoding that is not told: send it in UTF-8, or in UTF-16 with a "
            "byte order mark."
        )
    return _textual(head, filename)


def _textual(head: bytes, filename: str) -> Kind:
    suffix = PurePosixPath(filename.lower()).suffix
    start = head[:1024].replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n").lower()
    if suffix in _HTML or start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "html"
    return "markdown" if suffix in _MARKDOWN else "text"


def _packed(file: BinaryIO, bounds: Bounds) -> Kind:
    with Package(file, bounds) as package:
        kind = package.kind()
    file.seek(0)
    if kind is None:
        unsupported(f"The file is {package.described()}: {_READ}.")
    return kind


def _old_office(file: BinaryIO) -> Kind:
    """Refuse: a file of Office before 2007, or one of today behind a password, which looks the same."""
    found = _seen(file, "EncryptedPackage".encode("utf-16-le"))
    file.seek(0)
    if found:
        unsupported("The document is protected by a password; it can be saved without.")
    unsupported(
        "The file is in the format of Office before 2007; it can be saved as DOCX, PPTX or XLSX."
    )


def _seen(file: BinaryIO, wanted: bytes) -> bool:
    file.seek(0)
    last = b""
    while piece := file.read(1 << 20):
        if wanted in last + piece:
            return True
        last = piece[-len(wanted) :]
    return False


def _refuse(head: bytes, table: tuple[tuple[int, bytes, str], ...]) -> None:
    for offset, magic, what in table:
        if head.startswith(magic, offset):
            unsupported(f"The file is {what}: {_READ}.")
