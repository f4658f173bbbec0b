"""The scripted model over real HTTP: which script answers, and what a test learns of a request."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from tests.support import replies, transcripts
from tests.support.model_client import ask
from tests.support.replies import call, reasoning, say, stream, text
from tests.support.scripted_model import ScriptedModel
from tests.support.scripts import CHAT, RESPONSES, Hold, Script

HELLO = stream(text("Hel", "lo"))
MEGABYTE = 1 << 20


async def test_without_a_script_it_is_the_demo_model(
    model_client: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    """And it says so at /version."""
    assert (
        "You said:"
        in (await ask(model_client)).events[-1]["response"]["output"][0]["content"][0]["text"]
    )
    async with model_client.get("/version") as response:
        assert "demo" in (await response.json())["version"]
    assert [probe.path for probe in model.probes] == ["/version"]


async def test_queued_scripts_answer_the_next_requests_in_turn(
    model_client: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    """One script each, then the demo again."""
    model.script(say(text("one")), say(text("two")))
    assert model.unused == 2
    texts = [(await ask(model_client)).events[-1]["response"]["output"] for _ in range(3)]
    assert [output[0]["content"][0]["text"][:3] for output in texts] == ["one", "two", "You"]
    assert model.unused == 0


async def test_a_script_is_chosen_by_model_header_or_metadata(
    model_client: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    """Whatever of the three survives the gateway under test."""
    model.named["mine"] = say(text("mine"))
    by_model = await ask(model_client, "script/mine")
    by_header = await ask(model_client, headers={"x-script": "mine"})
    by_metadata = await ask(model_client, metadata={"script": "mine"})
    for got in (by_model, by_header, by_metadata):
        assert got.events[-1]["response"]["output"][0]["content"][0]["text"] == "mine"


async def test_always_answers_what_nothing_else_claims(
    model_client: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    """A default for a whole test."""
    model.always = Script(replies.unavailable())
    assert (await ask(model_client)).status == 503
    assert (await ask(model_client, "script/text")).status == 200


async def test_a_script_answers_streamed_or_whole_as_asked(
    model_client: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    """say() fits both, on both paths."""
    model.always = say(reasoning("hm"), text("a"), call("f", "{}"))
    whole = await ask(model_client, stream=False)
    output = json.loads(whole.body)["output"]
    assert [item["type"] for item in output] == ["reasoning", "message", "function_call"]
    chat = await ask(model_client, path=CHAT)
    assert chat.body.endswith(b"data: [DONE]\n\n")
    assert json.loads((await ask(model_client, path=CHAT, stream=False)).body)["choices"]


@pytest.mark.parametrize("name", transcripts.names())
async def test_a_recording_is_replayed_under_the_requests_model(
    model_client: aiohttp.ClientSession, name: str
) -> None:
    """All events, and a broken connection where the recorded one broke."""
    got = await ask(model_client, f"vllm-{name}")
    recorded = transcripts.load(name)
    assert [e["type"] for e in got.events] == [e["type"] for e in recorded.events()]
    assert got.events[0]["response"]["model"] == f"vllm-{name}"
    assert got.clean != recorded.cut


async def test_a_recording_refuses_what_its_release_refused(
    model_client: aiohttp.ClientSession,
) -> None:
    """The same item: a leak in 0.28, a clean 400 in 0.32; `demo` behind the same checks."""
    item = [{"type": "mcp_call", "id": "m", "server_label": "s", "name": "t", "arguments": "{}"}]
    assert (await ask(model_client, "vllm-0.28.0/text", input=item)).status == 500
    assert (await ask(model_client, "vllm-0.32.0/text", input=item)).status == 400
    assert (await ask(model_client, "vllm-0.28.0/demo", input=item)).status == 500
    assert (await ask(model_client, "vllm-0.28.0/demo")).status == 200
    assert (await ask(model_client, "vllm-0.28.0/no_such_scenario")).status == 404


async def test_a_strict_model_is_of_one_release(tmp_path: Path) -> None:
    """On a unix socket, for a change."""
    path = tmp_path / "model.sock"
    connector = aiohttp.UnixConnector(str(path))
    async with (
        ScriptedModel(unix_socket=path, release="0.16.0"),
        aiohttp.ClientSession("http://model", connector=connector) as model_client,
    ):
        no_id = [{"type": "reasoning", "summary": []}]
        assert (await ask(model_client, input=no_id)).status == 400
        async with model_client.get("/version") as response:
            assert await response.json() == {"version": "0.16.0"}


async def test_a_request_is_recorded_as_it_arrived(
    model_client: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    """Method, path, headers, bytes and JSON; and it can be waited for."""
    waiting = asyncio.create_task(model.next_request(timeout=5))
    await ask(model_client, "m", headers={"x-a": "b"})
    received = await waiting
    assert model.requests == [received]
    assert (received.method, received.path, received.headers["x-a"]) == ("POST", RESPONSES, "b")
    assert received.json["model"] == json.loads(received.body)["model"] == "m"
    await received.wait_over()
    assert not received.aborted.is_set()


async def test_waiting_for_a_request_that_never_comes_times_out(model: ScriptedModel) -> None:
    """A deadline, not a hang."""
    with pytest.raises(TimeoutError):
        await model.next_request(timeout=0.01)


@pytest.mark.parametrize("sent", [0, 4], ids=["before the status", "mid-stream"])
async def test_a_client_that_goes_away_in_a_silence_is_noticed(
    model_client: aiohttp.ClientSession, model: ScriptedModel, sent: int
) -> None:
    """`aborted` is set although nothing is being written."""
    silence = Hold(asyncio.Event())
    model.script(Script(HELLO[:sent], silence) if sent else Script(silence))
    asking = asyncio.create_task(ask(model_client))
    received = await model.next_request()
    asking.cancel()
    await received.wait_aborted(timeout=5)
    await received.wait_over(timeout=5)


async def test_a_client_that_goes_away_from_an_endless_stream_is_noticed(
    model_client: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    """The writes end, long before their count."""
    model.script(Script(replies.endless(10_000_000)))
    async with model_client.post(RESPONSES, json={"input": "hi", "stream": True}) as response:
        await response.content.readany()
        received = await model.next_request()
        response.close()
    await received.wait_aborted(timeout=5)


async def test_a_broken_script_is_reported_when_the_model_closes() -> None:
    """To the code under test it looked like a 500; the test shall not have to guess."""
    with pytest.raises(ValueError, match="no script is called 'typo'"):
        async with ScriptedModel() as model, aiohttp.ClientSession(model.url) as model_client:
            assert (await ask(model_client, "script/typo")).status == 500


async def test_other_paths_and_health_answer_like_a_server(
    model_client: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    """Health can be switched; what is not there is 404; a stored response never is there."""
    model.health_status = 503
    statuses = {}
    for path in ("/health", "/v1/models", "/v1/responses/resp_1", "/nothing"):
        async with model_client.get(path) as response:
            statuses[path] = response.status
    assert list(statuses.values()) == [503, 200, 404, 404]
