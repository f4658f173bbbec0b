"""Tools that the gateway runs, over several turns of the model, with fakes at all ports (rules T1-T7)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from engine.api.json import encode
from engine.api.response_object import Usage
from engine.intake import Caller
from engine.ports import EventBatch, ToolOutcome
from engine.response.effects import Effect, RunTools, Send
from engine.response.inputs import (
    ArgumentsDelta,
    Input,
    ItemStarted,
    ModelAnswered,
    ToolEnded,
    ToolsListed,
    TurnEnded,
)
from tests.support import replies
from tests.support.dead_worker import GONE
from tests.support.engine_rig import CALLER, NOW, Rig, final, small
from tests.support.fake_model import Break, FakeModel, Hang, Step, frames_of
from tests.support.fake_reply import FakeReply
from tests.support.fake_tools import FakeProvider, FakeServers, server
from tests.support.replies import call, text
from tests.support.sdk import accumulated
from tests.support.stream_rules import check_stream

DONE = frames_of(replies.stream(text("done"), input_tokens=7))
WHY = "no such customer"
ERROR = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": WHY}]}
FAILED = ToolOutcome(text=WHY, error=encode(ERROR))


def turn(*parts: Any) -> list[Step]:
    return list(frames_of(replies.stream(*parts, input_tokens=7)))


def rig_of(*turns: list[Step], providers: tuple[FakeProvider, ...], **limits: Any) -> Rig:
    return Rig(
        FakeModel(*DONE, turns=turns), limits=small(**limits), providers=FakeServers(*providers)
    )


def sent(rig: Rig, number: int) -> list[Any]:
    """What the model was sent as input in a turn."""
    return list(json.loads(rig.model.bodies[number])["input"])


def kinds(response: Any) -> list[str]:
    return [item["type"] for item in response["output"]]


async def test_an_owned_call_is_run_and_the_model_goes_on() -> None:
    """T1, T5, R3-R7, R10, R14: one stream; the same object streamed, whole and stored; usage is summed."""
    provider = FakeProvider("s", "look")
    rig = rig_of(turn(text("hm"), call("look", '{"a":', "1}")), providers=(provider,))
    reply = FakeReply()

    events = await rig.stream(reply, tools=[server("s", authorization="secret")])

    response = final(events)
    listed, message, called, last = response["output"]
    assert listed["tools"] == [
        {"name": "look", "description": None, "input_schema": {"type": "object"}, "annotations": None}
    ]  # fmt: skip
    assert (called["name"], called["server_label"]) == ("look", "s")
    assert (called["status"], called["output"]) == ("completed", 'look {"a":1}')
    assert [message["content"][0]["text"], last["content"][0]["text"]] == ["hm", "done"]
    assert response["usage"]["input_tokens"] == 14
    assert [e["type"] for e in events if "mcp_call" in e["type"]] == [
        "response.mcp_call.in_progress",
        "response.mcp_call_arguments.delta",
        "response.mcp_call_arguments.delta",
        "response.mcp_call_arguments.done",
        "response.mcp_call.completed",
    ]
    assert not [e for e in events if "function_call" in e["type"]]
    assert accumulated(reply.raw).output_text == "hmdone"
    assert response == await rig.retrieve(response["id"])
    # X4: what the request was sent with is nowhere.
    assert b"secret" not in reply.raw + b"".join(rig.model.bodies)
    assert "secret" not in repr(rig.store.__dict__)


async def test_the_next_turn_begins_with_the_bytes_of_the_last() -> None:
    """M4, M9: a call and its output, as a pair; the next response sends the same."""
    rig = rig_of(turn(call("look", "{}")), providers=(FakeProvider("s", "look"),))
    first = (await rig.create(tools=[server("s")])).json
    await rig.create(previous_response_id=first["id"], tools=[server("s")], input="more")

    one, two, three = rig.model.bodies
    assert two.startswith(one.removesuffix(b"]}"))
    assert three.startswith(two.removesuffix(b"]}"))
    _, called, output = sent(rig, 1)
    assert (called["type"], called["name"]) == ("function_call", "look")
    assert output == {
        "type": "function_call_output", "call_id": called["call_id"], "output": "look {}",
    }  # fmt: skip


async def test_calls_run_side_by_side_within_the_bound() -> None:
    """T2: each has its own events, and closes when it is over."""
    gate = asyncio.Event()
    provider = FakeProvider("s", "a", "b", gate=gate)
    rig = rig_of(
        turn(call("a", "{}"), call("b", "{}"), call("a", '{"x":1}')),
        providers=(provider,),
        response_tool_calls=2,
    )
    reply = FakeReply()
    asking = rig.start(reply, stream=True, tools=[server("s")])
    await rig.until(lambda: provider.under_way == 2)
    gate.set()
    await asking

    assert provider.most == 2
    response = final(check_stream(reply.raw))
    assert [item["status"] for item in response["output"][1:]] == ["completed"] * 4


async def test_failures_are_outputs_for_the_model() -> None:
    """T2, T7: a failure ends its item as failed, and the response goes on."""
    provider = FakeProvider("s", "look", outcomes={"look": FAILED})
    rig = rig_of(turn(call("look", "{}")), providers=(provider,))

    response = final(await rig.stream(tools=[server("s")]))

    assert response["status"] == "completed"
    called = response["output"][1]
    assert (called["status"], called["output"]) == ("failed", None)
    assert called["error"]["type"] == "mcp_tool_execution_error"
    assert sent(rig, 1)[-1]["output"] == WHY


async def test_a_provider_that_breaks_costs_its_own_call_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """T2: a bug in one is an outcome too."""

    class Broken(FakeProvider):
        async def call(self, name: str, arguments: bytes, *, timeout: float) -> ToolOutcome:
            raise RuntimeError("bug")

    rig = rig_of(
        turn(call("x", "{}"), call("y", "{}")),
        providers=(Broken("b", "x"), FakeProvider("s", "y")),
    )
    response = final(await rig.stream(tools=[server("b"), server("s")]))
    assert [i["status"] for i in response["output"] if i["type"] == "mcp_call"] == [
        "failed",
        "completed",
    ]
    assert "a call of a tool broke" in caplog.text


async def test_a_server_that_cannot_be_listed_costs_its_own_tools_only() -> None:
    """T5: its item says why."""
    rig = rig_of(
        turn(call("y", "{}")),
        providers=(FakeProvider("b", broken="no route"), FakeProvider("s", "y")),
    )
    response = final(await rig.stream(tools=[server("b"), server("s")]))
    assert kinds(response) == ["mcp_list_tools", "mcp_list_tools", "mcp_call", "message"]
    assert (response["output"][0]["error"], response["output"][0]["tools"]) == ("no route", [])


async def test_owned_client_and_unknown_calls_of_one_turn() -> None:
    """T3, T7: the owned is run, the others are the client's; the next response goes on with all outputs."""
    provider = FakeProvider("s", "mine")
    rig = rig_of(
        turn(call("mine", "{}"), call("yours", "{}"), call("nobodys", "{}")),
        providers=(provider,),
    )
    tools = [{"type": "function", "name": "yours"}, server("s")]

    response = final(await rig.stream(tools=tools))

    assert kinds(response) == ["mcp_list_tools", "mcp_call", "function_call", "function_call"]
    assert response["status"] == "completed"
    assert len(rig.model.bodies) == 1
    answers = [
        {"type": "function_call_output", "call_id": item["call_id"], "output": "ok"}
        for item in response["output"][2:]
    ]
    await rig.stream(tools=tools, input=answers, previous_response_id=response["id"])
    assert [i.get("type") for i in sent(rig, 1)[1:]] == [
        "function_call",
        "function_call_output",
        "function_call",
        "function_call",
        "function_call_output",
        "function_call_output",
    ]
    assert len(provider.calls) == 1


async def test_tools_of_one_name_are_kept_apart() -> None:
    """T5: of two servers, and of the client."""
    one, two = FakeProvider("one", "look"), FakeProvider("two", "look")
    rig = rig_of(turn(call("two__look", "{}")), providers=(one, two))

    response = final(await rig.stream(tools=[server("one"), server("two")]))

    names = [tool["name"] for tool in json.loads(rig.model.bodies[0])["tools"]]
    assert names == ["one__look", "two__look"]
    assert (len(one.calls), len(two.calls)) == (0, 1)
    assert (response["output"][2]["name"], response["output"][2]["server_label"]) == ("look", "two")


async def test_a_forced_choice_holds_for_one_turn() -> None:
    """T4: the model could never end otherwise."""
    rig = rig_of(turn(call("look", "{}")), providers=(FakeProvider("s", "look"),))
    await rig.create(tools=[server("s")], tool_choice="required")
    asked = [json.loads(body).get("tool_choice") for body in rig.model.bodies]
    assert asked == ["required", None]


@pytest.mark.parametrize("most", [1, 2])
async def test_the_calls_of_a_response_are_counted(most: int) -> None:
    """T4: what is over the bound is not run, the model is told so, and a turn of nothing else is the last."""
    provider = FakeProvider("s", "look")
    asking = turn(call("look", "{}"), call("look", "{}"))
    rig = rig_of(asking, asking, asking, providers=(provider,))

    response = final(await rig.stream(tools=[server("s")], max_tool_calls=most))

    assert len(provider.calls) == most
    assert response["incomplete_details"] == {"reason": "max_tool_calls"}
    assert len(rig.model.bodies) == 2


async def test_the_turns_of_a_response_are_counted() -> None:
    """T4."""
    provider = FakeProvider("s", "look")
    rig = rig_of(*[turn(call("look", "{}"))] * 5, providers=(provider,), turns=3)
    response = final(await rig.stream(tools=[server("s")]))
    assert response["incomplete_details"] == {"reason": "max_turns"}
    assert (len(rig.model.bodies), len(provider.calls)) == (3, 3)


async def test_a_failure_behind_a_call_is_not_to_be_repeated() -> None:
    """R13: a client that asks again would run the tool again."""
    rig = rig_of(turn(call("look", "{}")), [Break()], providers=(FakeProvider("s", "look"),))
    reply = await rig.create(tools=[server("s")])
    assert reply.whole is not None
    assert (reply.whole.status, reply.whole.headers["x-should-retry"]) == (502, "false")


async def test_a_cancel_gives_up_the_calls_under_way() -> None:
    """T2, R5: they are closed as incomplete."""
    provider = FakeProvider("s", "slow", gate=asyncio.Event())
    rig = rig_of(turn(call("slow", "{}"), call("slow", "{}")), providers=(provider,))
    reply = FakeReply()
    asking = rig.start(reply, stream=True, tools=[server("s")])
    await rig.until(lambda: provider.under_way == 2)
    [stored] = await rig.stored()
    await rig.responses.cancel(CALLER, stored.id, "")
    await asking

    response = final(check_stream(reply.raw))
    assert response["status"] == "cancelled"
    assert [item["status"] for item in response["output"][1:]] == ["incomplete"] * 2
    assert provider.given_up == 2


async def test_a_background_response_runs_tools_and_has_no_credentials() -> None:
    """X4: those would have to be stored."""
    rig = rig_of(turn(call("look", "{}")), providers=(FakeProvider("s", "look"),))
    for name, value in (("authorization", "t"), ("headers", {"x-key": "t"})):
        refused = await rig.create(background=True, tools=[server("s", **{name: value})])
        assert refused.json["error"]["param"] == f"tools[0].{name}"
    rig.background.start()
    queued = (await rig.create(background=True, tools=[server("s")])).json
    response = await rig.becomes(queued["id"], "completed", "failed")
    await rig.background.stop()
    assert kinds(response) == ["mcp_list_tools", "mcp_call", "message"]


@pytest.mark.parametrize("background_stream", [False, True])
async def test_a_call_whose_result_is_stored_is_not_made_again(background_stream: bool) -> None:
    """P4, T2: the next worker keeps what the dead one's tools answered, and asks the model to go on."""
    provider = FakeProvider("s", "look", "other")
    servers = FakeServers(provider)
    dead = Rig(FakeModel(), limits=small(lease=GONE), worker="replica/1#1", providers=servers)
    lease = await leave_behind_a_call(dead, stream=background_stream)
    rig = Rig(FakeModel(*DONE), store=dead.store, limits=small(lease=0.04), providers=servers)
    rig.recovery.start()
    rig.background.start()
    response = await rig.becomes(lease, "completed", "failed", "incomplete")
    await rig.recovery.stop()
    await rig.background.stop()
    await rig.settled()

    assert response["status"] == "completed", response["error"]
    assert kinds(response) == ["mcp_list_tools", "mcp_call", "mcp_call", "message"]
    assert [i["status"] for i in response["output"][1:3]] == ["completed", "incomplete"]
    assert provider.calls == []
    assert [i.get("type") for i in sent(rig, 0)[1:]] == ["function_call", "function_call_output"]
    assert sent(rig, 0)[-1]["output"] == "found"


async def test_a_response_that_is_taken_over_twice_goes_on() -> None:
    """P4, T2, R10: the first time in the middle of a call; what ended before is kept, its usage too."""
    provider = FakeProvider("s", "look", "other")
    servers = FakeServers(provider)
    dead = Rig(FakeModel(), limits=small(lease=GONE), worker="replica/1#1", providers=servers)
    wanted = await leave_behind_a_call(dead, stream=True)
    never = FakeModel(Hang(asyncio.Event()))
    other = Rig(
        never,
        store=dead.store,
        limits=small(lease=GONE, log_interval=0.0),
        worker="replica/2#1",
        providers=servers,
    )
    [claim] = await other.store.claim(other.live.worker, GONE, queued=0, expired=1)
    run = await other.takeover.take_over(claim)
    await other.until(lambda: never.bodies)
    await other.until_logged(wanted, b'"incomplete"')
    rig = Rig(FakeModel(*DONE), store=dead.store, providers=servers)
    [claim] = await rig.store.claim(rig.live.worker, rig.limits.lease, queued=0, expired=1)
    await (await rig.takeover.take_over(claim))
    response = await rig.retrieve(wanted)
    run.cancel()
    await asyncio.wait([run])

    assert response["status"] == "completed", response["error"]
    assert [i["status"] for i in response["output"][1:3]] == ["completed", "incomplete"]
    assert provider.calls == []
    assert rig.model.bodies == never.bodies
    assert response["usage"]["input_tokens"] == 7 + 3
    assert final(check_stream(await rig.log(wanted), taken_over=True)) == response


async def test_a_stream_in_the_foreground_with_calls_fails_when_its_worker_dies() -> None:
    """P4, R1: its items stay and are closed; nothing is run again."""
    provider = FakeProvider("s", "look", "other")
    servers = FakeServers(provider)
    dead = Rig(FakeModel(), limits=small(lease=GONE), worker="replica/1#1", providers=servers)
    wanted = await leave_behind_a_call(dead, stream=True, background=False)
    rig = Rig(FakeModel(*DONE), store=dead.store, limits=small(lease=0.04), providers=servers)
    rig.recovery.start()
    response = await rig.becomes(wanted, "completed", "failed", "incomplete")
    await rig.recovery.stop()
    await rig.settled()

    assert response["status"] == "failed"
    assert [item.get("status") for item in response["output"]] == [None, "completed", "incomplete"]
    assert final(check_stream(await rig.log(wanted), taken_over=True)) == response
    assert (rig.model.bodies, provider.calls) == ([], [])


async def leave_behind_a_call(rig: Rig, *, stream: bool, background: bool = True) -> str:
    """Leave a response of whose two calls one has ended."""
    body = json.dumps(
        {
            "model": "m",
            "input": "hi",
            "background": background,
            "stream": stream,
            "tools": [server("s")],
        }
    ).encode()
    run = await rig.admit(body, Caller("default"))
    assert run.new is not None
    lease = await rig.store.accept(run.new)
    if background:
        [claim] = await rig.store.claim(rig.live.worker, rig.limits.lease, queued=1, expired=0)
        lease = claim.lease
    listed = await rig.live.means.tools.list(run.providers)
    assert isinstance(listed, ToolsListed)
    machine, first = run.machine, run.machine.sequence
    begun: list[Input] = [run.first, listed, ModelAnswered()]
    calls: list[Input] = [
        ItemStarted("function_call", "look"),
        ArgumentsDelta("{}"),
        ItemStarted("function_call", "other"),
    ]
    frames = b""
    effects: list[Effect] = []
    for received in (*begun, *calls, TurnEnded(NOW, Usage(input_tokens=3))):
        effects = machine.receive(received)
        frames += b"".join(e.frames for e in effects if isinstance(e, Send))
    called = next(e.calls[0].item_id for e in effects if isinstance(e, RunTools))
    for effect in machine.receive(ToolEnded(called, ToolOutcome(text="found"))):
        assert isinstance(effect, Send)
        frames += effect.frames
    await rig.store.append(lease, EventBatch(first, machine.sequence - 1, frames))
    return run.id
