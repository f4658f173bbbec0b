"""Asks the model server what it is, at start and from time to time; what it says is an optimisation only.

A server that does not answer, or answers nonsense, leaves what was known of it before, at first nothing:
no request waits for this, and none fails by it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from engine.chore import Chore
from engine.errors import UpstreamFailed
from engine.upstream.choice import Choice
from engine.upstream.servers import recognise

_log = logging.getLogger(__name__)

Get = Callable[[str], Awaitable[tuple[int, bytes]]]
"""Sends a GET for a path to the model server; returns status and body, raises UpstreamFailed."""

# Until it answers: a server and its gateway often start side by side.
_SOON = 2.0


class Scout:
    """Keeps the profile of `choice` up to date, every so many `seconds`."""

    def __init__(self, get: Get, choice: Choice, *, seconds: float) -> None:
        self._get = get
        self._choice = choice
        step = min(seconds, _SOON)
        self._most_rests = round(seconds / step)
        self._rests = 0
        self._looking = Chore(self._look, step, jitter=0.2)

    def start(self) -> None:
        """Begin."""
        self._looking.start()

    async def stop(self) -> None:
        """End."""
        await self._looking.stop()

    async def _look(self) -> bool:
        """Ask, unless the server answered a short time ago."""
        if self._rests > 0:
            self._rests -= 1
        elif await self.ask():
            self._rests = self._most_rests - 1
        return False

    async def ask(self) -> bool:
        """Ask once, and take what is learnt; returns whether there was an answer."""
        models = await self._body("/v1/models")
        if models is None:
            return False
        before = self._choice.profile
        self._choice.profile = recognise(await self._body("/version") or b"", models)
        learnt = self._choice.profile
        if learnt != before:
            _log.info("the model server is %s, asked in %s by default", learnt, learnt.dialect)
        return True

    async def _body(self, path: str) -> bytes | None:
        """Return what is there; None where nothing is."""
        try:
            status, body = await self._get(path)
        except UpstreamFailed as error:
            _log.debug("GET %s: %s", path, error)
            return None
        return body if status == 200 else None
