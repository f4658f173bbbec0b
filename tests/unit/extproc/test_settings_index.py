"""`extproc.settings_index` and `extproc.index`: which index the settings choose."""

from __future__ import annotations

from pathlib import Path

import pytest

from extproc.index import migrate_index, open_index
from extproc.settings import Settings, SettingsError
from extproc.settings_docs import as_toml
from storage.milvus.index import MilvusIndex
from storage.pgvector.index import PgvectorIndex

SECRET = "hunter2"


@pytest.mark.parametrize("kind", [None, "off"])
async def test_without_a_kind_there_is_no_index(kind: str | None) -> None:
    """H: retrieval is refused then, and not half there."""
    settings = Settings.load(None, {} if kind is None else {"HOLDFAST_INDEX__KIND": kind})
    async with open_index(settings, "m") as index:
        assert index is None
    assert await migrate_index(settings, print) == []


async def test_an_index_is_opened_without_waiting_for_its_server(tmp_path: Path) -> None:
    """P2: a worker can start before Milvus or Postgres do."""
    for kind, url, expected in (
        ("milvus", f"unix:{tmp_path}/nobody.sock", MilvusIndex),
        ("pgvector", f"postgresql:///x?host={tmp_path}", PgvectorIndex),
    ):
        environ = {"HOLDFAST_INDEX__KIND": kind, "HOLDFAST_INDEX__URL": url}
        async with open_index(Settings.load(None, environ), "m") as index:
            assert isinstance(index, expected)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (None, "index.url is needed"),
        ("./vectors.db", "is no URL"),
        ("file:vectors.db", "begins with one of"),
        ("postgresql://u@h/d", "begins with one of"),
    ],
)
def test_milvus_needs_a_server(url: str | None, said: str) -> None:
    """A path would be a Milvus Lite within the worker, which holds up its event loop."""
    environ = {"HOLDFAST_INDEX__KIND": "milvus"}
    if url is not None:
        environ["HOLDFAST_INDEX__URL"] = url
    with pytest.raises(SettingsError, match=said):
        Settings.load(None, environ)


@pytest.mark.parametrize(
    ("name", "value"),
    [("URL", "https://milvus:19530"), ("TOKEN", "u:p"), ("URL", "postgresql://h")],
)
def test_where_an_index_is_says_not_which_it_is(name: str, value: str) -> None:
    """H1: `holdfast up` would start a private one beside it, and `serve` would have none."""
    with pytest.raises(SettingsError, match=r"index\.kind"):
        Settings.load(None, {f"HOLDFAST_INDEX__{name}": value})


async def test_pgvector_without_a_database_is_refused() -> None:
    """That of the store is taken where there is no other."""
    settings = Settings.load(None, {"HOLDFAST_INDEX__KIND": "pgvector"})
    with pytest.raises(SettingsError, match="INDEX__URL"):
        await migrate_index(settings, print)


def test_what_is_secret_is_not_shown() -> None:
    """X4: the token, and the URL, which may have a password; a worker gets both."""
    settings = Settings.load(
        None,
        {
            "HOLDFAST_INDEX__KIND": "milvus",
            "HOLDFAST_INDEX__URL": f"https://u:{SECRET}@milvus:19530",
            "HOLDFAST_INDEX__TOKEN": SECRET,
        },
    )
    assert SECRET not in as_toml(settings) + repr(settings)
    assert Settings.load(None, settings.environment()).index == settings.index


def test_the_socket_of_the_private_index_fits(tmp_path: Path) -> None:
    """A path that is too long for a socket is refused before anything starts."""
    with pytest.raises(SettingsError, match="SIDECAR__RUN_DIR"):
        Settings.load(None, {"HOLDFAST_DATA_DIR": str(tmp_path / ("x" * 100))})
