"""Prompt templates in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from engine.ports import Order, PromptPage, StoredPrompt
from storage.memory.pages import ordered, past


@dataclass
class _Version:
    number: int
    created_at: int
    nonce: bytes
    body: bytes


@dataclass
class _Prompt:
    id: str
    created_at: int
    head: bytes
    default: int
    versions: list[_Version] = field(default_factory=list)

    def at(self, number: int | None) -> StoredPrompt | None:
        wanted = self.default if number is None else number
        if not 1 <= wanted <= len(self.versions):
            return None
        version = self.versions[wanted - 1]
        return StoredPrompt(
            id=self.id,
            created_at=self.created_at,
            default_version=self.default,
            head=self.head,
            version=version.number,
            version_created_at=version.created_at,
            body=version.body,
        )


class MemoryPrompts:
    """`engine.ports.PromptStore` in memory; `clock` tells Unix seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        # By tenant and id, in order of creation.
        self._prompts: dict[str, dict[str, _Prompt]] = {}

    async def add_prompt(self, tenant: str, prompt_id: str, head: bytes, body: bytes) -> None:
        """Write a prompt with its first version, which is the default."""
        now = int(self._clock())
        prompt = _Prompt(prompt_id, now, head, 1, [_Version(1, now, b"", body)])
        self._prompts.setdefault(tenant, {}).setdefault(prompt_id, prompt)

    async def add_prompt_version(
        self, tenant: str, prompt_id: str, body: bytes, *, nonce: bytes, default: bool
    ) -> int | None:
        """Write the next version and return its number; None if there is no such prompt."""
        prompt = self._prompt(tenant, prompt_id)
        if prompt is None:
            return None
        for version in prompt.versions:
            if version.nonce == nonce:
                return version.number
        number = len(prompt.versions) + 1
        prompt.versions.append(_Version(number, int(self._clock()), nonce, body))
        if default:
            prompt.default = number
        return number

    async def update_prompt(
        self, tenant: str, prompt_id: str, *, head: bytes | None, default_version: int | None
    ) -> bool:
        """Replace what is not None; False if there is no such prompt or version."""
        prompt = self._prompt(tenant, prompt_id)
        if prompt is None or prompt.at(default_version) is None:
            return False
        prompt.head = prompt.head if head is None else head
        prompt.default = prompt.default if default_version is None else default_version
        return True

    async def get_prompt(
        self, tenant: str, prompt_id: str, version: int | None
    ) -> StoredPrompt | None:
        """Return a prompt at a version, None for its default; None if there is no such thing."""
        prompt = self._prompt(tenant, prompt_id)
        return None if prompt is None else prompt.at(version)

    async def list_prompts(
        self, tenant: str, *, limit: int, after: str | None, order: Order
    ) -> PromptPage:
        """Return a page by creation; raises `InvalidRequest` (param `after`) for an unknown cursor."""
        found = ordered(list(self._prompts.get(tenant, {}).values()), order)
        found = past(found, [prompt.id for prompt in found], after)
        return _page([prompt.at(None) for prompt in found], limit)

    async def list_prompt_versions(
        self, tenant: str, prompt_id: str, *, limit: int, after: int | None, order: Order
    ) -> PromptPage | None:
        """Return a page of versions above (`asc`) or below the number `after`; None without the prompt."""
        prompt = self._prompt(tenant, prompt_id)
        if prompt is None:
            return None
        numbers = ordered([version.number for version in prompt.versions], order)
        if after is not None:
            numbers = [n for n in numbers if (n > after if order == "asc" else n < after)]
        return _page([prompt.at(number) for number in numbers], limit)

    async def delete_prompt(self, tenant: str, prompt_id: str) -> bool:
        """Remove a prompt with all of its versions; True if there was one."""
        return self._prompts.get(tenant, {}).pop(prompt_id, None) is not None

    def forget_prompts(self, tenant: str) -> None:
        """Remove all prompts of a tenant."""
        self._prompts.pop(tenant, None)

    def _prompt(self, tenant: str, prompt_id: str) -> _Prompt | None:
        return self._prompts.get(tenant, {}).get(prompt_id)


def _page(found: list[StoredPrompt | None], limit: int) -> PromptPage:
    prompts = [prompt for prompt in found if prompt is not None]
    return PromptPage(prompts[:limit], has_more=len(prompts) > limit)
