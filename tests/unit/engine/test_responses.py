"""`engine.responses`: what is refused before a run, how turns follow each other, what can be read back."""

from __future__ import annotations

import itertools
import json
from functools import partial
from typing import Any

import pytest

from engine.errors import InvalidRequest, NotFound, StorageUnavailable, UnknownPreviousResponse
from engine.intake import Caller
from tests.support import replies
from tests.support.engine_rig import CALLER, Rig, final, small
from tests.support.fake_model import FakeModel, frames_of
from tests.support.fake_reply import FakeReply
from tests.support.replies import call, reasoning, text

HELLO = frames_of(replies.stream(text("Hel", "lo")))
WEATHER = frames_of(replies.stream(reasoning("hm"), call("f", '{"a":', " 1}")))
TOOLS = [{"type": "function", "name": "f"}]
STRANGER = Caller("stranger")


def sent(rig: Rig, turn: int = -1) -> Any:
    """Return what the model was sent, turn by turn."""
    return json.loads(rig.model.bodies[turn])


async def error_of(rig: Rig, **fields: Any) -> dict[str, Any]:
    """Return the error of a request that is refused."""
    reply = await rig.create(**fields)
    assert reply.whole is not None
    assert reply.whole.status == 400
    error: dict[str, Any] = reply.json["error"]
    return error


# -- turns -------------------------------------------------------------------------------------------


async def test_the_model_gets_the_input_and_output_of_all_turns_before() -> None:
    """M2: in order; `instructions` are this turn's only."""
    rig = Rig(FakeModel(*HELLO))
    first = (await rig.create(input="one", instructions="be brief")).json
    second = (await rig.create(input="two", previous_response_id=first["id"])).json
    await rig.create(input="three", previous_response_id=second["id"])

    body = sent(rig)
    said = [(item["role"], item["content"]) for item in body["input"]]
    answer = ("assistant", "Hello")
    assert said == [("user", "one"), answer, ("user", "two"), answer, ("user", "three")]
    assert "instructions" not in body
    assert (body["stream"], body["store"]) == (True, False)


async def test_the_bytes_of_a_shared_history_are_the_same_in_each_turn() -> None:
    """M9: five turns; each body begins with all of the one before but its end."""
    rig = Rig(FakeModel(*WEATHER))
    previous: str | None = None
    given: object = "What is the weather? Grüße"
    for turn in range(5):
        response = (await rig.create(input=given, tools=TOOLS, previous_response_id=previous)).json
        previous = response["id"]
        call_id = response["output"][-1]["call_id"]
        given = [{"type": "function_call_output", "call_id": call_id, "output": f"{turn}°"}]

    bodies = rig.model.bodies
    assert len(bodies) == 5
    for shorter, longer in itertools.pairwise(bodies):
        assert shorter.endswith(b"]}")
        assert longer.startswith(shorter[:-2])


async def test_two_continuations_of_one_response_do_not_see_each_other() -> None:
    """M10: branches."""
    rig = Rig(FakeModel(*HELLO))
    first = (await rig.create(input="one")).json
    for branch in ("left", "right"):
        await rig.create(input=branch, previous_response_id=first["id"])

    assert [item["content"] for item in sent(rig)["input"]] == ["one", "Hello", "right"]


async def test_a_deleted_response_leaves_its_descendants_usable() -> None:
    """P7: its items are gone, calls and outputs without their other half are not sent."""
    rig = Rig(FakeModel(*WEATHER))
    first = (await rig.create(input="one", tools=TOOLS)).json
    call_id = first["output"][-1]["call_id"]
    output = [{"type": "function_call_output", "call_id": call_id, "output": "42"}]
    rig.model.steps = tuple(HELLO)
    second = (await rig.create(input=output, previous_response_id=first["id"])).json
    await rig.responses.delete(CALLER, first["id"], "")

    await rig.create(input="three", previous_response_id=second["id"])

    assert [item.get("content") for item in sent(rig)["input"]] == ["Hello", "three"]


async def test_a_pending_call_must_be_answered() -> None:
    """M6, M5: by its call_id, once, and by no other."""
    rig = Rig(FakeModel(*WEATHER))
    first = (await rig.create(input="one", tools=TOOLS)).json
    call_id = first["output"][-1]["call_id"]
    output = {"type": "function_call_output", "call_id": call_id, "output": "42"}
    follow = {"previous_response_id": first["id"]}

    missing = await error_of(rig, input="two", **follow)
    unknown = await error_of(rig, input=[{**output, "call_id": "call_x"}, output], **follow)
    twice = await error_of(rig, input=[output, output], **follow)
    assert (missing["code"], missing["param"]) == ("missing_tool_output", "input")
    assert (unknown["code"], unknown["param"]) == ("unknown_call_id", "input[0].call_id")
    assert (twice["code"], twice["param"]) == ("unknown_call_id", "input[1].call_id")

    reply = await rig.create(input=[output, {"role": "user", "content": "go on"}], **follow)
    assert reply.whole is not None
    assert reply.whole.status == 200


async def test_the_output_of_a_response_can_be_fed_back_as_input() -> None:
    """M4: clients that keep the history themselves send our items, ids and all."""
    rig = Rig(FakeModel(*WEATHER))
    first = (await rig.create(input="one", tools=TOOLS)).json
    call_id = first["output"][-1]["call_id"]
    output = {"type": "function_call_output", "call_id": call_id, "output": "42"}
    history = [{"role": "user", "content": "one"}, *first["output"], output]

    second = (await rig.create(input=history, tools=TOOLS)).json
    page = await rig.responses.list_input_items(CALLER, second["id"], "order=asc")

    shown = json.loads(page.body)["data"]
    assert shown[1:3] == first["output"]
    assert [item["id"] for item in shown[1:3]] == [item["id"] for item in first["output"]]


async def test_a_reference_stands_for_a_stored_item() -> None:
    """M8: in the context, and in the list of input items."""
    rig = Rig(FakeModel(*HELLO))
    first = (await rig.create(input="one")).json
    item_id = first["output"][0]["id"]

    reply = await rig.create(input=[{"type": "item_reference", "id": item_id}, {"id": item_id}])

    assert sent(rig)["input"] == [{"role": "assistant", "content": "Hello"}] * 2
    assert reply.whole is not None
    assert reply.whole.status == 200


async def test_a_reference_to_nothing_is_refused() -> None:
    """H1: also to an item of another tenant."""
    rig = Rig(FakeModel(*HELLO))

    error = await error_of(rig, input=[{"type": "item_reference", "id": "msg_x"}])

    assert (error["code"], error["param"]) == ("item_not_found", "input[0].id")
    assert not rig.model.bodies


@pytest.mark.parametrize("stream", [True, False])
async def test_an_unknown_previous_response_is_refused_before_any_byte(stream: bool) -> None:
    """M3: 400 with code and param, also for a stream, also for what no store could hold."""
    rig = Rig(FakeModel(*HELLO))
    for wanted in ("resp_unknown", "resp_\0", "x" * 2000):
        error = await error_of(rig, previous_response_id=wanted, stream=stream)
        assert (error["code"], error["param"]) == (
            "previous_response_not_found",
            "previous_response_id",
        )
    assert not rig.model.bodies


async def test_a_foreign_previous_response_is_unknown() -> None:
    """M3, X1: another tenant's id is none."""
    rig = Rig(FakeModel(*HELLO))
    mine = (await rig.create()).json["id"]
    body = json.dumps({"model": "m", "input": "hi", "previous_response_id": mine}).encode()

    with pytest.raises(UnknownPreviousResponse):
        await rig.responses.create(STRANGER, body, "", FakeReply())


async def test_a_running_response_cannot_be_continued() -> None:
    """Its output is not known yet."""
    rig = Rig(FakeModel(*HELLO))
    rig.store.faults["finish"] = StorageUnavailable("gone")
    await rig.create()
    running = await rig.the_stored()

    error = await error_of(rig, previous_response_id=running.id)

    assert error["code"] == "previous_response_not_finished"


async def test_a_response_that_failed_can_be_continued_with_what_it_made() -> None:
    """M2: what was said was said."""
    rig = Rig(FakeModel(*HELLO[:6]))
    failed = final(await rig.stream(input="one"))
    assert failed["status"] == "failed"
    rig.model.steps = tuple(HELLO)

    await rig.create(input="two", previous_response_id=failed["id"])

    assert [item["content"] for item in sent(rig)["input"]] == ["one", "Hello", "two"]


async def test_a_store_that_is_down_refuses_a_continuation() -> None:
    """P2: 503 with retry-after; the model is not called."""
    rig = Rig(FakeModel(*HELLO))
    rig.store.faults["load_context"] = StorageUnavailable("gone")

    reply = await rig.create(previous_response_id="resp_1", stream=True)

    assert reply.whole is not None
    assert (reply.whole.status, reply.whole.headers) == (503, {"retry-after": "1"})
    assert not rig.model.bodies


async def test_only_the_allowed_tools_reach_the_client() -> None:
    """T4: `allowed_tools` is a hard limit, whatever the model calls."""
    rig = Rig(FakeModel(*WEATHER))
    tools = [*TOOLS, {"type": "function", "name": "g"}]
    allowed = {"type": "allowed_tools", "tools": [{"type": "function", "name": "g"}]}

    response = final(await rig.stream(tools=tools, tool_choice=allowed))

    assert [item["type"] for item in response["output"]] == ["reasoning"]
    assert [tool["name"] for tool in sent(rig)["tools"]] == ["g"]
    assert len(response["tools"]) == 2


async def test_one_call_is_let_through_where_parallel_calls_are_not_wanted() -> None:
    """Not all servers keep `parallel_tool_calls: false`."""
    both = frames_of(replies.stream(call("f", "{}"), call("f", '{"b": 2}')))
    rig = Rig(FakeModel(*both))

    response = final(await rig.stream(tools=TOOLS, parallel_tool_calls=False))

    assert [item["arguments"] for item in response["output"]] == ["{}"]


# -- reading back ------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["retrieve", "delete", "cancel", "list_input_items"])
async def test_foreign_and_missing_ids_are_the_same_404(operation: str) -> None:
    """X1: byte for byte, but for the id itself."""
    rig = Rig(FakeModel(*HELLO))
    mine = (await rig.create()).json["id"]
    run = getattr(rig.responses, operation)
    if operation == "retrieve":
        run = partial(run, reply=FakeReply())

    with pytest.raises(NotFound) as missing:
        await run(CALLER, "resp_x", "")
    with pytest.raises(NotFound) as foreign:
        await run(STRANGER, mine, "")

    assert foreign.value.message == missing.value.message.replace("resp_x", mine)
    assert foreign.value.code == missing.value.code == "not_found"
    assert (await rig.retrieve(mine))["id"] == mine


async def test_a_deleted_response_is_gone() -> None:
    """P7: the second time it is a 404."""
    rig = Rig(FakeModel(*HELLO))
    wanted = (await rig.create()).json["id"]

    answer = await rig.responses.delete(CALLER, wanted, "")

    assert json.loads(answer.body) == {"id": wanted, "object": "response", "deleted": True}
    with pytest.raises(NotFound):
        await rig.responses.delete(CALLER, wanted, "")


async def test_only_background_responses_can_be_cancelled() -> None:
    """A 400 that says so."""
    rig = Rig(FakeModel(*HELLO))
    wanted = (await rig.create()).json["id"]

    with pytest.raises(InvalidRequest) as refused:
        await rig.responses.cancel(CALLER, wanted, "")

    assert refused.value.code == "response_not_in_background"


async def test_responses_are_listed_newest_first_and_by_model() -> None:
    """H2: with cursors."""
    rig = Rig(FakeModel(*HELLO))
    ids = [(await rig.create(model=model)).json["id"] for model in ("a", "b", "a")]

    page = json.loads((await rig.responses.list(CALLER, "limit=2")).body)
    rest = json.loads((await rig.responses.list(CALLER, f"after={page['last_id']}")).body)
    of_a = json.loads((await rig.responses.list(CALLER, "model=a&order=asc")).body)

    assert [r["id"] for r in page["data"]] == [ids[2], ids[1]]
    assert (page["has_more"], page["first_id"], page["last_id"]) == (True, ids[2], ids[1])
    assert [r["id"] for r in rest["data"]] == [ids[0]]
    assert rest["has_more"] is False
    assert [r["id"] for r in of_a["data"]] == [ids[0], ids[2]]
    assert json.loads((await rig.responses.list(STRANGER, "")).body)["data"] == []


async def test_input_items_are_listed_in_the_form_that_the_api_shows() -> None:
    """With id and status; message content is a list."""
    rig = Rig(FakeModel(*HELLO))
    wanted = (await rig.create(input="one")).json["id"]

    page = json.loads((await rig.responses.list_input_items(CALLER, wanted, "")).body)

    [item] = page["data"]
    assert item["content"] == [{"type": "input_text", "text": "one"}]
    assert (item["type"], item["role"], item["status"]) == ("message", "user", "completed")
    assert item["id"].startswith("msg_")


async def test_references_to_one_large_item_are_bounded_together() -> None:
    """X5: a small request must not become a huge one for the model and for the store."""
    rig = Rig(FakeModel(*HELLO), limits=small(context_bytes=10_000))
    item = {"type": "message", "role": "user", "content": "x" * 3000, "id": "msg_large"}
    await rig.create(input=[item])

    error = await error_of(rig, input=[{"type": "item_reference", "id": "msg_large"}] * 4)

    assert (error["code"], error["param"]) == ("context_length_exceeded", "input")
    assert len(rig.model.bodies) == 1
