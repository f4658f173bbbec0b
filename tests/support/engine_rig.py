"""The engine put together with fakes at all of its ports, for tests of loop and operations."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from zlib import crc32

import msgspec

from engine import sse
from engine.answers import error_answer
from engine.api.connectors import Connector
from engine.api.mcp import McpTool
from engine.api.ownership import NO_POLICY, ToolPolicy
from engine.attachments import Attachments, NothingExtracted
from engine.background import Background
from engine.compacting import Compacting
from engine.connectors import Connectors
from engine.conversations import Conversations
from engine.counting import Counting
from engine.detached import Detached
from engine.errors import EngineError
from engine.files import Files
from engine.following import Following
from engine.intake import Caller, Intake
from engine.keeping import Keeping
from engine.limits import Limits
from engine.lines import Lines
from engine.live import Live
from engine.ports import (
    Clock,
    EventBatch,
    OpenProvided,
    Sealing,
    StoredResponse,
    ToolProvider,
)
from engine.ports.extraction import Extraction
from engine.ports.meters import NO_METERS, Meters
from engine.ports.tracing import NO_TRACES, Tracer
from engine.prompts import Prompts
from engine.recovery import Recovery
from engine.registry import Registry
from engine.responses import Responses
from engine.retries import RetryBudget
from engine.run import Means, Run
from engine.summaries import Summaries
from engine.takeover import TakeOver
from engine.token_counts import TokenCounts
from engine.toolbox import OpenProvider, Toolbox
from engine.truncation import Truncation
from engine.uploads import Uploads
from engine.upstream.choice import Choice
from extproc.operations import Endpoints
from extproc.retrieval import NO_RETRIEVAL, RetrievalMeans, RetrievalParts
from extproc.sealing import AesSealing
from extproc.settings_retrieval import Retrieval
from storage.memory import MemoryBlobs
from tests.support.fake_model import FakeModel
from tests.support.fake_reply import FakeReply
from tests.support.faulty_store import FaultyStore
from tests.support.stream_rules import Event, check_stream, response_of
from tests.support.word_search import WordSearch

CALLER = Caller("default", {"x-request-id": "req-1"})
NOW = 1_700_000_000


def counting_bytes(worker: str) -> Callable[[int], bytes]:
    """Return a source of bytes that never repeats, is the same in each test and another for each worker."""
    count = crc32(worker.encode()) << 32

    def take(size: int) -> bytes:
        nonlocal count
        count += 1
        return count.to_bytes(size, "big")

    return take


# The store is not waited for: a test that wants it says so.
SOON = Limits(save_wait=0.0)


def no_provider(tool: McpTool, param: str, _tenant: str) -> ToolProvider:
    """Refuse every server."""
    raise AssertionError(f"{tool!r} at {param}")


class Rig:
    """An engine over a model that plays `model`'s steps, a memory store with faults, one caller.

    `store` is given where several workers share one; `worker` names this one.
    """

    def __init__(
        self,
        model: FakeModel,
        *,
        limits: Limits | None = None,
        store: FaultyStore | None = None,
        worker: str = "replica/0#1",
        providers: OpenProvider = no_provider,
        consent_keys: tuple[bytes, ...] = (),
        choice: Choice | None = None,
        shared: Sequence[Connector] = (),
        sealing: Sealing | None = None,
        policy: ToolPolicy = NO_POLICY,
        provided: Mapping[str, OpenProvided] | None = None,
        estimates: bool = False,
        files: WordSearch | None = None,
        retrieval: RetrievalMeans = NO_RETRIEVAL,
        rewrite_model: str | None = None,
        search_seconds: float = 30.0,
        extraction: Extraction | None = None,
        tracer: Tracer = NO_TRACES,
        background: bool = True,
        meters: Meters = NO_METERS,
    ) -> None:
        extraction = NothingExtracted() if extraction is None else extraction
        self.model = model
        self.store = store if store is not None else FaultyStore()
        self.notified: list[str] = []
        self.following = Following(self.store, limits if limits is not None else SOON)
        self.limits = limits if limits is not None else SOON
        self.detached = Detached()
        self.clock: Clock = lambda: NOW
        self.sealing = AesSealing([bytes(32)]) if sealing is None else sealing
        self.registry = Registry(self.store, self.sealing, shared)
        tools = Toolbox(
            providers,
            self.limits,
            self.registry,
            policy=policy,
            provided=provided,
            file_search=None if files is None else files.tool(self.limits),
            meters=meters,
        )
        self.choice = choice if choice is not None else Choice("responses")
        counting = Counting(model, estimates=estimates)
        truncation = Truncation(counting)
        summaries = Summaries(model, self.limits, self.choice, budget=RetryBudget())
        means = Means(
            model=model,
            tools=tools,
            sealing=self.sealing,
            store=self.store,
            clock=lambda: self.clock(),
            limits=self.limits,
            notify=self._notify,
            detached=self.detached,
            choice=self.choice,
            truncation=truncation,
            counting=counting,
            summaries=summaries,
            meters=meters,
            tracer=tracer,
        )
        self.live = Live(means, worker)
        randomness = counting_bytes(worker)
        self.prompts = Prompts(
            self.store, randomness=randomness, limits=self.limits, policy=tools.policy
        )
        self.pages: dict[str, bytes] = {}
        self.blobs = MemoryBlobs()
        self.keeping = keeping = Keeping(self.store, self.blobs, randomness)
        self.files = Files(self.store, keeping, randomness=randomness, limits=self.limits)
        attach = Attachments(self.files, self.fetch, extraction, self.limits).attach
        self.intake = Intake(
            self.store,
            tools=tools,
            sealing=self.sealing,
            clock=lambda: self.clock(),
            randomness=randomness,
            limits=self.limits,
            worker=worker,
            consent_keys=consent_keys,
            choice=self.choice,
            truncation=truncation,
            summaries=summaries,
            expand=self.prompts.expand,
            attach=attach,
            background=background,
        )
        self.takeover = TakeOver(self.live)
        self.background = Background(self.live, self.takeover, most=2)
        self.recovery = Recovery(self.live, self.takeover, self.background)
        self.lines = Lines(self.store, self.limits.conversation_wait)
        self.responses = Responses(
            store=self.store,
            lines=self.lines,
            intake=self.intake,
            live=self.live,
            following=self.following,
            takeover=self.takeover,
            background=self.background,
        )
        self.conversations = Conversations(
            store=self.store,
            lines=self.lines,
            sealing=self.sealing,
            attach=attach,
            randomness=counting_bytes(f"{worker}, conversations"),
            limits=self.limits,
        )
        self.connectors = Connectors(
            self.store,
            self.registry,
            open_provider=providers,
            open_anew=providers,
            tools=tools,
            clock=lambda: self.clock(),
            randomness=counting_bytes(worker),
        )
        self.compacting = Compacting(
            self.store,
            summaries,
            self.choice,
            lines=self.lines,
            attach=attach,
            sealing=self.sealing,
            limits=self.limits,
            clock=lambda: self.clock(),
            randomness=counting_bytes(f"{worker}, compacting"),
        )
        self.counts = TokenCounts(
            self.store,
            counting,
            self.choice,
            lines=self.lines,
            attach=attach,
            tools=tools,
            sealing=self.sealing,
            limits=self.limits,
        )
        self.uploads = Uploads(
            self.store,
            keeping,
            clock=lambda: self.clock(),
            randomness=randomness,
            limits=self.limits,
        )
        settings = Retrieval(rewrite_model=rewrite_model, search_seconds=search_seconds)
        vectors = RetrievalParts(
            self.store, self.files, extraction, retrieval, settings, worker, meters
        )
        self.retrieval = vectors.retrieval
        self.chores = vectors.chores
        self.endpoints = Endpoints(
            self.responses,
            self.conversations,
            self.connectors,
            self.prompts,
            self.files,
            self.uploads,
            self.compacting,
            self.counts,
            *vectors.operations(model, self.limits, self.choice, RetryBudget()),
        )

    async def fetch(self, url: str, most: int, param: str) -> bytes:
        """Return what `pages` has behind a URL."""
        assert len(self.pages[url]) <= most, param
        return self.pages[url]

    def _notify(self, response_id: str) -> None:
        self.notified.append(response_id)
        self.following.notify(response_id)

    async def admit(self, body: bytes, caller: Caller = CALLER) -> Run:
        """Return the run of a request, without starting it."""
        with self.lines.visit() as visit:
            return await self.intake.admit(caller, body, visit)

    async def create(
        self, reply: FakeReply | None = None, *, caller: Caller = CALLER, **fields: Any
    ) -> FakeReply:
        """Create a response and wait for its end; errors become answers, as every adapter does it."""
        reply = reply if reply is not None else FakeReply()
        body = json.dumps({"model": "m", "input": "hi", **fields}).encode()
        async with asyncio.timeout(5):
            try:
                await self.responses.create(caller, body, "", reply)
            except EngineError as error:
                await reply.answer(error_answer(error))
        return reply

    async def stream(self, reply: FakeReply | None = None, **fields: Any) -> list[Event]:
        """Create a streamed response and return its events, checked by all rules."""
        reply = await self.create(reply, stream=True, **fields)
        assert reply.ended
        return check_stream(reply.raw)

    def start(self, reply: FakeReply, **fields: Any) -> asyncio.Task[FakeReply]:
        """Create a response in the background of the test."""
        return asyncio.get_running_loop().create_task(self.create(reply, **fields))

    async def stored(self) -> list[StoredResponse]:
        """Return everything that is stored, oldest first."""
        page = await self.store.list_responses(
            CALLER.tenant, limit=100, after=None, order="asc", model=None
        )
        return page.responses

    async def the_stored(self) -> StoredResponse:
        """Return the one response that is stored."""
        [stored] = await self.stored()
        return stored

    async def log(self, wanted: str) -> bytes:
        """Return the event log of a response with what its reader adds: the stream of one who stays."""
        batches: list[EventBatch] = []
        after = -1
        while True:
            read = await self.store.read_events(CALLER.tenant, wanted, after=after, limit=1000)
            assert read is not None
            for batch in read.batches:
                # By a million, where it was taken over.
                assert batch.first == after + 1 or batch.first > after + 1_000_000
                after = batch.last
            batches += read.batches
            if not read.more:
                return b"".join(batch.frames for batch in batches) + sse.DONE

    async def until(self, happened: Callable[[], object]) -> None:
        """Wait until something is so; the engine runs meanwhile."""
        async with asyncio.timeout(5):
            while True:
                if happened():
                    return
                await asyncio.sleep(0.001)

    async def until_logged(self, wanted: str, part: bytes) -> None:
        """Wait until the log of a response that has not ended holds some bytes."""
        async with asyncio.timeout(5):
            while True:
                read = await self.store.read_events(CALLER.tenant, wanted, after=-1, limit=1 << 20)
                assert read is not None
                if part in b"".join(batch.frames for batch in read.batches):
                    return
                await asyncio.sleep(0.001)

    async def becomes(self, wanted: str, *statuses: str) -> Any:
        """Wait until a stored response has one of these statuses; return it."""
        async with asyncio.timeout(5):
            while True:
                response = await self.retrieve(wanted)
                if response["status"] in statuses:
                    return response
                await asyncio.sleep(0.001)

    async def settled(self) -> None:
        """Wait until nothing runs any more."""
        await self.live.drain(5)
        assert not len(self.live)

    async def retrieve(self, wanted: str) -> Any:
        """Return a stored response as the API shows it."""
        reply = FakeReply()
        await self.responses.retrieve(CALLER, wanted, "", reply)
        return reply.json


async def turns() -> None:
    """Let everything run that can run now."""
    for _ in range(100):
        await asyncio.sleep(0)


def small(limits: Limits | None = None, **changed: Any) -> Limits:
    """Return limits with some of them changed."""
    return msgspec.structs.replace(limits if limits is not None else SOON, **changed)


def final(events: list[Event]) -> Event:
    """Return the response object of the terminal event."""
    return response_of(events)
