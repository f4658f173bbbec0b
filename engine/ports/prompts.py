"""Prompt templates as they are stored: versions that never change, and which of them is the default."""

from __future__ import annotations

from typing import Protocol

import msgspec

from engine.ports.records import Order


class StoredPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt at one of its versions.

    `head` is what the versions share and `body` what is the version's own; both are JSON objects that the
    store does not read. Times are Unix seconds; versions count from 1.
    """

    id: str
    created_at: int
    default_version: int
    head: bytes
    version: int
    version_created_at: int
    body: bytes


class PromptPage(msgspec.Struct, frozen=True):
    """A page of prompts at their default versions, or of the versions of one."""

    prompts: list[StoredPrompt]
    has_more: bool


class PromptStore(Protocol):
    """Prompts by tenant; another tenant's are not there (rule X1). Raises `StorageUnavailable`."""

    async def add_prompt(self, tenant: str, prompt_id: str, head: bytes, body: bytes) -> None:
        """Write a prompt with its first version, which is the default; `prompt_id` is a new one."""
        ...

    async def add_prompt_version(
        self, tenant: str, prompt_id: str, body: bytes, *, nonce: bytes, default: bool
    ) -> int | None:
        """Write the next version and return its number; None if there is no such prompt.

        Versions that are added at once all get numbers of their own. `nonce` names this version: what was
        written under it before is not written again.
        """
        ...

    async def update_prompt(
        self, tenant: str, prompt_id: str, *, head: bytes | None, default_version: int | None
    ) -> bool:
        """Replace what is not None; False if there is no such prompt or version, and nothing is changed."""
        ...

    async def get_prompt(
        self, tenant: str, prompt_id: str, version: int | None
    ) -> StoredPrompt | None:
        """Return a prompt at a version, None for its default; None if there is no such thing."""
        ...

    async def list_prompts(
        self, tenant: str, *, limit: int, after: str | None, order: Order
    ) -> PromptPage:
        """Return a page by creation; raises `InvalidRequest` (param `after`) for an unknown cursor."""
        ...

    async def list_prompt_versions(
        self, tenant: str, prompt_id: str, *, limit: int, after: int | None, order: Order
    ) -> PromptPage | None:
        """Return a page of versions above (`asc`) or below the number `after`; None without the prompt."""
        ...

    async def delete_prompt(self, tenant: str, prompt_id: str) -> bool:
        """Remove a prompt with all of its versions; True if there was one."""
        ...
