"""Describes the settings for people: docs/settings.md, and what `holdfast config` prints.

`python -m extproc.settings_docs` writes the document; a test compares it with the code, so that it
cannot fall behind. Secrets are never shown, only that they are set.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from extproc.settings import Settings
from extproc.settings_connectors import SharedConnector
from extproc.settings_section import Section
from extproc.settings_source import ALIASES

_MASK = "**********"
_UNSET = "unset"

_INTRODUCTION = """\
# Settings

Made from `extproc/settings.py` by `make docs`; do not edit.

Each setting can be given in the environment under the name below, or in a TOML file (`--config
PATH` or `HOLDFAST_CONFIG=PATH`), where `HOLDFAST_LISTEN__PORT=8080` is written as

```toml
[listen]
port = 8080
```

The environment wins over the file. An unknown name is refused in both. Durations are in seconds,
sizes in bytes. `holdfast config` prints what is in force.
"""


@dataclass(frozen=True, slots=True)
class Described:
    """One setting: its section ("" for none), variable, default as shown, and meaning."""

    section: str
    variable: str
    default: str
    meaning: str


def describe() -> list[Described]:
    """Return every setting in the order of the tree."""
    described = []
    for variable, place in Settings.paths().items():
        section = place[0] if len(place) > 1 else ""
        field = _owner(section).model_fields[place[-1]]
        meaning = " ".join((field.description or "").split())
        described.append(Described(section, variable, _default(field), meaning))
    return described


def as_markdown() -> str:
    """Return docs/settings.md."""
    lines = [_INTRODUCTION, "Short names, for `make run` and for platforms that set them:", ""]
    lines += ["| variable | stands for |", "|---|---|"]
    lines += [f"| `{alias}` | `{variable}` |" for alias, variable in ALIASES.items()]
    section = None
    for setting in describe():
        if setting.section != section:
            section = setting.section
            lines += ["", f"## {section or 'general'}", "", *_preface(section)]
            lines += ["| variable | default | meaning |", "|---|---|---|"]
        lines.append(f"| `{setting.variable}` | {setting.default} | {setting.meaning} |")
    return "\n".join(lines) + "\n"


def as_toml(settings: Settings) -> str:
    """Return the settings as a settings file; secrets and what is unset stand in comments."""
    lines = [_line("data_dir", settings.data_dir)]
    for name, section in Settings.SECTIONS.items():
        values = getattr(settings, name)
        lines += ["", f"[{name}]"]
        lines += [_line(field, getattr(values, field)) for field in section.model_fields]
    return "\n".join(lines) + "\n"


def _owner(section: str) -> type[Section] | type[Settings]:
    return Settings.SECTIONS[section] if section else Settings


def _preface(section: str) -> list[str]:
    return [_owner(section).__doc__ or "", ""] if section else []


def _default(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "shown_default" in extra:
        return str(extra["shown_default"])
    return _UNSET if field.default in (None, ()) else f"`{_plain(field.default)}`"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value)
    # 5 reads better than 5.0, and both are the same in a file and in the environment.
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _line(field: str, value: Any) -> str:
    if value is None:
        return f"# {field} is {_UNSET}"
    if isinstance(value, SecretStr):
        return f"# {field} = {json.dumps(_MASK)}"
    if isinstance(value, tuple) and any(isinstance(part, SecretStr) for part in value):
        return f"# {field} = {json.dumps([_MASK] * len(value))}"
    if isinstance(value, tuple) and any(isinstance(part, SharedConnector) for part in value):
        return f"# {field}: {', '.join(part.label for part in value)}"
    # JSON's strings and lists of strings are TOML's too.
    quoted = list(map(str, value)) if isinstance(value, tuple) else str(value)
    json_like = isinstance(value, str | Path | tuple)
    return f"{field} = {json.dumps(quoted, ensure_ascii=False) if json_like else _plain(value)}"


if __name__ == "__main__":
    sys.stdout.write(as_markdown())
