"""Connectors."""

from __future__ import annotations

import msgspec
import pytest

from engine.errors import InvalidRequest
from engine.ports import Order, Store, StoredConnector
from tests.support.stored import turn


def a_connector(name: str, label: str | None = None) -> StoredConnector:
    """Return a connector that tells itself from others; its label is its id unless told otherwise."""
    return StoredConnector(
        name, label or name, f'{{"id":"{name}","x":"\\u0000"}}'.encode(), f"sealed-{name}", "1"
    )


class ConnectorContract:
    """Connectors, of one tenant each."""

    async def test_a_connector_is_found_by_id_and_by_label(self, store: Store, tenant: str) -> None:
        """P1: as it was kept; without secrets too."""
        one = a_connector("c1", "one")
        bare = msgspec.structs.replace(a_connector("c2", "two"), sealed=None)
        for each in (one, bare):
            await store.add_connector(tenant, each)
            assert await store.get_connector(tenant, each.id) == each
            assert await store.find_connector(tenant, each.label) == each
        assert await store.get_connector(tenant, "one") is None
        assert await store.find_connector(tenant, "c1") is None

    async def test_what_is_anothers_is_not_there(self, store: Store, tenant: str) -> None:
        """X1: not to be read, changed or removed; its label is free, and its id is no cursor."""
        other, one = f"{tenant}-other", a_connector("c1")
        await store.add_connector(other, one)
        assert await store.get_connector(tenant, "c1") is None
        assert await store.find_connector(tenant, "c1") is None
        assert await store.replace_connector(tenant, one, "1") is False
        assert await store.delete_connector(tenant, "c1") is False
        with pytest.raises(InvalidRequest):
            await store.list_connectors(tenant, limit=1, after="c1", order="asc")
        await store.add_connector(tenant, a_connector("c2", "c1"))
        assert await store.get_connector(other, "c1") == one

    async def test_a_label_is_given_once(self, store: Store, tenant: str) -> None:
        """T5: to a new connector and by a change; the first one stays as it was."""
        first, second = a_connector("c1", "one"), a_connector("c2", "two")
        await store.add_connector(tenant, first)
        await store.add_connector(tenant, second)
        taken = msgspec.structs.replace(second, label="one", revision="2")
        for attempt in (
            store.add_connector(tenant, a_connector("c3", "one")),
            store.replace_connector(tenant, taken, "1"),
        ):
            with pytest.raises(InvalidRequest) as caught:
                await attempt
            assert (caught.value.param, caught.value.code) == ("server_label", "label_taken")
        assert await store.get_connector(tenant, "c1") == first
        assert await store.get_connector(tenant, "c2") == second
        assert await store.get_connector(tenant, "c3") is None

    async def test_a_change_that_knows_an_older_one_is_not_written(
        self, store: Store, tenant: str
    ) -> None:
        """M7: of two changes at once, one is told so; the same one again is no other."""
        await store.add_connector(tenant, a_connector("c1"))
        mine = msgspec.structs.replace(a_connector("c1", "mine"), sealed=None, revision="2a")
        theirs = msgspec.structs.replace(a_connector("c1", "theirs"), revision="2b")
        assert await store.replace_connector(tenant, mine, "1") is True
        assert await store.replace_connector(tenant, mine, "1") is True
        assert await store.replace_connector(tenant, theirs, "1") is False
        assert await store.find_connector(tenant, "mine") == mine
        assert await store.find_connector(tenant, "c1") is None

    async def test_a_removed_connector_is_gone(self, store: Store, tenant: str) -> None:
        """P7: its label is free, and it cannot be changed back into being."""
        one = a_connector("c1")
        await store.add_connector(tenant, one)
        assert await store.delete_connector(tenant, "c1") is True
        assert await store.delete_connector(tenant, "c1") is False
        assert await store.replace_connector(tenant, one, "1") is False
        await store.add_connector(tenant, a_connector("c2", "c1"))

    async def test_a_connector_is_removed_with_its_tenant(self, store: Store, tenant: str) -> None:
        """P7: by the first call, whatever else the tenant has; others keep theirs."""
        other = f"{tenant}-other"
        for name in (tenant, other):
            await store.add_connector(name, a_connector("c1"))
            await turn(store, name, "r1")
        assert await store.remove_tenant(tenant, limit=5) == 1
        assert await store.get_connector(tenant, "c1") is None
        assert await store.get_connector(other, "c1") is not None

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_pages_of_connectors_follow_each_other(
        self, store: Store, tenant: str, order: Order
    ) -> None:
        """H2: every connector once, in order of creation, as it was kept."""
        made = [a_connector(name) for name in ("c3", "c1", "c2", "c0")]
        for each in made:
            await store.add_connector(tenant, each)
        seen: list[StoredConnector] = []
        for has_more in (True, False):
            after = seen[-1].id if seen else None
            page = await store.list_connectors(tenant, limit=2, after=after, order=order)
            assert page.has_more is has_more
            seen += page.connectors
        assert seen == (made if order == "asc" else made[::-1])

    async def test_an_empty_list_of_connectors_is_a_page(self, store: Store, tenant: str) -> None:
        """H2: also after the last one; an unknown cursor is refused."""
        page = await store.list_connectors(tenant, limit=1, after=None, order="asc")
        assert (page.connectors, page.has_more) == ([], False)
        await store.add_connector(tenant, a_connector("c1"))
        page = await store.list_connectors(tenant, limit=1, after="c1", order="asc")
        assert (page.connectors, page.has_more) == ([], False)
        for cursor in ("nothing", "\0", "x" * 5000):
            with pytest.raises(InvalidRequest) as caught:
                await store.list_connectors(tenant, limit=1, after=cursor, order="desc")
            assert caught.value.param == "after"

    async def test_names_that_nobody_can_have_are_not_found(
        self, store: Store, tenant: str
    ) -> None:
        """H1: they come from paths and bodies."""
        for name in ("\0", "\ud800", "x" * 5000):
            assert await store.get_connector(tenant, name) is None
            assert await store.find_connector(tenant, name) is None
            assert await store.delete_connector(tenant, name) is False
