"""Names that requests and tenants give, looked up in threads of their own.

The system's resolver takes as long as a name server likes, half a minute and more, and nothing can end a
lookup that has begun. So the loop's own resolver is left to what the operator names (Postgres, the model
server), and a tenant whose names are slow has few of the threads here.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar

from engine.fair_slots import FairSlots

LookUp = Callable[[str, int], list[str]]
"""Host and port to addresses, in a thread; raises OSError."""

LOOKUPS = 32
"""At once, by one transport of a worker. Each that is slow is a thread that waits."""

LOOKUPS_OF_ONE = 8
"""Of one tenant; its others wait, and are given up with whoever asked."""

_TENANT: ContextVar[str] = ContextVar("names_of", default="")


def look_up_for(tenant: str) -> None:
    """Let what this task and the tasks that it begins look up from now on count as this tenant's."""
    _TENANT.set(tenant)


def ask_system(host: str, port: int) -> list[str]:
    """Ask the system's resolver, for as long as that takes."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as exc:  # what cannot be a name at all
        raise socket.gaierror(socket.EAI_NONAME, "not a name") from exc
    return [str(sockaddr[0]) for *_, sockaddr in found]


class Names:
    """The lookups of one transport: at most `LOOKUPS` at a time, shared by tenants."""

    def __init__(self, look_up: LookUp = ask_system) -> None:
        self._look_up = look_up
        self._slots = FairSlots(LOOKUPS, most=LOOKUPS_OF_ONE)

    async def resolve(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host; raises OSError.

        A lookup that is given up holds its place until it is over: so there are never more of them.
        """
        tenant = _TENANT.get()
        await self._slots.take(tenant)
        try:
            found = asyncio.wrap_future(self._begin(host, port))
        except BaseException:
            self._slots.give_back(tenant)
            raise
        found.add_done_callback(lambda _: self._slots.give_back(tenant))
        return await asyncio.shield(found)

    def _begin(self, host: str, port: int) -> Future[list[str]]:
        found: Future[list[str]] = Future()

        def work() -> None:
            try:
                found.set_result(self._look_up(host, port))
            except Exception as exc:
                found.set_exception(exc)

        # A daemon, unlike a pool's thread: the end of the process does not wait for a name server.
        threading.Thread(target=work, name="lookup", daemon=True).start()
        return found
