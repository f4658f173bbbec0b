"""Consent to calls of MCP tools: the real Envoy, two workers, real servers, the official SDK (rule T6)."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import openai
import pytest

from tests.support.consent_stack import (
    consent_client,
    consent_stack,
    consent_wire,
    guarded,
    outputs,
    takes_turns,
)
from tests.support.mcp_server import McpServer
from tests.support.replies import call, say, text
from tests.support.scripts import Hold, Script
from tests.support.stack import Stack, eventually
from tests.support.wire import Wire

__all__ = ["consent_client", "consent_stack", "consent_wire"]

ASKS = say(text("let me see"), call("echo", '{"text": "hey"}'))
DONE = say(text("done"))
USER = {"role": "user", "content": "hi"}


def answer(request: Any, *, approve: bool = True, **fields: Any) -> Any:
    wanted = request if isinstance(request, str) else request["id"]
    given = {"approval_request_id": wanted, "approve": approve, **fields}
    return {"type": "mcp_approval_response", **given}


async def asked(wire: Wire, model: str, url: str, **fields: Any) -> tuple[Any, Any]:
    """Return a response that asks for consent, and its request."""
    seen = await wire.create(**{"model": model, "tools": [guarded(url)], **fields})
    assert seen.status == 200, seen.error
    [request] = [i for i in seen.response["output"] if i["type"] == "mcp_approval_request"]
    return seen.response, request


def kinds(output: Any) -> list[str]:
    return [item["type"] for item in output]


async def over(wire: Wire, wanted: str) -> Any:
    """Wait for the end of a response in the background."""
    seen: list[Any] = []

    async def ended() -> bool:
        found = await wire.get(wanted)
        if found.status != 200 or not found.clean:
            return False
        seen[:] = [found.json]
        return found.json["status"] not in ("queued", "in_progress")

    await eventually(ended, 60)
    return seen[0]


@pytest.mark.parametrize("stream", [True, False])
async def test_the_sdk_asks_and_approves(
    consent_stack: Stack, consent_client: openai.AsyncOpenAI, stream: bool
) -> None:
    """T6, R14: by `previous_response_id`; `responses.stream()` accepts both halves."""
    model = takes_turns(consent_stack, ASKS, DONE)
    async with McpServer() as server:
        tools = [guarded(server.url, authorization="token")]

        async def create(**fields: Any) -> Any:
            if not stream:
                return await consent_client.responses.create(model=model, tools=tools, **fields)
            async with consent_client.responses.stream(
                model=model, tools=tools, **fields
            ) as events:
                async for _ in events:
                    pass
                return await events.get_final_response()

        first = await create(input="hi")
        request = first.output[-1]
        assert (request.type, request.name, server.calls) == ("mcp_approval_request", "echo", [])
        second = await create(input=[answer(request.id)], previous_response_id=first.id)
        assert server.calls == ["echo"]
    assert [item.type for item in second.output] == ["mcp_call", "message"]
    called = second.output[0]
    assert (called.output, called.approval_request_id) == ("hey", request.id)
    assert outputs(consent_stack.asked(model)[1].json["input"]) == ["hey"]
    stored = await consent_client.responses.retrieve(second.id)
    assert [item.id for item in stored.output] == [item.id for item in second.output]
    listed = await consent_client.responses.input_items.list(second.id)
    assert listed.data[0].type == "mcp_approval_response"


async def test_a_refusal_reaches_the_model(consent_stack: Stack, consent_wire: Wire) -> None:
    """T6: with its reason, and nothing is called."""
    model = takes_turns(consent_stack, ASKS, DONE)
    async with McpServer() as server:
        first, request = await asked(consent_wire, model, server.url)
        no = answer(request, approve=False, reason="too dear")
        seen = await consent_wire.create(
            model=model,
            tools=[guarded(server.url)],
            input=[no],
            previous_response_id=first["id"],
        )
        assert server.calls == []
    assert kinds(seen.response["output"]) == ["message"]
    [told] = outputs(consent_stack.asked(model)[1].json["input"])
    assert "too dear" in told


@pytest.mark.parametrize("store", [True, False])
async def test_of_twenty_answers_over_two_workers_one_counts(
    consent_stack: Stack, consent_wire: Wire, store: bool
) -> None:
    """T6: the others are 409 and say where; the tool is called once."""
    model = takes_turns(consent_stack, ASKS, DONE)
    async with McpServer() as server:
        first, request = await asked(consent_wire, model, server.url)
        answers = await asyncio.gather(
            *(
                consent_wire.create(
                    model=model,
                    tools=[guarded(server.url)],
                    input=[answer(request)],
                    previous_response_id=first["id"],
                    stream=number % 2 == 0,
                    store=store,
                )
                for number in range(20)
            )
        )
        assert server.calls == ["echo"]
    assert sorted(seen.status for seen in answers) == [200, *[409] * 19]
    errors = {(s.error["code"], s.error["param"]) for s in answers if s.status == 409}
    assert errors == {("approval_already_answered", "input[0].approval_request_id")}


async def test_it_survives_a_restart(consent_stack: Stack, consent_wire: Wire) -> None:
    """T6, P4: kill -9 of both workers between request and answer."""
    model = takes_turns(consent_stack, ASKS, DONE)
    async with McpServer() as server:
        first, request = await asked(consent_wire, model, server.url)
        for index in range(2):
            old = consent_stack.worker(index)
            os.kill(old, signal.SIGKILL)
            await consent_stack.replaced(index, old)
        seen = await consent_wire.create(
            model=model,
            tools=[guarded(server.url)],
            input=[answer(request)],
            previous_response_id=first["id"],
        )
        assert server.calls == ["echo"]
    assert kinds(seen.response["output"]) == ["mcp_call", "message"]


async def test_a_killed_worker_s_approved_call_is_not_made_twice(
    consent_stack: Stack, consent_wire: Wire
) -> None:
    """P4, T6: kill -9 between its result and the end of the model's turn, in the background."""
    never = Script(Hold(asyncio.Event()))
    model = takes_turns(consent_stack, ASKS, never, DONE)
    second = f"{model}-2"
    async with McpServer() as server:
        first, request = await asked(consent_wire, model, server.url)
        queued = await consent_wire.create(
            model=second,
            background=True,
            stream=False,
            tools=[guarded(server.url)],
            input=[answer(request)],
            previous_response_id=first["id"],
        )
        await consent_stack.asks(second)
        index = (await consent_stack.running_by_worker(second)).index(1)
        old = consent_stack.worker(index)
        os.kill(old, signal.SIGKILL)
        response = await over(consent_wire, queued.json["id"])
        await consent_stack.replaced(index, old)
        assert server.calls == ["echo"]
    assert response["status"] == "completed", response["error"]
    assert kinds(response["output"]) == ["mcp_call", "message"]
    one, two = consent_stack.asked(second)
    assert one.body == two.body
    assert outputs(two.json["input"]) == ["hey"]


async def test_in_the_background_and_resumed(consent_stack: Stack, consent_wire: Wire) -> None:
    """T6, P6: both halves; the streams read again are those that were sent."""
    model = takes_turns(consent_stack, ASKS, DONE)
    async with McpServer() as server:
        first, request = await asked(consent_wire, model, server.url, background=True)
        seen = await consent_wire.create(
            model=model,
            background=True,
            tools=[guarded(server.url)],
            input=[answer(request)],
            previous_response_id=first["id"],
        )
        assert server.calls == ["echo"]
    assert kinds(seen.response["output"]) == ["mcp_call", "message"]
    for response in (first, seen.response):
        async with consent_wire.follow(response["id"]) as reading:
            await reading.rest()
        assert reading.response == response


@pytest.mark.parametrize("store", [True, False])
async def test_the_whole_history_may_come_as_input(
    consent_stack: Stack, consent_wire: Wire, store: bool
) -> None:
    """T6, M4, M9: and again with the next question; then the call is not made again."""
    model = takes_turns(consent_stack, ASKS, DONE, DONE)
    async with McpServer() as server:
        tools = [guarded(server.url)]
        first, request = await asked(consent_wire, model, server.url, input=[USER], store=store)
        history = [USER, *first["output"], answer(request)]
        second = await consent_wire.create(model=model, tools=tools, input=history, store=store)
        assert second.status == 200, second.error
        history += [*second.response["output"], USER]
        third = await consent_wire.create(model=model, tools=tools, input=history, store=store)
        assert server.calls == ["echo"]
    assert kinds(second.response["output"]) == ["mcp_call", "message"]
    assert kinds(third.response["output"]) == ["message"]
    bodies = [received.body for received in consent_stack.asked(model)]
    assert bodies[2].startswith(bodies[1].removesuffix(b"]}"))
    if not store:
        rows = await consent_stack.sql("SELECT * FROM approvals WHERE id = %s", request["id"])
        assert rows == []


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize(
    ("change", "tool"),
    [
        ({"arguments": '{"text": "rm -rf"}'}, {}),
        ({"name": "fail"}, {}),
        ({"id": "mcpr_unknown"}, {}),
        ({}, {"server_url": "http://127.0.0.1:9/mcp"}),
        ({}, {"authorization": "another"}),
        ({}, {"headers": {"x-tenant": "2"}}),
    ],
)
async def test_what_was_tampered_with_is_refused(
    consent_stack: Stack,
    consent_wire: Wire,
    store: bool,
    change: dict[str, Any],
    tool: dict[str, Any],
) -> None:
    """T6: arguments, tool, server, credentials; nothing is called and no model is asked."""
    model = takes_turns(consent_stack, ASKS, DONE)
    async with McpServer() as server:
        declared = guarded(server.url, authorization="token")
        first, request = await asked(consent_wire, model, server.url, tools=[declared], store=store)
        tampered = {**request, **change}
        refused = await consent_wire.create(
            model=model,
            tools=[{**declared, **tool}],
            input=[USER, tampered, answer(tampered)],
            store=store,
        )
        assert (refused.status, server.calls) == (400, [])
        assert refused.error["param"]
        assert len(consent_stack.asked(model)) == 1
        right = await consent_wire.create(
            model=model, tools=[declared], input=[USER, request, answer(request)], store=store
        )
        assert server.calls == ["echo"]
    assert kinds(right.response["output"])[-2:] == ["mcp_call", "message"]
    assert first["id"]


async def test_no_credential_is_in_what_is_kept_of_a_request(
    consent_stack: Stack, consent_wire: Wire
) -> None:
    """X4: but a keyed digest."""
    model = takes_turns(consent_stack, ASKS)
    async with McpServer() as server:
        tools = [guarded(server.url, authorization="sk-not-to-be-kept")]
        _, request = await asked(consent_wire, model, server.url, tools=tools)
    [(kept,)] = await consent_stack.sql(
        "SELECT request FROM approvals WHERE id = %s", request["id"]
    )
    assert b"sk-not-to-be-kept" not in bytes(kept)
    assert server.url.encode() not in bytes(kept)
