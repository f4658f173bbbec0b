"""Files, uploads and the rows of blobs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from engine.errors import InvalidRequest
from engine.ports import Blob, Dropped, NewFile, NewUpload, Order, Store, StoredFile

Wait = Callable[[float], Awaitable[None]]

HOUR, DAY = 3600, 86_400


def a_blob(name: str, size: int = 3) -> Blob:
    """Return a blob whose key ends with a name."""
    return Blob(f"{name:0>32}", size, b"sha")


async def announced(store: Store, tenant: str, name: str, size: int = 3) -> Blob:
    """Announce a blob for an hour."""
    blob = a_blob(name, size)
    await store.reserve_blob(tenant, blob.key, HOUR)
    return blob


async def a_file(
    store: Store, tenant: str, name: str, *, keep: int | None = None, purpose: str = "user_data"
) -> StoredFile:
    """Write a file of one blob, both of one name."""
    new = NewFile(id=name, purpose=purpose, filename="../a.txt", keep_seconds=keep)
    file = await store.add_file(tenant, new, await announced(store, tenant, name))
    assert file is not None
    return file


async def an_upload(store: Store, tenant: str, *parts: str, keep: int | None = None) -> None:
    """Write an upload `up` with parts of three bytes."""
    new = NewUpload(
        id="up",
        size=3 * len(parts),
        purpose="user_data",
        filename="big",
        media_type="text/plain",
        open_seconds=HOUR,
        keep_seconds=keep,
    )
    await store.add_upload(tenant, new)
    for part in parts:
        assert await store.add_part(tenant, "up", await announced(store, tenant, part))


async def dropped(store: Store, tenant: str) -> set[str]:
    """Return the names of a tenant's dropped blobs."""
    found = await store.dropped_blobs(limit=99, tenant=tenant)
    assert {each for each in await store.dropped_blobs(limit=999) if each.tenant == tenant} == {
        *found
    }
    return {each.key.lstrip("0") for each in found}


class FileContract:
    """Files and uploads, their times, their blobs, and whose they are."""

    async def test_a_file_reads_back(self, store: Store, tenant: str) -> None:
        """X1: for its tenant; its name is data."""
        made = await a_file(store, tenant, "f", keep=HOUR)
        assert made.expires_at == made.created_at + HOUR
        assert (made.id, made.size, made.filename) == ("f", 3, "../a.txt")
        assert await store.get_file(tenant, "f") == made
        assert await store.file_blobs(tenant, "f") == [a_blob("f")]
        thief = f"{tenant}-thief"
        assert await store.get_file(thief, "f") is None
        assert await store.file_blobs(thief, "f") == []
        assert not await store.delete_file(thief, "f")

    async def test_what_was_not_announced_is_no_file(
        self, store: Store, tenant: str, wait: Wait
    ) -> None:
        """Nor what was announced too long ago: its bytes may be swept at any moment."""
        new = NewFile(id="f", purpose="p", filename="n")
        assert await store.add_file(tenant, new, a_blob("f")) is None
        late = await announced(store, tenant, "late")
        await wait(HOUR - 60)
        assert await store.add_file(tenant, new, late) is None
        assert await store.get_file(tenant, "f") is None
        await wait(61)
        assert await dropped(store, tenant) == {"late"}

    async def test_a_blob_that_nothing_takes_is_dropped(self, store: Store, tenant: str) -> None:
        """X5: at once, and never one that a file or an upload has."""
        blob = await announced(store, tenant, "a")
        await store.drop_blob(f"{tenant}-other", blob.key)
        assert await dropped(store, tenant) == set()
        await store.drop_blob(tenant, blob.key)
        assert await dropped(store, tenant) == {"a"}
        new = NewFile(id="a", purpose="user_data", filename="n", keep_seconds=None)
        assert await store.add_file(tenant, new, blob) is None
        await store.forget_blobs(tenant, [blob.key])
        await store.drop_blob(tenant, blob.key)
        await a_file(store, tenant, "b")
        await an_upload(store, tenant, "c")
        for name in ("b", "c"):
            await store.drop_blob(tenant, a_blob(name).key)
        assert await dropped(store, tenant) == set()
        assert await store.file_blobs(tenant, "b") != []

    async def test_writing_a_file_twice_is_writing_it_once(self, store: Store, tenant: str) -> None:
        """P2: an answer may be lost, and the statement is sent again."""
        blob = await announced(store, tenant, "f")
        new = NewFile(id="f", purpose="p", filename="n")
        first = await store.add_file(tenant, new, blob)
        assert await store.add_file(tenant, new, blob) == first is not None

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_files_are_listed_by_creation(
        self, store: Store, tenant: str, order: Order
    ) -> None:
        """H2: pages join without gap, also of one purpose."""
        for name, purpose in (("b", "vision"), ("a", "batch"), ("c", "vision")):
            await a_file(store, tenant, name, purpose=purpose)
        wanted = ["b", "a", "c"] if order == "asc" else ["c", "a", "b"]

        async def page(after: str | None, purpose: str | None = None) -> tuple[list[str], bool]:
            found = await store.list_files(
                tenant, limit=2, after=after, order=order, purpose=purpose
            )
            return [file.id for file in found.files], found.has_more

        assert await page(None) == (wanted[:2], True)
        assert await page(wanted[1]) == (wanted[2:], False)
        assert await page(wanted[2]) == ([], False)
        assert await page(None, "vision") == ([wanted[0], wanted[2]], False)
        with pytest.raises(InvalidRequest) as refused:
            await page("nobody's")
        assert refused.value.param == "after"

    async def test_a_deleted_file_drops_its_blobs(self, store: Store, tenant: str) -> None:
        """P7: and they are forgotten when they have been removed."""
        await a_file(store, tenant, "f")
        await a_file(store, tenant, "g")
        assert await dropped(store, tenant) == set()
        assert await store.delete_file(tenant, "f")
        assert not await store.delete_file(tenant, "f")
        assert await dropped(store, tenant) == {"f"}
        await store.forget_blobs(tenant, [a_blob("f").key, a_blob("g").key])
        assert await dropped(store, tenant) == set()
        assert await store.file_blobs(tenant, "g") == [a_blob("g")]

    async def test_an_expired_file_is_gone_before_it_is_swept(
        self, store: Store, tenant: str, wait: Wait
    ) -> None:
        """X1: for every operation; then row and blob go."""
        await a_file(store, tenant, "f", keep=HOUR)
        await a_file(store, tenant, "g")
        assert await store.remove_expired_files(limit=9) == 0
        await wait(HOUR + 1)
        assert await store.get_file(tenant, "f") is None
        assert not await store.delete_file(tenant, "f")
        page = await store.list_files(tenant, limit=9, after=None, order="asc", purpose=None)
        assert [file.id for file in page.files] == ["g"]
        assert await dropped(store, tenant) == {"f"}
        assert await store.remove_expired_files(limit=9) == 1
        assert await store.remove_expired_files(limit=9) == 0

    async def test_an_upload_becomes_a_file_in_the_order_that_was_asked_for(
        self, store: Store, tenant: str
    ) -> None:
        """What is left out is dropped; a repetition changes nothing."""
        await an_upload(store, tenant, "1", "2", "3", keep=HOUR)
        keys = [a_blob("3").key, a_blob("1").key]
        for _ in range(2):
            assert await store.complete_upload(tenant, "up", "f", keys)
        assert not await store.complete_upload(tenant, "up", "g", keys)
        assert await store.file_blobs(tenant, "f") == [a_blob("3"), a_blob("1")]
        upload, file = await store.get_upload(tenant, "up"), await store.get_file(tenant, "f")
        assert upload is not None
        assert file is not None
        assert (upload.status, upload.file_id) == ("completed", "f")
        assert (file.size, file.filename) == (9, "big")
        assert file.expires_at == file.created_at + HOUR
        assert await dropped(store, tenant) == {"2"}
        assert not await store.cancel_upload(tenant, "up")
        assert not await store.add_part(tenant, "up", await announced(store, tenant, "4"))

    async def test_a_cancelled_upload_drops_its_parts(self, store: Store, tenant: str) -> None:
        """Once; nothing comes after."""
        await an_upload(store, tenant, "1", "2")
        assert await store.cancel_upload(tenant, "up")
        assert not await store.cancel_upload(tenant, "up")
        upload = await store.get_upload(tenant, "up")
        assert upload is not None
        assert upload.status == "cancelled"
        assert await dropped(store, tenant) == {"1", "2"}
        assert not await store.complete_upload(tenant, "up", "f", [a_blob("1").key])
        assert not await store.add_part(tenant, "up", await announced(store, tenant, "3"))

    async def test_an_upload_expires(self, store: Store, tenant: str, wait: Wait) -> None:
        """Then nothing can be done with it; its parts go an hour later, and it a day later."""
        await an_upload(store, tenant, "1")
        await wait(HOUR + 1)
        upload = await store.get_upload(tenant, "up")
        assert upload is not None
        assert upload.status == "expired"
        assert not await store.complete_upload(tenant, "up", "f", [a_blob("1").key])
        assert not await store.cancel_upload(tenant, "up")
        assert await dropped(store, tenant) == set()
        await wait(HOUR + 1)
        assert await dropped(store, tenant) == {"1"}
        assert await store.remove_expired_files(limit=9) == 0
        await wait(DAY)
        assert await store.remove_expired_files(limit=9) == 1
        assert await store.get_upload(tenant, "up") is None

    async def test_another_tenant_has_nothing_of_an_upload(self, store: Store, tenant: str) -> None:
        """X1: on every operation."""
        thief = f"{tenant}-thief"
        await an_upload(store, tenant, "1")
        assert await store.get_upload(thief, "up") is None
        assert await store.upload_parts(thief, "up") == []
        assert not await store.add_part(thief, "up", await announced(store, thief, "2"))
        assert not await store.complete_upload(thief, "up", "f", [a_blob("1").key])
        assert not await store.cancel_upload(thief, "up")
        await store.forget_blobs(thief, [a_blob("1").key])
        assert await store.upload_parts(tenant, "up") == [a_blob("1")]

    async def test_a_tenant_takes_its_files_along(self, store: Store, tenant: str) -> None:
        """X1: what is being written too, and nobody else's."""
        other = f"{tenant}-2"
        for owner in (tenant, other):
            await a_file(store, owner, "f")
            await an_upload(store, owner, "1")
        late = await announced(store, tenant, "late")
        await store.remove_tenant(tenant, limit=1)
        assert await store.get_file(tenant, "f") is None
        assert await store.get_upload(tenant, "up") is None
        assert await dropped(store, tenant) == {"f", "1", "late"}
        new = NewFile(id="g", purpose="p", filename="n")
        assert await store.add_file(tenant, new, late) is None
        assert await store.get_file(other, "f") is not None
        assert Dropped(other, a_blob("f").key) not in await store.dropped_blobs(limit=999)
