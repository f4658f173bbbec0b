"""`truncation: auto`: the oldest rounds of a conversation are left out where it is longer than the context.

Tokens are counted by the model server itself (`engine.counting`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.api.request import CreateRequest
from engine.context.rounds import in_rounds
from engine.counting import Count, Counting, cannot_count
from engine.errors import InvalidRequest

# Of the context, where the request does not say how long its answer may be.
_ANSWER_SHARE = 16


class Truncation:
    """Makes conversations fit that may be cut."""

    def __init__(self, counting: Counting) -> None:
        self._counting = counting

    async def fitting(
        self, request: CreateRequest, replay: list[bytes], headers: Mapping[str, str]
    ) -> list[bytes]:
        """Return what of the items fits into the model's context, unless the request wants none left out.

        The newest round always stays. Raises InvalidRequest, where the server does not count tokens or
        the newest round alone is too long, and UpstreamFailed.
        """
        if request.values.get("truncation") != "auto":
            return replay
        rounds, dropped, kept = in_rounds(replay), 0, replay
        while True:
            told = await self._count(request, kept, headers)
            most = told.max_model_len - _answer_tokens(request, told.max_model_len)
            if told.count <= most:
                return kept
            if dropped >= len(rounds.rounds) - 1:
                raise _too_long(told, most)
            dropped += _enough(rounds.rounds[dropped:], 1 - most / told.count)
            kept = rounds.without(dropped)

    async def _count(
        self, request: CreateRequest, items: list[bytes], headers: Mapping[str, str]
    ) -> Count:
        told = await self._counting.counted(request, items, headers)
        if told is None or not told.max_model_len:
            raise cannot_count("truncation", "Invalid 'truncation': 'auto'")
        return told


def _answer_tokens(request: CreateRequest, context: int) -> int:
    asked = request.values.get("max_output_tokens")
    return asked if isinstance(asked, int) else context // _ANSWER_SHARE


def _enough(rounds: Sequence[list[bytes]], share: float) -> int:
    """Return how many of the rounds, but never all, make up this share of their bytes: one at least."""
    sizes = [sum(map(len, one)) for one in rounds]
    goal, count = sum(sizes) * share, 0
    while goal > 0 and count < len(rounds) - 1:
        goal -= sizes[count]
        count += 1
    return max(1, count)


def _too_long(told: Count, most: int) -> InvalidRequest:
    return InvalidRequest(
        f"The newest input alone has {told.count} tokens; the model's context of {told.max_model_len} "
        f"has room for {most} beside the answer.",
        param="input",
        code="context_length_exceeded",
    )
