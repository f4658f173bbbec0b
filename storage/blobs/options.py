"""How long a client of an object store waits, and what else its environment says of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

# The prefix of what a store's own tools read, and those of its names that are about connections. obstore
# reads them too, but not where it is given any of them in another way.
_PREFIXES = {"gs": "GOOGLE_", "az": "AZURE_", "azure": "AZURE_", "abfs": "AZURE_"}
_ELSE = "AWS_"
_OF_CONNECTIONS = (
    "allow_http",
    "allow_invalid_certificates",
    "connect_timeout",
    "http1_only",
    "http2_keep_alive_interval",
    "http2_keep_alive_timeout",
    "http2_keep_alive_while_idle",
    "http2_only",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_ca_certificate",
    "proxy_excludes",
    "proxy_url",
    "randomize_addresses",
    "read_timeout",
    "root_certificate",
    "timeout",
    "user_agent",
)
# What hangs is tried once more, over another connection: each attempt has half of the patience.
_ATTEMPTS = 2
# A whole download may take as long as its reader does.
_WHOLE = timedelta(days=1)


def client_options(url: str, environ: Mapping[str, str], patience: float) -> ClientConfig:
    """Return the options of a store's HTTP client; what the environment says comes first."""
    prefix = _PREFIXES.get(urlsplit(url).scheme, _ELSE)
    silence = timedelta(seconds=patience / _ATTEMPTS)
    options: dict[str, Any] = {
        "connect_timeout": min(silence, timedelta(seconds=5)),
        "read_timeout": silence,
        "timeout": _WHOLE,
    }
    for name in _OF_CONNECTIONS:
        given = environ.get(f"{prefix}{name.upper()}")
        if given is not None:
            options[name] = given
    return options  # type: ignore[return-value]  # the names are those of the type


def retries(patience: float) -> RetryConfig:
    """Return for how long a request is tried again: what hangs does not go on when nobody waits."""
    return {"retry_timeout": timedelta(seconds=patience)}
