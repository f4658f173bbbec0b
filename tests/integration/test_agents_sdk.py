"""The OpenAI Agents SDK with a hosted MCP tool, through the real Envoy (rules T5, T6, M4)."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from agents import (
    Agent,
    HostedMCPTool,
    MCPToolApprovalFunctionResult,
    MCPToolApprovalRequest,
    OpenAIConversationsSession,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
)

from tests.support.consent_stack import (
    consent_client,
    consent_stack,
    guarded,
    outputs,
    takes_turns,
)
from tests.support.mcp_server import McpServer
from tests.support.replies import call, say, text
from tests.support.stack import Stack

__all__ = ["consent_client", "consent_stack"]

ASKS = say(text("let me see"), call("echo", '{"text": "hey"}'))
DONE = say(text("done"))
CONFIG = RunConfig(tracing_disabled=True)


class Person:
    """Answers what it is asked."""

    def __init__(self, *answers: bool) -> None:
        self.asked: list[Any] = []
        self._answers = list(answers)

    def __call__(self, request: MCPToolApprovalRequest) -> MCPToolApprovalFunctionResult:
        self.asked.append(request.data)
        if self._answers.pop(0):
            return {"approve": True}
        return {"approve": False, "reason": "not today"}


def agent(client: openai.AsyncOpenAI, model: str, url: str, person: Person | None) -> Agent[Any]:
    config: Any = guarded(url, require_approval="always" if person else "never")
    return Agent(
        name="a",
        model=OpenAIResponsesModel(model=model, openai_client=client),
        tools=[HostedMCPTool(tool_config=config, on_approval_request=person)],
    )


async def run(one: Agent[Any], given: Any, *, stream: bool, **more: Any) -> Any:
    """Run an agent to its end."""
    if not stream:
        return await Runner.run(one, given, run_config=CONFIG, **more)
    result = Runner.run_streamed(one, given, run_config=CONFIG, **more)
    async for _ in result.stream_events():
        pass
    return result


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("approve", [True, False])
async def test_an_agent_asks_a_person(
    consent_stack: Stack, consent_client: openai.AsyncOpenAI, stream: bool, approve: bool
) -> None:
    """T6: the SDK keeps the history itself and sends request and answer as input."""
    model = takes_turns(consent_stack, ASKS, DONE, DONE)
    person = Person(approve)
    async with McpServer() as server:
        one = agent(consent_client, model, server.url, person)
        result = await run(one, "hi", stream=stream)
        again = await run(
            one, [*result.to_input_list(), {"role": "user", "content": "?"}], stream=stream
        )
        assert server.calls == (["echo"] if approve else [])
    assert (result.final_output, again.final_output) == ("done", "done")
    assert [request.name for request in person.asked] == ["echo"]
    [told] = outputs(consent_stack.asked(model)[1].json["input"])
    assert told == "hey" if approve else "not today" in told
    bodies = [received.body for received in consent_stack.asked(model)]
    assert bodies[2].startswith(bodies[1].removesuffix(b"]}"))
    shown = [item.raw_item.type for item in result.new_items if hasattr(item.raw_item, "type")]
    assert shown.count("mcp_list_tools") == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_an_agent_continues_by_previous_response_id(
    consent_stack: Stack, consent_client: openai.AsyncOpenAI, stream: bool
) -> None:
    """T6: the SDK sends nothing but the answer."""
    model = takes_turns(consent_stack, ASKS, DONE)
    person = Person(True)
    async with McpServer() as server:
        one = agent(consent_client, model, server.url, person)
        result = await run(one, "hi", stream=stream, auto_previous_response_id=True)
        assert server.calls == ["echo"]
    assert result.final_output == "done"


@pytest.mark.parametrize("stream", [True, False])
async def test_an_agent_whose_tool_needs_no_consent_replays_its_calls(
    consent_stack: Stack, consent_client: openai.AsyncOpenAI, stream: bool
) -> None:
    """M4, M9, T5: `mcp_list_tools` and `mcp_call` as input; the list is not shown again."""
    model = takes_turns(consent_stack, ASKS, DONE, DONE)
    async with McpServer() as server:
        one = agent(consent_client, model, server.url, None)
        result = await run(one, "hi", stream=stream)
        given = [*result.to_input_list(), {"role": "user", "content": "?"}]
        again = await run(one, given, stream=stream)
        assert server.calls == ["echo"]
    assert again.final_output == "done"
    shown = [getattr(item.raw_item, "type", "") for item in again.new_items]
    assert shown == ["message"]
    bodies = [received.body for received in consent_stack.asked(model)]
    assert bodies[2].startswith(bodies[1].removesuffix(b"]}"))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("approve", [True, False])
@pytest.mark.parametrize("keeper", ["session", "conversation"])
async def test_an_agent_asks_a_person_in_a_conversation(
    consent_stack: Stack,
    consent_client: openai.AsyncOpenAI,
    stream: bool,
    approve: bool,
    keeper: str,
) -> None:
    """T5, T6, M7: the conversation as a list of items that the SDK sends again, and as it is meant."""
    model = takes_turns(consent_stack, ASKS, DONE, DONE)
    person = Person(approve)
    name = (await consent_client.conversations.create()).id
    session = OpenAIConversationsSession(conversation_id=name, openai_client=consent_client)
    how: Any = {"session": session} if keeper == "session" else {"conversation_id": name}
    async with McpServer() as server:
        one = agent(consent_client, model, server.url, person)
        result = await run(one, "hi", stream=stream, **how)
        again = await run(one, "?", stream=stream, **how)
        assert server.calls == (["echo"] if approve else [])
    assert (result.final_output, again.final_output) == ("done", "done")
    assert [request.name for request in person.asked] == ["echo"]
    told = [outputs(received.json["input"]) for received in consent_stack.asked(model)]
    assert len(told[1]) == 1
    assert told[1] == told[2]
    items = [item.type async for item in consent_client.conversations.items.list(name)]
    assert items.count("mcp_list_tools") == 1
    assert items.count("mcp_call") == (1 if approve else 0)
