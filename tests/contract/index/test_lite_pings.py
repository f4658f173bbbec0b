"""Connections of workers that are kept alive with pings are not cut by Milvus Lite for them (rule P2)."""

from __future__ import annotations

import asyncio

from tests.support.lite import Lite

# RFC 9113: the preface (§3.4), a frame's head (§4.1), and the frames that are told apart here (§6).
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD = 9
_SETTINGS, _PING, _GOAWAY = 4, 6, 7
_ACK = 1
_SECONDS = 20.0


async def test_pings_of_an_idle_client_are_answered(lite: Lite) -> None:
    """pymilvus pings every ten seconds, also without a call; gRPC's servers go away after the third."""
    async with asyncio.timeout(_SECONDS):
        reader, writer = await asyncio.open_unix_connection(lite.url.removeprefix("unix:"))
        try:
            writer.write(_PREFACE + _frame(_SETTINGS))
            for number in range(10):
                said = number.to_bytes(8, "big")
                writer.write(_frame(_PING, said))
                assert await _answer(reader) == said
        finally:
            writer.close()


def _frame(kind: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + bytes(4) + payload


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """Return what the next acknowledged ping says; no GOAWAY may come before it."""
    while True:
        head = await reader.readexactly(_HEAD)
        payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
        assert head[3] != _GOAWAY, payload
        if (head[3], head[4]) == (_PING, _ACK):
            return payload
