"""What a test tells the scripted model to do: a script is a list of steps, in the wire's order.

    s = stream(text("Hel", "lo"))             tests.support.replies makes streams and bodies
    Script(s[:4], Hold(gate), s[4:])          silence in the middle of an answer
    Script(s[:4], Cut())                      the connection breaks behind the fourth event
    Script(s.first_bytes(300), Cut())         … or inside an event
    Script(s[:-1])                            a clean end without the terminal event
    Script(Hold(gate), unavailable())         silence before a 503

A Stream is made anew for each request (model name, tools and ids are that request's). Each of its
methods gives another Stream; slices count writes, which are events unless a method changed that.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from tests.support import frames

SSE_TYPE = "text/event-stream; charset=utf-8"
JSON_TYPE = "application/json"
RESPONSES = "/v1/responses"
CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Asked:
    """The request that a script answers. `seed` makes the ids of the answer."""

    path: str
    body: frames.Event
    seed: str

    @property
    def wants_stream(self) -> bool:
        return bool(self.body.get("stream"))


Make = Callable[[Asked], Iterable[bytes]]


@dataclass(frozen=True)
class Stream:
    """Writes of one streamed body, made for a request."""

    make: Make
    headers: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, part: slice) -> Stream:
        def cut(asked: Asked) -> Iterable[bytes]:
            if (part.start or 0) >= 0 and (part.stop is None or part.stop >= 0):
                return itertools.islice(self.make(asked), part.start, part.stop, part.step)
            return list(self.make(asked))[part]

        return replace(self, make=cut)

    def __add__(self, other: Stream) -> Stream:
        def both(asked: Asked) -> Iterable[bytes]:
            return itertools.chain(self.make(asked), other.make(asked))

        return Stream(both, {**self.headers, **other.headers})

    def through(self, change: Callable[[Iterable[bytes]], Iterable[bytes]]) -> Stream:
        """The stream after any function over its writes."""
        return replace(self, make=lambda asked: change(self.make(asked)))

    def edit(self, edit: frames.Edit) -> Stream:
        """Each event through a function: return it, another, a list of them, or None to drop it."""
        return self.through(lambda writes: frames.edited(writes, edit))

    def first_bytes(self, count: int) -> Stream:
        return self.through(lambda writes: frames.first_bytes(writes, count))

    def split_every(self, size: int) -> Stream:
        return self.through(lambda writes: frames.split_every(writes, size))

    def split_at(self, *offsets: int) -> Stream:
        return self.through(lambda writes: frames.split_at(writes, *offsets))

    def joined(self, count: int | None = None) -> Stream:
        return self.through(lambda writes: frames.joined(writes, count))

    def crlf(self) -> Stream:
        return self.through(frames.crlf)

    def mixed_line_ends(self) -> Stream:
        return self.through(frames.mixed_line_ends)

    def without_event_lines(self) -> Stream:
        return self.through(frames.without_event_lines)

    def without_space(self) -> Stream:
        return self.through(frames.without_space)

    def multi_line_data(self) -> Stream:
        return self.through(frames.multi_line_data)

    def commented(self) -> Stream:
        return self.through(frames.commented)

    def with_done(self) -> Stream:
        return self.through(lambda writes: itertools.chain(writes, [b"data: [DONE]\n\n"]))

    def gzipped(self) -> Stream:
        """Compressed, and said to be so. Last in a chain: the writes are no events any more."""
        return replace(self.through(frames.gzipped), headers={"content-encoding": "gzip"})

    def usage_null(self) -> Stream:
        return self.edit(_without_usage)

    def same_output_index(self) -> Stream:
        """Every item at output_index 0, as Ollama and others number them."""
        return self.edit(
            lambda event: event | {"output_index": 0} if "output_index" in event else event
        )

    def same_item_id(self, item_id: str = "msg_same") -> Stream:
        """Every item under one id."""
        return self.edit(lambda event: _with_item_id(event, item_id))


@dataclass(frozen=True, slots=True)
class Body:
    """A whole answer that is no stream; `make` gives its bytes for the request."""

    make: Callable[[Asked], bytes]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": JSON_TYPE})
    # The connection breaks behind so many bytes of it; the content-length promises all.
    cut_after: int | None = None

    def cut(self, count: int) -> Body:
        """The same, broken off behind `count` bytes."""
        return replace(self, cut_after=count)


@dataclass(frozen=True, slots=True)
class Say:
    """A stream or a whole body, whichever the request asks for."""

    stream: Stream
    body: Body


@dataclass(frozen=True, slots=True)
class Hold:
    """Silence until the test sets the event: before the status if it is the first step."""

    until: asyncio.Event


@dataclass(frozen=True, slots=True)
class Pace:
    """The stream at a model's pace: so many seconds between two events."""

    stream: Stream
    seconds: float


@dataclass(frozen=True, slots=True)
class Start:
    """Status and headers now, before anything of the body: for silence behind the headers."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": SSE_TYPE})


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection ends without the end of the body; `reset`: by RST, losing unread bytes."""

    reset: bool = False


@dataclass(frozen=True, slots=True)
class ByOutputs:
    """One script for each turn of a response that runs tools, by how many of their outputs are sent.

    The largest number that is not above it counts, so `{0: …, 2: …}` has a first turn of two calls.
    """

    scripts: Mapping[int, Script]

    def of(self, asked: Asked) -> Script:
        given = asked.body.get("input")
        items = given if isinstance(given, list) else []
        told = sum(item.get("type") == "function_call_output" for item in items)
        return self.scripts[max(number for number in self.scripts if number <= told)]


Step = Stream | Body | Say | Hold | Pace | Start | Cut | ByOutputs


@dataclass(frozen=True, init=False)
class Script:
    """The steps of one answer. Behind the last one the body ends cleanly."""

    steps: tuple[Step, ...]

    def __init__(self, *steps: Step) -> None:
        object.__setattr__(self, "steps", steps)


def _without_usage(event: frames.Event) -> frames.Event:
    if "response" in event:
        return event | {"response": event["response"] | {"usage": None}}
    return event | {"usage": None} if "usage" in event else event


def _with_item_id(event: frames.Event, item_id: str) -> frames.Event:
    if "item" in event:
        return event | {"item": event["item"] | {"id": item_id}}
    return event | {"item_id": item_id} if "item_id" in event else event
