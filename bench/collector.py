"""A collector of traces that keeps nothing: `python -m bench.collector` prints its port."""

from __future__ import annotations

import asyncio

import grpc

_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


async def _export(_request: bytes, _context: object) -> bytes:
    # An empty message of any type.
    return b""


async def _main() -> None:
    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_export)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(_SERVICE, {"Export": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_main())
