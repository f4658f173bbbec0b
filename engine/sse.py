r"""Server-sent events: bytes in, events out; events in, bytes out (rule R11).

Reading follows the WHATWG event-stream grammar as far as model servers use it: any chunking (inside a
UTF-8 sequence, inside CRLF), CR, LF and CRLF, comments, `data:` with and without a space, several
`data` lines, a missing `event`. Writing uses LF only and whole events.

    decoder = Decoder(max_line=16 * 2**20)
    for event in decoder.feed(chunk):
        ...
"""

from __future__ import annotations

import msgspec

KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
MEDIA_TYPE = "text/event-stream"
_BOM = b"\xef\xbb\xbf"


class LineTooLong(Exception):
    """A line, or the data of one event, grew past the bound (rule X5)."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event: `type` is the `event` field (empty if there was none), `data` its joined data lines."""

    type: bytes
    data: bytes


class Decoder:
    """Incremental decoder; holds at most one line and one event's data, each up to `max_line` bytes."""

    def __init__(self, max_line: int) -> None:
        self._max = max_line
        self._pieces: list[bytes] = []
        self._pending = 0
        self._type = b""
        self._data: list[bytes] = []
        self._size = 0
        self._skip_lf = False
        self._first = True

    def feed(self, chunk: bytes) -> list[Event]:
        """Take bytes as they came and return the events that they complete; raises LineTooLong."""
        if self._skip_lf and chunk:
            # The CR of a CRLF ended the last chunk; its line was already taken.
            self._skip_lf = False
            if chunk.startswith(b"\n"):
                chunk = chunk[1:]
        events: list[Event] = []
        *lines, rest = self._split(chunk)
        for line in lines:
            self._line(line, events)
        if rest:
            self._pending += len(rest)
            self._bound(self._pending)
            self._pieces.append(rest)
        return events

    def _split(self, chunk: bytes) -> list[bytes]:
        if b"\r" in chunk:
            self._skip_lf = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = chunk.split(b"\n")
        if len(lines) > 1 and self._pieces:
            lines[0] = b"".join((*self._pieces, lines[0]))
            self._pieces.clear()
            self._pending = 0
        return lines

    def _line(self, line: bytes, events: list[Event]) -> None:
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
        if not line:
            if self._data:
                events.append(Event(self._type, b"\n".join(self._data)))
                self._data = []
                self._size = 0
            self._type = b""
            return
        self._bound(len(line))
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            # An empty line of data is a line end of the event.
            self._size += len(value) + 1
            self._bound(self._size)
            self._data.append(value)
        elif name == b"event":
            self._type = value

    def _bound(self, size: int) -> None:
        if size > self._max:
            raise LineTooLong(f"An event of the stream is longer than {self._max} bytes.")
