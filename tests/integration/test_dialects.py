"""A model asked over `/v1/responses`, and over `/v1/chat/completions`: clients see no difference."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from storage.postgres.embedded import EmbeddedPostgres
from tests.support.conversations import Turn
from tests.support.dialogues import CONVERSATIONS
from tests.support.fix_postgres import create_database
from tests.support.scripted_model import ScriptedModel
from tests.support.scripts import CHAT, RESPONSES, Body, Script, Stream
from tests.support.stack import CLIENT_KEY, Stack, running_stack

DEMO = "holdfast-demo"
Told = list[tuple[Any, ...]]


@pytest_asyncio.fixture(scope="module")
async def chatting(postgres_server: EmbeddedPostgres, stage: ScriptedModel) -> AsyncIterator[Stack]:
    """A stack whose model is asked over chat completions."""
    async with running_stack(
        stage, await create_database(postgres_server), model={"dialect": "chat"}
    ) as running:
        yield running


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_the_same_items_are_stored_in_either_dialect(
    envoy_stack: Stack, chatting: Stack, name: str, streamed: bool
) -> None:
    """R14, M2, M4: items, endings and errors are the same, ids apart."""
    turns = CONVERSATIONS[name]
    assert await held(envoy_stack, RESPONSES, turns, streamed) == await held(
        chatting, CHAT, turns, streamed
    )


async def held(stack: Stack, path: str, turns: list[Turn], streamed: bool) -> Told:
    """Hold a conversation; return how each turn ended and the items that are stored of it."""
    told: Told = []
    previous: Any = None
    async with openai.AsyncOpenAI(
        base_url=f"{stack.url}/v1", api_key=CLIENT_KEY, max_retries=0, timeout=20
    ) as sdk:
        for turn in turns:
            asked = stack.model.requests[-1:]
            fields = {
                **turn.fields,
                "model": plays(stack, turn, path),
                "input": answered(previous, turn.fields["input"]),
                "previous_response_id": None if previous is None else previous.id,
            }
            try:
                made = await create(sdk, fields, streamed)
            except openai.APIStatusError as refused:
                told.append(("refused", refused.status_code, refused.code, refused.param))
                continue
            finally:
                assert stack.model.requests[-1:] != asked
                assert stack.model.requests[-1].path == path
            previous = made
            stored = await sdk.responses.retrieve(made.id)
            given = await sdk.responses.input_items.list(made.id)
            told.append(
                (
                    stored.status,
                    stored.incomplete_details,
                    None if stored.error is None else stored.error.code,
                    None if stored.usage is None else stored.usage.output_tokens,
                    [without_ids(item) for item in stored.output],
                    [without_ids(item) for item in given.data],
                )
            )
    return told


async def create(sdk: openai.AsyncOpenAI, fields: dict[str, Any], streamed: bool) -> Any:
    """Return the response as its creator gets it."""
    if not streamed:
        return await sdk.responses.create(**fields)
    events = []
    try:
        async for event in await sdk.responses.create(**fields, stream=True):
            events.append(event)
    except openai.APIStatusError:
        raise
    except openai.APIError:
        # The SDK raises at an `error` event; the response is stored as failed all the same.
        return await sdk.responses.retrieve(events[0].response.id)
    return events[-1].response


def plays(stack: Stack, turn: Turn, path: str) -> str:
    """Return the name of a model that answers as the turn says."""
    if turn.reply is None:
        return DEMO
    less = turn.less.get("chat" if path == CHAT else "responses", 0)
    reply: Stream | Body = turn.reply
    if less and isinstance(reply, Stream):
        reply = reply[:-less]
    return stack.plays(Script(reply))


def answered(previous: Any, given: Any) -> list[Any]:
    """Return the input with outputs for the calls that wait for one."""
    calls = [
        item.call_id
        for item in (previous.output if previous is not None else ())
        if item.type == "function_call" and item.status == "completed"
    ]
    outputs = [
        {"type": "function_call_output", "call_id": call_id, "output": f"output {number}"}
        for number, call_id in enumerate(calls)
    ]
    if given is None:
        return outputs
    return [*outputs, *([{"role": "user", "content": given}] if isinstance(given, str) else given)]


def without_ids(item: Any) -> dict[str, Any]:
    """Return an item as the API shows it, without what is minted."""
    shown: dict[str, Any] = item.model_dump()
    return {key: value for key, value in shown.items() if key not in ("id", "call_id")}
