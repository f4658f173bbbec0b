"""Put into a process by PYTHONPATH: its resolver is the test's, and it tells where it connects to.

`RESOLVING_NAMES` is a JSON object: a host, and its answers to one question after another, each a list
of addresses; the last one is repeated. All other names have no address. Each name that is asked for and
each address that is connected to is a line of the file `RESOLVING_TOLD`.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path
from typing import Any

import uvloop

_NAMES: dict[str, list[list[str]]] = json.loads(os.environ["RESOLVING_NAMES"])
_TOLD = Path(os.environ["RESOLVING_TOLD"])
_system = socket.getaddrinfo


def _tell(line: str) -> None:
    with _TOLD.open("a", encoding="utf-8") as told:
        told.write(f"{line}\n")


def _watched(loop: Any) -> type[asyncio.AbstractEventLoop]:
    class Watched(loop):  # type: ignore[misc]
        async def getaddrinfo(self, host: Any, port: Any, **given: Any) -> Any:
            if host not in _NAMES and _is_address(host):
                return await super().getaddrinfo(host, port, **given)
            return _answered(host, port)

        async def create_connection(
            self, protocol: Any, host: Any = None, port: Any = None, **given: Any
        ) -> Any:
            if host is not None:
                _tell(f"connected {host}")
            if host in _NAMES:
                # Nobody should leave this to the loop: whoever does goes where the name leads by now.
                [(*_, (host, *_)), *_] = await self.getaddrinfo(host, port)
            return await super().create_connection(protocol, host, port, **given)

    return Watched


def _answered(host: Any, port: Any) -> list[tuple[Any, ...]]:
    if host not in _NAMES:
        raise socket.gaierror(socket.EAI_NONAME, "the test knows no such name")
    _tell(f"asked {host}")
    answers = _NAMES[host]
    found = answers.pop(0) if len(answers) > 1 else answers[0]
    return [_info(address, port) for address in found]


def _is_address(host: Any) -> bool:
    # What the C library takes for one, and so the real resolver: 2130706433 and 0x7f.1, too.
    try:
        _system(host, None, flags=socket.AI_NUMERICHOST)
    except OSError:
        return False
    return True


def _info(address: str, port: int) -> tuple[Any, ...]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    where = (address, port, 0, 0) if family == socket.AF_INET6 else (address, port)
    return (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where)


def _looked_up(host: Any, port: Any, *given: Any, **named: Any) -> list[tuple[Any, ...]]:
    """Stand for `socket.getaddrinfo`: what requests name is looked up in threads, by it."""
    known = host not in _NAMES and _is_address(host)
    return _system(host, port, *given, **named) if known else _answered(host, port)


socket.getaddrinfo = _looked_up
uvloop.Loop = _watched(uvloop.Loop)  # type: ignore[misc, assignment]
