"""The life of one response as a state machine: inputs in, effects out, no I/O, no clock, no randomness.

`engine.response.transitions` says what can happen when; here is one step for each input. The events that
carry the whole response are in `lifecycle`, the output's items in `output`, turns and calls in `rounds`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from engine.api.events import EventWriter
from engine.api.response_object import ResponseObject, State, Usage
from engine.errors import EngineError
from engine.ids import ItemIds
from engine.response.agenda import Listing
from engine.response.compaction import Compaction, Plan
from engine.response.consent import ApprovedCall
from engine.response.effects import CallModel, Compact, Effect, ListTools, Refuse, Save, Send
from engine.response.inputs import (
    ArgumentsDelta,
    Begin,
    Cancelled,
    Cited,
    Content,
    ContextCompacted,
    CutShort,
    Failed,
    Fits,
    Input,
    ItemEnded,
    ItemStarted,
    ModelAnswered,
    Queued,
    ReasoningDelta,
    RefusalDelta,
    Resumed,
    RoundEnded,
    Saved,
    SaveFailed,
    SummaryDelta,
    TextDelta,
    ToolEnded,
    ToolsListed,
    TurnEnded,
    UpstreamEnded,
    UpstreamEvent,
    UpstreamStarted,
    WaitedLong,
)
from engine.response.lifecycle import End, Lifecycle, completed, failed
from engine.response.notes import has_held, usage_note
from engine.response.open_items import Seal
from engine.response.output import Output
from engine.response.phase import Phase
from engine.response.rounds import Rounds
from engine.response.transitions import TRANSITIONS
from engine.response.turn import TurnRequest

Observe = Callable[[Input, Phase, list[Effect]], None]
"""Is shown an input, the phase that it met, and what came of it."""


class IllegalInput(Exception):
    """An input that has no row in the table for the machine's phase."""


class ResponseMachine:
    """One response. `store` False skips SAVING: there is nothing to be held for."""

    def __init__(
        self, shape: ResponseObject, ids: ItemIds, *, store: bool, seal: Seal | None = None
    ) -> None:
        self.phase = Phase.NEW
        self._rows = _ROWS[Phase.NEW]
        self.opened = False
        """True once an event was sent: from here on errors are events, not statuses (rule R16)."""
        self._store = store
        self._events = EventWriter()
        self._lifecycle = Lifecycle(shape, self._events)
        self._output = Output(ids, self._events, seal)
        self._rounds = Rounds()
        self.usage: Usage | None = None
        """The sum over the turns that ended so far."""
        self._note = b""
        """What the next event is to carry for whoever reads the log back."""
        self._compaction: Compaction | None = None
        self._context: list[bytes] | None = None
        """What the model is sent of history and input, once that is decided; None where nobody asks."""
        self._end: End | None = None
        self.observers: tuple[Observe, ...] = ()
        """Who is shown each step (`engine.observer`)."""
        self._unshown: tuple[Listing, ...] = ()
        """Lists of tools that stand behind the first events, which are not sent yet."""

    def __repr__(self) -> str:
        return (
            f"<ResponseMachine {self.phase.value} opened={self.opened}"
            f" events={self._events.sequence} items={len(self._output.items)}>"
        )

    @property
    def sequence(self) -> int:
        """The number of the next event."""
        return self._events.sequence

    @property
    def held(self) -> int:
        """Characters of model output held (rule X5: the loop bounds it)."""
        return self._output.size

    @property
    def ran_tools(self) -> bool:
        """True once a tool was run: nobody should ask for the same again (rule R13)."""
        return self._rounds.ran_tools

    def shown_name(self, label: str, name: str) -> str | None:
        """Return the name under which the model is shown an owned tool; None for one that is not listed."""
        return self._output.owned.names.get((label, name))

    @property
    def called(self) -> bool:
        """True if the output has something for the client to answer: a call, or a request for consent."""
        return self._output.called

    @property
    def cut(self) -> bool:
        """True if the output's last item is not whole."""
        return self._output.cut

    def leap_to(self, number: int) -> None:
        """Give the next event this number."""
        self._events.sequence = number

    def skip_to(self, number: int) -> None:
        """Be in the middle of a stream, at that number, with nothing of what was made before.

        All that is left to do is to end: for a log that cannot be read back (`engine.response.redrive`).
        """
        self.opened = True
        self._events.sequence = number
        self.phase = Phase.STREAMING
        self._rows = _ROWS[self.phase]

    def receive(self, received: Input) -> list[Effect]:
        """Take what happened and return what is to be done, in order; raises IllegalInput."""
        row = self._rows.get(type(received))
        if row is None:
            raise IllegalInput(f"{type(received).__name__} in {self!r}")
        step, allowed = row
        before = self.phase
        effects = step(self, received)
        if self.phase is not before:
            assert self.phase in allowed, f"{before} -> {self.phase} by {received!r}"
            self._rows = _ROWS[self.phase]
        for observe in self.observers:
            observe(received, before, effects)
        return effects

    # -- beginning ------------------------------------------------------------------------------

    def _queued(self, _received: Queued) -> list[Effect]:
        self.phase = Phase.QUEUED
        self.opened = True
        return [self._send(self._lifecycle.opening("queued", "created", "queued"))]

    def _begin(self, received: Begin) -> list[Effect]:
        asked = self._ask(received.turn)
        if self.opened:
            return [self._send(self._lifecycle.opening("in_progress", "in_progress")), asked]
        return [asked]

    def _ask(self, turn: Plan) -> Effect:
        """Ask for a turn, or first for what is needed to make it."""
        if isinstance(turn, Compaction):
            if self._context is None:
                self._compaction = turn
                self.phase = Phase.COMPACTING
                return Compact(turn)
            turn = turn.goes_on(self._context)
        if isinstance(turn, TurnRequest):
            self.phase = Phase.CALLING
            return CallModel(turn)
        self._rounds.follow(turn)
        if self._rounds.listed:
            return self._next_turn()
        self.phase = Phase.LISTING
        return ListTools()

    def _fits(self, _received: Fits) -> list[Effect]:
        assert self._compaction is not None
        return [self._go_on(self._compaction.context.whole)]

    def _context_compacted(self, received: ContextCompacted) -> list[Effect]:
        """Show the summary, and go on with it in the place of what it covers."""
        compacted, usage = received.compacted, received.usage
        self._count(usage)
        frames = self._open() + (b"" if usage is None else usage_note(usage))
        frames += self._output.compacted(compacted)
        return [self._send(frames), self._go_on([compacted.replay])]

    def _go_on(self, context: list[bytes]) -> Effect:
        assert self._compaction is not None
        self._context = context
        return self._ask(self._compaction)

    def _tools_listed(self, received: ToolsListed) -> list[Effect]:
        self._output.owned = self._rounds.list(received.listings)
        self._unshown = self._rounds.unshown(received.listings)
        if (problem := self._output.owned.problem) is not None:
            return self._refused(problem)
        if approved := self._rounds.approved:
            return self._call_approved(approved)
        call = self._next_turn()
        return [self._send(self._open()), call] if self.opened else [call]

    def _call_approved(self, approved: Sequence[ApprovedCall]) -> list[Effect]:
        """Make the calls that were consented to. From here on the client must not send the request again."""
        self.phase = Phase.RUNNING
        frames = self._open() + b"".join(map(self._output.begin_approved, approved))
        return [self._send(frames), self._rounds.run(self._output.waiting)]

    def _next_turn(self) -> CallModel:
        self.phase = Phase.CALLING
        return CallModel(self._rounds.turn(self._output.owned, self._output.items))

    # -- a turn ---------------------------------------------------------------------------------

    def _waited(self, _received: WaitedLong) -> list[Effect]:
        return [self._send(self._open())]

    def _answered(self, _received: ModelAnswered) -> list[Effect]:
        self.phase = Phase.STREAMING
        frames = self._open()
        return [self._send(frames)] if frames else []

    def _content(self, received: Content) -> list[Effect]:
        frames = self._output.receive(received)
        return [Send(frames, self._events.sequence - 1)]

    def _parts(self, received: Content) -> list[Effect]:
        """Take content that may have notes beside its events, which deltas have not."""
        return [self._send(self._output.receive(received))]

    def _item_ended(self, received: ItemEnded) -> list[Effect]:
        return [self._send(self._output.close(received.status, received.sealed))]

    def _resumed(self, received: Resumed) -> list[Effect]:
        frames = self._output.close_all("incomplete")
        self._output.forget()
        return [self._send(frames), self._ask(received.turn)]

    def _turn_ended(self, received: TurnEnded) -> list[Effect]:
        self._count(received.usage)
        cut = received.incomplete_reason is not None
        frames = b"" if cut else self._output.close_turn()
        if not cut and (waiting := self._output.waiting):
            self.phase = Phase.RUNNING
            self._note = b"" if received.usage is None else usage_note(received.usage)
            return [self._send(frames), self._rounds.run(waiting)]
        effects: list[Effect] = [self._send(frames)] if frames else []
        ended = completed(received.at, received.incomplete_reason, self.usage)
        return effects + self._finish(ended)

    def _count(self, usage: Usage | None) -> None:
        if usage is not None:
            self.usage = usage if self.usage is None else self.usage + usage

    # -- a round of owned calls -----------------------------------------------------------------

    def _tool_ended(self, received: ToolEnded) -> list[Effect]:
        note, self._note = self._note, b""
        return [self._send(note + self._output.end_call(received.item_id, received.outcome))]

    def _round_ended(self, received: RoundEnded) -> list[Effect]:
        """Go on with what the tools answered, unless the client has to answer first or a cap is reached."""
        if self._output.called:
            cut = "worker_lost" if self._output.cut else None
            return self._finish(completed(received.at, cut, self.usage))
        if (cap := self._rounds.cap()) is not None:
            return self._finish(completed(received.at, cap, self.usage))
        return [self._next_turn()]

    # -- the end --------------------------------------------------------------------------------

    def _cut_short(self, received: CutShort) -> list[Effect]:
        return self._finish(
            State(status="incomplete", incomplete_reason=received.reason, usage=self.usage)
        )

    def _cancelled(self, _received: Cancelled) -> list[Effect]:
        return self._finish(State(status="cancelled", usage=self.usage))

    def _failed(self, received: Failed) -> list[Effect]:
        return self._refused(received.error)

    def _refused(self, error: EngineError) -> list[Effect]:
        """Refuse the request as long as its client has heard nothing; else end the response (rule R16)."""
        if self.opened:
            return self._finish(failed(error, self.usage), error)
        self.phase = Phase.CLOSED
        return [Refuse(error)]

    def _finish(self, state: State, error: EngineError | None = None) -> list[Effect]:
        """Close what is open; the terminal events are made, and held until they are saved (rule P1)."""
        frames = self._open()
        frames += self._output.close_all(
            "completed" if state.status == "completed" else "incomplete"
        )
        effects: list[Effect] = [self._send(frames)] if frames else []
        output = list(self._output.items)
        end = self._end = self._lifecycle.end(state, output, error)
        if not self._store:
            return [*effects, *self._close(end)]
        self.phase = Phase.SAVING
        asked = tuple(self._output.asked)
        return [*effects, Save(state.status, end.head, output, end.events, asked)]

    def _saved(self, _received: Saved) -> list[Effect]:
        assert self._end is not None
        return self._close(self._end)

    def _save_failed(self, received: SaveFailed) -> list[Effect]:
        """Say that it failed, by events that take the numbers of those that were never released."""
        assert self._end is not None
        self._events.sequence = self._end.events.first
        state = failed(received.error, self.usage)
        return self._close(self._lifecycle.end(state, self._output.items, received.error))

    def _close(self, end: End) -> list[Effect]:
        self.phase = Phase.CLOSED
        return end.released()

    def _send(self, frames: bytes) -> Send:
        return Send(frames, self._events.sequence - 1, has_held(frames))

    def _open(self) -> bytes:
        """Return `created` and `in_progress` (rule R2), once, and the lists that were not shown yet."""
        frames = b""
        if not self.opened:
            frames = self._lifecycle.opening("in_progress", "created", "in_progress")
        self.opened = True
        unshown, self._unshown = self._unshown, ()
        return frames + self._output.list_tools(unshown)


_M = ResponseMachine
_STEPS: Mapping[type, Callable[..., list[Effect]]] = {
    Queued: _M._queued,
    Begin: _M._begin,
    Fits: _M._fits,
    ContextCompacted: _M._context_compacted,
    ToolsListed: _M._tools_listed,
    ModelAnswered: _M._answered,
    WaitedLong: _M._waited,
    ItemStarted: _M._parts,
    TextDelta: _M._content,
    Cited: _M._parts,
    RefusalDelta: _M._content,
    ArgumentsDelta: _M._content,
    ReasoningDelta: _M._content,
    SummaryDelta: _M._content,
    UpstreamStarted: _M._parts,
    UpstreamEvent: _M._content,
    UpstreamEnded: _M._content,
    ItemEnded: _M._item_ended,
    Resumed: _M._resumed,
    ToolEnded: _M._tool_ended,
    RoundEnded: _M._round_ended,
    TurnEnded: _M._turn_ended,
    Failed: _M._failed,
    CutShort: _M._cut_short,
    Cancelled: _M._cancelled,
    Saved: _M._saved,
    SaveFailed: _M._save_failed,
}
_ROWS = {
    phase: {received: (_STEPS[received], allowed) for received, allowed in rows.items()}
    for phase, rows in TRANSITIONS.items()
}
