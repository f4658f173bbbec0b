"""Whose tools are: the gateway's, the client's, the model server's, an operator's (T1, T3, T4, T7)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from engine.api.ownership import ToolPolicy
from extproc.provided_tools import load_providers
from tests.support import replies
from tests.support.engine_rig import Rig, final, small
from tests.support.fake_model import FakeModel, Step, frames_of
from tests.support.fake_reply import FakeReply
from tests.support.fake_tools import FakeProvider, FakeServers, server
from tests.support.replies import call, text
from tests.support.sdk import accumulated
from tests.support.stream_rules import check_stream
from tests.support.upstream_calls import CALL, CODE, SEARCH, told, with_items

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[3] / "docs" / "examples")
    PROVIDED = load_providers(["dice=dice:open_dice"])

DONE = frames_of(replies.stream(text("done")))
POLICY = ToolPolicy(
    upstream_types=frozenset({"web_search", "code_interpreter"}),
    upstream_labels=frozenset({"theirs"}),
)
WEB = {"type": "web_search"}
INTERPRETER = {"type": "code_interpreter", "container": {"type": "auto"}}
THEIRS = {"type": "mcp", "server_label": "theirs", "server_url": "https://mcp.example.com/secret"}
F = {"type": "function", "name": "f"}


def turn(*parts: Any) -> list[Step]:
    return list(frames_of(replies.stream(*parts)))


def rig_of(*turns: list[Step], providers: tuple[FakeProvider, ...] = (), **limits: Any) -> Rig:
    return Rig(
        FakeModel(*DONE, turns=turns),
        limits=small(**limits),
        providers=FakeServers(*providers),
        policy=POLICY,
        provided=PROVIDED,
    )


def asked(rig: Rig, number: int) -> Any:
    """What the model was sent in a turn."""
    return json.loads(rig.model.bodies[number])


def names(rig: Rig, number: int) -> list[str]:
    """The functions that the model was shown in a turn."""
    return [tool["name"] for tool in asked(rig, number).get("tools", ())]


def kinds(response: Any) -> list[str]:
    return [item["type"] for item in response["output"]]


# -- upstream ------------------------------------------------------------------------------------


SAID = with_items(
    text("done"),
    before=[
        *told(SEARCH, ".in_progress", ".searching", ".completed"),
        *told(CODE, ".in_progress", "_code.done", ".interpreting", ".completed", index=1),
        *told(CALL, ".in_progress", ".completed", index=2),
    ],
    output=[SEARCH, CODE, CALL],
)


async def test_the_model_server_s_own_tools_pass_through() -> None:
    """T1, R3-R5, R14, M4: sent as declared; items and events under our ids; stored and replayed."""
    rig = rig_of(list(frames_of(SAID)))
    reply = FakeReply()
    tools = [WEB, INTERPRETER, {**THEIRS, "allowed_tools": None}]

    events = await rig.stream(reply, tools=tools)

    response = final(events)
    assert asked(rig, 0)["tools"] == [WEB, INTERPRETER, THEIRS]
    assert kinds(response) == ["web_search_call", "code_interpreter_call", "mcp_call", "message"]
    for item, theirs in zip(response["output"], (SEARCH, CODE, CALL), strict=False):
        assert {**item, "id": theirs["id"]} == theirs
        assert item["id"] != theirs["id"]
    assert "response.code_interpreter_call.interpreting" in {e["type"] for e in events}
    assert accumulated(reply.raw).output_text == "done"
    assert response == await rig.retrieve(response["id"])
    # X4: what a server is reached by is not echoed.
    assert response["tools"][2]["server_url"] == "https://mcp.example.com/<redacted>"

    await rig.stream(input="more", previous_response_id=response["id"])
    sent = asked(rig, 1)["input"][1:-1]
    assert [i.get("name", i.get("output", i.get("content"))) for i in sent] == [
        "code_interpreter",
        "42",
        "look",
        "found",
        "done",
    ]


@pytest.mark.parametrize(
    "before",
    [
        [],
        told(SEARCH, done=False),
        told(SEARCH)[1:],
        [*told(SEARCH), *told(SEARCH)[1:]],
        [*told(SEARCH, done=False), *told({**SEARCH, "id": "ws_other"})[1:]],
        told({**SEARCH, "id": "ws_other"}, ".searching"),
    ],
    ids=["never streamed", "never ended", "never begun", "ended twice", "two ids", "another id"],
)
async def test_what_a_stream_forgot_of_an_item_the_terminal_object_supplies(
    before: list[bytes],
) -> None:
    """R5: begun once, ended once."""
    rig = rig_of(list(frames_of(with_items(text("x"), before=before, output=[SEARCH]))))
    response = final(await rig.stream(tools=[WEB]))
    assert kinds(response).count("web_search_call") == 1
    [item] = [i for i in response["output"] if i["type"] == "web_search_call"]
    assert (item["status"], item["action"]) == ("completed", SEARCH["action"])


async def test_what_is_to_be_included_of_its_items_the_server_is_asked_for() -> None:
    """H1: only it has that; what is the gateway's to include is not its matter."""
    rig = rig_of()
    asked_for = ["code_interpreter_call.outputs", "file_search_call.results"]
    await rig.stream(tools=[INTERPRETER], include=asked_for)
    await rig.stream(include=asked_for)
    assert [asked(rig, turn).get("include") for turn in (0, 1)] == [asked_for[:1], None]


async def test_items_of_the_model_server_may_stand_open_beside_others() -> None:
    """R5: two searches at a time, and a text in the middle."""
    one, two = SEARCH, {**SEARCH, "id": "ws_two", "action": {"type": "search", "query": "two"}}
    first, second = told(one), told(two, index=1)
    mixed = [first[0], second[0], second[1], first[1]]
    rig = rig_of(list(frames_of(with_items(text("x"), before=mixed, output=[one, two]))))
    response = final(await rig.stream(tools=[WEB]))
    assert [i["action"]["query"] for i in response["output"][:2]] == ["holdfast", "two"]


async def test_what_was_not_declared_does_not_pass() -> None:
    """T1: without an upstream tool in the request, a server's own items are none of the client's."""
    rig = rig_of(list(frames_of(SAID)))
    assert kinds(final(await rig.stream())) == ["message"]


async def test_upstream_and_owned_tools_in_one_response() -> None:
    """T3: the server's item passes, the owned call is run, and the model goes on."""
    provider = FakeProvider("s", "look")
    mixed = with_items(call("look", "{}"), before=told(CODE, ".completed"), output=[CODE])
    rig = rig_of(list(frames_of(mixed)), providers=(provider,))
    response = final(await rig.stream(tools=[INTERPRETER, server("s")], tool_choice="auto"))
    assert kinds(response) == ["mcp_list_tools", "code_interpreter_call", "mcp_call", "message"]
    assert len(provider.calls) == 1
    assert [i.get("type") for i in asked(rig, 1)["input"][1:]] == [
        "function_call",
        "function_call_output",
    ] * 2


@pytest.mark.parametrize("name", ["authorization", "headers"])
async def test_credentials_are_not_sent_upstream(name: str) -> None:
    """X4: model servers echo and log them."""
    rig = rig_of()
    value: Any = {"x-key": "t"} if name == "headers" else "t"
    for declared in ({**THEIRS, name: value}, {"type": "dice", name: value}):
        refused = await rig.create(tools=[declared])
        assert refused.json["error"]["param"] == f"tools[0].{name}"
    assert rig.model.bodies == []


# -- tool_choice ---------------------------------------------------------------------------------


async def test_a_forced_tool_of_a_server_is_forced_by_the_name_that_the_model_sees() -> None:
    """T4: and in the first turn only."""
    one, two = FakeProvider("one", "look", "see"), FakeProvider("two", "look")
    rig = rig_of(turn(call("two__look", "{}")), providers=(one, two))
    choice = {"type": "mcp", "server_label": "two", "name": "look"}
    response = final(await rig.stream(tools=[server("one"), server("two")], tool_choice=choice))
    assert response["tool_choice"] == choice
    assert asked(rig, 0)["tool_choice"] == {"type": "function", "name": "two__look"}
    assert "tool_choice" not in asked(rig, 1)
    assert names(rig, 0) == names(rig, 1)


async def test_a_forced_server_is_all_that_the_first_turn_is_shown() -> None:
    """T4: the one way to force some of several tools."""
    rig = rig_of(
        turn(call("a", "{}")), providers=(FakeProvider("one", "a", "b"), FakeProvider("two", "c"))
    )
    tools = [F, server("one"), server("two")]
    await rig.stream(tools=tools, tool_choice={"type": "mcp", "server_label": "one"})
    assert (names(rig, 0), asked(rig, 0)["tool_choice"]) == (["a", "b"], "required")
    assert names(rig, 1) == ["f", "a", "b", "c"]


async def test_a_forced_tool_that_is_not_offered_is_refused() -> None:
    """H1: known only once the server was asked, and before the model is."""
    rig = rig_of(providers=(FakeProvider("s", "a"),))
    choice = {"type": "mcp", "server_label": "s", "name": "b"}
    refused = await rig.create(tools=[server("s")], tool_choice=choice, stream=True)
    assert refused.whole is not None
    assert (refused.whole.status, refused.json["error"]["param"]) == (400, "tool_choice")
    assert (rig.model.bodies, await rig.stored()) == ([], [])


@pytest.mark.parametrize(
    ("entries", "shown", "run"),
    [
        ([F], ["f"], []),
        ([{"type": "mcp", "server_label": "s"}], ["a", "b"], ["a", "b"]),
        ([F, {"type": "mcp", "server_label": "s", "name": "b"}], ["f", "b"], ["b"]),
        ([{"type": "dice"}, {"type": "web_search"}], ["web_search", "roll"], []),
    ],
)
async def test_allowed_tools_are_a_hard_limit_for_owned_tools_too(
    entries: list[Any], shown: list[str], run: list[str]
) -> None:
    """T4: the model is told, nothing is called, and the others go on."""
    provider = FakeProvider("s", "a", "b")
    rig = rig_of(turn(call("a", "{}"), call("b", "{}")), providers=(provider,))
    choice = {"type": "allowed_tools", "mode": "auto", "tools": entries}
    tools = [F, server("s"), {"type": "dice"}, WEB]

    response = final(await rig.stream(tools=tools, tool_choice=choice))

    assert [tool.get("name", tool["type"]) for tool in asked(rig, 0)["tools"]] == shown
    assert [name for name, _ in provider.calls] == run
    calls = [item for item in response["output"] if item["type"] == "mcp_call"]
    assert [item["name"] for item in calls if item["status"] == "completed"] == run
    outputs = [i["output"] for i in asked(rig, 1)["input"] if "output" in i]
    assert sum("does not allow" in output for output in outputs) == 2 - len(run)
    assert response["status"] == "completed"


async def test_a_choice_of_an_upstream_tool_is_sent_as_it_came() -> None:
    """T4."""
    rig = rig_of()
    for choice in (WEB, {"type": "mcp", "server_label": "theirs"}):
        await rig.stream(tools=[WEB, THEIRS], tool_choice=choice)
        assert asked(rig, -1)["tool_choice"] == choice


# -- providers of an operator's own --------------------------------------------------------------


async def test_the_example_of_the_docs_runs() -> None:
    """T2: a provider in one file; a wrong call of the model's is an output for it."""
    rig = rig_of(turn(call("roll", '{"dice":2}'), call("roll", '{"dice":0}')))
    events = await rig.stream(tools=[{"type": "dice", "sides": 20}], tool_choice={"type": "dice"})
    response = final(events)
    listed, rolled, wrong, _ = response["output"]
    assert (listed["server_label"], [t["name"] for t in listed["tools"]]) == ("dice", ["roll"])
    assert len(json.loads(rolled["output"])) == 2
    assert (wrong["status"], wrong["error"]["type"]) == ("failed", "mcp_tool_execution_error")
    assert response["tools"] == [{"type": "dice", "sides": 20}]
    assert asked(rig, 0)["tool_choice"] == {"type": "function", "name": "roll"}


async def test_a_provider_refuses_what_it_cannot_honour() -> None:
    """H1: at its place."""
    rig = rig_of()
    for tools, param in (
        ([F, {"type": "dice", "sides": 1}], "tools[1]"),
        (
            [{"type": "dice"}, {"type": "mcp", "server_label": "dice", "server_url": "https://x/"}],
            "",
        ),
    ):
        refused = await rig.create(tools=tools)
        assert refused.json["error"]["param"].startswith(param)


# -- the deadline --------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
async def test_a_response_has_a_deadline_over_all_its_turns(stream: bool) -> None:
    """T2: it ends incomplete, and what was made is kept."""
    provider = FakeProvider("s", "slow", gate=asyncio.Event())
    rig = rig_of(turn(text("hm"), call("slow", "{}")), providers=(provider,), response=0.05)
    reply = await rig.create(stream=stream, tools=[server("s")])
    response = final(check_stream(reply.raw)) if stream else reply.json
    assert response["incomplete_details"] == {"reason": "max_seconds"}
    assert kinds(response) == ["mcp_list_tools", "message", "mcp_call"]
    assert provider.given_up == 1
    assert response == await rig.retrieve(response["id"])
