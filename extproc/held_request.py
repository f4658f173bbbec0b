"""The held request as the first model turn (inline mode, docs/adr/0015): a ModelClient of one exchange.

`call` rewrites the request and lets Envoy route it; what comes back is fed in by `pump`, and is this turn's
answer. Every later call goes another way. Until the call nothing is decided: whoever answers the client
before it takes the request (`keep`), and then all turns go the other way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from engine.errors import EngineError, UpstreamFailed
from engine.pipe import Pipe
from engine.ports import ModelAnswer, ModelClient
from extproc import inline_messages
from extproc.answer_encodings import answer_decoder
from extproc.messages import Head, read_head
from extproc.model_client import TRAILER_SECONDS, retry_seconds
from extproc.pb.ext_proc_pb2 import HttpHeaders, ProcessingRequest
from extproc.transport import MessageStream

# What is read of the model server's answer before somebody takes it; then Envoy holds it back (rule E6).
_UNREAD = 256 * 2**10

_LEFT = "The request's connection broke off: its client left, or the model server reset it."


@dataclass(frozen=True, slots=True)
class Riding:
    """`headers` are those of every turn, `silence` is in seconds, `onward` makes the later turns."""

    headers: Mapping[str, str]
    silence: float
    onward: ModelClient


class HeldRequest:
    """One request whose body was read and whose head is not answered."""

    def __init__(self, stream: MessageStream, head: Head, riding: Riding) -> None:
        self.overtaken: ProcessingRequest | None = None
        """The head of an answer of Envoy's own that came while the request was held."""
        self.answered_by_trailers = False
        """True once the model server's answer has ended with trailers."""
        self._stream = stream
        self._head = head
        self._riding = riding
        self._kept = False
        self._releasing: asyncio.Task[None] | None = None
        self._came: asyncio.Future[HttpHeaders] = asyncio.get_running_loop().create_future()
        self._body = Pipe(_UNREAD)
        self._broken = False
        self._has_body = False
        self._begun = asyncio.Event()
        self._ended = asyncio.Event()
        self._let_go = asyncio.Event()

    # -- for the engine -------------------------------------------------------------------------

    async def call(self, path: str, body: bytes, headers: Mapping[str, str]) -> ModelAnswer:
        """Send the first turn as this request, every other one onward; raises UpstreamFailed."""
        if self._kept or self._releasing is not None:
            return await self._riding.onward.call(path, body, headers)
        # A task of its own: whoever answers the client waits for it, also where this call is given up.
        self._releasing = asyncio.ensure_future(self._release(path, body, headers))
        try:
            await asyncio.wait({self._releasing})
            if self._releasing.cancelled():
                # So the transport says that Envoy reset the stream; nobody stopped this call.
                raise UpstreamFailed(_LEFT)
            self._releasing.result()
            async with self.patience():
                head = await asyncio.shield(self._came)
        except BaseException:
            self.close()
            raise
        return _RidingAnswer(self, read_head(head))

    @asynccontextmanager
    async def patience(self) -> AsyncIterator[None]:
        """Wait for the model server as long as it may be silent; raises UpstreamFailed."""
        try:
            async with asyncio.timeout(self._riding.silence):
                yield
        except TimeoutError:
            raise UpstreamFailed("The model server was silent for too long.") from None

    async def read(self) -> bytes | None:
        """Return all that has come of the answer's body, None at its end; raises UpstreamFailed."""
        async with self.patience():
            data = await self._body.read()
        if data is None and self._broken:
            raise UpstreamFailed(_LEFT)
        return data

    async def finish(self) -> None:
        """Let the answer end by itself, if it does soon."""
        await _soon(self._ended)
        self.close()

    def close(self) -> None:
        """Let go of the answer; what still comes of it is dropped.

        It cannot be aborted alone: Envoy aborts it when the client's answer ends before it.
        """
        self._body.abandon()
        self._begun.set()
        self._let_go.set()

    # -- for the client's side --------------------------------------------------------------------

    def keep(self) -> bool:
        """Take the request for an answer of our own; False if it was sent on to the model server."""
        self._kept = self._kept or self._releasing is None
        return self._kept

    async def head_to_rewrite(self) -> HttpHeaders | None:
        """Wait until events can be put in the place of the answer's body and return the answer's head.

        None where they never can: there is no answer, or it has no body.
        """
        await self._begun.wait()
        answered = self._came.done() and self._came.exception() is None
        return self._came.result() if answered and self._has_body else None

    async def settled(self) -> None:
        """Wait until the request is sent on whole and its answer has ended, if that ends soon."""
        if self._releasing is not None:
            await asyncio.shield(self._releasing)
            await _soon(self._let_go)

    # -- for what reads Envoy's messages -------------------------------------------------------------

    async def pump(self) -> None:
        """Take Envoy's messages until it ends the stream, or answers the client on its own."""
        while (message := await self._stream.read()) is not None:
            match message.WhichOneof("request"):
                case "response_headers" if self._releasing is None:
                    self.overtaken = message
                    return
                case "response_headers":
                    self._answered(message.response_headers)
                case "response_body":
                    self._check_head()
                    self._has_body = True
                    self._begun.set()
                    if message.response_body.body:
                        await self._body.write(message.response_body.body, 0)
                    if message.response_body.end_of_stream:
                        self._end()
                case "response_trailers":
                    self.answered_by_trailers = True
                    self._end()
                case _:
                    # A second end of the request (rule E1).
                    pass

    def _check_head(self) -> None:
        """A misconfigured Envoy must be noticed, not waited for."""
        if not self._came.done():
            self._fail(EngineError("This route's response header mode must be SEND."))

    def _fail(self, error: EngineError) -> None:
        self._came.set_exception(error)
        # Perhaps nobody asks.
        self._came.exception()

    def break_off(self) -> None:
        """Say that Envoy has ended the stream; where the answer was not whole, the turn has failed."""
        if not self._ended.is_set():
            self._broken = True
            if not self._came.done():
                self._fail(UpstreamFailed(_LEFT))
            self._end()

    def _answered(self, head: HttpHeaders) -> None:
        if not self._came.done():
            self._came.set_result(head)
        if head.end_of_stream:
            self._end()

    def _end(self) -> None:
        self._body.end()
        self._begun.set()
        self._ended.set()

    async def _release(self, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        asked = {**self._riding.headers, **headers}
        await self._stream.write(inline_messages.turn_head(self._head, path, asked))
        for message in inline_messages.turn_body(body):
            await self._stream.write(message)


class _RidingAnswer:
    """The answer to the held request, as far as it is the model's."""

    def __init__(self, held: HeldRequest, head: Head) -> None:
        self._held = held
        self._encoding = head.headers.get("content-encoding", "")
        self.status = int(head.headers[":status"])
        self.media_type = head.headers.get("content-type", "").partition(";")[0].strip().lower()
        self.retry_after = retry_seconds(head.headers.get("retry-after"))

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives; raises UpstreamFailed."""
        decode = answer_decoder(self._encoding)
        while (data := await self._held.read()) is not None:
            for piece in decode(data):
                yield piece

    async def read(self, limit: int) -> bytes:
        """Return the body, at most `limit` bytes of it; raises UpstreamFailed."""
        pieces: list[bytes] = []
        size = 0
        async for chunk in self.chunks():
            pieces.append(chunk)
            size += len(chunk)
            if size >= limit:
                break
        return b"".join(pieces)[:limit]

    async def finish(self) -> None:
        """Let what follows the terminal event come, if it comes soon."""
        await self._held.finish()

    def close(self) -> None:
        """Let go of the answer."""
        self._held.close()


async def _soon(event: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(TRAILER_SECONDS):
            await event.wait()
    except TimeoutError:
        pass
