"""Files and uploads with the official SDK, through Envoy and without it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest

from tests.support.fix_stack import BOTH_WAYS, open_session
from tests.support.replies import say, text
from tests.support.stack import Peaks, Stack, eventually, memory
from tests.support.wire import FILES, Wire

MIB = 1 << 20
# What a worker may grow by while a file flows through it, however large that is.
GROWTH = 64 * MIB


async def made(
    client: openai.AsyncOpenAI, content: bytes = b"hello", name: str = "a.txt"
) -> openai.types.FileObject:
    """Upload a file."""
    return await client.files.create(file=(name, content), purpose="user_data")


@BOTH_WAYS
async def test_a_file_is_there_until_it_is_deleted(client: openai.AsyncOpenAI) -> None:
    """Every method on files; a name is data, whatever it looks like."""
    name = "../../etc/päss; wd.txt"
    file = await client.files.create(
        file=(name, b"hello"),
        purpose="assistants",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert (file.bytes, file.purpose, file.status) == (5, "assistants", "processed")
    assert file.filename == name
    assert file.expires_at == file.created_at + 3600
    assert await client.files.retrieve(file.id) == file
    answer = await client.files.content(file.id)
    assert answer.content == b"hello"
    assert answer.response.headers["content-length"] == "5"
    assert (await client.files.delete(file.id)).deleted
    for gone in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            await gone(file.id)


@BOTH_WAYS
async def test_files_are_listed(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """H2: by purpose, in pages, in either order; what is wrong is refused."""
    files = [await made(client, bytes([n])) for n in range(3)]
    ids = [file.id for file in files]
    other = await client.files.create(file=("b", b""), purpose="vision")
    newest = await client.files.list(purpose="user_data", limit=2)
    assert [file.id for file in newest.data] == [ids[2], ids[1]]
    assert newest.has_more
    oldest = [
        file.id
        async for file in client.files.list(order="asc", limit=1, after=ids[0], purpose="user_data")
    ]
    assert oldest == ids[1:]
    assert other.id in [file.id async for file in client.files.list()]
    for wrong, param in (
        ({"limit": 10_001}, "limit"),
        ({"order": "up"}, "order"),
        ({"after": "file-x"}, "after"),
        ({"extra_query": {"before": "x"}}, "before"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            await client.files.list(**wrong)
        assert refused.value.param == param


@BOTH_WAYS
async def test_ranges(wire: Wire, client: openai.AsyncOpenAI) -> None:
    """A part of the content, from either end; 416 behind the end; several ranges give the whole."""
    file = await made(client, b"0123456789")
    path = f"{FILES}/{file.id}/content"
    for asked, status, content, told in (
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=0-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
    ):
        seen = await wire.ask("GET", path, headers={"range": asked})
        assert (seen.status, bytes(seen.raw), seen.headers.get("content-range")) == (
            status,
            content,
            told,
        )
    refused = await wire.ask("GET", path, headers={"range": "bytes=10-"})
    assert (refused.status, refused.headers["content-range"]) == (416, "bytes */10")
    assert refused.json["error"]["code"] == "range_not_satisfiable"
    conditional = {"range": "bytes=2-4", "if-range": '"x"'}
    assert (await wire.ask("GET", path, headers=conditional)).raw == b"0123456789"


@BOTH_WAYS
async def test_wrong_forms_are_refused(wire: Wire) -> None:
    """H1: what is missing, unknown, doubled or no form at all, each with its `param`."""
    for fields, param in (
        ([("purpose", "vision")], "file"),
        ([("file", b"x")], "purpose"),
        ([("purpose", "mischief"), ("file", b"x")], "purpose"),
        ([("purpose", "vision"), ("file", b"x"), ("name", "y")], "name"),
        ([("purpose", "vision"), ("file", b"x"), ("file", b"x")], "file"),
        ([("expires_after[anchor]", "created_at"), ("purpose", "vision"), ("file", b"x")],
         "expires_after[seconds]"),
        ([("expires_after[seconds]", "5"), ("purpose", "vision"), ("file", b"x")],
         "expires_after[seconds]"),
    ):  # fmt: skip
        form = aiohttp.FormData(default_to_multipart=True)
        for name, value in fields:
            if isinstance(value, bytes):
                form.add_field(name, value, filename="f")
            else:
                form.add_field(name, value)
        seen = await wire.ask("POST", FILES, data=form)
        assert (seen.status, seen.json["error"]["param"]) == (400, param), fields
    seen = await wire.ask("POST", FILES, json={"purpose": "vision"})
    assert seen.status == 415
    for broken in (b"--b\r\nnonsense", b"--c--", b""):
        headers = {"content-type": "multipart/form-data; boundary=b"}
        seen = await wire.ask("POST", FILES, data=broken, headers=headers)
        assert (seen.status, seen.json["error"]["code"]) == (400, "invalid_form"), broken


@BOTH_WAYS
async def test_an_upload_is_put_together(client: openai.AsyncOpenAI) -> None:
    """Every method on uploads: parts in the order that is named, checked by size and MD5."""
    upload = await client.uploads.create(
        bytes=10, filename="big.txt", mime_type="text/plain", purpose="user_data"
    )
    assert (upload.status, upload.expires_at) == ("pending", upload.created_at + 3600)
    late, early, other = [
        await client.uploads.parts.create(upload.id, data=data)
        for data in (b"56789", b"01234", b"x")
    ]
    assert early.upload_id == upload.id
    for parts, md5, param in (
        ([early.id], None, "part_ids"),
        ([early.id, early.id], None, "part_ids"),
        ([early.id, "part_x"], None, "part_ids[1]"),
        ([early.id, late.id], "0" * 32, "md5"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            await client.uploads.complete(
                upload.id, part_ids=parts, md5=openai.omit if md5 is None else md5
            )
        assert refused.value.param == param
    done = await client.uploads.complete(
        upload.id,
        part_ids=[early.id, late.id],
        md5=hashlib.md5(b"0123456789").hexdigest(),
    )
    assert done.status == "completed"
    assert done.file is not None
    assert done.file.filename == "big.txt"
    assert (await client.files.content(done.file.id)).content == b"0123456789"
    with pytest.raises(openai.BadRequestError):
        await client.uploads.parts.create(upload.id, data=b"late")
    with pytest.raises(openai.BadRequestError):
        await client.uploads.cancel(upload.id)
    assert other.id not in (early.id, late.id)


@BOTH_WAYS
async def test_a_cancelled_upload_takes_nothing_more(client: openai.AsyncOpenAI) -> None:
    """Nor can it be completed."""
    upload = await client.uploads.create(
        bytes=1, filename="f", mime_type="text/plain", purpose="batch"
    )
    part = await client.uploads.parts.create(upload.id, data=b"x")
    assert (await client.uploads.cancel(upload.id)).status == "cancelled"
    with pytest.raises(openai.BadRequestError) as refused:
        await client.uploads.complete(upload.id, part_ids=[part.id])
    assert refused.value.code == "upload_not_pending"


async def _noise(size: int) -> AsyncIterator[bytes]:
    """Yield bytes that look like nothing, the same each time."""
    source = random.Random(size)
    for _ in range(size // MIB):
        yield source.randbytes(MIB)


def _form(head: str, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async def whole() -> AsyncIterator[bytes]:
        yield head.encode()
        async for piece in content:
            yield piece
        yield b"\r\n--b--\r\n"

    return whole()


HEAD = (
    '--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
    '--b\r\ncontent-disposition: form-data; name="file"; filename="big"\r\n\r\n'
)
FORM = {"content-type": "multipart/form-data; boundary=b"}


@BOTH_WAYS
async def test_memory_stays_flat(stack: Stack) -> None:
    """E6: 200 MiB in and out: at no time has Envoy or a worker grown by more than a part of that."""
    size = 200 * MIB
    async with open_session(stack.url) as session:
        wire = Wire(session)
        small = await wire.ask("POST", FILES, data=_form(HEAD, _noise(MIB)), headers=FORM)
        assert small.status == 200
        up = Peaks(_processes(stack))
        sent = await wire.ask("POST", FILES, data=_form(HEAD, _noise(size)), headers=FORM)
        assert (sent.status, sent.json["bytes"]) == (200, size)
        assert max(up.grown()) < GROWTH
        down, digest = Peaks(_processes(stack)), hashlib.sha256()
        async with session.get(f"{FILES}/{sent.json['id']}/content") as answer:
            async for piece in answer.content.iter_any():
                digest.update(piece)
        wanted = hashlib.sha256()
        async for piece in _noise(size):
            wanted.update(piece)
        assert digest.digest() == wanted.digest()
        assert max(down.grown()) < GROWTH
        await wire.ask("DELETE", f"{FILES}/{sent.json['id']}")


def _processes(stack: Stack) -> list[int]:
    """Return the workers and, where there is one, Envoy."""
    workers = [stack.worker(index) for index in range(2)]
    return workers if stack.settings.model.via == "url" else [*workers, stack.envoy()]


@BOTH_WAYS
async def test_uploads_that_stall_hold_up_nobody(stack: Stack) -> None:
    """E6: ten clients that stop within 20 MiB cost less than what they sent, and others are served."""
    begun: list[None] = []

    async def stalled() -> AsyncIterator[bytes]:
        yield os.urandom(20 * MIB)
        begun.append(None)
        await asyncio.Event().wait()

    async with open_session(stack.url) as stalling, open_session(stack.url) as session:
        peaks = Peaks(_processes(stack))
        uploads = [
            asyncio.create_task(
                Wire(stalling).ask("POST", FILES, data=_form(HEAD, stalled()), headers=FORM)
            )
            for _ in range(10)
        ]
        await eventually(lambda: len(begun) == 10, 30)
        sent = await Wire(session).ask("POST", FILES, data=_form(HEAD, _noise(MIB)), headers=FORM)
        assert sent.status == 200
        assert max(peaks.grown()) < 10 * 16 * MIB
        for upload in uploads:
            upload.cancel()
        await asyncio.wait(uploads)
        await Wire(session).ask("DELETE", f"{FILES}/{sent.json['id']}")


@BOTH_WAYS
async def test_a_cut_upload_leaves_nothing(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """Its client leaves in the middle: no file, no blob, nothing but an announcement to be swept."""
    before = [file.id async for file in client.files.list()]
    begun = asyncio.Event()

    async def stalled() -> AsyncIterator[bytes]:
        yield os.urandom(20 * MIB)
        begun.set()
        await asyncio.Event().wait()

    def blobs() -> set[str]:
        return {p.name for p in stack.settings.files.directory.rglob("*") if p.is_file()}

    there = blobs()
    async with open_session(stack.url) as session:
        sending = asyncio.create_task(
            Wire(session).ask("POST", FILES, data=_form(HEAD, stalled()), headers=FORM)
        )
        async with asyncio.timeout(15):
            await begun.wait()
            # What is being written is there, under a name that no file has.
            await eventually(lambda: any("#" in name for name in blobs()))
        sending.cancel()
        await asyncio.wait({sending})
    await eventually(lambda: blobs() == there)
    assert [file.id async for file in client.files.list()] == before


@BOTH_WAYS
async def test_a_model_reads_files(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """M8, X3: a file and an image by id; a URL that leads inside is not followed."""
    model = stack.plays(say(text("ok")))
    notes = await made(client, b"milk, eggs", "notes.md")
    image = await made(client, b"\x89PNG\r\n\x1a\n", "a.png")
    content: Any = [
        {"type": "input_file", "file_id": notes.id},
        {"type": "input_image", "file_id": image.id, "detail": "low"},
        {"type": "input_text", "text": "What is it?"},
    ]
    response = await client.responses.create(
        model=model, input=[{"role": "user", "content": content}]
    )
    assert response.output_text == "ok"
    sent = stack.asked(model)[0].json["input"][0]["content"]
    assert sent[0] == {"type": "input_text", "text": "File: notes.md\n\nmilk, eggs"}
    assert sent[1]["image_url"] == "data:image/png;base64,iVBORw0KGgo="
    for url in ("https://127.0.0.1:9/x", "https://169.254.169.254/latest/meta-data"):
        inside: Any = [{"type": "input_file", "file_url": url}]
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(model=model, input=[{"role": "user", "content": inside}])
        assert refused.value.code == "target_refused"
        assert refused.value.param == "input[0].content[0].file_url"
    assert len(stack.asked(model)) == 1


async def test_slow_readers_hold_back_their_own_downloads(envoy_stack: Stack) -> None:
    """E6: ten clients that do not read 64 MiB each cost Envoy and the workers a part of one of them."""
    stack, size = envoy_stack, 64 * MIB
    pids = [stack.envoy(), stack.worker(0), stack.worker(1)]
    taken = "cluster.content.upstream_cx_rx_bytes_total"
    async with open_session(stack.url) as session:
        sent = await Wire(session).ask("POST", FILES, data=_form(HEAD, _noise(size)), headers=FORM)
        path = f"{FILES}/{sent.json['id']}/content"
        before, start = [memory(pid) for pid in pids], await stack.stat(taken)
        answers = [await session.get(path) for _ in range(10)]
        seen: list[int] = []

        async def still() -> bool:
            seen.append(await stack.stat(taken))
            return len(seen) > 50 and len({*seen[-50:]}) == 1

        await eventually(still)
        grown = [memory(pid) - was for pid, was in zip(pids, before, strict=True)]
        assert seen[-1] - start < 10 * 16 * MIB
        assert max(grown) < GROWTH, grown
        whole = await answers[0].read()
        assert (
            hashlib.sha256(whole).digest()
            == hashlib.sha256(b"".join([piece async for piece in _noise(size)])).digest()
        )
        for answer in answers:
            answer.close()
        await Wire(session).ask("DELETE", f"{FILES}/{sent.json['id']}")


async def test_a_killed_worker_leaves_nothing_that_is_seen_or_stays(own_stack: Stack) -> None:
    """P4: a half of a file is no file; its bytes go with the next sweep behind its announcement's time."""
    stack = own_stack

    async def stalled() -> AsyncIterator[bytes]:
        yield os.urandom(20 * MIB)
        await asyncio.Event().wait()

    def halves() -> list[str]:
        return [p.name for p in stack.settings.files.directory.rglob("*") if "#" in p.name]

    async with open_session(stack.url) as session:
        sending = asyncio.create_task(
            Wire(session).ask("POST", FILES, data=_form(HEAD, stalled()), headers=FORM)
        )
        await eventually(halves)
        for index in (0, 1):
            pid = stack.worker(index)
            os.kill(pid, signal.SIGKILL)
            await stack.replaced(index, pid)
        seen = await sending
        assert (seen.status, seen.json["error"]["code"]) == (503, "sidecar_unavailable")
        assert (await Wire(session).ask("GET", FILES)).json["data"] == []
        assert halves()
        await stack.sql("UPDATE blobs SET drop_at = clock_timestamp()")
        # A worker sweeps when it starts.
        pid = stack.worker(0)
        os.kill(pid, signal.SIGKILL)
        await stack.replaced(0, pid)
        await eventually(lambda: not halves())

    async def forgotten() -> bool:
        return await stack.sql("SELECT 1 FROM blobs") == []

    await eventually(forgotten)
