"""`extproc.tracing`: from ended spans to a collector, or to none."""

from __future__ import annotations

import logging
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from pydantic import SecretStr, ValidationError

from engine.ports.tracing import NO_TRACES
from extproc.settings import Settings
from extproc.settings_source import SettingsError
from extproc.settings_traces import Traces
from extproc.tracing.export import Delivered
from extproc.tracing.worker import traces
from tests.support.collector import Collector

GONE, DELIVERED = SpanExportResult.FAILURE, SpanExportResult.SUCCESS


class _Exporter(SpanExporter):
    def __init__(self, *results: SpanExportResult) -> None:
        self._results = list(results)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._results.pop(0)


async def test_what_has_ended_is_delivered_before_the_worker_ends() -> None:
    """With the service's name, its version and the worker's, and the headers that the collector wants."""
    async with Collector() as collector:
        settings = Traces(
            endpoint=collector.url, headers=SecretStr("X-Key=k=1, y=2"), service_name="chat"
        )
        async with traces(settings, "host/0#1") as tracer:
            span = tracer.begin("response", "server", {})
            span.child("save").end()
            span.end()
        [response] = [s for s in collector.spans if s.name == "response"]
        assert [s.parent for s in collector.spans if s.name == "save"] == [response.id]
        assert response.trace_id == span.trace_id
        assert response.resource["service.name"] == "chat"
        assert response.resource["service.instance.id"] == "host/0#1"
        assert collector.metadata[0].items() >= {"x-key": "k=1", "y": "2"}.items()


@pytest.mark.parametrize("listens", [True, False], ids=["silent", "away"])
async def test_a_collector_that_takes_nothing_costs_a_line_and_moments(
    caplog: pytest.LogCaptureFixture, *, listens: bool
) -> None:
    """Spans go into a bounded queue at once; the end of the worker waits for seconds, not for ever."""
    caplog.set_level(logging.INFO)
    with _port(listens=listens) as port:
        begun = time.monotonic()
        async with traces(Traces(endpoint=f"http://127.0.0.1:{port}"), "host/0#1") as tracer:
            for _ in range(5000):
                tracer.begin("response", "server", {}).end()
            spent = time.monotonic() - begun
        assert time.monotonic() - begun < spent + 10
    # Perhaps another one's last words, too: nobody waits for them.
    said = [record.getMessage() for record in caplog.records]
    lost = f"traces do not reach http://127.0.0.1:{port} and are dropped"
    late = "the last traces could not be delivered in 3 seconds"
    assert said.count(lost) + said.count(late) >= 1
    assert said.count(lost) <= 1
    assert said.count(late) <= 1


def test_that_traces_are_lost_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """And once that they are not any more."""
    caplog.set_level(logging.INFO)
    delivered = Delivered(
        _Exporter(DELIVERED, GONE, GONE, GONE, DELIVERED, DELIVERED), "http://otel:4317"
    )
    for _ in range(6):
        delivered.export(())
    assert [r.getMessage() for r in caplog.records] == [
        "traces do not reach http://otel:4317 and are dropped",
        "traces reach http://otel:4317 again",
    ]


async def test_without_an_endpoint_nothing_is_traced_and_no_sdk_is_loaded() -> None:
    """What is not asked for costs nothing."""
    async with traces(Traces(), "host/0#1") as tracer:
        assert tracer is NO_TRACES


async def test_without_the_extra_the_worker_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """H3: and does not begin to serve without what was asked for."""
    for name in ("extproc.tracing.export", "extproc.tracing.otel"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsError, match="the extra 'traces'"):
        async with traces(Traces(endpoint="http://otel:4317"), "host/0#1"):
            pass


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoint": "otel:4317"},
        {"endpoint": "http://otel:4318/v1/traces"},
        {"endpoint": "http://user:secret@otel:4317"},
        {"headers": "secret"},
        {"headers": "a=secret,b"},
        {"sample_ratio": 1.5},
    ],
    ids=str,
)
def test_wrong_settings_are_refused_without_being_shown(wrong: dict[str, object]) -> None:
    """X4: a value may be a secret."""
    with pytest.raises(ValidationError) as refused:
        Traces(**wrong)  # type: ignore[arg-type]
    assert "secret" not in str(refused.value)


def test_the_variables_of_opentelemetry_are_understood() -> None:
    """As platforms set them; ours win."""
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel:4317",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=k",
        "OTEL_SERVICE_NAME": "chat",
        "HOLDFAST_TRACES__SERVICE_NAME": "mine",
    }
    settings = Settings.load(None, environ).traces
    assert settings.endpoint == "http://otel:4317"
    assert settings.pairs() == (("x-key", "k"),)
    assert settings.service_name == "mine"


async def test_a_platform_that_disables_the_sdk_gets_no_traces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And a worker that starts."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    async with traces(Traces(endpoint="http://127.0.0.1:1"), "w") as tracer:
        assert tracer is NO_TRACES


@contextmanager
def _port(*, listens: bool) -> Iterator[int]:
    """A port at which nobody answers: because nobody is there, or because somebody is silent."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        if listens:
            bound.listen()
        yield bound.getsockname()[1]
