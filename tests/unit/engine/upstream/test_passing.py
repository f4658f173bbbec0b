"""`engine.upstream.passing`: items of the server's own tools, whatever its stream made of them (R4, R5)."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.response.turn import TurnRules
from tests.support import frames, replies
from tests.support.fake_model import frames_of
from tests.support.playback import play
from tests.support.replies import call, text
from tests.support.stream_rules import check_stream, response_of
from tests.support.upstream_calls import CALL, CODE, SEARCH, told, with_items

RULES = TurnRules(tools=True, upstream=True)


def with_id(item: dict[str, Any], number: int) -> dict[str, Any]:
    return {**item, "id": f"{item['id']}{number}"}


@st.composite
def a_turn(draw: st.DrawFn) -> tuple[list[bytes], int]:
    """The frames of some items, mixed, some lost, some twice; and how many items the output has."""
    made = draw(st.lists(st.sampled_from([SEARCH, CODE, CALL]), max_size=4))
    items = [with_id(item, number) for number, item in enumerate(made)]
    queues = [told(item, ".in_progress", ".completed", index=i) for i, item in enumerate(items)]
    mixed: list[bytes] = []
    while any(queues):
        queue = draw(st.sampled_from([queue for queue in queues if queue]))
        frame = queue.pop(0)
        mixed += [frame] * draw(st.sampled_from([1, 1, 1, 0, 2]))
    said = with_items(text("x"), call("f", "{}"), before=mixed, output=items)
    return list(frames_of(said)), len(items)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(a_turn(), st.data())
def test_any_mixture_becomes_a_stream_that_keeps_the_rules(
    turn: tuple[list[bytes], int], data: st.DataObject
) -> None:
    """R4, R5: each item of the terminal object once, at the least; nothing open at the end."""
    chunks, count = turn
    raw = play(chunks, tools=["f"], rules=RULES).raw
    response = response_of(check_stream(raw))
    passed = [i for i in response["output"] if i["type"] not in ("message", "function_call")]
    assert len(passed) >= count
    cut = chunks[: data.draw(st.integers(3, len(chunks)))]
    check_stream(play(cut, tools=["f"], rules=RULES, cut=True).raw)


def test_an_answer_that_is_no_stream_has_its_items_in_order() -> None:
    """R14: where a server does not stream although it was asked to."""
    said = frames_of(with_items(text("x"), before=[], output=[SEARCH, CALL]))
    raw = play([said[0], said[-1]], rules=TurnRules(upstream=True)).raw
    output = response_of(check_stream(raw))["output"]
    assert [item["type"] for item in output] == ["web_search_call", "mcp_call", "message"]


def test_text_that_was_held_comes_before_the_item_behind_it() -> None:
    """R8: prose that looked like the beginning of a call is shown in its place."""
    said = list(frames_of(replies.stream(text("see <tool"))))
    at = next(i for i, frame in enumerate(said) if b"output_text.done" in frame)
    chunks = [*said[:at], *told(SEARCH), *said[at:]]
    output = response_of(check_stream(play(chunks, tools=["f"], rules=RULES).raw))["output"]
    assert [item["type"] for item in output] == ["message", "web_search_call"]
    assert output[0]["content"][0]["text"] == "see <tool"


def test_events_of_another_kind_of_item_do_not_pass() -> None:
    """T1: vLLM tells of its browser both as a search and as a call of a server (#52443)."""
    foreign = frames.sse({"type": "response.mcp_call.in_progress", "item_id": "ws_theirs"})
    added, done = told(SEARCH)
    said = list(frames_of(with_items(text("x"), before=[added, foreign, done], output=[SEARCH])))
    events = check_stream(play(said, rules=TurnRules(upstream=True)).raw)
    assert "mcp_call" not in json.dumps(events)
