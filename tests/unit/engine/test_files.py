"""Files and uploads over the memory stores: bounds, checks, and what is swept."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine.errors import Conflict, InvalidRequest, StorageUnavailable, TooLarge
from engine.file_sweep import FileSweep, remove_dropped
from engine.limits import Limits
from engine.ports import FormPart
from storage.memory import MemoryStore
from tests.support.engine_rig import CALLER, Rig
from tests.support.fake_model import FakeModel


class _Part:
    def __init__(self, name: str, *pieces: bytes, filename: str | None = None) -> None:
        self.name, self.filename, self._pieces = name, filename, pieces

    async def pieces(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


class _Form:
    def __init__(self, *parts: _Part) -> None:
        self._parts = parts

    async def parts(self) -> AsyncIterator[FormPart]:
        for part in self._parts:
            yield part


class _Body:
    def __init__(self) -> None:
        self.head: tuple[int, dict[str, str]] | None = None
        self.sent = b""
        self.ended = False

    async def begin(self, status: int, headers: dict[str, str]) -> None:
        self.head = (status, headers)

    async def write(self, frames: bytes) -> None:
        self.sent += frames

    async def end(self) -> None:
        self.ended = True


PURPOSE = _Part("purpose", b"vis", b"ion")


def a_rig(**limits: int) -> Rig:
    return Rig(FakeModel(), limits=Limits(**limits))


def a_form(*pieces: bytes) -> _Form:
    return _Form(_Part("file", *pieces, filename="f"), PURPOSE)


async def created(rig: Rig, *pieces: bytes) -> str:
    answer = await rig.files.create(CALLER, a_form(*pieces), "")
    return str(json.loads(answer.body)["id"])


async def test_a_file_may_come_before_its_fields() -> None:
    """As curl sends them, in the order in which they were typed."""
    rig = a_rig()
    body = _Body()
    await rig.files.content(CALLER, await created(rig, b"a", b"b"), "", body)
    assert (body.sent, body.ended) == (b"ab", True)


async def test_a_file_that_is_too_large_leaves_nothing() -> None:
    """X5: it is refused while it comes."""
    rig = a_rig(file_bytes=4)
    with pytest.raises(TooLarge):
        await created(rig, b"abc", b"de")
    assert rig.blobs.kept == {}


async def test_a_file_whose_bytes_are_not_its_own_is_not_given_out_as_whole() -> None:
    """The last piece is held until the checksum is known."""
    rig = a_rig()
    wanted = await created(rig, b"abc")
    [key] = rig.blobs.kept
    rig.blobs.kept[key] = b"abd"
    body = _Body()
    with pytest.raises(StorageUnavailable):
        await rig.files.content(CALLER, wanted, "", body)
    # Nothing was said yet: it can be an error.
    assert (body.head, body.sent, body.ended) == (None, b"", False)


async def test_what_was_sent_for_too_long_is_removed() -> None:
    """Its announcement has been swept, so nobody else would remove its bytes."""
    rig = a_rig()

    class _Slow(_Part):
        async def pieces(self) -> AsyncIterator[bytes]:
            yield b"a"
            await rig.store.remove_tenant(CALLER.tenant, limit=1)

    with pytest.raises(Conflict):
        await rig.files.create(CALLER, _Form(_Slow("file", filename="f"), PURPOSE), "")
    assert rig.blobs.kept == {}


class _Gone(_Part):
    """A field behind which nothing comes any more."""

    async def pieces(self) -> AsyncIterator[bytes]:
        yield b"a"
        raise asyncio.CancelledError


_FILE = _Part("file", b"bytes", filename="f")


@pytest.mark.parametrize(
    "form",
    [
        _Form(_FILE),
        _Form(_FILE, _Part("purpose", b"none that there is")),
        _Form(_FILE, _FILE, PURPOSE),
        _Form(_FILE, PURPOSE, _Part("unknown", b"x")),
        _Form(_FILE, _Gone("purpose")),
    ],
)
async def test_what_is_refused_behind_its_bytes_does_not_keep_them(form: _Form) -> None:
    """X5: nobody sees them, and it can be sent again and again; also where the client leaves."""
    rig = a_rig()
    with pytest.raises((InvalidRequest, asyncio.CancelledError)):
        await rig.files.create(CALLER, form, "")
    assert await remove_dropped(rig.store, rig.blobs) == 1
    assert rig.blobs.kept == {}


async def test_a_refused_part_does_not_keep_its_bytes() -> None:
    """X5: one that was taken before stays."""
    rig = a_rig(part_bytes=4)
    upload = await an_upload(rig, 8)
    await rig.uploads.add_part(CALLER, upload, _Form(_Part("data", b"kept")), "")
    for other in (_Part("data", b"x"), _Part("unknown", b"x"), _Gone("data")):
        form = _Form(_Part("data", b"gone"), other)
        with pytest.raises((InvalidRequest, asyncio.CancelledError)):
            await rig.uploads.add_part(CALLER, upload, form, "")
    assert await remove_dropped(rig.store, rig.blobs) == 3
    assert list(rig.blobs.kept.values()) == [b"kept"]


async def test_bytes_of_what_could_not_be_written_are_dropped_unless_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P2: the store went away, and whether it has the file is not known; then it decides."""
    rig = a_rig()
    add_file = rig.store.add_file

    async def lost(*args: Any) -> None:
        await add_file(*args)
        raise StorageUnavailable("away")

    monkeypatch.setattr(rig.store, "add_file", lost)
    with pytest.raises(StorageUnavailable):
        await created(rig, b"taken")
    monkeypatch.setattr(rig.store, "add_file", _away)
    with pytest.raises(StorageUnavailable):
        await created(rig, b"not taken")
    assert await remove_dropped(rig.store, rig.blobs) == 1
    assert list(rig.blobs.kept.values()) == [b"taken"]


async def test_a_store_that_is_away_does_not_hide_why_a_file_was_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P2: the blob was announced for some hours, and goes then."""
    rig = a_rig()
    monkeypatch.setattr(rig.store, "drop_blob", _away)
    with pytest.raises(InvalidRequest):
        await rig.files.create(CALLER, _Form(_FILE), "")
    assert await remove_dropped(rig.store, rig.blobs) == 0


async def _away(*_args: object) -> None:
    raise StorageUnavailable("away")


async def test_the_sweep_removes_what_was_dropped() -> None:
    """P7: blobs first, rows then; what is in use stays."""
    rig = a_rig()
    gone, kept = await created(rig, b"gone"), await created(rig, b"kept")
    await rig.files.delete(CALLER, gone, "")
    sweep = FileSweep(rig.store, rig.blobs)
    sweep.start()
    # It ends behind what it has in hand.
    await asyncio.sleep(0)
    await sweep.stop()
    assert list(rig.blobs.kept.values()) == [b"kept"]
    assert await remove_dropped(rig.store, rig.blobs) == 0
    assert await rig.store.get_file(CALLER.tenant, kept) is not None


@pytest.mark.parametrize(("expired", "again"), [(99, False), (100, True), (150, True)])
async def test_a_backlog_is_swept_at_once(expired: int, again: bool) -> None:
    """P7: files and uploads are removed together, so that there may be more than were asked for of each."""

    class _Full(MemoryStore):
        async def remove_expired_files(self, *, limit: int) -> int:
            assert limit == 100
            return expired

    assert await FileSweep(_Full(time.time), a_rig().blobs)._sweep() is again


async def an_upload(rig: Rig, size: int) -> str:
    body = {"bytes": size, "filename": "f", "mime_type": "text/plain", "purpose": "batch"}
    answer = await rig.uploads.create(CALLER, json.dumps(body).encode(), "")
    return str(json.loads(answer.body)["id"])


async def test_an_upload_holds_no_more_than_twice_its_size() -> None:
    """X5: parts may be sent again, and not for ever."""
    rig = a_rig(part_bytes=4)
    upload = await an_upload(rig, 4)

    async def add(*pieces: bytes) -> None:
        await rig.uploads.add_part(CALLER, upload, _Form(_Part("data", *pieces)), "")

    with pytest.raises(TooLarge):
        await add(b"12345")
    await add(b"1234")
    await add(b"1234")
    with pytest.raises(InvalidRequest) as refused:
        await add(b"1")
    assert refused.value.code == "upload_is_full"


@pytest.mark.parametrize(
    ("form", "param"),
    [(_Form(), "data"), (_Form(_Part("file", b"x")), "file"),
     (_Form(_Part("data", b"x"), _Part("data", b"x")), "data")],
)  # fmt: skip
async def test_wrong_parts_are_refused(form: _Form, param: str) -> None:
    """H1."""
    rig = a_rig()
    with pytest.raises(InvalidRequest) as refused:
        await rig.uploads.add_part(CALLER, await an_upload(rig, 4), form, "")
    assert refused.value.param == param


async def test_a_completion_whose_answer_was_lost_is_answered_again() -> None:
    """P2: the same parts in the same order; everything else finds that nothing is to be done any more."""
    rig = a_rig()
    upload = await an_upload(rig, 4)
    ids = []
    for piece in (b"ab", b"cd"):
        form = _Form(_Part("data", piece))
        part = await rig.uploads.add_part(CALLER, upload, form, "")
        ids.append(str(json.loads(part.body)["id"]))

    async def complete(**asked: object) -> bytes:
        answer = await rig.uploads.complete(CALLER, upload, json.dumps(asked).encode(), "")
        return answer.body

    done = await complete(part_ids=ids)
    assert await complete(part_ids=ids) == done
    assert await complete(part_ids=ids, md5=hashlib.md5(b"abcd").hexdigest()) == done
    for wrong, code in (
        ({"part_ids": ids[::-1]}, "upload_not_pending"),
        ({"part_ids": ids[:1]}, "upload_not_pending"),
        ({"part_ids": ids, "md5": "0" * 32}, "checksum_mismatch"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            await complete(**wrong)
        assert refused.value.code == code
    await rig.files.delete(CALLER, json.loads(done)["file"]["id"], "")
    with pytest.raises(InvalidRequest):
        await complete(part_ids=ids)
