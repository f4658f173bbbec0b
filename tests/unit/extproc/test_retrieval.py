"""What a worker has for vector stores, and what it says where something is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import RetrievalUnavailable
from engine.ports import SearchAsked
from extproc.retrieval import RetrievalParts, indexing_parts, open_retrieval
from extproc.settings import Settings
from tests.support.engine_rig import Rig
from tests.support.fake_model import FakeModel
from tests.support.retrieval import RetrievalRig

UPSTREAM = {"source": "upstream", "model": "embedder"}


@pytest.mark.parametrize(
    ("sections", "setting"),
    [
        ({}, "HOLDFAST_EMBEDDINGS__SOURCE"),
        ({"index": {"kind": "pgvector"}}, "HOLDFAST_EMBEDDINGS__SOURCE"),
        ({"embeddings": UPSTREAM}, "HOLDFAST_INDEX__KIND"),
        ({"embeddings": UPSTREAM, "index": {"kind": "off"}}, "HOLDFAST_INDEX__KIND"),
    ],
)
async def test_a_missing_setting_is_named(
    sections: dict[str, dict[str, str]], setting: str, tmp_path: Path
) -> None:
    """H1: by searches, and by whatever needs a file ingested."""
    settings = Settings(data_dir=tmp_path).having(**sections)
    rig = Rig(FakeModel())
    async with open_retrieval(settings) as means:
        assert indexing_parts(rig.store, means, batch=1) is None
        parts = RetrievalParts(
            rig.store, rig.files, RetrievalRig().extraction, means, settings.retrieval, "w"
        )
    with pytest.raises(RetrievalUnavailable, match=setting):
        parts.retrieval.require()
    with pytest.raises(RetrievalUnavailable, match=setting):
        await parts.retrieval.search.search("t", SearchAsked(stores=["s"], queries=["q"], limit=1))


async def test_with_both_there_is_all_of_it(tmp_path: Path) -> None:
    """Nothing is asked of either before the first file or search."""
    settings = Settings(data_dir=tmp_path).having(
        embeddings=UPSTREAM, index={"kind": "milvus", "url": f"unix:{tmp_path}/no.sock"}
    )
    async with open_retrieval(settings) as means:
        assert means.embedder is not None
        assert means.index is not None
