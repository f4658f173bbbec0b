"""The Agents SDK over several turns with function tools: by sessions, conversations and previous responses."""

from __future__ import annotations

from typing import Any

import openai
from agents import (
    Agent,
    OpenAIResponsesModel,
    Runner,
    RunResultBase,
    function_tool,
    set_tracing_disabled,
)

from tests.support.fix_stack import BOTH_WAYS
from tests.support.replies import call, reasoning, say, text
from tests.support.stack import Stack

pytestmark = BOTH_WAYS

set_tracing_disabled(True)


@function_tool
def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sun in {city}"


def agent_of(stack: Stack, client: openai.AsyncOpenAI, model: str) -> Agent[Any]:
    """Return an agent with a tool; `model` is a script of the stack's."""
    return Agent(
        name="agent",
        instructions="be brief",
        tools=[get_weather],
        model=OpenAIResponsesModel(model=model, openai_client=client),
    )


def weather(stack: Stack) -> str:
    """Return a model that asks for the weather, and says what it was told."""
    stack_model = stack.plays(say(text("unused")))
    name = stack_model.removeprefix("script/")
    first = say(reasoning("hm"), call("get_weather", '{"city":"Rome"}')).steps
    last = say(text("It is sunny.")).steps
    stack.model.named[name] = type(stack.model.named[name])(*first)
    stack.model.turns[name] = [type(stack.model.named[name])(*last)]
    return stack_model


async def ask(agent: Agent[Any], said: str, streamed: bool, **how: Any) -> RunResultBase:
    """Run one turn of a user's."""
    if not streamed:
        return await Runner.run(agent, said, **how)
    result = Runner.run_streamed(agent, said, **how)
    async for _ in result.stream_events():
        pass
    return result
