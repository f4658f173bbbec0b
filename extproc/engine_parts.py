"""The engine of one worker, put together from its parts."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
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
from engine.measured_retrieval import QueueCensus
from engine.ports import BlobStore, ModelClient, Sealing, Store
from engine.ports.extraction import Extraction
from engine.ports.meters import NO_METERS, Meters
from engine.ports.tracing import NO_TRACES, Tracer
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
from extproc.connectors import shared_connectors
from extproc.context_operations import ContextParts
from extproc.operations import Endpoints
from extproc.provided_tools import load_providers
from extproc.retrieval import NO_RETRIEVAL, RetrievalMeans, RetrievalParts
from extproc.scout import Scout
from extproc.sealing import NoSealing
from extproc.settings import Settings
from extproc.values import (
    consent_keys,
    limits_of,
)


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
        meters: Meters = NO_METERS,
        tracer: Tracer = NO_TRACES,
    ) -> None:
        extraction = NothingExtracted() if extraction is None else extraction
        limits = limits_of(settings)
        retries = RetryBudget(settings.routing.retry_budget, meters)
        context = ContextParts(settings.context, model, limits, choice, retries, meters)
        truncation = Truncation(context.counting)
        shared = shared_connectors(settings.connectors.shared)
        sealing = NoSealing() if sealing is None else sealing
        registry = Registry(store, sealing, shared)
        keeping = Keeping(store, blobs, os.urandom, meters)
        files = Files(store, keeping, randomness=os.urandom, limits=limits)
        vectors = RetrievalParts(
            store, files, extraction, retrieval, settings.retrieval, worker_name, meters
        )
        tools = _toolbox(
            settings, open_provider, limits, registry, vectors.file_search(limits), meters
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
            detached=Detached(meters),
            choice=choice,
            truncation=truncation,
            counting=context.counting,
            summaries=context.summaries,
            retries=retries,
            meters=meters,
            tracer=tracer,
        )
        self.live = Live(means, worker_name)
        takeover = TakeOver(self.live)
        more_turns = settings.model.via != "request"
        most = settings.background.concurrency if more_turns else 0
        self.background = background = Background(self.live, takeover, most=most)
        recovery = Recovery(self.live, takeover, background)
        self._chores: tuple[Doer, ...] = (
            background,
            recovery,
            Upkeep(store),
            FileSweep(store, blobs),
            *vectors.chores,
            QueueCensus(store, meters),
            *scouts,
        )
        attach = Attachments(files, fetch, extraction, limits).attach
        self.lines = Lines(store, limits.conversation_wait)
        conversations = Conversations(
            store=store,
            lines=self.lines,
            sealing=sealing,
            attach=attach,
            randomness=os.urandom,
            limits=limits,
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
                chosen_on_disconnect=settings.sidecar.on_disconnect_header,
                background=settings.background.allowed,
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
    meters: Meters,
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
        meters=meters,
    )


def _now() -> int:
    return int(time.time())
