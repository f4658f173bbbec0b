"""Connections to real MCP servers: kept, shared, bounded, closed (T5, X4, X5)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest

from engine.errors import ToolsUnavailable
from extproc.mcp.target import McpLimits, McpTarget
from extproc.outbound.names import LOOKUPS_OF_ONE
from tests.support.mcp_rig import DEADLINE, McpRig, call, mcp_rig
from tests.support.mcp_server import McpServer, Transport


async def echo(rig: McpRig, server: McpServer, **fields: object) -> None:
    async with asyncio.timeout(DEADLINE):
        tenant = str(fields.pop("tenant", "t"))
        provider = rig.provider(server.url, tenant=tenant, **fields)
        outcome = await call(provider, "echo", b'{"text":"hi"}')
        assert outcome.text == "hi", outcome


async def test_a_connection_is_kept_and_shared() -> None:
    """The handshake is paid for once."""
    async with McpServer(old=True) as server, mcp_rig() as rig:
        await asyncio.gather(*(echo(rig, server) for _ in range(5)))
        await echo(rig, server)
        assert len(server.logins) == 1


async def test_tenants_and_credentials_do_not_share() -> None:
    """X1, X4: nobody uses what somebody else has logged in to."""
    async with McpServer(old=True) as server, mcp_rig() as rig:
        await echo(rig, server)
        await echo(rig, server, tenant="other")
        await echo(rig, server, authorization="a")
        await echo(rig, server, headers={"x-key": "k"})
        assert len(server.logins) == 4


async def test_credentials_reach_the_server_with_every_request() -> None:
    """X4: and the protocol's own headers are ours."""
    async with McpServer() as server, mcp_rig() as rig:
        await echo(rig, server, authorization="token", headers={"X-Key": "k"})

    for headers in server.headers:
        assert (headers["authorization"], headers["x-key"]) == ("Bearer token", "k")
        assert headers["user-agent"] == "holdfast"


async def test_an_idle_connection_is_closed_with_a_goodbye() -> None:
    """X5: nothing is kept for ever."""
    async with McpServer(old=True) as server, mcp_rig(McpLimits(idle=0.01)) as rig:
        await echo(rig, server)
        await server.saw("DELETE")
        await echo(rig, server)
        assert len(server.logins) == 2


async def test_the_longest_unused_connection_makes_room() -> None:
    """X5: their number is bounded."""
    async with (
        McpServer(old=True) as one,
        McpServer(old=True) as two,
        McpServer(old=True) as three,
        mcp_rig(McpLimits(connections=2)) as rig,
    ):
        await echo(rig, one)
        await echo(rig, two)
        await echo(rig, one)
        await echo(rig, three)
        await two.saw("DELETE")
        await echo(rig, one)
        assert len(one.logins) == 1


async def test_without_room_a_call_fails_and_the_busy_ones_go_on() -> None:
    """X5: with a reason."""
    async with (
        McpServer() as one,
        McpServer() as two,
        mcp_rig(McpLimits(connections=1)) as rig,
    ):
        running = asyncio.create_task(call(rig.provider(one.url), "slow"))
        await one.started.wait()
        outcome = await call(rig.provider(two.url), "echo", b'{"text":"hi"}')
        one.release.set()

        assert "Too many MCP servers" in outcome.text
        assert (await running).text == "done"
        await echo(rig, two)


async def test_a_tenant_leaves_a_quarter_of_the_connections_to_others() -> None:
    """X5: however many servers it keeps busy; its own next one has no room, another tenant's has."""
    async with contextlib.AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(McpServer()) for _ in range(4)]
        rig = await stack.enter_async_context(mcp_rig(McpLimits(connections=4)))
        busy = [asyncio.create_task(call(rig.provider(one.url), "slow")) for one in servers[:3]]
        async with asyncio.timeout(DEADLINE):
            for one in servers[:3]:
                await one.started.wait()
        refused = await call(rig.provider(servers[3].url), "echo", b'{"text":"hi"}')
        await echo(rig, servers[3], tenant="other")
        for one in servers[:3]:
            one.release.set()

        assert "Too many MCP servers" in refused.text
        assert [(await each).text for each in busy] == ["done"] * 3
        await echo(rig, servers[3])


async def test_a_tenant_makes_room_among_its_own_connections() -> None:
    """X5: what it opens does not close another tenant's."""
    async with contextlib.AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(McpServer(old=True)) for _ in range(4)]
        rig = await stack.enter_async_context(mcp_rig(McpLimits(connections=4)))
        await echo(rig, servers[0], tenant="other")
        for one in servers:
            await echo(rig, one)
        await servers[0].saw("DELETE")
        await echo(rig, servers[0], tenant="other")
        assert len(servers[0].logins) == 2  # one of each tenant


async def test_a_connection_with_many_abandoned_calls_is_replaced() -> None:
    """X5: a server may keep each of them open."""
    async with McpServer(old=True) as server, mcp_rig(McpLimits(abandoned=2)) as rig:
        await echo(rig, server)
        for _ in range(2):
            assert (await call(rig.provider(server.url), "slow", timeout=0.1)).failed
        await server.saw("DELETE")
        await echo(rig, server)
        assert len(server.logins) == 2


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_closing_ends_calls_under_way_and_leaves_nothing(transport: Transport) -> None:
    """E4: a worker that stops."""
    async with McpServer(transport) as server, mcp_rig() as rig:
        provider = rig.provider(server.url)
        running = asyncio.create_task(call(provider, "slow"))
        await server.started.wait()
        await rig.connections.aclose()
        assert (await running).failed
        late = await call(provider, "echo", b'{"text":"hi"}')
        assert "being stopped" in late.text
    assert not [task for task in asyncio.all_tasks() if "McpConnection" in repr(task)]


async def test_secrets_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """X4: whatever the level, whatever goes wrong; the SDK and the HTTP client log URLs and messages."""
    caplog.set_level(logging.DEBUG)
    transports: tuple[Transport, ...] = ("http", "json", "sse")
    async with mcp_rig() as rig:
        for transport in transports:
            async with McpServer(transport, old=True) as server:
                provider = rig.provider(
                    f"{server.url}?key=secret-query",
                    authorization="secret-token",
                    headers={"x-key": "secret-key"},
                )
                await provider.definitions(timeout=DEADLINE)
                await call(provider, "echo", b'{"text":"secret-text"}')
                await call(provider, "huge", b'{"size":9000000}')
                await call(provider, "die")
            with pytest.raises(ToolsUnavailable):
                await rig.provider(server.url + "?key=secret-other").definitions(timeout=DEADLINE)

    # The servers of this test run in the same process, and log what they like.
    theirs = ("uvicorn", "sse_starlette", "mcp.server", "root")
    ours = [line for line in caplog.records if not line.name.startswith(theirs)]
    assert not [line.name for line in ours if "secret" in line.getMessage()]
    assert "secret" not in repr(McpTarget("https://h/secret", (("a", "secret"),)))


def test_the_sdk_is_imported_when_the_first_server_is_named() -> None:
    """Half a second and 40 MB that most workers never need."""
    script = (
        "import sys, extproc.mcp.provider, extproc.outbound.transport; "
        "sys.exit('mcp' in sys.modules or 'mcp_types' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0


async def test_names_that_resolve_slowly_stop_the_calls_of_their_tenant_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """X5: a request may declare hundreds of servers, all of whose names take half a minute."""
    loop, full = asyncio.get_running_loop(), asyncio.Event()
    end, asked, system = threading.Event(), list[str](), socket.getaddrinfo

    def looked_up(host: Any, port: Any, *given: Any, **named: Any) -> Any:
        if host == "localhost":
            return system("127.0.0.1", port, *given, **named)
        if not str(host).endswith(".slow.test"):
            return system(host, port, *given, **named)
        asked.append(host)
        if len(asked) == LOOKUPS_OF_ONE:
            loop.call_soon_threadsafe(full.set)
        end.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "too late")

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    async with asyncio.timeout(DEADLINE), McpServer() as server, mcp_rig() as rig:
        slow = [
            asyncio.create_task(
                rig.provider(f"http://n{number}.slow.test/mcp").definitions(timeout=DEADLINE)
            )
            for number in range(LOOKUPS_OF_ONE + 4)
        ]
        await full.wait()
        url = server.url.replace("127.0.0.1", "localhost")
        outcome = await call(rig.provider(url, tenant="other"), "echo", b'{"text":"hi"}')
        end.set()
        results = await asyncio.gather(*slow, return_exceptions=True)

    assert outcome.text == "hi"
    assert {type(result) for result in results} == {ToolsUnavailable}
