"""A plain client of the gateway: sees bytes, headers and broken bodies, as the SDK does not.

seen = await wire.create(model=model, input="hi", stream=True)     to its end
async with wire.open(model=model, input="hi") as stream:           while it runs
    await stream.until("response.output_text.delta")
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from yarl import URL

from tests.support.stream_rules import check_stream
from tests.support.transcripts import event_of

DEADLINE = 15.0
RESPONSES = "/v1/responses"
CONNECTORS = "/v1/connectors"
PROMPTS = "/v1/prompts"
FILES = "/v1/files"
UPLOADS = "/v1/uploads"
VECTOR_STORES = "/v1/vector_stores"

Event = dict[str, Any]


@dataclass
class Seen:
    """An answer as it came: `clean` says that its body ended as the protocol wants it."""

    status: int
    headers: Mapping[str, str]
    raw: bytearray = field(default_factory=bytearray)
    clean: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def error(self) -> Event:
        """The error of an error body, which has exactly the four fields of the API (rule R15)."""
        error: Event = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert self.headers["content-type"] == "application/json"
        return error

    @property
    def frames(self) -> list[bytes]:
        """The whole blocks so far: events, comments, `[DONE]`."""
        return [frame for frame in bytes(self.raw).split(b"\n\n")[:-1] if frame]

    @property
    def events(self) -> list[Event]:
        return [event_of(frame) for frame in self.frames if b"data: {" in frame]

    @property
    def logged(self) -> list[bytes]:
        """The whole events so far, without comments and `[DONE]`."""
        return [frame for frame in self.frames if b"data: {" in frame]

    @property
    def kinds(self) -> list[str]:
        return [str(event["type"]) for event in self.events]

    @property
    def comments(self) -> int:
        return sum(frame.startswith(b":") for frame in self.frames)

    @property
    def ending(self) -> Event:
        """The one terminal event, of a stream that keeps every rule of `stream_rules`."""
        assert self.status == 200, bytes(self.raw)
        assert self.clean, "the body broke off"
        return check_stream(bytes(self.raw))[-1]

    @property
    def response(self) -> Event:
        """The response object of the terminal event."""
        response: Event = self.ending["response"]
        return response

    @property
    def text(self) -> str:
        deltas = [e["delta"] for e in self.events if e["type"] == "response.output_text.delta"]
        return "".join(deltas)


class Reading(Seen):
    """A stream that is still being read."""

    content: aiohttp.StreamReader

    async def until(self, kind: str, number: int = 1, timeout: float = DEADLINE) -> Event:
        """Read on until so many events of a kind have come; return the last of them."""
        async with asyncio.timeout(timeout):
            while self.kinds.count(kind) < number:
                await self._more()
        return [event for event in self.events if event["type"] == kind][number - 1]

    async def until_events(self, number: int, timeout: float = DEADLINE) -> None:
        """Read on until so many events have come."""
        async with asyncio.timeout(timeout):
            while len(self.logged) < number:
                await self._more()

    async def until_comments(self, number: int, timeout: float = DEADLINE) -> None:
        """Read on until so many heartbeats have come."""
        async with asyncio.timeout(timeout):
            while self.comments < number:
                await self._more()

    async def rest(self, timeout: float = DEADLINE) -> None:
        """Read to the end, or to where it breaks."""
        async with asyncio.timeout(timeout):
            try:
                async for chunk in self.content.iter_any():
                    self.raw += chunk
                self.clean = True
            except (aiohttp.ClientError, ConnectionError):
                self.clean = False

    async def _more(self) -> None:
        chunk = await self.content.readany()
        assert chunk, f"the stream ended after {self.kinds}"
        self.raw += chunk


class Wire:
    """Requests to one base URL."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def create(self, timeout: float = DEADLINE, **body: Any) -> Seen:
        """Create a response and read it to its end; `hi` is the input if there is none."""
        async with self.open(**body) as stream:
            await stream.rest(timeout)
            return stream

    async def stream(self, model: str, timeout: float = DEADLINE, **body: Any) -> Seen:
        """The same, streamed."""
        return await self.create(timeout, model=model, stream=True, **body)

    @asynccontextmanager
    async def open(
        self, headers: Mapping[str, str] | None = None, **body: Any
    ) -> AsyncIterator[Reading]:
        """Send a create request; streamed unless the body says otherwise."""
        sent = {"input": "hi", "stream": True, **body}
        # As a file: aiohttp warns of large bodies given as bytes.
        data = io.BytesIO(json.dumps(sent).encode())
        said = {"content-type": "application/json", **(headers or {})}
        async with self.session.post(RESPONSES, data=data, headers=said) as answer:
            yield _reading(answer)

    @asynccontextmanager
    async def follow(self, response_id: str, after: int | None = None) -> AsyncIterator[Reading]:
        """Read the stream of a stored response, behind an event if its number is given."""
        path = f"{RESPONSES}/{response_id}?stream=true"
        if after is not None:
            path += f"&starting_after={after}"
        async with self.session.get(path) as answer:
            yield _reading(answer)

    async def resume(
        self, response_id: str, after: int | None = None, timeout: float = DEADLINE
    ) -> Seen:
        """The same, to its end."""
        async with self.follow(response_id, after) as stream:
            await stream.rest(timeout)
            return stream

    async def ask(self, method: str, path: str | URL, **sent: Any) -> Seen:
        """Send any request and read its whole answer; `sent` are arguments of aiohttp's."""
        async with self.session.request(method, path, **sent) as answer:
            reading = _reading(answer)
            await reading.rest()
            return reading

    async def get(self, response_id: str) -> Seen:
        """Retrieve a stored response."""
        return await self.ask("GET", f"{RESPONSES}/{response_id}")


def _reading(answer: aiohttp.ClientResponse) -> Reading:
    reading = Reading(answer.status, answer.headers)
    reading.content = answer.content
    return reading
