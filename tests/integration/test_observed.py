"""One response as an operator sees it: its trace, its log line, Envoy's access log."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from storage.postgres.embedded import EmbeddedPostgres
from tests.support.collector import Collector, Kept
from tests.support.fix_postgres import create_database
from tests.support.fix_stack import open_session
from tests.support.mcp_server import McpServer
from tests.support.mcp_turns import Turns, declared
from tests.support.replies import call, error_frame, say, stream, text
from tests.support.scraped import scrape
from tests.support.scripted_model import ScriptedModel
from tests.support.scripts import Hold, Script
from tests.support.stack import (
    API_KEY,
    CLIENT_KEY,
    Stack,
    eventually,
    running_stack,
    short_directory,
)
from tests.support.wire import Wire

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"
SPOKEN = "the-conversations-own-words"
COLLECTORS_KEY = "sk-of-the-collector"
SECRET = "sk-of-the-mcp-server"
# Spans leave every two seconds, access logs every second.
PATIENCE = 20.0


@pytest_asyncio.fixture(scope="module")
async def collector() -> AsyncIterator[Collector]:
    """Where the workers of this module send their traces."""
    async with Collector() as listening:
        yield listening


@pytest_asyncio.fixture(scope="module")
async def access_log() -> AsyncIterator[Path]:
    """Where Envoy writes what it served."""
    with short_directory() as directory:
        yield directory / "access.log"


@pytest_asyncio.fixture(scope="module")
async def observed(
    postgres_server: EmbeddedPostgres, stage: ScriptedModel, collector: Collector, access_log: Path
) -> AsyncIterator[Stack]:
    """A stack that is traced, with an access log, and that may reach servers on this machine."""
    async with running_stack(
        stage,
        await create_database(postgres_server),
        outbound={"allow_http": True, "networks": "127.0.0.0/8"},
        envoy={"access_log": str(access_log)},
        traces={"endpoint": collector.url, "headers": f"x-key={COLLECTORS_KEY}"},
    ) as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def observed_wire(observed: Stack) -> AsyncIterator[Wire]:
    """A plain client of it."""
    async with open_session(observed.url) as session:
        yield Wire(session)


async def test_what_is_seen_of_a_stream_with_two_calls_agrees(
    observed: Stack, observed_wire: Wire, collector: Collector, access_log: Path
) -> None:
    """Its trace, its log line, Envoy's line and the metrics agree on ids and tokens; no content (P5, X4)."""
    before = await scrape(observed.settings)
    turns = Turns(
        observed,
        say(call("echo", json.dumps({"text": SPOKEN})), call("add", '{"a": 1, "b": 2}')),
        say(text(SPOKEN)),
    )
    async with McpServer() as server:
        tools = [declared(server.url, authorization=SECRET)]
        async with observed_wire.open(
            input=SPOKEN, model="m", tools=tools, headers={"traceparent": TRACEPARENT}
        ) as reading:
            await reading.rest()
        response = reading.ending["response"]
        request_id = reading.headers["x-request-id"]
        told_to_tools = [h["traceparent"] for h in server.headers if "traceparent" in h]
        bodies = server.bodies

    assert response["status"] == "completed"
    await eventually(lambda: _of(collector, response["id"]), PATIENCE)
    assert collector.edges(TRACE) == [
        "- > response (server)",
        "response > accept (internal)",
        "response > chat m (client)",
        "response > chat m (client)",
        "response > execute_tool add (internal)",
        "response > execute_tool echo (internal)",
        "response > list tools (internal)",
        "response > load history (internal)",
        "response > save (internal)",
    ]
    [root] = _of(collector, response["id"])
    assert (root.trace_id, root.parent, root.failed) == (TRACE, CALLER, False)
    assert root.resource["service.name"] == "holdfast"
    spans = {span.id: span for span in collector.trace(TRACE)}

    # Every turn and every call is told which span it belongs to.
    turns_told = [received.headers["traceparent"] for received in turns.asked]
    assert [_span_of(spans, told).name for told in turns_told] == ["chat m", "chat m"]
    tools_told = sorted(_span_of(spans, told).name for told in told_to_tools)
    assert tools_told == ["execute_tool add", "execute_tool echo"]
    assert all(any(told.encode() in body for body in bodies) for told in told_to_tools)

    # One line of the worker's, one of Envoy's, one trace: the same ids and the same tokens.
    line = await _line(observed, response["id"])
    entry = await _entry(access_log, response["id"])
    usage = response["usage"]
    tokens = {
        "input_tokens": usage["input_tokens"],
        "cached_tokens": usage["input_tokens_details"]["cached_tokens"],
        "output_tokens": usage["output_tokens"],
        "total_tokens": usage["total_tokens"],
    }
    same = {
        **tokens,
        "response_id": response["id"],
        "trace_id": TRACE,
        "model": "m",
        "tenant": "default",
        "turns": 2,
        "tool_calls": 2,
        "request_id": request_id,
        "status": "completed",
    }
    assert line.items() >= same.items()
    assert entry.items() >= same.items()
    assert (entry["operation"], entry["code"], entry["method"]) == ("create", 200, "POST")
    assert root.attributes["gen_ai.response.id"] == response["id"]
    assert root.attributes["gen_ai.usage.input_tokens"] == tokens["input_tokens"]
    assert root.attributes["gen_ai.usage.output_tokens"] == tokens["output_tokens"]
    assert line["client_gone"] is False
    assert 0 < line["ttft_ms"] <= line["duration_ms"]
    assert 0 < line["commit_ms"] <= line["duration_ms"]
    assert line["bytes"] > 0

    # Metrics have no ids, and the same tokens: this response is all that has been since.
    async def counted() -> bool:
        now = await scrape(observed.settings)
        return now.total("holdfast_streams_total") > before.total("holdfast_streams_total")

    await eventually(counted)
    now = await scrape(observed.settings)

    def since(name: str, **labels: str) -> float:
        return now.total(name, **labels) - before.total(name, **labels)

    for kind in ("input", "cached", "output"):
        assert since("holdfast_tokens_total", type=kind) == tokens[f"{kind}_tokens"]
    assert since("holdfast_responses_total", status="completed", mode="stream") == 1
    assert since("holdfast_response_turns_sum") == same["turns"]
    assert since("holdfast_tool_calls_total", kind="mcp", outcome="ok") == same["tool_calls"]
    seconds = since("gen_ai_server_time_to_first_token_seconds_sum")
    assert abs(seconds * 1000 - line["ttft_ms"]) < 1

    # Nothing of what was said, and nobody's key.
    assert collector.metadata[0]["x-key"] == COLLECTORS_KEY
    served = json.dumps(_entries(access_log))
    everything = b"".join(collector.raw) + (served + "".join(observed.said)).encode()
    for secret in (SPOKEN, SECRET, API_KEY, CLIENT_KEY, COLLECTORS_KEY, "Bearer"):
        assert secret.encode() not in everything


async def test_a_server_that_repeats_what_it_was_sent_brings_it_into_no_log(
    observed: Stack, observed_wire: Wire, collector: Collector
) -> None:
    """P5: what failed is logged by its class and code; the message is for the client alone."""
    failing = Script(error_frame(f"cannot read '{SPOKEN}'"))
    model = observed.plays(failing, failing)
    seen = await observed_wire.create(model=model, input=SPOKEN)
    response = seen.response
    assert SPOKEN in response["error"]["message"]

    line = await _line(observed, response["id"])
    assert (line["status"], line["error"]) == ("failed", response["error"]["code"])
    [again] = [said for said in observed.said if "asked for again" in said]
    assert "UpstreamFailed (502 server_error)" in again
    await eventually(lambda: _of(collector, response["id"]), PATIENCE)
    assert SPOKEN.encode() not in b"".join(collector.raw) + "".join(observed.said).encode()


async def test_envoys_log_tells_whose_each_request_was_and_what_became_of_it(
    observed_wire: Wire, access_log: Path
) -> None:
    """Also where no response was made; what was refused has its code, and no query is in it."""
    seen = await observed_wire.create(input=SPOKEN, previous_response_id="resp_" + SPOKEN)
    assert seen.status == 400
    await observed_wire.ask("GET", "/v1/responses?model=" + SPOKEN)

    entry = await _request(access_log, seen.headers["x-request-id"])
    assert (entry["operation"], entry["tenant"], entry["code"]) == ("create", "default", 400)
    assert "response_id" not in entry
    await eventually(lambda: [e for e in _entries(access_log) if e.get("operation") == "list"])
    [listed] = [e for e in _entries(access_log) if e.get("operation") == "list"]
    assert (listed["path"], listed["tenant"]) == ("/v1/responses", "default")


async def test_a_stuck_stream_is_looked_at_while_it_runs(
    observed: Stack, observed_wire: Wire
) -> None:
    """`holdfast debug` finds it at whichever worker it runs; nothing is restarted and nothing is said."""
    gate = asyncio.Event()
    answer = stream(text(SPOKEN, SPOKEN))
    model = observed.plays(Script(answer[:5], Hold(gate), answer[5:]))
    async with observed_wire.open(model=model, input=SPOKEN) as reading:
        created = await reading.until("response.created")
        await reading.until("response.output_text.delta")
        debug = await _debug(observed, created["response"]["id"])
        assert debug.stdout is not None
        async with asyncio.timeout(PATIENCE):
            first = json.loads(await debug.stdout.readline())
        gate.set()
        async with asyncio.timeout(PATIENCE):
            rest = (await debug.stdout.read()).decode().splitlines()
            assert await debug.wait() == 0
        await reading.rest()

    assert (first["phase"], first["response_id"]) == ("streaming", created["response"]["id"])
    shown = [json.loads(line) for line in rest]
    assert shown[0]["doing"] == f"chat {model}"
    assert (shown[-1]["ended"], shown[-1]["status"]) == (True, "completed")
    assert SPOKEN not in str([first, *shown])


async def test_what_does_not_run_here_is_said_not_to(observed: Stack) -> None:
    """Exit status 1, and where to look."""
    debug = await _debug(observed, "resp_none")
    async with asyncio.timeout(PATIENCE):
        _, said = await debug.communicate()
    assert debug.returncode == 1
    assert b"resp_none does not run here" in said
    sockets = [observed.settings.debug_socket(index) for index in range(2)]
    assert [socket.stat().st_mode & 0o077 for socket in sockets] == [0, 0]


async def _debug(stack: Stack, response_id: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "extproc", "debug", response_id),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **stack.settings.environment()},
    )


async def _request(access_log: Path, request_id: str) -> dict[str, Any]:
    """Return Envoy's line of a request."""

    def found() -> list[dict[str, Any]]:
        return [e for e in _entries(access_log) if e.get("request_id") == request_id]

    await eventually(found, PATIENCE)
    [entry] = found()
    return entry


def _of(collector: Collector, response_id: str) -> list[Kept]:
    """Return the spans that tell of a whole response."""
    return [s for s in collector.spans if s.attributes.get("gen_ai.response.id") == response_id]


def _span_of(spans: dict[str, Kept], traceparent: str) -> Kept:
    """Return the span that a header names."""
    version, trace_id, span_id, flags = traceparent.split("-")
    assert (version, trace_id, flags) == ("00", TRACE, "01")
    return spans[span_id]


async def _line(stack: Stack, response_id: str) -> dict[str, Any]:
    """Return the one line that a worker writes at a response's end."""

    def found() -> list[dict[str, Any]]:
        said = [line[line.index("{") :] for line in stack.said if "response ended" in line]
        return [line for line in map(json.loads, said) if line["response_id"] == response_id]

    await eventually(found, PATIENCE)
    [line] = found()
    return line


def _entries(access_log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in access_log.read_text().splitlines()]


async def _entry(access_log: Path, response_id: str) -> dict[str, Any]:
    """Return Envoy's line of the request that made a response."""

    def found() -> list[dict[str, Any]]:
        return [e for e in _entries(access_log) if e.get("response_id") == response_id]

    await eventually(found, PATIENCE)
    [entry] = found()
    return entry
