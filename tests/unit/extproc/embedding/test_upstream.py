"""`extproc.embedding.upstream`: against a server on the wire that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import logging
import math
import struct
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine.errors import EmbeddingFailed
from extproc.embedding import upstream
from extproc.embedding.patience import Patience
from extproc.embedding.upstream import EmbeddingModel, UpstreamEmbedder
from extproc.embedding.wire import read_vectors
from extproc.envoy.endpoint import parse_model_url
from extproc.model_client import HttpModelClient
from tests.support.embeddings_server import Changed, Cut, EmbeddingsServer, Fault, Slow, words

DEADLINE = 20.0
MODEL = EmbeddingModel("bge-m3")


class Pauses:
    """Sleeps in no time, and remembers for how long."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


@asynccontextmanager
async def embedder(
    server: EmbeddingsServer,
    model: EmbeddingModel = MODEL,
    *,
    batch: int = 64,
    seconds: float = 100.0,
    retries: int = 3,
    pauses: Pauses | None = None,
    api_key: str | None = None,
) -> AsyncIterator[UpstreamEmbedder]:
    client = HttpModelClient(
        parse_model_url(server.url), connect=1, silence=seconds, api_key=api_key
    )
    patience = Patience(seconds, retries, pauses or Pauses())
    async with asyncio.timeout(DEADLINE), client:
        yield UpstreamEmbedder(client, model, batch=batch, patience=patience)


@pytest.fixture
async def server() -> AsyncIterator[EmbeddingsServer]:
    async with EmbeddingsServer() as running:
        yield running


def numbers(vector: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(vector) // 4}f", vector))


def expected(text: str, dimensions: int = 32) -> Any:
    return pytest.approx([value / 3 for value in words(text, dimensions)], abs=1e-6)


async def test_a_vector_has_unit_length_and_its_texts_place(server: EmbeddingsServer) -> None:
    """The port: little-endian float32 of unit length, one for each text, in their order."""
    async with embedder(server) as embedding:
        one, other = await embedding.embed(["red fish", "blue whale"], "passage")

    assert numbers(one) == expected("red fish")
    assert numbers(other) == expected("blue whale")
    assert math.hypot(*numbers(one)) == pytest.approx(1, abs=1e-6)
    (request,) = server.requests
    assert request.json == {
        "model": "bge-m3",
        "input": ["red fish", "blue whale"],
        "encoding_format": "base64",
    }


async def test_long_answers_are_read_beside_the_event_loop(
    server: EmbeddingsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X5: thousands of numbers take tens of milliseconds; a question's few do not."""
    read_in: list[bool] = []

    def watched(body: bytes, count: int) -> list[bytes]:
        read_in.append(threading.current_thread() is threading.main_thread())
        return read_vectors(body, count)

    monkeypatch.setattr(upstream, "read_vectors", watched)
    texts = [f"word{number}" for number in range(600)]
    async with embedder(server, batch=1000) as embedding:
        vectors = await embedding.embed(texts, "passage")
        await embedding.embed(["a question"], "query")

    assert read_in == [False, True]
    assert [numbers(vector) for vector in vectors] == [expected(text) for text in texts]


async def test_nothing_is_asked_for_no_texts(server: EmbeddingsServer) -> None:
    """No texts, no request."""
    async with embedder(server) as embedding:
        assert await embedding.embed([], "passage") == []

    assert server.requests == []


async def test_batches_are_bounded_by_count(server: EmbeddingsServer) -> None:
    """X5: more texts than one request takes are several requests, and their order stays."""
    texts = [f"word{number}" for number in range(10)]
    async with embedder(server, batch=4) as embedding:
        assert embedding.at_once == 4
        vectors = await embedding.embed(texts, "passage")

    assert [len(texts) for texts in server.inputs] == [4, 4, 2]
    assert [numbers(vector) for vector in vectors] == [expected(text) for text in texts]


async def test_batches_are_bounded_by_bytes(server: EmbeddingsServer) -> None:
    """X5: a mebibyte of text is a request, however few the texts are; one text is never divided."""
    texts = ["a" * 700_000, "ü" * 300_000, "b", "c" * 2_000_000, "d"]
    async with embedder(server) as embedding:
        await embedding.embed(texts, "passage")

    assert server.inputs == [texts[:1], texts[1:3], texts[3:4], texts[4:]]


async def test_prefixes_go_in_front(server: EmbeddingsServer) -> None:
    """For models of the e5 kind: questions and passages are told apart; an empty text is a space."""
    model = EmbeddingModel("e5", query_prefix="query: ", passage_prefix="passage: ")
    async with embedder(server, model) as embedding:
        await embedding.embed(["what"], "query")
        await embedding.embed(["that", ""], "passage")
    async with embedder(server) as embedding:
        await embedding.embed(["", "x"], "query")

    assert server.inputs == [["query: what"], ["passage: that", "passage: "], [" ", "x"]]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (EmbeddingModel("bge-m3"), "bge-m3"),
        (EmbeddingModel("bge-m3", 512), "bge-m3:512"),
        (EmbeddingModel("e5", query_prefix="query: "), "e5"),
        (EmbeddingModel("e5", passage_prefix="passage: "), "e5#707ad539"),
    ],
)
def test_the_name_says_what_vectors_can_be_compared(model: EmbeddingModel, name: str) -> None:
    """The port: model, dimensions, and what passages begin with; what queries begin with is not stored."""
    assert model.identity == name


async def test_dimensions_are_asked_for_and_checked(server: EmbeddingsServer) -> None:
    """A server that ignores `dimensions` is told of, not stored."""
    async with embedder(server, EmbeddingModel("m", 16)) as embedding:
        (vector,) = await embedding.embed(["x"], "passage")
        server.script(Changed(lambda answer: answer["data"][0].update(embedding=[1.0] * 32)))
        with pytest.raises(EmbeddingFailed, match="32 dimensions, and not 16") as failed:
            await embedding.embed(["x"], "passage")

    assert len(vector) == 64
    assert server.requests[0].json["dimensions"] == 16
    assert not failed.value.passing


async def test_a_server_without_base64_is_asked_for_floats(server: EmbeddingsServer) -> None:
    """Refused once, and from then on asked as it likes."""
    server.knows_base64 = False
    async with embedder(server) as embedding:
        (one,) = await embedding.embed(["red fish"], "passage")
        await embedding.embed(["red fish"], "passage")

    assert numbers(one) == expected("red fish")
    formats = [request.json["encoding_format"] for request in server.requests]
    assert formats == ["base64", "float", "float"]


async def test_floats_that_nobody_asked_for_are_taken(server: EmbeddingsServer) -> None:
    """Servers that do not know `encoding_format` answer with lists."""
    server.floats_alone = True
    async with embedder(server) as embedding:
        (one,) = await embedding.embed(["red fish"], "passage")

    assert numbers(one) == expected("red fish")


async def test_what_may_pass_is_tried_again(server: EmbeddingsServer) -> None:
    """429 after the time that it asks for; 5xx and broken connections after a pause that grows."""
    server.script(Cut(), Fault(429, retry_after=7), Fault(500))
    pauses = Pauses()
    async with embedder(server, pauses=pauses) as embedding:
        await embedding.embed(["x"], "passage")

    assert len(server.requests) == 4
    assert 0.125 <= pauses.seconds[0] <= 0.25
    assert pauses.seconds[1] == 7
    assert 0.5 <= pauses.seconds[2] <= 1.0


async def test_patience_ends(server: EmbeddingsServer) -> None:
    """What still fails is told of as passing, with the server's words."""
    server.script(*[Fault(503, "Model is loading.")] * 3)
    async with embedder(server, retries=2) as embedding:
        with pytest.raises(EmbeddingFailed, match=r"503.*Model is loading") as failed:
            await embedding.embed(["x"], "passage")

    assert failed.value.passing
    assert len(server.requests) == 3


async def test_nobody_waits_longer_than_there_is_time(server: EmbeddingsServer) -> None:
    """A server that wants more time than is left is not waited for, and it is said how long that is."""
    server.script(Fault(429, retry_after=3600))
    pauses = Pauses()
    async with embedder(server, pauses=pauses) as embedding:
        with pytest.raises(EmbeddingFailed) as failed:
            await embedding.embed(["x"], "passage")

    assert (failed.value.passing, failed.value.retry_after) == (True, 3600)
    assert pauses.seconds == []


async def test_a_silent_server_is_given_up(server: EmbeddingsServer) -> None:
    """The time is for everything together."""
    server.script(Slow(asyncio.Event()))
    async with embedder(server, seconds=0.2) as embedding:
        with pytest.raises(EmbeddingFailed) as failed:
            await embedding.embed(["x"], "passage")

    assert failed.value.passing


async def test_a_refusal_is_not_repeated(server: EmbeddingsServer) -> None:
    """A 4xx says what is wrong, in the server's words."""
    server.script(Fault(404, "The model `bge-m3` does not exist."))
    async with embedder(server) as embedding:
        with pytest.raises(EmbeddingFailed, match=r"404.*does not exist") as failed:
            await embedding.embed(["x"], "passage")

    assert not failed.value.passing
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "of_text"), [(400, True), (413, True), (422, True), (401, False), (403, False)]
)
async def test_a_refusal_of_a_text_is_told_from_other_refusals(
    server: EmbeddingsServer, status: int, of_text: bool
) -> None:
    """The port: a file is given up for what its text is refused for, and not for the gateway's key."""
    server.script(*[Fault(status, "No.")] * (9 if status == 413 else 1))
    async with embedder(server) as embedding:
        with pytest.raises(EmbeddingFailed) as failed:
            await embedding.embed(["x" * 512], "passage")

    assert failed.value.refused == of_text
    assert server.inputs[-1] == (["a"] if of_text else ["x" * 512])


async def test_a_server_that_refuses_every_text_is_at_fault_itself(
    server: EmbeddingsServer,
) -> None:
    """The port: `dimensions` that a model does not have are a 400 as well."""
    server.script(Fault(400, "dimensions: 16 is not supported"), Fault(400, "dimensions: 16"))
    async with embedder(server) as embedding:
        with pytest.raises(EmbeddingFailed, match="16 is not supported") as failed:
            await embedding.embed(["x"], "passage")

    assert not failed.value.refused


async def test_a_refused_key_is_not_shown(
    server: EmbeddingsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """X4: servers repeat the key that they refuse; neither the error nor the log does."""
    caplog.set_level(logging.DEBUG)
    server.script(Fault(401, "Incorrect API key provided: sk-secret."))
    async with embedder(server, api_key="sk-secret") as embedding:
        with pytest.raises(EmbeddingFailed) as failed:
            await embedding.embed(["x"], "passage")

    assert server.requests[0].headers["authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in failed.value.message
    assert "sk-secret" not in caplog.text


WRONG = {
    "one too few": lambda answer: answer["data"].pop(),
    "one too many": lambda answer: answer["data"].append(answer["data"][0]),
    "no index twice": lambda answer: answer["data"][1].update(index=0),
    "an index beyond": lambda answer: answer["data"][1].update(index=2),
    "not a number": lambda answer: answer["data"][0].update(embedding=[math.nan] * 32),
    "infinite": lambda answer: answer["data"][0].update(embedding="AACAfwAAAAA="),
    "zero": lambda answer: answer["data"][0].update(embedding=[0.0] * 32),
    "empty": lambda answer: answer["data"][0].update(embedding=[]),
    "no base64": lambda answer: answer["data"][0].update(embedding="ü"),
    "half a number": lambda answer: answer["data"][0].update(embedding="AAA="),
    "not of one length": lambda answer: answer["data"][0].update(embedding=[1.0]),
    "null": lambda answer: answer["data"][0].update(embedding=[None] * 32),
    "no list": lambda answer: answer.update(data={}),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG.keys())
async def test_a_wrong_answer_is_no_vector(server: EmbeddingsServer, change: Any) -> None:
    """Nothing that would spoil an index is let through; asking again at once would change nothing."""
    server.script(Changed(change))
    async with embedder(server) as embedding:
        with pytest.raises(EmbeddingFailed, match="answer is wrong") as failed:
            await embedding.embed(["x", "y"], "passage")

    assert not failed.value.passing
    assert not failed.value.refused
    assert len(server.requests) == 1


async def test_vectors_in_another_order_are_put_in_order(server: EmbeddingsServer) -> None:
    """`index` says which text a vector is of."""
    server.script(Changed(lambda answer: answer["data"].reverse()))
    async with embedder(server) as embedding:
        vectors = await embedding.embed(["red", "green", "blue"], "passage")

    assert [numbers(vector) for vector in vectors] == [
        expected("red"),
        expected("green"),
        expected("blue"),
    ]


async def test_vectors_without_numbers_are_in_order(server: EmbeddingsServer) -> None:
    """Some servers leave `index` out."""

    def unnumbered(answer: Any) -> None:
        for entry in answer["data"]:
            del entry["index"]

    server.script(Changed(unnumbered))
    async with embedder(server) as embedding:
        _, vector = await embedding.embed(["red", "green"], "passage")

    assert numbers(vector) == expected("green")


async def test_another_length_than_before_is_refused(server: EmbeddingsServer) -> None:
    """One name, one length: but what was first may have been the mistake, so this does not stick."""
    async with embedder(server) as embedding:
        await embedding.embed(["x"], "passage")
        server.dimensions = 48
        with pytest.raises(EmbeddingFailed, match="48 dimensions, and not 32") as failed:
            await embedding.embed(["x"], "passage")
        assert not failed.value.refused
        (vector,) = await embedding.embed(["x"], "passage")

    assert len(vector) == 48 * 4


async def test_a_text_that_is_too_long_is_cut(
    server: EmbeddingsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The port: to nearly what the server says that fits; the others of its batch stay whole. Said once."""
    server.longest = 50
    long, short = " ".join(f"word{n:03}" for n in range(200)), "red fish"
    async with embedder(server) as embedding:
        first, cut, last = await embedding.embed([short, long, "blue"], "passage")
        await embedding.embed([long], "passage")

    assert numbers(first) == expected(short)
    assert numbers(last) == expected("blue")
    (kept,) = server.inputs[3]
    assert long.startswith(kept)
    assert 40 <= len(kept.split()) <= 50
    assert numbers(cut) == expected(kept)
    assert caplog.text.count("was cut to") == 1
    assert "word000" not in caplog.text  # P5: no content in a log


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (500, "input is too large to process. increase the physical batch size"),
        (413, "Payload too large"),
        (400, "the input length exceeds the context length"),
    ],
)
async def test_servers_say_in_many_ways_that_a_text_is_too_long(
    server: EmbeddingsServer, status: int, message: str
) -> None:
    """Without numbers, a text is halved."""
    server.script(Fault(status, message), Fault(status, message))
    async with embedder(server) as embedding:
        await embedding.embed(["a" * 64], "passage")

    assert [len(texts[0]) for texts in server.inputs] == [64, 32, 16]


async def test_cutting_ends(server: EmbeddingsServer) -> None:
    """X5: a server that takes nothing at all is not asked for ever."""
    server.longest = 0
    async with embedder(server) as embedding:
        with pytest.raises(EmbeddingFailed, match="maximum context length") as failed:
            await embedding.embed(["word " * 1000], "passage")

    assert not failed.value.passing
    assert not failed.value.refused  # it takes no other text either
    assert len(server.requests) == 10


async def test_a_batch_that_is_too_much_is_halved(server: EmbeddingsServer) -> None:
    """OpenAI and text-embeddings-inference bound what one request brings."""
    server.script(Fault(400, "Requested 400000 tokens, max 300000 tokens per request"))
    async with embedder(server) as embedding:
        vectors = await embedding.embed(["red", "blue", "green", "x"], "passage")

    assert [len(texts) for texts in server.inputs] == [4, 2, 2]
    assert numbers(vectors[2]) == expected("green")
