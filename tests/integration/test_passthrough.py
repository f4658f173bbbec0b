"""Paths that are not ours: they reach the model server as they are, and our filter is off."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest
from yarl import URL

from tests.support import replies
from tests.support.replies import say, text
from tests.support.scripts import CHAT, Body, Hold, Script
from tests.support.stack import CLIENT_KEY, Stack
from tests.support.wire import Wire


async def test_chat_completions_work_and_cost_no_stream(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    """Design §2: whole and streamed, by the SDK; not one ext_proc stream is opened."""
    model = stack.plays(say(text("Hel", "lo")))
    before = await stack.ext_proc_streams()

    whole = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hi"}]
    )
    chunks = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hi"}], stream=True
    )
    deltas = [c.choices[0].delta.content or "" async for c in chunks if c.choices]
    models = await client.models.list()

    assert whole.choices[0].message.content == "Hello"
    assert "".join(deltas) == "Hello"
    assert models.data
    assert await stack.ext_proc_streams() == before


async def test_our_own_routes_do_open_one(stack: Stack, wire: Wire) -> None:
    """The counter that the others rely on counts."""
    before = await stack.ext_proc_streams()

    await wire.create(model="demo", stream=False)

    assert await stack.ext_proc_streams() == before + 1


@pytest.mark.parametrize(
    "path",
    [
        "/v1/embeddings",
        "/v1/rerank?x=1",
        "/tokenize",
        "/v1/responsesfoo",
        "/v1/response",
        "/v1/conversationsfoo",
    ],
)
async def test_other_paths_are_carried_byte_for_byte(stack: Stack, wire: Wire, path: str) -> None:
    """Body, query, headers and status are the model server's business, and so is the client's key."""
    answer = json.dumps({"data": [1, 2, 3]}).encode()
    stack.model.script(Script(Body(lambda _: answer, 207)), path=path.partition("?")[0])
    body = bytes(range(256)) * 100
    before = await stack.ext_proc_streams()

    seen = await wire.ask(
        "POST", path, data=body, headers={"x-own": "1", "content-type": "application/octet-stream"}
    )

    assert (seen.status, bytes(seen.raw)) == (207, answer)
    received = stack.model.requests[-1]
    assert (received.path, received.body) == (path, body)
    assert received.headers["x-own"] == "1"
    assert received.headers["authorization"] == f"Bearer {CLIENT_KEY}"
    assert await stack.ext_proc_streams() == before


@pytest.mark.parametrize(
    "path",
    [
        "/v1//responses",
        "/v1/./responses",
        "/v1/x/../responses",
        "/v1/%72esponses",
        "/v1/responses?a",
        "/v1//conversations",
        "/v1/conversation%73?a",
    ],
)
async def test_no_spelling_walks_around_our_route(stack: Stack, wire: Wire, path: str) -> None:
    """X2: what is our path in any spelling is ours, and never the model server's."""
    number = len(stack.model.requests) + len(stack.model.probes)
    before = await stack.ext_proc_streams()

    seen = await wire.ask("GET", URL(stack.url + path, encoded=True))

    assert seen.status in (200, 400)
    assert await stack.ext_proc_streams() == before + 1
    assert len(stack.model.requests) + len(stack.model.probes) == number


async def test_a_chat_request_of_an_abandoned_client_is_aborted(stack: Stack, wire: Wire) -> None:
    """Promise 5: Envoy passes the client's leaving on, as without us."""
    never = asyncio.Event()
    model = stack.plays(replies.stream(text("Hel", "lo"))[:2], Hold(never))
    asking = asyncio.create_task(
        wire.ask(
            "POST",
            CHAT,
            json={"model": model, "stream": True, "messages": [{"role": "user", "content": "x"}]},
        )
    )
    received = await stack.asks(model)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)

    await received.wait_aborted()
