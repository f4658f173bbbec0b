"""The client's side of an exchange as the engine sees it: `engine.ports.Reply`, kept for a test."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from engine.answers import Answer
from engine.ports import Told


class FakeReply:
    """Keeps what was sent. `slow` holds each write until it is set; `gone` breaks each write."""

    def __init__(self, slow: asyncio.Event | None = None) -> None:
        self.whole: Answer | None = None
        self.opened = False
        self.opening = asyncio.Event()
        self.writes: list[bytes] = []
        self.ended = False
        self.gone: Exception | None = None
        self.told: Told | None = None
        self._slow = slow
        self._news = asyncio.Event()

    @property
    def raw(self) -> bytes:
        """The body of the stream so far."""
        return b"".join(self.writes)

    @property
    def json(self) -> Any:
        """The body of the whole answer."""
        assert self.whole is not None
        return json.loads(self.whole.body)

    def tell(self, told: Told) -> None:
        """Take what is told of the response."""
        self.told = told

    async def answer(self, answer: Answer) -> None:
        """Take a whole answer."""
        assert self.whole is None
        assert not self.opened
        self.whole = answer

    async def open(self) -> None:
        """Take the head of a stream."""
        assert self.whole is None
        assert not self.opened
        self.opened = True
        self.opening.set()

    async def write(self, frames: bytes) -> None:
        """Take a piece of the stream: whole events (rule R11)."""
        assert self.opened
        assert not self.ended
        assert frames.endswith(b"\n\n")
        if self._slow is not None:
            await self._slow.wait()
        if self.gone is not None:
            raise self.gone
        self.writes.append(frames)
        self._news.set()

    async def end(self) -> None:
        """Take the end of the stream."""
        assert self.opened
        assert not self.ended
        self.ended = True

    async def until(self, part: bytes, times: int = 1) -> None:
        """Wait until `part` was sent so often."""
        async with asyncio.timeout(5):
            while self.raw.count(part) < times:
                self._news.clear()
                await self._news.wait()
