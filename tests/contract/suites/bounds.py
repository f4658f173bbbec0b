"""What is read of stored items is bounded in bytes, and not in rows alone."""

from __future__ import annotations

import msgspec
import pytest

from engine.errors import InvalidRequest
from engine.limits import Limits
from engine.ports import NewConversation, Order, ReplayItem, Store, StoredItem
from storage.limits import READS, Reads
from tests.support.stored import a_response, an_end, context, place_of

NARROW = Reads(page=100, context=100)
SIZES = {"a": 60, "b": 30, "c": 11, "d": 300, "e": 100, "f": 1}
PAGES = {"asc": ["ab", "c", "d", "e", "f"], "desc": ["f", "e", "d", "cb", "a"]}
"""Of up to 3 items and 100 bytes: one that is larger comes alone."""


def sized(item_id: str, size: int) -> StoredItem:
    """Return an item with so many bytes, both as it is shown and as it is sent."""
    return StoredItem(item_id, "message", b"s" * size, b"r" * size)


ITEMS = [sized(item_id, size) for item_id, size in SIZES.items()]


async def a_finished(
    store: Store, tenant: str, name: str, *sizes: int, given: list[StoredItem] | None = None
) -> None:
    """Store a response with output of these sizes and a head of ten bytes."""
    lease = await store.accept(a_response(tenant, name, input=given or []))
    items = [sized(f"{name}/{place}", size) for place, size in enumerate(sizes)]
    await store.finish(msgspec.structs.replace(an_end(lease, output=items), head=b"h" * 10))


class BoundContract:
    """A page is shorter where its items are large; a context says what is missing."""

    def test_a_context_is_read_up_to_what_can_be_sent(self) -> None:
        """X5: what the engine would send is not left out by a store."""
        assert READS.context == Limits().context_bytes

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_pages_of_items_are_cut_at_so_many_bytes(
        self, narrow: Store, tenant: str, order: Order
    ) -> None:
        """X5, H2: of input and of conversations; each item once, and always one."""
        await a_finished(narrow, tenant, "r", given=ITEMS)
        await narrow.create_conversation(
            NewConversation(tenant=tenant, id="c", metadata=b"{}", items=ITEMS)
        )
        for of, name in ((narrow.list_input_items, "r"), (narrow.list_conversation_items, "c")):
            pages: list[str] = []
            more = True
            while more:
                after = pages[-1][-1] if pages else None
                page = await of(tenant, name, limit=3, after=after, order=order)
                assert page is not None
                assert [len(item) for item in page.items] == [SIZES[each] for each in page.ids]
                pages.append("".join(page.ids))
                more = page.has_more
            assert pages == PAGES[order]

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_pages_of_responses_are_cut_at_so_many_bytes(
        self, narrow: Store, tenant: str, order: Order
    ) -> None:
        """X5, H2: by all that is shown of them."""
        for name, sizes in (
            ("a", (20, 20)),
            ("b", (40,)),
            ("c", (1,)),
            ("d", (150, 150)),
            ("e", ()),
        ):
            await a_finished(narrow, tenant, name, *sizes)
        pages: list[str] = []
        more = True
        while more:
            after = pages[-1][-1] if pages else None
            page = await narrow.list_responses(
                tenant, limit=3, after=after, order=order, model=None
            )
            for each in page.responses:
                assert each == await narrow.get(tenant, each.id)
            pages.append("".join(each.id for each in page.responses))
            more = page.has_more
        assert pages == {"asc": ["ab", "c", "d", "e"], "desc": ["e", "d", "cb", "a"]}[order]

    async def test_of_a_long_history_only_the_newest_is_read(
        self, narrow: Store, tenant: str
    ) -> None:
        """X5: the rest tells how much it would be; what is sent nothing of takes no room."""
        unsent = StoredItem("n", "reasoning", b"shown", None)
        given = [sized("a", 300), unsent, sized("b", 40), unsent]
        await a_finished(narrow, tenant, "r", 60, given=given)
        expected = [
            ReplayItem("message", None, None, output=False, position=0, unread=300),
            ReplayItem("reasoning", None, None, output=False, position=1),
            ReplayItem("message", None, b"r" * 40, output=False, position=2),
            ReplayItem("reasoning", None, None, output=False, position=3),
            ReplayItem("message", None, b"r" * 60, output=True, position=4),
        ]
        assert (await context(narrow, tenant, "r")).items == expected
        await narrow.create_conversation(
            NewConversation(tenant=tenant, id="c", metadata=b"{}", items=given)
        )
        await narrow.add_items(tenant, await place_of(narrow, tenant, "c"), [sized("d", 60)])
        found = await narrow.load_conversation(tenant, "c")
        assert found is not None
        assert [item.unread for item in found.items] == [300, 0, 0, 0, 0]
        await narrow.add_items(tenant, await place_of(narrow, tenant, "c"), [sized("e", 1)])
        found = await narrow.load_conversation(tenant, "c")
        assert found is not None
        assert [item.unread for item in found.items] == [300, 0, 40, 0, 0, 0]

    async def test_items_that_are_too_long_together_are_not_found(
        self, narrow: Store, tenant: str
    ) -> None:
        """X5: it is said before they are fetched."""
        await a_finished(narrow, tenant, "r", given=ITEMS)
        assert set(await narrow.find_items(tenant, ["e", "e", "none"])) == {"e"}
        assert set(await narrow.find_items(tenant, ["a", "b"])) == {"a", "b"}
        with pytest.raises(InvalidRequest) as refused:
            await narrow.find_items(tenant, ["a", "b", "c"])
        assert refused.value.code == "context_length_exceeded"
        assert "101 bytes" in refused.value.message
        end = (await context(narrow, tenant, "r")).end
        assert set(await narrow.read_items(tenant, end, [0, 1])) == {0, 1}
        with pytest.raises(InvalidRequest, match="101 bytes"):
            await narrow.read_items(tenant, end, [0, 1, 2])
