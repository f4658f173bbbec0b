"""`extproc.doctor.stream_faults`: what a strict client would say of recorded streams."""

from __future__ import annotations

import pytest

from extproc.doctor.stream_faults import faults_of
from tests.support import replies, transcripts
from tests.support.fake_model import frames_of
from tests.support.replies import call, reasoning, text
from tests.support.transcripts import event_of


def codes(name: str) -> set[str]:
    return {fault.code for fault in faults_of(list(transcripts.load(name).events()))}


def test_a_right_stream_has_no_fault() -> None:
    """R1-R11: text, reasoning and two calls, as the newest release says them."""
    parts = (reasoning("th", "ink"), text("Hel", "lo"), call("f", "{}"), call("g", '{"a":', "1}"))
    assert faults_of([event_of(frame) for frame in frames_of(replies.stream(*parts))]) == []


@pytest.mark.parametrize("scenario", ["text", "tool", "parallel", "reasoning_text"])
def test_the_newest_recorded_release_is_right(scenario: str) -> None:
    """R4-R7: it has no fault that a client would trip over."""
    assert codes(f"0.32.0/{scenario}") == set()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("0.16.0/text", "parts"),
        ("0.16.0/parallel", "markup"),
        ("0.16.0/parallel", "unstreamed"),
        ("0.18.1/parallel", "arguments"),
        ("0.18.1/parallel", "pairs"),
        ("0.20.0/tool_noargs", "pairs"),
        ("0.21.0/tool_noargs", "arguments"),
        ("0.28.0/tool", "call-ids"),
        ("0.28.0/text", "item-ids"),
        ("0.28.0/reasoning_text", "names"),
        ("0.32.0/length", "truncation"),
        ("0.28.0/error", "no-terminal"),
    ],
)
def test_what_is_known_of_a_release_is_seen(name: str, expected: str) -> None:
    """Each of the faults that made the table of releases."""
    assert expected in codes(name)


def test_numbers_and_names_of_other_servers_are_seen() -> None:
    """llama.cpp has no sequence numbers, others change the response's id or begin in the middle."""
    events = [event_of(frame) for frame in frames_of(replies.stream(text("Hi")))]
    unnumbered = [{k: v for k, v in e.items() if k != "sequence_number"} for e in events]
    assert [fault.code for fault in faults_of(unnumbered)] == ["numbers"]
    assert {fault.code for fault in faults_of(events[1:])} == {"opening", "numbers"}
    events[-1] = {**events[-1], "response": {**events[-1]["response"], "id": "resp_other"}}
    assert [fault.code for fault in faults_of(events)] == ["identity"]


def test_nothing_is_a_fault_too() -> None:
    """R1: a stream without an event."""
    assert {fault.code for fault in faults_of([])} == {"opening", "no-terminal"}
