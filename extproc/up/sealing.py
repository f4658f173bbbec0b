"""The sealing key of `holdfast up`: made once, kept in the data directory."""

from __future__ import annotations

import os
import secrets
from base64 import b64encode
from pathlib import Path

from extproc.sealing import KEY_BYTES
from extproc.settings import Settings
from extproc.up.processes import StartFailed

FILE = "sealing.key"


def with_sealing_key(settings: Settings) -> Settings:
    """Return the settings with a key: those that are given, or that of the data directory.

    Raises StartFailed where it cannot be kept. A key that is lost takes with it what it sealed.
    """
    if settings.sealing.given:
        return settings
    file = settings.data_dir / FILE
    try:
        if not file.exists():
            _make(file)
    except OSError as error:
        raise StartFailed(f"cannot keep a sealing key in {file}: {error.strerror}") from error
    return settings.having(sealing={"key_files": (file.absolute(),)})


def _make(file: Path) -> None:
    """Write a new key, whole or not at all, for our user alone."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
        opened.flush()
        os.fsync(opened.fileno())
    new.rename(file)
