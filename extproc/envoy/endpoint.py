"""The URLs of model servers, taken apart into what Envoy needs to know.

The rule: a path on the URL goes in front of the API's `/v1/…`; a final `/v1` is the API's own. So
`https://host/base` and `https://host/base/v1` are one place.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit


@dataclass(frozen=True, slots=True)
class ModelEndpoint:
    """Where the model server is: a unix socket, or a host and a port, perhaps with TLS and a path.

    `base` is the path in front of `/v1`, without a final slash. `authority` is the Host header.
    """

    authority: str
    host: str = ""
    port: int = 0
    tls: bool = False
    base: str = ""
    socket: Path | None = None

    @property
    def url(self) -> str:
        """The URL in front of `/v1`, as an HTTP client wants it; a socket is told to it otherwise."""
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.base}"

    @property
    def named(self) -> bool:
        """Whether there is a name to resolve, perhaps to several servers."""
        return self.socket is None and not self.literal

    @property
    def literal(self) -> bool:
        """Whether the host is an IP address, for which there is nothing to resolve."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True


def parse_model_urls(urls: str) -> tuple[ModelEndpoint, ...]:
    """Return the endpoints of a list with commas; raises `ValueError` as for one.

    They serve the same models, so that any may take any turn: Envoy keeps them as one cluster.
    """
    servers = tuple(parse_model_url(url.strip()) for url in urls.split(","))
    if len({(server.tls, server.base) for server in servers}) > 1:
        raise ValueError("several servers must have one scheme and one path")
    if len({server.named for server in servers}) > 1:
        raise ValueError("several servers must all be named, or all be addresses or sockets")
    if servers[0].tls and len({server.host for server in servers}) > 1:
        raise ValueError(
            "several https servers must have one host name; one name may have several addresses"
        )
    return servers


def parse_model_url(url: str) -> ModelEndpoint:
    """Return the endpoint; raises `ValueError` with a reason that does not repeat the URL.

    The URL may hold what should not be shown, such as a password put there by mistake.
    """
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return _unix(parts)
    if parts.scheme not in ("http", "https"):
        raise ValueError("must begin with http://, https:// or unix:")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user or password; a key goes into model.api_key")
    if parts.query or parts.fragment:
        raise ValueError("must end with its path: no '?' and no '#'")
    if not parts.hostname:
        raise ValueError("names no host")
    return _network(parts, parts.hostname)


def _unix(parts: SplitResult) -> ModelEndpoint:
    path = parts.path
    if not path or parts.netloc:
        raise ValueError("must be unix:PATH or unix:///PATH")
    if len(path.encode()) >= 100:
        raise ValueError("the path of a unix socket must stay below 100 bytes")
    return ModelEndpoint(authority="localhost", socket=Path(path))


def _network(parts: SplitResult, host: str) -> ModelEndpoint:
    tls = parts.scheme == "https"
    try:
        port = parts.port
    except ValueError:
        raise ValueError("has no valid port") from None
    if port == 0:
        raise ValueError("has no valid port")
    shown = f"[{host}]" if ":" in host else host
    return ModelEndpoint(
        authority=shown if port is None else f"{shown}:{port}",
        host=host,
        port=port or (443 if tls else 80),
        tls=tls,
        base=parts.path.rstrip("/").removesuffix("/v1").rstrip("/"),
    )
