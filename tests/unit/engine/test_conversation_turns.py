"""`engine.responses` with a conversation: what the model is sent, what joins, and whose turn it is."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from engine.errors import EngineError
from engine.intake import Caller
from engine.response.inputs import ItemStarted
from tests.support import replies
from tests.support.dead_worker import GONE, leave
from tests.support.engine_rig import CALLER, Rig, small, turns
from tests.support.fake_model import FakeModel, Hang, Head, frames_of
from tests.support.fake_reply import FakeReply
from tests.support.replies import call, text
from tests.support.stored import take_turn

HELLO = frames_of(replies.stream(text("Hel", "lo")))
CUT = frames_of(replies.stream(text("Hel"), cut_short=True))
WEATHER = frames_of(replies.stream(call("f", '{"a": 1}', call_id="call_1")))
TOOLS = [{"type": "function", "name": "f"}]


def rig_of(*steps: Any, **limits: Any) -> Rig:
    """Return an engine whose lines are short."""
    return Rig(FakeModel(*steps), limits=small(conversation_wait=limits.pop("wait", 4.0), **limits))


async def begun(rig: Rig, *items: Any, caller: Caller = CALLER) -> str:
    """Create a conversation; return its id."""
    body = json.dumps({"items": list(items)}).encode()
    made: str = json.loads((await rig.conversations.create(caller, body, "")).body)["id"]
    return made


async def items_of(rig: Rig, name: str) -> list[Any]:
    """Return the items of a conversation, oldest first."""
    listed = await rig.conversations.list_items(CALLER, name, "order=asc&limit=100")
    data: list[Any] = json.loads(listed.body)["data"]
    return data


async def words(rig: Rig, name: str) -> list[str]:
    """Return what was said in a conversation."""
    return [item["content"][0]["text"] for item in await items_of(rig, name)]


def sent(rig: Rig, turn: int = -1) -> list[Any]:
    """Return what the model was sent in a turn."""
    return [item.get("content", item) for item in json.loads(rig.model.bodies[turn])["input"]]


async def error_of(rig: Rig, status: int, **fields: Any) -> dict[str, Any]:
    """Return the error of a request that is refused."""
    reply = await rig.create(**fields)
    assert reply.whole is not None
    assert reply.whole.status == status
    error: dict[str, Any] = reply.json["error"]
    return error


@pytest.mark.parametrize("how", ["id", "object"])
async def test_a_turn_has_all_that_was_said_and_is_added_to_it(how: str) -> None:
    """M2, M7: streamed, whole and in the background; the response shows whose it is."""
    rig = rig_of(*HELLO)
    name = await begun(rig, {"role": "user", "content": "zero"})
    given = name if how == "id" else {"id": name}
    whole = (await rig.create(input="one", conversation=given)).json
    assert whole["conversation"] == {"id": name}
    assert whole["previous_response_id"] is None
    [*_, last] = await rig.stream(input="two", conversation=given)
    assert last["response"]["conversation"] == {"id": name}
    rig.background.start()
    queued = (await rig.create(input="three", conversation=given, background=True)).json
    await rig.becomes(queued["id"], "completed")
    await rig.background.stop()

    assert sent(rig) == ["zero", "one", "Hello", "two", "Hello", "three"]
    assert await words(rig, name) == [
        "zero", "one", "Hello", "two", "Hello", "three", "Hello",
    ]  # fmt: skip


async def test_the_bytes_of_a_conversation_are_the_same_in_each_turn() -> None:
    """M9: each body begins with all of the one before but its end."""
    rig = rig_of(*HELLO)
    name = await begun(rig)
    for number in range(5):
        await rig.create(input=f"turn {number}", conversation=name)
    for before, after in zip(rig.model.bodies, rig.model.bodies[1:], strict=False):
        assert after.startswith(before.removesuffix(b"]}") + b",")


@pytest.mark.parametrize("added", [True, False])
async def test_calls_of_servers_that_were_put_into_it_are_sent(added: bool) -> None:
    """M4, M8: as function calls with their outputs, by the names that the model was shown."""
    rig = rig_of(*HELLO)
    listed = [
        {
            "type": "mcp_list_tools",
            "server_label": label,
            "tools": [{"name": "look", "input_schema": {}}],
        }
        for label in ("s", "t")
    ]
    call_of = {"type": "mcp_call", "server_label": "t", "name": "look", "arguments": "{}"}
    items = [*listed, {**call_of, "output": "seen"}, {**call_of, "error": "no", "status": "failed"}]
    name = await begun(rig, *([] if added else items))
    if added:
        body = json.dumps({"items": items}).encode()
        await rig.conversations.add_items(CALLER, name, body, "")
    await rig.create(input="and?", conversation=name)
    names = [item["name"] for item in sent(rig) if isinstance(item, dict) and "name" in item]
    outputs = [item["output"] for item in sent(rig) if isinstance(item, dict) and "output" in item]
    assert (names, outputs) == (["t__look"] * 2, ["seen", "no"])


async def test_one_thing_at_a_time_can_be_continued() -> None:
    """M3: before any byte."""
    rig = rig_of(*HELLO)
    name = await begun(rig)
    error = await error_of(rig, 400, conversation=name, previous_response_id="resp_1", stream=True)
    assert error["param"] == "previous_response_id"
    assert error["code"] == "mutually_exclusive_parameters"


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_not_there_and_what_is_anothers_are_the_same(stream: bool) -> None:
    """X1, M3: 404 before any byte, in no more time."""
    rig = rig_of(*HELLO)
    foreign = await begun(rig, caller=Caller("stranger"))
    error = await error_of(rig, 404, conversation=foreign, stream=stream)
    other = await error_of(rig, 404, conversation="conv_none", stream=stream)
    assert error["message"].replace(foreign, "conv_none") == other["message"]
    assert not rig.model.bodies


@pytest.mark.parametrize("stream", [False, True])
async def test_turns_that_come_at_once_are_made_one_after_the_other(stream: bool) -> None:
    """M7: by two workers; each sees what was before it, and none is lost."""
    first = rig_of(*HELLO)
    second = Rig(FakeModel(*HELLO), limits=first.limits, store=first.store, worker="replica/1#1")
    name = await begun(first)
    rigs = [first, second] * 8
    replies_ = await asyncio.gather(
        *(
            rig.create(input=f"turn {n}", conversation=name, stream=stream)
            for n, rig in enumerate(rigs)
        )
    )
    assert all(reply.ended if stream else reply.json["status"] == "completed" for reply in replies_)
    said = await words(first, name)
    assert sorted(said[::2]) == sorted(f"turn {n}" for n in range(16))
    assert said[1::2] == ["Hello"] * 16
    for rig in (first, second):
        for turn in range(len(rig.model.bodies)):
            seen = sent(rig, turn)
            assert seen == said[: len(seen)]


async def test_who_waits_for_too_long_is_told_what_for() -> None:
    """M7: a 409 that says when to come again; whoever is next is not held up by it."""
    gate = asyncio.Event()
    rig = rig_of(Hang(gate), *HELLO, wait=0.05)
    name = await begun(rig)
    running = rig.start(FakeReply(), input="one", conversation=name)
    await rig.model.called.wait()
    reply = await rig.create(input="two", conversation=name)
    assert reply.whole is not None
    assert (reply.whole.status, reply.whole.headers) == (409, {"retry-after": "1"})
    assert reply.json["error"]["code"] == "conversation_locked"
    assert reply.json["error"]["param"] == "conversation"
    gate.set()
    await running
    assert await words(rig, name) == ["one", "Hello"]
    await rig.create(input="three", conversation=name)
    assert sent(rig) == ["one", "Hello", "three"]


async def test_who_leaves_the_line_holds_nobody_up() -> None:
    """M7: a client that goes while it waits."""
    gate = asyncio.Event()
    rig = rig_of(Hang(gate), *HELLO)
    name = await begun(rig)
    running = rig.start(FakeReply(), input="one", conversation=name)
    await rig.model.called.wait()
    waiting = [rig.start(FakeReply(), input=f"{n}", conversation=name) for n in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    waiting[1].cancel()
    gate.set()
    await asyncio.gather(running, waiting[2])
    assert await words(rig, name) == ["one", "Hello", "2", "Hello"]


async def test_what_ended_before_its_end_joins_with_what_was_made() -> None:
    """M7, R9: an incomplete answer was seen, and is remembered."""
    rig = rig_of(*CUT)
    name = await begun(rig)
    cut = (await rig.create(input="one", conversation=name)).json
    assert cut["status"] == "incomplete"
    assert await words(rig, name) == ["one", "Hel"]


async def test_what_failed_or_was_cancelled_leaves_the_conversation_as_it_was() -> None:
    """M7: it is read as any response is, and the next turn does not see it."""
    rig = rig_of(*HELLO)
    name = await begun(rig)
    await rig.create(input="one", conversation=name)
    rig.model.steps = tuple(HELLO[:6])
    await rig.stream(input="bad", conversation=name)
    rig.model.steps = (*HELLO[:6], Hang(asyncio.Event()))
    reply = FakeReply()
    running = rig.start(reply, input="worse", conversation=name, stream=True)
    await rig.until(lambda: rig.model.silent.is_set())
    worse = (await rig.stored())[-1].id
    await rig.responses.cancel(CALLER, worse, "")
    await running
    statuses = [stored.status for stored in await rig.stored()]
    assert statuses == ["completed", "failed", "cancelled"]
    rig.model.steps = tuple(HELLO)
    await rig.create(input="two", conversation=name)
    assert sent(rig) == ["one", "Hello", "two"]
    await rig.create(input="better", previous_response_id=worse)
    assert sent(rig) == ["one", "Hello", "worse", "Hello", "better"]


async def test_what_a_model_server_refused_leaves_the_conversation_as_it_was() -> None:
    """R15, M7: the accepted turn is taken back."""
    rig = rig_of(Head(400), b'{"error":{"message":"no"}}')
    name = await begun(rig)
    await error_of(rig, 400, input="one", conversation=name)
    rig.model.steps = tuple(HELLO)
    await rig.create(input="two", conversation=name)
    assert await words(rig, name) == ["two", "Hello"]


async def test_what_is_not_stored_reads_a_conversation_and_adds_nothing() -> None:
    """P5: `store: false`."""
    rig = rig_of(*HELLO)
    name = await begun(rig, {"role": "user", "content": "zero"})
    made = (await rig.create(input="one", conversation=name, store=False)).json
    assert made["conversation"] == {"id": name}
    assert sent(rig) == ["zero", "one"]
    assert await words(rig, name) == ["zero"]
    assert await rig.stored() == []


async def test_a_call_waits_for_its_output_whatever_was_added_since() -> None:
    """M6: the output comes by a turn, or is added, or the call is taken out."""
    rig = rig_of(*WEATHER)
    name = await begun(rig)
    await rig.create(input="one", conversation=name, tools=TOOLS)
    note = json.dumps({"items": [{"role": "developer", "content": "note"}]}).encode()
    await rig.conversations.add_items(CALLER, name, note, "")
    error = await error_of(rig, 400, input="two", conversation=name)
    assert error["code"] == "missing_tool_output"
    rig.model.steps = tuple(HELLO)
    called = (await items_of(rig, name))[1]["call_id"]
    output = {"type": "function_call_output", "call_id": called, "output": "7"}
    await rig.create(input=[output], conversation=name, tools=TOOLS)
    assert [item["type"] for item in await items_of(rig, name)] == [
        "message", "function_call", "message", "function_call_output", "message",
    ]  # fmt: skip
    other = await begun(rig)
    rig.model.steps = tuple(WEATHER)
    await rig.create(input="one", conversation=other, tools=TOOLS)
    pending = (await items_of(rig, other))[-1]["id"]
    await rig.conversations.delete_item(CALLER, other, pending, "")
    rig.model.steps = tuple(HELLO)
    await rig.create(input="two", conversation=other)
    assert sent(rig) == ["one", "two"]


async def test_a_retry_is_served_while_the_first_still_runs() -> None:
    """M7: with one Idempotency-Key: it waits for its response, not for its turn."""
    gate = asyncio.Event()
    rig = rig_of(Hang(gate), *WEATHER)
    name = await begun(rig)
    caller = Caller("default", idempotency_key="key")
    first = rig.start(FakeReply(), caller=caller, input="one", conversation=name)
    await rig.model.called.wait()
    again = rig.start(FakeReply(), caller=caller, input="one", conversation=name)
    gate.set()
    assert (await first).json == (await again).json
    assert (await rig.create(caller=caller, input="one", conversation=name)).json == (
        await first
    ).json
    assert len(rig.model.bodies) == 1


async def test_a_turn_whose_worker_died_frees_its_conversation() -> None:
    """P4, M7: in the foreground it fails and adds nothing; in the background it is run again and joins."""
    rig = rig_of(*HELLO)
    name = await begun(rig)
    await rig.create(input="one", conversation=name)
    lost = Rig(FakeModel(), store=rig.store, limits=small(lease=GONE), worker="replica/9#1")
    dead = await leave(lost, ItemStarted("message"), conversation=name, input="lost", stream=True)
    sweeper = Rig(
        FakeModel(*HELLO), store=rig.store, limits=small(lease=0.04), worker="replica/2#1"
    )
    sweeper.recovery.start()
    await rig.becomes(dead.response_id, "failed")
    await rig.create(input="two", conversation=name)
    assert sent(rig) == ["one", "Hello", "two"]
    waiting = await leave(
        lost, ItemStarted("message"), conversation=name, input="three", background=True
    )
    await rig.becomes(waiting.response_id, "completed")
    await sweeper.recovery.stop()
    assert await words(rig, name) == ["one", "Hello", "two", "Hello", "three", "Hello"]


async def test_a_conversation_that_is_removed_ends_no_run() -> None:
    """P1: the run is stored, and who waited for its turn is told that there is none."""
    gate = asyncio.Event()
    rig = rig_of(Hang(gate), *HELLO)
    name = await begun(rig)
    running = rig.start(FakeReply(), input="one", conversation=name)
    await rig.model.called.wait()
    waiting = rig.start(FakeReply(), input="two", conversation=name)
    await rig.conversations.delete(CALLER, name, "")
    assert (await waiting).json["error"]["message"] == f"Conversation with id '{name}' not found."
    gate.set()
    made = (await running).json
    assert made["status"] == "completed"
    assert (await rig.retrieve(made["id"])) == made


async def test_items_are_added_between_turns() -> None:
    """M7: they wait for the end of the turn that runs."""
    gate = asyncio.Event()
    rig = rig_of(Hang(gate), *HELLO)
    name = await begun(rig)
    running = rig.start(FakeReply(), input="one", conversation=name)
    await rig.model.called.wait()
    body = json.dumps({"items": [{"role": "user", "content": "note"}]}).encode()
    adding = asyncio.ensure_future(rig.conversations.add_items(CALLER, name, body, ""))
    await asyncio.sleep(0)
    assert not adding.done()
    gate.set()
    await asyncio.gather(running, adding)
    assert await words(rig, name) == ["one", "Hello", "note"]


async def test_a_turn_that_another_worker_takes_first_is_tried_again() -> None:
    """M7: between the look and the accept; nothing was done by then, and nothing is done twice."""
    rig = rig_of(*HELLO)
    name = await begun(rig)
    rig.store.holds["accept"] = held = asyncio.Event()
    running = rig.start(FakeReply(), input="mine", conversation=name)
    async with asyncio.timeout(5):
        await rig.store.reached["accept"].wait()
    del rig.store.holds["accept"]
    await take_turn(rig.store, "default", "resp_other", name)
    held.set()
    assert (await running).json["status"] == "completed"
    assert len(rig.model.bodies) == 1
    assert len(await items_of_ids(rig, name)) == 4


async def items_of_ids(rig: Rig, name: str) -> list[str]:
    """Return the ids of a conversation's items."""
    page = await rig.store.list_conversation_items(
        CALLER.tenant, name, limit=100, after=None, order="asc"
    )
    assert page is not None
    return page.ids


async def test_who_waits_when_the_worker_ends_is_told_so() -> None:
    """E4: a 503 that says when to come again, not a cut; nobody waits any more after it."""
    gate = asyncio.Event()
    rig = rig_of(Hang(gate), *HELLO)
    name = await begun(rig)
    running = rig.start(FakeReply(), input="one", conversation=name)
    await rig.model.called.wait()
    waiting = rig.start(FakeReply(), input="two", conversation=name)
    await turns()
    rig.lines.stop()
    for reply in (await waiting, await rig.create(input="three", conversation=name)):
        assert reply.whole is not None
        assert (reply.whole.status, reply.whole.headers) == (503, {"retry-after": "1"})
    gate.set()
    assert (await running).json["status"] == "completed"


async def test_nobody_is_left_in_a_line() -> None:
    """X5: what was waited for is forgotten."""
    rig = rig_of(*HELLO)
    name = await begun(rig)
    await asyncio.gather(*(rig.create(conversation=name) for _ in range(3)))
    with pytest.raises(EngineError), rig.lines.visit() as visit:
        await visit.context(CALLER.tenant, "conv_none")
    assert not rig.lines.waiting
