"""Texts as every model takes them."""

from __future__ import annotations


def well_formed(text: str) -> str:
    """Return the text with `?` for each half of a character, which JSON can bring and UTF-8 cannot say."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
