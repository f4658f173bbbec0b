"""How a value of the settings is written into a variable."""

from __future__ import annotations

import json

from pydantic import SecretStr

from extproc.settings_connectors import SharedConnector, clear_text


def spelled(value: object) -> str:
    """Return a value as a variable holds it; secrets in clear text."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if not isinstance(value, tuple):
        return str(value)
    connectors = [clear_text(part) for part in value if isinstance(part, SharedConnector)]
    return json.dumps(connectors) if connectors else ",".join(map(spelled, value))
