"""Postgres killed while files are ingested and while uploads end; the bytes are elsewhere."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from functools import partial

import openai
import pytest_asyncio

from tests.support.embeddings_server import EmbeddingsServer
from tests.support.fix_stack import open_session
from tests.support.retrieving import retrieving_stack
from tests.support.scripted_model import ScriptedModel
from tests.support.stack import CLIENT_KEY, KillablePostgres, Stack, eventually
from tests.support.wire import FILES, Seen, Wire

MIB = 1 << 20
FILES_TO_INGEST = 16
AWAY_SECONDS = 6.0
_ENDED = "SELECT count(*) FROM attachments WHERE status <> 'in_progress'"
_STATUSES = "SELECT status, error_code, count(*) FROM attachments GROUP BY 1, 2"
_HEAD = (
    b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
    b'--b\r\ncontent-disposition: form-data; name="file"; filename="big"\r\n\r\n'
)


@pytest_asyncio.fixture(scope="module")
async def stack(own_postgres: KillablePostgres, stage: ScriptedModel) -> AsyncIterator[Stack]:
    """A stack whose Postgres may be killed.

    A claim whose answer was lost may have been committed: it is found when its lease runs out, and was an
    attempt. No ingestion has more than that one to lose.
    """
    assert own_postgres.server is not None
    async with (
        EmbeddingsServer() as server,
        retrieving_stack(
            stage,
            own_postgres.server.conninfo,
            server,
            retrieval={"attempts": 2, "batch": 2},
        ) as running,
    ):
        yield running


class _Uploads:
    """Makes uploads, one after the other, and asks again where it was told to; as the SDK does."""

    def __init__(self, sdk: openai.AsyncOpenAI) -> None:
        self._sdk = sdk
        self.made: dict[str, bytes] = {}
        self.refused: list[tuple[int, str | None, str]] = []

    async def make(self) -> None:
        """Make one: each step is repeated until it is done."""
        parts = [os.urandom(1000), os.urandom(1000)]
        upload = await self._step(
            self._sdk.uploads.create,
            bytes=2000, filename="a", mime_type="text/plain", purpose="user_data",
        )  # fmt: skip
        ids = [
            (await self._step(self._sdk.uploads.parts.create, upload.id, data=data)).id
            for data in parts
        ]
        done = await self._step(self._sdk.uploads.complete, upload.id, part_ids=ids)
        self.made[done.file.id] = b"".join(parts)

    async def _step(self, do, *args: object, **asked: object):  # type: ignore[no-untyped-def]
        while True:
            try:
                return await do(*args, **asked)
            except openai.InternalServerError as error:
                told = error.status_code, error.code, error.response.headers["retry-after"]
                self.refused.append(told)


def _ending_late(wire: Wire, begun: asyncio.Event, ends: asyncio.Event) -> asyncio.Task[Seen]:
    """Begin to send a file that ends when it is let."""

    async def form() -> AsyncIterator[bytes]:
        yield _HEAD
        yield os.urandom(10 * MIB)
        begun.set()
        await ends.wait()
        yield b"\r\n--b--\r\n"

    headers = {"content-type": "multipart/form-data; boundary=b"}
    return asyncio.create_task(wire.ask("POST", FILES, data=form(), headers=headers))


async def test_postgres_is_away_while_files_are_ingested_and_uploads_end(
    stack: Stack, own_postgres: KillablePostgres
) -> None:
    """P1, P2: clients are told at once, what they were told is so, and each file is ingested in the end."""
    begun, ends = asyncio.Event(), asyncio.Event()
    async with (
        open_session(stack.url) as session,
        openai.AsyncOpenAI(
            base_url=f"{stack.url}/v1", api_key=CLIENT_KEY, max_retries=0, timeout=60
        ) as sdk,
    ):
        await _attached(sdk)
        uploads = _Uploads(sdk)
        late = _ending_late(Wire(session), begun, ends)
        await begun.wait()
        making = [asyncio.create_task(_make(uploads, 200)) for _ in range(3)]
        await eventually(partial(_more, stack, 3))
        pids = [stack.worker(index) for index in range(2)]

        await own_postgres.kill()
        killed = time.monotonic()
        ends.set()
        seen = await late
        assert (seen.status, seen.error["code"]) == (503, "storage_unavailable")
        assert time.monotonic() - killed < 15
        await eventually(lambda: time.monotonic() > killed + AWAY_SECONDS)
        assert set(uploads.refused) == {(503, "storage_unavailable", "1")}
        await own_postgres.start()
        made = len(uploads.made)
        await eventually(lambda: len(uploads.made) > made + 3)
        for task in making:
            task.cancel()
        await asyncio.wait(making)

        await eventually(partial(_more, stack, FILES_TO_INGEST), 60)
        assert await stack.sql(_STATUSES) == [("completed", None, FILES_TO_INGEST)]
        for file_id, content in uploads.made.items():
            assert (await sdk.files.content(file_id)).content == content
        names = [file.filename async for file in sdk.files.list()]
        assert "big" not in names
        assert [stack.worker(index) for index in range(2)] == pids


async def _attached(sdk: openai.AsyncOpenAI) -> None:
    """Attach files to a new store."""
    text = "\n".join(f"the river carries stone {n}" for n in range(200)).encode()
    files = [
        await sdk.files.create(file=(f"{n}.txt", text), purpose="assistants")
        for n in range(FILES_TO_INGEST)
    ]
    store = await sdk.vector_stores.create()
    await sdk.vector_stores.file_batches.create(
        store.id,
        file_ids=[file.id for file in files],
        chunking_strategy={
            "type": "static",
            "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0},
        },
    )


async def _make(uploads: _Uploads, most: int) -> None:
    for _ in range(most):
        await uploads.make()


async def _more(stack: Stack, count: int) -> bool:
    """Return whether so many ingestions have ended."""
    [[ended]] = await stack.sql(_ENDED)
    return int(ended) >= count
