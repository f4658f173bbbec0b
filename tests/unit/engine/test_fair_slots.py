"""`engine.fair_slots`: nobody waits behind another tenant's line (rule T2)."""

from __future__ import annotations

import asyncio

from engine.fair_slots import FairSlots


class Takers:
    """Tasks that want a slot, and the order in which they got one."""

    def __init__(self, slots: FairSlots) -> None:
        self.slots = slots
        self.served: list[str] = []

    async def want(self, *tenants: str) -> list[asyncio.Task[None]]:
        """Have these wait, in this order; returns when each has a slot or stands in its line."""
        tasks = [asyncio.create_task(self._take(tenant)) for tenant in tenants]
        await _settled()
        return tasks

    async def end(self, *tenants: str) -> None:
        """Give back slots, one after the other."""
        for tenant in tenants:
            self.slots.give_back(tenant)
            await _settled()

    async def _take(self, tenant: str) -> None:
        await self.slots.take(tenant)
        self.served.append(tenant)


async def _settled() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_who_has_the_fewest_is_next() -> None:
    """T2: one tenant has all slots and a line; another that comes gets the next one."""
    takers = Takers(FairSlots(3))
    await takers.want(*"aaaaaa", "b", "b")
    assert takers.served == [*"aaa"]
    await takers.end("a")
    assert takers.served == [*"aaab"]
    await takers.end("b")
    assert takers.served == [*"aaabb"]
    await takers.end("a", "a", "a")
    assert takers.served == [*"aaabbaaa"]


async def test_among_equals_it_goes_round() -> None:
    """T2: with one slot, three lines are served in turn."""
    takers = Takers(FairSlots(1))
    await takers.want(*"aaabbc")
    await takers.end(*"aabca")
    assert takers.served == [*"aabcab"]


async def test_a_slot_that_nobody_else_wants_is_anybodys() -> None:
    """T2: where there is one tenant, it has them all."""
    takers = Takers(FairSlots(4))
    await takers.want(*"aaaaa")
    assert takers.served == [*"aaaa"]


async def test_one_tenant_has_at_most_its_most() -> None:
    """T2: also while slots are free; others have those, and its own next one comes when one ends."""
    takers = Takers(FairSlots(4, most=2))
    await takers.want(*"aaa", "b")
    assert takers.served == [*"aab"]
    await takers.end("b")
    assert takers.served == [*"aab"]
    await takers.end("a")
    assert takers.served == [*"aaba"]


async def test_a_wait_that_is_cancelled_takes_no_slot() -> None:
    """T2: neither in its line, nor in the moment in which it is served."""
    takers = Takers(FairSlots(1))
    _, waits, served, last = await takers.want(*"aaab")
    waits.cancel()
    await _settled()
    takers.slots.give_back("a")  # it is b's, whose task is cancelled before it knows
    last.cancel()
    await asyncio.gather(waits, last, return_exceptions=True)
    await _settled()
    assert served.done()
    assert takers.served == [*"aa"]
    await takers.end("a")
    await takers.want("c")
    assert takers.served == [*"aac"]


async def test_a_slot_is_given_back_by_a_block_that_fails() -> None:
    """T2: an error leaves no slot behind."""
    slots = FairSlots(1)
    for _ in range(2):
        async with asyncio.timeout(5):
            try:
                async with slots.slot("a"):
                    raise ZeroDivisionError
            except ZeroDivisionError:
                pass
