"""MCP servers that lead elsewhere: nothing that the SDK does on their word goes around the guard (X3)."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from engine.errors import TargetRefused, ToolsUnavailable
from extproc.mcp.target import McpLimits
from extproc.outbound.policy import OutboundPolicy
from tests.support.mcp_rig import DEADLINE, call, mcp_rig
from tests.support.mcp_server import scripted_server
from tests.support.trap import trap

NOT_ALLOWED = b"HTTP/1.1 405 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
ONLY_ONE = OutboundPolicy(allow_http=True, networks=(ip_network("127.0.0.1/32"),))


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "169.254.169.254", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"],
)
async def test_a_url_that_can_be_seen_to_lead_inside_is_refused_with_the_request(host: str) -> None:
    """X3: 400 with the path of the field."""
    async with mcp_rig(policy=OutboundPolicy()) as rig:
        with pytest.raises(TargetRefused) as refused:
            rig.provider(f"https://{host}/mcp")

    assert (refused.value.status, refused.value.param) == (400, "tools[0].server_url")


async def test_a_name_that_leads_inside_is_an_error_of_the_list_and_of_the_call() -> None:
    """X3: the socket that listens there sees nothing."""
    async with trap() as waiting, mcp_rig(policy=OutboundPolicy(allow_http=True)) as rig:
        provider = rig.provider(f"http://localhost:{waiting.port}/mcp")
        with pytest.raises(ToolsUnavailable, match="'localhost' is not public"):
            await provider.definitions(timeout=DEADLINE)
        outcome = await call(provider, "echo")

        assert outcome.failed
        assert "'localhost' is not public" in outcome.text
        await waiting.assert_works_and_saw_nothing()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_server_that_redirects_is_an_error(status: int) -> None:
    """X3: to anywhere."""
    async with trap() as waiting:
        moved = b"HTTP/1.1 %d X\r\nlocation: http://127.0.0.1:%d/mcp\r\ncontent-length: 0\r\n\r\n"
        async with scripted_server(moved % (status, waiting.port)) as (url, _), mcp_rig() as rig:
            with pytest.raises(ToolsUnavailable, match="redirect"):
                await rig.provider(url).definitions(timeout=DEADLINE)
        await waiting.assert_works_and_saw_nothing()


async def test_a_redirect_to_itself_is_not_followed_either() -> None:
    """X3: the SDK would."""
    moved = b"HTTP/1.1 308 X\r\nlocation: /mcp/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    async with scripted_server(moved) as (url, sent), mcp_rig() as rig:
        with pytest.raises(ToolsUnavailable, match="redirect"):
            await rig.provider(url).definitions(timeout=DEADLINE)
    assert all(request.startswith(b"POST /mcp HTTP/1.1\r\n") for request in sent)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
async def test_an_event_that_names_an_endpoint_elsewhere_is_not_believed(host: str) -> None:
    """X3: the older transport lets the server choose where messages go."""
    async with trap(host) as waiting:
        event = b"event: endpoint\ndata: http://%b:%d/messages\n\n" % (host.encode(), waiting.port)
        answers = (NOT_ALLOWED, NOT_ALLOWED, EVENTS + event)
        async with (
            scripted_server(*answers) as (url, sent),
            mcp_rig(McpLimits(connect=1), policy=ONLY_ONE) as rig,
        ):
            with pytest.raises(ToolsUnavailable):
                await rig.provider(url).definitions(timeout=DEADLINE)
            assert sent[2].startswith(b"GET ")
        assert waiting.reached == 0


async def test_metadata_of_an_authorization_server_is_not_fetched() -> None:
    """X3: OAuth discovery starts with a URL that the server names."""
    async with trap() as waiting:
        header = b'Bearer resource_metadata="http://127.0.0.1:%d/.well-known/x"' % waiting.port
        denied = b"HTTP/1.1 401 No\r\nwww-authenticate: %b\r\ncontent-length: 0\r\n\r\n" % header
        async with scripted_server(denied) as (url, _), mcp_rig() as rig:
            with pytest.raises(ToolsUnavailable, match="refused the credentials"):
                await rig.provider(url).definitions(timeout=DEADLINE)
        await waiting.assert_works_and_saw_nothing()
