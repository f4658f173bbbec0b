"""Prompt templates over Postgres: each operation is one statement, safe to repeat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg.types.numeric import Int8

from engine.ports import Order, PromptPage, StoredPrompt
from storage.limits import unknown_cursor, wanted
from storage.postgres import queries
from storage.postgres.pool import Connection, Pool
from storage.postgres.scope import Row, Statement, key, rows_of

_SQL = queries.load("prompts.sql")


class Prompts:
    """`engine.ports.prompts.PromptStore` over the tables of migration 0004."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add_prompt(self, tenant: str, prompt_id: str, head: bytes, body: bytes) -> None:
        """Write a prompt with its first version, which is the default."""
        await self._prompt_rows(
            "add_prompt", {**key(tenant, prompt_id), "head": head, "body": body}
        )

    async def add_prompt_version(
        self, tenant: str, prompt_id: str, body: bytes, *, nonce: bytes, default: bool
    ) -> int | None:
        """Write the next version and return its number; None if there is no such prompt."""
        values = {**key(tenant, prompt_id), "nonce": nonce, "body": body, "default": default}
        rows = await self._prompt_rows("add_prompt_version", values, "version_of_nonce")
        return rows[0][0] if rows else None

    async def update_prompt(
        self, tenant: str, prompt_id: str, *, head: bytes | None, default_version: int | None
    ) -> bool:
        """Replace what is not None; False if there is no such prompt or version."""
        values = {**key(tenant, prompt_id), "head": head, "version": _number(default_version)}
        return bool(await self._prompt_rows("update_prompt", values))

    async def get_prompt(
        self, tenant: str, prompt_id: str, version: int | None
    ) -> StoredPrompt | None:
        """Return a prompt at a version, None for its default; None if there is no such thing."""
        values = {**key(tenant, prompt_id), "version": _number(version)}
        rows = await self._prompt_rows("get_prompt", values)
        return _prompt(rows[0]) if rows else None

    async def list_prompts(
        self, tenant: str, *, limit: int, after: str | None, order: Order
    ) -> PromptPage:
        """Return a page by creation; raises `InvalidRequest` (param `after`) for an unknown cursor."""
        values = {
            "tenant": wanted(tenant),
            "limit": Int8(limit + 1),
            "after": None if after is None else wanted(after),
        }
        rows = await self._prompt_rows(f"list_prompts_{order}", values)
        if after is not None and not rows[0][0]:
            raise unknown_cursor(after)
        return _page([row[1:] for row in rows if row[1] is not None], limit)

    async def list_prompt_versions(
        self, tenant: str, prompt_id: str, *, limit: int, after: int | None, order: Order
    ) -> PromptPage | None:
        """Return a page of versions above (`asc`) or below the number `after`; None without the prompt."""
        values = {**key(tenant, prompt_id), "limit": Int8(limit + 1), "number": _number(after)}
        rows = await self._prompt_rows(f"list_prompt_versions_{order}", values)
        return _page([row for row in rows if row[4] is not None], limit) if rows else None

    async def delete_prompt(self, tenant: str, prompt_id: str) -> bool:
        """Remove a prompt with all of its versions; True if there was one."""
        return bool(await self._prompt_rows("delete_prompt", key(tenant, prompt_id)))

    async def _prompt_rows(
        self, name: str, values: Mapping[str, Any], then: str | None = None
    ) -> list[Row]:
        """Return the rows of a statement, or of the one that follows it in its transaction."""
        names = [name] if then is None else [name, then]
        statements = [Statement(_SQL[each], values) for each in names]

        async def work(connection: Connection, _attempt: int) -> list[Row]:
            return (await rows_of(connection, *statements))[-1]

        return await self._pool.run(work)


def _number(version: int | None) -> Int8 | None:
    return None if version is None else Int8(version)


def _page(rows: list[Row], limit: int) -> PromptPage:
    return PromptPage([_prompt(row) for row in rows[:limit]], has_more=len(rows) > limit)


def _prompt(row: Row) -> StoredPrompt:
    prompt_id, created_at, default, head, version, version_created_at, body = row
    return StoredPrompt(
        id=prompt_id,
        created_at=created_at,
        default_version=default,
        head=head,
        version=version,
        version_created_at=version_created_at,
        body=body,
    )
