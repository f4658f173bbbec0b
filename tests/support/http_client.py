"""A client that speaks HTTP/1.1 by hand: it sees what libraries hide, and reads no more than it is told to.

async with Client.to(path_or_address) as client:
    answer = await client.ask(request("POST", "/v1/responses", body))
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Small, so that a client that does not read is noticed early.
_BUFFER = 16 << 10


@dataclass(frozen=True)
class Answer:
    """An answer, read to its end; header names in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        """The error of an error body, which has exactly the four fields of the API (rule R15)."""
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error


def request(
    method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> bytes:
    """Return the bytes of a request; a body has its length and is JSON unless the headers say otherwise."""
    given = {"host": "x", **(headers or {})}
    chunked = "transfer-encoding" in given
    if body is not None or chunked or "content-length" in given:
        given.setdefault("content-type", "application/json")
    if body is not None and not chunked:
        given.setdefault("content-length", str(len(body)))
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    rest = body or b""
    if body is not None and chunked:
        rest = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + rest


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._seen = b""

    @classmethod
    @asynccontextmanager
    async def to(cls, address: Path | tuple[str, int]) -> AsyncIterator[Client]:
        """Connect to a socket's path, or to a host and a port; close in the end."""
        family = socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET
        peer = socket.socket(family)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        peer.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(
                peer, str(address) if isinstance(address, Path) else address
            )
        except OSError:
            peer.close()
            raise
        reader, writer = await asyncio.open_connection(sock=peer, limit=_BUFFER)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()
            try:
                await writer.wait_closed()
            except ConnectionError:
                pass

    async def send(self, data: bytes) -> None:
        """Send bytes; ConnectionError where nobody takes them any more."""
        self._writer.write(data)
        await self._writer.drain()

    async def ask(self, data: bytes) -> Answer:
        """Send a request and return its answer; one that came before everything was taken counts too."""
        try:
            await self.send(data)
        except ConnectionError:
            pass
        return await self.answer()

    async def line(self) -> bytes:
        """Return the next line."""
        return await self._reader.readline()

    async def until(self, part: bytes) -> None:
        """Read on until `part` has come; what was read is given back by `answer`."""
        while part not in self._seen:
            more = await self._reader.read(_BUFFER)
            assert more, f"it ended after {self._seen!r}"
            self._seen += more

    async def ended(self) -> bool:
        """Return True once the other side has closed the connection; False if it still sends."""
        try:
            return not await self._reader.read(1)
        except ConnectionError:
            return True

    async def answer(self, *, without_body: bool = False) -> Answer:
        """Read one answer."""
        first = (await self._read_line()).split()
        headers: dict[str, str] = {}
        while line := (await self._read_line()).strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        body = b"" if without_body else await self._body(headers)
        return Answer(int(first[1]), headers, body)

    async def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            if "content-length" in headers:
                return await self._exactly(int(headers["content-length"]))
            seen, self._seen = self._seen, b""
            return seen + await self._reader.read()
        pieces = []
        while size := int(await self._read_line(), 16):
            pieces.append(await self._exactly(size))
            await self._read_line()
        await self._read_line()
        return b"".join(pieces)

    async def _read_line(self) -> bytes:
        while b"\n" not in self._seen:
            more = await self._reader.read(_BUFFER)
            if not more:
                raise EOFError(f"it ended after {self._seen!r}")
            self._seen += more
        line, _, self._seen = self._seen.partition(b"\n")
        return line

    async def _exactly(self, count: int) -> bytes:
        while len(self._seen) < count:
            more = await self._reader.read(_BUFFER)
            if not more:
                raise EOFError(f"it ended after {self._seen!r}")
            self._seen += more
        data, self._seen = self._seen[:count], self._seen[count:]
        return data
