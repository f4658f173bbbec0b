"""Traces, as a port: what was done for a response, as spans that are begun and ended by hand.

Nothing is kept in context variables: who does a part of the work is given the span that it belongs to. Where
nothing is traced, all of it costs an empty call; nothing here is called per token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, Protocol

Attribute = str | int | float | bool | tuple[str, ...]
SpanKind = Literal["server", "client", "internal"]
NO_HEADERS: Mapping[str, str] = {}

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class Span(Protocol):
    """A part of a trace that has begun; its methods never raise, and nothing after `end` counts."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits; "" where the request belongs to no trace."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What carries the trace on to another server (`traceparent`, `tracestate`); empty: nothing new."""

    @property
    def content(self) -> bool:
        """True if what people and models said may be put into it: somebody has asked for that."""

    def child(self, name: str, kind: SpanKind = "internal") -> Span:
        """Begin a part of it."""

    def put(self, name: str, value: Attribute | None) -> None:
        """Set an attribute; None sets nothing."""

    def fail(self, kind: str) -> None:
        """Say that it failed, by the code of an error or its type, never by its message."""

    def end(self) -> None:
        """Say that it is over."""


class Tracer(Protocol):
    """Begins traces, or goes on with those of others."""

    def begin(self, name: str, kind: SpanKind, headers: Mapping[str, str]) -> Span:
        """Begin a span within the trace that `headers` carry, or a trace of its own."""


class NoSpan:
    """A span that is not recorded; `trace_id` is that of a caller who traces."""

    __slots__ = ("trace_id",)

    headers = NO_HEADERS
    content = False

    def __init__(self, trace_id: str = "") -> None:
        self.trace_id = trace_id

    def child(self, name: str, kind: SpanKind = "internal") -> Span:
        """Return it."""
        return self

    def put(self, name: str, value: Attribute | None) -> None:
        """Do nothing."""

    def fail(self, kind: str) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""


class NoTraces:
    """Records nothing; what others trace keeps its headers, which pass through unchanged."""

    def begin(self, name: str, kind: SpanKind, headers: Mapping[str, str]) -> Span:
        """Return a span that only knows the trace of the headers."""
        told = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
        return NoSpan(told[1]) if told else NO_SPAN


NO_SPAN = NoSpan()
NO_TRACES = NoTraces()
