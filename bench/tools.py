"""An MCP server with the tool `noop`: `python -m bench.tools [--sdk]` prints its port.

By itself it is the least that a server can be: prepared answers, so that what is measured is the caller.
With `--sdk` it is the official one, as most servers are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

import uvicorn
import uvloop
from mcp.server.mcpserver import MCPServer

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_ACCEPTED = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
_REFUSED = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"
_RESULTS = {
    "initialize": {
        "protocolVersion": "2025-06-18",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "bench", "version": "1"},
    },
    "tools/list": {"tools": [{"name": "noop", "inputSchema": {"type": "object"}}]},
    "tools/call": {"content": [{"type": "text", "text": "ok"}], "isError": False},
}


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0] or 0)
            writer.write(_answer(await reader.readexactly(length)))
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def _answer(body: bytes) -> bytes:
    asked = json.loads(body) if body else {}
    if asked.get("method") in _RESULTS:
        answer = {"jsonrpc": "2.0", "id": asked["id"], "result": _RESULTS[asked["method"]]}
        encoded = json.dumps(answer).encode()
        return _HEAD % len(encoded) + encoded
    # A notification is taken; the newer protocol's handshake, and the stream of a GET, are not known here.
    return _ACCEPTED if asked and "id" not in asked else _REFUSED


def _tell(port: int) -> None:
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()


async def _least() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0, backlog=4096)
    _tell(server.sockets[0].getsockname()[1])
    async with server:
        await server.serve_forever()


class _Uvicorn(uvicorn.Server):
    """Tells its port once it listens."""

    async def startup(self, sockets: object = None) -> None:
        await super().startup()
        _tell(self.servers[0].sockets[0].getsockname()[1])


async def _sdk() -> None:
    server = MCPServer("bench", log_level="CRITICAL")
    server.add_tool(lambda: "ok", name="noop")
    app = server.streamable_http_app()
    await _Uvicorn(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None)).serve()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sdk", action="store_true")
    uvloop.run(_sdk() if parser.parse_args().sdk else _least())
