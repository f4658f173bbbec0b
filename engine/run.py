"""What a run is and what it works with: values, fixed when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import msgspec

from engine.account import Account
from engine.api.headers import OnDisconnect
from engine.counting import Counting
from engine.detached import Detached
from engine.eventlog import Notify
from engine.limits import Limits
from engine.ports import (
    AnswerClaim,
    Clock,
    EventBatch,
    Lease,
    ModelClient,
    NewResponse,
    Sealing,
    Store,
    ToolProvider,
)
from engine.ports.meters import NO_METERS, Meters
from engine.ports.tracing import NO_TRACES, Tracer
from engine.response.inputs import Input
from engine.response.machine import ResponseMachine
from engine.retries import RetryBudget
from engine.summaries import Summaries
from engine.toolbox import Toolbox
from engine.truncation import Truncation
from engine.upstream.choice import Choice


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is fixed when a run starts.

    `first` is what its machine is told first: `Begin` for a new response. `new` is what is accepted while
    the model is called (before it is, with an Idempotency-Key); a run that somebody else accepted has its
    `lease` instead. With neither, nothing is stored.

    `stream`: the client sees events. `streamed`: the events are logged; `unlogged` are some that a machine
    that was redriven has made beyond its log. `on_disconnect` says what its client's leaving does to a
    stored response, and `background` that there is no client. `providers` run the tools that are ours.

    `claim` are answers to requests for consent that it takes without being stored; `approved` says that
    calls come before its first turn.

    `inherited` is how a client was answered by the worker that died, if there was a client: the run goes on
    without one.

    `model` makes its turns; None: the worker's own way. `account` says what became of it.
    """

    id: str
    machine: ResponseMachine
    first: Input
    model: ModelClient | None = None
    new: NewResponse | None = None
    lease: Lease | None = None
    stream: bool = False
    streamed: bool = False
    unlogged: EventBatch | None = None
    background: bool = False
    inherited: Literal["stream", "whole"] | None = None
    on_disconnect: OnDisconnect = "continue"
    providers: tuple[ToolProvider, ...] = ()
    claim: AnswerClaim | None = None
    approved: bool = False
    account: Account = msgspec.field(default_factory=Account)

    @property
    def stored(self) -> bool:
        """True if it survives its client."""
        return self.new is not None or self.lease is not None

    @property
    def answers(self) -> bool:
        """True if it takes answers to requests for consent when it is accepted."""
        return self.claim is not None or (self.new is not None and bool(self.new.answers))


@dataclass(frozen=True, slots=True)
class Means:
    """What every loop of a worker works with."""

    model: ModelClient
    tools: Toolbox
    sealing: Sealing
    store: Store
    clock: Clock
    limits: Limits
    notify: Notify
    detached: Detached
    choice: Choice
    truncation: Truncation
    counting: Counting
    summaries: Summaries
    retries: RetryBudget = field(default_factory=RetryBudget)
    meters: Meters = NO_METERS
    tracer: Tracer = NO_TRACES
