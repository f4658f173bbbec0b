"""Pages."""

from __future__ import annotations

import pytest

from engine.errors import InvalidRequest
from engine.ports import Order, ResponseStore
from tests.support.stored import a_response, an_end, an_item, begin, context, turn


class ListContract:
    """Pages."""

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_pages_of_responses_follow_each_other(
        self, store: ResponseStore, tenant: str, order: Order
    ) -> None:
        """H2: every response once, in order of creation, running ones included."""
        names = [f"r{number}" for number in range(6)]
        for name in names:
            await turn(store, tenant, name)
        await begin(store, tenant, "r6")
        expected = [*names, "r6"] if order == "asc" else ["r6", *reversed(names)]
        seen: list[str] = []
        for remaining in (4, 1, 0):
            page = await store.list_responses(
                tenant, limit=3, after=seen[-1] if seen else None, order=order, model=None
            )
            seen += [response.id for response in page.responses]
            assert page.has_more is (remaining > 0)
            assert len(seen) == 7 - remaining
        assert seen == expected

    async def test_listed_responses_are_whole(self, store: ResponseStore, tenant: str) -> None:
        """The same that `get` returns."""
        lease = await begin(store, tenant, "r1")
        await store.finish(an_end(lease, output=[an_item("b"), an_item("a")]))
        await begin(store, tenant, "r2", after="r1")
        page = await store.list_responses(tenant, limit=9, after=None, order="asc", model=None)
        assert page.responses == [await store.get(tenant, name) for name in ("r1", "r2")]

    async def test_responses_of_one_model_can_be_listed(
        self, store: ResponseStore, tenant: str
    ) -> None:
        """H2: the cursor may be of another model."""
        for number in range(4):
            model = "large" if number % 2 else "small"
            await store.accept(a_response(tenant, f"r{number}", model=model))
        page = await store.list_responses(tenant, limit=1, after=None, order="asc", model="large")
        assert ([r.id for r in page.responses], page.has_more) == (["r1"], True)
        page = await store.list_responses(tenant, limit=1, after="r2", order="asc", model="large")
        assert ([r.id for r in page.responses], page.has_more) == (["r3"], False)

    async def test_an_unknown_cursor_is_refused(self, store: ResponseStore, tenant: str) -> None:
        """H2: missing, deleted, of another list: an InvalidRequest that names `after`."""
        await turn(store, tenant, "r1")
        await turn(store, tenant, "r2", after="r1")
        await turn(store, tenant, "gone")
        await store.delete(tenant, "gone")
        for cursor in ("nothing", "gone"):
            with pytest.raises(InvalidRequest) as caught:
                await store.list_responses(tenant, limit=1, after=cursor, order="desc", model=None)
            assert caught.value.param == "after"
        for cursor in ("nothing", "r1/in", "r2/out"):
            with pytest.raises(InvalidRequest) as caught:
                await store.list_input_items(tenant, "r2", limit=1, after=cursor, order="asc")
            assert caught.value.param == "after"

    async def test_an_empty_list_is_a_page(self, store: ResponseStore, tenant: str) -> None:
        """H2: also after the last one."""
        page = await store.list_responses(tenant, limit=1, after=None, order="asc", model=None)
        assert (page.responses, page.has_more) == ([], False)
        await turn(store, tenant, "r1")
        page = await store.list_responses(tenant, limit=1, after="r1", order="asc", model=None)
        assert (page.responses, page.has_more) == ([], False)

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_pages_of_input_follow_each_other(
        self, store: ResponseStore, tenant: str, order: Order
    ) -> None:
        """H2: the response's own input only, each item once."""
        await turn(store, tenant, "r1")
        names = ["c", "a", "b", "e", "d"]
        point = (await context(store, tenant, "r1")).end
        new = a_response(tenant, "r2", input=[an_item(name) for name in names], after=point)
        await store.finish(an_end(await store.accept(new)))
        seen: list[str] = []
        for has_more in (True, True, False):
            page = await store.list_input_items(
                tenant, "r2", limit=2, after=seen[-1] if seen else None, order=order
            )
            assert page is not None
            assert page.has_more is has_more
            assert page.items == [f'{{"id":"{name}"}}'.encode() for name in page.ids]
            seen += page.ids
        assert seen == (names if order == "asc" else names[::-1])

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_following_a_cursor_ends_even_if_ids_repeat(
        self, store: ResponseStore, tenant: str, order: Order
    ) -> None:
        """H2: a cursor never leads back."""
        await store.accept(
            a_response(tenant, "r1", input=[an_item(name) for name in ("x", "a", "x", "b")])
        )
        after: str | None = None
        for _ in range(5):
            page = await store.list_input_items(tenant, "r1", limit=1, after=after, order=order)
            assert page is not None
            if not page.has_more:
                break
            after = page.ids[-1]
        else:
            pytest.fail("the pages do not end")
