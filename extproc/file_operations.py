"""Operations whose request or answer is a file: neither is ever whole in memory (rule E6)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Protocol

from engine.intake import Caller
from engine.ports import BodyReply, Reply
from extproc.forms import read_form
from extproc.messages import Head
from extproc.operations import Endpoints
from extproc.routes import Match, Operation

_log = logging.getLogger(__name__)

STREAMED = frozenset((Operation.CREATE_FILE, Operation.ADD_UPLOAD_PART, Operation.FILE_CONTENT))


class FileReply(Reply, BodyReply, Protocol):
    """A reply that can be either."""


async def perform_streamed(
    endpoints: Endpoints,
    match: Match,
    caller: Caller,
    head: Head,
    pieces: AsyncIterator[bytes],
    reply: FileReply,
) -> None:
    """Carry out one of `STREAMED`; `pieces` are the request's body.

    Raises EngineError where nothing was sent, and asyncio.CancelledError where an answer that has begun
    cannot be finished: its client must not take it for whole.
    """
    if match.operation is Operation.CREATE_FILE:
        form = read_form(head, pieces)
        await reply.answer(await endpoints.files.create(caller, form, match.query))
    elif match.operation is Operation.ADD_UPLOAD_PART:
        form = read_form(head, pieces)
        added = await endpoints.uploads.add_part(caller, match.id, form, match.query)
        await reply.answer(added)
    else:
        await _content(endpoints, match, caller, _Begun(reply))


async def _content(endpoints: Endpoints, match: Match, caller: Caller, reply: _Begun) -> None:
    try:
        await endpoints.files.content(caller, match.id, match.query, reply)
    except Exception as error:
        if not reply.begun:
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
