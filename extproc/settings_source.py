"""Where settings come from, and how what is wrong with them is told.

Knows names, files and messages, not the tree itself (`extproc.settings`). Messages name the
variable and never a value.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

PREFIX = "HOLDFAST_"
NESTED = "__"

# Short names for `make run` and for platforms that hand out exactly these.
ALIASES = {
    "BACKEND_URL": "HOLDFAST_MODEL__URL",
    "PORT": "HOLDFAST_LISTEN__PORT",
    "DATA_DIR": "HOLDFAST_DATA_DIR",
    "DATABASE_URL": "HOLDFAST_POSTGRES__URL",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "HOLDFAST_TRACES__ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS": "HOLDFAST_TRACES__HEADERS",
    "OTEL_SERVICE_NAME": "HOLDFAST_TRACES__SERVICE_NAME",
}

# Kubernetes puts the address of each Service into the environment of each pod of the namespace: for
# one named `holdfast`, HOLDFAST_SERVICE_HOST, HOLDFAST_PORT=tcp://…, HOLDFAST_PORT_8080_TCP_ADDR.
_SERVICE_LINK = re.compile(
    r"HOLDFAST_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)
# The test suite's own, which the processes under test inherit.
_TEST_PREFIX = "HOLDFAST_TEST_"
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


class SettingsError(Exception):
    """The settings are wrong; `problems` has one readable sentence for each thing to put right."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def read_toml(file: Path) -> dict[str, Any]:
    """Return the content of a settings file."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError([f"cannot read the settings file {file}: {error.strerror}"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError([f"the settings file {file} is not valid TOML: {error}"]) from error


def with_aliases(environ: Mapping[str, str]) -> dict[str, str]:
    """Return our variables with the short names resolved; an empty variable counts as unset."""
    ours = {name: value for name, value in environ.items() if value and name.startswith(PREFIX)}
    for alias, name in ALIASES.items():
        if value := environ.get(alias):
            ours.setdefault(name, value)
    return ours


def check_names(environ: Mapping[str, str], known: Iterable[str]) -> None:
    """Refuse a `HOLDFAST_…` variable that is no setting, naming the one that was probably meant."""
    names = [*known, f"{PREFIX}CONFIG"]
    unknown = [
        name
        for name, value in environ.items()
        if name.startswith(PREFIX) and name not in names and not _is_of_others(name, value)
    ]
    if unknown:
        raise SettingsError(
            [f"unknown variable {name}{_near(name, names)}" for name in sorted(unknown)]
        )


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return both trees in one; where both have a value, that of `above` holds."""
    both = dict(below)
    for key, value in above.items():
        beneath = both.get(key)
        if isinstance(beneath, Mapping) and isinstance(value, Mapping):
            both[key] = merged(beneath, value)
        else:
            both[key] = value
    return both


def describe_errors(
    error: ValidationError, paths: Mapping[str, tuple[str, ...]], file: Path | None
) -> list[str]:
    """Return one sentence for each failed check, naming the setting as it may have been set."""
    known = {".".join(place): variable for variable, place in paths.items()}
    problems = []
    for failure in error.errors(include_url=False, include_input=False, include_context=False):
        name = ".".join(str(step) for step in failure["loc"])
        if failure["type"] == "extra_forbidden":
            where = f" in {file}" if file is not None else ""
            problems.append(f"unknown setting {name}{where}{_near(name, known)}")
        else:
            told = failure["msg"].removeprefix("Value error, ")
            title = f"{known[name]} ({name})" if name in known else name
            problems.append(f"{title}: {told}" if title else told)
    return problems


def _is_of_others(name: str, value: str) -> bool:
    if NESTED in name:
        return False
    if name.startswith(_TEST_PREFIX) or _SERVICE_LINK.fullmatch(name):
        return True
    return name.endswith("_PORT") and _SERVICE_URL.match(value) is not None


def _near(name: str, names: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.8)
    return f"; did you mean {found[0]}?" if found else ""
