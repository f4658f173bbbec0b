"""Finding SQL by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.postgres import queries


def test_a_file_is_read_as_its_named_statements() -> None:
    """Each begins with the line that says what it does."""
    statements = queries.load("reading.sql")
    assert {"load_context", "get", "find_items"} <= statements.keys()
    assert statements["get"].startswith(b"-- One response with its output.\nSELECT")
    assert statements["get"].endswith(b";")


def test_a_name_given_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise one of them would silently never run."""
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "twice.sql").write_text("-- name: a\nSELECT 1;\n\n-- name: a\nSELECT 2;\n")
    monkeypatch.setattr(queries, "files", lambda _package: tmp_path)
    with pytest.raises(ValueError, match=r"twice\.sql has two statements named 'a'"):
        queries.load("twice.sql")
