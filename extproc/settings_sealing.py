"""The settings of sealing: the keys under which secrets are stored (rule X4)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, SecretStr, field_validator
from pydantic_settings import NoDecode

from extproc.sealing import parse_key
from extproc.settings_section import Section
from extproc.settings_source import SettingsError
from extproc.settings_tenancy import split


class Sealing(Section):
    """The keys that seal what is secret and has to be kept, such as credentials of connectors, and that vouch
    for approval requests of responses that are not stored, and for downloads on their way to a worker. All
    replicas need the same ones. `holdfast up` makes one in its data directory if none is given."""

    keys: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(split)] = ()
    """Keys, each 32 random bytes in base64 (`openssl rand -base64 32`), separated by commas. The first one
    seals, all of them open: a new key is put in front (docs/upgrade.md), the old ones
    stay as long as anything is sealed with them."""

    key_files: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(split)] = ()
    """Files with a key on each line, separated by commas; their keys come after those of `keys`."""

    @field_validator("keys")
    @classmethod
    def _are_keys(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for key in keys:
            parse_key(key.get_secret_value())
        return keys

    @property
    def given(self) -> bool:
        """True if there are keys."""
        return bool(self.keys or self.key_files)

    def read(self) -> list[bytes]:
        """Return all keys, those of the files too; raises SettingsError for a file that has none."""
        keys = [parse_key(key.get_secret_value()) for key in self.keys]
        for file in self.key_files:
            keys += _read(file)
        return keys


def _read(file: Path) -> list[bytes]:
    where = f"the key file {file} (sealing.key_files)"
    try:
        lines = file.read_text(encoding="ascii").split()
        keys = [parse_key(line) for line in lines]
    except OSError as error:
        raise SettingsError([f"{where} cannot be read: {error.strerror}"]) from error
    except ValueError:
        raise SettingsError([f"{where} holds something else than keys in base64"]) from None
    if not keys:
        raise SettingsError([f"{where} is empty"])
    return keys
