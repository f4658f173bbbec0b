"""Compaction and token counts with the official SDKs, through real Envoy (rules M2, M9, X1, X4)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import uuid4

import openai
import pytest
from agents import (
    Agent,
    OpenAIResponsesCompactionSession,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    function_tool,
    set_tracing_disabled,
)

from engine.context.summaries import PROMPT
from extproc.demo.rejection import Rejected
from tests.support import replies
from tests.support.fix_stack import ALL_WAYS, BOTH_WAYS
from tests.support.replies import call, text
from tests.support.scripted_model import words_in
from tests.support.scripts import Asked, Stream
from tests.support.stack import Stack

set_tracing_disabled(True)

CONTEXT = 600


@function_tool
def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sun in {city}"


def forgetful(stack: Stack) -> str:
    """Return a model that fails past a small context, repeats what it is told, and sums up numbers."""

    def make(asked: Asked) -> Iterable[bytes]:
        given = asked.body["input"]
        if words_in(given) > CONTEXT:
            raise Rejected(f"This model's maximum context length is {CONTEXT} tokens.")
        last = given[-1]["content"]
        said = f"All {numbers(given)}." if last == PROMPT else f"You said {last}"
        return replies.stream(text(said, " ", "and more " * 5)).make(asked)

    model = stack.plays(Stream(make))
    stack.model.contexts[model] = CONTEXT
    return model


def numbers(items: list[Any]) -> str:
    """Return the highest number that is spoken of."""
    spoken = " ".join(str(item.get("content", "")) for item in items)
    found = [int(word.strip(".#")) for word in spoken.split() if word.strip(".#").isdigit()]
    return f"#{max(found, default=0)}"


@pytest.mark.parametrize("kept_by", ["previous", "conversation", "client"])
async def test_a_hundred_turns_in_a_small_context(
    stack: Stack, client: openai.AsyncOpenAI, kept_by: str
) -> None:
    """M2, M9: no turn fails, streamed; the model is never sent more than it takes, nor loses the thread."""
    await take_turns(stack, client, kept_by, 100)


@ALL_WAYS
async def test_turns_in_a_small_context(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """M2: by relay, inline, and without Envoy."""
    await take_turns(stack, client, "previous", 24)


async def take_turns(stack: Stack, client: openai.AsyncOpenAI, kept_by: str, turns: int) -> None:
    """Make a conversation of so many turns, and check each of them."""
    model = forgetful(stack)
    history: list[Any] = []
    conversation = (await client.conversations.create()).id if kept_by == "conversation" else None
    previous: str | None = None
    compacted = 0
    for turn in range(turns):
        said: dict[str, Any] = {"role": "user", "content": f"number {turn} " + "word " * 12}
        history.append(said)
        ways: dict[str, dict[str, Any]] = {
            "previous": {"input": [said], "previous_response_id": previous or openai.omit},
            "conversation": {"input": [said], "conversation": conversation},
            "client": {"input": history, "store": False},
        }
        async with client.responses.stream(
            model=model,
            context_management=[{"type": "compaction", "compact_threshold": 400}],
            **ways[kept_by],
        ) as events:
            response = await events.get_final_response()
        previous = response.id
        history += [item.to_dict() for item in response.output]
        assert response.status == "completed"
        assert response.output_text.startswith(f"You said number {turn} ")
        kinds = [item.type for item in response.output]
        compacted += kinds == ["compaction", "message"]
        assert kinds[-1] == "message"
    assert turns / 20 < compacted < turns / 2
    asked = [received.json for received in stack.asked(model) if received.path != "/tokenize"]
    assert len(asked) == turns + compacted
    # What was said first is only known by summaries of summaries.
    assert numbers(asked[-1]["input"][:1]) != "#0"


@BOTH_WAYS
async def test_compact_and_go_on(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """M2: by `previous_response_id`, through any worker; nothing of it can be fetched."""
    model = forgetful(stack)
    first = await client.responses.create(model=model, input="number 7")
    second = await client.responses.create(
        model=model, input="number 8", previous_response_id=first.id
    )
    found = await client.responses.compact(model=model, previous_response_id=second.id)
    assert found.object == "response.compaction"
    assert found.usage.total_tokens > 0
    assert [item.type for item in found.output] == ["message", "message", "compaction"]
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(found.id)

    # It knows no message of a user as output, and says so.
    output: list[Any] = [item.to_dict(warnings=False) for item in found.output]
    again: list[Any] = [*output, {"role": "user", "content": "number 9"}]
    # Whichever worker it comes to.
    answers = [await client.responses.create(model=model, input=again) for _ in range(4)]
    for third in answers:
        assert third.output_text.startswith("You said number 9")
    sent = stack.asked(model)[-1].json["input"]
    assert [item["content"] for item in sent[:2]] == ["number 7", "number 8"]
    assert "All #8." in sent[2]["content"]
    items = await client.responses.input_items.list(answers[0].id, order="asc")
    assert items.data[2].to_dict(warnings=False) == output[2]


async def test_a_summary_that_was_changed_is_refused(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    """X4."""
    model = forgetful(stack)
    found = await client.responses.compact(model=model, input="number 7")
    item: Any = found.output[-1].to_dict()
    item["encrypted_content"] = item["encrypted_content"][:-4] + "AAAA"
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(model=model, input=[item])
    assert caught.value.code == "invalid_encrypted_content"
    assert caught.value.param == "input[0].encrypted_content"


@ALL_WAYS
async def test_tokens_are_counted(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """M2: by the model server, over the whole context."""
    model = forgetful(stack)
    first = await client.responses.create(model=model, input="number 7")
    told = await client.responses.input_tokens.count(
        model=model, input="and 8", previous_response_id=first.id, instructions="be kind"
    )
    assert told.object == "response.input_tokens"
    count = stack.asked(model)[-1].json["messages"]
    assert told.input_tokens == words_in(count)
    assert [message["role"] for message in count] == ["system", "user", "assistant", "user"]


async def test_a_server_that_counts_nothing(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """H1."""
    with pytest.raises(openai.BadRequestError, match="/tokenize"):
        await client.responses.input_tokens.count(model="demo", input="hi")


@BOTH_WAYS
@pytest.mark.parametrize("mode", ["previous_response_id", "input"])
async def test_the_agents_sdk_compacts_its_session(
    stack: Stack, client: openai.AsyncOpenAI, mode: Any
) -> None:
    """M2, M8: its history is replaced by our output, and comes back as input."""
    model = forgetful(stack)
    session = OpenAIResponsesCompactionSession(
        "s",
        SQLiteSession(uuid4().hex),
        client=client,
        # It takes only names like this one; the scripted model answers as the demo then.
        model="gpt-demo",
        compaction_mode=mode,
        should_trigger_compaction=lambda found: len(found["compaction_candidate_items"]) >= 3,
    )
    agent = Agent(
        name="agent",
        model=OpenAIResponsesModel(model=model, openai_client=client),
    )
    for turn in range(8):
        result = await Runner.run(agent, f"number {turn}", session=session)
        assert str(result.final_output).startswith(f"You said number {turn}")
    kinds = [str(item.get("type", "message")) for item in await session.get_items()]
    assert kinds.count("compaction") == 1


async def test_a_compacted_session_goes_on_with_tools(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    """M2, M6: what is kept has no call without its output; turns with tools go on behind it."""

    def make(asked: Asked) -> Iterable[bytes]:
        last = asked.body["input"][-1]
        if last.get("type") == "function_call_output":
            return replies.stream(text(f"There is {last['output']}.")).make(asked)
        return replies.stream(call("get_weather", '{"city":"Rome"}')).make(asked)

    session = OpenAIResponsesCompactionSession(
        "s",
        SQLiteSession(uuid4().hex),
        client=client,
        model="gpt-demo",
        compaction_mode="input",
        should_trigger_compaction=lambda found: len(found["compaction_candidate_items"]) >= 4,
    )
    agent = Agent(
        name="agent",
        tools=[get_weather],
        model=OpenAIResponsesModel(model=stack.plays(Stream(make)), openai_client=client),
    )
    for turn in range(4):
        result = await Runner.run(agent, f"weather {turn}", session=session)
        assert result.final_output == "There is sun in Rome."
    kinds = [str(item.get("type", "message")) for item in await session.get_items()]
    assert kinds.count("compaction") == 1
