"""What the loop costs: turns within one response, against the same turns made by a client. One run, ratios.

The model calls a tool that does nothing, and answers after a number of turns. Either the tool is an MCP
server's and the gateway runs the loop, in one request; or it is a function of the client's, which runs the
loop, in one request a turn, with `previous_response_id`. Then calls on a kept session against a new one each.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

import aiohttp

from bench.processes import children, cpu_seconds
from bench.streams import backend
from engine.api.mcp import parse_mcp_tool
from extproc.mcp.target import McpLimits
from extproc.mcp.worker import mcp_servers
from extproc.outbound.policy import OutboundPolicy
from extproc.settings import Settings
from extproc.up.stack import whole_stack

_CALLS = 8
_TURNS = _CALLS + 1
_DELTAS = 5
_AT_A_TIME = (1, 16)
_DEADLINE = 60.0

Way = Callable[[], Awaitable[None]]


@asynccontextmanager
async def _tools(*arguments: str) -> AsyncIterator[str]:
    """Run an MCP server in a process of its own and give its URL."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.tools", *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    port = await asyncio.wait_for(process.stdout.readline(), _DEADLINE)
    try:
        yield f"http://127.0.0.1:{int(port)}/mcp"
    finally:
        process.terminate()
        await process.wait()


class _Caller:
    """Makes one response of nine turns, in either way."""

    def __init__(self, client: aiohttp.ClientSession, mcp_url: str) -> None:
        self._client = client
        self._mcp = {
            "type": "mcp", "server_label": "s", "server_url": mcp_url, "require_approval": "never",
        }  # fmt: skip

    async def by_gateway(self) -> None:
        """One request, in which the gateway calls the tool."""
        events = await self._ask({"input": "hi", "tools": [self._mcp]})
        called = [item for item in events[-1]["response"]["output"] if item["type"] == "mcp_call"]
        assert [item["output"] for item in called] == ["ok"] * _CALLS, events[-1]

    async def by_client(self) -> None:
        """One request a turn, between which the client calls the tool: it takes no time at all."""
        tools = [{"type": "function", "name": "noop", "parameters": {"type": "object"}}]
        body: dict[str, object] = {"input": "hi"}
        for _ in range(_CALLS):
            response = (await self._ask({**body, "tools": tools}))[-1]["response"]
            [call] = response["output"]
            said = {"type": "function_call_output", "call_id": call["call_id"], "output": "ok"}
            body = {"input": [said], "previous_response_id": response["id"]}
        ended = (await self._ask({**body, "tools": tools}))[-1]["response"]
        assert ended["output"][0]["type"] == "message", ended

    async def _ask(
        self, body: dict[str, object]
    ) -> list[dict[str, dict[str, list[dict[str, str]]]]]:
        sent = {"model": "m", "stream": True, **body}
        async with self._client.post("/v1/responses", json=sent) as answer:
            lines = (await answer.read()).split(b"\n")
        return [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]


async def run(seconds: float) -> None:
    """Print both tables."""
    await _turns(seconds)
    await _sessions(seconds)


async def _turns(seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix="hf-bench-") as directory:
        socket = Path(directory) / "model.sock"
        settings = Settings(data_dir=Path(directory)).having(
            listen={"port": 0},
            model={"url": f"unix:{socket}", "dialect": "responses"},
            outbound={"allow_http": True, "networks": "127.0.0.1/32"},
        )
        async with (
            backend(socket, _DELTAS, 0.0, _CALLS),
            _tools() as least,
            _tools("--sdk") as official,
            whole_stack(settings, lambda _line: None) as url,
            aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as client,
        ):
            one, other = _Caller(client, least), _Caller(client, official)
            sys.stdout.write(
                f"\nresponses of {_TURNS} turns, stored; a tool that does nothing\n"
                f"{'':40} {'at a time':>9} {'ms a turn':>9} {'Envoy us':>9} {'worker us':>9} "
                f"{'ratio':>6} {'CPU':>6}\n"
            )
            ways = {
                "by the client, with functions": one.by_client,
                "by the gateway": one.by_gateway,
                "by the gateway, a server of the SDK": other.by_gateway,
            }
            for count in _AT_A_TIME:
                await _compare(ways, count, seconds)


async def _compare(ways: Mapping[str, Way], count: int, seconds: float) -> None:
    """Measure the ways in turns, so that what else the machine does meets all of them."""
    envoy, workers = children("envoy"), children("extproc.worker")
    times: dict[str, list[float]] = {name: [] for name in ways}
    used = dict.fromkeys(ways, (0.0, 0.0))
    for way in ways.values():
        await way()
    until = time.monotonic() + seconds * len(ways)
    while time.monotonic() < until:
        for name, way in ways.items():
            before = cpu_seconds(envoy), cpu_seconds(workers)
            # More at a time than one by one: the clock of CPU time ticks only every 10 ms.
            times[name].append(await _timed(way, count, rounds=max(1, 8 // count)))
            spent = used[name]
            used[name] = (
                spent[0] + cpu_seconds(envoy) - before[0],
                spent[1] + cpu_seconds(workers) - before[1],
            )
    turns = {
        name: len(taken) * count * max(1, 8 // count) * _TURNS for name, taken in times.items()
    }
    first = next(iter(ways))
    for name, taken in times.items():
        median = statistics.median(taken)
        costs = [1e6 * part / turns[name] for part in used[name]]
        ratio = median / statistics.median(times[first])
        cpu = sum(costs) / (1e6 * sum(used[first]) / turns[first])
        sys.stdout.write(
            f"{name:40} {count:9} {1e3 * median:9.2f} {costs[0]:9.0f} {costs[1]:9.0f} "
            f"{ratio:6.2f} {cpu:6.2f}\n"
        )
        sys.stdout.flush()


async def _timed(way: Way, count: int, rounds: int) -> float:
    """Return the seconds of one turn, of `count` responses side by side, `rounds` times."""
    begun = time.perf_counter()
    for _ in range(rounds):
        await asyncio.wait_for(asyncio.gather(*(way() for _ in range(count))), _DEADLINE)
    return (time.perf_counter() - begun) / rounds / _TURNS


async def _sessions(seconds: float) -> None:
    """Print what a call takes on a kept session, and with a session of its own."""
    sys.stdout.write(
        f"\ncalls of a tool that does nothing, one after the other\n"
        f"{'':40} {'kept ms':>9} {'new ms':>9} {'ratio':>6}\n"
    )
    for name, arguments in (("the least server", ()), ("a server of the SDK", ("--sdk",))):
        async with _tools(*arguments) as url:
            # Half a second of imports, the first time.
            await _calls(url, new=False, seconds=0.0)
            kept = await _calls(url, new=False, seconds=seconds)
            new = await _calls(url, new=True, seconds=seconds)
        sys.stdout.write(f"{name:40} {1e3 * kept:9.2f} {1e3 * new:9.2f} {new / kept:6.1f}\n")
        sys.stdout.flush()


async def _calls(url: str, *, new: bool, seconds: float) -> float:
    """Return the median seconds of a call; `new`: with other credentials, so another session, each time."""
    policy = OutboundPolicy(allow_http=True, networks=(ip_network("127.0.0.1/32"),))
    taken: list[float] = []
    async with mcp_servers(policy, McpLimits(), {}) as servers:
        until = time.monotonic() + seconds
        while not taken or time.monotonic() < until:
            declared = {
                "type": "mcp", "server_label": "s", "server_url": url,
                "headers": {"x-session": str(len(taken) if new else 0)},
            }  # fmt: skip
            provider = servers.open(parse_mcp_tool(declared, "tools[0]"), "tools[0]", "t")
            begun = time.perf_counter()
            outcome = await provider.call("noop", b"{}", timeout=_DEADLINE)
            taken.append(time.perf_counter() - begun)
            assert not outcome.failed, outcome
    return statistics.median(taken)
