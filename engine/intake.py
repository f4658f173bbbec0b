"""From a create request to a run: everything that can be refused before the model is called."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from engine import affinity
from engine.api.headers import OnDisconnect, read_idempotency_key, read_on_disconnect
from engine.api.items import Reference, require_pairs
from engine.api.request import CreateRequest, parse_create
from engine.api.response_object import ResponseObject, State
from engine.context.history import EMPTY, usable_history
from engine.context.seals import Seals
from engine.context.upstream import upstream_request
from engine.errors import InvalidRequest, UnknownPreviousResponse
from engine.ids import RANDOM_BYTES, ItemIds, response_id
from engine.limits import Limits
from engine.ports import (
    Clock,
    Context,
    EventBatch,
    Idempotency,
    NewResponse,
    ResponseStore,
    Sealing,
    StoredItem,
)
from engine.response.agenda import Agenda
from engine.response.effects import Send
from engine.response.inputs import Begin, Queued
from engine.response.machine import ResponseMachine
from engine.response.turn import TurnRequest
from engine.run import Run
from engine.toolbox import Toolbox
from engine.upstream.rules import turn_rules
from engine.work import pack

UNFINISHED = ("queued", "in_progress")


class Caller(msgspec.Struct, frozen=True):
    """Whose request it is, which of its headers its model turns carry, and those that are for us."""

    tenant: str
    model_headers: Mapping[str, str] = {}
    on_disconnect: str | None = None
    idempotency_key: str | None = None
    byte_range: str | None = None


Expand = Callable[[str, bytes], Awaitable[bytes]]
"""Returns the body of a tenant's request with its prompt template in it (`engine.prompts`)."""


class Intake:
    """Checks requests and makes runs of them; `worker` names this process in leases.

    `on_disconnect` is what a client's leaving does where its request does not say.
    """

    def __init__(
        self,
        store: ResponseStore,
        *,
        tools: Toolbox,
        sealing: Sealing,
        clock: Clock,
        randomness: Callable[[int], bytes],
        limits: Limits,
        worker: str,
        expand: Expand,
        on_disconnect: OnDisconnect = "continue",
    ) -> None:
        self._store = store
        self._expand = expand
        self._tools = tools
        self._sealing = sealing
        self._clock = clock
        self._randomness = randomness
        self._limits = limits
        self._worker = worker
        self._on_disconnect = on_disconnect

    async def admit(self, caller: Caller, body: bytes) -> Run:
        """Return the run of a request; raises InvalidRequest, StorageUnavailable."""
        own_id = response_id(self._randomness(RANDOM_BYTES))
        ids = ItemIds(own_id)
        asked = digest(body)
        body = await self._expand(caller.tenant, body)
        seals = Seals(self._sealing, caller.tenant)
        request = parse_create(body, ids, self._limits, self._tools.policy, seals.unseal)
        if request.seals:
            seals.require("include")
        if request.background:
            _check_repeatable(caller, request)
        request = await self._tools.resolved(request, caller.tenant)
        providers = self._tools.open(request, caller.tenant)
        on_disconnect = read_on_disconnect(caller.on_disconnect, self._on_disconnect)
        key = read_idempotency_key(caller.idempotency_key, store=request.store)
        items = await self._resolve(caller.tenant, request.input)
        context = await self._context(caller.tenant, request.previous_response_id)
        history = EMPTY if context is None else usable_history(context.items)
        require_pairs(history.pending, items)
        replay = [*history.replay, *(item.replay for item in items if item.replay is not None)]
        self._check_size(replay)
        root = context.root_id if context is not None else _root(request, replay)
        shape = ResponseObject(own_id, self._clock(), request)
        seal = seals.seal if request.seals else None
        machine = ResponseMachine(shape, ids, store=request.store, seal=seal)
        new = None
        if request.store:
            new = NewResponse(
                tenant=caller.tenant,
                id=own_id,
                model=request.model,
                created_at=shape.created_at,
                head=shape.head(State(status="in_progress")),
                input=items,
                worker=self._worker,
                lease_seconds=self._limits.lease,
                after=None if context is None else context.end,
                root=root,
                previous_response_id=request.previous_response_id,
                streamed=_is_logged(request),
                work=pack(body, caller.model_headers, ids.minted),
                idempotency=None if key is None else Idempotency(key, asked),
                keep_seconds=self._limits.keep,
            )
        if request.background and new is not None:
            new = _queued(new, shape, machine)
        headers = turn_headers(caller.model_headers, caller.tenant, root)
        return Run(
            id=own_id,
            machine=machine,
            first=Begin(asked_for(request, replay, headers, self._limits)),
            new=new,
            stream=request.stream,
            streamed=_is_logged(request) and request.store,
            background=request.background,
            on_disconnect=on_disconnect,
            providers=providers,
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
        if context.status in UNFINISHED:
            raise InvalidRequest(
                f"Previous response '{previous}' is still {context.status}.",
                param="previous_response_id",
                code="previous_response_not_finished",
            )
        return context


def _is_logged(request: CreateRequest) -> bool:
    """True if its events are logged: for a client that resumes, or so that no tool is run twice."""
    return request.stream or (request.background and bool(request.owned))


def _check_repeatable(caller: Caller, request: CreateRequest) -> None:
    """Refuse what could not be run later: credentials are not stored (rule X4)."""
    if "authorization" in caller.model_headers:
        raise InvalidRequest(
            "Responses cannot run in the background where the model is called with the client's own "
            "credentials: they are not stored.",
            param="background",
            code="unsupported_value",
        )
    for param, server in request.servers:
        name = "authorization" if server.authorization is not None else "headers"
        if server.authorization is not None or server.headers:
            raise InvalidRequest(
                "Responses cannot run in the background with credentials of an MCP server: they are not "
                "stored.",
                param=f"{param}.{name}",
                code="unsupported_value",
            )


def _queued(new: NewResponse, shape: ResponseObject, machine: ResponseMachine) -> NewResponse:
    """Return it as it is accepted into the queue, the first events in its log if it has one."""
    events = None
    for effect in machine.receive(Queued()):
        assert isinstance(effect, Send)
        if new.streamed:
            events = EventBatch(0, effect.last, effect.frames)
    head = shape.head(State(status="queued"))
    return msgspec.structs.replace(new, background=True, queued=True, head=head, events=events)


def _root(request: CreateRequest, replay: list[bytes]) -> str:
    key = request.values.get("prompt_cache_key")
    return affinity.root_of(key if isinstance(key, str) else None, replay)


def turn_headers(headers: Mapping[str, str], tenant: str, root: str) -> dict[str, str]:
    """Return what each model turn carries: the client's own, and which conversation it belongs to."""
    return {**headers, affinity.HEADER: affinity.affinity(tenant, root)}


def asked_for(
    request: CreateRequest, replay: list[bytes], headers: Mapping[str, str], limits: Limits
) -> TurnRequest | Agenda:
    """Return the one turn of a request, or the agenda of one with tools that the gateway runs.

    `replay` is what the model is sent of history and input.
    """
    replay = [*request.preface, *replay]
    if request.owned:
        return Agenda(request=request, replay=replay, headers=headers, most_turns=limits.turns)
    return TurnRequest(upstream_request(request, replay), headers, turn_rules(request))


def digest(body: bytes) -> bytes:
    """Return what tells two requests with one Idempotency-Key apart."""
    return hashlib.sha256(body).digest()
