"""The settings that nobody but Envoy reads: where its config is not made from them, they do nothing.

The one list for whoever makes less than the whole config, so that such a setting is refused and not ignored
(rule H1): `holdfast config --plain`, and the chart for an Envoy that is not ours. A test compares it with
what the code reads.
"""

from __future__ import annotations

from extproc.settings import Settings

PROCESS = ("envoy.binary", "envoy.concurrency", "envoy.log_level")
"""Of the Envoy process that `holdfast up` starts."""

CONFIG = (
    "listen.host",
    "listen.port",
    "envoy.inline",
    "envoy.stream_idle_seconds",
    "envoy.access_log",
    "envoy.rate_limit_url",
    "envoy.rate_limit_domain",
    "envoy.rate_limit_request_tokens",
    "routing.load_percent",
    "routing.health_path",
    "routing.picker_url",
    "routing.picker_ca_file",
    "routing.retries",
    "jwt.issuer",
    "jwt.audiences",
    "jwt.jwks_file",
    "jwt.jwks_uri",
    "jwt.ca_file",
)
"""Of the config that is made from the settings."""

_NEED_EXT_PROC = (
    "envoy.inline",
    "envoy.access_log",
    "envoy.rate_limit_url",
    "routing.picker_url",
)


def problems_without_ext_proc(settings: Settings) -> list[str]:
    """Return what is set and has no place in a config without ext_proc, each with its variable."""
    variables = {".".join(place): variable for variable, place in Settings.paths().items()}
    return [
        f"{variables[name]} ({name}) needs Envoy 1.37 and its ext_proc"
        for name in _NEED_EXT_PROC
        if _is_set(settings, name)
    ]


def _is_set(settings: Settings, name: str) -> bool:
    section, field = name.split(".")
    value = getattr(getattr(settings, section), field)
    return bool(value != Settings.SECTIONS[section].model_fields[field].default)
