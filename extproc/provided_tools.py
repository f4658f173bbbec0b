"""Tools that an operator adds in Python: `type=module:function` of the settings, loaded when a worker starts.

docs/tools.md says how one is written; docs/examples/dice.py is one.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping

from engine.ports import OpenProvided
from extproc.settings_source import SettingsError

_VARIABLE = "HOLDFAST_TOOLS__PROVIDERS"


def load_providers(entries: Iterable[str]) -> Mapping[str, OpenProvided]:
    """Return what opens the providers, by type; raises SettingsError that names what cannot be loaded."""
    found: dict[str, OpenProvided] = {}
    for entry in entries:
        kind, _, place = entry.partition("=")
        found[kind] = _load(kind, place)
    return found


def _load(kind: str, place: str) -> OpenProvided:
    module, _, name = place.partition(":")
    try:
        loaded = getattr(importlib.import_module(module), name)
    except Exception as error:
        # Whatever the operator's code raises when it is imported.
        raise SettingsError(
            [f"{_VARIABLE}: '{place}' for tools of type '{kind}' cannot be loaded: {error!r}"]
        ) from error
    if not callable(loaded):
        raise SettingsError([f"{_VARIABLE}: '{place}' is no function"])
    opened: OpenProvided = loaded
    return opened
