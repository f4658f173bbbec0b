"""A server of OpenAI's `/v1/embeddings` that does what a test says; its vectors are of its own making.

    async with EmbeddingsServer() as server:
        server.script(Fault(429, retry_after=1), Fault(500), Cut())     one for each request, then well again
        server.longest = 40                                             words that it takes of a text

Vectors are made of the words of a text, so that texts with the same words are near each other.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
import ssl
import struct
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web

PATH = "/v1/embeddings"
Json = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """A refusal in OpenAI's shape."""

    status: int
    message: str = "Something is wrong here."
    retry_after: int | None = None


@dataclass(frozen=True)
class Cut:
    """The connection breaks without an answer."""


@dataclass(frozen=True)
class Slow:
    """Nothing comes before `until` is set."""

    until: asyncio.Event


@dataclass(frozen=True)
class Changed:
    """A right answer, changed by `change` before it is sent."""

    change: Callable[[Json], object]


Step = Fault | Cut | Slow | Changed


@dataclass(frozen=True)
class Received:
    """One request as it arrived."""

    headers: Mapping[str, str]
    json: Json


@dataclass
class EmbeddingsServer:
    """Serves on 127.0.0.1 for the time of an `async with`, below the path `base`."""

    dimensions: int = 32
    knows_base64: bool = True
    """Else `encoding_format: base64` is refused."""
    floats_alone: bool = False
    """Lists of numbers, whatever is asked for."""
    longest: int | None = None
    """Words that are taken of a text; a longer one is refused, with its batch."""
    base: str = ""
    tls: ssl.SSLContext | None = None
    url: str = ""
    requests: list[Received] = field(default_factory=list)
    _steps: deque[Step] = field(default_factory=deque)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post(self.base + PATH, self._serve)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self.tls).start()
        scheme = "http" if self.tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._runner.addresses[0][1]}{self.base}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()

    def script(self, *steps: Step) -> None:
        """Do this, one for each of the next requests."""
        self._steps.extend(steps)

    @property
    def inputs(self) -> list[list[str]]:
        """The texts of each request."""
        return [request.json["input"] for request in self.requests]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        self.requests.append(Received(request.headers, asked))
        step = self._steps.popleft() if self._steps else None
        match step:
            case Fault(status, message, retry_after):
                return _refusal(status, message, retry_after)
            case Cut():
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            case Slow(until):
                await until.wait()
            case _:
                pass
        return self._answer(asked, step)

    def _answer(self, asked: Json, step: Step | None) -> web.Response:
        if asked["encoding_format"] == "base64" and not self.knows_base64:
            return _refusal(400, "Unknown encoding_format: base64")
        counts = [len(text.split()) for text in asked["input"]]
        if self.longest is not None and max(counts) > self.longest:
            return _refusal(
                400,
                f"This model's maximum context length is {self.longest} tokens. However, you requested "
                f"{max(counts)} tokens in the input for embedding generation. Please reduce the length of "
                "the input.",
            )
        answer = self._vectors(asked)
        if isinstance(step, Changed):
            step.change(answer)
        # Python's own JSON, which writes NaN, as servers in Python do.
        return web.Response(text=json.dumps(answer), content_type="application/json")

    def _vectors(self, asked: Json) -> Json:
        dimensions = asked.get("dimensions", self.dimensions)
        vectors = [words(text, dimensions) for text in asked["input"]]
        as_text = asked["encoding_format"] == "base64" and not self.floats_alone
        return {
            "object": "list",
            "model": asked["model"],
            "data": [
                {
                    "object": "embedding",
                    "index": place,
                    "embedding": packed(vector) if as_text else vector,
                }
                for place, vector in enumerate(vectors)
            ],
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        }


def words(text: str, dimensions: int) -> list[float]:
    """Return a vector of three times unit length, made of the words of a text; no text has a zero one."""
    vector = [0.0] * dimensions
    vector[0] = 0.1
    for word in text.lower().split():
        digest = hashlib.sha256(word.encode()).digest()
        vector[int.from_bytes(digest[:4]) % dimensions] += 1.0 if digest[4] % 2 else -1.0
    length = math.hypot(*vector) / 3
    return [value / length for value in vector]


def packed(vector: list[float]) -> str:
    """Return numbers as `encoding_format: base64` has them."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _refusal(status: int, message: str, retry_after: int | None = None) -> web.Response:
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return web.json_response({"error": error}, status=status, headers=headers)
