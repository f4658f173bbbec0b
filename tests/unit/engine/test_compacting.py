"""`POST /v1/responses/compact`, and its output as input (rules H1, M2, M9, X1, X4)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.answers import Answer, error_answer
from engine.context.summaries import PROMPT
from engine.errors import EngineError
from engine.intake import Caller
from extproc.sealing import AesSealing, NoSealing
from tests.support import replies
from tests.support.counting_model import inputs
from tests.support.engine_rig import CALLER, NOW, Rig, final
from tests.support.fake_model import JSON, FakeModel, Head, frames_of
from tests.support.fake_reply import FakeReply
from tests.support.replies import call, reasoning, text

DONE = frames_of(replies.stream(reasoning("hm"), text("They said", " hello.")))
SUMMARY = "Summary of the conversation up to this point:\n\nThey said hello."
OTHER = Caller("other")
USER = {"role": "user", "content": "hello"}
ASSISTANT = {"role": "assistant", "content": "hi"}


async def compact(rig: Rig, caller: Caller = CALLER, **fields: Any) -> Answer:
    body = json.dumps({"model": "m", **fields}).encode()
    try:
        reply = FakeReply()
        await rig.compacting.compact(caller, body, "", reply)
        assert reply.whole is not None
        assert reply.told is not None
        shown = json.loads(reply.whole.body)["usage"]
        # What it took is told, for its tenant's budget.
        assert reply.told.facts()["total_tokens"] == shown["total_tokens"]
        return reply.whole
    except EngineError as error:
        return error_answer(error)


async def compacted(rig: Rig, **fields: Any) -> Any:
    answer = await compact(rig, **fields)
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


async def test_input_becomes_users_messages_and_a_summary() -> None:
    """The model is asked once, with what it would be sent for a response, and nothing is stored."""
    rig = Rig(FakeModel(*DONE))
    found = await compacted(rig, input=[USER, ASSISTANT, USER], instructions="be kind")
    assert found["object"] == "response.compaction"
    assert found["created_at"] == NOW
    assert found["id"].startswith("resp_")
    assert found["usage"]["total_tokens"] > 0
    first, second, last = found["output"]
    assert first["content"] == [{"type": "input_text", "text": "hello"}]
    assert (first["role"], second["role"], last["type"]) == ("user", "user", "compaction")
    assert last["id"].startswith("cmp_")
    assert set(last) == {"id", "type", "encrypted_content"}
    assert "hello" not in last["encrypted_content"]
    asked = json.loads(rig.model.bodies[0])
    assert asked["instructions"] == "be kind"
    assert asked["input"] == [USER, ASSISTANT, USER, {"role": "user", "content": PROMPT}]
    assert await rig.stored() == []


async def test_its_output_is_input_and_goes_on_by_previous_response() -> None:
    """M2, M9: the model is sent the same bytes in each later turn; it is shown as it came."""
    rig = Rig(FakeModel(*DONE))
    output = (await compacted(rig, input=[USER, ASSISTANT]))["output"]
    first = final(await rig.stream(input=[*output, {"role": "user", "content": "more"}]))
    sent = inputs(rig.model)
    more = {"role": "user", "content": "more"}
    assert sent == [USER, {"role": "user", "content": SUMMARY}, more]
    await rig.create(input="and more", previous_response_id=first["id"])
    before, after = rig.model.bodies[-2:]
    assert after.startswith(before.removesuffix(b"]}"))
    page = await rig.store.list_input_items(
        CALLER.tenant, first["id"], limit=10, after=None, order="asc"
    )
    assert page is not None
    assert json.loads(page.items[1]) == output[1]


async def test_a_stored_conversation_is_compacted_by_its_last_response() -> None:
    """M2: history and input; the messages are those of the users, of all its turns."""
    rig = Rig(FakeModel(*DONE))
    first = final(await rig.stream(input="one"))
    second = final(await rig.stream(input="two", previous_response_id=first["id"]))
    found = await compacted(rig, previous_response_id=second["id"])
    said = [item["content"][0]["text"] for item in found["output"][:-1]]
    assert said == ["one", "two"]
    kept = await rig.store.list_input_items(
        CALLER.tenant, first["id"], limit=10, after=None, order="asc"
    )
    assert kept is not None
    assert found["output"][0] == json.loads(kept.items[0])
    assert len(await rig.stored()) == 2


async def test_messages_are_those_of_the_conversation_whatever_else_has_their_ids() -> None:
    """M10: clients choose ids and repeat them: in one conversation, and in others."""
    rig = Rig(FakeModel(*DONE))

    async def say(words: str, **fields: Any) -> Any:
        said = {"type": "message", "id": "msg_1", "role": "user", "content": words}
        return final(await rig.stream(input=[said], **fields))

    first = await say("alice")
    second = await say("alice again", previous_response_id=first["id"])
    await say("a branch", previous_response_id=first["id"])
    await say("bob")
    found = await compacted(rig, previous_response_id=second["id"])
    said = [item["content"][0]["text"] for item in found["output"][:-1]]
    assert said == ["alice", "alice again"]


async def test_it_can_be_compacted_again() -> None:
    """The new summary is of the old one too, which is not kept beside it."""
    rig = Rig(FakeModel(*DONE))
    output = (await compacted(rig, input=[USER, ASSISTANT]))["output"]
    again = (await compacted(rig, input=[*output, ASSISTANT]))["output"]
    assert [item["type"] for item in again] == ["message", "compaction"]
    assert inputs(rig.model)[1] == {"role": "user", "content": SUMMARY}


@pytest.mark.parametrize(
    "forge",
    [
        lambda sealed: "gAAAAABm",
        lambda sealed: "",
        lambda sealed: sealed[:-2],
        lambda sealed: sealed[:-10] + "A" * 10,
        lambda _: AesSealing([b"k" * 32]).seal(CALLER.tenant, "compaction", b"{}"),
        lambda _: AesSealing([bytes(32)]).seal("other", "compaction", b"{}"),
        lambda _: AesSealing([bytes(32)]).seal(CALLER.tenant, "reasoning", b"{}"),
    ],
)
async def test_what_is_not_ours_is_refused(forge: Any) -> None:
    """X4: changed, of another key, of another tenant, or made for something else."""
    rig = Rig(FakeModel(*DONE))
    *_, item = (await compacted(rig, input=[USER]))["output"]
    forged = {**item, "encrypted_content": forge(item["encrypted_content"])}
    reply = await rig.create(input=[USER, forged])
    assert reply.whole is not None
    error = reply.json["error"]
    assert reply.whole.status == 400
    assert error["param"] == "input[1].encrypted_content"
    assert error["code"] == "invalid_encrypted_content"
    assert len(rig.model.bodies) == 1


@pytest.mark.parametrize("given", [{}, {"encrypted_content": None}, {"summary": "x"}])
async def test_an_item_without_content_is_refused(given: dict[str, Any]) -> None:
    """H1."""
    reply = await Rig(FakeModel(*DONE)).create(input=[{"type": "compaction", **given}])
    assert reply.json["error"]["param"].startswith("input[0].")


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": None, "input": "hi"}, "model", "missing_required_parameter"),
        ({}, "input", "missing_required_parameter"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": "hi", "tools": []}, "tools", "unknown_parameter"),
        ({"input": "hi", "service_tier": "flex"}, "service_tier", "invalid_value"),
        ({"input": "hi", "prompt_cache_retention": "24h"}, "prompt_cache_retention", None),
        ({"previous_response_id": "resp_no"}, "previous_response_id", None),
        (
            {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]},
            "input",
            "missing_tool_output",
        ),
    ],
)
async def test_what_it_is_refused_for(fields: dict[str, Any], param: str, code: str | None) -> None:
    """H1, M6."""
    rig = Rig(FakeModel(*DONE))
    answer = await compact(rig, **fields)
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["param"]) == (400, param)
    assert code is None or error["code"] == code
    assert rig.model.bodies == []


async def test_anothers_response_is_none() -> None:
    """X1: the same answer as for one that never was."""
    rig = Rig(FakeModel(*DONE))
    mine = final(await rig.stream())
    foreign = await compact(rig, OTHER, previous_response_id=mine["id"])
    absent = await compact(rig, OTHER, previous_response_id="resp_" + "0" * 32)
    wanted = (mine["id"].encode(), b"resp_" + b"0" * 32)
    assert foreign.body.replace(wanted[0], b"") == absent.body.replace(wanted[1], b"")
    assert foreign.status == 400


async def test_a_call_that_waits_must_be_answered_first() -> None:
    """M6: a summary would lose it."""
    rig = Rig(FakeModel(*frames_of(replies.stream(call("f", "{}")))))
    made = final(await rig.stream(tools=[{"type": "function", "name": "f"}]))
    answer = await compact(rig, previous_response_id=made["id"])
    assert json.loads(answer.body)["error"]["code"] == "missing_tool_output"


async def test_without_a_key_nothing_is_compacted() -> None:
    """H1: what could not be sealed is not asked for."""
    rig = Rig(FakeModel(*DONE), sealing=NoSealing())
    answer = await compact(rig, input="hi")
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"]) == (400, "sealing_not_configured")
    assert rig.model.bodies == []


@pytest.mark.parametrize(
    ("model", "status"),
    [
        (FakeModel(Head(429, JSON, retry_after=3), b"{}"), 429),
        (FakeModel(*DONE[:4]), 502),
        (FakeModel(*frames_of(replies.stream(text("  ")))), 502),
        (FakeModel(*frames_of(replies.stream(call("f", "{}")))), 502),
    ],
)
async def test_a_model_that_fails_is_an_error(model: FakeModel, status: int) -> None:
    """R15: a refusal is its status; an empty summary is none."""
    answer = await compact(Rig(model), input="hi")
    assert answer.status == status, answer.body
