"""Log probabilities that are made up, but shaped as a model server shapes them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def entries(
    tokens: Iterable[str], alternatives: int | None, *, with_bytes: bool = False
) -> list[dict[str, Any]]:
    """One entry per token with so many alternatives; none where logprobs were not asked for."""
    if alternatives is None:
        return []
    return [
        {
            **_entry(token, -0.1, with_bytes),
            "top_logprobs": list(_top(token, alternatives, with_bytes)),
        }
        for token in tokens
    ]


def _top(token: str, alternatives: int, with_bytes: bool) -> Iterable[dict[str, Any]]:
    for rank in range(alternatives):
        # The most likely alternative is the token itself: the demo decodes greedily.
        other = token if rank == 0 else f" alt{rank}"
        yield _entry(other, -0.1 if rank == 0 else -2.0 - rank, with_bytes)


def _entry(token: str, logprob: float, with_bytes: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"token": token, "logprob": logprob}
    if with_bytes:
        entry["bytes"] = list(token.encode())
    return entry
