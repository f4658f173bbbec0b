"""`extproc.outbound.addresses`: what is behind an address (X3)."""

from __future__ import annotations

import pytest

from extproc.outbound.addresses import Kind, kind_of, parse


@pytest.mark.parametrize(
    "text",
    ["1.1.1.1", "93.184.215.14", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1"],
)
def test_public_addresses_are_of_no_kind(text: str) -> None:
    """X3: they are what a request may name."""
    address = parse(text)
    assert address is not None
    assert kind_of(address) is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("127.0.0.1", Kind.LOOPBACK),
        ("127.255.255.254", Kind.LOOPBACK),
        ("::1", Kind.LOOPBACK),
        ("10.0.0.1", Kind.PRIVATE),
        ("172.31.255.255", Kind.PRIVATE),
        ("192.168.1.1", Kind.PRIVATE),
        ("100.64.0.1", Kind.PRIVATE),
        ("fd12::1", Kind.PRIVATE),
        ("169.254.169.254", Kind.METADATA),
        ("169.254.170.2", Kind.METADATA),
        ("168.63.129.16", Kind.METADATA),
        ("100.100.100.200", Kind.METADATA),
        ("fd00:ec2::254", Kind.METADATA),
        ("169.254.1.1", Kind.LINK_LOCAL),
        ("fe80::1", Kind.LINK_LOCAL),
        ("224.0.0.1", Kind.MULTICAST),
        ("ff02::1", Kind.MULTICAST),
        ("0.0.0.0", Kind.RESERVED),
        ("255.255.255.255", Kind.RESERVED),
        ("192.0.2.1", Kind.RESERVED),
        ("198.18.0.1", Kind.RESERVED),
        ("::", Kind.RESERVED),
        ("2001:db8::1", Kind.RESERVED),
        ("::127.0.0.1", Kind.RESERVED),
        ("64:ff9b:1::7f00:1", Kind.RESERVED),
        # What embeds an IPv4 address is what it embeds, or a tunnel.
        ("::ffff:127.0.0.1", Kind.LOOPBACK),
        ("::ffff:a9fe:a9fe", Kind.METADATA),
        ("64:ff9b::10.0.0.1", Kind.PRIVATE),
        ("2002:7f00:1::", Kind.RESERVED),
        ("2001:0:1::1", Kind.RESERVED),
    ],
)
def test_an_address_that_is_not_public_has_a_kind(text: str, kind: Kind) -> None:
    """X3: private, loopback, link-local, metadata, multicast, reserved, and in disguise."""
    address = parse(text)
    assert address is not None
    assert kind_of(address) is kind


def test_a_public_address_in_disguise_is_public() -> None:
    """In a network with NAT64 every IPv4 host looks so."""
    address = parse("64:ff9b::1.1.1.1")
    assert str(address) == "1.1.1.1"


@pytest.mark.parametrize("text", ["", "x", "127.1", "0177.0.0.1", "2130706433", "1.2.3.4.5"])
def test_only_the_usual_form_is_an_address(text: str) -> None:
    """X3: other spellings are no addresses, and refused as host names."""
    assert parse(text) is None
