"""What is wrong with a `/v1/responses` stream, as a strict client would see it.

The same eyes for both sides: a model server's own stream, and the one that Holdfast makes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from engine.api.json import is_json_object
from engine.upstream.shapes import TOKENS

Event = Mapping[str, Any]

_TERMINAL = ("response.completed", "response.incomplete", "response.failed")


class Fault(msgspec.Struct, frozen=True):
    """One kind of fault: `code` to look it up by, `text` for people."""

    code: str
    text: str


NO_TERMINAL = Fault("no-terminal", "the stream ends without a terminal event")
MARKUP = Fault("markup", "tool calls arrive as text")
UNSTREAMED = Fault("unstreamed", "calls are not announced, or twice, in the stream")
CALL_IDS = Fault("call-ids", "a call's call_id changes between stream and final object")
ITEM_IDS = Fault("item-ids", "items' ids change between stream and final object")
ARGUMENTS = Fault("arguments", "arguments are joined, cut or no JSON object")
PAIRS = Fault("pairs", "items are not opened once and closed once as the same item")
PARTS = Fault("parts", "text comes before its part is announced, or in a part that was not")
TRUNCATION = Fault("truncation", "a cut answer is told as completed")
NAMES = Fault("names", "reasoning comes under event names that clients do not know")
NUMBERS = Fault("numbers", "sequence numbers are missing or not consecutive")
IDENTITY = Fault("identity", "the response's id changes within the stream")
OPENING = Fault("opening", "the stream does not begin with response.created")


def faults_of(events: Sequence[Event]) -> list[Fault]:
    """Return what is wrong with a whole stream, each kind of fault once."""
    reader = _Reader()
    for event in events:
        reader.read(event)
    reader.finish(events)
    return list(reader.faults)


class _Item:
    """An item as its `added` event announced it, and what came of it since."""

    def __init__(self, item: Event) -> None:
        self.type = item.get("type")
        self.id = item.get("id")
        self.call_id = item.get("call_id")
        self.parts: set[object] = set()
        self.arguments = ""
        self.closed = False


class _Reader:
    def __init__(self) -> None:
        # A dictionary, because it keeps the order of what is put in once.
        self.faults: dict[Fault, None] = {}
        self._items: dict[object, _Item] = {}
        self._text = ""
        self._response_id: object = None

    def note(self, fault: Fault, wrong: bool = True) -> None:
        if wrong:
            self.faults[fault] = None

    def read(self, event: Event) -> None:
        kind = str(event.get("type", ""))
        if isinstance(event.get("response"), dict):
            own = event["response"].get("id")
            self.note(IDENTITY, self._response_id not in (None, own))
            self._response_id = own
        self.note(NAMES, ".reasoning_part." in kind or kind.startswith("response.reasoning."))
        if (take := _TAKES.get(kind)) is not None:
            take(self, event)

    def finish(self, events: Sequence[Event]) -> None:
        kinds = [event.get("type") for event in events]
        self.note(OPENING, kinds[:1] != ["response.created"])
        numbers = [event.get("sequence_number") for event in events]
        self.note(NUMBERS, numbers != list(range(len(events))))
        self.note(MARKUP, any(token in self._text for token in TOKENS))
        if not kinds or kinds[-1] not in _TERMINAL:
            self.note(NO_TERMINAL)
            return
        self.note(PAIRS, not all(item.closed for item in self._items.values()))
        response = events[-1].get("response")
        if isinstance(response, dict):
            self._compare(response)
            cut = response.get("status") == "incomplete"
            self.note(TRUNCATION, cut and kinds[-1] == "response.completed")

    def _compare(self, response: Event) -> None:
        """Hold what was streamed against the final object."""
        output = [item for item in response.get("output") or () if isinstance(item, dict)]
        final = [item for item in output if item.get("type") == "function_call"]
        streamed = [item for item in self._items.values() if item.type == "function_call"]
        self.note(UNSTREAMED, len(final) != len(streamed))
        if len(final) == len(streamed):
            told = [item.get("call_id") for item in final]
            self.note(CALL_IDS, told != [item.call_id for item in streamed])
        told = [item.get("id") for item in output]
        self.note(ITEM_IDS, told != [item.id for item in self._items.values()])

    # -- events -----------------------------------------------------------------------------------

    def added(self, event: Event) -> None:
        place = event.get("output_index")
        self.note(PAIRS, place in self._items)
        self._items[place] = _Item(event.get("item") or {})

    def done(self, event: Event) -> None:
        item = self._items.get(event.get("output_index"))
        told = event.get("item") or {}
        if item is None:
            self.note(PAIRS)
            return
        same = (item.type, item.id) == (told.get("type"), told.get("id"))
        self.note(PAIRS, item.closed or not same)
        self.note(CALL_IDS, item.call_id != told.get("call_id"))
        if item.type == "function_call":
            self._check_arguments(item, told)
        item.closed = True

    def _check_arguments(self, item: _Item, told: Event) -> None:
        whole = str(told.get("arguments") or "")
        self.note(ARGUMENTS, whole != item.arguments or not is_json_object(whole))

    def part_added(self, event: Event) -> None:
        if (item := self._open(event)) is not None:
            item.parts.add(event.get("content_index"))

    def part_delta(self, event: Event) -> None:
        item = self._open(event)
        self.note(PARTS, item is None or event.get("content_index") not in item.parts)

    def text_delta(self, event: Event) -> None:
        self._text += str(event.get("delta") or "")
        self.part_delta(event)

    def arguments_delta(self, event: Event) -> None:
        if (item := self._open(event)) is not None:
            item.arguments += str(event.get("delta") or "")

    def _open(self, event: Event) -> _Item | None:
        """Return the item that an event belongs to, if it is one that can still get something."""
        item = self._items.get(event.get("output_index"))
        if item is None or item.closed or item.id != event.get("item_id"):
            self.note(PAIRS)
            return None
        return item


_TAKES: Mapping[str, Callable[[_Reader, Event], None]] = {
    "response.output_item.added": _Reader.added,
    "response.output_item.done": _Reader.done,
    "response.content_part.added": _Reader.part_added,
    "response.reasoning_part.added": _Reader.part_added,
    "response.output_text.delta": _Reader.text_delta,
    "response.reasoning_text.delta": _Reader.part_delta,
    "response.function_call_arguments.delta": _Reader.arguments_delta,
}
