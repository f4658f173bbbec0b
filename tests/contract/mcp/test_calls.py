"""Calls of tools on real MCP servers, over each transport."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine.ports import ToolOutcome
from extproc.mcp.provider import McpProvider
from extproc.mcp.target import McpLimits
from tests.support.mcp_rig import DEADLINE, call, mcp_rig
from tests.support.mcp_server import PIXEL, McpServer, Transport, silent_server

KINDS: list[tuple[Transport, bool]] = [
    ("http", False),
    ("http", True),
    ("json", False),
    ("json", True),
    ("sse", False),
]


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]}-{'old' if kind[1] else 'new'}")
async def server(request: pytest.FixtureRequest) -> AsyncIterator[McpServer]:
    """A server of each transport, with the protocol of today and the one with logins."""
    transport, old = request.param
    async with asyncio.timeout(60), McpServer(transport, old=old) as running:
        yield running


@pytest.fixture
async def provider(server: McpServer) -> AsyncIterator[McpProvider]:
    """The server, as a run has it."""
    async with mcp_rig() as rig:
        yield rig.provider(server.url)


def error_of(outcome: ToolOutcome) -> Any:
    assert outcome.failed
    assert outcome.error is not None
    return json.loads(outcome.error)


async def test_a_call_answers_with_text(provider: McpProvider) -> None:
    """T2."""
    assert await call(provider, "echo", b'{"text":"h\\u00e9"}') == ToolOutcome(text="hé")


async def test_structure_and_images_reach_the_model(provider: McpProvider) -> None:
    """T2: structure as JSON where there is no text, images as data URLs."""
    assert json.loads((await call(provider, "add", b'{"a":1,"b":2}')).text) == {"sum": 3}
    assert (await call(provider, "data")).text == '{"rows":[1,2]}'
    seen = await call(provider, "picture")
    assert (seen.text, seen.images) == ("a pixel", (f"data:image/png;base64,{PIXEL}",))


async def test_a_tool_that_fails_is_an_output_for_the_model(provider: McpProvider) -> None:
    """T2: with the API's error object."""
    for name in ("fail", "no_such_tool"):
        outcome = await call(provider, name)
        said = [{"type": "text", "text": outcome.text}]
        assert error_of(outcome) == {"type": "mcp_tool_execution_error", "content": said}
        assert name in outcome.text


@pytest.mark.parametrize("arguments", [b"", b"[1]", b"{", b"nonsense", b"[" * 100_000])
async def test_arguments_that_are_no_object_are_an_output_error(
    provider: McpProvider, server: McpServer, arguments: bytes
) -> None:
    """T7: the server is not bothered."""
    error = error_of(await call(provider, "echo", arguments))

    assert (error["type"], error["code"]) == ("mcp_protocol_error", -32602)
    assert server.requests == []


async def test_a_long_answer_is_cut_or_refused_and_the_next_call_works(
    provider: McpProvider, server: McpServer
) -> None:
    """X5: five megabytes."""
    outcome = await call(provider, "huge", b'{"size":5000000}')

    assert len(outcome.text) < 300_000
    if outcome.failed:
        assert "longer than" in outcome.text
    else:
        assert "cut: the tool answered with 5000000 characters" in outcome.text
    assert server.calls == ["huge"]
    assert (await call(provider, "echo", b'{"text":"next"}')).text == "next"


async def test_an_answer_beyond_the_bound_is_refused(
    provider: McpProvider, server: McpServer
) -> None:
    """X5: nine megabytes are not taken into memory."""
    error = error_of(await call(provider, "huge", b'{"size":9000000}'))

    assert (error["type"], error["code"]) == ("http_error", 502)
    assert "longer than" in error["message"] or "exceeded" in error["message"]
    assert server.calls == ["huge"]


async def test_a_call_past_its_deadline_fails_and_leaves_the_connection_usable(
    provider: McpProvider, server: McpServer
) -> None:
    """T2: each call has a deadline."""
    await call(provider, "echo", b'{"text":"first"}')
    before = server.requests.count("POST")
    error = error_of(await call(provider, "slow", timeout=0.3))

    assert (error["type"], error["code"]) == ("http_error", 504)
    assert (await call(provider, "echo", b'{"text":"next"}')).text == "next"
    # The call, perhaps its cancellation, and the next call: no new handshake. The connection's event stream,
    # a GET, may have come at any time.
    assert server.requests.count("POST") - before <= 3


async def test_a_cancelled_call_is_taken_back_at_the_server(
    provider: McpProvider, server: McpServer
) -> None:
    """T2: and others' calls go on."""
    running = [asyncio.create_task(call(provider, "slow")) for _ in range(2)]
    await server.under_way(2)
    running[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await running[0]

    if not server.answers_json:
        await server.given_up.wait()
    assert not running[1].done()
    server.release.set()
    assert (await running[1]).text == "done"


async def test_calls_of_one_turn_run_at_once(provider: McpProvider, server: McpServer) -> None:
    """T2: over one connection."""
    running = [asyncio.create_task(call(provider, "slow")) for _ in range(10)]
    await server.under_way(10)
    server.release.set()

    assert [outcome.text for outcome in await asyncio.gather(*running)] == ["done"] * 10


async def test_a_server_that_dies_in_the_middle_costs_the_call_only_and_it_is_not_repeated(
    provider: McpProvider, server: McpServer
) -> None:
    """T2: the call may have had its effect; over a new connection and over a kept one."""
    for _ in range(2):
        error = error_of(await call(provider, "die"))
        assert (error["type"], error["code"]) == ("http_error", 502)
        await call(provider, "echo", b'{"text":"between"}')

    assert server.calls == ["die", "echo"] * 2
    assert (await call(provider, "echo", b'{"text":"next"}')).text == "next"


async def test_a_server_that_was_restarted_is_connected_to_again(
    provider: McpProvider, server: McpServer
) -> None:
    """T2: a kept connection that the server has forgotten is no reason to fail."""
    await provider.definitions(timeout=DEADLINE)
    await call(provider, "echo", b'{"text":"first"}')
    await server.__aexit__()
    async with server:
        assert (await call(provider, "echo", b'{"text":"next"}')).text == "next"
        assert await provider.definitions(timeout=DEADLINE)
        assert server.calls == ["echo", "echo"]


async def test_a_server_that_is_away_is_an_error_with_a_reason(
    provider: McpProvider, server: McpServer
) -> None:
    """T2: at the first call, and when it was there before."""
    await call(provider, "echo", b'{"text":"first"}')
    await server.__aexit__()
    try:
        error = error_of(await call(provider, "echo", b'{"text":"next"}'))
        assert error == {
            "type": "http_error",
            "code": 502,
            "message": "The MCP server could not be reached.",
        }
    finally:
        await server.__aenter__()


async def test_a_dead_server_costs_only_its_own_calls(
    provider: McpProvider, server: McpServer
) -> None:
    """T2: another server of the same run is not touched."""
    async with McpServer() as other, mcp_rig() as rig:
        second = rig.provider(other.url)
        waiting = asyncio.create_task(call(second, "slow"))
        await other.started.wait()
        assert (await call(provider, "die")).failed
        other.release.set()
        assert (await waiting).text == "done"


async def test_a_server_that_takes_and_never_answers_is_given_up() -> None:
    """T2: within the deadline of the call, and within that of the handshake."""
    async with silent_server() as (url, sent), mcp_rig(McpLimits(connect=0.3)) as rig:
        by_call = error_of(await call(rig.provider(url), "echo", timeout=0.1))
        by_handshake = error_of(await call(rig.provider(url), "echo"))

    assert [by_call["code"], by_handshake["code"]] == [504, 504]
    assert "handshake" in by_handshake["message"]
    assert all(b"echo" not in request for request in sent)
