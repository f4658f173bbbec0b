"""How many values a JSON text holds, told without making one of them. Pure.

Bytes alone are no bound: three of them make an object of eighty, and a few compressed ones make millions.
"""

from __future__ import annotations

_MARKS = b",[{"
_NEITHER_MARK_NOR_QUOTE = bytes(set(range(256)) - set(_MARKS + b'"'))
# Characters that are taken apart at a time: what is cut up is many times as large.
_PIECE = 65_536


def has_more_values(body: bytes, most: int) -> bool:
    """True if there are more than `most` commas and opening brackets outside of strings.

    No decoder makes more values of a text (keys aside) than it has of these, and one. Of a text that is
    not JSON, what stands before its first mistake is counted right.
    """
    if len(body) <= most or sum(map(body.count, (b",", b"[", b"{"))) <= most:
        return False
    # Most of them stand in strings where a request holds code. Without the escapes, each quote begins or
    # ends one; where nothing that counts is between two quotes, neither makes a difference.
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in body else body
    marks = plain.translate(None, _NEITHER_MARK_NOR_QUOTE).replace(b'""', b"")
    counted, quotes = 0, 0
    for start in range(0, len(marks), _PIECE):
        parts = marks[start : start + _PIECE].split(b'"')
        counted += sum(map(len, parts[quotes % 2 :: 2]))
        if counted > most:
            return True
        quotes += len(parts) - 1
    return False
