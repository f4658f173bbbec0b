"""Documents that are meant to do harm, put into a vector store: each ends with a reason (X5, H1)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import openai
import pytest_asyncio

from storage.postgres.embedded import EmbeddedPostgres
from tests.support import bombs, documents
from tests.support.embeddings_server import EmbeddingsServer
from tests.support.fix_postgres import create_database
from tests.support.retrieving import retrieving_stack
from tests.support.scripted_model import ScriptedModel
from tests.support.stack import CLIENT_KEY, Peaks, Stack, eventually

MIB = 1 << 20
# The documents are up to 20 MiB themselves, and their bombs a gigabyte.
GROWTH = 100 * MIB
SEEN = "The otter sleeps on its back."

ATTACKS: dict[str, tuple[Callable[[], bytes], tuple[str, str]]] = {
    "bomb.docx": (bombs.zip_bomb, ("invalid_file", "limit is 200 times")),
    "lies.docx": (bombs.lying_zip_bomb, ("invalid_file", "")),
    "nested.docx": (bombs.nested_zip_bomb, ("unsupported_file", "")),
    "entries.xlsx": (bombs.many_entries, ("invalid_file", "50000")),
    "laughs.docx": (bombs.billion_laughs, ("invalid_file", "entities")),
    "laughs.pptx": (partial(bombs.billion_laughs, "pptx"), ("invalid_file", "entities")),
    "blowup.xlsx": (partial(bombs.quadratic_blowup, "xlsx"), ("invalid_file", "entities")),
    "passwd.docx": (bombs.external_entity, ("invalid_file", "entities")),
    "deep.docx": (bombs.deep_xml, ("invalid_file", "")),
    "pages.pdf": (bombs.many_pages, ("invalid_file", "10000 pages; the limit is 5000")),
    "endless.pdf": (bombs.endless_pages, ("unsupported_file", "no text layer")),
    "forms.pdf": (bombs.endless_forms, ("invalid_file", "")),
    "locked.pdf": (bombs.encrypted_pdf, ("unsupported_file", "password")),
    "locked.docx": (bombs.encrypted_office, ("unsupported_file", "password")),
    "scan.pdf": (bombs.scanned_pdf, ("unsupported_file", "no text layer")),
    "half.docx": (partial(bombs.truncated, "docx"), ("invalid_file", "damaged")),
    "half.pdf": (partial(bombs.truncated, "pdf"), ("invalid_file", "")),
    "picture.pdf": (lambda: b"\x89PNG\r\n\x1a\n\0", ("unsupported_file", "an image")),
    "program.txt": (lambda: b"\x7fELF\x02\x01\x01" + bytes(99), ("unsupported_file", "")),
    "broken.txt": (lambda: b"caf\xe9 \xff\xfe\xc3( broken" * 9, ("invalid_file", "UTF-8")),
    "empty.txt": (lambda: b"", ("invalid_file", "empty")),
    "blank.txt": (lambda: b" \n\t\n", ("invalid_file", "")),
}
# A name says nothing: what is inside counts.
HARMLESS: dict[str, Callable[[], bytes]] = {
    "a pdf.txt": partial(documents.make, "pdf", [SEEN]),
    "a text.pdf": SEEN.encode,
    "a sheet.docx": partial(documents.make, "xlsx", [SEEN]),
    "a page.json": partial(documents.make, "html", [SEEN]),
    "no ending": SEEN.encode,
}


@pytest_asyncio.fixture(scope="module")
async def stack(postgres_server: EmbeddedPostgres, stage: ScriptedModel) -> AsyncIterator[Stack]:
    """Two workers that read documents within the bounds of production."""
    database = await create_database(postgres_server)
    async with EmbeddingsServer() as server, retrieving_stack(stage, database, server) as running:
        yield running


@pytest_asyncio.fixture
async def client(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official SDK."""
    async with openai.AsyncOpenAI(
        base_url=f"{stack.url}/v1", api_key=CLIENT_KEY, max_retries=0, timeout=60
    ) as sdk:
        yield sdk


async def uploaded(client: openai.AsyncOpenAI, name: str, data: bytes) -> str:
    """Upload a document; return its id."""
    return (await client.files.create(file=(name, data), purpose="assistants")).id


async def test_attacks_fail_with_a_reason_and_hurt_nobody(
    stack: Stack, client: openai.AsyncOpenAI, record_property: Callable[[str, object], None]
) -> None:
    """X5, H1: each has a code and a message that help; workers stay small; others go on meanwhile."""
    names = {await uploaded(client, name, make()): name for name, (make, _) in ATTACKS.items()}
    others = [await uploaded(client, name, make()) for name, make in HARMLESS.items()]
    attacked = await client.vector_stores.create(name="attacked")
    quiet = await client.vector_stores.create(name="quiet")
    peaks = Peaks([stack.worker(0), stack.worker(1)])
    batch = await client.vector_stores.file_batches.create(attacked.id, file_ids=[*names])
    beside = await client.vector_stores.file_batches.create_and_poll(
        quiet.id, file_ids=others, poll_interval_ms=200
    )
    assert beside.file_counts.completed == len(HARMLESS), beside

    async def ended() -> bool:
        told = await client.vector_stores.file_batches.retrieve(
            batch.id, vector_store_id=attacked.id
        )
        return told.file_counts.in_progress == 0

    await eventually(ended, timeout=300)
    listed = client.vector_stores.files.list(attacked.id, limit=100)
    ends: dict[str, Any] = {names[file.id]: file async for file in listed}
    for name, (_, (code, word)) in ATTACKS.items():
        file = ends[name]
        assert file.status == "failed", name
        told = file.last_error
        assert (told.code, word in told.message, len(told.message) > 10) == (code, True, True), (
            name, told,
        )  # fmt: skip
    grown = [size // MIB for size in peaks.grown()]
    record_property("MiB that workers grew by under attack", grown)
    assert max(grown) < GROWTH // MIB, grown

    page = await client.vector_stores.search(quiet.id, query=SEEN)
    assert {result.file_id for result in page.data} == set(others)
    page = await client.vector_stores.search(attacked.id, query="root a lol page")
    assert page.data == []
    assert (await client.vector_stores.retrieve(attacked.id)).usage_bytes == 0
    counted = await asyncio.gather(
        *(client.vector_stores.files.content(each, vector_store_id=attacked.id) for each in names),
        return_exceptions=True,
    )
    assert not [each for each in counted if getattr(each, "data", None)]
