"""Spans of the OpenTelemetry SDK, begun and ended by hand: no context variable is read or set."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from engine.ports.tracing import Attribute, SpanKind
from engine.ports.tracing import Span as SpanPort

_KINDS: Mapping[SpanKind, trace.SpanKind] = {
    "server": trace.SpanKind.SERVER,
    "client": trace.SpanKind.CLIENT,
    "internal": trace.SpanKind.INTERNAL,
}
# What content of one attribute is kept.
_LONGEST = 64 << 10

_propagator = TraceContextTextMapPropagator()


class OtelTracer:
    """Begins spans; `content` lets what was said into them."""

    def __init__(self, tracer: SdkTracer, *, content: bool) -> None:
        self._tracer = tracer
        self._content = content

    def begin(self, name: str, kind: SpanKind, headers: Mapping[str, str]) -> SpanPort:
        """Begin a span within the trace that `headers` carry, or a trace of its own."""
        # An empty context of our own: never the one that happens to be current.
        context = _propagator.extract(headers, Context())
        return _OtelSpan(self._tracer, name, kind, context, content=self._content)


class _OtelSpan:
    __slots__ = ("_context", "_span", "_tracer", "content", "trace_id")

    def __init__(
        self, tracer: SdkTracer, name: str, kind: SpanKind, parent: Context, *, content: bool
    ) -> None:
        self._tracer = tracer
        self._span = tracer.start_span(name, context=parent, kind=_KINDS[kind])
        self._context = trace.set_span_in_context(self._span, Context())
        self.content = content and self._span.is_recording()
        self.trace_id = trace.format_trace_id(self._span.get_span_context().trace_id)

    @property
    def headers(self) -> Mapping[str, str]:
        carried: dict[str, str] = {}
        _propagator.inject(carried, self._context)
        return carried

    def child(self, name: str, kind: SpanKind = "internal") -> SpanPort:
        if not self._span.is_recording():
            # Nobody sees it: what it would carry on is that nothing is recorded, as this one does.
            return self
        return _OtelSpan(self._tracer, name, kind, self._context, content=self.content)

    def put(self, name: str, value: Attribute | None) -> None:
        if value is not None:
            self._span.set_attribute(name, value[:_LONGEST] if isinstance(value, str) else value)

    def fail(self, kind: str) -> None:
        self._span.set_attribute("error.type", kind)
        self._span.set_status(trace.StatusCode.ERROR)

    def end(self) -> None:
        self._span.end()
