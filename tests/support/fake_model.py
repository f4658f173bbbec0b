"""A model client that plays a script in the process: `engine.ports.ModelClient` without a network.

FakeModel(*frames)                        a stream
FakeModel(Hang(gate), *frames)            silence before the status, until `gate` is set
FakeModel(*frames[:4], Break())           the connection breaks behind the fourth event
FakeModel(Head(429, retry_after=3), body) a refusal
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from engine.errors import UpstreamFailed
from engine.ports import ModelAnswer
from tests.support.scripts import RESPONSES, Asked, Stream

STREAM = "text/event-stream"
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Head:
    """The status; where a script has none before its first bytes, it is 200 and a stream."""

    status: int = 200
    media_type: str = JSON
    retry_after: int | None = None


@dataclass(frozen=True, slots=True)
class Hang:
    """Silence until the test sets the event."""

    until: asyncio.Event


@dataclass(frozen=True, slots=True)
class Break:
    """The connection breaks."""

    error: Exception | None = None


Step = bytes | Head | Hang | Break


def frames_of(stream: Stream, model: str = "m", path: str = RESPONSES) -> list[bytes]:
    """Return the writes of a stream of `tests.support.replies`."""
    body = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    return list(stream.make(Asked(path, body, "seed")))


class FakeModel:
    """Plays `turns`, one a call, then the same steps to every call.

    `aborted` is set when a call is given up before its end.
    """

    def __init__(self, *steps: Step, turns: Sequence[Sequence[Step]] = ()) -> None:
        self.steps = steps
        self._turns = deque(turns)
        self.paths: list[str] = []
        self.bodies: list[bytes] = []
        self.headers: list[Mapping[str, str]] = []
        self.called = asyncio.Event()
        self.aborted = asyncio.Event()
        self.silent = asyncio.Event()
        """Set when it came to a `Hang`."""

    async def call(self, path: str, body: bytes, headers: Mapping[str, str]) -> ModelAnswer:
        """Return when the script has come to its status."""
        self.paths.append(path)
        self.bodies.append(body)
        self.headers.append(headers)
        self.called.set()
        steps = deque(self._turns.popleft() if self._turns else self.steps)
        try:
            while steps and isinstance(steps[0], Hang | Break):
                self.silent.set()
                await _wait(steps.popleft())
        except asyncio.CancelledError:
            self.aborted.set()
            raise
        head = steps.popleft() if steps and isinstance(steps[0], Head) else Head(200, STREAM)
        assert isinstance(head, Head)
        return _Answer(self, head, steps)


class _Answer:
    def __init__(self, model: FakeModel, head: Head, steps: deque[Step]) -> None:
        self.status = head.status
        self.media_type = head.media_type
        self.retry_after = head.retry_after
        self._model = model
        self._steps = steps
        self._silent = False

    async def chunks(self) -> AsyncIterator[bytes]:
        while self._steps:
            step = self._steps.popleft()
            if isinstance(step, bytes):
                yield step
            else:
                self._silent = isinstance(step, Hang)
                if self._silent:
                    self._model.silent.set()
                await _wait(step)
                self._silent = False

    async def read(self, limit: int) -> bytes:
        body = b""
        async for chunk in self.chunks():
            body += chunk
            if len(body) >= limit:
                break
        return body[:limit]

    async def finish(self) -> None:
        self.close()

    def close(self) -> None:
        if self._steps or self._silent:
            self._model.aborted.set()


async def _wait(step: Step) -> None:
    match step:
        case Hang(until):
            await until.wait()
        case Break(error):
            broken = "The connection to the model server broke off."
            raise error or UpstreamFailed(broken, passing=True)
        case _:
            raise AssertionError(f"{step!r} in the wrong place")
