"""Event logs: written in batches, read from anywhere (rule P6)."""

from __future__ import annotations

import asyncio

import pytest

from engine.errors import LeaseLost
from engine.ports import EventBatch, Lease, LoggedEvents, Store
from tests.support.stored import a_response, an_end, begin, some_events


async def read(
    store: Store, tenant: str, after: int = -1, limit: int = 1 << 20, name: str = "r1"
) -> LoggedEvents:
    """Return the log of a response that there is."""
    found = await store.read_events(tenant, name, after=after, limit=limit)
    assert found is not None
    return found


async def streamed(store: Store, tenant: str, *, events: EventBatch | None = None) -> Lease:
    """Accept a response that has a log."""
    return await store.accept(a_response(tenant, "r1", streamed=True, events=events))


class LogContract:
    """What a stream has said."""

    async def test_a_log_is_its_batches_in_order_and_ends_with_the_response(
        self, store: Store, tenant: str
    ) -> None:
        """P6: the tail comes with the terminal state, not before and not after."""
        first, second, tail = some_events(0, 1), some_events(2, 9), some_events(10, 12)
        lease = await streamed(store, tenant, events=first)
        assert await read(store, tenant) == LoggedEvents("in_progress", True, [first], more=False)
        await store.append(lease, second)
        assert (await read(store, tenant)).batches == [first, second]
        await store.finish(an_end(lease, events=tail))
        assert await read(store, tenant) == LoggedEvents(
            "completed", True, [first, second, tail], more=False
        )

    async def test_reading_goes_on_after_any_event(self, store: Store, tenant: str) -> None:
        """P6: from the batch that has the next one, which may start before it."""
        batches = [some_events(0, 1), some_events(2, 4), some_events(5, 5), some_events(6, 9)]
        lease = await streamed(store, tenant, events=batches[0])
        for batch in batches[1:]:
            await store.append(lease, batch)
        for after in range(-1, 12):
            expected = [batch for batch in batches if batch.last > after]
            assert (await read(store, tenant, after)).batches == expected

    async def test_a_page_has_about_so_many_bytes_and_at_least_one_batch(
        self, store: Store, tenant: str
    ) -> None:
        """X5: all pages together are the log."""
        lease = await streamed(store, tenant)
        for number in range(7):
            await store.append(lease, EventBatch(number, number, b"x" * 10))
        for limit, count in ((1, 1), (10, 1), (11, 2), (30, 3), (1000, 7)):
            page = await read(store, tenant, limit=limit)
            assert (len(page.batches), page.more) == (count, count < 7)
        seen: list[int] = []
        while True:
            page = await read(store, tenant, seen[-1] if seen else -1, 25)
            seen += [batch.first for batch in page.batches]
            if not page.more:
                break
        assert seen == list(range(7))

    async def test_no_page_ends_a_log_of_many_small_batches(
        self, store: Store, tenant: str
    ) -> None:
        """P6: hours of single tokens, read in pages of a megabyte as a takeover does."""
        lease = await streamed(store, tenant)
        for number in range(1100):
            await store.append(lease, EventBatch(number, number, b"x"))
        seen: list[int] = []
        while True:
            page = await read(store, tenant, seen[-1] if seen else -1)
            seen += [batch.first for batch in page.batches]
            if not page.more:
                break
        assert seen == list(range(1100))

    async def test_a_batch_is_not_added_twice(self, store: Store, tenant: str) -> None:
        """P6: after a lost answer it is sent again, perhaps with what came meanwhile."""
        lease = await streamed(store, tenant, events=some_events(0, 1))
        await store.append(lease, some_events(2, 4))
        await store.append(lease, some_events(2, 4))
        assert (await read(store, tenant)).batches == [some_events(0, 1), some_events(2, 4)]
        await store.append(lease, some_events(2, 6))
        await store.append(lease, some_events(2, 4))
        assert (await read(store, tenant)).batches == [some_events(0, 1), some_events(2, 6)]
        await store.finish(an_end(lease, events=some_events(2, 8)))
        assert (await read(store, tenant)).batches == [some_events(0, 1), some_events(2, 8)]

    async def test_a_response_that_was_not_streamed_has_no_log(
        self, store: Store, tenant: str
    ) -> None:
        """P6: and one that is not there, or is somebody else's, is none (X1)."""
        await begin(store, tenant, "r2")
        page = await read(store, tenant, name="r2")
        assert page == LoggedEvents("in_progress", False, [], more=False)
        assert await store.read_events(tenant, "r1", after=-1, limit=1) is None
        assert await store.read_events(f"{tenant}-thief", "r2", after=-1, limit=1) is None

    async def test_nothing_is_logged_after_the_end(self, store: Store, tenant: str) -> None:
        """P4, P7: a finished or deleted response takes no more, and a deleted one leaves no log."""
        lease = await streamed(store, tenant, events=some_events(0, 1))
        await store.finish(an_end(lease, events=some_events(2, 2)))
        with pytest.raises(LeaseLost):
            await store.append(lease, some_events(3, 3))
        assert await store.delete(tenant, "r1")
        lease = await streamed(store, tenant)
        assert (await read(store, tenant)).batches == []
        await store.delete(tenant, "r1")
        with pytest.raises(LeaseLost):
            await store.append(lease, some_events(0, 0))

    async def test_bytes_are_kept_as_they_are(self, store: Store, tenant: str) -> None:
        """P6: a resumed stream equals the one that was never cut."""
        lease = await streamed(store, tenant)
        odd = EventBatch(0, 0, b"data: \x00\xff\\u0000\n\n" * 3000)
        await store.append(lease, odd)
        assert (await read(store, tenant)).batches == [odd]

    async def test_many_logs_are_written_at_once(self, store: Store, tenant: str) -> None:
        """P4, P6: each whole; one that lost its lease costs the others nothing."""
        leases = [
            await store.accept(a_response(tenant, f"s{number}", streamed=True))
            for number in range(20)
        ]
        await store.delete(tenant, "s7")

        async def write(lease: Lease) -> None:
            for number in range(10):
                await store.append(lease, some_events(2 * number, 2 * number + 1))
            await store.finish(an_end(lease, events=some_events(20, 20)))

        async with asyncio.timeout(30):
            results = await asyncio.gather(*map(write, leases), return_exceptions=True)
        assert [type(result).__name__ for result in results if result] == ["LeaseLost"]
        for number in set(range(20)) - {7}:
            page = await read(store, tenant, name=f"s{number}")
            assert b"".join(batch.frames for batch in page.batches) == some_events(0, 20).frames
