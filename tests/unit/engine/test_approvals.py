"""Calls that need consent, asked for and answered, with fakes at all ports (rules T3-T6)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from engine.errors import LeaseLost
from engine.ports import EventBatch, FinishedResponse, Lease, ToolOutcome
from engine.response.effects import Send
from engine.response.inputs import ItemStarted, ModelAnswered
from tests.support import replies
from tests.support.dead_worker import GONE
from tests.support.engine_rig import CALLER, Rig, final, small
from tests.support.fake_model import FakeModel, Head, Step, frames_of
from tests.support.fake_reply import FakeReply
from tests.support.fake_tools import FakeProvider, FakeServers, server
from tests.support.faulty_store import FaultyStore
from tests.support.replies import call, text
from tests.support.sdk import accumulated
from tests.support.stream_rules import check_stream

DONE = frames_of(replies.stream(text("done"), input_tokens=7))
WHY = "no such customer"
FAILED = ToolOutcome(
    text=WHY,
    error=b'{"type":"mcp_tool_execution_error","content":[{"type":"text","text":"%b"}]}'
    % WHY.encode(),
)
ARGUMENTS = '{"to": "bob", "n": 1}'


def turn(*parts: Any, **fields: Any) -> list[Step]:
    return list(frames_of(replies.stream(*parts, **fields)))


def asks(label: str = "s", **fields: Any) -> dict[str, Any]:
    """A server whose calls need consent, as is the default."""
    return server(label, require_approval=None, **fields)


def rig_of(*turns: list[Step], provider: FakeProvider | None = None, **more: Any) -> Rig:
    servers = FakeServers(provider or FakeProvider("s", "send", "look"), FakeProvider("t", "send"))
    return Rig(FakeModel(*DONE, turns=turns), providers=servers, **more)


def sent(rig: Rig, number: int) -> list[Any]:
    """What the model was sent as input in a turn."""
    return list(json.loads(rig.model.bodies[number])["input"])


def kinds(response: Any) -> list[str]:
    return [item["type"] for item in response["output"]]


def of(response: Any, kind: str) -> list[Any]:
    return [item for item in response["output"] if item["type"] == kind]


def answer(request: Any, *, approve: bool = True, **fields: Any) -> dict[str, Any]:
    given = {"approval_request_id": request["id"], "approve": approve, **fields}
    return {"type": "mcp_approval_response", **given}


async def asked(rig: Rig, **fields: Any) -> tuple[Any, Any]:
    """Return a response that asks for one consent, and its request."""
    response = final(await rig.stream(**{"tools": [asks()], **fields}))
    [request] = of(response, "mcp_approval_request")
    return response, request


async def refused(rig: Rig, **fields: Any) -> tuple[int, str, str]:
    """Send what is refused; return status, param and code."""
    reply = await rig.create(**fields)
    assert reply.whole is not None
    error = reply.json["error"]
    return reply.whole.status, error["param"], error["code"]


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


# -- what does not count -----------------------------------------------------------------------------


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


# -- the background, and workers that die ------------------------------------------------------------


async def test_in_the_background_both_halves_work() -> None:
    """T6: and a second answer is refused when it is sent, not later."""
    provider = FakeProvider("s", "send")
    rig = rig_of(turn(call("send", "{}")), provider=provider)
    rig.background.start()
    queued = (await rig.create(background=True, tools=[asks()])).json
    first = await rig.becomes(queued["id"], "completed", "failed")
    [request] = of(first, "mcp_approval_request")
    fields = {"tools": [asks()], "input": [answer(request)], "previous_response_id": first["id"]}
    queued = (await rig.create(background=True, **fields)).json
    assert (await refused(rig, background=True, **fields))[0] == 409
    second = await rig.becomes(queued["id"], "completed", "failed")
    await rig.background.stop()
    assert kinds(second) == ["mcp_call", "message"]
    assert provider.calls == [("send", b"{}")]


class Leaving(Rig):
    """A worker that dies in the middle of a run: its log is cut behind so many frames."""

    async def leave(self, frames: int, **fields: Any) -> str:
        written: list[tuple[Lease, EventBatch]] = []
        over = asyncio.Event()
        append = self.store.append

        async def keep(lease: Lease, batch: EventBatch) -> None:
            written.append((lease, batch))

        async def end(finished: FinishedResponse, *, again: bool = False) -> None:
            if finished.events is not None:
                written.append((finished.lease, finished.events))
            over.set()
            raise LeaseLost("dead")

        self.store.append, self.store.finish = keep, end  # type: ignore[method-assign]
        self.background.start()
        queued = (await self.create(background=True, **fields)).json
        async with asyncio.timeout(5):
            await over.wait()
        await self.background.stop()
        await self.settled()
        del self.store.append, self.store.finish
        raw = b"".join(batch.frames for _, batch in written).split(b"\n\n")
        assert len(raw) >= frames + 2, "the log is shorter"
        lease, first = written[0][0], written[0][1].first
        kept = b"".join(frame + b"\n\n" for frame in raw[:frames])
        if kept:
            await append(lease, EventBatch(first, first + frames - 1, kept))
        return str(queued["id"])


async def takes_over(store: FaultyStore, provider: FakeProvider, wanted: str) -> tuple[Rig, Any]:
    """Let another worker bring it to its end."""
    rig = Rig(
        FakeModel(*DONE), store=store, limits=small(lease=0.04), worker="r/1#1",
        providers=FakeServers(provider),
    )  # fmt: skip
    rig.recovery.start()
    rig.background.start()
    response = await rig.becomes(wanted, "completed", "failed", "incomplete")
    await rig.recovery.stop()
    await rig.background.stop()
    await rig.settled()
    return rig, response


@pytest.mark.parametrize(
    ("frames", "statuses", "calls"),
    [
        (0, ["completed"], 1),  # it had not begun
        (3, ["incomplete"], 0),  # what came of it nobody knows
        (7, ["completed"], 0),  # its result is stored
    ],
)
async def test_an_approved_call_survives_its_worker(
    frames: int, statuses: list[str], calls: int
) -> None:
    """P4, T6: wherever the log ends, it is called once at most, and what is stored of it is used."""
    provider = FakeProvider("s", "send")
    servers = FakeServers(provider)
    asking = Rig(FakeModel(*DONE, turns=[turn(call("send", "{}"))]), providers=servers)
    first, request = await asked(asking)
    dead = Leaving(
        FakeModel(*DONE), store=asking.store, limits=small(lease=GONE), worker="r/2#1",
        providers=servers,
    )  # fmt: skip
    fields = {"tools": [asks()], "input": [answer(request)], "previous_response_id": first["id"]}
    wanted = await dead.leave(frames, **fields)
    before = len(provider.calls)
    rig, response = await takes_over(dead.store, provider, wanted)
    assert response["status"] == "completed", response["error"]
    assert [item["status"] for item in of(response, "mcp_call")] == statuses
    assert len(provider.calls) - before == calls
    assert check_stream(await rig.log(wanted), taken_over=True)
    known = [item.get("type") for item in sent(rig, 0)[-2:]]
    assert (known == ["function_call", "function_call_output"]) is (statuses == ["completed"])


@pytest.mark.parametrize("frames", [6, 7])
async def test_a_request_outlives_the_worker_that_asked(frames: int) -> None:
    """P4, T6: where its `done` is logged, and where only its `added` is."""
    provider = FakeProvider("s", "send")
    dead = Leaving(
        FakeModel(turns=[turn(call("send", "{}"))]), limits=small(lease=GONE), worker="r/2#1",
        providers=FakeServers(provider),
    )  # fmt: skip
    wanted = await dead.leave(frames, tools=[asks()])
    rig, response = await takes_over(dead.store, provider, wanted)
    assert kinds(response) == ["mcp_list_tools", "mcp_approval_request"]
    assert rig.model.bodies == []
    fields: dict[str, Any] = {
        "input": [answer(response["output"][1])],
        "previous_response_id": wanted,
    }
    assert kinds(final(await rig.stream(tools=[asks()], **fields)))[0] == "mcp_call"


async def test_a_stream_without_its_own_list_fails_in_order_when_its_worker_dies() -> None:
    """P4, T5, R1: the list is in an earlier response; its log is read back all the same."""
    provider = FakeProvider("s", "look")
    servers = FakeServers(provider)
    asking = Rig(FakeModel(*DONE), providers=servers)
    first = final(await asking.stream(tools=[server("s")]))
    dead = Rig(
        FakeModel(*DONE), store=asking.store, limits=small(lease=GONE), worker="r/2#1",
        providers=servers,
    )  # fmt: skip
    wanted = await leave_a_call(dead, previous_response_id=first["id"])
    rig, response = await takes_over(dead.store, provider, wanted)
    assert response["status"] == "failed"
    assert [item["status"] for item in response["output"]] == ["incomplete"]
    assert final(check_stream(await rig.log(wanted), taken_over=True)) == response


async def leave_a_call(rig: Rig, **fields: Any) -> str:
    """Leave a stream in the foreground in the middle of a call."""
    body = json.dumps(
        {"model": "m", "input": "hi", "stream": True, "tools": [server("s")], **fields}
    )
    run = await rig.admit(body.encode())
    assert run.new is not None
    lease = await rig.store.accept(run.new)
    listed = await rig.live.means.tools.list(run.providers)
    frames, last = b"", -1
    for received in (run.first, listed, ModelAnswered(), ItemStarted("function_call", "look")):
        for effect in run.machine.receive(received):
            if isinstance(effect, Send):
                frames, last = frames + effect.frames, effect.last
    await rig.store.append(lease, EventBatch(0, last, frames))
    return run.id
