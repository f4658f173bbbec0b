"""The rules that every stream we send to a client keeps, checked on its bytes (an oracle for all tests).

    events = check_stream(raw)      raises AssertionError that names the rule which is broken
    response = response_of(events)  the object of the terminal event

R1 one terminal event, then `[DONE]` · R2 created, in_progress · R3 one response id · R4 numbers without gaps
· R5 items in pairs · R6 parts inside items · R7 concatenations · R9 how a cut shows · R10 the response object
· R11 frames · R12 errors · T1, T2, T5 owned items · T8 searches and citations.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

Event = dict[str, Any]

OWNED, LISTED, ASKED = "mcp_call", "mcp_list_tools", "mcp_approval_request"
COMPACTED, SEARCH = "compaction", "file_search_call"
# Calls that the gateway answers.
CALLS = (OWNED, SEARCH)
# They have no status.
STATELESS = (LISTED, ASKED, COMPACTED)
TERMINAL = ("response.completed", "response.incomplete", "response.failed")

FIELDS = frozenset({
    "background", "completed_at", "created_at", "error", "frequency_penalty", "id",
    "incomplete_details", "instructions", "max_output_tokens", "max_tool_calls", "metadata", "model",
    "object", "output", "parallel_tool_calls", "presence_penalty", "previous_response_id",
    "prompt_cache_key", "reasoning", "safety_identifier", "service_tier", "status", "store",
    "temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p", "truncation", "usage",
})  # fmt: skip
"""The 31 fields of Open Responses' ResponseResource."""

NEVER_NULL = frozenset({
    "id", "object", "created_at", "status", "model", "output", "tools", "tool_choice", "truncation",
    "parallel_tool_calls", "text", "top_p", "presence_penalty", "frequency_penalty", "top_logprobs",
    "temperature", "store", "background", "service_tier", "metadata",
})  # fmt: skip

# Keys that are left out rather than null, wherever they stand.
_OMITTED = frozenset({"verbosity", "phase", "logprobs", "content", "encrypted_content"})

_TEXTS = {
    "output_text": ("response.output_text", "text"),
    "refusal": ("response.refusal", "refusal"),
    "reasoning_text": ("response.reasoning_text", "text"),
    "summary_text": ("response.reasoning_summary_text", "text"),
}
"""Type of a part -> the family of its events, and the key of its text."""


def check_stream(raw: bytes, *, taken_over: bool = False) -> list[Event]:
    """Check the whole body of a stream that answered 200; return its events in order.

    `taken_over`: a worker died in its course, so items in its middle may be incomplete, and the numbers of
    a stream that a client was reading leap.
    """
    events = read_frames(raw)
    check_events(events, taken_over=taken_over)
    return events


def response_of(events: list[Event]) -> Event:
    """Return the response object of the terminal event."""
    response: Event = events[-1]["response"]
    return response


def read_frames(raw: bytes) -> list[Event]:
    """Check the framing (R11) and the end (R1) and return the events; comments may stand anywhere."""
    assert b"\r" not in raw, "R11: a carriage return"
    assert raw.endswith(b"\n\n"), f"R11: the stream ends inside a frame: {raw[-80:]!r}"
    frames = raw[:-2].split(b"\n\n")
    assert frames[-1] == b"data: [DONE]", f"R1: the last frame is {frames[-1][:200]!r}"
    return [_event(frame) for frame in frames[:-1] if not _is_comment(frame)]


def _is_comment(frame: bytes) -> bool:
    return frame.startswith(b":") and b"\n" not in frame


def _event(frame: bytes) -> Event:
    # Comments may stand before an event's lines.
    lines = [line for line in frame.split(b"\n") if not line.startswith(b":")]
    assert len(lines) == 2, f"R11: {frame[:200]!r}"
    kind, data = lines
    assert kind.startswith(b"event: "), f"R11: {frame[:200]!r}"
    assert data.startswith(b"data: {"), f"R11: {frame[:200]!r}"
    event: Event = json.loads(data[6:])
    assert event["type"] == kind[7:].decode(), f"R11: {kind!r} is not the type of {data[:80]!r}"
    return event


def check_events(events: list[Event], *, taken_over: bool = False) -> None:
    """Check everything but the framing."""
    kinds = [event["type"] for event in events]
    opening = _check_opening(events)
    terminal = [kind for kind in kinds if kind in TERMINAL]
    assert len(terminal) == 1, f"R1: terminal events {terminal}"
    assert kinds[-1] in TERMINAL, f"R1: {kinds[-1]} comes last"
    _check_numbers([event["sequence_number"] for event in events], leap=taken_over)
    ids = {event["response"]["id"] for event in events if "response" in event}
    assert len(ids) == 1, f"R3: {ids}"
    reader = _Reader()
    for event in events[opening:-1]:
        reader.take(event)
    reader.end()
    for event in events[:opening]:
        check_response(event["response"])
    check_response(events[-1]["response"], taken_over=taken_over)
    _check_beginning(events[:opening], events[-1])
    _check_ending(events, reader.done)


def _check_numbers(numbers: list[int], *, leap: bool) -> None:
    """R4: 0, 1, 2 …; with a leap of about a million where a worker died while its client was reading."""
    assert numbers[0] == 0, "R4: numbers"
    steps = {b - a for a, b in pairwise(numbers)}
    assert all(step == 1 or (leap and step > 900_000) for step in steps), f"R4: steps {steps}"


def _check_opening(events: list[Event]) -> int:
    """R2: created, in_progress; queued between them in the background. Returns how many there are."""
    kinds = [event["type"].removeprefix("response.") for event in events[:3]]
    if kinds[:1] == ["created"] and events[0]["response"]["background"]:
        assert kinds[1] == "queued", f"R2: {kinds}"
        # One that ends in the queue was never in progress.
        return 3 if kinds[2] == "in_progress" else 2
    assert kinds[:2] == ["created", "in_progress"], f"R2: {kinds}"
    return 2


def _check_beginning(opening: list[Event], terminal: Event) -> None:
    queued = opening[0]["response"]["background"]
    for number, event in enumerate(opening):
        response = event["response"]
        status = "queued" if queued and number < 2 else "in_progress"
        assert response["status"] == status, f"R2: {event['type']} is {response['status']}"
        assert (response["output"], response["usage"], response["error"]) == ([], None, None)
        assert response["completed_at"] is None
    same = FIELDS - {"status", "completed_at", "error", "incomplete_details", "output", "usage"}
    for name in same:
        assert opening[0]["response"][name] == terminal["response"][name], f"R10: {name} changed"


def _check_ending(events: list[Event], done: list[Event]) -> None:
    terminal = events[-1]
    response = terminal["response"]
    status = terminal["type"].removeprefix("response.")
    shown = "incomplete" if response["status"] == "cancelled" else response["status"]
    assert shown == status, f"R1: {terminal['type']} has status {response['status']}"
    assert response["output"] == done, "R5: the terminal output is not what was streamed"
    errors = [event for event in events if event["type"] == "error"]
    assert len(errors) == (status == "failed"), f"R12: {len(errors)} errors in a {status} stream"
    if errors:
        assert events[-2] is errors[0], "R12: the error does not stand before response.failed"
        _check_error(errors[0])
        assert errors[0]["message"] == response["error"]["message"], "R12: two messages"


def _check_error(event: Event) -> None:
    nested = event["error"]
    assert set(nested) == {"type", "code", "message", "param"}, f"R12: {nested}"
    for name in ("code", "message", "param"):
        assert event[name] == nested[name], f"R12: flat and nested {name} differ"
    assert nested["message"], "R12: no message"


# -- the response object -----------------------------------------------------------------------------


def check_response(response: Event, *, taken_over: bool = False) -> None:
    """R10: all 31 fields, nulls only where they may be, integers for times; R9: how a cut shows."""
    assert set(response) >= FIELDS, f"R10: without {sorted(FIELDS - set(response))}"
    nulls = {name for name in NEVER_NULL if response[name] is None}
    assert not nulls, f"R10: null {sorted(nulls)}"
    assert response["object"] == "response"
    assert type(response["created_at"]) is int, "R10: created_at"
    assert type(response["completed_at"]) in (int, type(None)), "R10: completed_at"
    status = response["status"]
    assert (response["completed_at"] is not None) == (status == "completed"), "R10: completed_at"
    assert (response["error"] is not None) == (status == "failed"), "R10: error"
    assert (response["incomplete_details"] is not None) == (status == "incomplete"), "R9: reason"
    if status == "incomplete":
        assert response["incomplete_details"]["reason"], "R9: no reason"
    if response["error"] is not None:
        assert response["error"]["code"]
        assert response["error"]["message"]
    _check_echo(response)
    _check_usage(response["usage"])
    _check_output(response, taken_over=taken_over)


def _check_echo(response: Event) -> None:
    assert response["text"]["format"] is not None, "R10: text.format"
    assert not _nulls(response["text"]), f"R10: null in text {response['text']}"
    if response["reasoning"] is not None:
        assert {"effort", "summary"} <= set(response["reasoning"]), "R10: reasoning"
    for tool in response["tools"]:
        if tool["type"] == "function":
            assert {"name", "description", "parameters", "strict"} <= set(tool), f"R10: {tool}"


def _check_usage(usage: Event | None) -> None:
    if usage is None:
        return
    counts = [
        usage["input_tokens"],
        usage["output_tokens"],
        usage["total_tokens"],
        usage["input_tokens_details"]["cached_tokens"],
        usage["output_tokens_details"]["reasoning_tokens"],
    ]
    assert all(type(count) is int and count >= 0 for count in counts), f"R10: usage {usage}"
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"], "R10: total"


def _check_output(response: Event, *, taken_over: bool) -> None:
    status, output = response["status"], response["output"]
    assert len({item["id"] for item in output}) == len(output), "R5: ids repeat"
    for item in output:
        keys = {"id", "type"} if item["type"] in STATELESS else {"id", "type", "status"}
        assert keys <= set(item), f"R10: {item}"
        assert not _nulls(item), f"R10: null in {item}"
        if item["type"] == "function_call" and item["status"] == "completed":
            assert item["call_id"]
            assert item["name"]
            if status == "completed":
                json.loads(item["arguments"])  # R7
    # A failed call of an owned tool is whole: the model was told of it (T2).
    statuses = [_status(item) for item in output]
    beside = [item for item in output if item["type"] in CALLS or _is_upstream(item)]
    cut_calls = [item for item in beside if _status(item) != "completed"]
    if taken_over:
        assert set(statuses) <= {"completed", "incomplete"}, f"R9: {statuses}"
    elif cut_calls and status != "completed":
        # Several were under way.
        assert set(statuses) <= {"completed", "incomplete"}, f"R9: {statuses}"
    elif _is_capped(response):
        assert set(statuses) <= {"completed"}, f"R9: {statuses}"
    elif status == "completed":
        assert set(statuses) <= {"completed"}, f"R9: {statuses} in a completed response"
    else:
        assert set(statuses[:-1]) <= {"completed"}, f"R9: {statuses}"
        assert status != "incomplete" or set(statuses[-1:]) <= {"incomplete"}, f"R9: {statuses}"


def _status(item: Event) -> str:
    if "status" not in item:
        return "completed"
    failed = (item["type"] in CALLS or _is_upstream(item)) and item["status"] == "failed"
    return "completed" if failed else str(item["status"])


def _is_upstream(item: Event | None) -> bool:
    """True for items of the model server's tools; tests give its MCP servers the label `theirs`."""
    if item is None or item.get("server_label") == "theirs":
        return item is not None
    return item["type"] in ("web_search_call", "code_interpreter_call", "image_generation_call")


def _is_capped(response: Event) -> bool:
    """True if it was ended between two turns: nothing was cut then (T4)."""
    details = response["incomplete_details"] or {}
    return details.get("reason") in ("max_tool_calls", "max_turns")


def _nulls(item: Event) -> set[str]:
    """Return keys that are null and should have been left out, here or in a part."""
    parts = [*(item.get("content") or []), *(item.get("summary") or [])]
    return {k for holder in (item, *parts) for k in _OMITTED if k in holder and holder[k] is None}


# -- items and parts ---------------------------------------------------------------------------------


@dataclass
class _Part:
    item: _Item
    index: int
    kind: str
    text: str = ""
    logprobs: list[Any] = field(default_factory=list)
    annotations: list[Any] = field(default_factory=list)
    said: bool = False
    """True once its `….done` came."""


@dataclass
class _Item:
    index: int
    added: Event
    arguments: str = ""
    arguments_done: str | None = None
    told: list[str] = field(default_factory=list)
    """What the events of an owned item told of it: in_progress, completed, failed."""
    parts: dict[str, list[Event]] = field(default_factory=dict)
    """Finished parts, by `content_index` or `summary_index`."""


class _Reader:
    """Follows the items and parts of a stream; `done` are the finished items."""

    def __init__(self) -> None:
        self._done: dict[int, Event] = {}
        self._count = 0
        self._item: _Item | None = None
        self._waiting: dict[int, _Item] = {}
        """Owned calls whose arguments are whole: the one kind of item that stays open beside others."""
        self._passed: dict[int, Event] = {}
        self._part: _Part | None = None

    @property
    def done(self) -> list[Event]:
        """The finished items in their places."""
        return [self._done[index] for index in sorted(self._done)]

    def take(self, event: Event) -> None:
        kind = event["type"]
        if self._passed_through(event):
            return
        for ending, take in _TAKES:
            if kind.endswith(ending):
                take(self, event)
                return
        assert kind == "error", f"an event of an unknown type: {kind}"

    def end(self) -> None:
        assert self._item is None, "R5: an item was never closed"
        assert not self._waiting, "R5: an owned call was never closed"
        assert not self._passed, "R5: an item of the model server's was never closed"

    def _passed_through(self, event: Event) -> bool:
        """Take what tells of an item of the model server's own tools, which may stand open beside others."""
        item = event.get("item")
        if event["type"].endswith("output_item.added") and _is_upstream(item):
            assert self._item is None, "R5: an item begins inside another"
            assert event["output_index"] == self._count, f"R4: output_index {event['output_index']}"
            self._count += 1
            self._passed[event["output_index"]] = event["item"]
            return True
        added = self._passed.get(event.get("output_index", -1))
        if added is None:
            return False
        if event["type"].endswith("output_item.done"):
            done = event["item"]
            assert (done["id"], done["type"]) == (added["id"], added["type"]), f"R5: {done}"
            self._done[event["output_index"]] = done
            del self._passed[event["output_index"]]
            return True
        assert event["item_id"] == added["id"], f"R5: {event}"
        assert event["type"].startswith(f"response.{added['type']}"), f"R6: {event}"
        return True

    # items

    def item_added(self, event: Event) -> None:
        assert self._item is None, "R5: an item begins inside another"
        assert event["output_index"] == self._count, f"R4: output_index {event['output_index']}"
        item = event["item"]
        assert not any(w.told[1:] for w in self._waiting.values()), (
            "R5: its call ended, not its item"
        )
        assert item["type"] in STATELESS or item["status"] == "in_progress", f"R5: {item}"
        assert item["type"] != LISTED or item["tools"] == [], f"T5: {item}"
        assert not item.get("content"), f"R6: content before its events in {item}"
        assert not item.get("summary"), f"R6: a summary before its events in {item}"
        early = item["type"] != ASKED and item.get("arguments")
        assert not early, f"R7: arguments before their events in {item}"
        assert not _nulls(item), f"R10: null in {item}"
        self._count += 1
        self._item = _Item(event["output_index"], item)

    def item_done(self, event: Event) -> None:
        item = self._place(event, with_id=False)
        assert self._part is None, "R6: an item was closed before its part"
        done: Event = event["item"]
        if done["type"] in (ASKED, COMPACTED):
            # It is shown when it is whole.
            assert done == item.added, f"T6: {done} was {item.added}"
            json.loads(done.get("arguments", "{}"))
            assert done.get("encrypted_content", "x"), f"X4: {done}"
            self._done[item.index] = done
            self._item = None
            return
        if done["type"] in (*CALLS, LISTED):
            self._owned_done(item, done)
            return
        for name in ("id", "type", "call_id", "name", "role"):
            assert done.get(name) == item.added.get(name), f"R5: {name} of {done} changed"
        assert done["status"] in ("completed", "incomplete"), f"R5: {done}"
        for name, index in (("content", "content_index"), ("summary", "summary_index")):
            assert done.get(name, []) == item.parts.get(index, []), f"R7: {name} of {done}"
        if done["type"] == "function_call":
            assert done["arguments"] == item.arguments, f"R7: arguments of {done}"
            finished = item.arguments_done is not None
            assert finished == (done["status"] == "completed"), f"R7: no arguments.done for {done}"
        self._done[item.index] = done
        self._item = None

    def _owned_done(self, item: _Item, done: Event) -> None:
        for name in ("id", "type", "name", "server_label"):
            assert done.get(name) == item.added.get(name), f"R5: {name} of {done} changed"
        ending = item.told[1:]
        if done["type"] == OWNED:
            assert done["arguments"] == item.arguments, f"R7: arguments of {done}"
            assert [done["status"]] == (ending or ["incomplete"]), f"R5: {done} after {ending}"
            assert (done["error"] is not None) == (ending == ["failed"]), f"T2: {done}"
            assert (done["output"] is not None) == (ending == ["completed"]), f"T2: {done}"
        elif done["type"] == SEARCH:
            # The API has no event for one that failed.
            assert (done["status"] == "completed") == (ending == ["completed"]), f"R5: {done}"
            assert done["status"] == "completed" or done["results"] is None, f"T8: {done}"
        else:
            assert ending == ["failed" if done.get("error") else "completed"], f"T5: {done}"
        self._done[item.index] = done
        if self._waiting.pop(item.index, None) is None:
            self._item = None

    def owned(self, event: Event) -> None:
        """Take `.in_progress`, `.completed` or `.failed` of an owned item."""
        item = self._place(event)
        _, kind, told = event["type"].split(".")
        assert item.added["type"] == kind, f"R6: {event}"
        assert (told == "in_progress") == (not item.told), f"R6: {event} after {item.told}"
        assert kind == LISTED or told == "in_progress" or item.index in self._waiting, (
            f"T2: {event}"
        )
        assert len(item.told) < 2, f"R6: {event} after {item.told}"
        item.told.append(told)

    def searching(self, event: Event) -> None:
        item = self._place(event)
        assert (item.added["type"], item.told) == (SEARCH, ["in_progress"]), f"R6: {event}"
        assert item.index not in self._waiting, f"R6: {event} twice"
        self._waiting[item.index], self._item = item, None

    def arguments_delta(self, event: Event) -> None:
        item = self._place(event)
        kind = event["type"].split(".")[1].removesuffix("_arguments")
        assert item.added["type"] == kind, f"T1: {event}"
        assert item.arguments_done is None, f"R7: {event} after its end"
        item.arguments += event["delta"]

    def arguments_done(self, event: Event) -> None:
        item = self._place(event)
        assert item.arguments_done is None, "R7: arguments end twice"
        assert event["arguments"] == item.arguments, f"R7: {event}"
        assert event.get("name", item.added["name"]) == item.added["name"], f"R7: {event}"
        item.arguments_done = event["arguments"]
        if item.added["type"] == OWNED:
            self._waiting[item.index], self._item = item, None

    def _place(self, event: Event, *, with_id: bool = True) -> _Item:
        item = self._waiting.get(event["output_index"], self._item)
        assert item is not None, f"R6: {event['type']} outside of an item"
        assert event["output_index"] == item.index, f"R5: {event}"
        given = event["item_id"] if with_id else event["item"]["id"]
        assert given == item.added["id"], f"R5: {event}"
        return item

    # parts

    def part_added(self, event: Event) -> None:
        item = self._place(event)
        assert self._part is None, "R6: a part begins inside another"
        key = _index_key(event)
        assert event[key] == len(item.parts.get(key, [])), f"R4: {event}"
        part = event["part"]
        _, text = _TEXTS[part["type"]]
        assert part[text] == "", f"R6: {part}"
        assert _holds(item.added["type"], part["type"]), f"R6: {part} in a {item.added['type']}"
        self._part = _Part(item, event[key], part["type"])

    def part_done(self, event: Event) -> None:
        part = self._open_part(event)
        assert part.said, f"R6: {event} without the end of its text"
        _, text = _TEXTS[part.kind]
        done = event["part"]
        assert (done["type"], done[text]) == (part.kind, part.text), f"R7: {event}"
        if part.kind == "output_text":
            assert done["annotations"] == part.annotations, f"T8: annotations of {event}"
            assert done["logprobs"] == part.logprobs, f"R7: logprobs of {event}"
        part.item.parts.setdefault(_index_key(event), []).append(done)
        self._part = None

    def text_delta(self, event: Event) -> None:
        part = self._open_part(event)
        family, _ = _TEXTS[part.kind]
        assert event["type"] == f"{family}.delta", f"R6: {event} in a part of type {part.kind}"
        assert not part.said, f"R6: {event} after its end"
        part.text += event["delta"]
        part.logprobs += event.get("logprobs", [])

    def annotation_added(self, event: Event) -> None:
        part = self._open_part(event)
        assert part.kind == "output_text", f"T8: {event} in a part of type {part.kind}"
        assert not part.said, f"T8: {event} after the end of its text"
        assert event["annotation_index"] == len(part.annotations), f"T8: {event}"
        cited = event["annotation"]
        assert set(cited) == {"type", "file_id", "filename", "index"}, f"T8: {event}"
        assert cited["type"] == "file_citation", f"T8: {event}"
        assert cited["index"] == len(part.text), f"T8: {event} stands at {len(part.text)}"
        part.annotations.append(cited)

    def text_done(self, event: Event) -> None:
        part = self._open_part(event)
        family, text = _TEXTS[part.kind]
        assert event["type"] == f"{family}.done", f"R6: {event} in a part of type {part.kind}"
        assert not part.said, "R6: a text ends twice"
        assert event[text] == part.text, f"R7: {event}"
        part.said = True

    def _open_part(self, event: Event) -> _Part:
        self._place(event)
        part = self._part
        assert part is not None, f"R6: {event} without its part"
        assert event[_index_key(event)] == part.index, f"R6: {event}"
        return part


def _index_key(event: Event) -> str:
    return "summary_index" if "reasoning_summary" in event["type"] else "content_index"


def _holds(item: str, part: str) -> bool:
    if item == "message":
        return part in ("output_text", "refusal")
    return item == "reasoning" and part in ("reasoning_text", "summary_text")


# The end of an event's type -> what it is; the longer ones first.
_TAKES: tuple[tuple[str, Callable[[_Reader, Event], None]], ...] = (
    ("output_item.added", _Reader.item_added),
    ("output_item.done", _Reader.item_done),
    ("_call_arguments.delta", _Reader.arguments_delta),
    ("_call_arguments.done", _Reader.arguments_done),
    *((f".{OWNED}.{told}", _Reader.owned) for told in ("in_progress", "completed", "failed")),
    (f".{SEARCH}.searching", _Reader.searching),
    *((f".{SEARCH}.{told}", _Reader.owned) for told in ("in_progress", "completed")),
    *((f".{LISTED}.{told}", _Reader.owned) for told in ("in_progress", "completed", "failed")),
    ("annotation.added", _Reader.annotation_added),
    ("_part.added", _Reader.part_added),
    ("_part.done", _Reader.part_done),
    (".delta", _Reader.text_delta),
    (".done", _Reader.text_done),
)
