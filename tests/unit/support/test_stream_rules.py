"""The oracle is worth something only if it refuses what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support import frames, replies
from tests.support.fake_model import frames_of
from tests.support.playback import play
from tests.support.replies import call, reasoning, text
from tests.support.stream_rules import Event, check_events, check_stream, read_frames

GOOD = play(
    frames_of(replies.stream(reasoning("think"), text("Hel", "lo"), call("f", "{", "}"))),
    tools=["f"],
).raw


def events() -> list[Event]:
    return read_frames(GOOD)


def at(kind: str, found: list[Event]) -> int:
    return next(i for i, event in enumerate(found) if event["type"] == f"response.{kind}")


def dropped(kind: str) -> Callable[[list[Event]], None]:
    """Drop the first event of a kind; the rest is numbered anew."""

    def change(found: list[Event]) -> None:
        del found[at(kind, found)]
        for number, event in enumerate(found):
            event["sequence_number"] = number

    return change


def doubled(kind: str) -> Callable[[list[Event]], None]:
    def change(found: list[Event]) -> None:
        place = at(kind, found)
        found.insert(place, dict(found[place]))
        for number, event in enumerate(found):
            event["sequence_number"] = number

    return change


def changed(kind: str, *path: Any, to: Any) -> Callable[[list[Event]], None]:
    def change(found: list[Event]) -> None:
        target: Any = found[at(kind, found)]
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = to

    return change


def without(kind: str, *path: Any) -> Callable[[list[Event]], None]:
    def change(found: list[Event]) -> None:
        target: Any = found[at(kind, found)]
        for key in path[:-1]:
            target = target[key]
        del target[path[-1]]

    return change


WRONG = {
    "no created": dropped("created"),
    "no in_progress": dropped("in_progress"),
    "no terminal event": dropped("completed"),
    "two terminal events": doubled("completed"),
    "a gap in the numbers": changed("in_progress", "sequence_number", to=7),
    "another response id": changed("completed", "response", "id", to="resp_x"),
    "an item that was not added": dropped("output_item.added"),
    "an item that was not done": dropped("output_item.done"),
    "an item twice": doubled("output_item.done"),
    "a wrong output_index": changed("output_item.added", "output_index", to=1),
    "a changed item id": changed("output_item.done", "item", "id", to="x"),
    "a part that was not added": dropped("content_part.added"),
    "a part that was not done": dropped("content_part.done"),
    "a text that was not done": dropped("output_text.done"),
    "a lost delta": dropped("output_text.delta"),
    "a delta twice": doubled("output_text.delta"),
    "a delta of another item": changed("output_text.delta", "item_id", to="x"),
    "a delta of another part": changed("output_text.delta", "content_index", to=1),
    "lost arguments": dropped("function_call_arguments.delta"),
    "arguments that were not done": dropped("function_call_arguments.done"),
    "other arguments at the end": changed("function_call_arguments.done", "arguments", to="{ }"),
    "a lost reasoning delta": dropped("reasoning_text.delta"),
    "an output that was not streamed": changed("completed", "response", "output", to=[]),
    "another status": changed("completed", "response", "status", to="failed"),
    "a float for a time": changed("completed", "response", "created_at", to=1.5),
    "a null that is not one": changed("completed", "response", "metadata", to=None),
    "a missing field": without("completed", "response", "safety_identifier"),
    "no completed_at": changed("completed", "response", "completed_at", to=None),
    "a null phase": changed("output_item.done", "item", "phase", to=None),
    "wrong totals": changed("completed", "response", "usage", "total_tokens", to=-1),
    "an unknown event": changed("output_text.delta", "type", to="response.surprise"),
}


def test_a_good_stream_passes() -> None:
    """And with heartbeats in it."""
    assert len(check_stream(GOOD)) > 15
    check_stream(b"".join(frames.commented(frame + b"\n\n" for frame in GOOD.split(b"\n\n")[:-1])))


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_stream_is_refused(what: str) -> None:
    """One fault each."""
    found = events()
    WRONG[what](found)

    with pytest.raises((AssertionError, KeyError)):
        check_events(found)


@pytest.mark.parametrize(
    "raw",
    [
        GOOD.replace(b"\n", b"\r\n"),
        GOOD.removesuffix(b"data: [DONE]\n\n"),
        GOOD + b": keep-alive\n\n",
        GOOD + b"data: [DONE]\n\n",
        GOOD[:-1],
        GOOD.replace(b"event: response.created", b"event: response.creation"),
        GOOD.replace(b"event: response.created\n", b""),
    ],
    ids=["CRLF", "no DONE", "a comment behind DONE", "DONE twice", "cut", "event:", "no event:"],
)
def test_wrong_frames_are_refused(raw: bytes) -> None:
    """R11 and the end."""
    with pytest.raises(AssertionError):
        check_stream(raw)
