"""Prompts: managed, and used by requests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.answers import Answer
from engine.errors import EngineError, InvalidRequest, NotFound
from engine.intake import Caller
from tests.support.engine_rig import CALLER, Rig
from tests.support.fake_model import FakeModel, frames_of
from tests.support.fake_reply import FakeReply
from tests.support.replies import stream, text

TEMPLATE = {
    "model": "m",
    "instructions": "Answer about {{city}}.",
    "temperature": 0.5,
    "text": {"format": {"type": "json_object"}},
}


def body_of(answer: Answer) -> dict[str, Any]:
    """Return the JSON of an answer."""
    read: dict[str, Any] = json.loads(answer.body)
    return read


def rig() -> Rig:
    return Rig(FakeModel(*frames_of(stream(text("ok")))))


async def made(rig: Rig, **fields: Any) -> dict[str, Any]:
    """Create a prompt and return it."""
    body = json.dumps({"template": TEMPLATE, **fields}).encode()
    return body_of(await rig.prompts.create(CALLER, body, ""))


def answered(reply: FakeReply) -> int:
    """Return the status of a whole answer."""
    assert reply.whole is not None
    return reply.whole.status


def sent(rig: Rig, turn: int = 0) -> dict[str, Any]:
    """Return what the model was sent."""
    read: dict[str, Any] = json.loads(rig.model.bodies[turn])
    return read


async def test_a_prompt_is_made_and_read_back() -> None:
    """Its variables are those that its text has, where none are declared."""
    at = rig()
    prompt = await made(at, name="weather", metadata={"team": "a"})
    assert prompt["id"].startswith("pmpt_")
    assert prompt == {
        "id": prompt["id"],
        "object": "prompt",
        "created_at": prompt["created_at"],
        "name": "weather",
        "metadata": {"team": "a"},
        "default_version": "1",
        "version": "1",
        "version_created_at": prompt["created_at"],
        "is_default": True,
        "template": TEMPLATE,
        "variables": {"city": {"type": "text"}},
    }
    assert body_of(await at.prompts.retrieve(CALLER, prompt["id"], "")) == prompt
    assert body_of(await at.prompts.list(CALLER, ""))["data"] == [prompt]


async def test_versions_are_added_and_one_is_the_default() -> None:
    """A new one becomes the default unless told otherwise; older ones stay as they were."""
    at = rig()
    name = (await made(at))["id"]
    newer = {"template": {"instructions": "Two."}}
    second = body_of(await at.prompts.add_version(CALLER, name, json.dumps(newer).encode(), ""))
    assert (second["version"], second["default_version"]) == ("2", "2")
    quiet = json.dumps({**newer, "default": False}).encode()
    third = body_of(await at.prompts.add_version(CALLER, name, quiet, ""))
    assert (third["version"], third["default_version"], third["is_default"]) == ("3", "2", False)
    first = body_of(await at.prompts.retrieve(CALLER, name, "version=1"))
    assert (first["template"], first["is_default"]) == (TEMPLATE, False)
    listed = body_of(await at.prompts.list_versions(CALLER, name, "limit=2"))
    assert [version["version"] for version in listed["data"]] == ["3", "2"]
    assert (listed["last_id"], listed["has_more"]) == ("2", True)
    rest = body_of(await at.prompts.list_versions(CALLER, name, "after=2"))
    assert [(each["object"], each["version"]) for each in rest["data"]] == [("prompt.version", "1")]


async def test_name_metadata_and_default_are_changed() -> None:
    """What is not named stays; null removes."""
    at = rig()
    name = (await made(at, name="a", metadata={"k": "v"}))["id"]
    await at.prompts.add_version(CALLER, name, b'{"template":{"instructions":"2"}}', "")
    changed = body_of(await at.prompts.update(CALLER, name, b'{"default_version":"1"}', ""))
    assert (changed["default_version"], changed["name"]) == ("1", "a")
    changed = body_of(await at.prompts.update(CALLER, name, b'{"name":null,"metadata":{}}', ""))
    assert (changed["name"], changed["metadata"], changed["version"]) == (None, {}, "1")
    with pytest.raises(InvalidRequest) as refused:
        await at.prompts.update(CALLER, name, b'{"default_version":"3"}', "")
    assert refused.value.param == "default_version"


async def test_what_is_deleted_or_foreign_is_not_found() -> None:
    """X1: the same words for both."""
    at = rig()
    name = (await made(at))["id"]
    thief = Caller("thief")
    body = b'{"template":{"instructions":"mine"}}'
    for attempt in (
        at.prompts.retrieve(thief, name, ""),
        at.prompts.retrieve(thief, name, "version=1"),
        at.prompts.update(thief, name, b"{}", ""),
        at.prompts.add_version(thief, name, body, ""),
        at.prompts.list_versions(thief, name, ""),
        at.prompts.delete(thief, name, ""),
    ):
        with pytest.raises(NotFound, match=f"Prompt with id '{name}' not found."):
            await attempt
    gone = body_of(await at.prompts.delete(CALLER, name, ""))
    assert gone == {"id": name, "object": "prompt", "deleted": True}
    with pytest.raises(NotFound, match="not found"):
        await at.prompts.retrieve(CALLER, name, "")


async def test_a_request_runs_a_prompt_as_the_agents_sdk_asks_for_it() -> None:
    """No model, no tools; what the request says beside it wins, key by key."""
    at = rig()
    name = (await made(at))["id"]
    body: dict[str, Any] = {
        "prompt": {"id": name, "version": None, "variables": {"city": "Rome"}},
        "input": "hi",
        "text": {"verbosity": "low"},
        "reasoning": {"effort": "none"},
    }
    reply = await at.create(model=None, **body)
    made_of = reply.json
    assert answered(reply) == 200
    assert made_of["model"] == "m"
    assert made_of["instructions"] == "Answer about Rome."
    assert made_of["prompt"] == {"id": name, "version": "1", "variables": {"city": "Rome"}}
    assert made_of["text"] == {"format": {"type": "json_object"}, "verbosity": "low"}
    asked = sent(at)
    assert asked["instructions"] == "Answer about Rome."
    assert (asked["temperature"], asked["reasoning"]) == (0.5, {"effort": "none"})
    assert "prompt" not in asked


async def test_messages_of_a_prompt_stand_before_the_history() -> None:
    """M9: they are no part of the thread, and every turn begins with the same bytes."""
    at = rig()
    template = {"model": "m", "instructions": [
        {"role": "developer", "content": "Be {{how}}."},
        {"role": "user", "content": "Look at {{what}}."},
    ]}  # fmt: skip
    image = {"type": "input_image", "image_url": "https://x/1.png"}
    variables = {"how": {"type": "text"}, "what": {"type": "image"}}
    name = (await made(at, template=template, variables=variables))["id"]
    prompt = {"id": name, "variables": {"how": "brief", "what": image}}
    first = (await at.create(model=None, prompt=prompt, input=None)).json
    assert first["instructions"][0]["content"] == [{"type": "input_text", "text": "Be brief."}]
    items = await at.responses.list_input_items(CALLER, first["id"], "")
    assert body_of(items)["data"] == []
    await at.create(model=None, prompt=prompt, input="go on", previous_response_id=first["id"])
    one, two = (sent(at, turn)["input"] for turn in (0, 1))
    assert [item["role"] for item in two] == ["developer", "user", "assistant", "user"]
    assert two[: len(one)] == one
    assert at.model.bodies[1].startswith(at.model.bodies[0].rstrip(b"]}"))
    assert one[1]["content"][1] == {**image, "detail": "auto"}


async def test_a_run_in_the_background_keeps_the_words_it_began_with() -> None:
    """P4: what is run later, or again, is the whole request, whatever became of the prompt."""
    at = rig()
    name = (await made(at))["id"]
    queued = await at.create(
        model=None, prompt={"id": name, "variables": {"city": "Rome"}}, background=True
    )
    assert queued.json["status"] == "queued"
    await at.prompts.delete(CALLER, name, "")
    [claim] = await at.store.claim("replica/0#1", 30.0, queued=1, expired=0)
    await (await at.takeover.take_over(claim))
    assert sent(at)["instructions"] == "Answer about Rome."


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        ("pmpt_1", "prompt"),
        ({}, "prompt.id"),
        ({"id": "pmpt_none"}, "prompt.id"),
        ({"id": 1}, "prompt.id"),
        ({"id": "it", "other": 1}, "prompt.other"),
        ({"id": "it", "version": "2"}, "prompt.version"),
        ({"id": "it", "version": "x"}, "prompt.version"),
        ({"id": "it"}, "prompt.variables.city"),
        ({"id": "it", "variables": {"town": "x", "city": "x"}}, "prompt.variables.town"),
        ({"id": "it", "variables": {"city": 1}}, "prompt.variables.city"),
        (
            {"id": "it", "variables": {"city": {"type": "input_image"}}},
            "prompt.variables.city.type",
        ),
        ({"id": "it", "variables": []}, "prompt.variables"),
    ],
)
async def test_what_does_not_fit_is_refused_by_name(prompt: Any, param: str) -> None:
    """H1: 400 with the place; the model is not called."""
    at = rig()
    name = (await made(at))["id"]
    if isinstance(prompt, dict) and prompt.get("id") == "it":
        prompt = {**prompt, "id": name}
    reply = await at.create(model=None, prompt=prompt)
    assert answered(reply) == 400
    assert reply.json["error"]["param"] == param
    assert at.model.bodies == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"template": None}, "template"),
        ({"other": 1}, "other"),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"template": {"input": "x"}}, "template.input"),
        ({"template": {"stream": True}}, "template.stream"),
        ({"template": {"temperature": 3}}, "template.temperature"),
        ({"template": {"nonsense": 3}}, "template.nonsense"),
        ({"template": {"instructions": 3}}, "template.instructions"),
        ({"template": {"tools": [{"type": "function"}]}}, "template.tools[0].name"),
        (
            {"template": {"tools": [{"type": "mcp", "authorization": "secret"}]}},
            "template.tools[0].authorization",
        ),
        ({"variables": {"town": {}}}, "template.instructions"),
        ({"variables": {"city": {"type": "image"}}}, "template.instructions"),
        ({"variables": {"city": {"type": "video"}}}, "variables.city.type"),
        ({"variables": {"a-b": {}}}, "variables.a-b"),
        ({"variables": {"city": {"default": 1}}}, "variables.city.default"),
        (
            {"variables": {"city": {}, "i": {"type": "image", "default": "x"}}},
            "variables.i.default",
        ),
    ],
)
async def test_a_template_is_checked_when_it_is_written(fields: Any, param: str) -> None:
    """H1: not when an application first uses it; no credential is kept (X4)."""
    with pytest.raises(EngineError) as refused:
        await made(rig(), **fields)
    assert (refused.value.status, refused.value.param) == (400, param)


async def test_a_default_makes_a_variable_optional() -> None:
    """And an explicit one wins."""
    at = rig()
    name = (await made(at, variables={"city": {"default": "Bonn"}}))["id"]
    await at.create(model=None, prompt={"id": name})
    await at.create(model=None, prompt={"id": name, "variables": {"city": "Rome"}})
    assert [sent(at, turn)["instructions"] for turn in (0, 1)] == [
        "Answer about Bonn.",
        "Answer about Rome.",
    ]


async def test_a_prompt_that_is_null_is_none() -> None:
    """H1: null is absent."""
    at = rig()
    reply = await at.create(prompt=None, input='the word "prompt" in a text')
    assert answered(reply) == 200


async def test_a_prompt_is_seen_however_its_key_is_spelled() -> None:
    """H1: JSON may spell a key with escapes; it is not passed over."""
    at = rig()
    body = b'{"model":"m","input":"hi","pro\\u006dpt":{"id":"pmpt_none"}}'
    with pytest.raises(InvalidRequest) as refused:
        await at.admit(body)
    assert refused.value.param == "prompt.id"
