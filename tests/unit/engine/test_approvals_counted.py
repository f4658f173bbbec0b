"""Which answers to requests for consent count, and how often (rule T6)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.support.consents import (
    ARGUMENTS,
    DONE,
    answer,
    asked,
    asks,
    kinds,
    of,
    refused,
    rig_of,
    sent,
    turn,
)
from tests.support.engine_rig import CALLER, Rig, final
from tests.support.fake_model import FakeModel, Head
from tests.support.fake_tools import FakeProvider, FakeServers, server
from tests.support.replies import call


async def test_of_many_answers_at_once_one_counts() -> None:
    """T6: the others are 409 with their place, and the tool is called once; so it is later."""
    provider = FakeProvider("s", "send")
    rig = rig_of(turn(call("send", "{}")), provider=provider)
    first, request = await asked(rig)
    fields = {"tools": [asks()], "input": [answer(request)], "previous_response_id": first["id"]}
    answers = await asyncio.gather(
        *(rig.create(**fields, stream=n % 2 == 0, store=n % 4 < 2) for n in range(20))
    )
    refusals = [each for each in answers if each.whole is not None and each.whole.status != 200]
    assert len(refusals) == 19
    error = refusals[0].json["error"]
    assert error["code"] == "approval_already_answered"
    assert error["param"] == "input[0].approval_request_id"
    assert {each.whole.status for each in refusals if each.whole is not None} == {409}
    assert provider.calls == [("send", b"{}")]
    assert (await refused(rig, **fields))[0] == 409
    no = [answer(request, approve=False)]
    assert (await refused(rig, **{**fields, "input": no}))[0] == 409


@pytest.mark.parametrize("store", [True, False])
async def test_an_answer_that_came_to_nothing_can_be_given_again(store: bool) -> None:
    """T6: refused before anything was called, as its Idempotency-Key would be."""
    provider = FakeProvider("s", "send")
    rig = rig_of(turn(call("send", "{}")), provider=provider)
    first, request = await asked(rig)
    no = answer(request, approve=False)
    fields = {"input": [no], "previous_response_id": first["id"], "store": store}
    rig.model.steps = (Head(429), b"{}")
    status, _, _ = await refused(rig, **fields, tools=[asks()])
    assert status == 429
    rig.model.steps = tuple(DONE)
    response = final(await rig.stream(**fields, tools=[asks()]))
    assert response["status"] == "completed"


async def test_a_failure_behind_an_approved_call_keeps_the_answer() -> None:
    """R13, R16, T6: the tool was called: the client must not send it again."""
    provider = FakeProvider("s", "send")
    rig = rig_of(turn(call("send", "{}")), [Head(429), b"{}"], provider=provider)
    first, request = await asked(rig)
    fields = {"tools": [asks()], "input": [answer(request)], "previous_response_id": first["id"]}
    reply = await rig.create(**fields)
    assert reply.whole is not None
    assert reply.whole.headers["x-should-retry"] == "false"
    assert (await refused(rig, **fields))[0] == 409
    assert len(provider.calls) == 1


async def test_a_repetition_with_its_key_is_served_what_the_first_made() -> None:
    """T6: it is not told that its answer was taken, for that was its own."""
    provider = FakeProvider("s", "send")
    rig = rig_of(turn(call("send", "{}")), provider=provider)
    first, request = await asked(rig)
    caller = type(CALLER)(CALLER.tenant, idempotency_key="k")
    fields = {"tools": [asks()], "input": [answer(request)], "previous_response_id": first["id"]}
    one, two = [(await rig.create(caller=caller, **fields)).json for _ in range(2)]
    assert one["id"] == two["id"]
    assert len(provider.calls) == 1


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"server_url": "https://evil.example.com/x"}, "tools[0].server_url"),
        ({"authorization": "another"}, "tools[0].server_url"),
        ({"headers": {"x-key": "1"}}, "tools[0].server_url"),
        ({"allowed_tools": ["look"]}, "tools[0].allowed_tools"),
        ({"server_label": "t"}, "tools"),
    ],
)
async def test_an_approval_is_for_one_server_with_its_credentials(
    changed: dict[str, Any], param: str
) -> None:
    """T6: nothing is called, and the request still waits."""
    provider = FakeProvider("s", "send")
    rig = rig_of(turn(call("send", "{}")), provider=provider)
    first, request = await asked(rig, tools=[asks(authorization="token")])
    fields = {"input": [answer(request)], "previous_response_id": first["id"]}
    tool = {**asks(authorization="token"), **changed}
    status, found, _ = await refused(rig, **fields, tools=[tool])
    assert (status, found) == (400, param)
    assert provider.calls == []
    right = final(await rig.stream(**fields, tools=[asks(authorization="Bearer token")]))
    assert kinds(right)[0] == "mcp_call"


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize(
    "changed",
    [{"arguments": '{"to": "eve"}'}, {"name": "look"}, {"server_label": "t"}, {"id": "mcpr_0_x"}],
)
async def test_a_request_that_was_tampered_with_does_not_count(
    store: bool, changed: dict[str, Any]
) -> None:
    """T6: of a stored response or not; arguments are compared as JSON."""
    provider = FakeProvider("s", "send", "look")
    rig = rig_of(turn(call("send", ARGUMENTS)), provider=provider)
    first, request = await asked(rig, store=store)
    tools = [asks(), asks("t")]
    tampered = {**request, **changed}
    status, param, _ = await refused(rig, tools=tools, input=[tampered, answer(tampered)])
    assert status == 400
    assert param.startswith("input[") or param.startswith("tools")
    assert provider.calls == []
    spaced = {**request, "arguments": '{ "n":1, "to":"bob" }'}
    response = final(await rig.stream(tools=tools, input=[spaced, answer(spaced)]))
    assert response["output"][-2]["type"] == "mcp_call"
    assert first["id"]


@pytest.mark.parametrize("keys", [(), (b"k" * 32,)])
async def test_what_a_digest_in_the_id_holds_for(keys: tuple[bytes, ...]) -> None:
    """T6: a key of the gateway's covers credentials and tenant; without one the rest still holds."""
    provider = FakeProvider("s", "send")
    rig = rig_of(turn(call("send", "{}")), provider=provider, consent_keys=keys)
    _, request = await asked(rig, store=False, tools=[asks(authorization="token")])
    given: dict[str, Any] = {"input": [request, answer(request)], "store": False}
    other = await rig.create(**given, tools=[asks(authorization="other")])
    foreign = type(CALLER)("somebody")
    theirs = await rig.create(caller=foreign, **given, tools=[asks(authorization="token")])
    assert other.whole is not None
    assert theirs.whole is not None
    counts = {"completed": 2} if not keys else {}
    assert len(provider.calls) == counts.get("completed", 0)
    assert [other.whole.status, theirs.whole.status] == ([400, 400] if keys else [200, 200])
    elsewhere = asks(authorization="token", server_url="https://evil.example.com/")
    status, _, code = await refused(rig, **given, tools=[elsewhere])
    assert (status, code) == (400, "approval_mismatch")


async def test_keys_rotate() -> None:
    """T6: an old one still vouches for what it has made, until it is gone."""
    new, old = b"n" * 32, b"o" * 32
    first = rig_of(turn(call("send", "{}")), consent_keys=(old,))
    _, request = await asked(first, store=False)
    given: dict[str, Any] = {"input": [request, answer(request)], "store": False, "tools": [asks()]}
    assert kinds(final(await rig_of(consent_keys=(new, old)).stream(**given)))[1] == "mcp_call"
    assert (await refused(rig_of(consent_keys=(new,)), **given))[0] == 400


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (["unknown"], "approval_request_not_found"),
        (["asked"], "approval_request_not_found"),
        (["request", "asked", "asked"], "duplicate_approval"),
    ],
)
async def test_an_answer_needs_its_request(given: list[str], code: str) -> None:
    """T6, H1: in the input or in the thread; once."""
    rig = rig_of(turn(call("send", "{}")))
    _, request = await asked(rig)
    items = {
        "unknown": answer({"id": "mcpr_no"}), "asked": answer(request), "request": request,
    }  # fmt: skip
    status, param, found = await refused(rig, tools=[asks()], input=[items[n] for n in given])
    assert (status, found) == (400, code)
    assert param == f"input[{min(1, len(given) - 1)}].approval_request_id"


async def test_a_request_goes_with_its_response() -> None:
    """P7, T6: also where the client has kept it."""
    rig = rig_of(turn(call("send", "{}")))
    first, request = await asked(rig)
    await rig.responses.delete(CALLER, first["id"], "")
    status, _, code = await refused(rig, tools=[asks()], input=[request, answer(request)])
    assert (status, code) == (400, "approval_request_not_found")


async def test_a_tool_that_is_gone_is_not_called() -> None:
    """T4, T6: the model is told so."""
    provider = FakeProvider("s", "send")
    rig = rig_of(turn(call("send", "{}")), provider=provider)
    first, request = await asked(rig)
    later = FakeProvider("s", "look")
    other = Rig(FakeModel(*DONE), store=rig.store, worker="r/1#1", providers=FakeServers(later))
    response = final(
        await other.stream(
            tools=[asks()], input=[answer(request)], previous_response_id=first["id"]
        )
    )
    [called] = of(response, "mcp_call")
    assert called["status"] == "failed"
    assert (provider.calls, later.calls) == ([], [])
    assert "does not offer" in sent(other, 0)[-1]["output"]


async def test_approved_calls_are_counted() -> None:
    """T4: `max_tool_calls` is about those, too."""
    provider = FakeProvider("s", "send")
    rig = rig_of(turn(call("send", "{}"), call("send", "{}")), provider=provider)
    first = final(await rig.stream(tools=[asks()]))
    answers = [answer(request) for request in of(first, "mcp_approval_request")]
    response = final(
        await rig.stream(
            tools=[asks()], input=answers, previous_response_id=first["id"], max_tool_calls=1
        )
    )
    assert [item["status"] for item in of(response, "mcp_call")] == ["completed", "failed"]
    assert len(provider.calls) == 1


async def test_a_forced_choice_holds_for_the_turn_behind_an_approved_call() -> None:
    """T4: that is the model's first, whatever was called before it; and only for that one."""
    rig = rig_of(turn(call("send", "{}")), turn(call("look", "{}")))
    tools = [server("s", require_approval={"never": {"tool_names": ["look"]}})]
    first, request = await asked(rig, tools=tools)
    fields = {"input": [answer(request)], "previous_response_id": first["id"]}
    response = final(await rig.stream(tools=tools, tool_choice="required", **fields))
    assert kinds(response) == ["mcp_call", "mcp_call", "message"]
    choices = [json.loads(body).get("tool_choice") for body in rig.model.bodies]
    assert choices == [None, "required", None]
