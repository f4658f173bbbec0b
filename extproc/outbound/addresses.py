"""IP addresses by what is behind them. Pure.

Written out, because `ipaddress.is_global` changes from one release of Python to the next, and knows neither
the metadata services on public addresses nor what an address embeds.
"""

from __future__ import annotations

from enum import Enum
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Kind(Enum):
    """Why an address is not public."""

    LOOPBACK = "loopback"
    PRIVATE = "private"
    METADATA = "a metadata service"
    LINK_LOCAL = "link-local"
    MULTICAST = "multicast"
    RESERVED = "reserved"


# The first network that holds an address tells its kind.
_TABLE: tuple[tuple[Network, Kind], ...] = tuple(
    (ip_network(network), kind)
    for kind, networks in {
        Kind.METADATA: (
            "169.254.169.254/32", "169.254.170.2/32", "169.254.170.23/32", "168.63.129.16/32",
            "100.100.100.200/32", "192.0.0.192/32", "fd00:ec2::/32", "fd20:ce::254/128",
        ),
        Kind.LOOPBACK: ("127.0.0.0/8", "::1/128"),
        Kind.PRIVATE: (
            "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7",
        ),
        Kind.LINK_LOCAL: ("169.254.0.0/16", "fe80::/10"),
        Kind.MULTICAST: ("224.0.0.0/4", "ff00::/8"),
        Kind.RESERVED: (
            "0.0.0.0/8", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15",
            "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
            # Teredo and other protocol assignments, documentation, 6to4: tunnels into IPv4.
            "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
        ),
    }.items()
    for network in networks
)  # fmt: skip
_PUBLIC_V6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")


def parse(text: str) -> Address | None:
    """Return the address that the text is in its usual form, None if it is none.

    An IPv6 address that only wraps an IPv4 one (mapped, NAT64) is returned as that: it goes there.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def kind_of(address: Address) -> Kind | None:
    """Return why the address is not public, None if it is; `address` as `parse` returns it."""
    for network, kind in _TABLE:
        if address.version == network.version and address in network:
            return kind
    if isinstance(address, IPv6Address) and address not in _PUBLIC_V6:
        return Kind.RESERVED
    return None
