"""The model server as it answers without Holdfast: plain requests, each with a bound and a deadline."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any, Self

import aiohttp
import msgspec

from extproc.envoy.endpoint import ModelEndpoint
from extproc.kept_connections import Sending, sent, tracing
from extproc.model_client import connector

# An error body of vLLM's may have megabytes; of one that is larger than this the size is told.
_MOST_READ = 4 << 20


class Unreachable(Exception):
    """Nothing answers there; the message says what was tried."""


class Said(msgspec.Struct, frozen=True):
    """A whole answer; `size` counts what was read of its body."""

    status: int
    body: bytes

    @property
    def size(self) -> int:
        """Bytes of the body, as far as it was read."""
        return len(self.body)

    @property
    def json(self) -> Any:
        """The body as JSON; None where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def fields(self) -> Mapping[str, Any]:
        """The body's JSON object; empty where it is none."""
        found = self.json
        return found if isinstance(found, dict) else {}


class Backend:
    """Asks one server directly; `connect` and `deadline` in seconds."""

    def __init__(
        self,
        endpoint: ModelEndpoint,
        *,
        connect: float,
        deadline: float,
        api_key: str | None,
        trusted: Path | None,
    ) -> None:
        self._url = endpoint.url
        self._session = aiohttp.ClientSession(
            connector=connector(endpoint, trusted),
            timeout=aiohttp.ClientTimeout(total=deadline, sock_connect=connect),
            headers={} if api_key is None else {"authorization": f"Bearer {api_key}"},
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[tracing()],
        )

    async def __aenter__(self) -> Self:
        """Return the backend; it connects when it is asked."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections."""
        await self._session.close()

    async def get(self, path: str) -> Said:
        """Return the answer to a GET; raises Unreachable."""
        return await self._ask("GET", path, None)

    async def post(self, path: str, body: Mapping[str, Any]) -> Said:
        """Return the answer to a POST of JSON; raises Unreachable."""
        return await self._ask("POST", path, body)

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> Said:
        def send(sending: Sending) -> Awaitable[aiohttp.ClientResponse]:
            return self._session.request(
                method,
                f"{self._url}{path}",
                json=body,
                allow_redirects=False,
                trace_request_ctx=sending,
            )

        try:
            async with await sent(send) as answer:
                pieces, size = [], 0
                async for piece in answer.content.iter_any():
                    pieces.append(piece)
                    size += len(piece)
                    if size > _MOST_READ:
                        break
                return Said(answer.status, b"".join(pieces))
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            told = str(exc) or type(exc).__name__
            raise Unreachable(f"{method} {path}: {told}") from exc
