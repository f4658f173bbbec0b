"""From a claim to a run: a response goes on in this worker that waited, or that another worker left.

Its machine is made from its log (`engine.response.redrive`), the model's request from what is stored of the
request and from the history. A response in the background is run again, as is one that was handed over; the
client of any other is gone with its worker, and it fails (rule P4).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Literal, TypeVar

import msgspec

from engine.account import Account
from engine.api.request import CreateRequest
from engine.api.response_object import ResponseObject
from engine.context.history import usable_history
from engine.context.listed import Shown, shown_lists
from engine.context.seals import Seals
from engine.context.sources import Sources
from engine.errors import EngineError, InvalidRequest, NotFound, UpstreamFailed, WorkerLost
from engine.ids import ItemIds
from engine.intake import check_size, turn_headers
from engine.live import Live
from engine.outage import outlast
from engine.planning import planned
from engine.ports import Claim, Context, EventBatch, Lease, LoggedEvents, ReplayItem, ToolProvider
from engine.response.agenda import Listing
from engine.response.compaction import Plan
from engine.response.inputs import (
    Begin,
    Cancelled,
    Failed,
    Input,
    Resumed,
    RoundEnded,
    TurnEnded,
)
from engine.response.log_events import read_listing
from engine.response.machine import ResponseMachine
from engine.response.phase import Phase
from engine.response.redrive import LEAP, NO_LISTINGS, NotRedrivable, Redrive, Redriven
from engine.response.turn import TurnRequest
from engine.run import Run
from engine.work import Work, unpack

_log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_ATTEMPTS = 3
# Bytes of the log that are read at once.
_PAGE = 1 << 20
# The first events, `created` and `in_progress`.
_OPENING = 2


class _Accepted(msgspec.Struct, frozen=True):
    """What is read of a response's head as it was accepted."""

    status: str
    model: str = ""
    created_at: int = 0


_read_accepted = msgspec.json.Decoder(_Accepted).decode


class TakeOver:
    """Runs in `live` what was claimed."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._store = live.means.store
        self._limits = live.means.limits

    def runs_again(self, claim: Claim) -> bool:
        """True if taking it over calls the model; otherwise it only has to be ended."""
        if claim.cancel or claim.attempts > MOST_ATTEMPTS or unpack(claim.work).credentials:
            return False
        return claim.background or claim.fresh

    async def take_over(self, claim: Claim) -> asyncio.Task[None]:
        """Start the run of a claim; raises NotFound if it was deleted, StorageUnavailable."""
        return self._live.start(await self._run(claim))

    async def _run(self, claim: Claim) -> Run:
        work = unpack(claim.work)
        accepted = _read_accepted(claim.head)
        if accepted.status == "queued" and claim.attempts == 1:
            waited = self._live.means.clock() - accepted.created_at
            self._live.means.meters.queue_wait(max(0, waited))
        account = self._account(claim, work)
        unlogged = None
        first: Input | None = None
        asked = await self._asked_or_lost(claim, work)
        machine = self._machine(claim, work, asked)
        try:
            redriven = await self._redriven(claim, machine, asked)
            machine, unlogged = redriven.machine, redriven.unlogged
            if claim.streamed and not claim.background and not claim.fresh:
                unlogged = await self._leap(claim.lease, machine, unlogged)
        except _Unreadable as unreadable:
            broken = unreadable.__cause__
            # A bug of ours, unless the log is one that we know not to be readable.
            trace = None if isinstance(broken, NotRedrivable) else broken
            _log.error("%s cannot go on: %s", claim.lease.response_id, broken, exc_info=trace)
            machine = self._machine(claim, work, asked)
            machine.skip_to(unreadable.last + 1 + LEAP)
            first = self._lost()
        return Run(
            id=claim.lease.response_id,
            machine=machine,
            first=first if first is not None else self._first(claim, asked, machine),
            providers=asked.providers,
            lease=claim.lease,
            streamed=claim.streamed,
            approved=bool(work.approved),
            unlogged=unlogged,
            background=True,
            inherited=_inherited(claim),
            account=account,
        )

    def _account(self, claim: Claim, work: Work) -> Account:
        """Return what is told of it, in the trace in which it was accepted."""
        span = self._live.means.tracer.begin("response taken over", "internal", work.headers)
        span.put("holdfast.attempt", claim.attempts)
        lease = claim.lease
        return Account(
            lease.response_id,
            lease.tenant,
            _read_accepted(claim.head).model,
            span=span,
            request_id=work.headers.get("x-request-id", ""),
        )

    def _machine(self, claim: Claim, work: Work, asked: _Asked) -> ResponseMachine:
        ids = ItemIds(claim.lease.response_id, minted=work.minted)
        seal = None
        if asked.seals:
            seal = Seals(self._live.means.sealing, claim.lease.tenant).seal
        return ResponseMachine(ResponseObject.of_head(claim.head), ids, store=True, seal=seal)

    async def _redriven(self, claim: Claim, machine: ResponseMachine, asked: _Asked) -> Redriven:
        """Feed the machine with its log; raises _Unreadable."""
        queued = _read_accepted(claim.head).status == "queued"
        redrive = Redrive(machine, queued=queued, turn=asked.turn, known=asked.known)
        last, broken = -1, None
        more = claim.streamed
        while more:
            page = await self._page(claim, last)
            more = page.more
            for batch in page.batches:
                last = batch.last
                try:
                    if broken is None:
                        redrive.feed(batch.frames)
                except Exception as error:
                    # Whatever it is, who comes behind us would meet it again. Read on: its number has to be
                    # behind the log's end.
                    broken = error
        try:
            if broken is None:
                return redrive.end()
        except Exception as error:
            broken = error
        raise _Unreadable(last) from broken

    async def _leap(
        self, lease: Lease, machine: ResponseMachine, unlogged: EventBatch | None
    ) -> EventBatch | None:
        """Let the machine go on with numbers that its client cannot have seen; return what is unlogged.

        What opens a stream is the same whoever makes it: it keeps its numbers and is logged by itself.
        """
        machine.leap_to(machine.sequence + LEAP)
        if unlogged is None:
            return None
        if unlogged.first >= _OPENING:
            return _leaped(unlogged)
        await outlast(
            lambda _again: self._store.append(lease, unlogged),
            lease.response_id,
            self._limits.lease,
        )
        return None

    async def _page(self, claim: Claim, after: int) -> LoggedEvents:
        lease = claim.lease
        return await self._patiently(
            lambda: self._store.read_events(
                lease.tenant, lease.response_id, after=after, limit=_PAGE
            ),
            lease.response_id,
        )

    async def _patiently(self, read: Callable[[], Awaitable[T | None]], response_id: str) -> T:
        """Read what there is of a response; while the store is away, as long as the claim is ours.

        Raises NotFound, StorageUnavailable.
        """
        found: list[T | None] = []

        async def attempt(_again: bool) -> None:
            found.append(await read())

        await outlast(attempt, response_id, self._limits.lease)
        read_last = found[-1]
        if read_last is None:
            raise NotFound(f"Response with id '{response_id}' not found.")
        return read_last

    def _first(self, claim: Claim, asked: _Asked, machine: ResponseMachine) -> Input:
        """Return what its machine is told first."""
        if claim.cancel:
            return Cancelled()
        if asked.lost or not self.runs_again(claim):
            return self._lost()
        if machine.phase is not Phase.QUEUED and machine.called:
            # A second run would ask its client for the same calls again: the turn ends with those it has.
            if machine.phase is Phase.RUNNING:
                return RoundEnded(self._live.means.clock())
            reason = "worker_lost" if machine.cut else None
            return TurnEnded(self._live.means.clock(), None, reason)
        if asked.refused is not None:
            return Failed(self._live.means.clock(), asked.refused)
        return Begin(asked.turn) if machine.phase is Phase.QUEUED else Resumed(asked.turn)

    async def _asked_or_lost(self, claim: Claim, work: Work) -> _Asked:
        """Return what was asked for; a bug that is met there ends it, or it would never end (P4)."""
        try:
            return await self._asked(claim, work)
        except EngineError:
            raise
        except Exception:
            _log.exception("%s cannot be asked for again", claim.lease.response_id)
            return _Asked(TurnRequest(b""), lost=True)

    async def _asked(self, claim: Claim, work: Work) -> _Asked:
        """Return what was asked for when the request came; without history where nothing is asked again."""
        tools, lease = self._live.means.tools, claim.lease
        turn: Plan = TurnRequest(b"")
        seals = False
        try:
            request = work.request(self._limits, tools.policy)
            seals = request.seals
            context: Context | None = None
            items: list[ReplayItem] = []
            headers: Mapping[str, str] = {}
            if request.owned or request.compacts or self.runs_again(claim):
                context = await self._context(lease)
                items = context.items
                headers = turn_headers(work.headers, lease.tenant, context.root_id)
            history = usable_history(list(items))
            check_size(history.replay, history.unread, self._limits)
            replay = history.replay
            if self.runs_again(claim):
                replay = await self._fitting(request, replay, headers)
            turn = self._turn(request, items, replay, headers, work, lease)
            resolved = await self._resolved(lease, request)
            if resolved is not request:
                turn = self._turn(resolved, items, replay, headers, work, lease)
            providers = tools.open(resolved, lease.tenant)
            known = NO_LISTINGS if context is None else await self._known(lease, context)
        except InvalidRequest as error:
            return _Asked(turn, refused=error, seals=seals)
        return _Asked(turn, providers, known, seals=seals)

    def _turn(
        self,
        request: CreateRequest,
        items: Sequence[ReplayItem],
        replay: list[bytes],
        headers: Mapping[str, str],
        work: Work,
        lease: Lease,
    ) -> Plan:
        means = self._live.means
        choice = means.choice
        return planned(
            choice.asking(request, lease.tenant),
            replay,
            headers,
            self._limits,
            choice.dialect(request.model),
            summaries=means.summaries,
            seals=Seals(means.sealing, lease.tenant),
            approved=work.approved,
            shown=_shown(items),
            sources=Sources.of(items),
        )

    async def _known(self, lease: Lease, context: Context) -> dict[str, Listing]:
        """Return the lists of tools that the thread has shown already."""
        shown = _shown(context.items).places
        positions = {label: context.items[place].position for label, place in shown.items()}
        found = await self._patiently(
            lambda: self._store.read_items(lease.tenant, context.end, list(positions.values())),
            lease.response_id,
        )
        return {
            label: read_listing(found[position].item)
            for label, position in positions.items()
            if position in found
        }

    async def _fitting(
        self, request: CreateRequest, replay: list[bytes], headers: Mapping[str, str]
    ) -> list[bytes]:
        """Return what fits of what is asked again; all, where the server cannot be asked now."""
        try:
            return await self._live.means.truncation.fitting(request, replay, headers)
        except UpstreamFailed:
            return replay

    async def _resolved(self, lease: Lease, request: CreateRequest) -> CreateRequest:
        """Look up the connectors again: their credentials are not in what is stored (rule X4)."""
        return await self._patiently(
            lambda: self._live.means.tools.resolved(request, lease.tenant), lease.response_id
        )

    async def _context(self, lease: Lease) -> Context:
        return await self._patiently(
            lambda: self._store.load_context(lease.tenant, lease.response_id), lease.response_id
        )

    def _lost(self) -> Failed:
        return Failed(self._live.means.clock(), WorkerLost())


def _leaped(batch: EventBatch) -> EventBatch:
    frames = batch.frames
    for number in range(batch.first, batch.last + 1):
        # A frame begins with type and number, so the first to be found is the frame's own.
        old, new = (b'"sequence_number":%d,' % n for n in (number, number + LEAP))
        frames = frames.replace(old, new, 1)
    return EventBatch(batch.first + LEAP, batch.last + LEAP, frames)


class _Asked(msgspec.Struct, frozen=True):
    """What the model is asked, who runs its tools, and which lists of these were shown before.

    `refused`: a setting, a newer release or a missing connector refuses today what was accepted then.
    `lost`: what was asked for cannot be told.
    """

    turn: Plan
    providers: tuple[ToolProvider, ...] = ()
    known: Mapping[str, Listing] = NO_LISTINGS
    refused: InvalidRequest | None = None
    seals: bool = False
    lost: bool = False


def _shown(items: Iterable[ReplayItem]) -> Shown:
    return shown_lists((item.type, item.call_id) for item in items)


class _Unreadable(Exception):
    """The log cannot be redriven; `last` is the number of its last event."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.last = last


def _inherited(claim: Claim) -> Literal["stream", "whole"] | None:
    """Return how its client was answered; what is streamed is logged."""
    if claim.background:
        return None
    return "stream" if claim.streamed else "whole"
