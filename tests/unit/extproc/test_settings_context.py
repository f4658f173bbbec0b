"""The settings of summaries and counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from extproc.settings import Settings, SettingsError
from extproc.settings_context import read_prompt

FILE = "HOLDFAST_CONTEXT__SUMMARY_PROMPT_FILE"


def test_a_file_may_have_another_prompt(tmp_path: Path) -> None:
    """Its text, without the space around it."""
    file = tmp_path / "prompt.txt"
    file.write_text("\nSum it up: é\n")
    settings = Settings.load(None, {FILE: str(file)})
    assert settings.context.summary_prompt_file == file
    assert read_prompt(file) == "Sum it up: é"


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe", b"x" * 65_537])
def test_a_file_without_a_prompt_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """At the start, not at the first summary."""
    file = tmp_path / "prompt.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=FILE):
        Settings.load(None, {FILE: str(file)})
