"""A server's log probabilities in the API's form: every entry with all its keys, in one line (rule R11)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from engine.api.json import encode

NONE = b"[]"


def token_logprobs(raw: msgspec.Raw) -> bytes:
    """Return a JSON array of entries; a server's may hold line ends, lack keys, or be no array."""
    return encode(list(_entries(msgspec.json.decode(raw))))


def chat_logprobs(raw: msgspec.Raw) -> bytes:
    """Return the same of a chat choice's `logprobs`, which has the array under `content`."""
    value = msgspec.json.decode(raw)
    return encode(list(_entries(value.get("content") if isinstance(value, dict) else None)))


def _entries(value: object) -> Iterable[dict[str, object]]:
    for entry in value if isinstance(value, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("token"), str):
            yield {**_entry(entry), "top_logprobs": _top(entry.get("top_logprobs"))}


def _top(value: object) -> list[dict[str, object]]:
    found = value if isinstance(value, list) else []
    return [_entry(top) for top in found if isinstance(top, dict)]


def _entry(entry: dict[str, object]) -> dict[str, object]:
    """Return token, logprob and bytes; the API requires the bytes, which vLLM's deltas lack."""
    token = str(entry.get("token", ""))
    given = entry.get("bytes")
    return {
        "token": token,
        "logprob": entry.get("logprob", 0.0),
        "bytes": given if isinstance(given, list) else list(token.encode()),
    }
