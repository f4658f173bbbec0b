"""The gRPC server: ext_proc streams and gRPC health, on a socket and perhaps a port (rules E2, E3, E5).

The method is registered by Envoy's name while the messages are our own copies: the wire is the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from extproc.pb.ext_proc_pb2 import ProcessingRequest, ProcessingResponse
from extproc.transport import Serve

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"

OPTIONS = (
    # A body chunk may be larger than gRPC's default of 4 MiB.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Envoy pings every 10 s; below this interval gRPC would take pings for an attack and hang up.
    ("grpc.http2.min_ping_interval_without_data_ms", 1000),
    ("grpc.http2.max_ping_strikes", 0),
    # A burst of new streams is queued, not cancelled.
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 200_000),
    # Two workers on one socket would take each other's streams.
    ("grpc.so_reuseport", 0),
)

_TAKING_SECONDS = 1.0

_GONE = (grpc.aio.BaseError, grpc.aio.UsageError)
_Call = grpc.aio.ServicerContext[ProcessingRequest, ProcessingResponse]


class _GrpcStream:
    """One ext_proc stream as a MessageStream."""

    def __init__(self, call: _Call) -> None:
        self._call = call

    async def read(self) -> ProcessingRequest | None:
        try:
            message = await self._call.read()
        except _GONE as exc:
            raise asyncio.CancelledError("Envoy gave the stream up") from exc
        # The end of the stream is a sentinel object of grpc.aio's.
        return message if isinstance(message, ProcessingRequest) else None

    async def write(self, message: ProcessingResponse) -> None:
        try:
            await self._call.write(message)
        except _GONE as exc:
            # Envoy reset the stream under a write that waited: no news but that the client has gone.
            raise asyncio.CancelledError("Envoy gave the stream up") from exc


class GrpcTransport:
    """Serves ext_proc on all `addresses` (`unix:/path` or `host:port`) until it is stopped."""

    def __init__(self, addresses: Sequence[str], serve: Serve) -> None:
        self._addresses = addresses
        self._serve = serve
        self._health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._stopping = False

    async def start(self) -> None:
        """Listen and serve; returns when listening."""
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers((_handlers(self._process),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        for address in self._addresses:
            if server.add_insecure_port(address) == 0:
                raise OSError(f"cannot listen on {address}")
        await server.start()
        self._server = server
        await self._report(health_pb2.HealthCheckResponse.SERVING)

    async def drain(self) -> None:
        """Report NOT_SERVING: Envoy's health check sends nothing new; running streams go on."""
        await self._report(health_pb2.HealthCheckResponse.NOT_SERVING)

    async def stop(self, grace: float) -> None:
        """Refuse new streams, give the running ones `grace` seconds, and end."""
        self._stopping = True
        if self._server is not None:
            await self._server.stop(grace)

    async def _report(self, status: Any) -> None:
        for service in ("", SERVICE):
            await self._health.set(service, status)

    async def _process(self, _requests: object, call: _Call) -> None:
        await self._serve(_GrpcStream(call))
        if self._stopping:
            # The last stream's end closes the connection, and an Envoy that writes to a closed one loses
            # what it has not read. It ends the stream on its side once it has read all.
            await _until_taken(call)


async def _until_taken(call: _Call) -> None:
    """Wait until Envoy has ended its side of the stream, for a moment at the most."""
    try:
        async with asyncio.timeout(_TAKING_SECONDS):
            while isinstance(await call.read(), ProcessingRequest):
                pass
    except (TimeoutError, *_GONE):
        pass


def _handlers(process: Callable[..., Any]) -> grpc.GenericRpcHandler:
    method = grpc.stream_stream_rpc_method_handler(
        process,
        request_deserializer=ProcessingRequest.FromString,
        response_serializer=ProcessingResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(SERVICE, {"Process": method})
