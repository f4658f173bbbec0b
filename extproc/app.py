"""The composition root: builds every part of a worker and owns their lifetimes."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ipaddress import ip_network

from engine.api.ownership import ToolPolicy
from engine.attachments import Attachments, FetchUrl, nothing_fetched
from engine.background import Background
from engine.connectors import Connectors
from engine.conversations import Conversations
from engine.detached import Detached
from engine.file_sweep import FileSweep
from engine.files import Files
from engine.following import Following
from engine.intake import Intake
from engine.keeping import Keeping
from engine.limits import Limits
from engine.lines import Lines
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
from engine.truncation import Truncation
from engine.upkeep import Upkeep
from engine.uploads import Uploads
from engine.upstream.care import Care
from engine.upstream.choice import Choice
from extproc.admission import Admission
from extproc.connectors import shared_connectors, shared_policies
from extproc.context_operations import ContextParts
from extproc.envoy.endpoint import ModelEndpoint, parse_model_url
from extproc.exchange import Exchanges
from extproc.files import file_store, url_fetcher
from extproc.grpc_server import GrpcTransport
from extproc.handover import handed_over
from extproc.held_request import Riding
from extproc.http_address import UnixAddress
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
from extproc.model_client import HttpModelClient, NoModelClient, turn_headers
from extproc.operations import Endpoints
from extproc.outbound.policy import OutboundPolicy
from extproc.provided_tools import load_providers
from extproc.scout import Scout
from extproc.sealing import AesSealing, NoSealing
from extproc.settings import Settings, SettingsError
from extproc.settings_dialect import parse_dialects
from extproc.settings_tenancy import JWT_KEY, JWT_NAMESPACE
from extproc.transport import Together, Transport
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
        self._engine.lines.stop()
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
        choice: Choice,
        *,
        scouts: Sequence[Scout] = (),
        open_anew: OpenProvider | None = None,
        sealing: Sealing | None = None,
        fetch: FetchUrl = nothing_fetched,
    ) -> None:
        limits = _limits(settings)
        retries = RetryBudget(settings.routing.retry_budget)
        context = ContextParts(settings.context, model, limits, choice, retries)
        truncation = Truncation(context.counting)
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
            choice=choice,
            truncation=truncation,
            counting=context.counting,
            summaries=context.summaries,
            retries=retries,
        )
        self.live = Live(means, worker_name)
        takeover = TakeOver(self.live)
        more_turns = settings.model.via != "request"
        most = settings.background.concurrency if more_turns else 0
        background = Background(self.live, takeover, most=most)
        recovery = Recovery(self.live, takeover, background)
        self._chores: tuple[Background | Recovery | Upkeep | FileSweep | Scout, ...] = (
            background,
            recovery,
            Upkeep(store),
            FileSweep(store, blobs),
            *scouts,
        )
        keeping = Keeping(store, blobs, os.urandom)
        files = Files(store, keeping, randomness=os.urandom, limits=limits)
        attach = Attachments(files, fetch, limits).attach
        self.lines = Lines(store, limits.conversation_wait)
        conversations = Conversations(
            store=store, lines=self.lines, sealing=sealing, attach=attach, randomness=os.urandom
        )
        prompts = Prompts(store, randomness=os.urandom, limits=limits, policy=tools.policy)
        responses = Responses(
            store=store,
            lines=self.lines,
            intake=Intake(
                store,
                tools=tools,
                sealing=sealing,
                clock=_now,
                randomness=os.urandom,
                limits=limits,
                worker=worker_name,
                choice=choice,
                truncation=truncation,
                summaries=context.summaries,
                expand=prompts.expand,
                attach=attach,
                on_disconnect=settings.sidecar.on_disconnect,
                consent_keys=_consent_keys(settings),
                more_turns=more_turns,
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
        uploads = Uploads(store, keeping, clock=_now, randomness=os.urandom, limits=limits)
        self.endpoints = Endpoints(
            responses,
            conversations,
            connectors,
            prompts,
            files,
            uploads,
            *context.operations(store, self.lines, tools, sealing, attach, _now),
        )

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
        url_fetcher(settings.files, _outbound(settings)) as fetch,
    ):
        choice = dialect_choice(settings)
        engine = Engine(
            PostgresStore(pool),
            file_store(settings.files),
            model,
            servers.open,
            settings,
            name,
            choice,
            scouts=_scouts(settings, model, choice),
            open_anew=servers.open_anew,
            sealing=_sealing(settings),
            fetch=fetch,
        )
        yield Worker(transport_of(settings, index, engine.endpoints, model), engine, settings)


def _scouts(
    settings: Settings, model: HttpModelClient | NoModelClient, choice: Choice
) -> Sequence[Scout]:
    """Return who asks the model server what it is; nobody, where nothing but requests can be sent there."""
    if isinstance(model, NoModelClient):
        return ()
    return (Scout(model.get, choice, seconds=settings.model.probe_seconds),)


def _now() -> int:
    return int(time.time())


def transport_of(
    settings: Settings, index: int, endpoints: Endpoints, model: ModelClient
) -> Transport:
    """Return ext_proc, HTTP for downloads, and HTTP for all where it is asked for: one health, the first's.

    `model` makes the turns that are not the held request itself.
    """
    admission = _admission(settings, identity_source(settings))
    riding = Riding(turn_headers(_key(settings)), settings.model.silence_seconds, onward=model)
    exchanges = Exchanges(endpoints, admission, riding)
    ext_proc = GrpcTransport(settings.worker_addresses(index), exchanges.serve)
    downloads = HttpExchanges(endpoints, _admission(settings, handed_over), content_alone=True)
    socket = UnixAddress(settings.content_socket(index).absolute())
    others: list[Transport] = [HttpTransport(socket, downloads)]
    address = settings.http_address(index)
    if address is not None:
        others.append(HttpTransport(address, HttpExchanges(endpoints, admission)))
    return Together(*others, ext_proc)


def _admission(settings: Settings, identify: Identify) -> Admission:
    return Admission(
        body_limit=settings.limits.body_bytes,
        forward_authorization=settings.model.forward_authorization,
        identify=identify,
    )


def model_client(settings: Settings) -> HttpModelClient | NoModelClient:
    """Return the way to the model: through Envoy's private listener, straight to its URL, or none."""
    model = settings.model
    if model.via == "request":
        return NoModelClient()
    direct = parse_model_url(model.url) if model.via == "url" and model.url is not None else None
    return HttpModelClient(
        direct or ModelEndpoint(authority="model", socket=model.socket),
        trusted=model.ca_file,
        connect=settings.model.connect_seconds,
        silence=settings.model.silence_seconds,
        api_key=_key(settings),
    )


def _key(settings: Settings) -> str | None:
    key = settings.model.api_key
    return None if key is None else key.get_secret_value()


def dialect_choice(settings: Settings) -> Choice:
    """Return what chooses the dialect of each model."""
    model = settings.model
    server = None if model.server == "auto" else model.server
    care = Care(
        check_output=model.check_output != "off",
        ask_again=model.check_output == "retry",
        estimate_reasoning=model.estimate_reasoning_tokens,
    )
    return Choice(
        model.dialect,
        parse_dialects(model.dialects),
        server=server,
        care=care,
        salts=model.cache_salt,
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


def _consent_keys(settings: Settings) -> tuple[bytes, ...]:
    """Return the keys that vouch for requests for consent that are not stored: made from those that seal."""
    keys = settings.sealing.read()
    return tuple(hmac.new(key, b"holdfast consent", hashlib.sha256).digest() for key in keys)


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
        stream_retries=settings.routing.stream_retries if settings.model.via != "request" else 0,
        background_retries=settings.routing.background_retries,
        save_wait=settings.postgres.outage_seconds,
        lease=settings.postgres.lease_seconds,
        detached=sidecar.detached_seconds,
        log_bytes=settings.postgres.log_bytes,
        log_interval=settings.postgres.log_seconds,
        keep=settings.postgres.retention_days * _DAY or None,
        conversation_wait=settings.conversations.wait_seconds,
        turns=settings.tools.turns,
        tool_list=settings.tools.list_seconds,
        tool_call=settings.tools.call_seconds,
        tool_calls=settings.tools.calls,
        response_tool_calls=settings.tools.response_calls,
        file_bytes=settings.files.file_bytes,
        input_file_bytes=settings.files.input_bytes,
        part_bytes=settings.files.part_bytes,
        upload_bytes=settings.files.upload_bytes,
        upload_seconds=settings.files.upload_seconds,
    )
