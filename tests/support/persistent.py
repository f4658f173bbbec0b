"""A client that does not give up: what breaks is resumed, as a careful application would do it.

kept = await Persistent(wire).stream(model=model)      the whole stream, put together from its parts
kept.ending                                            its one terminal event
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.support.stream_rules import TERMINAL
from tests.support.transcripts import event_of
from tests.support.wire import RESPONSES, Event, Seen, Wire

# Seconds for everything that one response may have to go through.
PATIENCE = 60.0
_DONE = b"data: [DONE]"


@dataclass
class Kept:
    """What a client has of one response: `frames` without comments; `id` None if it never heard of it."""

    id: str | None
    frames: list[bytes]
    resumed: int = 0
    status: int = 200

    @property
    def over(self) -> bool:
        return bool(self.frames) and self.frames[-1] == _DONE

    @property
    def last(self) -> int:
        """The number of the last event."""
        number: int = event_of([f for f in self.frames if f != _DONE][-1])["sequence_number"]
        return number

    @property
    def ending(self) -> Event:
        """The terminal event, the one of its kind and the last; no number came twice."""
        events = [event_of(frame) for frame in self.frames if frame != _DONE]
        numbers = [event["sequence_number"] for event in events]
        assert numbers == sorted(set(numbers)), "R4: numbers"
        assert [event["type"] in TERMINAL for event in events].count(True) == 1, "R1"
        assert events[-1]["type"] in TERMINAL, "R1"
        return events[-1]

    def add(self, seen: Seen) -> None:
        """Keep the whole frames of one part."""
        self.frames += [frame for frame in seen.frames if not frame.startswith(b":")]


class Persistent:
    """Asks until it has an answer; `seen` counts the events that all its streams have received."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.seen = 0

    async def stream(self, **body: Any) -> Kept:
        """Create a streamed response and follow it to its end, whatever breaks on the way."""
        async with asyncio.timeout(PATIENCE):
            async with self._wire.open(**body, stream=True) as reading:
                kept = Kept(None, [], status=reading.status)
                try:
                    async for chunk in reading.content.iter_any():
                        reading.raw += chunk
                        self.seen += 1
                except (aiohttp.ClientError, ConnectionError):
                    pass
            kept.add(reading)
            if reading.status != 200 or not kept.frames:
                return kept
            kept.id = reading.events[0]["response"]["id"]
            while not kept.over:
                await self._resume(kept)
            return kept

    async def whole(self, **body: Any) -> Kept:
        """Create a response that is not streamed; an interrupted answer counts as none."""
        async with asyncio.timeout(PATIENCE):
            seen = await self._wire.create(**body, stream=False, timeout=PATIENCE)
        answered = seen.clean and seen.status == 200
        return Kept(seen.json["id"] if answered else None, [], status=seen.status)

    async def ended(self, response_id: str) -> Event:
        """Poll a response until it has ended; it must be there all the time."""
        async with asyncio.timeout(PATIENCE):
            while True:
                seen = await self._wire.get(response_id)
                if seen.clean and seen.status == 200:
                    response: Event = json.loads(seen.raw)
                    if response["status"] not in ("queued", "in_progress"):
                        return response
                assert seen.status in (200, 503), bytes(seen.raw)
                await asyncio.sleep(0.1)

    async def _resume(self, kept: Kept) -> None:
        kept.resumed += 1
        path = f"{RESPONSES}/{kept.id}?stream=true&starting_after={kept.last}"
        seen = await self._wire.ask("GET", path)
        if seen.status == 200:
            kept.add(seen)
        else:
            assert seen.status == 503, bytes(seen.raw)
            await asyncio.sleep(0.1)
