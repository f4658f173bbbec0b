"""The composition root: builds every part of a worker and owns their lifetimes."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ipaddress import ip_network

from engine.api.ownership import ToolPolicy
from engine.background import Background
from engine.connectors import Connectors
from engine.detached import Detached
from engine.file_sweep import FileSweep
from engine.files import Files
from engine.following import Following
from engine.intake import Intake
from engine.keeping import Keeping
from engine.limits import Limits
from engine.live import Live
from engine.ports import BlobStore, ModelClient, Sealing, Store
from engine.prompts import Prompts
from engine.recovery import Recovery
from engine.registry import Registry
from engine.responses import Responses
from engine.retries import RetryBudget
from engine.run import Means
from engine.takeover import TakeOver
from engine.toolbox import OpenProvider, Toolbox
from engine.upkeep import Upkeep
from engine.uploads import Uploads
from extproc.admission import Admission
from extproc.connectors import shared_connectors, shared_policies
from extproc.envoy.endpoint import ModelEndpoint, parse_model_url
from extproc.exchange import Exchanges
from extproc.grpc_server import GrpcTransport
from extproc.http_server import HttpExchanges, HttpTransport
from extproc.identity import (
    Identify,
    from_attribute,
    from_header,
    from_metadata,
    nobody_in_particular,
)
from extproc.mcp.target import McpLimits
from extproc.mcp.worker import McpServers, mcp_servers
from extproc.model_client import HttpModelClient
from extproc.operations import Endpoints
from extproc.outbound.policy import OutboundPolicy
from extproc.provided_tools import load_providers
from extproc.sealing import AesSealing, NoSealing
from extproc.settings import Settings, SettingsError
from extproc.settings_tenancy import JWT_KEY, JWT_NAMESPACE
from extproc.transport import Together, Transport
from storage.blobs.store import open_blobs
from storage.postgres.pool import open_pool
from storage.postgres.store import PostgresStore

_log = logging.getLogger(__name__)

# Seconds for the terminal events of stopped runs to reach their clients.
_LAST_WORDS = 2.0
# Longer than any run: what ends the streams is that their runs have ended.
_FOR_EVER = 86_400.0
_DAY = 86_400.0


class Worker:
    """A worker that is built and not yet serving."""

    def __init__(self, transport: Transport, engine: Engine, settings: Settings) -> None:
        self._transport = transport
        self._engine = engine
        self._sidecar = settings.sidecar

    async def serve(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain (rule E4)."""
        await self._transport.start()
        self._engine.start()
        _log.info("serving")
        await stop.wait()
        _log.info("draining, %d responses running", len(self._engine.live))
        await self._drain()
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
        await self._transport.stop(_LAST_WORDS)
        await stopping
        # A stream that was still reading its body may have started a run after the others were counted.
        await live.drain(0)
        await asyncio.wait({chores}, timeout=_LAST_WORDS)


class Engine:
    """The engine of one worker, its parts put together."""

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        model: ModelClient,
        open_provider: OpenProvider,
        settings: Settings,
        worker_name: str,
        *,
        open_anew: OpenProvider | None = None,
        sealing: Sealing | None = None,
    ) -> None:
        limits = _limits(settings)
        shared = shared_connectors(settings.connectors.shared)
        sealing = NoSealing() if sealing is None else sealing
        registry = Registry(store, sealing, shared)
        tools = Toolbox(
            open_provider,
            limits,
            registry,
            provided=load_providers(settings.tools.providers),
            policy=ToolPolicy(
                upstream_types=frozenset(settings.tools.upstream_types),
                upstream_labels=frozenset(settings.tools.upstream_labels),
            ),
        )
        self.following = Following(store, limits)
        means = Means(
            model=model,
            tools=tools,
            sealing=sealing,
            store=store,
            clock=_now,
            limits=limits,
            notify=self.following.notify,
            detached=Detached(),
            retries=RetryBudget(settings.routing.retry_budget),
        )
        self.live = Live(means, worker_name)
        takeover = TakeOver(self.live)
        background = Background(self.live, takeover, most=settings.background.concurrency)
        self._chores = (
            background,
            Recovery(self.live, takeover, background),
            Upkeep(store),
            FileSweep(store, blobs),
        )
        prompts = Prompts(store, randomness=os.urandom, limits=limits, policy=tools.policy)
        responses = Responses(
            store=store,
            intake=Intake(
                store,
                tools=tools,
                sealing=sealing,
                clock=_now,
                randomness=os.urandom,
                limits=limits,
                worker=worker_name,
                expand=prompts.expand,
                on_disconnect=settings.sidecar.on_disconnect,
            ),
            live=self.live,
            following=self.following,
            takeover=takeover,
            background=background,
        )
        connectors = Connectors(
            store,
            registry,
            open_provider=open_provider,
            open_anew=open_provider if open_anew is None else open_anew,
            tools=tools,
            clock=_now,
            randomness=os.urandom,
        )
        keeping = Keeping(store, blobs, os.urandom)
        files = Files(store, keeping, randomness=os.urandom, limits=limits)
        uploads = Uploads(store, keeping, clock=_now, randomness=os.urandom, limits=limits)
        self.endpoints = Endpoints(responses, connectors, prompts, files, uploads)

    def start(self) -> None:
        """Begin with what is done beside the requests."""
        for chore in self._chores:
            chore.start()

    async def stop_chores(self) -> None:
        """Take nothing more in hand."""
        await asyncio.gather(*(chore.stop() for chore in self._chores))


@asynccontextmanager
async def worker(settings: Settings, index: int) -> AsyncIterator[Worker]:
    """Build worker `index`; its connections are closed on exit. Raises SettingsError without a database."""
    if settings.postgres.url is None:
        raise SettingsError(["HOLDFAST_POSTGRES__URL is not set"])
    # What follows the # is another each time, so that a new life can tell what its predecessor left.
    name = f"{settings.sidecar.name}/{index}#{os.urandom(4).hex()}"
    async with (
        open_pool(
            settings.postgres.url.get_secret_value(),
            min_size=min(2, settings.postgres.pool_size),
            max_size=settings.postgres.pool_size,
            timeout=settings.postgres.timeout_seconds,
        ) as pool,
        model_client(settings) as model,
        _servers(settings) as servers,
    ):
        engine = Engine(
            PostgresStore(pool),
            _blobs(settings),
            model,
            servers.open,
            settings,
            name,
            open_anew=servers.open_anew,
            sealing=_sealing(settings),
        )
        yield Worker(transport_of(settings, index, engine.endpoints), engine, settings)


def _blobs(settings: Settings) -> BlobStore:
    try:
        return open_blobs(settings.files.url, settings.files.directory)
    except (OSError, ValueError) as error:
        raise SettingsError([f"files: the file store cannot be opened: {error}"]) from error


def _now() -> int:
    return int(time.time())


def transport_of(settings: Settings, index: int, endpoints: Endpoints) -> Transport:
    """Return ext_proc, and HTTP where it is asked for; both tell of one health, the former's."""
    admission = Admission(
        body_limit=settings.limits.body_bytes,
        forward_authorization=settings.model.forward_authorization,
        identify=identity_source(settings),
    )
    exchanges = Exchanges(endpoints, admission)
    ext_proc = GrpcTransport(f"unix:{settings.worker_socket(index).absolute()}", exchanges.serve)
    address = settings.http_address(index)
    if address is None:
        return ext_proc
    return Together(HttpTransport(address, HttpExchanges(endpoints, admission)), ext_proc)


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


def _servers(settings: Settings) -> AbstractAsyncContextManager[McpServers]:
    general = _outbound(settings)
    trusted = shared_policies(settings.connectors.shared, general)
    return mcp_servers(general, _mcp_limits(settings), trusted)


def _sealing(settings: Settings) -> Sealing:
    keys = settings.sealing.read()
    return AesSealing(keys) if keys else NoSealing()


def _outbound(settings: Settings) -> OutboundPolicy:
    outbound = settings.outbound
    return OutboundPolicy(
        allow_http=outbound.allow_http,
        only_hosts=outbound.only_hosts,
        private_hosts=outbound.private_hosts,
        networks=tuple(map(ip_network, outbound.networks)),
    )


def _mcp_limits(settings: Settings) -> McpLimits:
    tools = settings.tools
    return McpLimits(
        connections=tools.connections,
        connect=min(10.0, tools.list_seconds),
        silence=tools.call_seconds + 60,
        answer_bytes=tools.answer_bytes,
        output_text=tools.output_characters,
    )


def identity_source(settings: Settings) -> Identify:
    """Return how a request's tenant is found; the settings were checked to name all that it needs."""
    tenancy = settings.tenancy
    match tenancy.source:
        case None:
            return nobody_in_particular
        case "jwt":
            return from_metadata(JWT_NAMESPACE, (JWT_KEY, *settings.jwt.claim))
        case "header":
            return from_header(tenancy.header or "")
        case "metadata":
            return from_metadata(tenancy.metadata_namespace or "", tenancy.metadata_path)
        case "attribute":
            return from_attribute(tenancy.attribute or "")


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
        response=settings.tools.response_seconds,
        stream_retries=settings.routing.stream_retries,
        background_retries=settings.routing.background_retries,
        save_wait=settings.postgres.outage_seconds,
        lease=settings.postgres.lease_seconds,
        detached=sidecar.detached_seconds,
        log_bytes=settings.postgres.log_bytes,
        log_interval=settings.postgres.log_seconds,
        keep=settings.postgres.retention_days * _DAY or None,
        turns=settings.tools.turns,
        tool_list=settings.tools.list_seconds,
        tool_call=settings.tools.call_seconds,
        tool_calls=settings.tools.calls,
        response_tool_calls=settings.tools.response_calls,
        file_bytes=settings.files.file_bytes,
        part_bytes=settings.files.part_bytes,
        upload_bytes=settings.files.upload_bytes,
        upload_seconds=settings.files.upload_seconds,
    )
