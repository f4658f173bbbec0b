"""An Envoy without any sidecar, and requests to its listeners."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from extproc.settings import Settings
from extproc.up.envoy import envoy_command, public_port
from extproc.up.processes import running

DEADLINE = 15.0
TURN = "http://model/v1/responses"


@dataclass(frozen=True)
class Answer:
    """A response, read to its end; header names in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = json.loads(self.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error


async def ask(method: str, url: str, socket: Path | None = None, **sent: Any) -> Answer:
    """Send one request and return the whole answer; the path goes out as it is written."""
    async with (
        client(socket) as session,
        session.request(method, URL(url, encoded=True), **sent) as answer,
    ):
        return Answer(
            answer.status, {k.lower(): v for k, v in answer.headers.items()}, await answer.read()
        )


@asynccontextmanager
async def envoy(
    directory: Path, model_url: str, **routing: str
) -> AsyncIterator[tuple[str, Settings]]:
    """An Envoy without any sidecar; gives the public listener's URL. `routing` are settings of it."""
    environ = {"DATA_DIR": str(directory), "BACKEND_URL": model_url, "HOLDFAST_LISTEN__PORT": "0"}
    environ |= {f"HOLDFAST_ROUTING__{name.upper()}": value for name, value in routing.items()}
    settings = Settings.load(None, environ)
    settings.sidecar.run_dir.mkdir()
    async with running([envoy_command(settings, os.environ)], lambda line: None):
        yield f"http://127.0.0.1:{await public_port(settings)}", settings


@asynccontextmanager
async def client(unix_socket: Path | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client with a deadline, to the public or to a unix socket."""
    connector = aiohttp.UnixConnector(str(unix_socket)) if unix_socket else None
    timeout = aiohttp.ClientTimeout(total=DEADLINE)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield session
