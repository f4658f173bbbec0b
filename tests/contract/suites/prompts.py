"""What every `engine.ports.prompts.PromptStore` does."""

from __future__ import annotations

import asyncio

import pytest

from engine.errors import InvalidRequest
from engine.ports import Order
from engine.ports.prompts import PromptPage, PromptStore, StoredPrompt


async def _found(
    prompts: PromptStore, tenant: str, name: str = "p", version: int | None = None
) -> StoredPrompt:
    found = await prompts.get_prompt(tenant, name, version)
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

    async def test_a_prompt_begins_with_its_first_version(
        self, prompts: PromptStore, tenant: str
    ) -> None:
        """It is the default; written twice by an attempt whose answer was lost, it is there once."""
        for body in (b"one", b"other"):
            await prompts.add_prompt(tenant, "p", b"head", body)
        found = await _found(prompts, tenant)
        assert (found.id, found.head, found.body) == ("p", b"head", b"one")
        assert (found.version, found.default_version) == (1, 1)
        assert found.created_at == found.version_created_at > 1_600_000_000
        assert await _found(prompts, tenant, version=1) == found
        assert await prompts.get_prompt(tenant, "p", 2) is None
        assert await prompts.get_prompt(tenant, "q", None) is None

    async def test_versions_are_added_and_one_is_the_default(
        self, prompts: PromptStore, tenant: str
    ) -> None:
        """An older version stays as it was; what was written under a nonce is not written again."""
        await prompts.add_prompt(tenant, "p", b"head", b"one")
        for _ in range(2):
            added = await prompts.add_prompt_version(tenant, "p", b"2", nonce=b"a", default=True)
            assert added == 2
        third = await prompts.add_prompt_version(tenant, "p", b"3", nonce=b"b", default=False)
        assert third == 3
        found = await _found(prompts, tenant)
        assert (found.version, found.default_version, found.body) == (2, 2, b"2")
        assert (await _found(prompts, tenant, version=1)).body == b"one"
        assert (await _found(prompts, tenant, version=3)).default_version == 2
        unknown = await prompts.add_prompt_version(tenant, "q", b"", nonce=b"c", default=True)
        assert unknown is None

    async def test_versions_added_at_once_all_get_numbers(
        self, prompts: PromptStore, tenant: str
    ) -> None:
        """None is lost."""
        await prompts.add_prompt(tenant, "p", b"", b"1")
        numbers = await asyncio.gather(
            *(
                prompts.add_prompt_version(tenant, "p", b"", nonce=bytes([n]), default=True)
                for n in range(10)
            )
        )
        assert sorted(number or 0 for number in numbers) == list(range(2, 12))
        assert (await _found(prompts, tenant)).default_version == 11

    async def test_head_and_default_are_changed(self, prompts: PromptStore, tenant: str) -> None:
        """To a version that there is; otherwise nothing is changed."""
        await prompts.add_prompt(tenant, "p", b"head", b"1")
        await prompts.add_prompt_version(tenant, "p", b"2", nonce=b"a", default=True)
        assert await prompts.update_prompt(tenant, "p", head=None, default_version=1)
        assert await prompts.update_prompt(tenant, "p", head=b"new", default_version=None)
        assert not await prompts.update_prompt(tenant, "p", head=b"bad", default_version=3)
        assert not await prompts.update_prompt(tenant, "q", head=b"bad", default_version=None)
        found = await _found(prompts, tenant)
        assert (found.head, found.default_version) == (b"new", 1)

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_prompts_are_listed_by_creation(
        self, prompts: PromptStore, tenant: str, order: Order
    ) -> None:
        """H2: pages join without gap; each prompt is there at its default version."""
        for name in ("b", "a", "c"):
            await prompts.add_prompt(tenant, name, b"", b"1")
        await prompts.add_prompt_version(tenant, "a", b"2", nonce=b"a", default=True)
        wanted = ["b", "a", "c"] if order == "asc" else ["c", "a", "b"]
        first = await prompts.list_prompts(tenant, limit=2, after=None, order=order)
        rest = await prompts.list_prompts(tenant, limit=2, after=wanted[1], order=order)
        assert _ids(first) + _ids(rest) == wanted
        assert (first.has_more, rest.has_more) == (True, False)
        assert {prompt.id: prompt.version for prompt in first.prompts}["a"] == 2
        last = await prompts.list_prompts(tenant, limit=2, after=wanted[2], order=order)
        assert (last.prompts, last.has_more) == ([], False)
        with pytest.raises(InvalidRequest) as refused:
            await prompts.list_prompts(tenant, limit=2, after="d", order=order)
        assert refused.value.param == "after"

    async def test_versions_are_listed_by_number(self, prompts: PromptStore, tenant: str) -> None:
        """H2; None where there is no prompt."""
        await prompts.add_prompt(tenant, "p", b"", b"1")
        for n in range(2):
            await prompts.add_prompt_version(tenant, "p", b"", nonce=bytes([n]), default=False)
        newest = await prompts.list_prompt_versions(tenant, "p", limit=2, after=None, order="desc")
        assert newest is not None
        assert (_versions(newest), newest.has_more) == ([3, 2], True)
        rest = await prompts.list_prompt_versions(tenant, "p", limit=2, after=2, order="desc")
        assert _versions(rest) == [1]
        up = await prompts.list_prompt_versions(tenant, "p", limit=9, after=1, order="asc")
        assert _versions(up) == [2, 3]
        end = await prompts.list_prompt_versions(tenant, "p", limit=9, after=3, order="asc")
        assert _versions(end) == []
        none = await prompts.list_prompt_versions(tenant, "q", limit=9, after=None, order="asc")
        assert none is None

    async def test_what_is_deleted_is_gone(self, prompts: PromptStore, tenant: str) -> None:
        """With its versions; its id may come again."""
        await prompts.add_prompt(tenant, "p", b"", b"1")
        await prompts.add_prompt_version(tenant, "p", b"2", nonce=b"a", default=True)
        assert await prompts.delete_prompt(tenant, "p")
        assert not await prompts.delete_prompt(tenant, "p")
        assert await prompts.get_prompt(tenant, "p", 2) is None
        await prompts.add_prompt(tenant, "p", b"", b"again")
        assert (await _found(prompts, tenant)).body == b"again"

    async def test_another_tenant_has_nothing_of_it(
        self, prompts: PromptStore, tenant: str
    ) -> None:
        """X1: on every operation."""
        thief = f"{tenant}-thief"
        await prompts.add_prompt(tenant, "p", b"", b"1")
        assert await prompts.get_prompt(thief, "p", None) is None
        added = await prompts.add_prompt_version(thief, "p", b"", nonce=b"a", default=True)
        assert added is None
        assert not await prompts.update_prompt(thief, "p", head=b"x", default_version=None)
        assert not await prompts.delete_prompt(thief, "p")
        page = await prompts.list_prompts(thief, limit=9, after=None, order="asc")
        assert page.prompts == []
        assert (
            await prompts.list_prompt_versions(thief, "p", limit=9, after=None, order="asc") is None
        )
        await prompts.add_prompt(thief, "p", b"", b"own")
        assert (await _found(prompts, tenant)).body == b"1"

    async def test_a_tenant_is_forgotten(self, prompts: PromptStore, tenant: str) -> None:
        """All prompts of one, and of nobody else."""
        for owner in (tenant, f"{tenant}-2"):
            for name in ("p", "q"):
                await prompts.add_prompt(owner, name, b"", b"1")
        assert await prompts.remove_prompts(tenant) == 2
        assert await prompts.remove_prompts(tenant) == 0
        assert await prompts.get_prompt(tenant, "p", None) is None
        assert (await _found(prompts, f"{tenant}-2")).version == 1
