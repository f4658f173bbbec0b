"""`extproc.settings_docs`: the documentation is made from the code and agrees with it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import extproc
from extproc.settings import Settings
from extproc.settings_docs import as_markdown, as_toml, describe

DOCUMENT = Path(extproc.__file__).parent.parent / "docs" / "settings.md"


def test_the_document_is_what_the_code_says() -> None:
    """H3: `make docs` was run after the last change."""
    assert DOCUMENT.read_text(encoding="utf-8") == as_markdown()


def test_every_setting_has_a_meaning_of_one_sentence() -> None:
    """A name alone explains nothing."""
    for setting in describe():
        assert setting.meaning.endswith("."), setting.variable


def test_every_setting_is_described_once() -> None:
    """No field is left out."""
    assert [setting.variable for setting in describe()] == list(Settings.paths())


def test_what_is_printed_is_a_settings_file(tmp_path: Path) -> None:
    """`holdfast config > file` makes a file that says the same."""
    settings = Settings.load(None, {"PORT": "9000", "HOLDFAST_SIDECAR__GRACE_SECONDS": "1.25"})
    file = tmp_path / "holdfast.toml"
    file.write_text(as_toml(settings), encoding="utf-8")

    assert Settings.load(file, {}) == settings


def test_a_secret_is_printed_as_set_and_no_more() -> None:
    """X4: `holdfast config` can be pasted into an issue."""
    printed = as_toml(Settings.load(None, {"DATABASE_URL": "postgresql://u:hunter2@h/d"}))

    assert "hunter2" not in printed
    assert '# url = "**********"' in printed
    assert "url" not in tomllib.loads(printed)["postgres"]
