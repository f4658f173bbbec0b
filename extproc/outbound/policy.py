"""Which targets may be reached (rule X3). Pure; names are resolved by `extproc.outbound.connect`."""

from __future__ import annotations

import re

import httpx2
import msgspec

from engine.errors import TargetRefused
from extproc.outbound.addresses import Address, Kind, Network, kind_of, parse

_HOST_NAME = re.compile(
    r"(?=.{1,253}\.?$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\.?"
)
# What the C library would read as a number: 2130706433, 0x7f.1, 127.1, 0177.0.0.1 and the like.
_NUMERIC_END = re.compile(r"(.*\.)?(0x[0-9a-f]*|[0-9]+)\.?")
_FIRST_FREE_PORT = 1024
_DEFAULT_PORTS = {"http": 80, "https": 443}
_TRUSTED_KINDS = frozenset((Kind.PRIVATE, Kind.LOOPBACK))


class OutboundPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What a request may name. The default: https to public addresses.

    Host names are exact, or `*.example.com` for everything below `example.com`.
    """

    allow_http: bool = False
    only_hosts: tuple[str, ...] = ()
    """If not empty, no other host may be named."""
    private_hosts: tuple[str, ...] = ()
    """Hosts that may resolve to private and loopback addresses."""
    networks: tuple[Network, ...] = ()
    """Networks that may be reached although they are not public."""
    ports: frozenset[int] = frozenset()
    """Ports below 1024 that may be reached beside 80 and 443."""


def check_url(policy: OutboundPolicy, url: str, param: str | None = None) -> None:
    """Refuse a URL by what can be seen without resolving its host; raises TargetRefused with `param`."""
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        # Its text may hold a secret, so neither it nor the parser's words are repeated.
        raise TargetRefused("The URL cannot be read.", param=param) from None
    check_target(policy, parsed, param)


def check_target(policy: OutboundPolicy, url: httpx2.URL, param: str | None = None) -> None:
    """Refuse a parsed URL by scheme, credentials, port and host; raises TargetRefused."""
    schemes = ("https", "http") if policy.allow_http else ("https",)
    if url.scheme not in schemes:
        raise TargetRefused(f"The URL must be one of {' or '.join(schemes)}.", param=param)
    if url.userinfo:
        raise TargetRefused(
            "The URL must not hold credentials; use 'authorization' or 'headers'.", param=param
        )
    # In ASCII, as it is resolved; the strict form of IDNA, without look-alikes of digits and dots.
    host = url.raw_host.decode("ascii")
    _check_port(policy, _DEFAULT_PORTS[url.scheme] if url.port is None else url.port, param)
    _check_host(policy, host, param)


def check_addresses(
    policy: OutboundPolicy, host: str, found: list[str], param: str | None = None
) -> list[str]:
    """Return the addresses that `host` stands for, all of them checked; raises TargetRefused.

    One bad address spoils the host: a name that has a public and a private address is made to be
    tried until the private one is met.
    """
    for text in found:
        address = parse(text)
        kind = None if address is None else kind_of(address)
        if address is None or (kind is not None and not _excepted(policy, host, address, kind)):
            # Which address it was would tell strangers about the inside.
            raise TargetRefused(
                f"The host '{host}' is not public, so it is not reached from here.", param=param
            )
    return found


def _check_port(policy: OutboundPolicy, port: int, param: str | None) -> None:
    known = port in _DEFAULT_PORTS.values() or port in policy.ports
    if not known and not _FIRST_FREE_PORT <= port <= 65535:
        raise TargetRefused(f"Port {port} is not allowed.", param=param)


def _check_host(policy: OutboundPolicy, host: str, param: str | None) -> None:
    address = parse(host)
    if address is None and (not _HOST_NAME.fullmatch(host) or _NUMERIC_END.fullmatch(host)):
        raise TargetRefused(
            "The host must be a name, or an address in its usual form.", param=param
        )
    if policy.only_hosts and not _listed(host, policy.only_hosts):
        raise TargetRefused(f"The host '{host}' is not among those that are allowed.", param=param)
    if address is not None:
        check_addresses(policy, host, [host], param)


def _excepted(policy: OutboundPolicy, host: str, address: Address, kind: Kind) -> bool:
    if any(address.version == net.version and address in net for net in policy.networks):
        return True
    return kind in _TRUSTED_KINDS and _listed(host, policy.private_hosts)


def _listed(host: str, patterns: tuple[str, ...]) -> bool:
    name = host.lower().rstrip(".")
    return any(
        name.endswith(pattern[1:].lower()) if pattern.startswith("*.") else name == pattern.lower()
        for pattern in patterns
    )
