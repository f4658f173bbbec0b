"""Every recorded vLLM stream, through normaliser and machine, to the client."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import frames, transcripts
from tests.support.playback import Played, play
from tests.support.sdk import accumulated
from tests.support.stream_rules import check_stream, response_of

TOOLS = ("get_weather", "get_time", "ping")
PARIS = ("get_weather", {"city": "Paris"})

Call = tuple[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class Expected:
    """What a scenario comes to, whatever the release."""

    status: str = "completed"
    text: str = ""
    reasoning: str = ""
    calls: tuple[Call, ...] = ()


SCENARIOS = {
    "empty": Expected(),
    "error": Expected("failed", text="Hel"),
    "length": Expected("incomplete", text="Hello"),
    "parallel": Expected(calls=(PARIS, ("get_time", {"tz": "CET"}))),
    "reasoning_only_length": Expected("incomplete", reasoning="thinking"),
    "reasoning_text": Expected(text="Hello", reasoning="thinking"),
    "reasoning_tool": Expected(reasoning="think", calls=(PARIS,)),
    "text": Expected(text="Hello"),
    "text_tool": Expected(text="Let me check.", calls=(("get_weather", {}),)),
    "tool": Expected(calls=(PARIS,)),
    "tool_noargs": Expected(calls=(("ping", {}),)),
}

every = pytest.mark.parametrize("name", transcripts.names())


def played(name: str) -> Played:
    recorded = transcripts.load(name)
    return play(recorded.frames, tools=TOOLS, cut=recorded.cut)


def test_the_table_has_every_scenario() -> None:
    """A new recording needs its row."""
    assert {name.split("/")[1] for name in transcripts.names()} == set(SCENARIOS)


@every
def test_a_recording_comes_out_as_the_api_says(name: str) -> None:
    """R1-R9: all rules of the stream, and the content that the model made."""
    expected = SCENARIOS[name.split("/")[1]]

    response = response_of(check_stream(played(name).raw))

    output = response["output"]
    texts = [p["text"] for i in output if i["type"] == "message" for p in i["content"]]
    thoughts = [p["text"] for i in output if i["type"] == "reasoning" for p in i["content"]]
    calls = [
        (i["name"], json.loads(i["arguments"])) for i in output if i["type"] == "function_call"
    ]
    got = Expected(response["status"], "".join(texts), "".join(thoughts), tuple(calls))
    assert got == expected
    kinds = [item["type"] for item in output]
    assert kinds == sorted(kinds, key=("reasoning", "message", "function_call").index)
    assert len(texts) <= 1


@every
def test_a_recording_is_stored_as_it_was_shown(name: str) -> None:
    """R14: what is saved, what a client that streams sees last, and what one that does not gets."""
    result = played(name)
    shown = response_of(check_stream(result.raw))

    assert result.saved is not None
    assert [json.loads(item.item) for item in result.saved.output] == shown["output"]
    assert json.loads(result.saved.head) == {k: v for k, v in shown.items() if k != "output"}
    assert result.saved.status == shown["status"]
    assert result.response == shown


@every
def test_no_markup_reaches_a_text_delta(name: str) -> None:
    """R8: also from the releases that stream calls as text."""
    for event in check_stream(played(name).raw):
        if event["type"] == "response.output_text.delta":
            assert "<tool_call>" not in event["delta"]


@every
def test_the_sdk_accepts_a_recording(name: str) -> None:
    """R14: its strict accumulator comes to the same object, but for failed and incomplete responses."""
    raw = played(name).raw
    expected = SCENARIOS[name.split("/")[1]]
    if expected.status == "incomplete":
        with pytest.raises(RuntimeError, match=r"Didn't receive a `response.completed` event"):
            accumulated(raw)
        return
    if expected.status == "failed":
        with pytest.raises(openai.APIError):
            accumulated(raw)
        return
    response = accumulated(raw)
    assert response.output_text == expected.text
    got = json.loads(response.to_json(exclude_unset=True))
    shown = response_of(check_stream(raw))
    assert [item["id"] for item in got["output"]] == [item["id"] for item in shown["output"]]


@every
def test_a_recording_is_the_same_without_a_stored_response(name: str) -> None:
    """`store: false` changes nothing of the stream."""
    recorded = transcripts.load(name)
    unstored = play(recorded.frames, tools=TOOLS, cut=recorded.cut, store=False)

    assert unstored.raw == played(name).raw
    assert unstored.saved is None


SPELLINGS: dict[str, Callable[[Iterable[bytes]], Iterable[bytes]]] = {
    "CRLF": frames.crlf,
    "mixed line ends": frames.mixed_line_ends,
    "no event lines": frames.without_event_lines,
    "no space": frames.without_space,
    "data in several lines": frames.multi_line_data,
    "comments": frames.commented,
    "one write": lambda writes: frames.joined(writes, None),
    "byte by byte": lambda writes: frames.split_every(writes, 1),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_spelling_of_the_stream_does_not_matter(scenario: str, spelling: str) -> None:
    """R11: any line ends, any splits, comments, missing `event:`."""
    recorded = transcripts.load(f"0.32.0/{scenario}")
    spelt = list(SPELLINGS[spelling](recorded.frames))

    assert play(spelt, tools=TOOLS, cut=recorded.cut).raw == played(f"0.32.0/{scenario}").raw


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_any_split_of_the_bytes_gives_the_same_stream(data: st.DataObject) -> None:
    """R11: inside UTF-8, inside CRLF, anywhere."""
    name = data.draw(st.sampled_from(transcripts.names()))
    recorded = transcripts.load(name)
    body = b"".join(recorded.frames)
    if data.draw(st.booleans()):
        body = body.replace(b"\n", b"\r\n")
    offsets = data.draw(st.lists(st.integers(0, len(body)), max_size=12))
    split = frames.split_at([body], *offsets)

    assert play(split, tools=TOOLS, cut=recorded.cut).raw == played(name).raw


@pytest.mark.parametrize("name", [n for n in transcripts.names() if n.endswith(("tool", "text"))])
def test_a_recording_that_breaks_anywhere_ends_in_order(name: str) -> None:
    """R1: cut behind each of its events, one terminal event and [DONE]; only the whole one completes."""
    recorded = transcripts.load(name).frames
    for count in range(len(recorded) + 1):
        response = response_of(check_stream(play(recorded[:count], tools=TOOLS, cut=True).raw))
        assert response["status"] == ("completed" if count == len(recorded) else "failed")
