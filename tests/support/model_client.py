"""A plain client of a model server: keeps the chunks apart and sees a broken body as such."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.support.scripts import CHAT, RESPONSES
from tests.support.transcripts import event_of


@dataclass
class Got:
    """What a client saw: the status, the chunks in their order, and whether the body ended cleanly."""

    status: int
    headers: dict[str, str]
    chunks: list[bytes]
    clean: bool

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def events(self) -> list[dict[str, Any]]:
        frames = self.body.replace(b"\r\n", b"\n").split(b"\n\n")
        return [event_of(frame) for frame in frames if b"data: {" in frame]

    @property
    def kinds(self) -> list[str]:
        return [event["type"].removeprefix("response.") for event in self.events]


async def ask(
    client: aiohttp.ClientSession,
    model: str = "demo",
    *,
    path: str = RESPONSES,
    stream: bool = True,
    headers: dict[str, str] | None = None,
    **fields: Any,
) -> Got:
    """Asks the model for an answer and reads it to its end, or to where it breaks."""
    body = {"model": model, "stream": stream, **fields}
    body |= {"messages": [{"role": "user", "content": "hi"}]} if path == CHAT else {}
    body.setdefault("input", "hi")
    async with client.post(path, json=body, headers=headers) as response:
        got = Got(response.status, dict(response.headers), [], True)
        await _read(response, got)
    return got


async def _read(response: aiohttp.ClientResponse, got: Got) -> None:
    chunk = b""
    try:
        async for data, ends in response.content.iter_chunks():
            chunk += data
            # The end of the body counts as an empty chunk.
            if ends and chunk:
                got.chunks.append(chunk)
                chunk = b""
    except (aiohttp.ClientError, ConnectionError):
        got.clean = False
    if chunk:
        got.chunks.append(chunk)
