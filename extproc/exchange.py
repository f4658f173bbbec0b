"""One exchange: an HTTP request that Envoy holds while we answer it in its place.

Envoy sends the head, then the body; the head stays unanswered until the body is whole, so that every kind
of answer is still possible: an immediate one, or a stream (relay mode, docs/adr/0002). Where the route has
the response's body sent to us, too, the request itself can be the first model turn (inline mode,
`extproc.inline`). Rules E1, X5, R15.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from engine.answers import Answer
from engine.errors import EngineError
from engine.intake import Caller
from engine.ports import Told
from extproc import messages, routes
from extproc.admission import Admission
from extproc.file_operations import perform_form
from extproc.handover import Handover
from extproc.held_request import HeldRequest, Riding
from extproc.inline import InlineReply, side_by_side
from extproc.known import Known
from extproc.messages import Head
from extproc.metrics.counted import UNCOUNTED, Door, Visit
from extproc.operations import STREAM_HEADERS, Endpoints, answer_errors, perform
from extproc.passing import pass_all
from extproc.pb.ext_proc_pb2 import ProcessingMode, ProcessingRequest
from extproc.routes import Match, Operation
from extproc.transport import MessageStream


class ExtProcReply:
    """The client's side of an exchange, over ext_proc messages; `known` is what Envoy is told of it."""

    def __init__(self, stream: MessageStream) -> None:
        self.known = Known()
        self._stream = stream
        self._streaming = False
        self.status: int | None = None
        """What was answered."""

    def tell(self, told: Told) -> None:
        """Let Envoy know what becomes of a response, from when its answer begins."""
        self.known.told = told

    async def answer(self, answer: Answer) -> None:
        """Send a whole answer; where a stream was begun there is nothing left to say it with."""
        if self._streaming:
            message = messages.stream_end()
        else:
            self.status = answer.status
            message = messages.immediate(answer)
        await self._stream.write(self.known.within(message))

    async def open(self) -> None:
        """Start a 200 with an event stream."""
        self._streaming = True
        self.status = 200
        await self._stream.write(self.known.within(messages.stream_head(STREAM_HEADERS)))

    async def write(self, frames: bytes) -> None:
        """Send whole events."""
        await self._stream.write(self.known.with_news(messages.stream_body(frames)))

    async def end(self) -> None:
        """End the event stream."""
        await self._stream.write(self.known.within(messages.stream_end()))


_UNSEALED = Handover()


class Exchanges:
    """Serves ext_proc streams, one exchange each.

    `riding` tells how a request is sent on inline, `handover` how a download is.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        admission: Admission,
        riding: Riding,
        door: Door = UNCOUNTED,
        handover: Handover = _UNSEALED,
    ) -> None:
        self._door = door
        self._handover = handover
        self._endpoints = endpoints
        self._admission = admission
        self._riding = riding

    async def serve(self, stream: MessageStream) -> None:
        """Serve one stream to its end."""
        visit = self._door.enter()
        try:
            await self._serve(stream, visit)
        finally:
            visit.leave()

    async def _serve(self, stream: MessageStream, visit: Visit) -> None:
        first = await stream.read()
        visit.counts = first is not None and first.WhichOneof("request") == "request_headers"
        if first is None:
            return
        if first.WhichOneof("request") != "request_headers":
            # A local reply of Envoy's own (413, 504 …) shows itself by its response headers.
            await pass_all(stream, first)
            return
        reply = ExtProcReply(stream)
        try:
            await answer_errors(self._exchange(stream, first, reply, visit), reply)
        finally:
            visit.status = visit.status or reply.status

    async def _exchange(
        self, stream: MessageStream, first: ProcessingRequest, reply: ExtProcReply, visit: Visit
    ) -> None:
        visit.tenant = tenant = self._admission.identify(first)
        head = messages.read_head(first.request_headers)
        reply.known.tenant = tenant
        match = routes.find(head.method, head.target)
        visit.asks(match.operation)
        reply.known.operation = match.operation.value
        caller = self._admission.caller(tenant, head)
        if match.operation is Operation.FILE_CONTENT:
            # Where it arrives it is counted.
            visit.counts = False
            await stream.write(self._handover.hand_over(tenant, match.id))
            return
        if match.takes_form:
            pieces = self._pieces(stream, first)
            await perform_form(self._endpoints, match, caller, head, pieces, reply)
            return
        if not match.takes_body:
            await perform(self._endpoints, match, caller, b"", reply)
            return
        self._admission.check_head(head)
        whole = await self._body(stream, first, head)
        if whole is None:
            return
        body, ended_by = whole
        if match.operation is Operation.CREATE and _is_inline(first):
            held = HeldRequest(stream, head, self._riding)
            if ended_by == "request_trailers":
                # Behind trailers Envoy (1.40) sends a body twice, where the route has a retry policy.
                held.keep()
            await self._inline(stream, held, match, caller, body, visit, reply.known)
        else:
            await perform(self._endpoints, match, caller, body, reply)

    async def _inline(
        self,
        stream: MessageStream,
        held: HeldRequest,
        match: Match,
        caller: Caller,
        body: bytes,
        visit: Visit,
        known: Known,
    ) -> None:
        reply = InlineReply(stream, held, known)

        async def work() -> None:
            create = perform(self._endpoints, match, caller, body, reply, model=held)
            await answer_errors(create, reply)

        try:
            await side_by_side(stream, held, reply, work())
        finally:
            visit.status = reply.status

    async def _body(
        self, stream: MessageStream, first: ProcessingRequest, head: Head
    ) -> tuple[bytes, str] | None:
        """Return the body and the kind of message that ended it.

        None where it will never be whole and nobody waits for our answer.
        """
        _check_mode(first)
        pieces: list[bytes] = []
        size = 0
        while (message := await self._next(stream)) is not None:
            kind = message.WhichOneof("request") or ""
            if kind == "request_body":
                pieces.append(message.request_body.body)
                size += len(message.request_body.body)
                self._admission.check_size(size)
            if kind == "response_headers":
                # Envoy has answered on its own (a limit, a timeout): its answer passes, ours is too late.
                await pass_all(stream, message)
                return None
            if kind == "request_trailers" or message.request_body.end_of_stream:
                return self._admission.decoded(head, b"".join(pieces)), kind
        # The client left before its body was whole.
        return None

    async def _pieces(
        self, stream: MessageStream, first: ProcessingRequest
    ) -> AsyncIterator[bytes]:
        """Yield a body as it arrives; raises asyncio.CancelledError where it will never be whole."""
        _check_mode(first)
        while (message := await self._next(stream)) is not None:
            kind = message.WhichOneof("request")
            if kind == "request_body" and message.request_body.body:
                yield message.request_body.body
            if kind == "response_headers":
                await pass_all(stream, message)
                break
            if kind == "request_trailers" or message.request_body.end_of_stream:
                return
        raise asyncio.CancelledError("the client has gone")

    async def _next(self, stream: MessageStream) -> ProcessingRequest | None:
        """Return the next message of a body that is still coming; raises TooSlow."""
        try:
            async with asyncio.timeout(self._admission.body_silence):
                return await stream.read()
        except TimeoutError:
            raise self._admission.too_slow() from None


def _check_mode(first: ProcessingRequest) -> None:
    if first.protocol_config.request_body_mode != ProcessingMode.FULL_DUPLEX_STREAMED:
        raise EngineError("This route's request body mode must be FULL_DUPLEX_STREAMED.")


def _is_inline(first: ProcessingRequest) -> bool:
    return first.protocol_config.response_body_mode == ProcessingMode.FULL_DUPLEX_STREAMED
