"""A TCP proxy in front of a Postgres socket that loses answers, falls silent, or goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo


class PostgresProxy:
    """Forwards bytes; `conninfo` leads through it (TCP).

    `lose_answers`: how many of the next answers never arrive: each ends its connection instead, after
    the server has sent it, and so after the commit. `silent`: nothing is forwarded any more.
    """

    def __init__(self, socket_path: Path) -> None:
        self._socket_path = socket_path
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._port = 0
        self.lose_answers = 0
        self.conninfo = ""

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Refuse connections and reset those that there are."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    def fall_silent(self) -> None:
        self._flowing.clear()

    def speak(self) -> None:
        self._flowing.set()

    @property
    def port(self) -> int:
        return self._port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_unix_connection(self._socket_path)
        both = {writer, up_writer}
        self._writers |= both
        forward = asyncio.create_task(self._pump(reader, up_writer, answers=False))
        back = asyncio.create_task(self._pump(up_reader, writer, answers=True))
        try:
            await asyncio.wait({forward, back}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (forward, back):
                task.cancel()
            for each in both:
                each.close()
            self._writers -= both

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        try:
            while data := await reader.read(65536):
                await self._flowing.wait()
                if answers and self.lose_answers:
                    self.lose_answers -= 1
                    return
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass


@asynccontextmanager
async def postgres_proxy(conninfo: str) -> AsyncIterator[PostgresProxy]:
    """Put a proxy in front of the server that `conninfo` (a unix socket) leads to."""
    target = conninfo_to_dict(conninfo)
    proxy = PostgresProxy(Path(str(target["host"])) / ".s.PGSQL.5432")
    await proxy.open()
    # GSS and TLS would be asked for first, and those are answers too.
    proxy.conninfo = make_conninfo(
        conninfo, host="127.0.0.1", port=proxy.port, gssencmode="disable", sslmode="disable"
    )
    try:
        yield proxy
    finally:
        proxy.speak()
        await proxy.close()
