"""`holdfast purge`: an erase request for one tenant."""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterator

import pytest

from engine.keeping import Keeping
from engine.ports import NewFile
from extproc.cli import run
from extproc.purge import purge
from storage.memory import MemoryBlobs, MemoryStore
from tests.support.stored import begin, turn

NOWHERE = {"HOLDFAST_POSTGRES__URL": "postgresql://nobody@127.0.0.1:1/none"}


async def one(piece: bytes) -> AsyncIterator[bytes]:
    """Yield a piece."""
    yield piece


async def test_everything_of_the_tenant_is_removed_and_counted() -> None:
    """X1: of that tenant and of no other; what runs too."""
    store = MemoryStore()
    for number in range(1203):
        await turn(store, "acme", f"resp_{number}")
    await begin(store, "acme", "resp_running")
    await turn(store, "other", "resp_other")
    said: list[str] = []
    blobs = MemoryBlobs()
    for tenant in ("acme", "other"):
        keeping = Keeping(store, blobs, os.urandom)
        blob = await keeping.keep(tenant, one(tenant.encode()), most=9, what="")
        await store.add_file(tenant, NewFile(id="f", purpose="p", filename="n"), blob)

    assert await purge(store, lambda: blobs, "acme", said.append) == 1204

    assert list(blobs.kept.values()) == [b"other"]
    assert await store.get_file("acme", "f") is None

    assert said == [f"{n} removed so far" for n in (500, 1000, 1204)]
    assert await store.get("acme", "resp_running") is None
    assert await store.get("other", "resp_other") is not None


@pytest.mark.parametrize("typed", ["", "no\n", "other\n"])
def test_nothing_is_removed_without_the_tenants_name(
    typed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The database is not even asked."""
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert run(["purge", "--tenant", "acme"], NOWHERE) == 1
    shown = capsys.readouterr()
    assert "acme" in shown.out
    assert "nothing was removed" in shown.err


def test_a_database_that_is_away_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 1."""
    environ = {**NOWHERE, "HOLDFAST_POSTGRES__TIMEOUT_SECONDS": "0.2"}
    assert run(["purge", "--tenant", "acme", "--yes"], environ) == 1
    assert "holdfast: " in capsys.readouterr().err


def test_a_tenant_has_to_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody purges everybody by a slip."""
    with pytest.raises(SystemExit) as ended:
        run(["purge", "--yes"], NOWHERE)
    assert ended.value.code == 2
    assert "--tenant" in capsys.readouterr().err
