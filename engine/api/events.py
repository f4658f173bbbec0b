"""Stream events: written from templates, numbered as they are written (rules R4, R11).

A delta is the one thing that is written per token: its frame is put together from bytes that were
encoded once per content part.
"""

from __future__ import annotations

from engine.api.json import encode


def field(name: str, value: object) -> bytes:
    """Return `,"name":value` for an event's tail."""
    return b',"%b":%b' % (name.encode(), encode(value))


class EventWriter:
    """Numbers and frames the events of one response; `sequence` is the next number."""

    def __init__(self) -> None:
        self.sequence = 0

    def event(self, kind: bytes, tail: bytes) -> bytes:
        """Return one whole frame; `tail` is `,"key":value…`, what follows type and number."""
        number = self.sequence
        self.sequence = number + 1
        return b'event: %b\ndata: {"type":"%b","sequence_number":%d%b}\n\n' % (
            kind,
            kind,
            number,
            tail,
        )

    def lifecycle(self, kind: str, response: bytes) -> bytes:
        """Return a `response.<kind>` event that carries the whole response object."""
        return self.event(b"response." + kind.encode(), b',"response":' + response)

    def item(self, kind: str, index: int, item: bytes) -> bytes:
        """Return a `response.output_item.<kind>` event."""
        return self.event(
            b"response.output_item." + kind.encode(),
            b',"output_index":%d,"item":%b' % (index, item),
        )
