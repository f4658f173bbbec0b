"""Inline mode through real Envoy: the request itself is the first turn of the model.

What is the same as by relay is tried by the suites marked with `ALL_WAYS` and `BOTH_MODES`; here is what is
inline's own, its limits among them (docs/inline.md).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from extproc.settings import Settings
from extproc.up.envoy import envoy_command, public_port
from extproc.up.processes import running
from storage.postgres.embedded import EmbeddedPostgres
from tests.support import replies
from tests.support.fix_postgres import create_database
from tests.support.fix_stack import INLINE, open_session
from tests.support.h2_trailers import post_with_trailers
from tests.support.replies import call, say, text
from tests.support.scripted_model import ScriptedModel
from tests.support.scripts import Hold, Script
from tests.support.stack import (
    API_KEY,
    CLIENT_KEY,
    Stack,
    running_stack,
    short_directory,
)
from tests.support.wire import DEADLINE, RESPONSES, Seen, Wire

ANSWER = replies.stream(text("Hel", "lo"))
MCP = {"type": "mcp", "server_label": "s", "require_approval": "never"}
STREAM_OR_WHOLE = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest_asyncio.fixture(scope="module")
async def alone(postgres_server: EmbeddedPostgres, stage: ScriptedModel) -> AsyncIterator[Stack]:
    """A stack that has no way to the model but the requests themselves: no model listener either."""
    async with running_stack(
        stage,
        await create_database(postgres_server),
        model={"url": stage.url, "api_key": API_KEY, "via": "request"},
        envoy={"inline": True},
    ) as running:
        yield running


# -- the request travels on -----------------------------------------------------------------------------


@INLINE
@STREAM_OR_WHOLE
async def test_the_request_itself_is_the_turn(stack: Stack, wire: Wire, stream: bool) -> None:
    """Promise 5: nothing goes through the model listener; X4: nothing of the client's goes to the model."""
    model = stack.plays(say(text("Hel", "lo")))
    probes = len(stack.model.probes)
    before = await stack.stat("http.model.downstream_rq_total")

    async with wire.open(
        {"cookie": "c", "x-client": "1", "holdfast-on-disconnect": "cancel"},
        model=model,
        stream=stream,
    ) as seen:
        await seen.rest()

    assert seen.status == 200
    received = await stack.asks(model)
    names = {name.lower() for name in received.headers}
    assert received.headers["authorization"] == f"Bearer {API_KEY}"
    assert received.headers["accept-encoding"] == "identity"
    assert received.headers["x-request-id"] == seen.headers["x-request-id"]
    assert names == {
        "host", "content-type", "accept", "accept-encoding", "authorization", "x-request-id",
        "x-forwarded-proto", "transfer-encoding", "x-holdfast-affinity",
    }  # fmt: skip
    # Nothing but the workers' own questions what the server is, which come every minute.
    after = await stack.stat("http.model.downstream_rq_total")
    assert after - before <= len(stack.model.probes) - probes


async def test_a_path_of_the_model_url_comes_first(
    postgres_server: EmbeddedPostgres, stage: ScriptedModel
) -> None:
    """As by every other way: in front of the API's path, and /v1 is not said twice."""
    async with (
        running_stack(
            stage,
            await create_database(postgres_server),
            model={"url": f"{stage.url}/base/v1", "api_key": API_KEY},
            envoy={"inline": True},
        ) as based,
        open_session(based.url) as session,
    ):
        await Wire(session).create(model="in-front", stream=False)

    [received] = based.asked("in-front")
    assert received.path == "/base/v1/responses"
    assert received.headers["host"] == f"127.0.0.1:{stage.port}"


@STREAM_OR_WHOLE
async def test_the_request_travels_in_the_model_servers_dialect(
    postgres_server: EmbeddedPostgres, stage: ScriptedModel, stream: bool
) -> None:
    """The path belongs to the turn: chat completions, below the path of the model's URL."""
    async with (
        running_stack(
            stage,
            await create_database(postgres_server),
            model={"url": stage.url, "api_key": API_KEY, "dialect": "chat"},
            envoy={"inline": True},
        ) as chatting,
        open_session(chatting.url) as session,
    ):
        model = chatting.plays(say(text("Hel", "lo")))
        seen = await Wire(session).create(model=model, stream=stream)

    response = seen.response if stream else seen.json
    assert response["output"][0]["content"][0]["text"] == "Hello"
    [received] = chatting.asked(model)
    assert received.path == "/v1/chat/completions"
    assert "messages" in received.json


@INLINE
@STREAM_OR_WHOLE
async def test_large_bodies_pass(stack: Stack, wire: Wire, stream: bool) -> None:
    """E7, E6: a request of 5 MB arrives whole, and 20 000 deltas come back in their order."""
    words = [f"{number} " for number in range(20_000)]
    model = stack.plays(say(text(*words)))
    sent = os.urandom(2_500_000).hex()

    seen = await wire.create(60, model=model, input=sent, stream=stream)

    [item] = (await stack.asks(model)).json["input"]
    arrived = item["content"].encode()
    assert hashlib.sha256(arrived).digest() == hashlib.sha256(sent.encode()).digest()
    if stream:
        assert seen.text == "".join(words)
        assert seen.ending["type"] == "response.completed"
    else:
        assert seen.json["output"][0]["content"][0]["text"] == "".join(words)


@INLINE
async def test_a_busy_model_server_is_sent_the_same_again(stack: Stack, wire: Wire) -> None:
    """Promise 5: by Envoy, also a body that it would not keep by default."""
    model = stack.plays(say(text("Hello")))
    stack.model.script(Script(replies.unavailable()), Script(replies.unavailable()))

    seen = await wire.create(60, model=model, input="x" * 3_000_000)

    assert seen.ending["type"] == "response.completed"
    assert len(stack.asked(model)) == 3
    assert len({received.body for received in stack.asked(model)}) == 1


@INLINE
@STREAM_OR_WHOLE
async def test_a_request_with_trailers_does_not_travel(stack: Stack, stream: bool) -> None:
    """E1: Envoy would send its body twice; it is answered by relay."""
    model = stack.plays(say(text("Hello")))
    body = json.dumps({"model": model, "input": "hi", "stream": stream}).encode()

    answer = await post_with_trailers(stack.url, RESPONSES, body, DEADLINE)

    assert b'"Hello"' in answer
    assert [item["content"] for item in (await stack.asks(model)).json["input"]] == ["hi"]


@INLINE
async def test_a_response_in_the_background_does_not_travel(stack: Stack, wire: Wire) -> None:
    """R2: its client is answered by relay, and its call goes by HTTP."""
    model = stack.plays(say(text("Hel", "lo")))
    before = await stack.stat("http.model.downstream_rq_total")

    seen = await wire.create(model=model, background=True, stream=True)

    assert seen.kinds[1] == "response.queued"
    assert seen.ending["type"] == "response.completed"
    assert await stack.stat("http.model.downstream_rq_total") == before + 1


@INLINE
@STREAM_OR_WHOLE
async def test_a_repeated_request_does_not_travel(stack: Stack, wire: Wire, stream: bool) -> None:
    """P2: with one Idempotency-Key the model is called once."""
    model = stack.plays(say(text("Hel", "lo")))
    answers: list[Seen] = []
    for _ in range(2):
        key = {"idempotency-key": f"inline-{model}"}
        async with wire.open(key, model=model, stream=stream) as seen:
            await seen.rest()
            answers.append(seen)

    first, second = [seen.response if stream else seen.json for seen in answers]
    assert first == second
    assert len(stack.asked(model)) == 1


@INLINE
async def test_a_cancel_ends_the_stream_and_the_call(stack: Stack, wire: Wire) -> None:
    """P3: the client is told of the end, and the model server sees an abort."""
    model = stack.plays(ANSWER[:5], Hold(asyncio.Event()))

    async with wire.open(model=model) as reading:
        await reading.until("response.output_text.delta")
        running = reading.events[0]["response"]["id"]
        cancelled = await wire.ask("POST", f"{RESPONSES}/{running}/cancel")
        await reading.rest()

    assert cancelled.json["status"] == "cancelled"
    assert reading.ending["type"] == "response.incomplete"
    await stack.asked(model)[0].wait_aborted()


async def test_without_a_sidecar_nothing_travels(stage: ScriptedModel) -> None:
    """E5, P1: the client's request never reaches the model server as it came, and unstored."""
    with short_directory() as directory:
        settings = Settings.load(None, {
            "DATA_DIR": str(directory), "PORT": "0", "BACKEND_URL": stage.url,
            "HOLDFAST_ENVOY__INLINE": "true",
        })  # fmt: skip
        settings.sidecar.run_dir.mkdir()
        async with (
            running([envoy_command(settings, os.environ)], lambda line: None),
            open_session(f"http://127.0.0.1:{await public_port(settings)}") as session,
        ):
            seen = await Wire(session).create(model="unstored", stream=False)

    assert seen.status == 503
    assert seen.error["code"] == "sidecar_unavailable"
    assert not [received for received in stage.requests if b"unstored" in received.body]


# -- without any other way -----------------------------------------------------------------------------


async def test_text_needs_no_other_way(alone: Stack) -> None:
    """M2: turns that build on each other, without a model listener."""
    model = alone.plays(say(text("ok")))
    async with openai.AsyncOpenAI(
        base_url=f"{alone.url}/v1", api_key=CLIENT_KEY, max_retries=0
    ) as client:
        one = await client.responses.create(model=model, input="one")
        two = await client.responses.create(model=model, input="two", previous_response_id=one.id)

    assert two.output_text == "ok"
    sent = (await alone.asks(model, 2)).json["input"]
    assert [item["content"] for item in sent] == ["one", "ok", "two"]
    assert not alone.settings.model.socket.exists()


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"background": True}, "background"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        (
            {"tools": [{**MCP, "server_url": "https://example.com"}]},
            "tools[0].type",
        ),
    ],
    ids=["background", "compaction", "tools"],
)
async def test_what_needs_another_turn_is_refused(
    alone: Stack, asked: dict[str, Any], param: str
) -> None:
    """H1: where there is no way for it, before the model is called."""
    async with open_session(alone.url) as session:
        seen = await Wire(session).create(model="demo", stream=False, **asked)

    assert seen.status == 400
    assert (seen.error["param"], seen.error["code"]) == (param, "unsupported_value")


@INLINE
async def test_a_call_of_the_clients_own_tool_ends_the_response(stack: Stack, wire: Wire) -> None:
    """M6: and its output is the next request, which travels as well."""
    tools = [{"type": "function", "name": "f", "parameters": {"type": "object"}}]
    one = await wire.stream(stack.plays(say(call("f", '{"a": 1}'))), tools=tools)
    [made] = one.response["output"]
    output = {"type": "function_call_output", "call_id": made["call_id"], "output": "1"}

    two = await wire.create(
        model=stack.plays(say(text("ok"))), tools=tools, stream=False, input=[output],
        previous_response_id=one.response["id"],
    )  # fmt: skip

    assert two.status == 200
