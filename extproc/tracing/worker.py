"""The traces of a worker: those that the settings ask for, or none."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.ports.tracing import NO_TRACES, Tracer
from extproc.settings_source import SettingsError
from extproc.settings_traces import Traces


def _sdk_is_disabled() -> bool:
    """Return whether OpenTelemetry's own variable, which platforms set, says that there are no traces."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


@asynccontextmanager
async def traces(settings: Traces, worker: str) -> AsyncIterator[Tracer]:
    """Yield what begins traces; on exit the last ones are delivered.

    Raises SettingsError where the extra is not installed.
    """
    if settings.endpoint is None or _sdk_is_disabled():
        yield NO_TRACES
        return
    try:
        from extproc.tracing.export import exporting
        from extproc.tracing.otel import OtelTracer
    except ImportError as error:
        raise SettingsError(
            [
                "HOLDFAST_TRACES__ENDPOINT (traces.endpoint) needs the extra 'traces' "
                f"(docs/traces.md): {error}"
            ]
        ) from error
    async with exporting(settings, worker) as tracer:
        yield OtelTracer(tracer, content=settings.content)
