"""The demo model over real HTTP: routes, streams, refusals, and the process that `holdfast up` starts."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from extproc.demo.app import DemoModel
from tests.support.transcripts import event_of

TOOL = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


@pytest.fixture
async def demo() -> AsyncIterator[aiohttp.ClientSession]:
    """A client of a demo model in this process."""
    runner = web.AppRunner(DemoModel().app(), shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(10)) as client:
        yield client
    await runner.cleanup()


async def streamed(client: aiohttp.ClientSession, **body: Any) -> list[dict[str, Any]]:
    given = {"model": "any", "stream": True, **body}
    async with client.post("/v1/responses", json=given) as response:
        assert response.status == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        frames = (await response.read()).split(b"\n\n")[:-1]
    return [event_of(frame) for frame in frames]


async def refusal(client: aiohttp.ClientSession, path: str, **request: Any) -> tuple[int, Any]:
    async with client.post(path, **request) as response:
        return response.status, await response.json()


async def test_probes_are_answered_like_vllm_but_labelled_as_a_demo(
    demo: aiohttp.ClientSession,
) -> None:
    """Empty health, a version that says demo, a model list with a window."""
    async with demo.get("/health") as response:
        assert (response.status, await response.read()) == (200, b"")
    async with demo.get("/version") as response:
        assert "demo" in (await response.json())["version"]
    async with demo.get("/v1/models") as response:
        (model,) = (await response.json())["data"]
        assert model["owned_by"] == "holdfast-demo"
        assert model["max_model_len"] > 0


async def test_a_stream_ends_in_its_terminal_event_without_done(
    demo: aiohttp.ClientSession,
) -> None:
    """vLLM sends no [DONE] on this path."""
    events = await streamed(demo, input="hello you")
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["type"] == "response.completed"
    assert events[-1]["response"]["model"] == "any"
    deltas = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
    assert "".join(deltas) == "You said: hello you (turn 1)"
    assert len(deltas) == 6


async def test_a_whole_answer_equals_the_streamed_one(demo: aiohttp.ClientSession) -> None:
    """Same text, same usage, stream or not."""
    events = await streamed(demo, input="hi")
    async with demo.post("/v1/responses", json={"input": "hi"}) as response:
        whole = await response.json()
    terminal = events[-1]["response"]
    assert whole["usage"] == terminal["usage"]
    assert whole["output"][0]["content"] == terminal["output"][0]["content"]


async def test_a_tool_loop_runs_over_two_requests(demo: aiohttp.ClientSession) -> None:
    """A call, then its output quoted."""
    user = {"role": "user", "content": "get_weather please"}
    first = await streamed(demo, input=[user], tools=[TOOL])
    (call,) = first[-1]["response"]["output"]
    assert (call["type"], call["arguments"]) == ("function_call", '{"city": "city"}')
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "rain"}
    second = await streamed(demo, input=[user, call, output], tools=[TOOL])
    (message,) = second[-1]["response"]["output"]
    assert '"rain"' in message["content"][0]["text"]


async def test_a_token_limit_ends_incomplete(demo: aiohttp.ClientSession) -> None:
    """Three tokens and no more."""
    events = await streamed(demo, input="a b c d e", max_output_tokens=3)
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"]["usage"]["output_tokens"] == 3


async def test_a_chat_stream_ends_with_usage_and_done(demo: aiohttp.ClientSession) -> None:
    """Data lines only, the usage chunk, then [DONE]."""
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    async with demo.post("/v1/chat/completions", json=body) as response:
        frames = (await response.read()).split(b"\n\n")[:-1]
    assert frames[-1] == b"data: [DONE]"
    assert event_of(frames[-2])["usage"]["total_tokens"] > 0
    assert all(frame.startswith(b"data: ") for frame in frames)


async def test_refusals_have_the_body_of_vllm(demo: aiohttp.ClientSession) -> None:
    """A number as the code, whatever was wrong."""
    item = [{"type": "file_search_call", "id": "fs"}]
    requests: list[tuple[str, dict[str, Any], int]] = [
        ("/v1/responses", {"json": {"input": item}}, 400),
        ("/v1/responses", {"json": ["no", "object"]}, 400),
        ("/v1/responses", {"data": b"{", "headers": {"content-type": "application/json"}}, 400),
        ("/v1/responses", {"data": b"{}", "headers": {"content-type": "text/plain"}}, 400),
        ("/v1/responses", {"json": {"input": "hi", "previous_response_id": "resp_1"}}, 404),
        ("/v1/responses/resp_1/cancel", {}, 404),
        ("/v1/chat/completions", {"json": {}}, 400),
    ]
    for path, request, expected in requests:
        status, body = await refusal(demo, path, **request)
        assert (status, body["error"]["code"]) == (expected, expected)


async def test_the_module_serves_on_a_unix_socket_until_it_is_told_to_stop(tmp_path: Path) -> None:
    """`python -m extproc.demo --socket PATH`, as `holdfast up` starts it; SIGTERM is a clean exit."""
    path = tmp_path / "demo.sock"
    command = [sys.executable, "-m", "extproc.demo", "--socket", str(path), "--delay", "0.001"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        connector = aiohttp.UnixConnector(str(path))
        async with (
            asyncio.timeout(20),
            aiohttp.ClientSession("http://demo", connector=connector) as client,
        ):
            assert b"listening on" in await process.stdout.readline()
            events = await streamed(client, input="hi")
            assert events[-1]["type"] == "response.completed"
        process.terminate()
        async with asyncio.timeout(10):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
