"""Envoy's side of an exchange whose request travels on: a FakeEnvoy with a model server behind it.

envoy = InlineEnvoy(model, head("POST", "/v1/responses"), body(b"{}", end=True))
await exchanges.serve(envoy)
envoy.turn, envoy.turn_body       what the model server was sent
envoy.status, envoy.stream        as for FakeEnvoy
envoy.cut                         the client's stream broke off

It refuses what Envoy 1.40 resets a stream for: a part of the answer's body before the model server's first,
a second head, anything out of order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from engine.errors import UpstreamFailed
from engine.ports import ModelAnswer
from extproc.pb.ext_proc_pb2 import ProcessingRequest, ProcessingResponse
from tests.support.fake_envoy import (
    FULL_DUPLEX,
    FakeEnvoy,
    response_body,
    response_head,
    response_trailers,
)
from tests.support.fake_model import FakeModel

_UNAVAILABLE = b'{"error":{"message":"The model server did not answer."}}'


class InlineEnvoy(FakeEnvoy):
    """Plays `messages`, then what `model` answers to the rewritten request.

    `answered` are headers of that answer beside its content type. `empty`: it ends with its head.
    `trailers`: it ends with trailers.
    """

    def __init__(
        self,
        model: FakeModel,
        *messages: ProcessingRequest,
        answered: Mapping[str, str] | None = None,
        empty: bool = False,
        trailers: bool = False,
    ) -> None:
        super().__init__(*map(_inline, messages), patient=True)
        self.turn: dict[str, str] | None = None
        self.turn_body = b""
        self.cut = False
        self.aborted = False
        self.headless = False
        """Set by a test in which the route keeps the answer's head to itself."""
        self.passes = False
        """Set by a test in which the answer is Envoy's own: what passes is kept."""
        self.coming: asyncio.Queue[ProcessingRequest | None] = asyncio.Queue()
        self._answered = answered or {}
        self._empty = empty
        self._trailers = trailers
        self._upstream = model
        self._first = messages[0]
        self._travelled = False
        self._came: dict[str, str] | None = None
        self._body_came = False
        self._working: asyncio.Task[None] | None = None

    async def read(self) -> ProcessingRequest | None:
        """Give the next message; None at the end."""
        await asyncio.sleep(0)
        if self._messages:
            return self._messages.popleft()
        self.waiting.set()
        return await self.coming.get()

    def leave(self) -> None:
        """Let the client go: Envoy ends the stream and gives the model server up."""
        self.cut = True
        self._end()

    def _other(self, message: ProcessingResponse) -> None:
        if self.passes:
            super()._other(message)
            return
        match message.WhichOneof("response"):
            case "request_headers":
                assert self.turn is None
                self.turn = _mutated(_headers(self._first.request_headers), message)
            case "request_body":
                assert self.turn is not None
                assert not self._travelled, "a body behind its end"
                piece = message.request_body.response.body_mutation.streamed_response
                self.turn_body += piece.body
                if piece.end_of_stream:
                    self._travel()
            case "response_headers":
                assert self._came is not None, "a head before there is one"
                assert self.status is None, "two heads"
                self.headers = _mutated(self._came, message)
                self.status = int(self.headers.pop(":status"))
            case "response_body":
                assert self.status is not None
                assert self._body_came, "a body before there is one: Envoy resets the stream"
                piece = message.response_body.response.body_mutation.streamed_response
                self.stream += piece.body
                self.ended = piece.end_of_stream
            case "response_trailers":
                assert self._trailers
                self.ended = True
            case kind:
                raise AssertionError(f"{kind} is not to be sent inline")

    async def write(self, message: ProcessingResponse) -> None:
        """Take a message; AssertionError where Envoy would reset the stream."""
        await super().write(message)
        if self.ended:
            self._end()

    def _travel(self) -> None:
        assert not self._travelled
        self._travelled = True
        self._working = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        assert self.turn is not None
        try:
            answer = await self._upstream.call(self.turn[":path"], self.turn_body, self.turn)
        except UpstreamFailed:
            self._head(503, {"content-type": "application/json"}, end=False)
            self._body(_UNAVAILABLE, end=True)
            return
        headers = {"content-type": answer.media_type, **self._answered}
        if answer.retry_after is not None:
            headers["retry-after"] = str(answer.retry_after)
        self._head(answer.status, headers, end=self._empty)
        if self._empty:
            return
        try:
            await self._relay(answer)
        except UpstreamFailed:
            self.leave()

    async def _relay(self, answer: ModelAnswer) -> None:
        async for chunk in answer.chunks():
            self._body(chunk, end=False)
            await asyncio.sleep(0)
        if self._trailers:
            self.coming.put_nowait(response_trailers())
        else:
            self._body(b"", end=True)

    def _head(self, status: int, headers: Mapping[str, str], *, end: bool) -> None:
        message = response_head(status)
        for name, value in headers.items():
            header = message.response_headers.headers.headers.add()
            header.key, header.raw_value = name, value.encode()
        message.response_headers.end_of_stream = end
        self._came = {":status": str(status), **headers}
        if not self.headless:
            self.coming.put_nowait(message)

    def _body(self, data: bytes, *, end: bool) -> None:
        self._body_came = True
        self.coming.put_nowait(response_body(data, end=end))

    def _end(self) -> None:
        self.coming.put_nowait(None)
        if self._working is not None and not self._working.done():
            self.aborted = True
            self._working.cancel()


def _inline(message: ProcessingRequest) -> ProcessingRequest:
    given = ProcessingRequest()
    given.CopyFrom(message)
    if given.HasField("protocol_config"):
        given.protocol_config.response_body_mode = FULL_DUPLEX
    return given


def _headers(head: object) -> dict[str, str]:
    return {h.key: h.raw_value.decode() for h in head.headers.headers}  # type: ignore[attr-defined]


def _mutated(came: Mapping[str, str], message: ProcessingResponse) -> dict[str, str]:
    kind = message.WhichOneof("response")
    assert kind is not None
    mutation = getattr(message, kind).response.header_mutation
    left = {name: value for name, value in came.items() if name not in mutation.remove_headers}
    set_ = {o.header.key: o.header.raw_value.decode() for o in mutation.set_headers}
    return {**left, **set_}
