"""Traces in the process: the real tracer of the SDK, whose spans are kept instead of exported."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from extproc.tracing.otel import OtelTracer


class Traced:
    """`tracer` is for the engine; `ratio` and `content` as the settings have them."""

    def __init__(self, *, ratio: float = 1.0, content: bool = False) -> None:
        self._kept = InMemorySpanExporter()
        provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)), shutdown_on_exit=False
        )
        provider.add_span_processor(SimpleSpanProcessor(self._kept))
        made = provider.get_tracer("test")
        assert isinstance(made, SdkTracer)
        self.tracer = OtelTracer(made, content=content)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """All that have ended."""
        return self._kept.get_finished_spans()

    def named(self, name: str) -> ReadableSpan:
        """Return the one span of that name."""
        [found] = [span for span in self.spans if span.name == name]
        return found

    def attributes(self, name: str) -> dict[str, Any]:
        """Return the attributes of the one span of that name."""
        return dict(self.named(name).attributes or {})

    def parent_of(self, name: str) -> str:
        """Return the name of a span's parent; its id, where that is not one of ours."""
        parent = self.named(name).parent
        assert parent is not None
        ours = {span.context.span_id: span.name for span in self.spans if span.context is not None}
        return ours.get(parent.span_id, f"{parent.span_id:016x}")


def trace_ids(traced: Traced) -> set[str]:
    """Return the ids of all traces that there are spans of."""
    return {f"{span.context.trace_id:032x}" for span in traced.spans if span.context is not None}
