"""The composition root: builds every part of a worker and owns their lifetimes."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.limits import Limits
from engine.responses import Responses
from engine.runs import Runs
from extproc.admission import Admission
from extproc.envoy.endpoint import ModelEndpoint, parse_model_url
from extproc.exchange import Exchanges
from extproc.grpc_server import GrpcTransport
from extproc.http_server import HttpExchanges, HttpTransport
from extproc.model_client import HttpModelClient
from extproc.settings import Settings, SettingsError
from extproc.transport import Together, Transport
from storage.postgres.pool import open_pool
from storage.postgres.responses import PostgresResponseStore

_log = logging.getLogger(__name__)

# Seconds for the terminal events of stopped runs to reach their clients.
_LAST_WORDS = 2.0
# Longer than any run: what ends the streams is that their runs have ended.
_FOR_EVER = 86_400.0


class Worker:
    """A worker that is built and not yet serving."""

    def __init__(self, transport: Transport, runs: Runs, settings: Settings) -> None:
        self._transport = transport
        self._runs = runs
        self._sidecar = settings.sidecar

    async def serve(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain (rule E4).

        First Envoy learns that it shall send nothing new, then new streams are refused, then what runs
        gets its time; what is left is brought to a terminal state.
        """
        await self._transport.start()
        _log.info("serving")
        await stop.wait()
        _log.info("draining, %d responses running", len(self._runs))
        await self._transport.drain()
        await asyncio.sleep(self._sidecar.drain_seconds)
        # New streams are refused from here on. Streams end when their runs do, and a run that is stopped
        # may have to wait for the store: however long that takes, its client hears of its end.
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._sidecar.grace_seconds
        stopping = asyncio.create_task(self._transport.stop(_FOR_EVER))
        await self._runs.drain(self._sidecar.grace_seconds)
        await self._transport.stop(max(_LAST_WORDS, deadline - clock()))
        await stopping
        # A stream that was still reading its body may have started a run after the others were counted.
        await self._runs.drain(0)
        _log.info("stopped")


@asynccontextmanager
async def worker(settings: Settings, index: int) -> AsyncIterator[Worker]:
    """Build worker `index`; its connections are closed on exit. Raises SettingsError without a database."""
    if settings.postgres.url is None:
        raise SettingsError(["HOLDFAST_POSTGRES__URL is not set"])
    runs = Runs()
    async with (
        open_pool(
            settings.postgres.url.get_secret_value(),
            min_size=min(2, settings.postgres.pool_size),
            max_size=settings.postgres.pool_size,
            timeout=settings.postgres.timeout_seconds,
        ) as pool,
        model_client(settings) as model,
    ):
        responses = Responses(
            store=PostgresResponseStore(pool),
            model=model,
            runs=runs,
            clock=lambda: int(time.time()),
            randomness=os.urandom,
            limits=_limits(settings),
            worker=f"{settings.sidecar.name}/{index}",
        )
        yield Worker(_transport(settings, index, responses), runs, settings)


def _transport(settings: Settings, index: int, responses: Responses) -> Transport:
    """Return ext_proc, and HTTP where it is asked for; both tell of one health, the former's."""
    exchanges = Exchanges(
        responses,
        body_limit=settings.limits.body_bytes,
        forward_authorization=settings.model.forward_authorization,
    )
    ext_proc = GrpcTransport(f"unix:{settings.worker_socket(index).absolute()}", exchanges.serve)
    address = settings.http_address(index)
    if address is None:
        return ext_proc
    admission = Admission(
        body_limit=settings.limits.body_bytes,
        forward_authorization=settings.model.forward_authorization,
    )
    return Together(HttpTransport(address, HttpExchanges(responses, admission)), ext_proc)


def model_client(settings: Settings) -> HttpModelClient:
    """Return the way to the model: through Envoy's private listener, or straight to its URL."""
    model, key = settings.model, settings.model.api_key
    direct = parse_model_url(model.url) if model.via == "url" and model.url is not None else None
    return HttpModelClient(
        direct or ModelEndpoint(authority="model", socket=model.socket),
        trusted=model.ca_file,
        connect=settings.model.connect_seconds,
        silence=settings.model.silence_seconds,
        api_key=None if key is None else key.get_secret_value(),
    )


def _limits(settings: Settings) -> Limits:
    limits, sidecar = settings.limits, settings.sidecar
    return Limits(
        input_items=limits.input_items,
        tools=limits.tools,
        line_bytes=limits.line_bytes,
        response_bytes=limits.response_bytes,
        error_bytes=limits.error_bytes,
        answer_bytes=limits.response_bytes,
        open_after=sidecar.open_after_seconds,
        heartbeat=sidecar.heartbeat_seconds,
        turn=settings.model.turn_seconds,
        save_wait=settings.postgres.outage_seconds,
        lease=settings.postgres.lease_seconds,
    )
