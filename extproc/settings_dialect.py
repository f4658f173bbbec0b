"""The settings of how a model server is asked: in which of the two APIs, and as which kind of server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

ServerName = Literal[
    "auto",
    "vllm",
    "sglang",
    "llamacpp",
    "ollama",
    "transformers",
    "lmstudio",
    "openrouter",
    "unknown",
]
_DIALECTS = ("responses", "chat", "auto")


def parse_dialects(entries: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Return `PATTERN=DIALECT` entries as pairs; raises ValueError."""
    pairs = []
    for entry in entries:
        pattern, equals, name = entry.rpartition("=")
        if not (pattern and equals) or name not in _DIALECTS:
            raise ValueError(f"must each be PATTERN=DIALECT, with one of {', '.join(_DIALECTS)}")
        pairs.append((pattern, name))
    return tuple(pairs)
