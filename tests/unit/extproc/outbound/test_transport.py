"""`extproc.outbound.transport`, over real sockets: nothing that must not be reached is connected to (X3)."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

import httpx2
import pytest

from engine.errors import TargetRefused
from extproc.outbound.connect import Resolve
from extproc.outbound.policy import OutboundPolicy
from extproc.outbound.transport import AnswerRefused, GuardedTransport
from tests.support.mcp_server import scripted_server
from tests.support.self_signed import self_signed
from tests.support.trap import trap

# All that the defaults refuse is refused for the address alone.
ANY_SCHEME = OutboundPolicy(allow_http=True)
LOOPBACK = OutboundPolicy(allow_http=True, networks=(ip_network("127.0.0.0/8"),))
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"


@asynccontextmanager
async def client(
    policy: OutboundPolicy,
    *,
    answers: dict[str, list[list[str]]] | None = None,
    body_limit: int = 1000,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a client; `answers` are those of DNS, one list of addresses a question."""

    async def look_up(host: str, _: int) -> list[str]:
        assert answers is not None
        return answers[host].pop(0)

    given: dict[str, Resolve] = {} if answers is None else {"resolve": look_up}
    transport = GuardedTransport(policy, body_limit=body_limit, ssl_context=ssl_context, **given)
    async with asyncio.timeout(10), httpx2.AsyncClient(transport=transport) as made:
        yield made


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "[::1]",
        "169.254.169.254",
        "2130706433",
        "0x7f.1",
        "127.1",
        "017700000001",
        "0",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "localhost",
        "localhost.",
        "ip6-localhost",
        "127.0.0.1.",
    ],
)
async def test_private_targets_are_refused_before_a_connection_is_made(host: str) -> None:
    """X3: by literal, in disguise, and by name; the socket that listens there sees nothing."""
    async with trap() as waiting, client(ANY_SCHEME) as http:
        with pytest.raises((TargetRefused, httpx2.ConnectError)) as refused:
            await http.get(f"http://{host}:{waiting.port}/")

        # A name that this machine does not know cannot be connected to either.
        assert isinstance(refused.value, TargetRefused) or "resolved" in str(refused.value)
        await waiting.assert_works_and_saw_nothing()


async def test_a_name_is_resolved_once_for_each_connection_and_connected_to_what_was_checked() -> (
    None
):
    """X3: DNS that changes its answer between two questions gains nothing."""
    only_two = OutboundPolicy(allow_http=True, networks=(ip_network("127.0.0.2/32"),))
    answers = {"rebinding.test": [["127.0.0.2"], ["127.0.0.1"]]}
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        writer.close()

    async with trap() as waiting, client(only_two, answers=answers) as http:
        url = f"http://rebinding.test:{waiting.port}/"
        async with await asyncio.start_server(answer, "127.0.0.2", waiting.port):
            first = await http.get(url)
            with pytest.raises(TargetRefused):
                await http.get(url)

        assert first.text == "ok"
        assert b"\r\nhost: rebinding.test:" in seen[0].lower(), "the name stays in the request"
        assert answers == {"rebinding.test": []}, "one question for each connection"
        await waiting.assert_works_and_saw_nothing()


async def test_a_host_with_one_private_address_is_refused() -> None:
    """X3: also where a public one stands first."""
    async with trap() as waiting:
        answers = {"mixed.test": [["127.0.0.3", "127.0.0.1"]]}
        policy = OutboundPolicy(allow_http=True, networks=(ip_network("127.0.0.3/32"),))
        async with client(policy, answers=answers) as http:
            with pytest.raises(TargetRefused):
                await http.get(f"http://mixed.test:{waiting.port}/")
        await waiting.assert_works_and_saw_nothing()


async def test_the_next_address_is_tried_when_one_is_dead() -> None:
    """A host has several addresses so that one may be down."""
    async with scripted_server(OK) as (url, _):
        port = httpx2.URL(url).port
        answers = {"two.test": [["127.0.0.9", "127.0.0.1"]]}
        async with client(LOOPBACK, answers=answers) as http:
            assert (await http.get(f"http://two.test:{port}/")).text == "ok"


async def test_a_name_that_is_not_known_is_an_error_of_its_own() -> None:
    """X3."""

    async def nobody(_host: str, _port: int) -> list[str]:
        raise OSError("no such name")

    transport = GuardedTransport(ANY_SCHEME, body_limit=10, resolve=nobody)
    async with httpx2.AsyncClient(transport=transport) as http:
        with pytest.raises(httpx2.ConnectError, match="cannot be resolved"):
            await http.get("http://nowhere.test/")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("follow", [True, False])
async def test_a_redirect_is_not_followed(status: int, follow: bool) -> None:
    """X3: whatever the client is told."""
    async with trap() as waiting:
        location = f"http://127.0.0.1:{waiting.port}/".encode()
        moved = b"HTTP/1.1 %d Moved\r\nlocation: %b\r\ncontent-length: 0\r\n\r\n"
        server = scripted_server(moved % (status, location))
        async with server as (url, sent), client(LOOPBACK) as http:
            with pytest.raises(AnswerRefused, match="redirect"):
                await http.get(url, follow_redirects=follow)
        assert len(sent) == 1
        await waiting.assert_works_and_saw_nothing()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n" + b"x" * 1001,
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + b"x" * 1001,
    ],
)
async def test_a_body_has_a_bound(answer: bytes) -> None:
    """X5: told, or counted."""
    async with scripted_server(answer) as (url, _), client(LOOPBACK) as http:
        with pytest.raises(AnswerRefused, match="longer than 1000 bytes"):
            await http.get(url)


async def test_an_event_stream_has_no_bound() -> None:
    """X5: it does not end; its reader bounds the events."""
    head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n"
    async with scripted_server(head + b"x" * 5000) as (url, _), client(LOOPBACK) as http:
        assert len((await http.get(url)).content) == 5000


async def test_compression_is_neither_asked_for_nor_taken() -> None:
    """X5: a compressed body is small until it is read."""
    body = gzip.compress(b"x" * 10**6)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with scripted_server(head + body) as (url, sent), client(LOOPBACK) as http:
        with pytest.raises(AnswerRefused, match="compressed"):
            await http.get(url, headers={"accept-encoding": "gzip"})
        assert b"accept-encoding: identity" in sent[0].lower()


async def test_an_answer_that_breaks_off_is_refused() -> None:
    """R15: with an error that says so."""
    cut = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nx"
    async with scripted_server(cut) as (url, _), client(LOOPBACK) as http:
        with pytest.raises(AnswerRefused, match="broke off"):
            await http.get(url)


@pytest.mark.parametrize("policy", [OutboundPolicy(), OutboundPolicy(only_hosts=("a.test",))])
async def test_the_policy_holds_for_every_request(policy: OutboundPolicy) -> None:
    """X3: not only for the URL that the client named first."""
    async with client(policy, answers={}) as http:
        with pytest.raises(TargetRefused):
            await http.get("http://b.test/")


async def test_proxies_of_the_environment_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """X3: a proxy would resolve the name a second time."""
    async with trap() as waiting:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{waiting.port}")
        async with scripted_server(OK) as (url, _), client(LOOPBACK) as http:
            assert (await http.get(url)).text == "ok"
        await waiting.assert_works_and_saw_nothing()


async def test_tls_is_for_the_name_although_the_address_was_pinned(tmp_path: Path) -> None:
    """X3: the certificate is that of the name, and the server is told the name."""
    certificate, key = self_signed("mcp.test", tmp_path)
    asked: list[str | None] = []
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate, key)
    server_side.sni_callback = lambda _socket, name, _context: asked.append(name)
    trusting = ssl.create_default_context(cafile=str(certificate))

    server = await asyncio.start_server(_always(OK), "127.0.0.1", 0, ssl=server_side)
    port = server.sockets[0].getsockname()[1]
    answers = {"mcp.test": [["127.0.0.1"]], "other.test": [["127.0.0.1"]]}
    async with server, client(LOOPBACK, answers=answers, ssl_context=trusting) as http:
        assert (await http.get(f"https://mcp.test:{port}/")).text == "ok"
        with pytest.raises(httpx2.ConnectError, match="certificate"):
            await http.get(f"https://other.test:{port}/")

    assert asked == ["mcp.test", "other.test"]


def _always(
    answer: bytes,
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    return serve
