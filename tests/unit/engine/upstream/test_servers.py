"""`engine.upstream.servers` and `.choice`: what a server is, and in which dialect it is asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.upstream.choice import Choice
from engine.upstream.refusal import refusal
from engine.upstream.servers import SERVERS, Profile, recognise
from tests.support import servers, strictness
from tests.support.engine_rig import Rig
from tests.support.fake_model import FakeModel
from tests.support.stream_rules import check_stream, response_of

WEATHER = {"type": "function", "name": "get_weather"}


def models(**fields: Any) -> bytes:
    return json.dumps({"object": "list", "data": [{"id": "m", **fields}]}).encode()


@pytest.mark.parametrize("name", servers.SERVERS)
def test_a_server_is_known_by_its_models(name: str) -> None:
    """None has a version; that of transformers is like any other's."""
    listed = (servers.FOLDER / name / "models.json").read_bytes()
    known = recognise(b'{"error": "not found"}', listed).server.name
    assert known == ("unknown" if name == "transformers" else name)


@pytest.mark.parametrize(
    ("version", "dialect"),
    [
        ("0.16.0", "chat"),
        ("0.20.2", "chat"),
        ("0.26.1", "chat"),
        ("0.27.0", "responses"),
        ("0.33.0rc1+cu129", "responses"),
        ("v1.0", "responses"),
        ("dev", "chat"),
        ("", "chat"),
    ],
)
def test_vllm_is_asked_by_its_release(version: str, dialect: str) -> None:
    """R8: before 0.27 its chat completions are the better API."""
    told = json.dumps({"version": version}).encode()
    profile = recognise(told, models(owned_by="vllm", max_model_len=10))
    assert (profile.server.name, profile.dialect) == ("vllm", dialect)


def test_a_fork_of_vllm_is_one() -> None:
    """Known by its version and the length of its context."""
    fork = recognise(b'{"version": "0.30.0"}', models(owned_by="me", max_model_len=7))
    assert str(fork) == "vllm 0.30.0"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"<html>", b'{"data": 1}', b'{"data": [null]}', b"\xff"]
)
def test_nonsense_is_an_unknown_server(body: bytes) -> None:
    """A profile is an optimisation: reading one never fails."""
    assert recognise(body, body) == Profile()
    assert Profile().dialect == "chat"


@pytest.mark.parametrize(
    ("model", "dialect"),
    [("gpt-oss-20b", "responses"), ("gpt-4", "chat"), ("llama", "responses"), ("other", "chat")],
)
def test_the_settings_choose_by_the_models_name(model: str, dialect: str) -> None:
    """The first pattern that fits counts, `auto` among them; then the default."""
    patterns = [("gpt-oss*", "responses"), ("gpt*", "chat"), ("llama", "auto")]
    choice = Choice("chat", patterns)
    choice.profile = Profile(server=SERVERS["vllm"], version=(0, 30))
    assert choice.dialect(model).name == dialect


def test_a_named_server_is_that_whatever_it_says() -> None:
    """What is asked of it still tells its release."""
    choice = Choice(server="transformers")
    choice.profile = Profile(server=SERVERS["vllm"], version=(0, 30))
    assert choice.profile.server.name == "transformers"
    assert (choice.profile.version, choice.dialect("m").name) == ((0, 30), "chat")


def over(server: str) -> Choice:
    return Choice("chat", server=server)


@pytest.mark.parametrize(
    ("server", "fields", "param"),
    [
        ("ollama", {"tools": [WEATHER], "tool_choice": "required"}, "tool_choice"),
        ("ollama", {"logit_bias": {"1": 1}}, "logit_bias"),
        ("transformers", {"text": {"format": {"type": "json_object"}}}, "text.format"),
        ("transformers", {"reasoning": {"effort": "low"}}, "reasoning.effort"),
        ("transformers", {"presence_penalty": 1}, "presence_penalty"),
        ("transformers", {"include": ["message.output_text.logprobs"]}, "include"),
    ],
)
async def test_a_field_that_a_server_does_not_honour_is_refused(
    server: str, fields: dict[str, Any], param: str
) -> None:
    """H1: before anything is sent, with the client's name of it."""
    rig = Rig(FakeModel(), choice=over(server))
    reply = await rig.create(**fields)
    assert reply.whole is not None
    assert (reply.whole.status, reply.json["error"]["param"]) == (400, param)
    assert rig.model.bodies == []


@pytest.mark.parametrize("server", ["llamacpp", "transformers"])
async def test_a_schema_that_its_responses_pass_over_is_refused(server: str) -> None:
    """H1: what is not asked for is not refused, and others are asked."""
    schema = {"type": "json_schema", "name": "x", "schema": {"type": "object"}}
    for kind, named, status in ((schema, server, 400), ({"type": "text"}, server, 200)):
        rig = Rig(
            FakeModel(*servers.frames("llamacpp", "responses_text")),
            choice=Choice("responses", server=named),
        )
        reply = await rig.create(text={"format": kind})
        assert reply.whole is not None
        assert reply.whole.status == status
        assert (status == 200) == bool(rig.model.bodies)


@pytest.mark.parametrize("server", ["ollama", "transformers"])
async def test_what_is_asked_for_our_own_sake_is_left_out(server: str) -> None:
    """Neither a count of tokens nor serial calls nor `tool_choice: none` need the server's help."""
    rig = Rig(FakeModel(*servers.frames(server, "chat_text")), choice=over(server))
    await rig.create(tools=[WEATHER], parallel_tool_calls=False, tool_choice="none")
    body = json.loads(rig.model.bodies[0])
    assert not body.keys() & {"tools", "tool_choice", "parallel_tool_calls"}
    assert ("stream_options" in body) == (server == "ollama")


def test_a_real_llamacpp_is_known_and_understood() -> None:
    """R15: by its recorded list of models, where `/version` is a 404; and by how it says too long."""
    folder = servers.FOLDER / "llamacpp"
    told = [(folder / f"recorded-{name}.json").read_bytes() for name in ("version", "models")]
    assert recognise(*told).server.name == "llamacpp"
    long = refusal(400, (folder / "recorded-error_long.json").read_bytes(), None)
    assert long.code == "context_length_exceeded"


STREAMS = [
    (server, name)
    for server in servers.SERVERS
    for kind in ("chat", "responses")
    for name in servers.names(server, kind)
]


# How many tokens the recorded servers were allowed to babble, and wrote.
BABBLED = 12


@pytest.mark.parametrize(("server", "name"), STREAMS)
async def test_any_servers_stream_keeps_the_rules(server: str, name: str) -> None:
    """R1-R12: whatever it numbers, closes, leaves out or breaks off."""
    dialect, _, kind = name.removeprefix(servers.RECORDED).partition("_")
    rig = Rig(FakeModel(*servers.frames(server, name)), choice=Choice(dialect, server=server))
    reply = await rig.create(
        stream=True,
        tools=[WEATHER, {"type": "function", "name": "get_time"}],
        max_output_tokens=BABBLED if kind == "babble" else 100,
    )
    events = check_stream(reply.raw)
    response = response_of(events)
    endings = {"cut": "failed", "error": "failed", "babble": "incomplete"}
    assert response["status"] == endings.get(kind, "completed")
    if kind != "babble":
        assert [said(item) for item in response["output"]] == expected(server, name)
    assert (await rig.the_stored()).status == response["status"]


def said(item: dict[str, Any]) -> tuple[str, str]:
    if item["type"] == "function_call":
        return item["name"], item["arguments"].replace(" ", "")
    parts = item.get("content") or item.get("summary") or ()
    return item["type"], "".join(part["text"] for part in parts).rstrip("\n")


LOOK, PARIS, TIME = (
    ("message", "I will look."),
    ("get_weather", '{"city":"Paris"}'),
    ("get_time", "{}"),
)
THOUGHT, HELLO = ("reasoning", "Let me see."), ("message", "Hello.")
IN_RESPONSES = {
    ("llamacpp", "tool"): [THOUGHT, PARIS],
    ("ollama", "tool"): [LOOK, PARIS],
    ("openrouter", "tool"): [THOUGHT, PARIS],
    ("sglang", "tool"): [PARIS],
    ("ollama", "cut"): [("reasoning", "Let me")],
    ("openrouter", "cut"): [HELLO],
}


def expected(server: str, name: str) -> list[tuple[str, str]]:
    """Return what every client should see of a stream."""
    dialect, _, kind = name.partition("_")
    if name.startswith(servers.RECORDED):
        return expected(server, f"chat_{kind}")
    if dialect == "responses" and (server, kind) in IN_RESPONSES:
        return IN_RESPONSES[server, kind]
    broken = {"sglang": [], "ollama": [("reasoning", "Let me see")]}
    return {
        "text": [HELLO],
        "reasoning": [THOUGHT, HELLO],
        "tool": [LOOK, PARIS, TIME],
        "error": broken.get(server, [("message", "Hel")]),
        "cut": broken.get(server, []),
    }[kind]


async def test_llamacpp_takes_a_history_in_responses_too() -> None:
    """M4: what was said, thought and called, as its parser wants it; others get the canonical form."""
    turns = [
        servers.frames("llamacpp", "responses_tool"),
        servers.frames("llamacpp", "responses_text"),
    ]
    model = FakeModel(*servers.frames("llamacpp", "responses_text"), turns=turns)
    rig = Rig(model, choice=Choice("responses", server="llamacpp"))
    called = response_of(await rig.stream(tools=[WEATHER]))
    [call_id] = [item["call_id"] for item in called["output"] if "call_id" in item]
    output = {"type": "function_call_output", "call_id": call_id, "output": "sunny"}
    answered = response_of(
        await rig.stream(previous_response_id=called["id"], input=[output], instructions="i")
    )
    await rig.stream(previous_response_id=answered["id"], input="and?")
    for body in model.bodies:
        strictness.check_llamacpp_input(json.loads(body)["input"])
    said = json.loads(model.bodies[-1])["input"][-2]
    assert said["content"] == [{"type": "output_text", "text": "Hello."}]
