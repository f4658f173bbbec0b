"""One exchange whose request is its first model turn (inline mode, docs/adr/0015).

The operation runs beside what reads Envoy's messages, because both directions are open at once. When Envoy
ends the stream before our end the client has left, or the model server has broken off: ext_proc does not
say which. The run hears of the former first, and what that means is its policy's (rule P3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from engine.answers import Answer
from engine.ports import Told
from extproc import inline_messages, messages
from extproc.held_request import HeldRequest
from extproc.known import Known
from extproc.operations import STREAM_HEADERS
from extproc.passing import pass_all
from extproc.pb.ext_proc_pb2 import ProcessingResponse
from extproc.transport import MessageStream

# For Envoy to end the stream behind our answer.
_PARTING_SECONDS = 1.0


class InlineReply:
    """The client's side of an exchange whose request may have been sent on.

    An event stream takes the place of the model server's body: it begins no sooner than that does. Where
    there is none (no answer came, or one without a body), the events are kept and sent as one answer.
    """

    def __init__(self, stream: MessageStream, held: HeldRequest, known: Known) -> None:
        self.known = known
        self._stream = stream
        self._held = held
        self._relayed = False
        self._rewriting = False
        self._kept: list[bytes] = []
        self._begun = False
        self.status: int | None = None
        """What was answered."""
        self.ended = False
        """True once the last message is being sent: Envoy ends the stream behind it."""

    def tell(self, told: Told) -> None:
        """Let Envoy know what becomes of a response, from when its answer begins."""
        self.known.told = told

    async def answer(self, answer: Answer) -> None:
        """Send a whole answer; where a stream was begun there is nothing left to say it with."""
        if self._begun:
            await self.end()
            return
        self.status = answer.status
        self._held.keep()
        await self._held.settled()
        await self._last(messages.immediate(answer))

    async def open(self) -> None:
        """Start a 200 with an event stream."""
        self._begun = True
        self.status = 200
        if self._held.keep():
            self._relayed = True
            await self._stream.write(self.known.within(messages.stream_head(STREAM_HEADERS)))
            return
        head = await self._held.head_to_rewrite()
        if head is not None:
            self._rewriting = True
            opened = inline_messages.answer_head(head, STREAM_HEADERS)
            await self._stream.write(self.known.within(opened))

    async def write(self, frames: bytes) -> None:
        """Send whole events."""
        if self._relayed:
            await self._stream.write(self.known.with_news(messages.stream_body(frames)))
        elif self._rewriting:
            await self._stream.write(self.known.with_news(inline_messages.answer_body(frames)))
        else:
            self._kept.append(frames)

    async def end(self) -> None:
        """End the event stream."""
        await self._held.settled()
        await self._last(self._end_message())

    def _end_message(self) -> ProcessingResponse:
        if self._relayed:
            return messages.stream_end()
        if not self._rewriting:
            return inline_messages.whole_stream(STREAM_HEADERS, b"".join(self._kept))
        if self._held.answered_by_trailers:
            return messages.pass_on("response_trailers")
        return inline_messages.answer_body(b"", end=True)

    async def _last(self, message: ProcessingResponse) -> None:
        self.ended = True
        await self._stream.write(self.known.within(message))


async def side_by_side(
    stream: MessageStream, held: HeldRequest, reply: InlineReply, work: Coroutine[None, None, None]
) -> None:
    """Await work while Envoy's messages are read; given up where Envoy ends the stream before it."""
    working = asyncio.ensure_future(work)
    pumping = asyncio.ensure_future(held.pump())
    try:
        await asyncio.wait({working, pumping}, return_when=asyncio.FIRST_COMPLETED)
        if reply.ended:
            await asyncio.wait({working, pumping}, timeout=_PARTING_SECONDS)
    finally:
        # Envoy may cancel the exchange meanwhile: the run must hear that its answer is over all the same.
        await asyncio.shield(_part(working, pumping, held))
    if held.overtaken is not None:
        await pass_all(stream, held.overtaken)
        return
    for task in (working, pumping):
        if not task.cancelled():
            task.result()


async def _part(
    working: asyncio.Future[None], pumping: asyncio.Future[None], held: HeldRequest
) -> None:
    await _cancelled(working)
    # Only now: that the client has left is heard before the answer's end (`Loop`).
    held.break_off()
    if held.overtaken is None:
        await _cancelled(pumping)


async def _cancelled(task: asyncio.Future[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
