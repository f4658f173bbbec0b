"""The composition root: builds every part of a worker and owns their lifetimes."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from engine.api.ownership import ToolPolicy
from engine.attachments import Attachments, FetchUrl, NothingExtracted, nothing_fetched
from engine.background import Background
from engine.connectors import Connectors
from engine.conversations import Conversations
from engine.detached import Detached
from engine.file_search import FileSearch
from engine.file_sweep import FileSweep
from engine.files import Files
from engine.following import Following
from engine.intake import Intake
from engine.keeping import Keeping
from engine.limits import Limits
from engine.lines import Lines
from engine.live import Live
from engine.ports import BlobStore, ModelClient, Sealing, Store
from engine.ports.extraction import Extraction
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
from engine.upstream.choice import Choice
from extproc.admission import Admission
from extproc.connectors import shared_connectors, shared_policies
from extproc.context_operations import ContextParts
from extproc.exchange import Exchanges
from extproc.extraction.documents import open_extraction
from extproc.files import file_store, url_fetcher
from extproc.grpc_server import GrpcTransport
from extproc.handover import handed_over
from extproc.held_request import Riding
from extproc.http_address import UnixAddress
from extproc.http_server import HttpExchanges, HttpTransport
from extproc.identity import (
    Identify,
)
from extproc.mcp.worker import McpServers, mcp_servers
from extproc.model_client import HttpModelClient, NoModelClient, turn_headers
from extproc.operations import Endpoints
from extproc.provided_tools import load_providers
from extproc.retrieval import NO_RETRIEVAL, RetrievalMeans, RetrievalParts, open_retrieval
from extproc.scout import Scout
from extproc.sealing import NoSealing
from extproc.settings import Settings, SettingsError
from extproc.transport import Together, Transport
from extproc.values import (
    consent_keys,
    dialect_choice,
    identity_source,
    limits_of,
    mcp_limits,
    model_client,
    model_key,
    outbound_policy,
    sealing_of,
)
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


class Doer(Protocol):
    """Does something beside the requests, from `start` to `stop`."""

    def start(self) -> None: ...

    async def stop(self) -> None: ...


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
        retrieval: RetrievalMeans = NO_RETRIEVAL,
        extraction: Extraction | None = None,
    ) -> None:
        extraction = NothingExtracted() if extraction is None else extraction
        limits = limits_of(settings)
        retries = RetryBudget(settings.routing.retry_budget)
        context = ContextParts(settings.context, model, limits, choice, retries)
        truncation = Truncation(context.counting)
        shared = shared_connectors(settings.connectors.shared)
        sealing = NoSealing() if sealing is None else sealing
        registry = Registry(store, sealing, shared)
        keeping = Keeping(store, blobs, os.urandom)
        files = Files(store, keeping, randomness=os.urandom, limits=limits)
        vectors = RetrievalParts(
            store, files, extraction, retrieval, settings.retrieval, worker_name
        )
        tools = _toolbox(settings, open_provider, limits, registry, vectors.file_search(limits))
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
        self._chores: tuple[Doer, ...] = (
            background,
            recovery,
            Upkeep(store),
            FileSweep(store, blobs),
            *vectors.chores,
            *scouts,
        )
        attach = Attachments(files, fetch, extraction, limits).attach
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
                consent_keys=consent_keys(settings),
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
        of_contexts = context.operations(store, self.lines, tools, sealing, attach, _now)
        vector_stores, store_files, batches = vectors.operations(model, limits, choice, retries)
        self.endpoints = Endpoints(
            responses,
            conversations,
            connectors,
            prompts,
            files,
            uploads,
            *of_contexts,
            vector_stores,
            store_files,
            batches,
        )

    def start(self) -> None:
        """Begin with what is done beside the requests."""
        for chore in self._chores:
            chore.start()

    async def stop_chores(self) -> None:
        """Take nothing more in hand."""
        await asyncio.gather(*(chore.stop() for chore in self._chores))


def _toolbox(
    settings: Settings,
    open_provider: OpenProvider,
    limits: Limits,
    registry: Registry,
    file_search: FileSearch | None,
) -> Toolbox:
    return Toolbox(
        open_provider,
        limits,
        registry,
        provided=load_providers(settings.tools.providers),
        policy=ToolPolicy(
            upstream_types=frozenset(settings.tools.upstream_types),
            upstream_labels=frozenset(settings.tools.upstream_labels),
        ),
        file_search=file_search,
    )


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
        url_fetcher(settings.files, outbound_policy(settings)) as fetch,
        open_retrieval(settings) as retrieval,
        open_extraction(settings.extraction) as extraction,
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
            sealing=sealing_of(settings),
            fetch=fetch,
            retrieval=retrieval,
            extraction=extraction,
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
    riding = Riding(turn_headers(model_key(settings)), settings.model.silence_seconds, onward=model)
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


def _servers(settings: Settings) -> AbstractAsyncContextManager[McpServers]:
    general = outbound_policy(settings)
    trusted = shared_policies(settings.connectors.shared, general)
    return mcp_servers(general, mcp_limits(settings), trusted)
