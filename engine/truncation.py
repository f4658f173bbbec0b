"""`truncation: auto`: the oldest rounds of a conversation are left out where it is longer than the context.

Tokens are counted by the model server itself (vLLM's `/tokenize`), with its own template and tools.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from engine.api.json import encode
from engine.api.request import CreateRequest
from engine.context.rounds import in_rounds
from engine.errors import InvalidRequest, UpstreamFailed
from engine.ports import ModelClient
from engine.upstream.dialect import ChatDialect

_PATH = "/tokenize"
# Of the context, where the request does not say how long its answer may be.
_ANSWER_SHARE = 16
# A count comes with all the tokens.
_MOST_READ = 32 << 20
_SECONDS = 10.0


class _Count(msgspec.Struct):
    count: int
    max_model_len: int


class _Messages(msgspec.Struct, omit_defaults=True):
    model: str
    messages: msgspec.Raw
    tools: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Truncation:
    """Makes conversations fit that may be cut."""

    def __init__(self, model: ModelClient) -> None:
        self._model = model

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
    ) -> _Count:
        chat = msgspec.json.decode(ChatDialect().encode(request, items), type=_Messages)
        try:
            async with asyncio.timeout(_SECONDS):
                told = await self._told(encode(chat), headers)
            return msgspec.json.decode(told, type=_Count)
        except TimeoutError:
            raise UpstreamFailed("The model server took too long to count tokens.") from None
        except msgspec.DecodeError:
            raise InvalidRequest(
                "Invalid 'truncation': 'auto' needs a model server that counts the tokens of messages "
                f"(POST {_PATH}, as vLLM does), and this one does not.",
                param="truncation",
                code="unsupported_value",
            ) from None

    async def _told(self, body: bytes, headers: Mapping[str, str]) -> bytes:
        """Return what the server says; nothing where it refuses."""
        answer = await self._model.call(_PATH, body, headers)
        try:
            return await answer.read(_MOST_READ) if answer.status == 200 else b""
        finally:
            answer.close()


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


def _too_long(told: _Count, most: int) -> InvalidRequest:
    return InvalidRequest(
        f"The newest input alone has {told.count} tokens; the model's context of {told.max_model_len} "
        f"has room for {most} beside the answer.",
        param="input",
        code="context_length_exceeded",
    )
