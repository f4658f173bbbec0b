"""Pods of the chart's shape `gateway` without a cluster: its containers as processes, a Service before them.

What Kubernetes would do is done in its order, with what the rendered manifests say: Envoy (a native sidecar)
before the workers; at the end the preStop hook, then the workers, then Envoy.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from extproc.envoy.config import render
from extproc.settings import Settings
from extproc.up import lifecycle, probes
from extproc.up.envoy import find_binary
from extproc.up.processes import Command, running
from extproc.up.stack import workers_alone
from tests.support import chart
from tests.support.stack import eventually, reserved_port, short_directory

_CHUNK = 64 << 10
_NEWS_SECONDS = 0.5


class Service:
    """Balances connections over the pods that are ready, as kube-proxy does; knows nothing of requests."""

    def __init__(self) -> None:
        self.ready: list[int] = []
        self._turn = 0
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        """Listen; returns the URL."""
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Break what is connected, and end."""
        if self._server is not None:
            self._server.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._turn += 1
        port = self.ready[self._turn % len(self.ready)]
        to_pod = await asyncio.open_connection("127.0.0.1", port)
        for source, target in ((reader, to_pod[1]), (to_pod[0], writer)):
            task = asyncio.create_task(_pump(source, target))
            self._running.add(task)
            task.add_done_callback(self._running.discard)


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(_CHUNK):
            target.write(data)
            await target.drain()
    except ConnectionError:
        pass
    finally:
        target.close()


@asynccontextmanager
async def pod(
    service: Service, postgres: str, model_url: str, **values: Any
) -> AsyncIterator[Settings]:
    """A pod, ready and in the Service; at the end it goes as Kubernetes lets it go."""
    made = chart.manifests("gateway", model={"url": model_url}, **values)
    spec = chart.pod(made)
    with short_directory() as directory, reserved_port() as port:
        environ = chart.environment(made) | {
            "HOLDFAST_SIDECAR__RUN_DIR": str(directory),
            "HOLDFAST_SIDECAR__NAME": directory.name,
            "HOLDFAST_LISTEN__HOST": "127.0.0.1",
            "HOLDFAST_LISTEN__PORT": str(port),
            "HOLDFAST_METRICS__LISTEN": f"unix:{directory}/metrics.sock",
            "HOLDFAST_POSTGRES__URL": postgres,
            "HOLDFAST_FILES__DIRECTORY": str(directory / "files"),
        }
        settings = Settings.load(None, environ)
        (directory / "envoy.yaml").write_text(render(settings))
        said: list[str] = []
        async with (
            running([_envoy(settings, chart.container(spec, "envoy"))], said.append),
            workers_alone(settings, said.append, "prefixed"),
        ):
            await eventually(partial(_joined, settings))
            service.ready.append(port)
            yield settings
            # It is told to go at once, and the Service a little later: the news has to spread.
            asyncio.get_running_loop().call_later(_NEWS_SECONDS, service.ready.remove, port)
            await _hook(settings, spec)


def _envoy(settings: Settings, container: chart.Manifest) -> Command:
    directory = str(settings.sidecar.run_dir)
    return Command(
        name="envoy",
        argv=[
            str(find_binary(settings)),
            *(each.replace("/run/holdfast", directory) for each in container["args"]),
        ],
        environment=os.environ,
        is_ready=partial(probes.envoy_answers, settings.admin_socket),
    )


async def _joined(settings: Settings) -> bool:
    return await probes.healthy_workers(settings.admin_socket) == settings.sidecar.workers


async def _hook(settings: Settings, spec: chart.Manifest) -> None:
    """Carry out the preStop hook of the workers' container."""
    hook = chart.container(spec, "holdfast")["lifecycle"]["preStop"]["exec"]["command"]
    told = dict(zip(hook[2::2], hook[3::2], strict=True))
    await lifecycle.drain(settings, least=float(told["--least"]), most=float(told["--most"]))
