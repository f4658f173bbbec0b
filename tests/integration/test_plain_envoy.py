"""An Envoy without ext_proc, as it was before 1.37: the workers are an ordinary HTTP cluster of its."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import openai
import pytest

from tests.support.fix_stack import open_session
from tests.support.http_client import Client, request
from tests.support.replies import say, stream, text
from tests.support.scripts import Hold
from tests.support.stack import CLIENT_KEY, Stack, eventually
from tests.support.tenants import a_connector
from tests.support.wire import CONNECTORS, DEADLINE, Wire

MEGABYTE = 1 << 20
ANSWER = stream(text("Hel", "lo"))


@pytest.fixture
async def wire(plain: Stack) -> AsyncIterator[Wire]:
    """A plain client of this Envoy."""
    async with open_session(plain.url) as session:
        yield Wire(session)


async def test_turns_go_through_envoy_both_ways(plain: Stack, wire: Wire) -> None:
    """M1, R14: stored, streamed and continued; the model's turns travel over Envoy's private listener."""
    first, second = plain.plays(say(text("Hel", "lo"))), plain.plays(say(text("ok")))
    turns = await plain.stat("http.model.downstream_rq_total")
    async with openai.AsyncOpenAI(base_url=f"{plain.url}/v1", api_key=CLIENT_KEY) as client:
        async with client.responses.stream(model=first, input="hi") as events:
            one = await events.get_final_response()
        two = await client.responses.create(model=second, input="2", previous_response_id=one.id)

    assert (one.output_text, two.output_text) == ("Hello", "ok")
    sent = (await plain.stat("http.model.downstream_rq_total")) - turns
    # The gateway asks the server what it is by this way too, at any time.
    assert sent >= 2
    assert (await wire.get(two.id)).json["previous_response_id"] == one.id


async def test_connectors_are_ours_too(wire: Wire) -> None:
    """H2: the whole API goes to the workers; what only begins alike does not."""
    made = (await wire.ask("POST", CONNECTORS, json=a_connector("crm"))).json
    path = f"{CONNECTORS}/{made['id']}"
    assert (await wire.ask("GET", path)).json == made
    assert (await wire.ask("GET", path.replace("connectors", "connectorsfoo"))).status == 404
    assert (await wire.ask("DELETE", path)).json["deleted"] is True


async def test_one_request_id_joins_client_and_model(plain: Stack, wire: Wire) -> None:
    """R15: Envoy's id, once."""
    model = plain.plays(say(text("ok")))
    seen = await wire.create(model=model, stream=False)
    assert plain.asked(model)[0].headers["x-request-id"] == seen.headers["x-request-id"]
    assert "," not in seen.headers["x-request-id"]


async def test_what_is_not_ours_passes_to_the_model_server(plain: Stack, wire: Wire) -> None:
    """Envoy's own business, as with ext_proc."""
    models = await wire.ask("GET", "/v1/models")
    assert (models.status, models.json["object"]) == (200, "list")
    assert (await wire.ask("GET", "/v1/responses/resp_x")).error["code"] == "not_found"


async def test_a_client_that_leaves_is_noticed(plain: Stack, wire: Wire) -> None:
    """P5: the model server sees the abort, two proxies further on."""
    model = plain.plays(ANSWER[:5], Hold(asyncio.Event()))
    async with wire.open(model=model, store=False) as reading:
        await reading.until("response.output_text.delta")
    await plain.asked(model)[0].wait_aborted()


async def test_a_slow_reader_is_held_back_in_the_worker(plain: Stack, wire: Wire) -> None:
    """E6: Envoy takes no more than its buffers hold; with ext_proc it would keep everything."""
    model = plain.plays(say(text("x" * (8 * MEGABYTE))))
    made = (await wire.create(model=model, stream=False)).json["id"]
    received = "cluster.sidecar.upstream_cx_rx_bytes_total"
    before = await plain.stat(received)
    host, _, port = plain.url.removeprefix("http://").partition(":")
    async with asyncio.timeout(DEADLINE), AsyncExitStack() as connections:
        for _ in range(4):
            slow = await connections.enter_async_context(Client.to((host, int(port))))
            await slow.send(request("GET", f"/v1/responses/{made}"))
            await slow.line()
        # Others are served meanwhile.
        for _ in range(20):
            assert (await wire.get("resp_x")).status == 404
        # The kernel keeps up to 4 MiB for each of them; of 32 there would be nothing left.
        assert (await plain.stat(received)) - before < 24 * MEGABYTE


async def test_without_workers_it_is_a_503_of_the_api(plain: Stack, wire: Wire) -> None:
    """E5: both are stopped for a moment; Envoy says so, and sends nothing to who is not there."""
    pids = [plain.worker(index) for index in (0, 1)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    seen = await wire.create(model="demo", stream=False)
    while seen.status == 200:
        seen = await wire.create(model="demo", stream=False)
    assert (seen.status, seen.error["code"]) == (503, "sidecar_unavailable")
    assert seen.headers["retry-after"] == "1"

    async def again() -> bool:
        return (await wire.create(model="demo", stream=False)).status == 200

    await eventually(again)
