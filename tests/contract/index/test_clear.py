"""Everything goes, because it is about to be put in again: also under the hands of other workers.

And what is removed goes from all of it, whichever model it was put in for.
"""

from __future__ import annotations

from storage.milvus.client import open_client
from storage.milvus.index import MilvusIndex
from tests.contract.index.conftest import OpenIndex
from tests.support.lite import Lite
from tests.support.vectors import a_chunk, unit

QUESTION = unit(1, 0, 0, 0)


async def test_everything_goes_and_can_be_put_in_again(open_index: OpenIndex, tenant: str) -> None:
    """Of all tenants; a worker that has worked with the old collection goes on with the new one."""
    async with open_index("cleared") as one, open_index("cleared") as other:
        for of in (tenant, f"{tenant}-2"):
            await one.insert(of, "s", "a", [a_chunk(0, "apple")])
            assert len(await other.by_vector(of, "s", QUESTION, limit=9)) == 1
        for _ in range(2):
            await one.clear()
        for index in (one, other):
            for of in (tenant, f"{tenant}-2"):
                assert await index.by_vector(of, "s", QUESTION, limit=9) == []
                assert await index.by_words(of, "s", "apple", limit=9) == []
                assert await index.count(of, "s", "a") == 0
                await index.remove(of, "s", ["a"])
        await other.insert(tenant, "s", "a", [a_chunk(0, "apple")])
        await one.clear()
        await other.insert(tenant, "s", "b", [a_chunk(0, "apple")])
        for index in (one, other):
            assert [
                hit.attachment for hit in await index.by_vector(tenant, "s", QUESTION, limit=9)
            ] == ["b"]


async def test_what_is_removed_is_gone_for_every_model(open_index: OpenIndex, tenant: str) -> None:
    """P7: the model was changed since; nobody would come back for the vectors of the one before."""
    async with open_index(f"old {tenant}") as old:
        for name in ("a", "b"):
            await old.insert(tenant, "s", name, [a_chunk(0, "apple")])
    async with open_index(f"new {tenant}") as new:
        await new.insert(tenant, "s", "a", [a_chunk(0, "apple")])
        await new.remove(tenant, "s", ["a"])
        assert await new.count(tenant, "s", "a") == 0
    async with open_index(f"old {tenant}") as old:
        assert [await old.count(tenant, "s", name) for name in ("a", "b")] == [0, 1]
        hits = await old.by_words(tenant, "s", "apple", limit=9)
        assert [hit.attachment for hit in hits] == ["b"]


async def test_another_installation_keeps_its_collections(lite: Lite, tenant: str) -> None:
    """Two prefixes in one Milvus, also where the one begins as the other does."""
    async with open_client(lite.url, timeout=30.0) as client:
        short = MilvusIndex(client, prefix="shared", model="m")
        longer = MilvusIndex(client, prefix="shared_2", model="m")
        for index in (short, longer):
            await index.insert(tenant, "s", "a", [a_chunk(0, "apple")])
        await short.remove(tenant, "s", ["a"])
        await short.clear()
        assert [await index.count(tenant, "s", "a") for index in (short, longer)] == [0, 1]
