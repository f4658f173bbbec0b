"""Which encoding a text has: UTF-8, what a byte order mark says, or what HTML or XML declares."""

from __future__ import annotations

import codecs
import re
from encodings.aliases import aliases

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = re.compile(
    rb"""<\?xml[^>]{0,100}?encoding=["']([\w.:-]{1,40})|<meta[^>]{0,200}?charset=["']?\s*([\w.:-]{1,40})""",
    re.IGNORECASE,
)
# Where browsers look for it.
_DECLARED_WITHIN = 4096
_LATIN = {"iso8859-1": "cp1252", "ascii": "cp1252"}


def warm() -> None:
    """Load all encodings: later their modules may not be readable (`confinement`)."""
    for name in sorted(set(aliases.values())):
        try:
            codecs.lookup(name)
        except LookupError:
            pass  # one of another system


def text_encoding(head: bytes, *, whole: bool) -> str | None:
    """Return the encoding of a text that begins so; None if it is none, or does not tell.

    `whole`: there is nothing behind it. Otherwise its last character may be cut off.
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name if _decodes(head, name, whole=whole) else None
    if b"\0" in head:
        return None
    declared = _declared(head)
    if declared is not None and _decodes(head, declared, whole=whole):
        return declared
    return "utf-8" if _decodes(head, "utf-8", whole=whole) else None


def _declared(head: bytes) -> str | None:
    found = _DECLARED.search(head[:_DECLARED_WITHIN])
    if found is None:
        return None
    name = (found[1] or found[2]).decode("ascii")
    try:
        info = codecs.lookup(name)
    except LookupError:
        return None
    # Not base64 and its like; a document that says UTF-16 in ASCII does not know what it is.
    if not info._is_text_encoding or info.name.startswith(("utf-16", "utf-32")):
        return None
    # As browsers read it.
    return _LATIN.get(info.name, info.name)


def _decodes(head: bytes, encoding: str, *, whole: bool) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(head, final=whole)
    except (UnicodeError, LookupError):
        return False
    return True
