"""Calls that need consent, asked for and answered, with fakes at all ports (rules T3-T6)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.consents import (
    ARGUMENTS,
    DONE,
    FAILED,
    WHY,
    answer,
    asked,
    asks,
    kinds,
    of,
    rig_of,
    sent,
    turn,
)
from tests.support.engine_rig import Rig, final
from tests.support.fake_model import FakeModel
from tests.support.fake_reply import FakeReply
from tests.support.fake_tools import FakeProvider, FakeServers, server
from tests.support.replies import call, text
from tests.support.sdk import accumulated
from tests.support.stream_rules import check_stream

# -- asking ------------------------------------------------------------------------------------------


async def test_a_call_that_needs_consent_ends_the_response_with_a_request() -> None:
    """T6, T1, R4, R5, R14: shown when it is whole; no call is made; the SDK accepts the stream."""
    provider = FakeProvider("s", "send")
    rig = rig_of(turn(text("hm"), call("send", '{"to": "bob"', ', "n": 1}')), provider=provider)
    reply = FakeReply()

    events = await rig.stream(reply, tools=[asks()])

    response = final(events)
    assert kinds(response) == ["mcp_list_tools", "message", "mcp_approval_request"]
    assert response["status"] == "completed"
    request = response["output"][2]
    assert request == {
        "id": request["id"], "type": "mcp_approval_request", "arguments": ARGUMENTS,
        "name": "send", "server_label": "s",
    }  # fmt: skip
    assert request["id"].startswith("mcpr_")
    shown = [e for e in events if e.get("item", {}).get("type") == "mcp_approval_request"]
    assert [(e["type"], e["item"]) for e in shown] == [
        ("response.output_item.added", request),
        ("response.output_item.done", request),
    ]
    assert provider.calls == []
    assert len(rig.model.bodies) == 1
    assert response["tools"][0]["require_approval"] == "always"
    made: Any = accumulated(reply.raw)
    assert [item.id for item in made.output] == [item["id"] for item in response["output"]]
    assert json.loads(json.dumps(await rig.retrieve(response["id"]))) == response


async def test_only_some_calls_of_a_turn_need_consent() -> None:
    """T3, T6: the others are run, the client's are returned, and all of it is answered at once."""
    provider = FakeProvider("s", "send", "look")
    first = turn(
        call("look", "{}"), call("send", "{}"), call("yours", "{}"), call("send", '{"n":2}')
    )
    rig = rig_of(first, provider=provider)
    filters = {"always": {"tool_names": ["send"]}, "never": {"tool_names": ["send", "look"]}}
    tools = [server("s", require_approval=filters), {"type": "function", "name": "yours"}]

    response = final(await rig.stream(tools=tools))

    assert kinds(response) == [
        "mcp_list_tools", "mcp_call", "mcp_approval_request", "function_call", "mcp_approval_request",
    ]  # fmt: skip
    assert provider.calls == [("look", b"{}")]
    one, two = of(response, "mcp_approval_request")
    [yours] = of(response, "function_call")
    given = [
        {"type": "function_call_output", "call_id": yours["call_id"], "output": "ok"},
        answer(two),
        answer(one, approve=False, reason="not twice"),
    ]
    response = final(
        await rig.stream(tools=tools, input=given, previous_response_id=response["id"])
    )
    assert kinds(response) == ["mcp_call", "message"]
    assert provider.calls[1:] == [("send", b'{"n":2}')]
    replayed = [item.get("name") or item.get("output") for item in sent(rig, 1)[1:]]
    assert replayed[:4] == ["look", "look {}", "yours", "ok"]
    assert replayed[4] == "send"
    assert "not twice" in replayed[5]
    assert replayed[6:] == ["send", 'send {"n":2}']


async def test_a_request_that_is_not_whole_is_not_shown() -> None:
    """R9, T6: it has no status that could say so."""
    rig = rig_of(turn(text("hm"), call("send", '{"to"'), cut_short=True))
    response = (await rig.create(tools=[asks()])).json
    assert kinds(response) == ["mcp_list_tools", "message"]
    assert response["status"] == "incomplete"


async def test_what_nobody_has_answered_is_not_sent_to_the_model() -> None:
    """M4, T6: no function call without an output; it can still be answered later, in the thread."""
    rig = rig_of(turn(text("hm"), call("send", "{}")))
    first, request = await asked(rig)
    second = final(await rig.stream(tools=[asks()], input="wait", previous_response_id=first["id"]))
    assert [item["content"] for item in sent(rig, 1)] == ["hi", "hm", "wait"]
    third = final(
        await rig.stream(tools=[asks()], input=[answer(request)], previous_response_id=second["id"])
    )
    assert kinds(third) == ["mcp_call", "message"]


# -- answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["previous", "stateless"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("store", [True, False])
async def test_an_approved_call_is_made_before_the_model_goes_on(
    way: str, stream: bool, store: bool
) -> None:
    """T6, T1, R2-R7, M9: by thread or by input, streamed or whole, stored or not."""
    provider = FakeProvider("s", "send")
    rig = rig_of(turn(text("hm"), call("send", ARGUMENTS)), provider=provider)
    first, request = await asked(rig, store=store or way == "previous")
    fields: dict[str, Any] = {"tools": [asks()], "store": store}
    if way == "previous":
        fields |= {"input": [answer(request)], "previous_response_id": first["id"]}
    else:
        user = {"role": "user", "content": "hi"}
        fields |= {"input": [user, *first["output"], answer(request)]}

    reply = await rig.create(stream=stream, **fields)
    response = final(check_stream(reply.raw)) if stream else reply.json

    assert kinds(response) == ["mcp_call", "message"]
    called = response["output"][0]
    assert called["approval_request_id"] == request["id"]
    assert (called["status"], called["output"]) == ("completed", f"send {ARGUMENTS}")
    assert provider.calls == [("send", ARGUMENTS.encode())]
    before, after = sent(rig, 0), sent(rig, 1)
    assert after[: len(before)] == before
    assert [item.get("type") for item in after[-2:]] == ["function_call", "function_call_output"]
    assert rig.model.bodies[1].startswith(rig.model.bodies[0].removesuffix(b"]}"))


@pytest.mark.parametrize("way", ["previous", "stateless"])
async def test_a_refusal_is_an_output_for_the_model(way: str) -> None:
    """T6: nothing is called, in this response or by what replays it."""
    provider = FakeProvider("s", "send")
    rig = rig_of(turn(call("send", ARGUMENTS)), provider=provider)
    first, request = await asked(rig)
    no = answer(request, approve=False, reason="too dear")
    if way == "previous":
        fields = {"input": [no], "previous_response_id": first["id"]}
    else:
        fields = {"input": [{"role": "user", "content": "hi"}, *first["output"], no]}
    response = final(await rig.stream(tools=[asks()], **fields))

    assert kinds(response) == ["message"]
    assert provider.calls == []
    called, output = sent(rig, 1)[-2:]
    assert (called["name"], called["arguments"]) == ("send", ARGUMENTS)
    assert "refused" in output["output"]
    assert "too dear" in output["output"]
    if way == "previous":
        again = {"input": "go on", "previous_response_id": response["id"]}
    else:
        again = {"input": [*fields["input"], *response["output"], {"role": "user", "content": "?"}]}
    await rig.stream(tools=[asks()], **again)
    assert rig.model.bodies[2].startswith(rig.model.bodies[1].removesuffix(b"]}"))


async def test_an_approved_call_replays_as_it_was_made() -> None:
    """M4, M9: by a client that keeps the history itself, and is not made again."""
    provider = FakeProvider("s", "send")
    rig = rig_of(turn(call("send", ARGUMENTS)), provider=provider)
    first, request = await asked(rig, store=False)
    history = [{"role": "user", "content": "hi"}, *first["output"], answer(request)]
    second = final(await rig.stream(tools=[asks()], store=False, input=history))
    history += [*second["output"], {"role": "user", "content": "and?"}]
    third = final(await rig.stream(tools=[asks()], store=False, input=history))
    assert kinds(third) == ["message"]
    assert len(provider.calls) == 1
    assert rig.model.bodies[2].startswith(rig.model.bodies[1].removesuffix(b"]}"))


async def test_calls_that_needed_no_consent_replay_too() -> None:
    """M4, M9: made, failed, and given up, by a client that keeps the history itself."""
    provider = FakeProvider("s", "look", "fail", outcomes={"fail": FAILED})
    rig = rig_of(turn(text("hm"), call("look", "{}"), call("fail", "{}")), provider=provider)
    first = final(await rig.stream(tools=[server("s")], store=False))
    lost = {**of(first, "mcp_call")[0], "id": "mcp_1", "status": "incomplete", "output": None}
    history = [{"role": "user", "content": "hi"}, *first["output"], lost]
    history.append({"role": "user", "content": "and?"})
    second = final(await rig.stream(tools=[server("s")], store=False, input=history))
    assert kinds(second) == ["message"]
    assert rig.model.bodies[2].startswith(rig.model.bodies[1].removesuffix(b"]}"))
    assert WHY in rig.model.bodies[2].decode()


async def test_the_names_of_a_replay_are_those_that_the_model_was_shown() -> None:
    """T5, M9: where two servers share a name, in calls made, approved and refused."""
    one, two = FakeProvider("s", "send"), FakeProvider("t", "send")
    model = FakeModel(*DONE, turns=[turn(call("s__send", "{}"), call("t__send", "{}"))])
    rig = Rig(model, providers=FakeServers(one, two))
    tools = [asks(), asks("t")]
    first = final(await rig.stream(tools=tools, store=False))
    yes, no = of(first, "mcp_approval_request")
    answers = [answer(yes), answer(no, approve=False)]
    given = [{"role": "user", "content": "hi"}, *first["output"], *answers]
    second = final(await rig.stream(tools=tools, store=False, input=given))
    assert [i["name"] for i in sent(rig, 1) if "name" in i] == ["t__send", "s__send"]
    given += [*second["output"], {"role": "user", "content": "and?"}]
    await rig.stream(tools=tools, store=False, input=given)
    assert rig.model.bodies[2].startswith(rig.model.bodies[1].removesuffix(b"]}"))


async def test_a_list_of_tools_is_shown_once_in_a_thread() -> None:
    """T5: again only where it has changed; a failure is told each time."""
    rig = rig_of()
    first = final(await rig.stream(tools=[asks()]))
    second = final(
        await rig.stream(tools=[asks(), asks("t")], previous_response_id=first["id"], input="b")
    )
    third = final(
        await rig.stream(
            tools=[asks(), asks("t")], input=[*first["output"], {"role": "user", "content": "c"}]
        )
    )
    assert [kinds(r) for r in (first, second)] == [["mcp_list_tools", "message"]] * 2
    assert [r["output"][0]["server_label"] for r in (first, second, third)] == ["s", "t", "t"]
    changed = Rig(
        FakeModel(*DONE), store=rig.store, worker="r/1#1",
        providers=FakeServers(FakeProvider("s", "new"), FakeProvider("t", broken="away")),
    )  # fmt: skip
    fourth = final(
        await changed.stream(tools=[asks(), asks("t")], previous_response_id=third["id"], input="d")
    )
    shown = of(fourth, "mcp_list_tools")
    assert [item.get("error") for item in shown] == [None, "away"]
    assert [tool["name"] for tool in shown[0]["tools"]] == ["new"]
