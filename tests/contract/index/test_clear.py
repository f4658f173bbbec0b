"""Everything goes, because it is about to be put in again: also under the hands of other workers."""

from __future__ import annotations

from tests.contract.index.conftest import OpenIndex
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
