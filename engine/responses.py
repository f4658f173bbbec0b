"""Responses as the API's operations on them: create, retrieve, delete, cancel, list, list their input.

The shell of the endpoints. What a request may be refused for is `engine.intake`'s; a run is `engine.live`'s.
Errors are raised as EngineError; the adapter has one place that answers them.
"""

from __future__ import annotations

import asyncio
import time

import msgspec

from engine import sse
from engine.answers import Answer
from engine.api.json import encode
from engine.api.lists import list_object, no_parameters, parse_list, parse_retrieve
from engine.api.response_object import ResponseObject, State, join
from engine.background import Background
from engine.continuation import UNFINISHED
from engine.errors import (
    AlreadyAccepted,
    Conflict,
    ConversationMoved,
    EngineError,
    InvalidRequest,
    NotFound,
)
from engine.following import Following
from engine.intake import Caller, Intake
from engine.lines import Lines, Visit
from engine.live import Live
from engine.pipe import Heartbeat, Pipe
from engine.ports import ModelClient, Reply, Store, StoredResponse
from engine.run import Run
from engine.takeover import TakeOver

# Seconds between two looks at a response that ends elsewhere.
_LOOK = 0.1


class Responses:
    """The operations on responses."""

    def __init__(
        self,
        *,
        store: Store,
        intake: Intake,
        lines: Lines,
        live: Live,
        following: Following,
        takeover: TakeOver,
        background: Background,
    ) -> None:
        self._store = store
        self._intake = intake
        self._lines = lines
        self._live = live
        self._following = following
        self._takeover = takeover
        self._background = background
        self._limits = live.means.limits

    # -- create ---------------------------------------------------------------------------------

    async def create(
        self,
        caller: Caller,
        body: bytes,
        query: str,
        reply: Reply,
        *,
        model: ModelClient | None = None,
    ) -> None:
        """Run `POST /v1/responses` and relay it to the client until its end.

        `model` makes the turns of this response alone, while its client stays; None: the worker's.
        """
        no_parameters(query)
        began = time.monotonic()
        with self._lines.visit() as visit:
            while True:
                admitted = await self._admitted(caller, body, visit)
                run = msgspec.structs.replace(admitted, model=model)
                # Also where it waited for its conversation, and was admitted again.
                run.account.began = began
                reply.tell(run.account)
                try:
                    await self._carry_out(caller.tenant, run, visit, reply)
                    return
                except ConversationMoved:
                    # Another worker's turn came first, and is waited for: nothing was done yet.
                    continue

    async def _admitted(self, caller: Caller, body: bytes, visit: Visit) -> Run:
        """Return the run of a request that is not refused, in a trace that ends with it."""
        span = self._live.means.tracer.begin("response", "server", caller.model_headers)
        traced = msgspec.structs.replace(
            caller, span=span, model_headers={**caller.model_headers, **span.headers}
        )
        try:
            run = await self._intake.admit(traced, body, visit)
        except BaseException as error:
            code = error.code if isinstance(error, EngineError) else None
            span.fail(code or type(error).__name__)
            span.end()
            raise
        return run

    async def _carry_out(self, tenant: str, run: Run, visit: Visit, reply: Reply) -> None:
        if run.background:
            await self._enqueue(tenant, run, visit, reply)
            return
        pipe = Pipe(self._limits.buffer_bytes, spills=run.streamed)
        self._live.start(run, pipe)
        try:
            await self._relay(tenant, run, pipe, visit, reply)
        except AlreadyAccepted as earlier:
            await self._repeat(tenant, run, earlier, visit, reply)
        finally:
            # The run goes its own way if it has not ended: that is what its client's leaving means to it.
            pipe.abandon()

    async def _enqueue(self, tenant: str, run: Run, visit: Visit, reply: Reply) -> None:
        """Accept a run for the queue; its client is shown that it waits, or follows its log."""
        assert run.new is not None
        try:
            with run.account.step("accept"):
                await self._store.accept(run.new)
            run.account.close("queued", None)
        except AlreadyAccepted as earlier:
            run.account.refuse(earlier)
            await self._repeat(tenant, run, earlier, visit, reply)
            return
        finally:
            run.account.end_span()
        visit.leave()
        self._live.means.meters.queued()
        self._background.wake()
        if run.stream:
            await self._following.follow(tenant, run.id, -1, reply)
        else:
            await reply.answer(Answer(200, join(run.new.head, ())))

    async def _relay(self, tenant: str, run: Run, pipe: Pipe, visit: Visit, reply: Reply) -> None:
        answer = await pipe.first()
        # It is accepted: its conversation is its own, and whoever is next may look for its end.
        visit.leave()
        if answer is not None:
            await reply.answer(answer)
            return
        heartbeat = Heartbeat(pipe, sse.KEEP_ALIVE, self._limits.heartbeat)
        size = 0
        try:
            await reply.open()
            while (frames := await pipe.read()) is not None:
                await reply.write(frames)
                size += len(frames)
        finally:
            heartbeat.stop()
            self._live.means.meters.streamed(size, spilled=pipe.spilled)
        if pipe.spilled:
            # It reads slower than the model writes: the log is its buffer (rule E6).
            await self._following.follow(tenant, run.id, pipe.taken, _Opened(reply))
        else:
            await reply.end()

    async def _repeat(
        self, tenant: str, run: Run, earlier: AlreadyAccepted, visit: Visit, reply: Reply
    ) -> None:
        """Serve a retry with what its first request makes; the model is not called again."""
        visit.leave()
        assert run.new is not None
        assert run.new.idempotency is not None
        if earlier.digest != run.new.idempotency.digest:
            raise earlier
        try:
            if run.stream:
                await self._following.follow(tenant, earlier.response_id, -1, reply)
                return
            stored = await self._ended(tenant, earlier.response_id)
        except NotFound as gone:
            raise Conflict(
                "The first request with this Idempotency-Key was refused; send it again.",
                code="idempotent_request_failed",
            ) from gone
        await reply.answer(_answer(stored))

    async def _ended(self, tenant: str, wanted: str) -> StoredResponse:
        """Wait for a response's end, wherever it runs; a response in the background is not waited for."""
        while True:
            stored = await self._stored(tenant, wanted)
            if stored.status not in UNFINISHED or _shown(stored).background:
                return stored
            await asyncio.sleep(_LOOK)

    async def _stored(self, tenant: str, wanted: str) -> StoredResponse:
        stored = await self._store.get(tenant, wanted)
        if stored is None:
            raise _not_found(wanted)
        return stored

    # -- stored responses -----------------------------------------------------------------------

    async def retrieve(self, caller: Caller, wanted: str, query: str, reply: Reply) -> None:
        """`GET /v1/responses/{id}`; with `stream=true` its events behind `starting_after` (rule P6)."""
        asked = parse_retrieve(query)
        if asked.stream:
            await self._following.follow(caller.tenant, wanted, asked.after, reply)
        else:
            stored = await self._stored(caller.tenant, wanted)
            await reply.answer(Answer(200, _whole(stored)))

    async def delete(self, caller: Caller, wanted: str, query: str) -> Answer:
        """`DELETE /v1/responses/{id}`."""
        no_parameters(query)
        if not await self._store.delete(caller.tenant, wanted):
            raise _not_found(wanted)
        return Answer(200, encode({"id": wanted, "object": "response", "deleted": True}))

    async def cancel(self, caller: Caller, wanted: str, query: str) -> Answer:
        """`POST /v1/responses/{id}/cancel`, of any response that runs or waits (foreground: our extension).

        A response in the background that has ended is shown as it is, any other is a 400, as at OpenAI.
        """
        no_parameters(query)
        tenant = caller.tenant
        asked = await self._store.ask_cancel(tenant, wanted, self._live.worker, self._limits.lease)
        if asked is None:
            raise _not_found(wanted)
        if asked.status in UNFINISHED:
            if asked.claim is not None:
                await self._takeover.take_over(asked.claim)
            self._live.cancel(tenant, wanted)
            return Answer(200, _whole(await self._cancelled(tenant, wanted)))
        stored = await self._stored(tenant, wanted)
        if not _shown(stored).background:
            raise InvalidRequest(
                "Only a response that is running, or was created with background=true, can be cancelled.",
                code="response_not_in_background",
            )
        return Answer(200, _whole(stored))

    async def _cancelled(self, tenant: str, wanted: str) -> StoredResponse:
        """Wait a while for the end that its worker brings about."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._limits.cancel_wait
        while True:
            stored = await self._stored(tenant, wanted)
            if stored.status not in UNFINISHED or clock() >= deadline:
                return stored
            await asyncio.sleep(_LOOK)

    async def list(self, caller: Caller, query: str) -> Answer:
        """`GET /v1/responses` (an extension of ours): by creation, newest first by default."""
        asked = parse_list(query, ("limit", "after", "order", "model"))
        page = await self._store.list_responses(
            caller.tenant,
            limit=asked.limit,
            after=asked.after,
            order=asked.order,
            model=asked.model,
        )
        bodies = [_whole(stored) for stored in page.responses]
        ids = [stored.id for stored in page.responses]
        return Answer(200, list_object(bodies, ids, has_more=page.has_more))

    async def list_input_items(self, caller: Caller, wanted: str, query: str) -> Answer:
        """`GET /v1/responses/{id}/input_items`: the response's own input, newest first by default."""
        asked = parse_list(query, ("limit", "after", "order"))
        page = await self._store.list_input_items(
            caller.tenant, wanted, limit=asked.limit, after=asked.after, order=asked.order
        )
        if page is None:
            raise _not_found(wanted)
        return Answer(200, list_object(page.items, page.ids, has_more=page.has_more))


class _Opened:
    """A reply whose stream has begun."""

    def __init__(self, reply: Reply) -> None:
        self.answer = reply.answer
        self.tell = reply.tell
        self.write = reply.write
        self.end = reply.end

    async def open(self) -> None:
        """It is open."""


class _Error(msgspec.Struct, frozen=True):
    code: str
    message: str


class _Shown(msgspec.Struct, frozen=True):
    """What is read of a stored response's head."""

    background: bool = False
    error: _Error | None = None


_shown_in = msgspec.json.Decoder(_Shown).decode


def _shown(stored: StoredResponse) -> _Shown:
    return _shown_in(stored.head)


def _answer(stored: StoredResponse) -> Answer:
    """Return what a client that does not stream is told of an ended response: a failure is a status."""
    error = _shown(stored).error
    if error is not None and not _shown(stored).background:
        raise EngineError(error.message, code=error.code)
    return Answer(200, _whole(stored))


def _whole(stored: StoredResponse) -> bytes:
    head = stored.head
    if stored.status in UNFINISHED:
        # The head is as it was accepted; a worker may have taken it from the queue since.
        head = ResponseObject.of_head(head).head(State(status=stored.status))
    return join(head, stored.output)


def _not_found(wanted: str) -> NotFound:
    return NotFound(f"Response with id '{wanted}' not found.")
