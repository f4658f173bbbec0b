"""HTTP as clients and proxies really speak it: continue, trailers, pipelining, HTTP/2, endless uploads."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE

from tests.support.fix_stack import BOTH_WAYS, HASTY_BODY_LIMIT
from tests.support.replies import say, text
from tests.support.stack import Stack, memory
from tests.support.wire import DEADLINE, Wire

MEGABYTE = 1 << 20
HEAD = "POST /v1/responses HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


async def spoken(stack: Stack, data: bytes) -> bytes:
    """Send bytes on a connection of their own; return all that comes until it is closed."""
    port = int(stack.url.rpartition(":")[2])
    async with asyncio.timeout(DEADLINE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(data)
            await writer.drain()
            return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()


async def upload_until_stopped(stack: Stack) -> int:
    """Send a body without end until the connection is closed; return how many bytes it took."""
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    port = int(stack.url.rpartition(":")[2])
    sent = 0
    async with asyncio.timeout(DEADLINE):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(f"{HEAD}transfer-encoding: chunked\r\n\r\n".encode())
            while sent < 200 * MEGABYTE:
                writer.write(chunk)
                await writer.drain()
                sent += len(chunk)
        except ConnectionError:
            pass
        finally:
            writer.close()
    return sent


def body(stack: Stack) -> str:
    """Return the body of a request that works."""
    return json.dumps({"model": stack.plays(say(text("ok"))), "input": "hi"})


@BOTH_WAYS
async def test_a_client_that_waits_for_permission_to_send_gets_it(stack: Stack) -> None:
    """curl does so for bodies above a megabyte."""
    sent = body(stack)
    head = f"{HEAD}expect: 100-continue\r\nconnection: close\r\ncontent-length: {len(sent)}\r\n\r\n"

    answer = await spoken(stack, f"{head}{sent}".encode())

    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


@BOTH_WAYS
async def test_a_body_that_ends_with_trailers_is_whole(stack: Stack) -> None:
    """E1: the end of the body then comes as another message of Envoy's."""
    sent = body(stack)
    head = f"{HEAD}transfer-encoding: chunked\r\nconnection: close\r\ntrailer: x-a\r\n\r\n"

    answer = await spoken(stack, f"{head}{len(sent):x}\r\n{sent}\r\n0\r\nx-a: b\r\n\r\n".encode())

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


@BOTH_WAYS
async def test_requests_one_behind_the_other_are_answered_in_order(stack: Stack) -> None:
    """Pipelining: no answer is lost, none is mixed with another."""
    bodies = [body(stack) for _ in range(5)]
    heads = [f"{HEAD}content-length: {len(sent)}\r\n" for sent in bodies]
    heads[-1] += "connection: close\r\n"
    whole = "".join(f"{head}\r\n{sent}" for head, sent in zip(heads, bodies, strict=True))

    answer = await spoken(stack, whole.encode())

    models = [json.loads(sent)["model"].encode() for sent in bodies]
    places = [answer.index(model) for model in models]
    assert places == sorted(places)
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 5


async def test_http2_is_spoken_too(stack: Stack) -> None:
    """Whole and streamed, by curl with prior knowledge."""
    for stream in (False, True):
        sent = json.dumps({**json.loads(body(stack)), "stream": stream})
        process = await asyncio.create_subprocess_exec(
            *("curl", "-sSN", "--http2-prior-knowledge", f"{stack.url}/v1/responses"),
            *("-H", "content-type: application/json", "-d", sent),
            *("-w", "%{http_version} %{http_code}"),
            stdout=PIPE,
        )
        output, _ = await process.communicate()
        assert output.endswith(b"2 200")
        assert b'"status":"completed"' in output


async def test_an_upload_without_end_is_stopped_and_costs_nothing(
    hasty: Stack, hasty_wire: Wire
) -> None:
    """E6, X5: 413 in the middle of it; neither Envoy nor the worker keeps what came."""
    pids = [hasty.worker(0), hasty.envoy()]
    before = [memory(pid) for pid in pids]

    sent = await asyncio.gather(*(upload_until_stopped(hasty) for _ in range(5)))

    assert min(sent) > HASTY_BODY_LIMIT
    assert max(sent) < 200 * MEGABYTE
    grown = [memory(pid) - then for pid, then in zip(pids, before, strict=True)]
    assert max(grown) < 16 * MEGABYTE
    assert (await hasty_wire.create(model="script/text", stream=False)).status == 200
