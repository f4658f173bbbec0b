"""Where the parts of the loop meet: consent, conversations, connectors, prompts, dialects, inline, retries.

Each part has its own suite; here two or three of them work on one response, through the real Envoy and two
workers, with real MCP servers and the official SDK.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import openai
import pytest

from tests.support import replies
from tests.support.consent_stack import guarded, outputs, takes_turns
from tests.support.crossings import (
    Bench,
    answer,
    grows,
    inline,
    kinds,
    logged,
    relay,
    request_in,
)
from tests.support.mcp_server import PIXEL, McpServer
from tests.support.replies import call, reasoning, say, text
from tests.support.scripts import CHAT, Cut, Hold, Script
from tests.support.stack import eventually
from tests.support.wire import CONNECTORS

ASKS = say(call("echo", '{"text": "hey"}'))
DONE = say(text("done"))
HANGS = say(call("slow", "{}"))
__all__ = ["inline", "relay"]

WAYS = pytest.mark.parametrize("crossing", ["relay", "inline"], indirect=True)
FORMS = pytest.mark.parametrize("form", ["whole", "streamed", "background"])


@pytest.fixture
def crossing(request: pytest.FixtureRequest) -> Bench:
    """The bench that the test is for."""
    found: Bench = request.getfixturevalue(getattr(request, "param", "relay"))
    return found


# -- consent in a conversation -------------------------------------------------------------------------


@WAYS
@FORMS
async def test_consent_is_asked_for_and_given_in_a_conversation(crossing: Bench, form: str) -> None:
    """T5, T6, M7, M9: the list is shown once; what was called is in the next turn, as it was made."""
    name = await crossing.conversation()
    model = takes_turns(crossing.stack, ASKS, DONE, DONE)
    async with McpServer() as server:
        fields: Any = {"model": model, "tools": [guarded(server.url)], "conversation": name}
        first = await crossing.made(form, **fields)
        second = await crossing.made(form, **{**fields, "input": answer(request_in(first))})
        third = await crossing.made(form, **fields)
        assert server.calls == ["echo"]
    assert kinds(first) == ["mcp_list_tools", "mcp_approval_request"]
    assert kinds(second) == ["mcp_call", "message"]
    assert kinds(third) == ["message"]
    assert await crossing.kinds(name) == [
        "message", "mcp_list_tools", "mcp_approval_request",
        "mcp_approval_response", "mcp_call", "message",
        "message", "message",
    ]  # fmt: skip
    asked = crossing.stack.asked(model)
    assert [outputs(each.json["input"]) for each in asked] == [[], ["hey"], ["hey"]]
    assert grows(asked)


@WAYS
@FORMS
async def test_consent_is_refused_in_a_conversation(crossing: Bench, form: str) -> None:
    """T6, M7, M9: nothing is called; the model is told, in this turn and all later ones."""
    name = await crossing.conversation()
    model = takes_turns(crossing.stack, ASKS, DONE, DONE)
    async with McpServer() as server:
        fields: Any = {"model": model, "tools": [guarded(server.url)], "conversation": name}
        first = await crossing.made(form, **fields)
        no = answer(request_in(first), approve=False)
        second = await crossing.made(form, **{**fields, "input": no})
        await crossing.made(form, **fields)
        assert server.calls == []
    assert kinds(second) == ["message"]
    asked = crossing.stack.asked(model)
    told = [outputs(each.json["input"]) for each in asked]
    assert "refused" in told[1][0]
    assert told[2] == told[1]
    assert grows(asked)


async def test_an_answer_waits_for_a_busy_conversation(crossing: Bench) -> None:
    """T6, M7: it is for a request of an earlier turn, and counts when the running turn is over."""
    name, held = await crossing.conversation(), asyncio.Event()
    model = takes_turns(crossing.stack, ASKS, Script(Hold(held), *DONE.steps), DONE)
    async with McpServer() as server:
        fields: Any = {"model": model, "tools": [guarded(server.url)], "conversation": name}
        first = await crossing.made(**fields)
        busy = asyncio.ensure_future(crossing.made(**fields))
        await crossing.stack.asks(model, 2)
        waiting = asyncio.ensure_future(
            crossing.made(**{**fields, "input": answer(request_in(first))})
        )
        held.set()
        await busy
        second = await waiting
        assert server.calls == ["echo"]
    assert kinds(second) == ["mcp_call", "message"]
    assert grows(crossing.stack.asked(model))


async def test_of_many_answers_in_a_conversation_one_counts(crossing: Bench) -> None:
    """T6, M7: over two workers; the others are 409, and the tool is called once."""
    name = await crossing.conversation()
    model = takes_turns(crossing.stack, ASKS, DONE)
    async with McpServer() as server:
        fields: Any = {"model": model, "tools": [guarded(server.url)], "conversation": name}
        first = await crossing.made(**fields)
        sent = {**fields, "input": answer(request_in(first))}
        seen = await asyncio.gather(
            *(crossing.wire.create(30, **sent, stream=n % 2 == 0) for n in range(12))
        )
        assert server.calls == ["echo"]
    assert sorted(each.status for each in seen) == [200, *[409] * 11]


async def test_of_answers_in_a_conversation_and_beside_it_one_counts(crossing: Bench) -> None:
    """T6, M7, M10: `previous_response_id` leads to the same request; another conversation does not."""
    name, other = await crossing.conversation(), await crossing.conversation()
    model = takes_turns(crossing.stack, ASKS, DONE)
    async with McpServer() as server:
        fields: Any = {"model": model, "tools": [guarded(server.url)]}
        first = await crossing.made(**fields, conversation=name)
        sent = {**fields, "input": answer(request_in(first))}
        elsewhere = await crossing.wire.create(**sent, conversation=other)
        assert (elsewhere.status, elsewhere.error["code"]) == (400, "approval_request_not_found")
        ways = [{"conversation": name}, {"previous_response_id": first.id}] * 4
        seen = await asyncio.gather(*(crossing.wire.create(30, **sent, **way) for way in ways))
        assert server.calls == ["echo"]
    assert sorted(each.status for each in seen) == [200, *[409] * 7]


async def test_a_repeated_answer_is_served_what_the_first_made(crossing: Bench) -> None:
    """T6, M7: with its Idempotency-Key, in a conversation that has moved on."""
    name = await crossing.conversation()
    model = takes_turns(crossing.stack, ASKS, DONE, DONE)
    async with McpServer() as server:
        fields: Any = {"model": model, "tools": [guarded(server.url)], "conversation": name}
        first = await crossing.made(**fields)
        given: Any = {**fields, "input": answer(request_in(first))}
        key = {"Idempotency-Key": name}
        second = await crossing.sdk.responses.create(**given, extra_headers=key)
        await crossing.made(**fields)
        again = await crossing.sdk.responses.create(**given, extra_headers=key)
        assert server.calls == ["echo"]
    assert again == second


async def test_a_call_that_was_put_into_a_conversation_is_sent(crossing: Bench) -> None:
    """M4, M7, M8: a history that is copied from elsewhere, with what tools answered."""
    model = takes_turns(crossing.stack, ASKS, DONE, DONE, DONE)
    async with McpServer() as server:
        tools: Any = [guarded(server.url)]
        name = await crossing.conversation()
        first = await crossing.made(model=model, tools=tools, conversation=name)
        given = answer(request_in(first))
        await crossing.made(model=model, tools=tools, input=given, conversation=name)
        copied: Any = [item.model_dump(exclude_unset=True) for item in await crossing.items(name)]
        made = (await crossing.sdk.conversations.create(items=copied)).id
        added = await crossing.conversation()
        await crossing.sdk.conversations.items.create(added, items=copied)
        for other in (made, added):
            await crossing.made(model=model, tools=tools, conversation=other)
    asked = crossing.stack.asked(model)
    assert [outputs(each.json["input"]) for each in asked[1:]] == [["hey"]] * 3
    assert [each["name"] for each in asked[2].json["input"] if "name" in each] == ["echo"]


# -- consent and connectors ----------------------------------------------------------------------------


async def test_consent_does_not_hold_for_other_credentials_of_a_connector(
    crossing: Bench,
) -> None:
    """T6, X4: rotated between request and answer: a 400, nothing is called, and the request waits."""
    model = takes_turns(crossing.stack, ASKS, DONE)
    async with McpServer() as server:
        label = f"l{model[2:]}"
        made = await crossing.ask(
            "/connectors", server_label=label, server_url=server.url, authorization="one"
        )
        tools: Any = [{"type": "mcp", "server_label": label}]
        first = await crossing.made(model=model, tools=tools)
        sent: Any = {
            "model": model,
            "tools": tools,
            "input": answer(request_in(first)),
            "previous_response_id": first.id,
        }
        path = f"{CONNECTORS}/{made['id']}"
        await crossing.wire.ask("POST", path, json={"authorization": "two"})
        with pytest.raises(openai.BadRequestError) as refused:
            await crossing.sdk.responses.create(**sent)
        assert (refused.value.code, server.calls) == ("approval_mismatch", [])
        await crossing.wire.ask("POST", path, json={"authorization": "one"})
        second = await crossing.sdk.responses.create(**sent)
        assert server.calls == ["echo"]
    assert kinds(second) == ["mcp_call", "message"]


# -- prompts ---------------------------------------------------------------------------------------------


@WAYS
async def test_a_prompt_s_server_works_in_a_conversation(crossing: Bench) -> None:
    """T5, T6, M9: its messages go first in each turn, its tools ask for consent."""
    model = takes_turns(crossing.stack, ASKS, DONE, DONE)
    name = await crossing.conversation()
    async with McpServer() as server:
        template = {
            "model": model,
            "instructions": [{"role": "developer", "content": "Be {{tone}}."}],
            "tools": [guarded(server.url)],
        }
        variables = {"tone": {"type": "text"}}
        prompt = await crossing.ask("/prompts", template=template, variables=variables)
        used: Any = {
            "prompt": {"id": prompt["id"], "variables": {"tone": "brief"}},
            "conversation": name,
        }
        first = await crossing.made(**used)
        second = await crossing.made(**{**used, "input": answer(request_in(first))})
        await crossing.made(**used)
        assert server.calls == ["echo"]
    assert kinds(first) == ["mcp_list_tools", "mcp_approval_request"]
    assert kinds(second) == ["mcp_call", "message"]
    asked = crossing.stack.asked(model)
    assert [each.json["input"][0]["content"] for each in asked] == ["Be brief."] * 3
    assert grows(asked)
    assert "message" in await crossing.kinds(name)


# -- chat completions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["whole", "streamed"])
async def test_images_and_thoughts_of_a_conversation_over_chat(crossing: Bench, form: str) -> None:
    """T1, M4, M9, X4: consent, an image from a tool, and sealed reasoning, in chat messages."""
    model = f"chat-{takes_turns(crossing.stack)}"
    crossing.stack.model.script(
        say(reasoning("Let me see"), call("picture", "{}")), DONE, DONE, path=CHAT
    )
    name = await crossing.conversation()
    async with McpServer() as server:
        fields: Any = {
            "model": model,
            "tools": [guarded(server.url)],
            "conversation": name,
            "include": ["reasoning.encrypted_content"],
        }
        first = await crossing.made(form, **fields)
        second = await crossing.made(form, **{**fields, "input": answer(request_in(first))})
        await crossing.made(form, **fields)
    assert kinds(first) == ["mcp_list_tools", "reasoning", "mcp_approval_request"]
    assert first.output[1].encrypted_content
    assert kinds(second) == ["mcp_call", "message"]
    one, two, three = crossing.stack.asked(model)
    assert one.path == CHAT
    roles = [message["role"] for message in two.json["messages"]]
    assert roles == ["user", "assistant", "tool", "user"]
    shown = two.json["messages"][3]["content"]
    assert shown[0]["image_url"]["url"] == f"data:image/png;base64,{PIXEL}"
    assert grows([two, three])


async def test_upstream_tools_over_chat_are_refused(crossing: Bench) -> None:
    """H1: before anything is asked, also in a conversation."""
    name = await crossing.conversation()
    with pytest.raises(openai.BadRequestError) as refused:
        await crossing.sdk.responses.create(
            model="chat-m", input="hi", conversation=name, tools=[{"type": "web_search"}]
        )
    assert refused.value.param == "tools"
    assert await crossing.items(name) == []


# -- caps, retries and deaths --------------------------------------------------------------------------------


async def test_consent_to_more_calls_than_may_be_made(crossing: Bench) -> None:
    """T4, T6: `max_tool_calls` counts what is called, not what is asked for."""
    two = say(call("echo", '{"text": "a"}'), call("echo", '{"text": "b"}'))
    model = takes_turns(crossing.stack, two, DONE)
    async with McpServer() as server:
        fields: Any = {"model": model, "tools": [guarded(server.url)], "max_tool_calls": 1}
        first = await crossing.made(**fields)
        wanted = [item.id for item in first.output if item.type == "mcp_approval_request"]
        given = [*answer(wanted[0]), *answer(wanted[1])]
        second = await crossing.made(**{**fields, "input": given}, previous_response_id=first.id)
        assert server.calls == ["echo"]
    assert (len(wanted), first.status, second.status) == (2, "completed", "completed")
    made = [item for item in second.output if item.type == "mcp_call"]
    assert [each.status for each in made] == ["completed", "failed"]


@WAYS
@pytest.mark.parametrize("consented", [True, False])
async def test_a_turn_that_is_asked_again_calls_no_tool_again(
    crossing: Bench, consented: bool
) -> None:
    """T2, R1: the stream behind a call breaks off before its first delta."""
    cut = Script(replies.stream(text("never"))[:2], Cut())
    model = takes_turns(crossing.stack, ASKS, cut, DONE)
    async with McpServer() as server:
        tools: Any = (
            [guarded(server.url)] if consented else [guarded(server.url, require_approval="never")]
        )
        response = await crossing.made("streamed", model=model, tools=tools)
        if consented:
            response = await crossing.made(
                "streamed", model=model, tools=tools, input=answer(request_in(response)),
                previous_response_id=response.id,
            )  # fmt: skip
        assert server.calls == ["echo"]
    assert response.status == "completed"
    _, two, three = crossing.stack.asked(model)
    assert two.body == three.body


@pytest.mark.timeout(120)
@pytest.mark.parametrize("background", [False, True])
async def test_a_worker_dies_in_a_conversation_s_tool_call(
    crossing: Bench, background: bool
) -> None:
    """P4, M7: the turn ends, the conversation goes on, and the call is not made again unasked."""
    name = await crossing.conversation()
    model = takes_turns(crossing.stack, HANGS, DONE, DONE)
    stack = crossing.stack
    async with McpServer() as server:
        tools: Any = [guarded(server.url, require_approval="never")]
        sent: Any = {"model": model, "tools": tools, "conversation": name, "stream": True}
        async with crossing.wire.open(**sent, background=background) as reading:
            await server.under_way(1)
            await reading.until("response.mcp_call_arguments.done")
            wanted = reading.events[0]["response"]["id"]
            await eventually(lambda: logged(stack, wanted, "mcp_call_arguments.done"))
            victim = (await stack.running_by_worker(model)).index(1)
            pid = stack.worker(victim)
            os.kill(pid, signal.SIGKILL)
        await stack.replaced(victim, pid)

        async def ended() -> bool:
            found = await crossing.sdk.responses.retrieve(wanted)
            return found.status not in ("queued", "in_progress")

        await eventually(ended, 60)
        first = await crossing.sdk.responses.retrieve(wanted)
        second = await crossing.made(model=model, tools=tools, conversation=name)
        assert server.calls == ["slow"]
    assert first.status == ("completed" if background else "failed")
    assert [item.status for item in first.output if item.type == "mcp_call"] == ["incomplete"]
    assert second.status == "completed"
