"""Runs a command in a network of its own, where the system lets us, with one way in: a unix socket.

    python -m tests.support.apart SOCKET PORT COMMAND ...

What connects to SOCKET reaches 127.0.0.1:PORT of that network. Its first line of output says `apart` if
there is such a network, and `beside` if there cannot be one (no permission) and it is the system's own.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import socket
import struct
import sys

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_PIECE = 64 << 10


def leave() -> bool:
    """Move this process into a new network that has a loopback alone; False if that is not allowed."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        asked = fcntl.ioctl(probe, _SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", asked)[1]
        fcntl.ioctl(probe, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))
    return True


async def relay(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry what comes to a port of this network, and back; both are closed at the end."""
    try:
        inner = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        writer.close()
        return
    try:
        await asyncio.gather(_pump(reader, inner[1]), _pump(inner[0], writer))
    finally:
        inner[1].close()
        writer.close()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(_PIECE):
            target.write(data)
            await target.drain()
        target.write_eof()
    except ConnectionError:
        # The other half ends with it: nobody is left to be told.
        target.transport.abort()


async def _main(path: str, port: int, command: list[str]) -> int:
    sys.stdout.write("apart\n" if leave() else "beside\n")
    sys.stdout.flush()
    child = await asyncio.create_subprocess_exec(*command)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await relay(port, reader, writer)

    await asyncio.start_unix_server(connected, path)
    return await child.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])))
