"""`extproc.settings_sealing` and `extproc.up.sealing`: keys from settings, files, and the data directory."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pytest

from extproc.settings import Settings, SettingsError
from extproc.settings_docs import as_toml
from extproc.up.processes import StartFailed
from extproc.up.sealing import FILE, with_sealing_key

ONE, TWO, THREE = (bytes([number] * 32) for number in (1, 2, 3))


def spelled(key: bytes) -> str:
    return b64encode(key).decode()


def test_keys_come_in_the_order_in_which_they_are_given(tmp_path: Path) -> None:
    """X4: those of the files after the others, also in a worker, which gets them by its environment."""
    file = tmp_path / "keys"
    file.write_text(f"{spelled(TWO)}\n{spelled(THREE)}\n")
    settings = Settings.load(
        None,
        {
            "HOLDFAST_SEALING__KEYS": f"{spelled(THREE)}, {spelled(ONE)}",
            "HOLDFAST_SEALING__KEY_FILES": str(file),
        },
    )
    assert settings.sealing.read() == [THREE, ONE, TWO, THREE]
    assert Settings.load(None, settings.environment()).sealing == settings.sealing


def test_keys_are_not_shown() -> None:
    """X4: neither by `holdfast config` nor by what is printed of settings."""
    settings = Settings.load(None, {"HOLDFAST_SEALING__KEYS": spelled(ONE)})
    assert spelled(ONE) not in as_toml(settings) + repr(settings)
    assert '# keys = ["**********"]' in as_toml(settings)


@pytest.mark.parametrize("content", ["", "not a key", None, "ä"])
def test_a_file_without_keys_is_refused(tmp_path: Path, content: str | None) -> None:
    """X4: with its name, and nothing of what it holds."""
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content)
    settings = Settings.load(None, {"HOLDFAST_SEALING__KEY_FILES": str(file)})
    with pytest.raises(SettingsError, match="key_files") as caught:
        settings.sealing.read()
    assert "not a key" not in str(caught.value)


def test_a_wrong_key_is_refused_at_once() -> None:
    """X4: without being repeated."""
    with pytest.raises(SettingsError, match="HOLDFAST_SEALING__KEYS") as caught:
        Settings.load(None, {"HOLDFAST_SEALING__KEYS": "c2VjcmV0"})
    assert "c2VjcmV0" not in str(caught.value)


def test_up_makes_a_key_once_and_keeps_it(tmp_path: Path) -> None:
    """X4: for our user alone; a key of the settings is used instead."""
    settings = Settings.load(None, {"DATA_DIR": str(tmp_path / "data")})
    first = with_sealing_key(settings).sealing.read()
    assert len(first) == 1
    assert (tmp_path / "data" / FILE).stat().st_mode & 0o777 == 0o600
    assert with_sealing_key(settings).sealing.read() == first
    given = settings.having(sealing={"keys": (spelled(ONE),)})
    assert with_sealing_key(given).sealing.read() == [ONE]


def test_a_key_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    """H3: instead of starting with one that is lost with the process."""
    (tmp_path / "data").write_text("a file")
    with pytest.raises(StartFailed, match=FILE):
        with_sealing_key(Settings.load(None, {"DATA_DIR": str(tmp_path / "data")}))
