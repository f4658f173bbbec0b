"""`extproc.envoy.own_settings`: the list of what Envoy alone reads is whole, and none of it is dropped."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import extproc
from extproc.envoy.config import render, render_plain
from extproc.envoy.own_settings import CONFIG, PROCESS
from extproc.settings import Settings, SettingsError

PACKAGES = Path(extproc.__file__).parents[1]
# The workers know these by others: whether there is a source, and `Settings.http_address`.
TOLD_OTHERWISE = {"tenancy.mode", "tenancy.header_from_gateway", "http.listen"}

_LIMITED = {"rate_limit_url": "http://limits:8081"}
_TOKENS = {"issuer": "i", "audiences": ("a",), "jwks_uri": "https://keys.test"}
SAMPLES: dict[str, dict[str, Any]] = {
    "listen.host": {"listen": {"host": "10.0.0.1"}},
    "listen.port": {"listen": {"port": 18_080}},
    "envoy.inline": {"envoy": {"inline": True}},
    "envoy.stream_idle_seconds": {"envoy": {"stream_idle_seconds": 71}},
    "envoy.access_log": {"envoy": {"access_log": "-"}},
    "envoy.rate_limit_url": {"envoy": _LIMITED},
    "envoy.rate_limit_domain": {"envoy": {**_LIMITED, "rate_limit_domain": "other"}},
    "envoy.rate_limit_request_tokens": {"envoy": {**_LIMITED, "rate_limit_request_tokens": 71}},
    "routing.load_percent": {"routing": {"load_percent": 171}},
    "routing.health_path": {"routing": {"health_path": "/health"}},
    "routing.picker_url": {"routing": {"picker_url": "https://picker:9002"}},
    "routing.picker_ca_file": {
        "routing": {"picker_url": "https://picker:9002", "picker_ca_file": "/ca.pem"}
    },
    "routing.retries": {"routing": {"retries": 7}},
    "jwt.issuer": {"jwt": {**_TOKENS, "issuer": "other"}},
    "jwt.audiences": {"jwt": {**_TOKENS, "audiences": ("other",)}},
    "jwt.jwks_file": {
        "jwt": {"issuer": "i", "audiences": ("a",), "jwks_file": "/etc/keys.json"},
    },
    "jwt.jwks_uri": {"jwt": {**_TOKENS, "jwks_uri": "https://other.test"}},
    "jwt.ca_file": {"jwt": {**_TOKENS, "ca_file": "/ca.pem"}},
}
"""A value of each, with what it needs beside it."""
PLAIN = {
    "listen.host",
    "listen.port",
    "envoy.stream_idle_seconds",
    "routing.load_percent",
    "routing.health_path",
    "routing.retries",
}
"""Those that have a place in the config without ext_proc."""


def settings(given: dict[str, Any], **more: Any) -> Settings:
    """Return settings with a sample in them; raises SettingsError as `load` does."""
    tenancy = {"tenancy": {"mode": "required", "source": "jwt"}} if "jwt" in given else {}
    return Settings.load(None, {}).having(**given, **tenancy, **more)


def read(files: list[Path]) -> set[str]:
    """Return the settings that code reads, as `section.field`: who reads one names its section."""
    found = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                section = getattr(node.value, "attr", getattr(node.value, "id", ""))
                found.add(f"{section}.{node.attr}")
    return found & {".".join(place) for place in Settings.paths().values()}


def test_the_list_has_every_setting_that_only_envoy_reads() -> None:
    """H1: a new one cannot be forgotten."""
    files = [
        path
        for package in ("extproc", "engine", "storage")
        for path in (PACKAGES / package).rglob("*.py")
        if "pb" not in path.parts and not path.name.startswith("settings")
    ]
    envoys = [path for path in files if path.parent.name in ("envoy", "up")]
    others = [path for path in files if path not in envoys]

    assert read(envoys) - read(others) - TOLD_OTHERWISE == {*CONFIG, *PROCESS}


def test_every_one_has_a_sample() -> None:
    """The tests below, and those of the chart, try all of them."""
    assert set(SAMPLES) == set(CONFIG)


@pytest.mark.parametrize("name", CONFIG)
def test_the_config_has_a_place_for_each(name: str) -> None:
    """H1: what is set is in the config."""
    section, field = name.split(".")
    without = {key: value for key, value in SAMPLES[name][section].items() if key != field}
    if section == "jwt":
        without = {**_TOKENS, **without} if field != "jwks_file" else _TOKENS

    assert render(settings(SAMPLES[name])) != render(settings({section: without}))


@pytest.mark.parametrize("name", CONFIG)
def test_without_ext_proc_each_has_a_place_or_is_refused(name: str) -> None:
    """H1: an operator who sets a budget for an Envoy that cannot keep it is told so."""
    http = {"http": {"listen": "unix:/run/h.sock"}}
    if name in PLAIN:
        assert render_plain(settings(SAMPLES[name], **http)) != render_plain(settings({}, **http))
    else:
        with pytest.raises((SettingsError, ValidationError), match="ext_proc"):
            render_plain(settings(SAMPLES[name], **http))
