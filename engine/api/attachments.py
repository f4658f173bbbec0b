"""Files in input items: which parts have them, and what the model is sent in their place (rule M8).

A model server reads text and images. A file that is text, or has text, becomes text under its name; an
image becomes a data URL. What neither is, is refused, and not left out (rule H1). Pure: `engine.attachments`
fetches and has documents read.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping

from engine.api import checks
from engine.errors import InvalidRequest

FILE_KEYS = ("file_id", "file_data", "file_url")
_PART_KEYS = ("type", "detail", "filename", "prompt_cache_breakpoint", *FILE_KEYS)
_FILENAME = checks.matching(r"[^\x00-\x1f]{1,255}")
_FILE_DETAIL = checks.one_of("auto", "low", "high")
_URL = checks.matching(r"https?://.{1,8192}")
_DATA_URL = re.compile(r"data:[^,;]*(;[^,;]*)*;base64,")
_IMAGES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
)
# Documents that may pass for text: some are ASCII throughout.
_DOCUMENTS = (b"%PDF-", b"PK\x03\x04", b"{\\rtf")

Part = Mapping[str, object]


def file_part(part: dict[str, object], param: str) -> dict[str, object]:
    """Check an `input_file`; returns it as it is shown. Raises InvalidRequest."""
    checks.only_keys(part, _PART_KEYS, param)
    given = [name for name in FILE_KEYS if part.get(name) is not None]
    if len(given) != 1:
        raise InvalidRequest(
            f"'{param}' must have exactly one of {', '.join(FILE_KEYS)}.",
            param=param,
            code="invalid_value" if given else "missing_required_parameter",
        )
    [source] = given
    value = checks.name(part[source], f"{param}.{source}")
    if source == "file_url":
        _URL(value, f"{param}.{source}")
    shown: dict[str, object] = {"type": "input_file", source: value}
    if part.get("filename") is not None:
        shown["filename"] = _FILENAME(part["filename"], f"{param}.filename")
    if part.get("detail") is not None:
        # How pages are drawn; text has none.
        shown["detail"] = _FILE_DETAIL(part["detail"], f"{param}.detail")
    return shown


def holds_files(item: Part) -> bool:
    """True if something of it has to be fetched or read before a model can be sent it."""
    return any(True for _ in places_of_files(item))


def places_of_files(item: Part) -> Iterator[tuple[str, int, Part]]:
    """Yield each part that is a file: its list (`content`, `output`), its place there, and the part."""
    for name in ("content", "output"):
        parts = item.get(name)
        for index, part in enumerate(parts if isinstance(parts, list) else ()):
            if part["type"] == "input_file" or "file_id" in part:
                yield name, index, part


def decoded(data: str, param: str) -> bytes:
    """Return what `file_data` holds: base64, with or without the head of a data URL."""
    head = _DATA_URL.match(data)
    body = data[head.end() :] if head else data
    try:
        # Browsers' own decoder takes it without its padding.
        return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise checks.wrong_value(data, param, "base64") from None


def plain_text(data: bytes) -> str | None:
    """Return a file that is text in UTF-8; None for every other."""
    if data.startswith(_DOCUMENTS) or b"\0" in data:
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def as_text(text: str, filename: str) -> dict[str, object]:
    """Return the part that a model is sent for a file with this text."""
    return {"type": "input_text", "text": f"File: {filename}\n\n{text}"}


def as_image(data: bytes, detail: object, param: str) -> dict[str, object]:
    """Return the part that a model is sent for an image; raises InvalidRequest for what is none."""
    kind = _image_type(data)
    if kind is None:
        raise InvalidRequest(
            "The file is not an image that can be used: PNG, JPEG, GIF or WebP.",
            param=param,
            code="unsupported_file",
        )
    url = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    return {"type": "input_image", "image_url": url, "detail": detail}


def _image_type(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _IMAGES if data.startswith(magic)), None)
