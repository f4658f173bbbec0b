"""Items that still grow: each turns deltas into events and, when it is closed, into a finished item.

Only a delta is on the token path; its frame is a template with the place of the part filled in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

import msgspec

from engine.api.events import EventWriter, field
from engine.api.json import encode
from engine.context.replay import replay
from engine.response.inputs import (
    ArgumentsDelta,
    Cited,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
)
from engine.response.notes import Held, held_note

Item = dict[str, object]
P = TypeVar("P", bound="_Part")


class _Part:
    """One part of an item: `added`, deltas, `done`, in that order (rule R6)."""

    family: bytes
    kind: str
    text_key = "text"
    added_event = b"response.content_part.added"
    done_event = b"response.content_part.done"
    index_key = b"content_index"

    def __init__(self, events: EventWriter, place: bytes, index: int) -> None:
        self._events = events
        self._place = b'%b,"%b":%d' % (place, self.index_key, index)
        self._texts: list[str] = []
        self._delta_event = self.family + b".delta"

    def added(self) -> bytes:
        return self._events.event(self.added_event, self._place + field("part", self.json()))

    def delta(self, text: str) -> bytes:
        self._texts.append(text)
        return self._events.event(self._delta_event, b'%b,"delta":%b' % (self._place, encode(text)))

    def done(self) -> bytes:
        part = self.json()
        tail = self._done_tail(part)
        frames = self._events.event(self.family + b".done", self._place + tail)
        return frames + self._events.event(self.done_event, self._place + field("part", part))

    def _done_tail(self, part: Item) -> bytes:
        return field(self.text_key, part[self.text_key])

    def json(self) -> Item:
        return {"type": self.kind, self.text_key: "".join(self._texts)}


class _TextPart(_Part):
    family = b"response.output_text"
    kind = "output_text"

    def __init__(self, events: EventWriter, place: bytes, index: int) -> None:
        super().__init__(events, place, index)
        self._logprobs: list[bytes] = []
        self._citations: list[Item] = []
        self._size = 0
        self._written: list[str] = []
        """The text with the marks of its citations, as the model wrote it; empty without any."""

    @property
    def written(self) -> str:
        return "".join(self._written or self._texts)

    def delta_with(self, text: str, logprobs: bytes) -> bytes:
        self._texts.append(text)
        self._size += len(text)
        if self._written:
            self._written.append(text)
        if logprobs != b"[]":
            self._logprobs.append(logprobs[1:-1])
        return self._events.event(
            self._delta_event,
            b'%b,"delta":%b,"logprobs":%b' % (self._place, encode(text), logprobs),
        )

    def cite(self, cited: Cited) -> bytes:
        """Return the event of a citation, which stands behind the text that was told so far."""
        if not self._written:
            self._written = [*self._texts]
        self._written.append(cited.text)
        annotation: Item = {
            "type": "file_citation",
            "file_id": cited.file_id,
            "filename": cited.filename,
            "index": self._size,
        }
        tail = field("annotation_index", len(self._citations)) + field("annotation", annotation)
        self._citations.append(annotation)
        note = held_note(Held(mark=cited.text)) if cited.text else b""
        return note + self._events.event(
            b"response.output_text.annotation.added", self._place + tail
        )

    def _done_tail(self, part: Item) -> bytes:
        return super()._done_tail(part) + field("logprobs", part["logprobs"])

    def json(self) -> Item:
        logprobs = msgspec.Raw(b"[%b]" % b",".join(self._logprobs))
        return {**super().json(), "annotations": self._citations, "logprobs": logprobs}


class _RefusalPart(_Part):
    family = b"response.refusal"
    kind = "refusal"
    text_key = "refusal"


class _ReasoningPart(_Part):
    family = b"response.reasoning_text"
    kind = "reasoning_text"


class _SummaryPart(_Part):
    family = b"response.reasoning_summary_text"
    kind = "summary_text"
    added_event = b"response.reasoning_summary_part.added"
    done_event = b"response.reasoning_summary_part.done"
    index_key = b"summary_index"


class OpenItem(ABC):
    """What all items share: their id, their place in the output, their parts."""

    kind: str

    def __init__(self, events: EventWriter, item_id: str, index: int) -> None:
        self.id = item_id
        self.index = index
        self._events = events
        self._place = b',"item_id":"%b","output_index":%d' % (item_id.encode(), index)
        self._part: _Part | None = None
        self._finished: list[tuple[_Part, Item]] = []

    def opened(self) -> bytes:
        """Return the `output_item.added` event: all fields there, empty."""
        return self._events.item("added", self.index, encode(self.json("in_progress")))

    def closed(self, status: str) -> tuple[bytes, Item]:
        """Return the events up to `output_item.done`, and the finished item."""
        frames = self._close_part()
        item = self.json(status)
        return frames + self._events.item("done", self.index, encode(item)), item

    @abstractmethod
    def json(self, status: str) -> Item:
        """Return the item as the API shows it."""

    def replay(self, item: Item) -> bytes | None:
        """Return what later turns are sent of the finished item."""
        return replay(item)

    def _switch(self, kind: type[P]) -> tuple[bytes, P]:
        """Return the open part of a kind, and the events that opening it took."""
        part = self._part
        if isinstance(part, kind):
            return b"", part
        frames = self._close_part()
        index = sum(1 for done, _ in self._finished if done.index_key == kind.index_key)
        self._part = opened = kind(self._events, self._place, index)
        return frames + opened.added(), opened

    def _close_part(self) -> bytes:
        part = self._part
        if part is None:
            return b""
        self._part = None
        frames = part.done()
        self._finished.append((part, part.json()))
        return frames

    def _parts(self, index_key: bytes) -> list[Item]:
        return [item for part, item in self._finished if part.index_key == index_key]


class OpenMessage(OpenItem):
    """An assistant message: text and refusals."""

    kind = "message"

    def delta(self, content: TextDelta | RefusalDelta) -> bytes:
        """Return the events of one delta, opening a part where needed."""
        if type(content) is TextDelta:
            if type(self._part) is _TextPart:
                return self._part.delta_with(content.text, content.logprobs)
            frames, text = self._switch(_TextPart)
            return frames + text.delta_with(content.text, content.logprobs)
        frames, refusal = self._switch(_RefusalPart)
        return frames + refusal.delta(content.text)

    def cite(self, cited: Cited) -> bytes:
        """Return the events of a citation, opening a part where needed."""
        frames, text = self._switch(_TextPart)
        return frames + text.cite(cited)

    def replay(self, item: Item) -> bytes | None:
        """Return the message with its marks: the model is shown what it wrote."""
        content = [
            {**shown, "text": part.written} if isinstance(part, _TextPart) else shown
            for part, shown in self._finished
        ]
        return super().replay({**item, "content": content})

    def json(self, status: str) -> Item:
        """Return the message."""
        content = self._parts(b"content_index")
        head = {"id": self.id, "type": "message", "status": status, "role": "assistant"}
        return {**head, "content": content}


Seal = Callable[[str], str]
"""Returns a text as nobody but us can read it, another one each time."""


class OpenReasoning(OpenItem):
    """A reasoning item: text and summary. `sealed` is the text as `seal` gives it, once it is whole."""

    kind = "reasoning"

    def __init__(
        self, events: EventWriter, item_id: str, index: int, seal: Seal | None = None
    ) -> None:
        super().__init__(events, item_id, index)
        self._seal = seal
        self.sealed: str | None = None

    def delta(self, content: ReasoningDelta | SummaryDelta) -> bytes:
        """Return the events of one delta, opening a part where needed."""
        kind: type[_Part] = _SummaryPart if type(content) is SummaryDelta else _ReasoningPart
        frames, part = self._switch(kind)
        return frames + part.delta(content.text)

    def json(self, status: str) -> Item:
        """Return the reasoning item; `content` is left out where there is none (never null)."""
        summary = self._parts(b"summary_index")
        item: Item = {"id": self.id, "type": "reasoning", "status": status, "summary": summary}
        content = self._parts(b"content_index")
        if not content:
            return item
        item["content"] = content
        if status == "completed" and self._seal is not None and self.sealed is None:
            self.sealed = self._seal("".join(str(part["text"]) for part in content))
        return item if self.sealed is None else {**item, "encrypted_content": self.sealed}


class OpenCall(OpenItem):
    """A call of whatever tool: its arguments grow (rule R7)."""

    family: bytes

    def __init__(self, events: EventWriter, item_id: str, index: int) -> None:
        super().__init__(events, item_id, index)
        self._pieces: list[str] = []

    @property
    def arguments(self) -> str:
        """All that came so far."""
        return "".join(self._pieces)

    def delta(self, content: ArgumentsDelta) -> bytes:
        """Return the event of one delta."""
        self._pieces.append(content.text)
        return self._events.event(
            self.family + b".delta", b'%b,"delta":%b' % (self._place, encode(content.text))
        )

    def arguments_done(self) -> bytes:
        """Return the events that end whole arguments; none at all are `{}`."""
        frames = b""
        if not self.arguments.strip():
            frames = self.delta(ArgumentsDelta("{}"))
        tail = self._done_head() + field("arguments", self.arguments)
        return frames + self._events.event(self.family + b".done", self._place + tail)

    def _done_head(self) -> bytes:
        return b""


class OpenFunctionCall(OpenCall):
    """A call of a client tool."""

    kind = "function_call"
    family = b"response.function_call_arguments"

    def __init__(
        self, events: EventWriter, item_id: str, index: int, *, call_id: str, name: str
    ) -> None:
        super().__init__(events, item_id, index)
        self._call_id = call_id
        self._name = name

    def closed(self, status: str) -> tuple[bytes, Item]:
        """Return the closing events; a cut call has no `arguments.done`: nobody shall run it."""
        frames = self.arguments_done() if status == "completed" else b""
        done, item = super().closed(status)
        return frames + done, item

    def json(self, status: str) -> Item:
        """Return the call."""
        return {
            "id": self.id,
            "type": "function_call",
            "status": status,
            "call_id": self._call_id,
            "name": self._name,
            "arguments": self.arguments,
        }

    def _done_head(self) -> bytes:
        return field("name", self._name)
