"""By relay, inline and without Envoy, side by side: a client is answered the same, byte for byte."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.support.fix_stack import open_session
from tests.support.replies import call, say, text
from tests.support.stack import Stack
from tests.support.wire import Seen, Wire

JSON = {"content-type": "application/json"}
# What names the moment, the connection or the proxy.
_OF_THE_WAY = {
    "date",
    "server",
    "x-request-id",
    "content-length",
    "transfer-encoding",
    "connection",
}


@pytest.fixture
async def wires(
    envoy_stack: Stack, inline_stack: Stack, standalone_workers: Stack
) -> AsyncIterator[tuple[Wire, Wire, Wire]]:
    """A client of each way."""
    async with (
        open_session(envoy_stack.url) as relayed,
        open_session(inline_stack.url) as inline,
        open_session(standalone_workers.url) as alone,
    ):
        yield Wire(relayed), Wire(inline), Wire(alone)


def headers_of(seen: Seen) -> dict[str, str]:
    given = {name.lower(): value for name, value in seen.headers.items()}
    return {name: value for name, value in given.items() if name not in _OF_THE_WAY}


@pytest.mark.parametrize(
    ("method", "path", "sent"),
    [
        ("GET", "/v1/responses/resp_x", {}),
        ("DELETE", "/v1/responses/resp_x", {}),
        ("GET", "/v1/responses/resp_x/nothing", {}),
        ("GET", "/v1/responses?limit=0", {}),
        ("PUT", "/v1/responses", {"data": b"{}", "headers": JSON}),
        ("OPTIONS", "/v1/responses", {}),
        ("HEAD", "/v1/responses", {}),
        ("POST", "/v1/responses", {}),
        ("POST", "/v1/responses", {"data": b"{", "headers": JSON}),
        ("POST", "/v1/responses", {"data": b"{}", "headers": JSON}),
        ("POST", "/v1/responses", {"data": b"{}", "headers": {"content-type": "text/plain"}}),
        ("POST", "/v1/responses", {"data": b"{}", "headers": {**JSON, "content-encoding": "x"}}),
        (
            "POST",
            "/v1/responses",
            {"data": gzip.compress(b" " * (33 << 20)), "headers": {**JSON, "content-encoding": "gzip"}},
        ),
        ("POST", "/v1/responses", {"data": b'{"model":"m","input":"x","n":2}', "headers": JSON}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
async def test_errors_are_the_same_bytes(
    wires: tuple[Wire, Wire, Wire], method: str, path: str, sent: dict[str, Any]
) -> None:
    """R15: status, body and headers."""
    one, *others = [await wire.ask(method, path, **sent) for wire in wires]

    for other in others:
        assert one.status == other.status >= 400
        assert bytes(one.raw) == bytes(other.raw)
        assert headers_of(one) == headers_of(other)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_answers_are_the_same_but_for_their_ids(
    wires: tuple[Wire, Wire, Wire], envoy_stack: Stack, stream: bool
) -> None:
    """R14: the same events in the same order, the same objects and the same headers."""
    model = envoy_stack.plays(say(text("Hel", "lo"), call("get_time", '{"tz":', '"CET"}')))

    one, *others = [await wire.create(model=model, stream=stream) for wire in wires]

    for other in others:
        assert headers_of(one) == headers_of(other)
        assert told(one) == told(other)


def told(seen: Seen) -> Any:
    """Return what was answered, without ids and times."""
    assert seen.status == 200
    whole = seen.events if "event-stream" in seen.headers["content-type"] else seen.json
    return json.loads(json.dumps(whole), object_hook=_lasting)


def _lasting(found: dict[str, Any]) -> dict[str, Any]:
    passing = {"id", "item_id", "call_id", "created_at", "completed_at"}
    return {name: value for name, value in found.items() if name not in passing}


async def test_a_port_without_a_host_is_open_to_this_machine_alone(
    standalone_workers: Stack,
) -> None:
    """X6: on the one loopback address, and on no other interface."""
    port = int(standalone_workers.url.rpartition(":")[2])
    assert standalone_workers.settings.http.listen == f":{port}"
    async with aiohttp.ClientSession(f"http://127.0.0.2:{port}") as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get("/health")
