"""From a create request to a run: everything that can be refused before the model is called."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import chain

import msgspec

from engine import affinity
from engine.account import Account
from engine.api.headers import OnDisconnect, read_idempotency_key, read_on_disconnect
from engine.api.items import require_pairs
from engine.api.json import read_object
from engine.api.request import CreateRequest, Fields, parse_create
from engine.api.response_object import ResponseObject, State
from engine.consents import Consents, read_consents
from engine.context.compacted import behind_covered, covers
from engine.context.history import EMPTY, History
from engine.context.listed import Shown, shown_lists
from engine.context.owned_calls import with_calls
from engine.context.seals import Seals
from engine.context.searches import with_searches
from engine.context.sources import Sources
from engine.continuation import Continuation, continuation, is_retry
from engine.errors import InvalidRequest, NotFound
from engine.ids import RANDOM_BYTES, ItemIds, response_id
from engine.limits import Limits
from engine.lines import Visit
from engine.planning import check_context, planned
from engine.ports import (
    AnswerClaim,
    Clock,
    EventBatch,
    Idempotency,
    NewResponse,
    ReplayItem,
    Sealing,
    Store,
    StoredItem,
)
from engine.ports.tracing import NO_SPAN, Span
from engine.references import Attach, resolve
from engine.response.consent import Asking
from engine.response.effects import Send
from engine.response.inputs import Begin, Queued
from engine.response.machine import ResponseMachine
from engine.run import Run
from engine.summaries import Summaries
from engine.toolbox import Toolbox
from engine.truncation import Truncation
from engine.upstream.choice import Choice
from engine.work import pack


class Caller(msgspec.Struct, frozen=True):
    """Whose request it is, which of its headers its model turns carry, and those that are for us.

    `span` is what its response is traced by.
    """

    tenant: str
    model_headers: Mapping[str, str] = {}
    on_disconnect: str | None = None
    idempotency_key: str | None = None
    byte_range: str | None = None
    span: Span = NO_SPAN

    @property
    def request_id(self) -> str:
        """What Envoy calls the request; "" where nobody said."""
        return self.model_headers.get("x-request-id", "")


Expand = Callable[[str, Fields], Awaitable[Fields]]
"""Returns a tenant's request with its prompt template in it (`engine.prompts`)."""


class Intake:
    """Checks requests and makes runs of them; `worker` names this process in leases.

    `on_disconnect` is what a client's leaving does where its request does not say, and what it may say
    unless that is `chosen_on_disconnect`. `background`: such responses are taken. `consent_keys` vouch for
    requests for consent of responses that are not stored, the first for new ones. `more_turns`: the
    model can be called more than once for a request, and without one.
    """

    def __init__(
        self,
        store: Store,
        *,
        tools: Toolbox,
        sealing: Sealing,
        clock: Clock,
        randomness: Callable[[int], bytes],
        limits: Limits,
        worker: str,
        choice: Choice,
        truncation: Truncation,
        summaries: Summaries,
        expand: Expand,
        attach: Attach,
        on_disconnect: OnDisconnect = "continue",
        chosen_on_disconnect: bool = True,
        background: bool = True,
        consent_keys: tuple[bytes, ...] = (),
        more_turns: bool = True,
    ) -> None:
        self._store = store
        self._expand = expand
        self._attach = attach
        self._tools = tools
        self._sealing = sealing
        self._clock = clock
        self._randomness = randomness
        self._limits = limits
        self._worker = worker
        self._choice = choice
        self._truncation = truncation
        self._summaries = summaries
        self._on_disconnect = on_disconnect
        self._chosen_on_disconnect = chosen_on_disconnect
        self._background = background
        self._keys = consent_keys
        self._more_turns = more_turns

    async def admit(self, caller: Caller, body: bytes, visit: Visit) -> Run:
        """Return the run of a request; `visit` is where it waits for its turn in a conversation.

        Raises InvalidRequest, NotFound and ConversationMoved for a conversation, StorageUnavailable.
        """
        own_id = response_id(self._randomness(RANDOM_BYTES))
        ids = ItemIds(own_id)
        asked = digest(body)
        fields = await self._expand(caller.tenant, read_object(body))
        seals = Seals(self._sealing, caller.tenant)
        request = await self._checked(caller, fields, ids, seals)
        dialect = self._choice.dialect(request.model)
        providers = self._tools.open(request, caller.tenant)
        on_disconnect = read_on_disconnect(
            caller.on_disconnect, self._on_disconnect, chosen=self._chosen_on_disconnect
        )
        key = read_idempotency_key(caller.idempotency_key, store=request.store)
        items, before = await self._loaded(caller, request, key, visit)
        if before.checked:
            await self._check_tools(caller.tenant, request, key)
        asking = Asking(stored=request.store, keys=self._consent_keys(caller.tenant))
        consents = await self._consents(caller.tenant, request, items, before, asking, key)
        items = consents.items
        replay = sent(before.history, items, self._limits)
        root = before.root if before.root is not None else first_root(request, replay)
        headers = turn_headers(caller.model_headers, caller.tenant, root)
        wanted = self._choice.asking(request, caller.tenant)
        if not request.background:
            # What waits in the queue is cut when its time comes.
            replay = await self._truncation.fitting(wanted, replay, headers)
        turn = planned(
            wanted,
            replay,
            headers,
            self._limits,
            dialect,
            summaries=self._summaries,
            seals=seals,
            approved=consents.approved,
            shown=_shown(before.items, items),
            asking=asking,
            sources=Sources.of(before.items) + Sources.of(items),
        )
        shape = ResponseObject(own_id, self._clock(), request)
        seal = seals.seal if request.seals else None
        machine = ResponseMachine(shape, ids, store=request.store, seal=seal)
        # Who takes over what was approved must know that it was called.
        logged = _is_logged(request) or bool(consents.approved)
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
                after=before.after,
                root=root,
                previous_response_id=request.previous_response_id,
                conversation=request.conversation,
                seen=before.seen,
                streamed=logged,
                work=pack(fields, caller.model_headers, ids.minted, consents.approved),
                idempotency=None if key is None else Idempotency(key, asked),
                keep_seconds=self._limits.keep,
                answers=consents.answers,
            )
        claim = None
        if new is None and consents.answers:
            claim = AnswerClaim(caller.tenant, own_id, consents.answers)
        if request.background and new is not None:
            new = _queued(new, shape, machine)
        return Run(
            id=own_id,
            machine=machine,
            first=Begin(turn),
            new=new,
            stream=request.stream,
            streamed=logged and request.store,
            background=request.background,
            on_disconnect=on_disconnect,
            providers=providers,
            claim=claim,
            approved=bool(consents.approved),
            account=Account(
                own_id,
                caller.tenant,
                request.model,
                span=caller.span,
                request_id=caller.request_id,
                digest=asked,
            ),
        )

    async def _loaded(
        self, caller: Caller, request: CreateRequest, key: str | None, visit: Visit
    ) -> tuple[list[StoredItem], Continuation]:
        """Return the input with what it refers to, and what the request continues."""
        span = caller.span.child("load history")
        try:
            items = await resolve(
                self._store, self._attach, caller.tenant, request.input, self._limits
            )
            before = await continuation(self._store, caller.tenant, request, key, visit)
            span.put("holdfast.history.items", len(before.items))
            return items, before
        finally:
            span.end()

    async def _checked(
        self, caller: Caller, fields: Fields, ids: ItemIds, seals: Seals
    ) -> CreateRequest:
        """Return a request that can be honoured, its connectors found."""
        request = parse_create(fields, ids, self._limits, self._tools.policy, seals.unseal)
        if request.seals:
            seals.require("include")
        check_context(request, seals)
        if not self._more_turns:
            _check_single_turn(request)
        if request.background:
            _check_repeatable(caller, request, allowed=self._background)
        self._choice.dialect(request.model).check(request)
        return await self._tools.resolved(request, caller.tenant)

    async def _check_tools(self, tenant: str, request: CreateRequest, key: str | None) -> None:
        """Refuse what tools name that is not there; a retry is answered, whatever was deleted since."""
        try:
            await self._tools.check(request, tenant)
        except NotFound:
            if not await is_retry(self._store, tenant, key):
                raise

    async def _consents(
        self,
        tenant: str,
        request: CreateRequest,
        items: list[StoredItem],
        before: Continuation,
        asking: Asking,
        key: str | None,
    ) -> Consents:
        """Return the input with all that it answers; of a retry nothing is judged."""
        told = with_own_calls(request, items, before.items)
        if not before.checked:
            return Consents((), (), told)
        require_pairs(before.history.pending, items)
        return await read_consents(
            self._store,
            tenant,
            request,
            told,
            before.items,
            keys=asking.keys,
            repeatable=key is not None,
        )

    def _consent_keys(self, tenant: str) -> tuple[bytes, ...]:
        """Return the keys for one tenant: no other can make a request of its."""
        name = tenant.encode("utf-8", "surrogatepass")
        return tuple(hmac.new(key, name, hashlib.sha256).digest() for key in self._keys)


def sent(history: History, items: list[StoredItem], limits: Limits) -> list[bytes]:
    """Return what the model is sent of history and input; an item of the latter may cover all before it.

    Raises InvalidRequest for more than a turn may be sent.
    """
    kept = behind_covered(items)
    replay = [item.replay for item in kept if item.replay is not None]
    if kept and covers(kept[0]):
        history = EMPTY
    replay = [*history.replay, *replay]
    check_size(replay, history.unread, limits)
    return replay


def check_size(replay: list[bytes], unread: int, limits: Limits) -> None:
    """Bound what one turn is sent: references and history cost their client nothing (rule X5).

    `unread` are the bytes of it that were too many to be read at all.
    """
    size = sum(map(len, replay)) + unread
    if size > limits.context_bytes or unread:
        raise InvalidRequest(
            f"Input and history have {size} bytes; at most {limits.context_bytes} can be sent to a model.",
            param="input",
            code="context_length_exceeded",
        )


def _is_logged(request: CreateRequest) -> bool:
    """True if its events are logged: for a client that resumes, or so that no tool is run twice."""
    return request.stream or (request.background and bool(request.owned))


def _check_single_turn(request: CreateRequest) -> None:
    """Refuse what needs the model again, or later, where it is only reached by the request itself."""
    tools = [f"{param}.type" for param, _ in request.owned]
    if request.values.get("truncation") == "auto":
        tools.append("truncation")
    if request.compacts:
        tools.append("context_management")
    for param in ["background"] if request.background else tools:
        raise InvalidRequest(
            "This gateway can call the model once for each request, as the request itself: tools that it "
            "runs, responses in the background, truncation by the model server's count, and compaction need "
            "more (setting model.via).",
            param=param,
            code="unsupported_value",
        )


def _check_repeatable(caller: Caller, request: CreateRequest, *, allowed: bool) -> None:
    """Refuse what is not to be run later, or could not be: credentials are not stored (rule X4)."""
    if not allowed:
        raise InvalidRequest(
            "This gateway takes no responses in the background (setting background.allowed).",
            param="background",
            code="unsupported_value",
        )
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


def first_root(request: CreateRequest, replay: list[bytes]) -> str:
    """Return the root of what a request begins."""
    key = request.values.get("prompt_cache_key")
    return affinity.root_of(key if isinstance(key, str) else None, replay)


def turn_headers(headers: Mapping[str, str], tenant: str, root: str) -> dict[str, str]:
    """Return what each model turn carries: the client's own, and which conversation it belongs to."""
    return {**headers, affinity.HEADER: affinity.affinity(tenant, root)}


def with_own_calls(
    request: CreateRequest, items: list[StoredItem], history: Sequence[ReplayItem]
) -> list[StoredItem]:
    """Return input items with what the model is sent of calls of the gateway's tools."""
    labels = {server.server_label for _, server in request.servers}
    taken = {each.name for each in request.functions}
    found = with_searches(items, first=Sources.of(history).next, taken=taken)
    return with_calls(found, labels=labels, taken=taken)


def _shown(history: Sequence[ReplayItem], items: list[StoredItem]) -> Shown:
    """Return the lists of tools that history and input show, by their labels."""
    both: Iterable[ReplayItem | StoredItem] = chain(history, items)
    return shown_lists((item.type, item.call_id) for item in both)


def digest(body: bytes) -> bytes:
    """Return what tells two requests with one Idempotency-Key apart."""
    return hashlib.sha256(body).digest()
