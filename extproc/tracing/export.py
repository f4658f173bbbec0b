"""From ended spans to a collector: batches in a thread of their own, a bounded queue, OTLP over gRPC.

The event loop only puts a span into a queue. A collector that is away costs what it is not told, and one
log line for each time that it goes and comes back.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from extproc.settings_traces import Traces

_log = logging.getLogger(__name__)

# They tell of each attempt, of each span that is dropped, and with tracebacks; `Delivered` says it once.
for _name in ("opentelemetry.exporter", "opentelemetry.sdk"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)

_QUEUE = 4096
_BATCH = 512
_EVERY_MS = 2_000
_TIMEOUT = 5
"""Seconds for one batch, its repetitions included."""
_LAST_WORDS = 3.0
"""Seconds for what is left when the worker ends."""


class Delivered(SpanExporter):
    """An exporter that says once that it cannot deliver, and once that it can again."""

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Deliver a batch; what cannot be delivered is dropped."""
        result = self._exporter.export(spans)
        away = result is not SpanExportResult.SUCCESS
        if away and not self._away:
            _log.warning("traces do not reach %s and are dropped", self._endpoint)
        elif self._away and not away:
            _log.info("traces reach %s again", self._endpoint)
        self._away = away
        return result

    def shutdown(self) -> None:
        """Give up what is being delivered."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Return True: nothing is kept here."""
        return True


@asynccontextmanager
async def exporting(settings: Traces, worker: str) -> AsyncIterator[SdkTracer]:
    """Yield what begins spans; on exit what has ended is delivered, within seconds.

    `settings` have an endpoint, and OpenTelemetry's SDK is not disabled.
    """
    assert settings.endpoint is not None
    exporter = OTLPSpanExporter(
        endpoint=settings.endpoint, headers=settings.pairs(), timeout=_TIMEOUT
    )
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
        resource=Resource.create(
            {
                "service.name": settings.service_name,
                "service.version": version("holdfast"),
                "service.instance.id": worker,
            }
        ),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(
        BatchSpanProcessor(
            Delivered(exporter, settings.endpoint),
            max_queue_size=_QUEUE,
            schedule_delay_millis=_EVERY_MS,
            max_export_batch_size=_BATCH,
        )
    )
    tracer = provider.get_tracer("holdfast", version("holdfast"))
    assert isinstance(tracer, SdkTracer), "the SDK is disabled"
    try:
        yield tracer
    finally:
        await _within(_LAST_WORDS, provider.shutdown)


async def _within(seconds: float, work: Callable[[], None]) -> None:
    """Do blocking work in a thread that nobody waits for any longer than that."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()

    def run() -> None:
        try:
            work()
            loop.call_soon_threadsafe(over.set)
        except RuntimeError:
            # The loop is closed: nobody waits.
            pass

    threading.Thread(target=run, daemon=True, name="last traces").start()
    try:
        async with asyncio.timeout(seconds):
            await over.wait()
    except TimeoutError:
        _log.warning("the last traces could not be delivered in %g seconds", seconds)
