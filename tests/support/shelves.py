"""The `library` as real documents in a vector store, put there with the official SDK."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

from tests.support import documents
from tests.support.library import LIBRARY, Text
from tests.support.scripted_model import ScriptedModel
from tests.support.stack import Sections, Stack, running_stack

_MAKERS = {"txt": "text", "md": "markdown", "py": "code"}
# The two indexes that need no server: what `holdfast up` runs of itself, and that of its Postgres.
INDEXES: Mapping[str, Mapping[str, object]] = {
    "lite": {"kind": None},
    "pgvector": {"kind": "pgvector"},
}


@dataclass(frozen=True)
class Shelf:
    """A vector store that holds the library: its id, and the id of each text's file."""

    store: str
    files: Mapping[str, str]

    def named(self, file_ids: list[str]) -> list[str]:
        """Return the names of the texts of these files."""
        names = {file_id: name for name, file_id in self.files.items()}
        return [names[file_id] for file_id in file_ids]


def reading_stack(
    model: ScriptedModel,
    postgres: str,
    cache: Path,
    index: str,
    /,
    **sections: Mapping[str, object],
) -> AbstractAsyncContextManager[Stack]:
    """Run Envoy and two workers that make vectors themselves, with an index of `INDEXES`."""
    local = {"source": "local", "cache_dir": cache, "threads": 1}
    own: Sections = {"embeddings": local, "index": INDEXES[index]}
    return running_stack(model, postgres, None, **{**own, **sections})


async def shelved(client: openai.AsyncOpenAI) -> Shelf:
    """Upload the library, and put it into a new vector store; returns when all of it is ingested."""
    uploaded = await asyncio.gather(*(_uploaded(client, text) for text in LIBRARY))
    files = dict(zip((text.name for text in LIBRARY), uploaded, strict=True))
    store = await client.vector_stores.create(name="library")
    attached: Any = [
        {"file_id": files[text.name], "attributes": attributes(text)} for text in LIBRARY
    ]
    batch = await client.vector_stores.file_batches.create_and_poll(
        store.id, files=attached, poll_interval_ms=200
    )
    assert (batch.status, batch.file_counts.completed) == ("completed", len(LIBRARY)), batch
    return Shelf(store.id, files)


def attributes(text: Text) -> dict[str, str | int]:
    """Return what a filter can ask about a text."""
    return {"department": text.department, "year": text.year}


async def _uploaded(client: openai.AsyncOpenAI, text: Text) -> str:
    maker = _MAKERS.get(text.kind, text.kind)
    content = documents.make(maker, text.paragraphs, title=text.name)
    name = f"{text.name}.{text.kind}"
    return (await client.files.create(file=(name, content), purpose="assistants")).id
