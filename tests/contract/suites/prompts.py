"""What every `engine.ports.PromptStore` does."""

from __future__ import annotations

import asyncio

import pytest

from engine.errors import InvalidRequest
from engine.ports import Order, PromptPage, Store, StoredPrompt


async def _found(
    store: Store, tenant: str, name: str = "p", version: int | None = None
) -> StoredPrompt:
    found = await store.get_prompt(tenant, name, version)
    assert found is not None
    return found


def _ids(page: PromptPage | None) -> list[str]:
    assert page is not None
    return [prompt.id for prompt in page.prompts]


def _versions(page: PromptPage | None) -> list[int]:
    assert page is not None
    return [prompt.version for prompt in page.prompts]


class PromptContract:
    """Prompts, their versions, their lists."""

    async def test_a_prompt_begins_with_its_first_version(self, store: Store, tenant: str) -> None:
        """It is the default; written twice by an attempt whose answer was lost, it is there once."""
        for body in (b"one", b"other"):
            await store.add_prompt(tenant, "p", b"head", body)
        found = await _found(store, tenant)
        assert (found.id, found.head, found.body) == ("p", b"head", b"one")
        assert (found.version, found.default_version) == (1, 1)
        assert found.created_at == found.version_created_at > 1_600_000_000
        assert await _found(store, tenant, version=1) == found
        assert await store.get_prompt(tenant, "p", 2) is None
        assert await store.get_prompt(tenant, "q", None) is None

    async def test_versions_are_added_and_one_is_the_default(
        self, store: Store, tenant: str
    ) -> None:
        """An older version stays as it was; what was written under a nonce is not written again."""
        await store.add_prompt(tenant, "p", b"head", b"one")
        for _ in range(2):
            added = await store.add_prompt_version(tenant, "p", b"2", nonce=b"a", default=True)
            assert added == 2
        third = await store.add_prompt_version(tenant, "p", b"3", nonce=b"b", default=False)
        assert third == 3
        found = await _found(store, tenant)
        assert (found.version, found.default_version, found.body) == (2, 2, b"2")
        assert (await _found(store, tenant, version=1)).body == b"one"
        assert (await _found(store, tenant, version=3)).default_version == 2
        unknown = await store.add_prompt_version(tenant, "q", b"", nonce=b"c", default=True)
        assert unknown is None

    async def test_versions_added_at_once_all_get_numbers(self, store: Store, tenant: str) -> None:
        """None is lost."""
        await store.add_prompt(tenant, "p", b"", b"1")
        numbers = await asyncio.gather(
            *(
                store.add_prompt_version(tenant, "p", b"", nonce=bytes([n]), default=True)
                for n in range(10)
            )
        )
        assert sorted(number or 0 for number in numbers) == list(range(2, 12))
        assert (await _found(store, tenant)).default_version == 11

    async def test_head_and_default_are_changed(self, store: Store, tenant: str) -> None:
        """To a version that there is; otherwise nothing is changed."""
        await store.add_prompt(tenant, "p", b"head", b"1")
        await store.add_prompt_version(tenant, "p", b"2", nonce=b"a", default=True)
        assert await store.update_prompt(tenant, "p", head=None, default_version=1)
        assert await store.update_prompt(tenant, "p", head=b"new", default_version=None)
        assert not await store.update_prompt(tenant, "p", head=b"bad", default_version=3)
        assert not await store.update_prompt(tenant, "q", head=b"bad", default_version=None)
        found = await _found(store, tenant)
        assert (found.head, found.default_version) == (b"new", 1)

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_prompts_are_listed_by_creation(
        self, store: Store, tenant: str, order: Order
    ) -> None:
        """H2: pages join without gap; each prompt is there at its default version."""
        for name in ("b", "a", "c"):
            await store.add_prompt(tenant, name, b"", b"1")
        await store.add_prompt_version(tenant, "a", b"2", nonce=b"a", default=True)
        wanted = ["b", "a", "c"] if order == "asc" else ["c", "a", "b"]
        first = await store.list_prompts(tenant, limit=2, after=None, order=order)
        rest = await store.list_prompts(tenant, limit=2, after=wanted[1], order=order)
        assert _ids(first) + _ids(rest) == wanted
        assert (first.has_more, rest.has_more) == (True, False)
        assert {prompt.id: prompt.version for prompt in first.prompts}["a"] == 2
        last = await store.list_prompts(tenant, limit=2, after=wanted[2], order=order)
        assert (last.prompts, last.has_more) == ([], False)
        with pytest.raises(InvalidRequest) as refused:
            await store.list_prompts(tenant, limit=2, after="d", order=order)
        assert refused.value.param == "after"

    async def test_versions_are_listed_by_number(self, store: Store, tenant: str) -> None:
        """H2; None where there is no prompt."""
        await store.add_prompt(tenant, "p", b"", b"1")
        for n in range(2):
            await store.add_prompt_version(tenant, "p", b"", nonce=bytes([n]), default=False)
        newest = await store.list_prompt_versions(tenant, "p", limit=2, after=None, order="desc")
        assert newest is not None
        assert (_versions(newest), newest.has_more) == ([3, 2], True)
        rest = await store.list_prompt_versions(tenant, "p", limit=2, after=2, order="desc")
        assert _versions(rest) == [1]
        up = await store.list_prompt_versions(tenant, "p", limit=9, after=1, order="asc")
        assert _versions(up) == [2, 3]
        end = await store.list_prompt_versions(tenant, "p", limit=9, after=3, order="asc")
        assert _versions(end) == []
        none = await store.list_prompt_versions(tenant, "q", limit=9, after=None, order="asc")
        assert none is None

    async def test_what_is_deleted_is_gone(self, store: Store, tenant: str) -> None:
        """With its versions; its id may come again."""
        await store.add_prompt(tenant, "p", b"", b"1")
        await store.add_prompt_version(tenant, "p", b"2", nonce=b"a", default=True)
        assert await store.delete_prompt(tenant, "p")
        assert not await store.delete_prompt(tenant, "p")
        assert await store.get_prompt(tenant, "p", 2) is None
        await store.add_prompt(tenant, "p", b"", b"again")
        assert (await _found(store, tenant)).body == b"again"

    async def test_another_tenant_has_nothing_of_it(self, store: Store, tenant: str) -> None:
        """X1: on every operation."""
        thief = f"{tenant}-thief"
        await store.add_prompt(tenant, "p", b"", b"1")
        assert await store.get_prompt(thief, "p", None) is None
        added = await store.add_prompt_version(thief, "p", b"", nonce=b"a", default=True)
        assert added is None
        assert not await store.update_prompt(thief, "p", head=b"x", default_version=None)
        assert not await store.delete_prompt(thief, "p")
        page = await store.list_prompts(thief, limit=9, after=None, order="asc")
        assert page.prompts == []
        assert (
            await store.list_prompt_versions(thief, "p", limit=9, after=None, order="asc") is None
        )
        await store.add_prompt(thief, "p", b"", b"own")
        assert (await _found(store, tenant)).body == b"1"

    async def test_a_tenant_takes_its_prompts_along(self, store: Store, tenant: str) -> None:
        """X1: all prompts of one go with it, and of nobody else."""
        for owner in (tenant, f"{tenant}-2"):
            for name in ("p", "q"):
                await store.add_prompt(owner, name, b"", b"1")
        await store.remove_tenant(tenant, limit=1)
        assert await store.get_prompt(tenant, "p", None) is None
        assert (await store.list_prompts(tenant, limit=1, after=None, order="asc")).prompts == []
        assert (await _found(store, f"{tenant}-2")).version == 1
