"""Envoy's side of one ext_proc stream in the process: a MessageStream that keeps Envoy's order.

envoy = FakeEnvoy(head("POST", "/v1/responses"), body(b"{"), body(b"}", end=True))
await exchanges.serve(envoy)
envoy.status, envoy.json          a whole answer
envoy.status, envoy.stream        a streamed one

As Envoy does in relay mode, it sends the request without waiting for answers, takes one whole or one
streamed answer, refuses everything out of order, and ends the stream behind the answer.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from typing import Any

from extproc.pb.ext_proc_pb2 import (
    HeaderMap,
    ProcessingMode,
    ProcessingRequest,
    ProcessingResponse,
)

FULL_DUPLEX = ProcessingMode.FULL_DUPLEX_STREAMED
JSON = {"content-type": "application/json"}


def head(
    method: str,
    target: str,
    headers: Mapping[str, str] = JSON,
    *,
    end: bool = False,
    mode: ProcessingMode.BodySendMode = FULL_DUPLEX,
) -> ProcessingRequest:
    """Return the first message of a request; `end`: it has no body."""
    message = ProcessingRequest()
    given = {":method": method, ":path": target, ":authority": "gateway", **headers}
    _fill(message.request_headers.headers, given)
    message.request_headers.end_of_stream = end
    message.protocol_config.request_body_mode = mode
    return message


def body(data: bytes, *, end: bool = False) -> ProcessingRequest:
    """Return a piece of the request's body."""
    message = ProcessingRequest()
    message.request_body.body = data
    message.request_body.end_of_stream = end
    return message


def trailers() -> ProcessingRequest:
    """Return the request's trailers, which end its body."""
    message = ProcessingRequest()
    _fill(message.request_trailers.trailers, {"x-checksum": "1"})
    return message


def response_head(status: int) -> ProcessingRequest:
    """Return the head of a response that is not ours: Envoy's own reply."""
    message = ProcessingRequest()
    _fill(message.response_headers.headers, {":status": str(status)})
    return message


def response_body(data: bytes, *, end: bool) -> ProcessingRequest:
    """Return a piece of such a response's body."""
    message = ProcessingRequest()
    message.response_body.body = data
    message.response_body.end_of_stream = end
    return message


def response_trailers() -> ProcessingRequest:
    """Return the trailers of such a response."""
    message = ProcessingRequest()
    message.response_trailers.SetInParent()
    return message


class FakeEnvoy:
    """Plays `messages`. `patient`: the client sends nothing more and stays; else the stream ends."""

    def __init__(self, *messages: ProcessingRequest, patient: bool = False) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.stream = b""
        self.whole = b""
        self.passed: list[ProcessingResponse] = []
        """Answers to messages of a response that is not ours."""
        self.ended = False
        self.waiting = asyncio.Event()
        """Set when all messages were read and more is wanted."""
        self.news = asyncio.Event()
        self.slow: asyncio.Event | None = None
        self._messages = deque(messages)
        self._patient = patient

    @property
    def json(self) -> Any:
        """The body of a whole answer."""
        assert self.ended
        return json.loads(self.whole)

    @property
    def error(self) -> tuple[int | None, str | None]:
        """Status and code of an error, which has exactly the four fields (rule R15)."""
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert self.headers["content-type"] == "application/json"
        return self.status, error["code"]

    async def read(self) -> ProcessingRequest | None:
        """Give the next message; None at the end."""
        await asyncio.sleep(0)
        if self._messages:
            return self._messages.popleft()
        self.waiting.set()
        if self._patient and not self.ended:
            await asyncio.Event().wait()
        return None

    async def write(self, message: ProcessingResponse) -> None:
        """Take a message; AssertionError where Envoy would reset the stream."""
        if self.slow is not None:
            await self.slow.wait()
        await asyncio.sleep(0)
        assert not self.ended, f"a message behind the end: {message}"
        kind = message.WhichOneof("response")
        if kind == "immediate_response":
            self._immediate(message)
        elif kind == "streamed_immediate_response":
            self._streamed(message)
        else:
            self._other(message)
        self.news.set()

    async def until(self, part: bytes) -> None:
        """Wait until `part` was streamed."""
        async with asyncio.timeout(5):
            while part not in self.stream:
                self.news.clear()
                await self.news.wait()

    def _other(self, message: ProcessingResponse) -> None:
        assert self.status is None
        self.passed.append(message)

    def _immediate(self, message: ProcessingResponse) -> None:
        assert self.status is None, "a whole answer inside a streamed one"
        answer = message.immediate_response
        self.status = answer.status.code
        for option in answer.headers.set_headers:
            self.headers[option.header.key] = option.header.raw_value.decode()
        self.whole = answer.body
        self.ended = True

    def _streamed(self, message: ProcessingResponse) -> None:
        answer = message.streamed_immediate_response
        if answer.WhichOneof("response") == "headers_response":
            assert self.status is None, "two heads"
            given = answer.headers_response.headers.headers
            self.headers = {header.key: header.raw_value.decode() for header in given}
            self.status = int(self.headers.pop(":status"))
            return
        assert self.status is not None, "a body without a head"
        self.stream += answer.body_response.body
        self.ended = answer.body_response.end_of_stream


def _fill(header_map: HeaderMap, headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        header = header_map.headers.add()
        header.key = name
        header.raw_value = value.encode()
