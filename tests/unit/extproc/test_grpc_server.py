"""`extproc.grpc_server`: ext_proc and health over a real gRPC channel on a unix socket (E2, E3, E5)."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extproc import messages
from extproc.admission import Admission
from extproc.exchange import Exchanges
from extproc.grpc_server import SERVICE, GrpcTransport
from extproc.pb.ext_proc_pb2 import ProcessingRequest, ProcessingResponse
from extproc.transport import MessageStream, Serve
from tests.support import replies
from tests.support.engine_rig import Rig, final
from tests.support.fake_envoy import body, head
from tests.support.fake_model import FakeModel, Hang, frames_of
from tests.support.replies import text
from tests.support.riding import riding
from tests.support.stream_rules import check_stream

HELLO = frames_of(replies.stream(text("Hel", "lo")))
STREAMED = b'{"model":"m","input":"hi","stream":true}'
DEADLINE = 30.0
OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))

Call = Callable[[], Any]


class Served:
    """A transport that serves, and a channel to it."""

    def __init__(self, transport: GrpcTransport, channel: grpc.aio.Channel) -> None:
        self.transport = transport
        self.process: Call = channel.stream_stream(
            f"/{SERVICE}/Process",
            request_serializer=ProcessingRequest.SerializeToString,
            response_deserializer=ProcessingResponse.FromString,
        )
        self._health: Any = health_pb2_grpc.HealthStub(channel)

    async def status(self, service: str = "") -> str:
        """Return the health status by name."""
        asked = health_pb2.HealthCheckRequest(service=service)
        answer = await self._health.Check(asked, timeout=DEADLINE)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


@asynccontextmanager
async def served(serve: Serve) -> AsyncIterator[Served]:
    # pytest's own folders have names too long for a socket.
    folder = tempfile.mkdtemp(prefix="hf-")
    address = f"unix:{Path(folder) / 'worker.sock'}"
    transport = GrpcTransport([address], serve)
    await transport.start()
    try:
        async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
            yield Served(transport, channel)
    finally:
        await transport.stop(0)
        shutil.rmtree(folder)


async def echo(stream: MessageStream) -> None:
    """Answer each message with the size of its body."""
    while (message := await stream.read()) is not None:
        await stream.write(messages.stream_body(b"%d" % len(message.request_body.body)))


def forever(
    started: asyncio.Event, ended: asyncio.Event
) -> Callable[[MessageStream], Awaitable[None]]:
    async def serve(stream: MessageStream) -> None:
        await stream.read()
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    return serve


def piece(message: ProcessingResponse) -> bytes:
    return message.streamed_immediate_response.body_response.body


async def test_messages_go_both_ways_until_the_stream_ends() -> None:
    """One exchange on one stream."""
    async with asyncio.timeout(DEADLINE), served(echo) as one:
        call = one.process()
        for size in (0, 1, 70_000):
            await call.write(body(b"x" * size))
            assert piece(await call.read()) == b"%d" % size
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() == grpc.StatusCode.OK


async def test_a_message_may_be_large() -> None:
    """E2: above gRPC's own 4 MiB, in both directions."""
    size = 9 << 20

    async def grow(stream: MessageStream) -> None:
        await stream.read()
        await stream.write(messages.stream_body(b"y" * size))

    async with asyncio.timeout(DEADLINE), served(grow) as one:
        call = one.process()
        await call.write(body(b"x" * size))
        assert len(piece(await call.read())) == size


async def test_an_exchange_runs_over_a_real_stream() -> None:
    """The whole way from gRPC to the engine and back."""
    rig = Rig(FakeModel(*HELLO))
    admission = Admission(body_limit=1000, forward_authorization=False)
    exchanges = Exchanges(rig.endpoints, admission, riding(rig.model))
    async with asyncio.timeout(DEADLINE), served(exchanges.serve) as one:
        call = one.process()
        await call.write(head("POST", "/v1/responses"))
        await call.write(body(STREAMED, end=True))
        raw = b""
        while (message := await call.read()) is not grpc.aio.EOF:
            raw += piece(message)
    assert final(check_stream(raw))["status"] == "completed"


async def test_health_follows_the_workers_life() -> None:
    """E5: SERVING, then NOT_SERVING while what runs goes on; for both names that are asked."""
    async with asyncio.timeout(DEADLINE), served(echo) as one:
        call = one.process()
        for name in ("", SERVICE):
            assert await one.status(name) == "SERVING"
        await one.transport.drain()
        for name in ("", SERVICE):
            assert await one.status(name) == "NOT_SERVING"
        await call.write(body(b"abc"))
        assert piece(await call.read()) == b"3"


async def test_a_burst_of_streams_loses_none() -> None:
    """E3: 2000 opened at once."""
    count = 2000
    seen = 0

    async def answer(stream: MessageStream) -> None:
        nonlocal seen
        await stream.read()
        seen += 1
        await stream.write(messages.stream_end())

    async def ask(one: Served) -> bool:
        call = one.process()
        await call.write(head("GET", "/v1/responses/x", end=True))
        message = await call.read()
        return isinstance(message, ProcessingResponse)

    async with asyncio.timeout(DEADLINE), served(answer) as one:
        answers = await asyncio.gather(*(ask(one) for _ in range(count)))
    assert answers.count(True) == seen == count


async def test_a_stream_that_is_given_up_cancels_its_exchange() -> None:
    """P3: the client has gone; the exchange learns it where it waits."""
    started, ended = asyncio.Event(), asyncio.Event()
    async with asyncio.timeout(DEADLINE), served(forever(started, ended)) as one:
        call = one.process()
        await call.write(body(b""))
        await started.wait()
        call.cancel()
        await ended.wait()


@pytest.mark.parametrize("where", [0, 5])
async def test_a_client_that_leaves_over_grpc_finds_its_response(
    where: int, caplog: pytest.LogCaptureFixture
) -> None:
    """P3: and its leaving is no news to the log."""
    gate = asyncio.Event()
    rig = Rig(FakeModel(*HELLO[:where], Hang(gate), *HELLO[where:]))
    admission = Admission(body_limit=1000, forward_authorization=False)
    exchanges = Exchanges(rig.endpoints, admission, riding(rig.model))
    async with asyncio.timeout(DEADLINE), served(exchanges.serve) as one:
        call = one.process()
        await call.write(head("POST", "/v1/responses"))
        await call.write(body(STREAMED, end=True))
        await rig.model.called.wait()
        if where:
            await call.read()
        call.cancel()
        gate.set()
        await rig.settled()
    assert (await rig.the_stored()).status == "completed"
    assert not caplog.records


async def test_stopping_lets_running_streams_end_in_their_time() -> None:
    """E4: new ones are refused."""
    started, gate = asyncio.Event(), asyncio.Event()

    async def late(stream: MessageStream) -> None:
        await stream.read()
        started.set()
        await gate.wait()
        await stream.write(messages.stream_body(b"done"))

    async with asyncio.timeout(DEADLINE), served(late) as one:
        call = one.process()
        await call.write(body(b""))
        await started.wait()
        stopping = asyncio.ensure_future(one.transport.stop(DEADLINE))
        await asyncio.sleep(0)
        fresh = one.process()
        assert await fresh.code() is not grpc.StatusCode.OK
        gate.set()
        assert piece(await call.read()) == b"done"
        await stopping


async def test_stopping_ends_what_does_not_end_in_time() -> None:
    """E4: after the grace."""
    started, ended = asyncio.Event(), asyncio.Event()
    async with asyncio.timeout(DEADLINE), served(forever(started, ended)) as one:
        call = one.process()
        await call.write(body(b""))
        await started.wait()
        await one.transport.stop(0.01)
        await ended.wait()


async def test_an_address_that_cannot_be_listened_on_is_an_error() -> None:
    """At the start, not later."""
    transport = GrpcTransport(["unix:/no/such/folder/worker.sock"], echo)
    with pytest.raises((OSError, RuntimeError)):
        await transport.start()
    await transport.stop(0)


async def test_the_same_is_served_on_a_port() -> None:
    """For an Envoy in another pod: one server, several addresses, one health."""
    folder = tempfile.mkdtemp(prefix="hf-")
    # Nobody else's: the whole of 127/8 is this machine, and the process's number is in it.
    port = f"127.{os.getpid() >> 16 & 127 | 2}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}:9000"
    addresses = [f"unix:{Path(folder) / 'worker.sock'}", port]
    transport = GrpcTransport(addresses, echo)
    try:
        await transport.start()
        for address in addresses:
            async with (
                asyncio.timeout(DEADLINE),
                grpc.aio.insecure_channel(address, options=OPTIONS) as channel,
            ):
                one = Served(transport, channel)
                call = one.process()
                await call.write(body(b"xyz"))
                assert piece(await call.read()) == b"3"
                await call.done_writing()
                assert await one.status() == "SERVING"
    finally:
        await transport.stop(0)
        shutil.rmtree(folder)
