"""`engine.measured` and what else tells the meters: each thing is counted as what it is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from engine.api.response_object import Usage
from engine.errors import EmbeddingFailed, EngineError, IndexUnavailable, InvalidRequest, NotFound
from engine.measured_retrieval import MeasuredEmbedder, MeasuredSearch
from engine.ports import EmbeddingKind, ToolOutcome
from engine.ports.meters import Meters, ToolEnd
from engine.ports.search import SearchAsked, SearchResult
from tests.support import replies
from tests.support.engine_rig import CALLER, Rig, small
from tests.support.fake_model import FakeModel, Hang, frames_of
from tests.support.fake_reply import FakeReply
from tests.support.fake_tools import FakeProvider, FakeServers, server
from tests.support.replies import call, text
from tests.support.word_search import Passage, WordSearch

HELLO = frames_of(replies.stream(text("Hel", "lo", " you", " there"), input_tokens=7))
KEYED = msgspec.structs.replace(CALLER, idempotency_key="k")


class Kept(Meters):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.firsts = 0
        self.turns: list[str] = []
        self.responses: list[tuple[str, str]] = []
        self.paces: list[float] = []
        self.calls: list[ToolEnd] = []
        self.searches: list[bool] = []
        self.embeddings: list[bool] = []

    def first_token(self, model: str, seconds: float) -> None:
        self.firsts += 1

    def turn(
        self, model: str, tenant: str, error: str, seconds: float, usage: Usage | None, repairs: Any
    ) -> None:
        self.turns.append(error)

    def response(
        self, model: str, tenant: str, status: str, mode: str, turns: int, seconds: float
    ) -> None:
        self.responses.append((status, mode))

    def pace(self, model: str, seconds: float) -> None:
        self.paces.append(seconds)

    def tool_call(self, kind: str, end: ToolEnd, seconds: float) -> None:
        self.calls.append(end)

    def searched(self, *, ok: bool, seconds: float) -> None:
        self.searches.append(ok)

    def embedded(self, *, ok: bool, texts: int, seconds: float) -> None:
        self.embeddings.append(ok)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_retry_is_no_second_response(*, stream: bool) -> None:
    """One response, one turn: the model was called once."""
    meters = Kept()
    rig = Rig(FakeModel(*HELLO), meters=meters)

    await rig.create(caller=KEYED, stream=stream)
    await rig.create(caller=KEYED, stream=stream)
    await rig.settled()

    assert meters.responses == [("completed", "stream" if stream else "whole")]
    assert meters.turns == [""]


async def test_a_key_of_another_request_is_a_refusal() -> None:
    """Its client gets an error: that is one."""
    meters = Kept()
    rig = Rig(FakeModel(*HELLO), meters=meters)

    await rig.create(caller=KEYED)
    refused = await rig.create(caller=KEYED, input="something else")
    await rig.settled()

    assert refused.json["error"]["code"] == "idempotency_key_reused"
    assert refused.told is not None
    assert refused.told.facts()["error"] == "idempotency_key_reused"
    assert [status for status, _ in meters.responses] == ["completed", "refused"]
    assert meters.turns == [""]


async def test_lists_of_tools_are_not_the_first_output() -> None:
    """The time to the first token is that of the model, whatever the stream shows before."""
    gate, meters = asyncio.Event(), Kept()
    model = FakeModel(*HELLO[:2], Hang(gate), *HELLO[2:])
    rig = Rig(model, providers=FakeServers(FakeProvider("s", "look")), meters=meters)
    reply = FakeReply()
    running = rig.start(reply, stream=True, tools=[server("s")])
    await reply.until(b"mcp_list_tools.completed")
    async with asyncio.timeout(5):
        await model.silent.wait()

    assert meters.firsts == 0
    gate.set()
    await running
    assert meters.firsts == 1


async def test_a_turn_without_output_has_no_pace() -> None:
    """A model server may count tokens that nobody sees."""
    meters = Kept()
    silent = [
        frame.replace(b'"output_tokens":0', b'"output_tokens":50')
        for frame in frames_of(replies.stream(input_tokens=5))
    ]
    rig = Rig(FakeModel(*silent), meters=meters)
    await rig.create()
    await rig.settled()
    assert meters.paces == []


class _Slow(FakeProvider):
    """Keeps its own deadline."""

    async def call(self, name: str, arguments: bytes, *, timeout: float) -> ToolOutcome:
        try:
            async with asyncio.timeout(timeout):
                await asyncio.Event().wait()
        except TimeoutError:
            pass
        return ToolOutcome(text="late", error=b"{}")


async def test_a_provider_that_keeps_its_deadline_has_timed_out() -> None:
    """It says so by an error; what it was is told by the time."""
    meters = Kept()
    turn = list(frames_of(replies.stream(call("look", "{}"))))
    rig = Rig(
        FakeModel(*HELLO, turns=[turn]),
        limits=small(tool_call=0.01),
        providers=FakeServers(_Slow("s", "look")),
        meters=meters,
    )
    await rig.create(tools=[server("s")])
    assert meters.calls == ["timeout"]


class _Search:
    def __init__(self, error: BaseException) -> None:
        self._error = error

    async def search(self, tenant: str, asked: SearchAsked) -> Sequence[SearchResult]:
        raise self._error


class _Embedder:
    model = "m"
    at_once = 1

    def __init__(self, error: BaseException) -> None:
        self._error = error

    async def embed(self, texts: Sequence[str], kind: EmbeddingKind) -> list[bytes]:
        raise self._error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (IndexUnavailable("away"), [False]),
        (EmbeddingFailed("away"), [False]),
        (ValueError("a bug"), [False]),
        (NotFound("no such store"), []),
        (InvalidRequest("no such filter"), []),
        (asyncio.CancelledError(), []),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_only_faults_of_ours_are_errors(error: BaseException, told: list[bool]) -> None:
    """Who asks for what is not there, or leaves, wakes nobody."""
    meters = Kept()
    asked = SearchAsked(stores=("vs",), queries=("q",), limit=1)
    with pytest.raises(type(error)):
        await MeasuredSearch(_Search(error), meters).search("t", asked)
    with pytest.raises(type(error)):
        await MeasuredEmbedder(_Embedder(error), meters).embed(["x"], "query")
    assert meters.searches == meters.embeddings == told


async def test_a_retry_is_answered_when_its_store_is_gone() -> None:
    """T8: what is stored under an Idempotency-Key is what it was; only new requests need the store."""
    files = WordSearch()
    files.put("vs_1", Passage("f", "f.txt", "words"))
    rig = Rig(FakeModel(*HELLO), files=files)
    tool = {"type": "file_search", "vector_store_ids": ["vs_1"]}
    first = await rig.create(caller=KEYED, tools=[tool])
    files.remove("vs_1")

    again = await rig.create(caller=KEYED, tools=[tool])
    assert again.json["id"] == first.json["id"]
    with pytest.raises(EngineError):
        await rig.responses.create(
            CALLER,
            b'{"model":"m","input":"x","tools":[{"type":"file_search","vector_store_ids":["vs_1"]}]}',
            "",
            FakeReply(),
        )
