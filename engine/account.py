"""What became of a response, kept while it runs: for its trace, its log line, Envoy, and who asks at night.

Numbers, names and times, never content (rules P5, X4). Nothing in here is done per token; `received` is once
per chunk of the model's stream.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Self

import msgspec

from engine.api.response_object import Usage
from engine.errors import AlreadyAccepted, ConversationMoved, EngineError
from engine.ports.tracing import NO_SPAN, Attribute, Span, SpanKind
from engine.response.inputs import Ending, Failed
from engine.response.turn import TurnRequest
from engine.upstream.rules import Outcome

_log = logging.getLogger(__name__)

# Names come from outside: so much of one is shown.
_NAME = 200

Fact = str | int | float | bool


class Account:
    """One response's. `span` is the whole of it; `clock` is in seconds, from any beginning."""

    def __init__(
        self,
        response_id: str = "",
        tenant: str = "",
        model: str = "",
        *,
        span: Span = NO_SPAN,
        request_id: str = "",
        digest: bytes = b"",
    ) -> None:
        self.response_id = response_id
        self.tenant = tenant
        self.model = model[:_NAME]
        self.request_id = request_id[:_NAME]
        self.span = span
        self.digest = digest
        """What tells its request from another with the same Idempotency-Key."""
        self.status = ""
        """How it ended: a response's status, or `queued`, `refused`, `repeated` (with a known
        Idempotency-Key), `begun_anew` (a conversation went on meanwhile), `handed_over`, `lost`."""
        self.error = ""
        """The code of the error that ended it."""
        self.usage: Usage | None = None
        """The tokens of the turns that have ended."""
        self.turns = 0
        self.tool_calls = 0
        self.sent = 0
        """Bytes of the answer, as far as it was made for a client."""
        self.client_gone = False
        self.steps: list[Step] = []
        """What is being done now."""
        self.began = time.monotonic()
        self.touched = self.began
        """When something last came from the model."""
        self._observers: list[Callable[[], None]] = []
        self._first: float | None = None
        self._commit: float | None = None

    # -- while it runs --------------------------------------------------------------------------

    def step(self, name: str, kind: SpanKind = "internal") -> Step:
        """Begin a part of the work, which is over when the block ends that it is entered for."""
        return Step(self, name, self.span.child(name, kind))

    def turn(self, turn: TurnRequest) -> TurnStep:
        """Begin a call of the model."""
        self.turns += 1
        step = TurnStep(self, f"chat {self.model}", self.span.child(f"chat {self.model}", "client"))
        step.begin(turn)
        return step

    def call(self, label: str, name: str, item_id: str) -> Step:
        """Begin a call of a tool that the gateway runs."""
        self.tool_calls += 1
        step = self.step(f"execute_tool {name[:_NAME]}")
        step.span.put("gen_ai.operation.name", "execute_tool")
        step.span.put("gen_ai.tool.name", name[:_NAME])
        step.span.put("gen_ai.tool.call.id", item_id)
        step.span.put("gen_ai.tool.type", "extension")
        step.span.put("holdfast.tool.server", label[:_NAME])
        return step

    def save(self) -> Step:
        """Begin the one commit that everything waits for."""
        return _Commit(self, "save", self.span.child("save"))

    def spent(self, usage: Usage | None) -> None:
        """Take the tokens of a turn that has ended, as far as the model server told them."""
        if usage is not None:
            self.usage = usage if self.usage is None else self.usage + usage

    def committed(self, seconds: float) -> None:
        """Take how long it took to store the end."""
        self._commit = seconds

    def received(self, *, output: bool) -> bool:
        """Hear that something came from the model; True if it was the first `output` that there is."""
        self.touched = now = time.monotonic()
        if not output or self._first is not None:
            return False
        self._first = now
        return True

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self.began

    @property
    def until_first(self) -> float:
        """Seconds until its first output; 0 while there is none."""
        return 0.0 if self._first is None else self._first - self.began

    @property
    def since_first(self) -> float:
        """Seconds since its first output; 0 while there is none."""
        return 0.0 if self._first is None else time.monotonic() - self._first

    def observed_by(self, over: Callable[[], None]) -> None:
        """Have somebody told of the end."""
        self._observers.append(over)

    # -- at its end -----------------------------------------------------------------------------

    def close(self, status: str, usage: Usage | None, error: EngineError | None = None) -> None:
        """Take how it ends."""
        self.status = status
        self.usage = usage
        self.error = "" if error is None else error.code or "server_error"

    def refuse(self, error: EngineError) -> None:
        """Take that there is no response of this id: its client is answered otherwise, or by another."""
        if isinstance(error, AlreadyAccepted) and error.digest == self.digest:
            # What its client gets is the response of the first request.
            self.response_id = error.response_id
            self.close("repeated", None)
        elif isinstance(error, ConversationMoved):
            self.close("begun_anew", None, error)
        else:
            self.close("refused", None, error)

    def end(self) -> None:
        """Write its log line and end its span: the run is over."""
        self.end_span()
        if self.status != "begun_anew":
            _log.info("response ended", extra={"fields": self.line()})
        for observer in self._observers:
            observer()

    def end_span(self) -> None:
        """End its span alone: what was accepted here is run somewhere else, or was never begun."""
        span = self.span
        for name, value in (
            ("gen_ai.operation.name", "invoke_agent"),
            ("gen_ai.request.model", self.model),
            ("gen_ai.response.id", self.response_id),
            ("holdfast.tenant", self.tenant),
            ("holdfast.status", self.status),
            ("holdfast.turns", self.turns),
            ("holdfast.tool_calls", self.tool_calls),
        ):
            span.put(name, value)
        put_usage(span, self.usage)
        if self._first is not None:
            span.put("holdfast.ttft_ms", _ms(self.until_first))
        if self.error:
            span.fail(self.error)
        span.end()

    def facts(self) -> dict[str, Fact]:
        """Return what Envoy may know of it, as far as it has come; what is empty is left out."""
        told: dict[str, Fact] = {
            "response_id": self.response_id,
            "model": self.model,
            "tenant": self.tenant,
            "trace_id": self.span.trace_id,
            "status": self.status,
            "error": self.error,
        }
        told = {name: value for name, value in told.items() if value != ""}
        if self.status or self.usage is not None:
            told |= {"turns": self.turns, "tool_calls": self.tool_calls, **tokens(self.usage)}
        return told

    def line(self) -> dict[str, Fact]:
        """Return the fields of its log line; milliseconds since it came in, and of the commit."""
        times = {"duration_ms": _ms(self.seconds)}
        if self._first is not None:
            times["ttft_ms"] = _ms(self.until_first)
        if self._commit is not None:
            times["commit_ms"] = _ms(self._commit)
        return {
            **self.facts(),
            **times,
            "bytes": self.sent,
            "client_gone": self.client_gone,
            **({"request_id": self.request_id} if self.request_id else {}),
        }

    def ids(self) -> dict[str, Fact]:
        """Return what joins a log line about it with all others."""
        ids = {
            "response_id": self.response_id,
            "tenant": self.tenant,
            "trace_id": self.span.trace_id,
            "request_id": self.request_id,
        }
        return {name: value for name, value in ids.items() if value}


CURRENT: ContextVar[Account | None] = ContextVar("account", default=None)
"""Whose run this task and its children are: read where a log line is written, and nowhere else."""


class Step:
    """A part of the work that takes time; `span` is its own."""

    def __init__(self, account: Account, name: str, span: Span) -> None:
        self.name = name
        self.span = span
        self.began = time.monotonic()
        self._account = account

    def __enter__(self) -> Self:
        """Be counted among what is being done."""
        self._account.steps.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Be over; an error is told by its code or its type."""
        if error is not None:
            self.fail(error)
        self._account.steps.remove(self)
        self.span.end()

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self.began

    def fail(self, error: BaseException) -> None:
        """Say that it failed."""
        code = error.code if isinstance(error, EngineError) else None
        self.span.fail(code or type(error).__name__)


class TurnStep(Step):
    """A call of the model; `request` is the turn with what carries the trace on."""

    request: TurnRequest

    def begin(self, turn: TurnRequest) -> None:
        """Take what is asked of the model."""
        carried = self.span.headers
        self.request = (
            msgspec.structs.replace(turn, headers={**turn.headers, **carried}) if carried else turn
        )
        self.span.put("gen_ai.operation.name", "chat")
        self.span.put("gen_ai.request.model", self._account.model)
        self.span.put("gen_ai.output.type", "json" if turn.rules.structured else "text")
        self.span.put("holdfast.turn", self._account.turns)
        self.span.put("holdfast.dialect", turn.dialect)
        if self.span.content:
            self.span.put("holdfast.turn.request", turn.body.decode("utf-8", "replace"))

    def over(self, ending: Ending, outcome: Outcome | None) -> None:
        """Take how it ended; `outcome` is the model's own word, None where it broke off before that."""
        if outcome is not None:
            self._account.spent(outcome.usage)
            put_usage(self.span, outcome.usage)
            if outcome.error is None:
                reason = outcome.incomplete_reason or "stop"
                self.span.put("gen_ai.response.finish_reasons", (reason,))
        if isinstance(ending, Failed):
            self.fail(ending.error)


class _Commit(Step):
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._account.committed(self.seconds)
        super().__exit__(kind, error, _)


def tokens(usage: Usage | None) -> Mapping[str, int]:
    """Return the counts of tokens by the names that lines and Envoy know them by."""
    if usage is None:
        return {}
    return {
        "input_tokens": usage.input_tokens,
        "cached_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def put_usage(span: Span, usage: Usage | None) -> None:
    """Put the counts of tokens into a span, by the names of OpenTelemetry's conventions."""
    if usage is None:
        return
    counts: tuple[tuple[str, Attribute], ...] = (
        ("gen_ai.usage.input_tokens", usage.input_tokens),
        ("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens),
        ("gen_ai.usage.output_tokens", usage.output_tokens),
    )
    for name, value in counts:
        span.put(name, value)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
