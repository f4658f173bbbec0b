"""What a running `holdfast up` really uses, told to the commands that are given beside it.

Much of it is in no settings: where the private Postgres is, that there is a private index, which embedding
model was there. A command that guessed would look elsewhere, or fill the index with other vectors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from extproc.settings import Settings

_FILE = "settings.json"


@contextmanager
def told(settings: Settings) -> Iterator[None]:
    """Tell what a stack uses while it runs. It has the stack's secrets, for its own user alone (rule X4)."""
    path = settings.sidecar.run_dir / _FILE
    draft = path.with_suffix(".new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(_absolute(settings), file)
    draft.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def used_beside(settings: Settings) -> Mapping[str, str]:
    """Return the variables of the stack that runs in this run directory; none where none does."""
    try:
        used: dict[str, str] = json.loads((settings.sidecar.run_dir / _FILE).read_text())
    except FileNotFoundError:
        return {}
    return used


def _absolute(settings: Settings) -> dict[str, str]:
    """Return the settings as variables, without paths that depend on where a command is given."""
    variables = settings.environment()
    for variable, place in settings.paths().items():
        value: object = settings
        for step in place:
            value = getattr(value, step)
        if isinstance(value, Path):
            variables[variable] = str(value.absolute())
    return variables
