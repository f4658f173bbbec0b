"""`extproc.model_client`: HTTP over a real unix socket, to a server that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from engine.errors import UpstreamFailed
from engine.ports import ModelAnswer
from extproc.envoy.endpoint import ModelEndpoint, parse_model_url
from extproc.model_client import HttpModelClient

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(
    handler: Handler, *, api_key: str | None = None, silence: float = 5, told: str = "/health"
) -> AsyncIterator[HttpModelClient]:
    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/v1/responses", handler)
    app.router.add_get(told, handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
    await runner.setup()
    # pytest's own folders have names too long for a socket.
    with tempfile.TemporaryDirectory(prefix="hf-") as folder:
        socket = Path(folder) / "model.sock"
        await web.UnixSite(runner, str(socket)).start()
        client = HttpModelClient(
            ModelEndpoint("model", socket=socket), connect=1, silence=silence, api_key=api_key
        )
        async with asyncio.timeout(10), client:
            yield client
        await runner.cleanup()


async def started(request: web.Request, first: bytes = b"") -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "Text/Event-Stream; charset=utf-8"})
    await response.prepare(request)
    await response.write(first)
    return response


async def body_of(answer: ModelAnswer) -> bytes:
    try:
        return b"".join([chunk async for chunk in answer.chunks()])
    finally:
        answer.close()


@pytest.mark.parametrize("api_key", [None, "key"])
async def test_a_call_is_a_post_of_json_that_takes_streams(api_key: str | None) -> None:
    """With the caller's headers and, if set, the gateway's key; uncompressed."""
    seen: dict[str, str] = {}

    async def handler(request: web.Request) -> web.Response:
        seen.update({name.lower(): value for name, value in request.headers.items()})
        return web.Response(body=await request.read(), content_type="application/json")

    async with serving(handler, api_key=api_key) as client:
        sent = b'{"a":1}' * 300_000
        answer = await client.call("/v1/responses", sent, {"x-request-id": "r"})
        assert (answer.status, answer.media_type) == (200, "application/json")
        assert await answer.read(1 << 24) == sent
        answer.close()
    assert seen["content-type"] == "application/json"
    assert seen["accept-encoding"] == "identity"
    assert "text/event-stream" in seen["accept"]
    assert seen["x-request-id"] == "r"
    assert seen.get("authorization") == (None if api_key is None else "Bearer key")


async def test_a_stream_is_read_as_it_comes() -> None:
    """Each piece when it is there; the media type in lower case, without its charset."""
    gate = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = await started(request, b"one")
        await gate.wait()
        await response.write(b"two")
        return response

    async with serving(handler) as client:
        answer = await client.call("/v1/responses", b"{}", {})
        assert answer.media_type == "text/event-stream"
        chunks = answer.chunks()
        assert await anext(chunks) == b"one"
        gate.set()
        assert b"".join([chunk async for chunk in chunks]) == b"two"
        answer.close()


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("7", 7),
        ("0", 0),
        ("", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("-1", None),
        ("1.5", None),
        ("9" * 5000, None),
        ("\u00b2", None),
    ],
)
async def test_retry_after_is_read_in_seconds(given: str, seconds: int | None) -> None:
    """R16: its other form is passed over, nonsense too."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=429, headers={"retry-after": given})

    async with serving(handler) as client:
        answer = await client.call("/v1/responses", b"{}", {})
        assert (answer.status, answer.retry_after) == (429, seconds)
        answer.close()


async def test_a_large_error_is_read_up_to_the_bound() -> None:
    """R15: the rest is not fetched."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=400, body=b"x" * 5_000_000)

    async with serving(handler) as client:
        answer = await client.call("/v1/responses", b"{}", {})
        assert len(await answer.read(1000)) == 1000
        answer.close()


async def test_a_redirect_is_not_followed() -> None:
    """X3: the model server does not choose where requests go."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"location": "http://elsewhere/"})

    async with serving(handler) as client:
        answer = await client.call("/v1/responses", b"{}", {})
        assert answer.status == 307
        answer.close()


async def test_closing_an_answer_aborts_the_generation() -> None:
    """P3: the server sees its client go."""
    gone = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = await started(request, b"one")
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        return response

    async with serving(handler) as client:
        answer = await client.call("/v1/responses", b"{}", {})
        answer.close()
        await gone.wait()


async def test_giving_up_a_call_aborts_it() -> None:
    """P3: also before its status has come."""
    came, gone = asyncio.Event(), asyncio.Event()

    async def handler(_request: web.Request) -> web.Response:
        came.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        return web.Response()

    async with serving(handler) as client:
        calling = asyncio.ensure_future(client.call("/v1/responses", b"{}", {}))
        await came.wait()
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await gone.wait()


@pytest.mark.parametrize("first", [b"", b"data: x"])
async def test_a_connection_that_breaks_off_is_a_failure(first: bytes) -> None:
    """R1: never the end of a body."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = await started(request, first)
        assert request.transport is not None
        request.transport.abort()
        return response

    async with serving(handler) as client:
        with pytest.raises(UpstreamFailed, match="broke off"):
            await body_of(await client.call("/v1/responses", b"{}", {}))


@pytest.mark.parametrize("before_status", [True, False])
async def test_silence_is_a_failure(before_status: bool) -> None:
    """R1: a server that says nothing for too long is given up."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse() if before_status else await started(request, b"x")
        await asyncio.Event().wait()
        return response

    async with serving(handler, silence=0.05) as client:
        with pytest.raises(UpstreamFailed, match="silent"):
            await body_of(await client.call("/v1/responses", b"{}", {}))


async def test_no_server_is_a_failure() -> None:
    """R16: a 502."""
    socket = Path("/tmp/no-such-socket")
    async with HttpModelClient(
        ModelEndpoint("model", socket=socket), connect=1, silence=1, api_key=None
    ) as client:
        with pytest.raises(UpstreamFailed, match="could not be reached"):
            await client.call("/v1/responses", b"{}", {})


async def test_a_server_is_called_by_its_url_where_there_is_no_envoy() -> None:
    """With the path in front of `/v1`, and the name that its certificate or its routes want."""
    seen: list[tuple[str, str]] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.headers["host"], request.path))
        return web.Response(body=b"{}", content_type="application/json")

    app = web.Application()
    app.router.add_post("/base/v1/responses", handler)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    endpoint = parse_model_url(f"http://localhost:{port}/base/v1")
    client = HttpModelClient(endpoint, connect=1, silence=5, api_key=None)
    async with asyncio.timeout(10), client:
        answer = await client.call("/v1/responses", b"{}", {})
        answer.close()
    await runner.cleanup()
    assert (answer.status, seen) == (200, [(f"localhost:{port}", "/base/v1/responses")])


async def test_https_is_never_spoken_in_clear() -> None:
    """X4: a server that has no TLS gets a handshake and no key."""
    heard: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1 << 16))
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    endpoint = parse_model_url(f"https://localhost:{server.sockets[0].getsockname()[1]}")
    client = HttpModelClient(endpoint, connect=1, silence=1, api_key="sk-secret")
    async with asyncio.timeout(10), server, client:
        with pytest.raises(UpstreamFailed):
            await client.call("/v1/responses", b"{}", {})
    assert heard
    assert all(data.startswith(b"\x16") and b"sk-secret" not in data for data in heard)


async def test_what_a_server_tells_about_itself_is_read_whole() -> None:
    """Status and body, however it comes; a server that is away is a failure like any other."""

    async def tells(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=404)
        await response.prepare(request)
        for _ in range(3):
            await response.write(b"no ")
            await asyncio.sleep(0)
        return response

    async with serving(tells, told="/version") as client:
        assert await client.get("/version") == (404, b"no no no ")
    async with HttpModelClient(
        ModelEndpoint("model", socket=Path("/nowhere.sock")), connect=1, silence=1, api_key=None
    ) as away:
        with pytest.raises(UpstreamFailed, match="could not be reached"):
            await away.get("/version")
