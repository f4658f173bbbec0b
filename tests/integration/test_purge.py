"""`holdfast purge` on a real database."""

from __future__ import annotations

import asyncio

import pytest

from extproc.cli import run
from storage.postgres.pool import open_pool
from storage.postgres.store import PostgresStore
from tests.support.stored import a_conversation, begin, turn


async def test_a_tenant_is_removed_whole_and_alone(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """X1: what ended and what runs, of this tenant and of no other; the count is told at the end."""
    async with open_pool(database, min_size=1, max_size=2, timeout=5) as pool:
        store = PostgresStore(pool)
        await turn(store, "acme", "resp_1")
        await turn(store, "acme", "resp_2", after="resp_1")
        await begin(store, "acme", "resp_3")
        await turn(store, "other", "resp_4")
        await a_conversation(store, "acme", "conv_1", "item_1")
        await a_conversation(store, "other", "conv_2")

        environ = {"HOLDFAST_POSTGRES__URL": database}
        asked = ["purge", "--tenant", "acme", "--yes"]
        for told in (
            "4 response(s) and conversation(s) of tenant 'acme' removed.",
            "0 response(s) and",
        ):
            assert await asyncio.to_thread(run, asked, environ) == 0
            assert told in capsys.readouterr().out.splitlines()[-1]

        for gone in ("resp_1", "resp_2", "resp_3"):
            assert await store.get("acme", gone) is None
        assert await store.get("other", "resp_4") is not None
        assert await store.get_conversation("acme", "conv_1") is None
        assert await store.get_conversation("other", "conv_2") is not None
