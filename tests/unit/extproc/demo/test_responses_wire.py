"""The Responses wire against what vLLM 0.32 was recorded to send."""

from __future__ import annotations

import re
from typing import Any

import pytest

from extproc.demo.answer import Answer, Part, call, reasoning, text
from extproc.demo.responses_wire import Reply, encode
from tests.support import transcripts

TOOLS = [
    {"type": "function", "name": name, "parameters": {"type": "object", "properties": {}}}
    for name in ("get_weather", "get_time", "ping")
]
PARIS = call("get_weather", '{"city": "Paris"}', call_id="chatcmpl-tool-aaa")
CET = call("get_time", '{"tz": "CET"}', call_id="chatcmpl-tool-bbb")
SPLIT_PARIS = call("get_weather", '{"city":', ' "Paris"}', call_id="chatcmpl-tool-aaa")
EMPTY_WEATHER = call("get_weather", "{}", call_id="chatcmpl-tool-aaa")
HELLO = text("Hel", "lo")

RECORDED: dict[str, tuple[list[Part], bool]] = {
    "text": ([HELLO], False),
    "reasoning_text": ([reasoning("think", "ing"), HELLO], False),
    "tool": ([SPLIT_PARIS], True),
    "tool_noargs": ([call("ping", call_id="chatcmpl-tool-aaa")], True),
    "parallel": ([PARIS, CET], True),
    "reasoning_tool": ([reasoning("think"), PARIS], True),
    "text_tool": ([text("Let me check."), EMPTY_WEATHER], True),
    "empty": ([], False),
}


def comparable(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events without what differs from run to run: hex ids and counted tokens."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(sub) for key, sub in value.items() if key != "usage"}
        if isinstance(value, list):
            return [clean(sub) for sub in value]
        return (
            re.sub(r"^(msg|rs|fc)_[0-9a-f]{16}$", r"\1_", value)
            if isinstance(value, str)
            else value
        )

    cleaned: list[dict[str, Any]] = clean(events)
    return cleaned


@pytest.mark.parametrize("scenario", RECORDED)
def test_a_stream_is_event_for_event_what_vllm_0_32_sends(scenario: str) -> None:
    """Same events, same fields, same values, up to ids and token counts."""
    parts, with_tools = RECORDED[scenario]
    body = {"model": "m", "request_id": "resp_0001", "max_output_tokens": 100}
    body |= {"tools": TOOLS} if with_tools else {}
    ours = list(Reply(body, Answer(tuple(parts)), "seed").events())
    theirs = transcripts.load(f"0.32.0/{scenario}").events()
    assert comparable(ours) == comparable(theirs)


def test_a_usage_object_has_the_keys_of_vllm() -> None:
    """Also those that no specification has."""
    ours = Reply({}, Answer((HELLO,)), "seed").response()["usage"]
    theirs = transcripts.load("0.32.0/text").events()[-1]["response"]["usage"]
    assert list(ours) == list(theirs)
    for details in ("input_tokens_details", "output_tokens_details"):
        assert list(ours[details]) == list(theirs[details])


def test_usage_counts_deltas_and_adds_up() -> None:
    """Total is input plus output, and reasoning is part of the output."""
    reply = Reply({}, Answer((reasoning("a", "b"), HELLO), input_tokens=7, cached_tokens=2), "seed")
    usage = reply.response()["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (7, 4, 11)
    assert usage["output_tokens_details"]["reasoning_tokens"] == 2
    assert usage["input_tokens_details"]["cached_tokens"] == 2


def test_a_cut_answer_ends_incomplete() -> None:
    """As vLLM does from 0.33 on: the event, the response and the last item say so."""
    events = list(Reply({}, Answer((reasoning("a"), HELLO), cut_short=True), "seed").events())
    last = events[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert [item["status"] for item in last["response"]["output"]] == ["completed", "incomplete"]
    done = [e["item"]["status"] for e in events if e["type"] == "response.output_item.done"]
    assert done == ["completed", "incomplete"]


def test_the_terminal_object_is_the_whole_non_streaming_body() -> None:
    """Streamed and not streamed, a client gets the same response."""
    reply = Reply({"model": "m"}, Answer((HELLO, PARIS)), "seed")
    assert list(reply.events())[-1]["response"] == reply.response()


def test_equal_seeds_give_equal_bytes_and_other_seeds_other_ids() -> None:
    """Deterministic for tests, and no call_id comes twice in a conversation."""
    answer = Answer((call("f", "{}"),))

    def call_id(seed: str) -> str:
        return str(Reply({}, answer, seed).response()["output"][0]["call_id"])

    assert call_id("a") == call_id("a") != call_id("b")


def test_a_custom_tool_call_has_its_own_item_and_events() -> None:
    """Since 0.32: id ctc_, free text input."""
    events = list(Reply({}, Answer((call("patch", "a", "b", custom=True),)), "seed").events())
    item = events[-1]["response"]["output"][0]
    assert (item["type"], item["input"], item["id"][:4]) == ("custom_tool_call", "ab", "ctc_")
    kinds = [event["type"] for event in events]
    assert kinds.count("response.custom_tool_call_input.delta") == 2
    assert kinds.count("response.custom_tool_call_input.done") == 1


def test_logprobs_stand_in_deltas_and_in_the_finished_part() -> None:
    """One entry per token, so many alternatives, bytes in the finished part."""
    events = list(Reply({}, Answer((text("Gr", "üße"),), logprobs=2), "seed").events())
    deltas = [e for e in events if e["type"] == "response.output_text.delta"]
    assert [d["logprobs"][0]["token"] for d in deltas] == ["Gr", "üße"]
    part = events[-1]["response"]["output"][0]["content"][0]
    assert [len(entry["top_logprobs"]) for entry in part["logprobs"]] == [2, 2]
    assert bytes(part["logprobs"][1]["bytes"]).decode() == "üße"


def test_a_frame_is_an_event_line_and_a_data_line() -> None:
    """UTF-8 unescaped, LF, one blank line."""
    frame = encode({"delta": "é", "type": "x"})
    assert frame == 'event: x\ndata: {"delta":"é","type":"x"}\n\n'.encode()


def test_the_request_is_echoed() -> None:
    """Instructions, metadata, temperature and the computed budget."""
    body = {"instructions": "brief", "metadata": {"a": "b"}, "temperature": 0.1, "tools": TOOLS}
    response = Reply(body, Answer((HELLO,)), "seed").response()
    assert (response["instructions"], response["metadata"]) == ("brief", {"a": "b"})
    assert (response["temperature"], response["tool_choice"]) == (0.1, "auto")
    assert response["max_output_tokens"] > 1000
