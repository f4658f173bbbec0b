"""Responses as the API's operations on them: create, retrieve, delete, cancel, list, list their input.

The shell of the endpoints. `create` checks, loads the history and starts a run; whatever can be refused is
refused before that. Errors are raised as EngineError; the adapter has one place that answers them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from engine import sse
from engine.answers import Answer
from engine.api.items import Reference, require_pairs
from engine.api.json import encode
from engine.api.lists import check_retrieve, list_object, no_parameters, parse_list
from engine.api.request import CreateRequest, parse_create
from engine.api.response_object import ResponseObject, State, join
from engine.context.history import EMPTY, usable_history
from engine.context.upstream import upstream_request
from engine.errors import InvalidRequest, NotFound, UnknownPreviousResponse
from engine.ids import RANDOM_BYTES, ItemIds, response_id
from engine.limits import Limits
from engine.loop import Loop, Run
from engine.pipe import Heartbeat, Pipe
from engine.ports import (
    Clock,
    Context,
    ModelClient,
    NewResponse,
    Reply,
    ResponseStore,
    StoredItem,
    StoredResponse,
)
from engine.response.machine import ResponseMachine
from engine.runs import Runs
from engine.upstream.responses import TurnRules

_UNFINISHED = ("queued", "in_progress")


class Caller(msgspec.Struct, frozen=True):
    """Whose request it is, and which of its headers its model turns carry."""

    tenant: str
    model_headers: Mapping[str, str] = {}


class Responses:
    """The operations on responses; `worker` names this process in leases."""

    def __init__(
        self,
        *,
        store: ResponseStore,
        model: ModelClient,
        runs: Runs,
        clock: Clock,
        randomness: Callable[[int], bytes],
        limits: Limits,
        worker: str,
    ) -> None:
        self._store = store
        self._model = model
        self._runs = runs
        self._clock = clock
        self._randomness = randomness
        self._limits = limits
        self._worker = worker

    # -- create ---------------------------------------------------------------------------------

    async def create(self, caller: Caller, body: bytes, query: str, reply: Reply) -> None:
        """Run `POST /v1/responses` and relay it to the client until its end."""
        no_parameters(query)
        run = await self._prepare(caller, body)
        pipe = Pipe(self._limits.buffer_bytes)
        loop = Loop(
            run,
            pipe,
            model=self._model,
            store=self._store,
            clock=self._clock,
            limits=self._limits,
        )
        task = self._runs.start(loop.run())
        try:
            await self._relay(pipe, reply)
        except BaseException:
            pipe.abandon()
            if run.new is None:
                # Nobody can ever read it: do not burn the model's time.
                task.cancel()
            raise

    async def _relay(self, pipe: Pipe, reply: Reply) -> None:
        answer = await pipe.first()
        if answer is not None:
            await reply.answer(answer)
            return
        heartbeat = Heartbeat(pipe, sse.KEEP_ALIVE, self._limits.heartbeat)
        try:
            await reply.open()
            while (frames := await pipe.read()) is not None:
                await reply.write(frames)
            await reply.end()
        finally:
            heartbeat.stop()

    async def _prepare(self, caller: Caller, body: bytes) -> Run:
        own_id = response_id(self._randomness(RANDOM_BYTES))
        ids = ItemIds(own_id)
        request = parse_create(body, ids, self._limits)
        items = await self._resolve(caller.tenant, request.input)
        context = await self._context(caller.tenant, request.previous_response_id)
        history = EMPTY if context is None else usable_history(context.items)
        require_pairs(history.pending, items)
        replay = [*history.replay, *(item.replay for item in items if item.replay is not None)]
        self._check_size(replay)
        created_at = self._clock()
        shape = ResponseObject(own_id, created_at, request)
        new = NewResponse(
            tenant=caller.tenant,
            id=own_id,
            model=request.model,
            created_at=created_at,
            head=shape.head(State(status="in_progress")),
            input=items,
            worker=self._worker,
            lease_seconds=self._limits.lease,
            after=None if context is None else context.end,
            previous_response_id=request.previous_response_id,
        )
        return Run(
            machine=ResponseMachine(shape, ids, store=request.store),
            model_body=upstream_request(request, replay),
            model_headers=caller.model_headers,
            rules=_rules(request),
            new=new if request.store else None,
            stream=request.stream,
        )

    def _check_size(self, replay: list[bytes]) -> None:
        """Bound what one turn is sent: references and history cost their client nothing (rule X5)."""
        size = sum(map(len, replay))
        if size > self._limits.context_bytes:
            raise InvalidRequest(
                f"Input and history have {size} bytes; at most {self._limits.context_bytes} can be "
                "sent to a model.",
                param="input",
                code="context_length_exceeded",
            )

    async def _resolve(
        self, tenant: str, entries: list[StoredItem | Reference]
    ) -> list[StoredItem]:
        """Put stored items in the place of references to them."""
        wanted = [entry.id for entry in entries if isinstance(entry, Reference)]
        found = await self._store.find_items(tenant, wanted) if wanted else {}
        items = []
        for entry in entries:
            if isinstance(entry, StoredItem):
                items.append(entry)
            elif entry.id in found:
                items.append(found[entry.id])
            else:
                raise InvalidRequest(
                    f"Item with id '{entry.id}' not found.",
                    param=f"{entry.param}.id",
                    code="item_not_found",
                )
        return items

    async def _context(self, tenant: str, previous: str | None) -> Context | None:
        if previous is None:
            return None
        context = await self._store.load_context(tenant, previous)
        if context is None:
            raise UnknownPreviousResponse(previous)
        if context.status in _UNFINISHED:
            raise InvalidRequest(
                f"Previous response '{previous}' is still {context.status}.",
                param="previous_response_id",
                code="previous_response_not_finished",
            )
        return context

    # -- stored responses -----------------------------------------------------------------------

    async def retrieve(self, caller: Caller, wanted: str, query: str) -> Answer:
        """`GET /v1/responses/{id}`."""
        check_retrieve(query)
        stored = await self._store.get(caller.tenant, wanted)
        if stored is None:
            raise _not_found(wanted)
        return Answer(200, _whole(stored))

    async def delete(self, caller: Caller, wanted: str, query: str) -> Answer:
        """`DELETE /v1/responses/{id}`."""
        no_parameters(query)
        if not await self._store.delete(caller.tenant, wanted):
            raise _not_found(wanted)
        return Answer(200, encode({"id": wanted, "object": "response", "deleted": True}))

    async def cancel(self, caller: Caller, wanted: str, query: str) -> Answer:
        """`POST /v1/responses/{id}/cancel`: no response runs in the background yet."""
        no_parameters(query)
        if await self._store.get(caller.tenant, wanted) is None:
            raise _not_found(wanted)
        raise InvalidRequest(
            "Only responses created with background=true can be cancelled.",
            code="response_not_in_background",
        )

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


def _rules(request: CreateRequest) -> TurnRules:
    return TurnRules(
        tools=bool(request.tools),
        allowed=request.tool_choice.allowed,
        parallel=request.parallel_tool_calls,
        logprobs=request.logprobs,
    )


def _whole(stored: StoredResponse) -> bytes:
    return join(stored.head, stored.output)


def _not_found(wanted: str) -> NotFound:
    return NotFound(f"Response with id '{wanted}' not found.")
