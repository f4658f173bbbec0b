"""`engine.response.output` and `open_items`: what becomes of content, item by item."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.api.events import EventWriter
from engine.ids import ItemIds
from engine.response.inputs import (
    ArgumentsDelta,
    Content,
    ItemStarted,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
)
from engine.response.output import Output


def made(*contents: Content, status: str = "completed") -> tuple[list[Any], list[Any], Output]:
    """Return the events, the items, and the output."""
    output = Output(ItemIds("resp_ab"), EventWriter())
    raw = b"".join(output.receive(content) for content in contents) + output.close(status)
    events = [json.loads(block.split(b"data: ")[1]) for block in raw.split(b"\n\n")[:-1]]
    return events, [json.loads(item.item) for item in output.items], output


def test_a_message_has_the_events_of_the_api_in_their_order() -> None:
    """R6: with all fields, also in the empty item."""
    events, [item], output = made(ItemStarted("message"), TextDelta("Hel"), TextDelta("lo"))

    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    place = {"item_id": "msg_ab0000", "output_index": 0, "content_index": 0}
    head = {"id": "msg_ab0000", "type": "message", "role": "assistant"}
    done = {**head, "status": "completed", "content": [{**part, "text": "Hello"}]}
    number = [{"sequence_number": i} for i in range(7)]
    kind = "response.output_text"
    assert events == [
        {
            "type": "response.output_item.added",
            **number[0],
            "output_index": 0,
            "item": {**head, "status": "in_progress", "content": []},
        },
        {"type": "response.content_part.added", **number[1], **place, "part": part},
        {"type": f"{kind}.delta", **number[2], **place, "delta": "Hel", "logprobs": []},
        {"type": f"{kind}.delta", **number[3], **place, "delta": "lo", "logprobs": []},
        {"type": f"{kind}.done", **number[4], **place, "text": "Hello", "logprobs": []},
        {
            "type": "response.content_part.done",
            **number[5],
            **place,
            "part": {**part, "text": "Hello"},
        },
        {"type": "response.output_item.done", **number[6], "output_index": 0, "item": done},
    ]
    assert item == done
    assert output.items[0].replay == b'{"role":"assistant","content":"Hello"}'
    assert output.items[0].call_id is None


def test_text_and_refusal_are_parts_of_one_message() -> None:
    """R6: counted by content_index."""
    _, [item], _ = made(
        ItemStarted("message"), TextDelta("a"), RefusalDelta("b"), RefusalDelta("c"), TextDelta("d")
    )
    assert [part.get("text", part.get("refusal")) for part in item["content"]] == ["a", "bc", "d"]
    assert item["content"][1] == {"type": "refusal", "refusal": "bc"}


def test_reasoning_has_its_text_and_its_summary_apart() -> None:
    """Each counted by its own index; `content` is left out where there is none."""
    events, items, _ = made(
        ItemStarted("reasoning"),
        SummaryDelta("s"),
        ReasoningDelta("r"),
        SummaryDelta("t"),
        ItemStarted("reasoning"),
        SummaryDelta("only"),
    )
    assert [part["text"] for part in items[0]["summary"]] == ["s", "t"]
    assert items[0]["content"] == [{"type": "reasoning_text", "text": "r"}]
    assert "content" not in items[1]
    added = [event for event in events if event["type"].endswith("_part.added")]
    assert [e.get("summary_index", e.get("content_index")) for e in added] == [0, 0, 1, 0]


@pytest.mark.parametrize(
    ("deltas", "arguments"), [([], "{}"), (["", " "], " {}"), (['{"a"', ":1}"], '{"a":1}')]
)
def test_a_finished_call_has_arguments_that_are_json(deltas: list[str], arguments: str) -> None:
    """R7: `{}` for none, and a delta that says so."""
    events, [item], output = made(ItemStarted("function_call", "f"), *map(ArgumentsDelta, deltas))
    said = [e["delta"] for e in events if e["type"].endswith("arguments.delta")]
    done = next(e for e in events if e["type"].endswith("arguments.done"))
    assert "".join(said) == done["arguments"] == item["arguments"] == arguments
    assert json.loads(arguments) is not None
    assert done["name"] == item["name"] == "f"
    assert output.items[0].call_id == item["call_id"] == "call_ab0001"


def test_a_call_that_was_cut_has_no_end_of_its_arguments() -> None:
    """R9: nobody shall run it, and no later turn sends it to a model."""
    events, [item], output = made(
        ItemStarted("function_call", "f"), ArgumentsDelta('{"a'), status="incomplete"
    )
    assert not [e for e in events if e["type"].endswith("arguments.done")]
    assert (item["status"], item["arguments"]) == ("incomplete", '{"a')
    assert output.items[0].replay is None


def test_only_the_last_item_is_incomplete() -> None:
    """R9: the ones before it were finished."""
    _, items, _ = made(
        ItemStarted("message"), TextDelta("a"), ItemStarted("message"), status="incomplete"
    )
    assert [item["status"] for item in items] == ["completed", "incomplete"]


def test_logprobs_are_passed_on_and_collected() -> None:
    """In the delta, in the done event, in the item."""
    events, [item], _ = made(
        ItemStarted("message"),
        TextDelta("a", b'[{"token":"a"}]'),
        TextDelta("b"),
        TextDelta("c", b'[{"token":"c"},{"token":"d"}]'),
    )
    tokens = [{"token": t} for t in "acd"]
    assert item["content"][0]["logprobs"] == tokens
    assert next(e for e in events if e["type"].endswith("text.done"))["logprobs"] == tokens


def test_text_of_every_kind_survives() -> None:
    """No line end, no quote, no NUL breaks a frame (R11)."""
    text = '\n\r\t"\\\x00\u2028é😀</script>'
    _, [item], _ = made(ItemStarted("message"), TextDelta(text))
    assert item["content"][0]["text"] == text


def test_what_is_held_is_counted() -> None:
    """X5: text, log probabilities, names, and the items themselves."""
    _, _, output = made(ItemStarted("message"), TextDelta("abc", b'["x"]'))
    assert output.size >= 3 + 5
    _, _, output = made(*[ItemStarted("function_call", "f")] * 10)
    assert output.size >= 10 * 100
