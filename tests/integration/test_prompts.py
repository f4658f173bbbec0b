"""Prompt templates through Envoy, with the official SDK; its own methods have none, so they are posted."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.support.fix_stack import BOTH_WAYS
from tests.support.replies import say, text
from tests.support.stack import Stack

pytestmark = BOTH_WAYS

PIXEL = "data:image/png;base64,iVBORw0KGgo="
VARIABLES = {"tongue": {"type": "text", "default": "English"}, "thing": {"type": "image"}}


def template(model: str) -> dict[str, Any]:
    """Return a template with messages, a tool and parameters."""
    return {
        "model": model,
        "instructions": [
            {"role": "developer", "content": "Answer in {{tongue}}."},
            {"role": "user", "content": "This is {{thing}}."},
        ],
        "temperature": 0.25,
        "tools": [{"type": "function", "name": "look", "parameters": {"type": "object"}}],
    }


async def made(client: openai.AsyncOpenAI, path: str = "/prompts", **body: Any) -> dict[str, Any]:
    """Post a body and return the answer."""
    answer: dict[str, Any] = await client.post(path, body=body, cast_to=dict)
    return answer


async def test_a_prompt_is_run_streamed_and_continued(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    """M9: model, tools and messages come from the template; each turn begins with the same bytes."""
    model = stack.plays(say(text("ok")))
    prompt = await made(client, template=template(model), variables=VARIABLES)
    used: Any = {
        "id": prompt["id"],
        "variables": {"thing": {"type": "input_image", "image_url": PIXEL, "detail": "auto"}},
    }

    async with await client.responses.create(prompt=used, stream=True) as events:
        first = [event async for event in events][-1].response  # type: ignore[union-attr]
    second = await client.responses.create(
        prompt=used,
        input="and now?",
        previous_response_id=first.id,
    )

    assert (first.output_text, second.output_text) == ("ok", "ok")
    assert (second.model, second.temperature) == (model, 0.25)
    assert second.prompt is not None
    assert (second.prompt.id, second.prompt.version) == (prompt["id"], "1")
    one, two = (received.json for received in stack.asked(model))
    assert two["input"][: len(one["input"])] == one["input"]
    assert [message["role"] for message in two["input"]] == [
        "developer", "user", "assistant", "user",
    ]  # fmt: skip
    assert two["input"][0]["content"] == "Answer in English."
    assert two["tools"][0]["name"] == "look"


async def test_versions_go_live_and_back(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """The default changes for those who name no version; a named one stays what it was."""
    model = stack.plays(say(text("ok")))
    prompt = await made(client, template={"model": model, "instructions": "One."})
    path = f"/prompts/{prompt['id']}"
    await made(client, f"{path}/versions", template={"model": model, "instructions": "Two."})

    async def told(**named: str) -> Any:
        wanted: Any = {"id": prompt["id"], **named}
        response = await client.responses.create(prompt=wanted, input="hi")
        return response.instructions

    assert [await told(), await told(version="1")] == ["Two.", "One."]
    await made(client, path, default_version="1")
    assert [await told(), await told(version="2")] == ["One.", "Two."]
    listed = await client.get(f"{path}/versions", cast_to=dict)
    assert [version["version"] for version in listed["data"]] == ["2", "1"]
    await client.delete(path, cast_to=dict)
    with pytest.raises(openai.BadRequestError) as refused:
        await told()
    assert (refused.value.param, refused.value.code) == ("prompt.id", "prompt_not_found")


async def test_what_is_missing_is_named(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """H1: a variable, a version."""
    prompt = await made(client, template=template("demo"), variables=VARIABLES)
    cases: list[tuple[Any, str]] = [
        ({"id": prompt["id"]}, "prompt.variables.thing"),
        ({"id": prompt["id"], "version": "7"}, "prompt.version"),
    ]
    for wanted, param in cases:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(prompt=wanted)
        assert refused.value.param == param


async def test_a_run_in_the_background_and_one_with_its_own_model(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    """The template is in what is queued; a model that the request names wins."""
    model = stack.plays(say(text("seen")))
    written = {**template(model), "instructions": "Look for {{what}}."}
    prompt = await made(client, template=written)
    used: Any = {"id": prompt["id"], "variables": {"what": "rain"}}
    queued = await client.responses.create(prompt=used, input="go", background=True)
    asked = await stack.asks(model)
    assert asked.json["instructions"] == "Look for rain."
    async with await client.responses.create(
        prompt=used,
        input="wait",
        stream=True,
        model=stack.plays(say(text("own model"))),
    ) as events:
        last = [event async for event in events][-1]
    assert last.type == "response.completed"
    assert last.response.output_text == "own model"
    assert queued.status == "queued"
