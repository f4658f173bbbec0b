"""`extproc.mcp.wire`: what fails is an answer to one request (T2)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest

from engine.errors import TargetRefused
from extproc.mcp.pace import Pace
from extproc.mcp.wire import McpTransport

URL = "https://mcp.test/mcp"
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
NOTE = {"jsonrpc": "2.0", "method": "notifications/cancelled"}


class Wire:
    """A transport before a server that does as `answer` says; notes what reaches it and what breaks."""

    def __init__(
        self, answer: Callable[[httpx2.Request], httpx2.Response], *, legacy_stream: bool = False
    ) -> None:
        self.seen: list[httpx2.Request] = []
        self.broken: list[str] = []

        def handle(request: httpx2.Request) -> httpx2.Response:
            self.seen.append(request)
            return answer(request)

        self.transport = McpTransport(
            httpx2.MockTransport(handle),
            URL,
            legacy_stream=legacy_stream,
            broken=self.broken.append,
            pace=Pace(20, 0),
        )

    async def post(self, body: object = CALL, url: str = URL, **headers: str) -> httpx2.Response:
        async with httpx2.AsyncClient(transport=self.transport) as client:
            return await client.post(url, json=body, headers=headers)


def failing(exc: Exception) -> Callable[[httpx2.Request], httpx2.Response]:
    def answer(_: httpx2.Request) -> httpx2.Response:
        raise exc

    return answer


def error_of(response: httpx2.Response) -> Any:
    assert response.headers["content-type"] == "application/json"
    return json.loads(response.content)["error"]


@pytest.mark.parametrize(
    ("exc", "status", "unsent", "words"),
    [
        (httpx2.ConnectError("x"), 502, True, "could not be reached"),
        (httpx2.ConnectTimeout("x"), 504, True, "did not answer in time"),
        (httpx2.ReadTimeout("x"), 504, False, "did not answer in time"),
        (httpx2.ReadError("x"), 502, False, "broke off"),
        (httpx2.StreamError("it is long"), 502, False, "it is long"),
        (TargetRefused("The host is not public."), 400, True, "The host is not public."),
    ],
)
async def test_a_request_that_fails_is_answered_with_the_reason(
    exc: Exception, status: int, unsent: bool, words: str
) -> None:
    """T2: and with whether the server may have acted on it, which decides about a second attempt."""
    wire = Wire(failing(exc))
    response = await wire.post()

    assert response.status_code == status
    assert error_of(response)["data"] == {"http_status": status, "unsent": unsent}
    assert words in error_of(response)["message"]
    assert wire.broken == []


async def test_the_servers_own_error_is_passed_on() -> None:
    """T2: an error of the protocol keeps its code, whatever the status."""
    own = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "no"}}
    response = await Wire(lambda _: httpx2.Response(400, json=own)).post()
    assert error_of(response) == own["error"]


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (503, b"overloaded", "HTTP 503"),
        (401, b'{"error":"invalid_token"}', "refused the credentials"),
        (500, b"[" * 10_000, "HTTP 500"),
        (500, b"x" * 100_000, "HTTP 500"),
    ],
)
async def test_any_other_refusal_is_told_by_its_status(
    status: int, body: bytes, words: str
) -> None:
    """R15: the body of a stranger is not repeated."""
    response = await Wire(lambda _: httpx2.Response(status, content=body)).post()

    assert error_of(response)["data"] == {"http_status": status, "unsent": False}
    assert words in error_of(response)["message"]


async def test_a_login_that_the_server_forgot_means_that_nothing_was_done() -> None:
    """T2: also where the server says it in words of the protocol."""
    own = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32600, "message": "gone"}}
    wire = Wire(lambda _: httpx2.Response(404, json=own))

    told = await wire.post(**{"mcp-session-id": "1"})
    assert error_of(told)["data"] == {"http_status": 404, "unsent": True}
    assert error_of(await wire.post())["message"] == "gone"


async def test_no_other_server_is_sent_anything() -> None:
    """X3: whatever the server named."""
    wire = Wire(lambda _: httpx2.Response(200))
    for other in ("https://evil.test/mcp", "http://mcp.test/mcp", "https://mcp.test:8443/mcp"):
        assert (await wire.post(url=other)).status_code == 502
    assert wire.seen == []


@pytest.mark.parametrize(
    ("body", "legacy_stream", "seconds"),
    [(CALL, False, 5.0), (NOTE, False, 10.0), (CALL, True, 10.0)],
)
async def test_only_a_call_is_waited_for_long(
    body: object, legacy_stream: bool, seconds: float
) -> None:
    """T2: behind what is answered at once, other calls wait."""
    wire = Wire(lambda _: httpx2.Response(202), legacy_stream=legacy_stream)
    await wire.post(body)
    assert wire.seen[0].extensions["timeout"]["read"] == seconds


async def test_a_legacy_connection_that_cannot_send_is_broken() -> None:
    """T2: the SDK would leave its callers waiting."""
    wire = Wire(lambda _: httpx2.Response(500), legacy_stream=True)
    await wire.post()
    assert wire.broken == ["The MCP server answered with HTTP 500."]


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (b"event: a\ndata: b\n\n", "closed the connection"),
        (b"data: " + b"x" * 2**20, "longer than 1048576 bytes"),
    ],
)
async def test_a_legacy_connection_ends_with_its_stream(stream: bytes, words: str) -> None:
    """T2, X5: with the reason."""

    async def chunks() -> AsyncIterator[bytes]:
        yield stream

    wire = Wire(lambda _: httpx2.Response(200, content=chunks()), legacy_stream=True)
    async with httpx2.AsyncClient(transport=wire.transport) as client:
        await client.get(URL)
    [reason] = wire.broken
    assert words in reason
