"""Holdfast itself in front of the server, in this process: what a client would get, and what it was made of.

Each turn runs through the engine as it runs in a worker, over a store in memory; beside it, what the server
really sent is kept, so that both can be looked at.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from engine import sse
from engine.answers import Answer, error_answer
from engine.api.mcp import McpTool
from engine.errors import EngineError, InvalidRequest
from engine.intake import Caller
from engine.ports import ModelAnswer, ModelClient, Told, ToolProvider
from engine.upstream.choice import Choice
from extproc.doctor.stream_faults import Event
from extproc.engine_parts import Engine
from extproc.settings import Settings
from storage.memory import MemoryBlobs, MemoryStore

_CALLER = Caller("doctor")
# More than any probe makes; what a runaway model sends beyond it is not kept.
_MOST_KEPT = 16 << 20
_NEVER = 86_400.0
# A run reads what follows the terminal event, and is over.
_LAST_SECONDS = 5.0


class Turn:
    """One turn: what the server sent (`status` is None where it was not reached), what a client got.

    `path` is where it was sent, `whole` is an answer that is no stream, `raw` the body of one that is.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        self.path = ""
        self.media_type = ""
        self.sent = bytearray()
        self.whole: Answer | None = None
        self.raw = bytearray()
        self.begun = asyncio.Event()
        """Set when the client has got a first piece of content."""

    @property
    def server_events(self) -> list[Event]:
        """The events that the server sent."""
        return _events(bytes(self.sent))

    @property
    def events(self) -> list[Event]:
        """The events that a client of Holdfast got."""
        return _events(bytes(self.raw))

    @property
    def response(self) -> dict[str, Any]:
        """The response object that a client of Holdfast got in the end; empty where it got none."""
        if self.whole is not None:
            return dict(json.loads(self.whole.body)) if self.whole.status == 200 else {}
        events = self.events
        return dict(events[-1].get("response") or {}) if events else {}

    @property
    def error(self) -> str | None:
        """The message of the error that a client of Holdfast got, if it got one."""
        if self.whole is not None and self.whole.status != 200:
            return str(json.loads(self.whole.body)["error"]["message"])
        failure = self.response.get("error")
        return None if failure is None else str(failure["message"])

    # -- engine.ports.Reply -----------------------------------------------------------------------

    def tell(self, told: Told) -> None:
        """Nobody accounts for a probe."""

    async def answer(self, answer: Answer) -> None:
        """Take a whole answer."""
        self.whole = answer

    async def open(self) -> None:
        """Take the head of a stream."""

    async def write(self, frames: bytes) -> None:
        """Take whole events."""
        self.raw += frames
        if b'.delta"' in frames:
            self.begun.set()

    async def end(self) -> None:
        """Take the end of a stream."""


class Rehearsal:
    """An engine of one probe's own, one turn at a time; its store is forgotten with it."""

    def __init__(self, model: ModelClient, choice: Choice) -> None:
        self._recorder = _Recorder(model)
        self._engine = Engine(
            MemoryStore(), MemoryBlobs(), self._recorder, _no_servers, _settings(), "doctor", choice
        )

    async def turn(self, turn: Turn | None = None, /, **body: Any) -> Turn:
        """Create a response, and wait for its end; errors are in the turn."""
        turn = turn if turn is not None else Turn()
        self._recorder.turn = turn
        try:
            await self._engine.endpoints.responses.create(
                _CALLER, msgspec.json.encode(body), "", turn
            )
        except EngineError as error:
            turn.whole = error_answer(error)
        except asyncio.CancelledError:
            await self._engine.live.drain(0)
            raise
        await self._engine.live.drain(_LAST_SECONDS)
        return turn


def _settings() -> Settings:
    """Return those of an engine whose client never leaves anything running."""
    sidecar: dict[str, Any] = {
        # A refusal shall be seen as one, however long the server takes over it.
        "open_after_seconds": _NEVER,
        "on_disconnect": "cancel",
    }
    return Settings(sidecar=sidecar)  # type: ignore[arg-type]


class _Recorder:
    """A model client that keeps what the server sends."""

    def __init__(self, model: ModelClient) -> None:
        self.turn = Turn()
        self._model = model

    async def call(self, path: str, body: bytes, headers: Mapping[str, str]) -> ModelAnswer:
        answer = await self._model.call(path, body, headers)
        self.turn.status = answer.status
        self.turn.path = path
        self.turn.media_type = answer.media_type
        return _Recorded(answer, self.turn)


class _Recorded:
    def __init__(self, answer: ModelAnswer, turn: Turn) -> None:
        self.status = answer.status
        self.media_type = answer.media_type
        self.retry_after = answer.retry_after
        self._answer = answer
        self._turn = turn

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self._answer.chunks():
            self._keep(chunk)
            yield chunk

    async def read(self, limit: int) -> bytes:
        body = await self._answer.read(limit)
        self._keep(body)
        return body

    async def finish(self) -> None:
        await self._answer.finish()

    def close(self) -> None:
        self._answer.close()

    def _keep(self, data: bytes) -> None:
        if len(self._turn.sent) < _MOST_KEPT:
            self._turn.sent += data


def _events(raw: bytes) -> list[Event]:
    found: list[Event] = []
    for event in sse.Decoder(_MOST_KEPT).feed(raw):
        try:
            read = json.loads(event.data)
        except ValueError:
            continue
        if isinstance(read, dict):
            found.append(read)
    return found


def _no_servers(_tool: McpTool, param: str, _tenant: str) -> ToolProvider:
    """The doctor asks for no tools of the gateway's."""
    raise InvalidRequest("The doctor runs no tools.", param=param)
