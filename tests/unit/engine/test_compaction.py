"""`context_management`: a context that is too long is summarised before the first turn (rules M2, M9, R4)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from engine.api.response_object import Usage
from engine.context.summaries import PROMPT
from engine.intake import Caller
from engine.response.compaction import Compaction
from engine.response.inputs import ContextCompacted, Fits, Input, ItemStarted, TextDelta
from engine.upstream.choice import Choice
from extproc.sealing import NoSealing
from tests.support import replies
from tests.support.counting_model import CountingModel, inputs, words
from tests.support.dead_worker import GONE, leave
from tests.support.engine_rig import CALLER, Rig, final, small
from tests.support.fake_model import JSON, FakeModel, Hang, Head, frames_of
from tests.support.fake_reply import FakeReply
from tests.support.fake_tools import FakeProvider
from tests.support.faulty_store import FaultyStore
from tests.support.replies import call, reasoning, text
from tests.support.scripts import CHAT
from tests.support.stream_rules import check_stream

DONE = frames_of(replies.stream(text("ok")))
SUMMARY = frames_of(replies.stream(reasoning("hm"), text("It was", " about w.")))
SAID = {
    "role": "user",
    "content": "Summary of the conversation up to this point:\n\nIt was about w.",
}
OK = {"role": "assistant", "content": "ok"}
TOOLS = [{"type": "function", "name": "f"}]
SERVER = {
    "type": "mcp",
    "server_label": "s",
    "server_url": "https://mcp.example.com/",
    "require_approval": "never",
}


def user(said: str) -> dict[str, str]:
    return {"role": "user", "content": said}


def compacting(most: int | None = 50) -> dict[str, Any]:
    return {"context_management": [{"type": "compaction", "compact_threshold": most}]}


def kinds(response: dict[str, Any]) -> list[str]:
    return [item["type"] for item in response["output"]]


async def long_one(rig: Rig, **fields: Any) -> Any:
    """Return a stored response whose history is long."""
    return final(await rig.stream(input=words(60), **fields))


def three(*last: Any) -> CountingModel:
    """Return a model that says ok, then a summary, then what is given, then ok."""
    return CountingModel(*DONE, turns=[DONE, SUMMARY, *last])


@pytest.mark.parametrize("stream", [True, False])
async def test_the_history_gives_way_to_a_summary(stream: bool) -> None:
    """M2, M9, R5: the item comes first, is stored, and every later turn begins with the same bytes."""
    rig = Rig(three())
    first = await long_one(rig)
    fields: dict[str, Any] = {"input": "and now?", "previous_response_id": first["id"]}
    if stream:
        second = final(await rig.stream(**fields, **compacting()))
    else:
        second = (await rig.create(**fields, **compacting())).json
    assert kinds(second) == ["compaction", "message"]
    assert second["output"][0]["id"].startswith("cmp_")
    assert inputs(rig.model, 1) == [user(words(60)), OK, user(PROMPT)]
    assert inputs(rig.model, 2) == [SAID, user("and now?")]
    assert second["usage"]["input_tokens"] == 2 * first["usage"]["input_tokens"]
    assert await rig.retrieve(second["id"]) == second

    third = final(await rig.stream(input="more", previous_response_id=second["id"], **compacting()))
    assert kinds(third) == ["message"]
    assert inputs(rig.model) == [SAID, user("and now?"), OK, user("more")]
    before, after = rig.model.bodies[-2:]
    assert after.startswith(before.removesuffix(b"]}"))


async def test_a_context_that_fits_is_left_alone() -> None:
    """No more than that number of tokens; the model is called once."""
    rig = Rig(CountingModel(*DONE))
    first = await long_one(rig)
    reply = await rig.stream(previous_response_id=first["id"], **compacting(500))
    assert kinds(final(reply)) == ["message"]
    assert len(rig.model.bodies) == 2


async def test_what_is_new_is_not_summarised() -> None:
    """A first input that is too long by itself is sent as it is."""
    rig = Rig(CountingModel(*DONE))
    assert kinds(final(await rig.stream(input=words(100), **compacting()))) == ["message"]
    assert len(rig.model.bodies) == 1


async def test_the_models_own_context_is_the_measure_where_none_is_given() -> None:
    """Four fifths of it."""
    rig = Rig(CountingModel(*DONE))
    first = await long_one(rig)
    short = final(await rig.stream(previous_response_id=first["id"], **compacting(None)))
    assert kinds(short) == ["message"]
    rig = Rig(three())
    first = await long_one(rig)
    fields = {"previous_response_id": first["id"], "input": words(70)}
    assert kinds(final(await rig.stream(**fields, **compacting(None)))) == ["compaction", "message"]


async def test_a_client_that_keeps_the_history_itself() -> None:
    """M9: with `store: false`, whether it leaves out what is before the item or not."""
    rig = Rig(CountingModel(*DONE, turns=[SUMMARY]))
    history = [
        {"role": "developer", "content": "be kind"},
        user(words(60)),
        {"role": "assistant", "content": "ok"},
        user("and now?"),
    ]
    fields: dict[str, Any] = {"store": False, **compacting()}
    first = final(await rig.stream(input=history, **fields))
    sent = [history[0], SAID, user("and now?")]
    assert inputs(rig.model) == sent
    for kept in (history, []):
        whole = [*kept, *first["output"], user("more")]
        second = final(await rig.stream(input=whole, **fields))
        assert kinds(second) == ["message"]
        assert inputs(rig.model) == [*sent, OK, user("more")]
    assert await rig.stored() == []


async def test_the_clients_item_covers_a_stored_history() -> None:
    """M2: what comes after it in the thread is all that later turns are sent."""
    rig = Rig(CountingModel(*DONE, turns=[SUMMARY]))
    history = [user(words(60)), {"role": "assistant", "content": "ok"}, user("and now?")]
    made = final(await rig.stream(input=history, store=False, **compacting()))
    other = final(await rig.stream(input="something else"))
    third = final(
        await rig.stream(input=[made["output"][0], user("go on")], previous_response_id=other["id"])
    )
    sent = [SAID, user("and now?"), user("go on")]
    assert inputs(rig.model) == sent
    await rig.create(input="more", previous_response_id=third["id"])
    assert inputs(rig.model) == [*sent, OK, user("more")]


async def test_a_call_that_waits_stays_with_its_output() -> None:
    """M4, M6: what the model asked for is not summarised before it has seen the answer."""
    wants = frames_of(replies.stream(call("f", '{"a":1}')))
    model = CountingModel(*DONE, turns=[DONE, wants, SUMMARY])
    rig = Rig(model)
    first = await long_one(rig)
    second = final(await rig.stream(input="ask f", previous_response_id=first["id"], tools=TOOLS))
    [asked] = second["output"]
    output = {"type": "function_call_output", "call_id": asked["call_id"], "output": "2"}
    third = final(
        await rig.stream(
            input=[output], previous_response_id=second["id"], tools=TOOLS, **compacting()
        )
    )
    assert kinds(third) == ["compaction", "message"]
    sent = inputs(rig.model)
    assert sent[:2] == [SAID, user("ask f")]
    assert [item["type"] for item in sent[2:]] == ["function_call", "function_call_output"]
    assert "tools" not in json.loads(model.bodies[2])
    await rig.create(input="more", previous_response_id=third["id"])
    assert inputs(rig.model) == [*sent, OK, user("more")]


async def test_the_gateways_tools_are_called_behind_it() -> None:
    """T5, M9: the second turn has the summary once, and the call behind it."""
    wants = frames_of(replies.stream(call("look", "{}")))
    rig = Rig(three(wants), providers=lambda *_: FakeProvider("s", "look"))
    first = await long_one(rig)
    second = final(
        await rig.stream(
            input="look", previous_response_id=first["id"], tools=[SERVER], **compacting()
        )
    )
    assert kinds(second) == ["compaction", "mcp_list_tools", "mcp_call", "message"]
    sent = inputs(rig.model)
    assert sent[:2] == [SAID, user("look")]
    assert [item["type"] for item in sent[2:]] == ["function_call", "function_call_output"]


async def test_in_a_conversation() -> None:
    """M7: the item joins it, and its next turn begins there."""
    rig = Rig(three())
    made = json.loads((await rig.conversations.create(CALLER, b"{}", "")).body)["id"]
    await long_one(rig, conversation=made)
    second = final(await rig.stream(input="and now?", conversation=made, **compacting()))
    assert kinds(second) == ["compaction", "message"]
    await rig.create(input="more", conversation=made)
    assert inputs(rig.model) == [SAID, user("and now?"), OK, user("more")]


async def test_deleting_it_brings_the_history_back() -> None:
    """P7: nothing is lost by a summary."""
    rig = Rig(three())
    first = await long_one(rig)
    second = final(await rig.stream(previous_response_id=first["id"], **compacting()))
    third = final(await rig.stream(previous_response_id=second["id"]))
    await rig.responses.delete(CALLER, second["id"], "")
    await rig.create(input="more", previous_response_id=third["id"])
    assert inputs(rig.model)[0] == user(words(60))


async def test_in_the_background() -> None:
    """It is looked at when its time comes."""
    rig = Rig(three())
    first = await long_one(rig)
    reply = await rig.create(background=True, previous_response_id=first["id"], **compacting())
    assert len(rig.model.bodies) == 1
    rig.background.start()
    done = await rig.becomes(reply.json["id"], "completed")
    await rig.background.stop()
    assert kinds(done) == ["compaction", "message"]


@pytest.mark.parametrize("model", [CountingModel(*DONE, status=404), FakeModel(*DONE)])
async def test_a_server_that_counts_nothing_cannot_do_it(model: FakeModel) -> None:
    """H1."""
    rig = Rig(model)
    reply = await rig.create(**compacting())
    assert reply.whole is not None
    error = reply.json["error"]
    assert (reply.whole.status, error["param"]) == (400, "context_management")
    assert await rig.stored() == []


async def test_an_estimate_will_do_where_it_may() -> None:
    """The operator's setting."""
    model = CountingModel(*DONE, turns=[DONE, SUMMARY], status=404)
    rig = Rig(model, estimates=True)
    first = final(await rig.stream(input="x" * 1000))
    second = final(await rig.stream(previous_response_id=first["id"], **compacting(200)))
    assert kinds(second) == ["compaction", "message"]
    reply = await rig.create(**compacting(None))
    assert reply.json["error"]["param"] == "context_management[0].compact_threshold"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"context_management": {}}, "context_management"),
        ({"context_management": [{}]}, "context_management[0].type"),
        ({"context_management": [{"type": "x"}]}, "context_management[0].type"),
        (compacting(0), "context_management[0].compact_threshold"),
        (
            {"context_management": [{"type": "compaction", "a": 1}]},
            "context_management[0].a",
        ),
        ({"context_management": [{"type": "compaction"}] * 2}, "context_management"),
        ({**compacting(), "truncation": "auto"}, "context_management"),
    ],
)
async def test_what_it_is_refused_for(fields: dict[str, Any], param: str) -> None:
    """H1."""
    reply = await Rig(CountingModel(*DONE)).create(**fields)
    assert reply.whole is not None
    assert (reply.whole.status, reply.json["error"]["param"]) == (400, param)


async def test_without_a_key_it_is_refused() -> None:
    """H1: before anything is done."""
    reply = await Rig(CountingModel(*DONE), sealing=NoSealing()).create(**compacting())
    error = reply.json["error"]
    assert (error["param"], error["code"]) == ("context_management", "sealing_not_configured")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_summary_that_fails_is_the_clients_error(stream: bool) -> None:
    """R15, R16: nothing was said yet; nothing of the response stays."""
    refused = [Head(429, JSON, retry_after=3), b"{}"]
    rig = Rig(CountingModel(*DONE, turns=[DONE, refused]))
    first = await long_one(rig)
    reply = await rig.create(stream=stream, previous_response_id=first["id"], **compacting())
    assert reply.whole is not None
    assert reply.whole.status == 429
    assert len(await rig.stored()) == 1


async def test_a_stream_begins_while_a_summary_takes_long() -> None:
    """R2, R16: the item comes behind the first events."""
    gate = asyncio.Event()
    model = CountingModel(*DONE, turns=[DONE, [Hang(gate), *SUMMARY]])
    rig = Rig(model, limits=small(open_after=0.01))
    first = await long_one(rig)
    reply = FakeReply()
    task = rig.start(reply, stream=True, previous_response_id=first["id"], **compacting())
    await rig.until(lambda: b"response.in_progress" in reply.raw)
    gate.set()
    await task
    assert b"response.completed" in reply.raw


async def test_a_client_that_leaves_ends_the_summary() -> None:
    """P3: the model's call is aborted, the response ends."""
    model = CountingModel(*DONE, turns=[DONE, [Hang(asyncio.Event()), *SUMMARY]])
    rig = Rig(model)
    first = await long_one(rig)
    task = rig.start(FakeReply(), store=False, previous_response_id=first["id"], **compacting())
    await rig.until(model.silent.is_set)
    task.cancel()
    await rig.settled()
    assert model.aborted.is_set()


def compacted(wanted: Compaction) -> ContextCompacted:
    return ContextCompacted(wanted.summarised("It was about w."), Usage(7, 0, 5, 0))


@pytest.mark.parametrize("looked", [compacted, lambda _: Fits()], ids=["compacted", "fits"])
@pytest.mark.parametrize(
    "inputs_made", [(), (ItemStarted("message"), TextDelta("Hal"))], ids=["nothing", "half"]
)
async def test_a_run_that_is_taken_over_keeps_its_summary(
    looked: Any, inputs_made: tuple[Input, ...]
) -> None:
    """P4, R4: redriven from the log: what was decided stays decided, and what it took counts."""
    store = FaultyStore()
    gone = Rig(CountingModel(*DONE), store=store, worker="gone/0#1", limits=small(lease=GONE))
    first = await long_one(gone)
    lease = await leave(
        gone,
        *(inputs_made or (ItemStarted("message"),)),
        looked=looked,
        background=True,
        stream=True,
        input="and now?",
        previous_response_id=first["id"],
        **compacting(),
    )
    at = Rig(CountingModel(*DONE), store=store, limits=small(lease=0.04))
    at.recovery.start()
    at.background.start()
    done = await at.becomes(lease.response_id, "completed")
    await at.recovery.stop()
    await at.background.stop()
    await at.settled()
    check_stream(await at.log(lease.response_id), taken_over=True)
    assert len(at.model.bodies) == 1
    if looked is compacted:
        assert kinds(done) == ["compaction", "message", "message"]
        assert inputs(at.model) == [SAID, user("and now?")]
        assert done["usage"]["input_tokens"] == 7 + first["usage"]["input_tokens"]
    else:
        assert kinds(done) == ["message", "message"]
        assert inputs(at.model) == [user(words(60)), OK, user("and now?")]


async def test_a_run_in_the_foreground_ends_with_its_summary() -> None:
    """P4: it fails, and what was made is there."""
    store = FaultyStore()
    gone = Rig(CountingModel(*DONE), store=store, worker="gone/0#1", limits=small(lease=GONE))
    first = await long_one(gone)
    lease = await leave(
        gone,
        ItemStarted("message"),
        looked=compacted,
        stream=True,
        previous_response_id=first["id"],
        **compacting(),
    )
    at = Rig(CountingModel(*DONE), store=store, limits=small(lease=0.04))
    at.recovery.start()
    done = await at.becomes(lease.response_id, "failed")
    await at.recovery.stop()
    await at.settled()
    assert kinds(done) == ["compaction", "message"]
    assert at.model.bodies == []


async def test_a_retry_is_answered_by_its_first_request() -> None:
    """P2: with one Idempotency-Key the history is summarised once."""
    rig = Rig(three())
    first = await long_one(rig)
    caller = Caller("default", idempotency_key="k")
    fields: dict[str, Any] = {"previous_response_id": first["id"], **compacting()}
    answers = [await rig.create(caller=caller, **fields) for _ in range(2)]
    assert answers[0].json == answers[1].json
    assert kinds(answers[1].json) == ["compaction", "message"]
    assert len(rig.model.bodies) == 3


async def test_over_chat_completions() -> None:
    """M4: the same in the other dialect, instructions and calls among what stays."""
    turns = [frames_of(replies.stream(text(said)), path=CHAT) for said in ("It was about w.", "ok")]
    model = CountingModel(turns=turns)
    rig = Rig(model, choice=Choice("chat"))
    history: list[Any] = [
        {"role": "developer", "content": "be kind"},
        user(words(60)),
        OK,
        user("ask f"),
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "2"},
    ]
    response = final(await rig.stream(input=history, **compacting()))
    assert kinds(response) == ["compaction", "message"]
    messages = json.loads(model.bodies[-1])["messages"]
    assert [message["role"] for message in messages][-4:] == ["user", "user", "assistant", "tool"]
    assert messages[-4]["content"] == SAID["content"]
    assert messages[0]["content"] == "be kind"
