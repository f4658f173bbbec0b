"""A POST over HTTP/2 that ends with trailers, by hand: no client library sends them."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS = 0, 1, 3, 4
_ACK = _END_STREAM = 1
_END_HEADERS = 4


async def post_with_trailers(url: str, path: str, body: bytes, timeout: float) -> bytes:
    """Return the body of the answer; `body` must fit into one frame of 16 KiB."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = {":method": "POST", ":path": path, ":scheme": "http", ":authority": "x"}
    writer.write(_PREFACE + _frame(_SETTINGS, 0, 0, b""))
    said = _packed({**head, "content-type": "application/json"})
    writer.write(_frame(_HEADERS, _END_HEADERS, 1, said) + _frame(_DATA, 0, 1, body))
    writer.write(_frame(_HEADERS, _END_HEADERS | _END_STREAM, 1, _packed({"x-checksum": "1"})))
    try:
        async with asyncio.timeout(timeout):
            return await _answer(reader, writer)
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    answer = b""
    while True:
        head = await reader.readexactly(9)
        payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
        kind, flags = head[3], head[4]
        if kind == _SETTINGS and not flags & _ACK:
            writer.write(_frame(_SETTINGS, _ACK, 0, b""))
        if kind == _DATA:
            answer += payload
        if kind == _RESET or (kind in (_DATA, _HEADERS) and flags & _END_STREAM):
            return answer


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream)
        + payload
    )


def _packed(headers: Mapping[str, str]) -> bytes:
    """Return a header block of literals: no table, no Huffman code, each length below 127."""
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    return b"".join(b"\0" + bytes([len(n)]) + n + bytes([len(v)]) + v for n, v in pairs)
