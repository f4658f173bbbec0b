"""The endpoint by itself: where it listens, what it answers, and what it does where it cannot."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from extproc.metrics.counting import counting
from extproc.metrics.endpoint import metrics_served
from extproc.settings import Settings
from extproc.up.processes import StartFailed


def _settings(directory: Path, **metrics: Any) -> Settings:
    return Settings(data_dir=directory).having(sidecar={"workers": 2}, metrics=metrics)


async def _get(url: str, path: str = "/metrics", **given: Any) -> tuple[int, str, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(given.pop("method", "GET"), f"{url}{path}", **given) as answer,
    ):
        return answer.status, answer.headers.get("content-type", ""), await answer.text()


async def test_it_answers_in_the_format_that_is_asked_for(tmp_path: Path) -> None:
    """Prometheus asks for OpenMetrics, a person for text; nothing else is here."""
    said: list[str] = []
    settings = _settings(tmp_path, listen=":0")
    async with metrics_served(settings, said.append) as attendance:
        assert attendance is not None
        attendance.began(0)
        with counting(settings, 0) as meters:
            assert meters is not None
            meters.storage_retry()
        [url] = re.findall(r"http://127\.0\.0\.1:\d+", said[0])
        status, kind, plain = await _get(url)
        assert (status, kind.split(";")[0]) == (200, "text/plain")
        assert "\nholdfast_storage_retries_total 1.0\n" in plain
        assert '\nholdfast_workers{state="running"} 1.0\n' in plain
        accept = {"accept": "application/openmetrics-text;version=1.0.0"}
        status, kind, exact = await _get(url, headers=accept)
        assert (status, kind.split(";")[0]) == (200, "application/openmetrics-text")
        assert list(text_string_to_metric_families(exact))
        assert (await _get(url, "/"))[0] == 404
        assert (await _get(url, method="POST"))[0] == 405
        # There is no Envoy here.
        assert (await _get(url, "/metrics/envoy"))[0] == 503


async def test_a_new_pod_begins_at_zero(tmp_path: Path) -> None:
    """All counters begin again together, which Prometheus takes for a restart."""
    settings = _settings(tmp_path, listen=f"unix:{tmp_path}/m.sock")
    for _life in range(2):
        async with metrics_served(settings, lambda _line: None):
            assert not list(settings.metrics_directory.iterdir())
            with counting(settings, 0):
                assert list(settings.metrics_directory.iterdir())


async def test_a_taken_port_stops_nobody_who_did_not_ask_for_it(tmp_path: Path) -> None:
    """Two stacks on one laptop both start; who names an address means it."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(StartFailed, match=re.escape(taken)):
            async with metrics_served(_settings(tmp_path, listen=taken), lambda _line: None):
                pass
        # As where 9464, which nobody has named, is another's.
        by_default = _settings(tmp_path)
        metrics = by_default.metrics.model_construct(_fields_set=set(), listen=taken)
        said: list[str] = []
        unnamed = by_default.model_copy(update={"metrics": metrics})
        async with metrics_served(unnamed, said.append):
            assert "HOLDFAST_METRICS__LISTEN" in said[0]


async def test_switched_off_nothing_is_written(tmp_path: Path) -> None:
    """No file, no socket, no meters."""
    settings = _settings(tmp_path, enabled=False)
    async with metrics_served(settings, lambda _line: None) as attendance:
        assert attendance is None
        with counting(settings, 0) as meters:
            assert meters is None
    assert not settings.sidecar.run_dir.exists()


def test_a_worker_serves_without_a_place_to_write(tmp_path: Path) -> None:
    """Metrics are no reason not to answer."""
    (tmp_path / "run").write_text("no directory")
    with counting(_settings(tmp_path), 0) as meters:
        assert meters is None
