"""The composition root: builds every part of a worker and owns their lifetimes."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from engine.ports import ModelClient
from engine.ports.meters import NO_METERS
from engine.upstream.choice import Choice
from extproc.admission import Admission
from extproc.connectors import shared_policies
from extproc.debugging import window
from extproc.engine_parts import Engine
from extproc.exchange import Exchanges
from extproc.extraction.documents import open_extraction
from extproc.files import file_store, url_fetcher
from extproc.grpc_server import GrpcTransport
from extproc.held_request import Riding
from extproc.http_server import HttpExchanges, HttpTransport
from extproc.identity import (
    Identify,
)
from extproc.mcp.worker import McpServers, mcp_servers
from extproc.metrics.counted import UNCOUNTED, Door
from extproc.metrics.counting import counting
from extproc.metrics.meters import RequestMeters
from extproc.metrics.sampling import Sampling
from extproc.model_client import HttpModelClient, NoModelClient, turn_headers
from extproc.operations import Endpoints
from extproc.retrieval import open_retrieval
from extproc.scout import Scout
from extproc.settings import Settings, SettingsError
from extproc.tracing.worker import traces
from extproc.transport import Together, Transport
from extproc.values import (
    dialect_choice,
    handover_of,
    identity_source,
    mcp_limits,
    model_client,
    model_key,
    outbound_policy,
    sealing_of,
)
from storage.postgres.pool import open_pool
from storage.postgres.store import PostgresStore
from storage.postgres.writer import Writer

_log = logging.getLogger(__name__)

_UNCOUNTED = {"ext_proc": UNCOUNTED, "http": UNCOUNTED}
# Seconds for the terminal events of stopped runs to reach their clients.
_LAST_WORDS = 2.0
# Longer than any run: what ends the streams is that their runs have ended.
_FOR_EVER = 86_400.0
_DAY = 86_400.0


class Worker:
    """A worker that is built and not yet serving."""

    def __init__(
        self,
        transport: Transport,
        engine: Engine,
        settings: Settings,
        sampling: Sampling | None = None,
    ) -> None:
        self._sampling = sampling
        self._transport = transport
        self._engine = engine
        self._sidecar = settings.sidecar

    async def serve(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain (rule E4)."""
        await self._transport.start()
        self._engine.start()
        if self._sampling is not None:
            self._sampling.start()
        _log.info("serving")
        await stop.wait()
        if self._sampling is not None:
            self._sampling.draining = True
        _log.info("draining, %d responses running", len(self._engine.live))
        await self._drain()
        if self._sampling is not None:
            await self._sampling.stop()
        _log.info("stopped")

    async def _drain(self) -> None:
        """End in the order in which nothing is lost.

        First Envoy learns that it shall send nothing new and nothing more is taken from the queue, then new
        streams are refused, then what runs gets its time. What is left is handed over where no client
        waits for it here, and otherwise brought to a terminal state.
        """
        live, following = self._engine.live, self._engine.following
        await self._transport.drain()
        chores = asyncio.create_task(self._engine.stop_chores())
        await asyncio.sleep(self._sidecar.drain_seconds)
        # New streams are refused from here on. Streams end when their runs do, and a run that is stopped
        # may have to wait for the store: however long that takes, its client hears of its end.
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._sidecar.grace_seconds
        stopping = asyncio.create_task(self._transport.stop(_FOR_EVER))
        await live.drain(self._sidecar.grace_seconds)
        # Those who read what runs elsewhere, or read slowly, have the same time.
        await asyncio.wait({stopping}, timeout=max(0.0, deadline - clock()))
        following.stop()
        self._engine.lines.stop()
        await self._transport.stop(_LAST_WORDS)
        await stopping
        # A stream that was still reading its body may have started a run after the others were counted.
        await live.drain(0)
        await asyncio.wait({chores}, timeout=_LAST_WORDS)


@asynccontextmanager
async def worker(settings: Settings, index: int) -> AsyncIterator[Worker]:
    """Build worker `index`; its connections are closed on exit. Raises SettingsError without a database."""
    if settings.postgres.url is None:
        raise SettingsError(["HOLDFAST_POSTGRES__URL is not set"])
    # What follows the # is another each time, so that a new life can tell what its predecessor left.
    name = f"{settings.sidecar.name}/{index}#{os.urandom(4).hex()}"
    parts = AsyncExitStack()
    meters = parts.enter_context(counting(settings, index))
    doors = {way: Door(meters or RequestMeters()) for way in ("ext_proc", "http")}
    async with (
        parts,
        open_pool(
            settings.postgres.url.get_secret_value(),
            min_size=min(2, settings.postgres.pool_size),
            max_size=settings.postgres.pool_size,
            timeout=settings.postgres.timeout_seconds,
            meters=meters or NO_METERS,
        ) as pool,
        model_client(settings) as model,
        _servers(settings) as servers,
        url_fetcher(settings.files, outbound_policy(settings)) as fetch,
        open_retrieval(settings) as retrieval,
        open_extraction(settings.extraction) as extraction,
        traces(settings.traces, name) as tracer,
    ):
        choice = dialect_choice(settings)
        engine = Engine(
            PostgresStore(pool, Writer(pool, meters or NO_METERS)),
            file_store(settings.files, meters or NO_METERS),
            model,
            servers.open,
            settings,
            name,
            choice,
            scouts=_scouts(settings, model, choice),
            open_anew=servers.open_anew,
            sealing=sealing_of(settings),
            fetch=fetch,
            retrieval=retrieval,
            extraction=extraction,
            meters=meters or NO_METERS,
            tracer=tracer,
        )
        sampling = None
        if meters is not None:
            sampling = Sampling(
                meters, live=engine.live, background=engine.background, pool=pool, doors=doors
            )
        transport = transport_of(settings, index, engine.endpoints, model, doors)
        async with window(settings.debug_socket(index), engine.live):
            yield Worker(transport, engine, settings, sampling)


def _scouts(
    settings: Settings, model: HttpModelClient | NoModelClient, choice: Choice
) -> Sequence[Scout]:
    """Return who asks the model server what it is; nobody, where nothing but requests can be sent there."""
    if isinstance(model, NoModelClient):
        return ()
    return (Scout(model.get, choice, seconds=settings.model.probe_seconds),)


def transport_of(
    settings: Settings,
    index: int,
    endpoints: Endpoints,
    model: ModelClient,
    doors: Mapping[str, Door] = _UNCOUNTED,
) -> Transport:
    """Return ext_proc, HTTP for downloads, and HTTP for all where it is asked for: one health, the first's.

    `model` makes the turns that are not the held request itself.
    """
    admission = _admission(settings, identity_source(settings))
    riding = Riding(turn_headers(model_key(settings)), settings.model.silence_seconds, onward=model)
    handover = handover_of(settings)
    exchanges = Exchanges(endpoints, admission, riding, doors["ext_proc"], handover)
    ext_proc = GrpcTransport(settings.worker_addresses(index), exchanges.serve)
    http = doors["http"]
    downloads = HttpExchanges(
        endpoints, _admission(settings, handover.identify), content_alone=True, door=http
    )
    others: list[Transport] = [
        HttpTransport(address, downloads) for address in settings.content_addresses(index)
    ]
    address = settings.http_address(index)
    if address is not None:
        others.append(HttpTransport(address, HttpExchanges(endpoints, admission, door=http)))
    return Together(*others, ext_proc)


def _admission(settings: Settings, identify: Identify) -> Admission:
    return Admission(
        body_limit=settings.limits.body_bytes,
        forward_authorization=settings.model.forward_authorization,
        identify=identify,
    )


def _servers(settings: Settings) -> AbstractAsyncContextManager[McpServers]:
    general = outbound_policy(settings)
    trusted = shared_policies(settings.connectors.shared, general)
    return mcp_servers(general, mcp_limits(settings), trusted)
