"""`extproc.outbound.policy`: what is refused before a name is resolved (X3)."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from engine.errors import TargetRefused
from extproc.outbound.policy import OutboundPolicy, check_addresses, check_url

DEFAULT = OutboundPolicy()


@pytest.mark.parametrize(
    "url",
    [
        "https://mcp.example.com/mcp?x=1",
        "https://EXAMPLE.com:443",
        "https://example.com.:8443/",
        "https://1.1.1.1/",
        "https://[2606:4700::1111]/",
        "https://xn--bcher-kva.de/",
        "https://bücher.de/",
        "https://a_b.example.com/",
        "https://1password.com/",
    ],
)
def test_https_to_a_public_name_or_address_is_allowed(url: str) -> None:
    """X3: the default."""
    check_url(DEFAULT, url)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "//example.com/",
        "example.com",
        "",
        "https://",
        "https://user:pass@example.com/",
        "https://example.com\\@127.0.0.1/",
        "https://example.com:22/",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com:x/",
        "https://127.0.0.1/",
        "https://127.0.0.1./",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
        "https://017700000001/",
        "https://127.1/",
        "https://0/",
        "https://[::1]/",
        "https://[::]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:7f00:1]/",
        "https://[0:0:0:0:0:ffff:7f00:1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/",
        "https://[fe80::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://169.254.169.254/latest/meta-data/",
        "https://10.1.2.3/",
        "https://①②⑦.⓪.⓪.①/",
        "https://127。0。0。1/",
        "https://127.0.0.1%00.example.com/",
        "https://h%2eexample.com/",
        "https://a..b/",
        "https://-a.example.com/",
        "https://a b.example.com/",
        "https://example.com/\r\nHost: x",
        "https://" + "a" * 64 + ".com/",
        "https://" + "a." * 127 + "com/",
    ],
)
def test_anything_else_is_refused(url: str) -> None:
    """X3: with the path of the field that named it."""
    with pytest.raises(TargetRefused) as refused:
        check_url(DEFAULT, url, "tools[0].server_url")

    assert refused.value.param == "tools[0].server_url"
    assert refused.value.status == 400


def test_http_and_low_ports_are_allowed_where_the_policy_says_so() -> None:
    """X3: inside a cluster."""
    policy = OutboundPolicy(allow_http=True, ports=frozenset((81,)))
    check_url(policy, "http://example.com:81/")


def test_a_list_of_hosts_excludes_all_others() -> None:
    """X3: exact, or everything below a domain."""
    policy = OutboundPolicy(only_hosts=("mcp.example.com", "*.tools.example.com"))

    for host in ("mcp.example.com", "MCP.example.com.", "a.b.tools.example.com"):
        check_url(policy, f"https://{host}/")
    for host in ("example.com", "tools.example.com", "eviltools.example.com", "1.1.1.1"):
        with pytest.raises(TargetRefused):
            check_url(policy, f"https://{host}/")


def test_a_trusted_host_may_be_private_but_no_metadata_service() -> None:
    """X3: what a trusted name resolves to is still checked."""
    policy = OutboundPolicy(private_hosts=("*.svc",))

    assert check_addresses(policy, "crm.svc", ["10.0.0.1", "127.0.0.1"])
    for bad in ("169.254.169.254", "168.63.129.16", "fe80::1", "0.0.0.0", "224.0.0.1"):
        with pytest.raises(TargetRefused):
            check_addresses(policy, "crm.svc", [bad])
    with pytest.raises(TargetRefused):
        check_addresses(policy, "crm.example.com", ["10.0.0.1"])


def test_a_network_on_the_list_may_be_reached() -> None:
    """X3: also in its wrapped form."""
    policy = OutboundPolicy(networks=(ip_network("10.1.0.0/16"),))

    assert check_addresses(policy, "h", ["10.1.2.3", "::ffff:10.1.2.3", "1.1.1.1"])
    with pytest.raises(TargetRefused):
        check_addresses(policy, "h", ["10.2.0.1"])


def test_one_bad_address_spoils_a_host() -> None:
    """X3: every address is checked."""
    with pytest.raises(TargetRefused) as refused:
        check_addresses(DEFAULT, "h", ["1.1.1.1", "127.0.0.1"])

    assert "127.0.0.1" not in refused.value.message, "tells strangers about the inside"
