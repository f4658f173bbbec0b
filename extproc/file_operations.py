"""Operations whose request or answer is a file: neither is ever whole in memory (rule E6)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from engine.errors import EngineError
from engine.intake import Caller
from engine.ports import BodyReply, Reply
from extproc.forms import read_form
from extproc.messages import Head
from extproc.operations import Endpoints
from extproc.routes import Match, Operation

_log = logging.getLogger(__name__)

_LEFT_BYTES, _LEFT_SECONDS = 1 << 20, 1.0


async def perform_form(
    endpoints: Endpoints,
    match: Match,
    caller: Caller,
    head: Head,
    pieces: AsyncIterator[bytes],
    reply: Reply,
) -> None:
    """Carry out an operation that takes a form, of which `pieces` are the body; raises EngineError."""
    try:
        form = read_form(head, pieces)
        if match.operation is Operation.CREATE_FILE:
            answer = await endpoints.files.create(caller, form, match.query)
        else:
            answer = await endpoints.uploads.add_part(caller, match.id, form, match.query)
    except EngineError:
        if not head.ended:
            await _read_left(pieces)
        raise
    await reply.answer(answer)


async def _read_left(pieces: AsyncIterator[bytes]) -> None:
    """Read on for a while before a refusal.

    An answer to a request that is still arriving closes its connection. Of a small form that would be chance,
    and could tell what is another's from what is nobody's (rule X1).
    """
    left = _LEFT_BYTES
    try:
        async with asyncio.timeout(_LEFT_SECONDS):
            async for piece in pieces:
                left -= len(piece)
                if left <= 0:
                    return
    except (TimeoutError, EngineError):
        pass


async def perform_content(
    endpoints: Endpoints, match: Match, caller: Caller, reply: BodyReply
) -> None:
    """Send a file's content.

    Raises EngineError where nothing was sent, and asyncio.CancelledError where an answer that has begun
    cannot be finished: its client must not take it for whole.
    """
    begun = _Begun(reply)
    try:
        await endpoints.files.content(caller, match.id, match.query, begun)
    except Exception as error:
        if not begun.begun:
            raise
        _log.error("a file's content broke off: %s", error)
        raise asyncio.CancelledError("the answer cannot be finished") from error


class _Begun:
    """A reply that remembers whether its answer was begun."""

    def __init__(self, reply: BodyReply) -> None:
        self._reply = reply
        self.begun = False
        self.write = reply.write
        self.end = reply.end

    async def begin(self, status: int, headers: dict[str, str]) -> None:
        """Start the answer."""
        self.begun = True
        await self._reply.begin(status, headers)
