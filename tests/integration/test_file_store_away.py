"""Files with an object store that hangs and with a disk that is full, through Envoy."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
import pytest_asyncio

from storage.postgres.embedded import EmbeddedPostgres
from tests.support.embeddings_server import EmbeddingsServer
from tests.support.fix_postgres import create_database
from tests.support.fix_stack import open_session
from tests.support.object_store import ObjectStore, object_store
from tests.support.replies import say, text
from tests.support.retrieving import retrieving_stack
from tests.support.scarce_disk import ScarceDisk, scarce_disk
from tests.support.scraped import scrape
from tests.support.scripted_model import ScriptedModel
from tests.support.stack import CLIENT_KEY, Stack, eventually
from tests.support.stalling_proxy import StallingProxy, stalling_proxy
from tests.support.wire import FILES, RESPONSES, UPLOADS, VECTOR_STORES, Seen, Wire

MIB = 1 << 20
# What the file store has, and what is given beside it on a machine that is busy.
PATIENCE, SLACK = 4.0, 20.0
ERRORS = "holdfast_file_store_errors_total"
FORM = {"content-type": "multipart/form-data; boundary=b"}
_LEFT = "SELECT status, error_code FROM attachments"
_ATTEMPTS = "SELECT attempts, owner FROM ingestions"


class Parts:
    """A stack, and a client of it."""

    def __init__(self, stack: Stack, wire: Wire, sdk: openai.AsyncOpenAI) -> None:
        self.stack = stack
        self.wire = wire
        self.sdk = sdk

    async def upload(self, content: bytes, path: str = FILES) -> Seen:
        """Send a file, or a part of an upload."""
        name = b"file" if path == FILES else b"data"
        purpose = b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
        head = b'--b\r\ncontent-disposition: form-data; name="%b"; filename="a.txt"\r\n\r\n' % name
        form = (purpose if path == FILES else b"") + head + content + b"\r\n--b--\r\n"
        return await self.wire.ask("POST", path, data=io.BytesIO(form), headers=FORM)

    async def content(self, file_id: str) -> Seen:
        """Fetch what is in a file."""
        return await self.wire.ask("GET", f"{FILES}/{file_id}/content")

    async def files(self) -> set[str]:
        """Return the ids of all files."""
        seen = await self.wire.ask("GET", FILES)
        assert seen.status == 200
        return {file["id"] for file in seen.json["data"]}

    async def errors(self, kind: str) -> float:
        """Return how many errors of the file store were counted, in all workers."""
        return (await scrape(self.stack.settings)).total(ERRORS, kind=kind)

    async def others_are_served(self) -> None:
        """Responses, lists and files as rows go on, in both workers, and Envoy finds them healthy."""
        model = self.stack.plays(say(text("Hello")))
        for _ in range(4):
            answers = await asyncio.gather(
                self.wire.create(model=model, stream=False),
                self.wire.ask("GET", FILES),
                self.wire.ask("GET", VECTOR_STORES),
            )
            assert [seen.status for seen in answers] == [200] * 3
        await self.stack.all_workers_take_requests()

    async def attached(self, file_id: str) -> str:
        """Attach a file to a new vector store; return the store's id."""
        store = await self.sdk.vector_stores.create()
        await self.sdk.vector_stores.files.create(store.id, file_id=file_id)
        return store.id

    async def ingested(self) -> bool:
        """Return whether all files that were attached are."""
        return {*await self.stack.sql(_LEFT)} == {("completed", None)}

    async def put_back(self) -> bool:
        """Return whether a file waits to be ingested again."""
        return any("is ingested again in" in line for line in self.stack.said)


@asynccontextmanager
async def _opened(stack: Stack) -> AsyncIterator[Parts]:
    async with (
        open_session(stack.url) as session,
        openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key=CLIENT_KEY, max_retries=0) as sdk,
    ):
        yield Parts(stack, Wire(session), sdk)


@pytest_asyncio.fixture(scope="module")
async def server() -> AsyncIterator[EmbeddingsServer]:
    """What makes vectors."""
    async with EmbeddingsServer() as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def store() -> AsyncIterator[ObjectStore]:
    """An object store."""
    with object_store() as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def s3(store: ObjectStore) -> AsyncIterator[StallingProxy]:
    """The way to it, on which it may hang."""
    async with stalling_proxy(store.url) as proxy:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in store.environment(proxy.url).items():
                patch.setenv(name, value)
            yield proxy


@pytest_asyncio.fixture(scope="module")
async def hanging(
    store: ObjectStore,
    s3: StallingProxy,
    postgres_server: EmbeddedPostgres,
    stage: ScriptedModel,
    server: EmbeddingsServer,
) -> AsyncIterator[Parts]:
    """A stack with an object store that may hang; no ingestion has a second attempt."""
    async with (
        retrieving_stack(
            stage,
            await create_database(postgres_server),
            server,
            files={"url": store.place, "timeout_seconds": PATIENCE},
            retrieval={"attempts": 1},
        ) as stack,
        _opened(stack) as parts,
    ):
        yield parts


@pytest_asyncio.fixture(scope="module")
async def disk() -> AsyncIterator[ScarceDisk]:
    """A disk that may be full."""
    with scarce_disk() as scarce:
        yield scarce


@pytest_asyncio.fixture(scope="module")
async def cramped(
    disk: ScarceDisk,
    postgres_server: EmbeddedPostgres,
    stage: ScriptedModel,
    server: EmbeddingsServer,
) -> AsyncIterator[Parts]:
    """A stack that has its files, and the documents that it reads, on a disk that may be full."""
    async with (
        retrieving_stack(
            stage,
            await create_database(postgres_server),
            server,
            files={"directory": disk.directory / "files"},
            extraction={"directory": disk.directory},
            retrieval={"attempts": 1},
        ) as stack,
        _opened(stack) as parts,
    ):
        yield parts


def _of_a_file(file_id: str) -> dict[str, Any]:
    content = [{"type": "input_file", "file_id": file_id}]
    return {"model": "m", "input": [{"role": "user", "content": content}]}


def _long(size: int) -> bytes:
    """Return a text that is long, and one chunk."""
    return b"the river carries a stone".ljust(size)


async def _refused_in_time(work: Awaitable[Seen]) -> None:
    begun = time.monotonic()
    seen = await work
    assert (seen.status, seen.error["code"]) == (503, "storage_unavailable"), seen.raw
    assert "did not answer in time" in seen.error["message"]
    assert seen.headers["retry-after"] == "1"
    assert time.monotonic() - begun < PATIENCE + SLACK


async def test_an_object_store_that_hangs_hurts_only_who_needs_it(
    hanging: Parts, s3: StallingProxy
) -> None:
    """P2, E6: 503 in bounded time on each way to it, and counted; nothing is half there; then all is well."""
    stack = hanging.stack
    kept = (await hanging.upload(b"kept")).json["id"]
    upload = await hanging.sdk.uploads.create(
        bytes=4, filename="a", mime_type="text/plain", purpose="user_data"
    )
    part = await hanging.sdk.uploads.parts.create(upload.id, data=b"part")
    complete: dict[str, Any] = {"part_ids": [part.id], "md5": "0" * 32}
    pids = [stack.worker(index) for index in range(2)]
    there, before = await hanging.files(), await hanging.errors("timeout")
    s3.stall()
    hung = [
        *(hanging.upload(b"a" * MIB) for _ in range(8)),
        hanging.upload(b"a" * 10 * MIB),
        hanging.upload(b"a", f"{UPLOADS}/{upload.id}/parts"),
        hanging.wire.ask("POST", f"{UPLOADS}/{upload.id}/complete", json=complete),
        *(hanging.content(kept) for _ in range(8)),
        hanging.wire.ask("POST", RESPONSES, json=_of_a_file(kept)),
    ]  # fmt: skip
    tasks = [asyncio.create_task(_refused_in_time(each)) for each in hung]
    await eventually(lambda: s3.stalled >= len(hung))
    await hanging.others_are_served()
    await asyncio.gather(*tasks)

    async def counted() -> bool:
        return await hanging.errors("timeout") >= before + len(hung)

    await eventually(counted)
    assert await hanging.files() == there
    s3.flow()
    again = [await hanging.upload(b"again") for _ in range(4)]
    assert [seen.status for seen in again] == [200] * 4
    assert (await hanging.content(kept)).raw == b"kept"
    done = await hanging.sdk.uploads.complete(upload.id, part_ids=[part.id])
    assert done.file is not None
    assert (await hanging.content(done.file.id)).raw == b"part"
    assert [stack.worker(index) for index in range(2)] == pids


async def test_ingestion_waits_for_an_object_store_that_hangs_in_the_middle_of_a_file(
    hanging: Parts, s3: StallingProxy
) -> None:
    """P2, E6: it uses up no attempt, of which there is one; who downloads sees that not all has come."""
    kept = (await hanging.upload(_long(4 * MIB))).json["id"]
    s3.stall(b"^GET", answered=MIB)
    begun = time.monotonic()
    store, seen = await asyncio.gather(hanging.attached(kept), hanging.content(kept))
    assert time.monotonic() - begun < PATIENCE + SLACK
    assert (seen.status, seen.clean) == (200, False)
    assert len(seen.raw) < 4 * MIB
    await eventually(hanging.put_back, PATIENCE + SLACK)
    s3.flow()
    await eventually(hanging.ingested, 30)
    assert len((await hanging.content(kept)).raw) == 4 * MIB
    found = await hanging.sdk.vector_stores.search(store, query="river")
    assert [hit.file_id for hit in found.data] == [kept]


async def test_a_full_disk_is_told_and_others_are_served(cramped: Parts, disk: ScarceDisk) -> None:
    """P2: 507 with what to do, in the middle of an upload; nothing of it stays, small files have room."""
    stack = cramped.stack
    pids = [stack.worker(index) for index in range(2)]
    kept = (await cramped.upload(b"kept")).json["id"]
    upload = await cramped.sdk.uploads.create(
        bytes=4, filename="a", mime_type="text/plain", purpose="user_data"
    )
    there = await cramped.files()
    disk.leave(4 * MIB, *pids)

    def on_disk() -> int:
        return sum(p.stat().st_size for p in (disk.directory / "files").rglob("*") if p.is_file())

    full = on_disk()
    refused = await asyncio.gather(
        cramped.upload(b"a" * 10 * MIB),
        cramped.upload(b"a" * 20 * MIB),
        cramped.upload(b"a" * 6 * MIB, f"{UPLOADS}/{upload.id}/parts"),
    )
    for seen in refused:
        assert (seen.status, seen.error["code"]) == (507, "storage_full")
        assert "no room" in seen.error["message"]
        assert seen.headers["retry-after"] == "30"
    assert on_disk() == full
    assert await cramped.files() == there
    await cramped.others_are_served()
    small = await cramped.upload(b"small")
    assert small.status == 200

    async def counted() -> bool:
        return await cramped.errors("full") >= len(refused)

    await eventually(counted)
    disk.free()
    assert (await cramped.upload(b"a" * 10 * MIB)).status == 200
    assert (await cramped.content(kept)).raw == b"kept"


async def test_ingestion_waits_for_room_to_read_a_document(
    cramped: Parts, disk: ScarceDisk
) -> None:
    """P2: what has no room on its way to be read uses up no attempt; a request is told."""
    pids = [cramped.stack.worker(index) for index in range(2)]
    kept = (await cramped.upload(_long(MIB // 2))).json["id"]
    disk.leave(MIB // 8, *pids)
    store = await cramped.attached(kept)
    await eventually(cramped.put_back)
    disk.free()
    await eventually(cramped.ingested, 60)
    found = await cramped.sdk.vector_stores.search(store, query="river")
    assert [hit.file_id for hit in found.data] == [kept]
