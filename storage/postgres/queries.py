"""Finds SQL by name: `sql/*.sql` hold every statement, each under a `-- name: …` line.

No SQL is put together in Python; only values are parameters.
"""

from __future__ import annotations

import re
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def load(file: str, package: str = __package__) -> dict[str, bytes]:
    """Return a package's statements of `sql/<file>` by name; raises `ValueError` for a name given twice."""
    text = (files(package) / "sql" / file).read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    statements: dict[str, bytes] = {}
    for name, statement in zip(parts[::2], parts[1::2], strict=True):
        if name in statements:
            raise ValueError(f"{file} has two statements named {name!r}")
        statements[name] = statement.strip().encode()
    return statements
