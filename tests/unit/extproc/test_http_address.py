"""`extproc.http_address`: where the HTTP listener listens."""

from __future__ import annotations

from pathlib import Path

import pytest

from extproc.http_address import HttpAddress, TcpAddress, UnixAddress, of_worker, parse_http_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", TcpAddress("127.0.0.1", 8080)),
        ("0.0.0.0:0", TcpAddress("0.0.0.0", 0)),
        (":8080", TcpAddress("127.0.0.1", 8080)),
        ("8080", TcpAddress("127.0.0.1", 8080)),
        ("localhost:80", TcpAddress("localhost", 80)),
        ("[::1]:8080", TcpAddress("::1", 8080)),
        ("unix:/run/holdfast/http.sock", UnixAddress(Path("/run/holdfast/http.sock"))),
        ("unix:http.sock", UnixAddress(Path("http.sock"))),
    ],
)
def test_an_address_is_a_port_or_a_socket(text: str, address: HttpAddress) -> None:
    """X6: without a host it is for this machine alone."""
    assert parse_http_address(text) == address


@pytest.mark.parametrize("text", ["", "host", "host:", "host:x", ":65536", "::1:80", "unix:"])
def test_what_is_no_address_is_refused(text: str) -> None:
    """H1: with a reason."""
    with pytest.raises(ValueError, match="must"):
        parse_http_address(text)


def test_workers_share_a_port_and_have_sockets_of_their_own() -> None:
    """Two workers on one socket would take each other's connections."""
    port, path = TcpAddress("127.0.0.1", 80), UnixAddress(Path("/run/http.sock"))
    assert [str(of_worker(port, index)) for index in (0, 1)] == ["127.0.0.1:80"] * 2
    assert [str(of_worker(path, index)) for index in (0, 1, 2)] == [
        "unix:/run/http.sock",
        "unix:/run/http.sock-1",
        "unix:/run/http.sock-2",
    ]
    assert str(TcpAddress("::1", 80)) == "[::1]:80"
