"""The Agents SDK over several turns with function tools: sessions, conversations, previous responses."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import openai
import pytest
from agents import (
    Agent,
    OpenAIConversationsSession,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from agents.result import RunResultBase

from tests.support import replies
from tests.support.fix_stack import BOTH_WAYS
from tests.support.replies import call, reasoning, text
from tests.support.scripts import Asked, Stream
from tests.support.stack import Stack

set_tracing_disabled(True)

STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
CITIES = ("Rome", "Oslo", "Bonn")
KINDS = ["message", "reasoning", "function_call", "function_call_output", "message"]


@function_tool
def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sun in {city}"


def forecaster(stack: Stack) -> str:
    """Return a model that asks a tool about the city that it is asked about, and says what it is told."""

    def make(asked: Asked) -> Iterable[bytes]:
        last = asked.body["input"][-1]
        if last.get("type") == "function_call_output":
            return replies.stream(text(f"There is {last['output']}.")).make(asked)
        wanted = f'{{"city":"{last["content"]}"}}'
        return replies.stream(reasoning("hm"), call("get_weather", wanted)).make(asked)

    return stack.plays(Stream(make))


def agent_of(client: openai.AsyncOpenAI, model: str) -> Agent[Any]:
    """Return an agent with a tool."""
    return Agent(
        name="agent",
        instructions="be brief",
        tools=[get_weather],
        model=OpenAIResponsesModel(model=model, openai_client=client),
    )


async def ask(agent: Agent[Any], said: str, streamed: bool, **how: Any) -> RunResultBase:
    """Run one turn of a user's to its end."""
    if not streamed:
        return await Runner.run(agent, said, **how)
    result = Runner.run_streamed(agent, said, **how)
    async for _ in result.stream_events():
        pass
    return result


def kinds(items: Iterable[Any]) -> list[str]:
    return [str(item.get("type", "message")) for item in items]


async def check_model_calls(stack: Stack, model: str) -> None:
    """M2, M9: two calls a city; each begins with all of the one before but its end."""
    asked = stack.asked(model)
    assert len(asked) == 2 * len(CITIES)
    for number, received in enumerate(asked):
        assert len(received.json["input"]) == 5 * (number // 2) + (1 if number % 2 == 0 else 4)
    for before, after in itertools.pairwise(asked):
        assert after.body.startswith(before.body.removesuffix(b"]}") + b",")


@BOTH_WAYS
@STREAMED
async def test_a_session_of_conversations_replays_our_own_list(
    stack: Stack, client: openai.AsyncOpenAI, streamed: bool
) -> None:
    """M8: OpenAIConversationsSession sends back verbatim what it reads; pop and clear work."""
    model = forecaster(stack)
    session = OpenAIConversationsSession(openai_client=client)
    agent = agent_of(client, model)
    for city in CITIES:
        result = await ask(agent, city, streamed, session=session)
        assert result.final_output == f"There is sun in {city}."
    items = await session.get_items()
    assert kinds(items) == KINDS * len(CITIES)
    await check_model_calls(stack, model)

    popped = await session.pop_item()
    assert popped == items[-1]
    assert await session.get_items() == items[:-1]
    assert await session.get_items(limit=2) == items[-3:-1]
    await session.clear_session()
    assert await session.get_items() == []


@BOTH_WAYS
@STREAMED
async def test_a_conversation_is_sent_what_is_new(
    stack: Stack, client: openai.AsyncOpenAI, streamed: bool
) -> None:
    """M2, M7: `conversation_id`: the call of one request is answered by the next."""
    model = forecaster(stack)
    agent = agent_of(client, model)
    name = (await client.conversations.create()).id
    for city in CITIES:
        result = await ask(agent, city, streamed, conversation_id=name)
        assert result.final_output == f"There is sun in {city}."
    listed = [item async for item in client.conversations.items.list(name, order="asc")]
    assert [item.type for item in listed] == KINDS * len(CITIES)
    await check_model_calls(stack, model)


@BOTH_WAYS
@STREAMED
async def test_previous_responses_are_chained_by_themselves(
    stack: Stack, client: openai.AsyncOpenAI, streamed: bool
) -> None:
    """M2: `auto_previous_response_id`, and the last of one run before the next."""
    model = forecaster(stack)
    agent = agent_of(client, model)
    previous: str | None = None
    for city in CITIES:
        result = await ask(
            agent,
            city,
            streamed,
            auto_previous_response_id=True,
            **({} if previous is None else {"previous_response_id": previous}),
        )
        assert result.final_output == f"There is sun in {city}."
        previous = result.last_response_id
    await check_model_calls(stack, model)


async def test_a_session_goes_on_by_its_id(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """M1: in another process, as a rule: what is known is the conversation's id."""
    model = forecaster(stack)
    agent = agent_of(client, model)
    first = OpenAIConversationsSession(openai_client=client)
    await ask(agent, CITIES[0], False, session=first)
    second = OpenAIConversationsSession(conversation_id=first.session_id, openai_client=client)
    await ask(agent, CITIES[1], False, session=second)
    assert kinds(await first.get_items()) == KINDS * 2


@BOTH_WAYS
@STREAMED
async def test_an_agent_runs_a_prompt_template(
    stack: Stack, client: openai.AsyncOpenAI, streamed: bool
) -> None:
    """M9: the model and the instructions are the template's; tools are called over several turns."""
    model = forecaster(stack)
    template = {"model": model, "instructions": "Be {{how}}."}
    made: Any = await client.post("/prompts", body={"template": template}, cast_to=dict)
    agent: Agent[Any] = Agent(
        name="agent",
        prompt={"id": made["id"], "version": "1", "variables": {"how": "brief"}},
        tools=[get_weather],
        model=OpenAIResponsesModel("unused", client, model_is_explicit=False),
    )
    previous: str | None = None
    for city in CITIES:
        result = await ask(agent, city, streamed, previous_response_id=previous)
        assert result.final_output == f"There is sun in {city}."
        previous = result.last_response_id
    await check_model_calls(stack, model)
    assert {received.json["instructions"] for received in stack.asked(model)} == {"Be brief."}
