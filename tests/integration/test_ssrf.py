"""Servers that a request names and nobody may reach: refused before a connection is made (rule X3).

Through the real Envoy and a real worker, whose resolver is the test's, and which tells each address that it
connects to. 127.0.0.2 stands for the outside: the one network that this stack allows beside what is public.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from storage.postgres.embedded import EmbeddedPostgres
from tests.support.fix_postgres import create_database
from tests.support.fix_stack import open_session
from tests.support.mcp_server import McpServer, scripted_server
from tests.support.mcp_turns import declared
from tests.support.replies import call, say, text
from tests.support.scripted_model import ScriptedModel
from tests.support.scripts import ByOutputs
from tests.support.stack import CLIENT_KEY, Stack, running_stack, short_directory
from tests.support.trap import Trap, trap
from tests.support.wire import Seen, Wire

RESOLVING = Path(__file__).parent.parent / "support" / "resolving"
OUTSIDE, INSIDE = "127.0.0.2", "127.0.0.1"
METADATA = "169.254.169.254"

LEADS_INSIDE = {
    "loopback.test": [INSIDE],
    "loopback6.test": ["::1"],
    "metadata.test": [METADATA],
    "mapped.test": ["::ffff:127.0.0.1"],
    "nat64.test": ["64:ff9b::7f00:1"],
    "private.test": ["10.0.0.1"],
    "link.test": ["fe80::1"],
    "any.test": ["0.0.0.0"],
    "both.test": [OUTSIDE, INSIDE],
}
"""Names, and all their addresses, the same each time."""

CHANGES = {
    # The second question is the one that a second look at the same connection would ask.
    "turns.test": [[OUTSIDE], [INSIDE]],
    "turns6.test": [[OUTSIDE], ["::ffff:127.0.0.1"]],
    "stays.test": [[OUTSIDE]],
}
"""Names, and their addresses at the first question and at all later ones."""


class Guarded:
    """A stack of one worker, and where that worker went."""

    def __init__(self, stack: Stack, wire: Wire, told: Path) -> None:
        self.stack = stack
        self.wire = wire
        self._told = told

    @property
    def told(self) -> list[str]:
        """What its resolver was asked and what it connected to, by name and address."""
        return self._told.read_text(encoding="utf-8").splitlines() if self._told.exists() else []

    @property
    def connected(self) -> list[str]:
        """What it connected to."""
        return [line.split()[1] for line in self.told if line.startswith("connected ")]

    async def tries(self, url: str, *calls: str, **fields: Any) -> Seen:
        """Ask with a server at that address; the model calls these tools of it, one a turn, and is done."""
        turns = {number: say(call(name, '{"text": "x"}')) for number, name in enumerate(calls)}
        model = self.stack.plays(ByOutputs({**turns, len(calls): say(text("done"))}))
        return await self.wire.create(model=model, tools=[declared(url, **fields)])


@pytest_asyncio.fixture(scope="module")
async def guarded(
    postgres_server: EmbeddedPostgres, stage: ScriptedModel
) -> AsyncIterator[Guarded]:
    """Production's rules, but for `http` and the address that stands for the outside."""
    names = {host: [addresses] for host, addresses in LEADS_INSIDE.items()} | CHANGES
    with short_directory() as directory, pytest.MonkeyPatch.context() as patched:
        told = directory / "told"
        patched.setenv("PYTHONPATH", str(RESOLVING), prepend=":")
        patched.setenv("RESOLVING_NAMES", json.dumps(names))
        patched.setenv("RESOLVING_TOLD", str(told))
        async with (
            running_stack(
                stage,
                await create_database(postgres_server),
                sidecar={"workers": 1},
                outbound={"allow_http": True, "networks": f"{OUTSIDE}/32"},
            ) as stack,
            open_session(stack.url) as session,
        ):
            yield Guarded(stack, Wire(session), told)


@pytest_asyncio.fixture
async def trapped(guarded: Guarded) -> AsyncIterator[Trap]:
    """A port of this machine's inside; fails if anybody came, or if the worker connected anywhere."""
    before = len(guarded.connected)
    async with trap() as waiting:
        yield waiting
        assert [host for host in guarded.connected[before:] if host != OUTSIDE] == []
        await waiting.assert_works_and_saw_nothing()


@pytest.mark.parametrize(
    "host",
    [
        INSIDE, "[::1]", METADATA, "10.0.0.1", "192.168.0.1", "172.16.0.1", "100.64.0.1", "0.0.0.0",
        "[fe80::1]", "[fd00::1]", "[::]",
        # Decimal, octal, hexadecimal, and with parts left out, as the C library reads them.
        "2130706433", "2852039166", "017700000001", "0177.0.0.1", "0x7f000001", "0x7f.0.0.1",
        "0x7f.1", "127.1", "127.0.1", "0", "0x0",
        # IPv4 wrapped into IPv6: mapped, in both spellings, NAT64, 6to4, compatible.
        "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:1]",
        "[::ffff:169.254.169.254]", "[64:ff9b::7f00:1]", "[64:ff9b::169.254.169.254]",
        "[2002:7f00:1::]", "[::127.0.0.1]",
        # Look-alikes of digits and dots, and a final dot.
        "127.0.0.1.", "①②⑦.⓪.⓪.①", "127。0。0。1",
    ],
)  # fmt: skip
async def test_an_address_of_the_inside_in_any_spelling_is_refused_with_the_request(
    guarded: Guarded, trapped: Trap, host: str
) -> None:
    """X3, H1: 400 with the path of the field; nothing is resolved and no model is asked."""
    # A host that is not in ASCII is refused for that.
    code = "target_refused" if host.isascii() else "invalid_value"
    asked, looked_up = len(guarded.stack.model.requests), len(guarded.told)
    for scheme in ("http", "https"):
        seen = await guarded.tries(f"{scheme}://{host}:{trapped.port}/mcp")
        assert seen.status == 400, bytes(seen.raw)
        assert (seen.error["param"], seen.error["code"]) == ("tools[0].server_url", code)
    assert len(guarded.stack.model.requests) == asked
    assert len(guarded.told) == looked_up


@pytest.mark.parametrize("host", LEADS_INSIDE)
async def test_a_name_that_leads_inside_is_an_error_of_its_item(
    guarded: Guarded, trapped: Trap, host: str
) -> None:
    """X3, T5: one bad address spoils the name; the model is asked without the server's tools."""
    seen = await guarded.tries(f"http://{host}:{trapped.port}/mcp")

    listed, message = seen.response["output"]
    assert listed["tools"] == []
    assert f"The host '{host}' is not public" in listed["error"]
    assert not any(address in listed["error"] for address in LEADS_INSIDE[host])
    assert message["content"][0]["text"] == "done"
    assert seen.kinds.count("response.mcp_list_tools.failed") == 1
    assert OUTSIDE not in guarded.connected


async def test_the_official_sdk_is_told_the_same(guarded: Guarded, trapped: Trap) -> None:
    """X3: an exception with `param`, and an item with an error."""
    async with openai.AsyncOpenAI(
        base_url=f"{guarded.stack.url}/v1", api_key=CLIENT_KEY, max_retries=0, timeout=20
    ) as sdk:

        async def ask(host: str) -> Any:
            tools: Any = [declared(f"http://{host}:{trapped.port}/mcp")]
            model = guarded.stack.plays(say(text("done")))
            return await sdk.responses.create(model=model, input="hi", tools=tools)

        with pytest.raises(openai.BadRequestError) as refused:
            await ask("0x7f.1")
        response = await ask("loopback.test")

    assert refused.value.param == "tools[0].server_url"
    assert "is not public" in response.output[0].error
    assert response.output_text == "done"


async def test_the_settings_of_production_want_https(wire: Wire) -> None:
    """X3: of the shared stack, which has no settings for this."""
    async with trap() as waiting:
        for url in (f"http://example.com:{waiting.port}/mcp", "ftp://example.com/", "file:///etc"):
            seen = await wire.create(model="demo", tools=[declared(url)])
            assert (seen.status, seen.error["param"]) == (400, "tools[0].server_url")
            assert "https" in seen.error["message"]


@pytest.mark.parametrize("host", ["turns.test", "turns6.test"])
async def test_a_name_that_changes_its_answer_is_connected_to_where_it_was_checked(
    guarded: Guarded, trapped: Trap, host: str
) -> None:
    """X3: resolved once for a connection; the next connection is checked anew, and refused."""
    async with McpServer(host=OUTSIDE) as server:
        url = server.url.replace(OUTSIDE, host)
        before = len(guarded.told)
        seen = await guarded.tries(url, "echo", "echo")
        assert server.calls == ["echo", "echo"]
        assert guarded.told[before:] == [f"asked {host}", f"connected {OUTSIDE}"]
        again = await guarded.tries(url.replace(str(server.port), str(trapped.port)))

    assert [item["type"] for item in seen.response["output"]].count("mcp_call") == 2
    assert "is not public" in again.response["output"][0]["error"]
    assert guarded.told[-1] == f"asked {host}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to", [INSIDE, OUTSIDE, METADATA, "stays.test"])
async def test_a_redirect_is_not_followed_wherever_it_leads(
    guarded: Guarded, status: int, to: str
) -> None:
    """X3: inside, or to where the request might have gone by itself."""
    before = len(guarded.connected)
    async with trap() as inside, trap(OUTSIDE) as outside:
        port = outside.port if to in (OUTSIDE, "stays.test") else inside.port
        moved = b"HTTP/1.1 %d X\r\nlocation: http://%b:%d/mcp\r\ncontent-length: 0\r\n\r\n"
        answer = moved % (status, to.encode(), port)
        async with scripted_server(answer, host=OUTSIDE) as (url, sent):
            seen = await guarded.tries(url)
            assert sent
        assert "redirect" in seen.response["output"][0]["error"]
        assert seen.response["status"] == "completed"
        assert set(guarded.connected[before:]) == {OUTSIDE}
        assert outside.reached == 0
        await inside.assert_works_and_saw_nothing()


async def test_a_call_that_is_redirected_fails_and_is_not_made_elsewhere(
    guarded: Guarded, trapped: Trap
) -> None:
    """X3, T2: a server that listed its tools and sends the call away: a failed item, told to the model."""
    async with McpServer(host=OUTSIDE) as server:
        server.moved["tools/call"] = f"http://{INSIDE}:{trapped.port}/mcp"
        seen = await guarded.tries(server.url, "echo")

    _, called, message = seen.response["output"]
    assert (called["status"], called["error"]["type"]) == ("failed", "http_error")
    assert "redirect" in called["error"]["message"]
    assert message["content"][0]["text"] == "done"


async def test_an_endpoint_that_a_server_names_elsewhere_is_not_reached(
    guarded: Guarded, trapped: Trap
) -> None:
    """X3: the older transport lets the server say where messages go."""
    refused = b"HTTP/1.1 405 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    events = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    elsewhere = b"event: endpoint\ndata: http://127.0.0.1:%d/messages\n\n" % trapped.port
    async with (
        asyncio.timeout(30),
        scripted_server(refused, refused, events + elsewhere, host=OUTSIDE) as (url, sent),
    ):
        seen = await guarded.tries(url)
        assert any(request.startswith(b"GET ") for request in sent)
    assert seen.response["output"][0]["error"]
