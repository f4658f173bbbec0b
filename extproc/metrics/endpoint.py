"""`/metrics` of a pod: what all of its workers wrote, merged, and what their supervisor saw of them.

Served by the supervisor, which has no request to answer and cannot be held up by one. It reads files, and
asks no worker: one that is blocked or dead cannot make a scrape fail.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from extproc.http_address import UnixAddress, parse_http_address
from extproc.metrics.declared import BY_NAME
from extproc.settings import Settings
from extproc.up import probes
from extproc.up.processes import StartFailed
from extproc.up.terminal import Report

PATH = "/metrics"
ENVOY_PATH = "/metrics/envoy"


class Attendance:
    """What the supervisor knows of its workers; `directory` has their files."""

    def __init__(self, directory: Path, wanted: int) -> None:
        self._directory = directory
        self._wanted = wanted
        self._running: set[int] = set()
        self._restarts: dict[str, int] = {"ended": 0, "blocked": 0}

    def began(self, index: int) -> None:
        """Note that a worker is ready."""
        self._running.add(index)

    def ended(self, index: int, reason: Literal["ended", "blocked"] | None) -> None:
        """Note that a worker's process is gone; with a `reason`, it is started again.

        What it had open went with it. What it counted stays.
        """
        self._running.discard(index)
        if reason is not None:
            self._restarts[reason] += 1
        mark_process_dead(index, str(self._directory))

    def collect(self) -> Iterator[Family]:
        """Yield the supervisor's own metrics, for the registry."""
        workers = BY_NAME["holdfast_workers"]
        gauge = GaugeMetricFamily(workers.name, workers.meaning, labels=["state"])
        gauge.add_metric(["wanted"], self._wanted)
        gauge.add_metric(["running"], len(self._running))
        yield gauge
        restarts = BY_NAME["holdfast_worker_restarts_total"]
        counter = CounterMetricFamily(restarts.family, restarts.meaning, labels=["reason"])
        for reason, count in self._restarts.items():
            counter.add_metric([reason], count)
        yield counter


class Endpoint:
    """Answers `GET /metrics`, and `GET /metrics/envoy` with what the Envoy of this pod says of itself."""

    def __init__(self, directory: Path, attendance: Attendance, envoy: Path) -> None:
        self._envoy = envoy
        self._registry = CollectorRegistry()
        self._registry.register(attendance)
        self._registry.register(MultiProcessCollector(None, path=str(directory)))
        self._one_at_a_time = asyncio.Lock()

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, in the format that it asks for."""
        if request.path not in (PATH, ENVOY_PATH):
            return web.Response(status=404, text=f"There is only {PATH} here.\n")
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, headers={"allow": "GET, HEAD"})
        if request.path == ENVOY_PATH:
            return await self._of_envoy()
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        async with self._one_at_a_time:
            body = await asyncio.to_thread(encode, self._registry)
        return web.Response(body=body, headers={"content-type": media_type})

    async def _of_envoy(self) -> web.Response:
        """Pass on the one page of Envoy's admin interface that changes nothing and tells no secret."""
        said = await probes.statistics(self._envoy)
        if said is None:
            return web.Response(status=503, text="There is no Envoy in this pod, or it is away.\n")
        return web.Response(text=said)


@asynccontextmanager
async def metrics_served(settings: Settings, report: Report) -> AsyncIterator[Attendance | None]:
    """Serve the metrics of the workers that are run within; None where they are switched off.

    What an earlier life of the pod counted is removed: it counts from 0, all of it. Raises StartFailed.
    """
    if not settings.metrics.enabled:
        yield None
        return
    directory = settings.metrics_directory
    try:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise StartFailed(f"cannot write to {directory}: {error.strerror}") from error
    attendance = Attendance(directory, settings.sidecar.workers)
    server = web.Server(
        Endpoint(directory, attendance, settings.admin_socket).serve, access_log=None
    )
    runner = web.ServerRunner(server, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await _listen(runner, settings, report)
        yield attendance
    finally:
        await runner.cleanup()


async def _listen(runner: web.ServerRunner, settings: Settings, report: Report) -> None:
    address = parse_http_address(settings.metrics.listen)
    site: web.BaseSite
    if isinstance(address, UnixAddress):
        site = web.UnixSite(runner, str(address.path))
    else:
        # The port is nobody else's: two pods on one would answer by turns.
        site = web.TCPSite(runner, address.host, address.port, reuse_address=True)
    try:
        await site.start()
    except OSError as error:
        told = f"metrics cannot be served at {address}: {error.strerror}"
        if "listen" in settings.metrics.model_fields_set:
            raise StartFailed(told) from error
        report(f"{told}; HOLDFAST_METRICS__LISTEN names another address")
        return
    bound = runner.addresses[0]
    where = bound if isinstance(bound, str) else f"http://{bound[0]}:{bound[1]}{PATH}"
    report(f"metrics are served at {where}")
