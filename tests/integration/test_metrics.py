"""`/metrics` of a real stack: what was done is what is counted, also when a worker is killed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest_asyncio

from extproc.metrics.declared import BY_NAME, METRICS
from storage.postgres.embedded import EmbeddedPostgres
from tests.support import replies
from tests.support.embeddings_server import EmbeddingsServer
from tests.support.fix_postgres import create_database
from tests.support.fix_stack import open_session
from tests.support.mcp_server import McpServer
from tests.support.mcp_turns import Turns, declared
from tests.support.replies import call, say, text
from tests.support.retrieving import retrieving_stack
from tests.support.scraped import Scraped, scrape
from tests.support.scripted_model import ScriptedModel
from tests.support.scripts import Cut, Hold, Script
from tests.support.stack import CLIENT_KEY, Stack, eventually, running_stack
from tests.support.wire import Wire

BOARD = (Path(__file__).parents[2] / "deploy/dashboards/holdfast.json").read_text("utf-8")
MODEL = "gen_ai_request_model"
OK = {"operation": "create", "status": "2xx"}


@pytest_asyncio.fixture(scope="module")
async def counted(postgres_server: EmbeddedPostgres, stage: ScriptedModel) -> AsyncIterator[Stack]:
    """Two workers whose metrics nobody else touches, and who may reach this machine."""
    async with running_stack(
        stage,
        await create_database(postgres_server),
        outbound={"allow_http": True, "networks": "127.0.0.0/8"},
        postgres={"lease_seconds": 2.0},
    ) as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def counted_wire(counted: Stack) -> AsyncIterator[Wire]:
    """A plain client of it."""
    async with open_session(counted.url) as session:
        yield Wire(session)


class _Since:
    """Two scrapes, and what was counted between them."""

    def __init__(self, stack: Stack, before: Scraped) -> None:
        self._stack = stack
        self._before = before
        self.now = before

    async def counts(self, wanted: float, name: str, **labels: str) -> None:
        """Wait until so much was counted since, and no more.

        A request is counted just behind its answer, and a scrape reads one file after the other: what was
        counted first may come a scrape later.
        """

        async def reached() -> bool:
            self.now = await scrape(self._stack.settings)
            return self.of(name, **labels) >= wanted

        try:
            await eventually(reached)
        except TimeoutError:
            pass
        assert self.of(name, **labels) == wanted, (name, labels)

    def of(self, name: str, **labels: str) -> float:
        """Return what was counted since, as of the last scrape."""
        return self.now.total(name, **labels) - self._before.total(name, **labels)


async def _since(stack: Stack) -> _Since:
    return _Since(stack, await scrape(stack.settings))


async def test_what_was_done_is_what_is_counted(counted: Stack, counted_wire: Wire) -> None:
    """Requests, responses, turns, tool calls, tokens and streams, exactly."""
    since = await _since(counted)
    async with McpServer() as server:
        tools = [declared(server.url)]
        Turns(
            counted,
            say(call("echo", '{"text": "a"}'), input_tokens=11),
            say(text("d", "o", "ne"), input_tokens=20, cached_tokens=7),
        )
        seen = await counted_wire.create(model="m", tools=tools)
        assert seen.response["status"] == "completed"
        usage = seen.response["usage"]
    plain = counted.plays(say(text("hi"), input_tokens=2))
    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(counted_wire.create(model=plain, stream=False, store=False))
    refused = await counted_wire.create(model="m", temperature="hot")
    assert refused.status == 400

    await since.counts(11, "holdfast_requests_total", **OK)
    await since.counts(1, "holdfast_requests_total", operation="create", status="4xx")
    await since.counts(1, "holdfast_responses_total", status="completed", mode="stream")
    await since.counts(10, "holdfast_responses_total", status="completed", mode="whole")
    await since.counts(11, "holdfast_responses_total")
    await since.counts(12, "holdfast_request_duration_seconds_count", operation="create")
    await since.counts(12, "gen_ai_client_operation_duration_seconds_count", error_type="")
    await since.counts(12, "holdfast_response_turns_sum")
    await since.counts(11, "gen_ai_server_request_duration_seconds_count")
    await since.counts(11, "gen_ai_server_time_to_first_token_seconds_count")
    await since.counts(1, "holdfast_tool_calls_total", kind="mcp", outcome="ok")
    await since.counts(1, "holdfast_tool_call_duration_seconds_count", kind="mcp")
    await since.counts(1, "holdfast_streams_total")
    await since.counts(len(seen.raw), "holdfast_stream_bytes_total")
    spent = {
        "input": usage["input_tokens"],
        "cached": usage["input_tokens_details"]["cached_tokens"],
        "output": usage["output_tokens"],
        "reasoning": 0,
    }
    assert spent == {"input": 31, "cached": 7, "output": 4, "reasoning": 0}
    for kind, tokens in spent.items():
        await since.counts(tokens, "holdfast_tokens_total", type=kind, **{MODEL: "m"})
    await since.counts(20, "holdfast_tokens_total", type="input", **{MODEL: plain})
    asked = {"gen_ai_token_type": "output", MODEL: plain}
    await since.counts(10, "gen_ai_client_token_usage_sum", **asked)
    await since.counts(10, "gen_ai_client_token_usage_count", **asked)
    assert since.of("holdfast_commit_wait_seconds_count") >= 2


async def test_a_killed_worker_takes_nothing_back(counted: Stack, counted_wire: Wire) -> None:
    """P4: no counter goes backwards, its gauges are gone, the restart and the recovery are counted."""
    await _nothing_runs(counted)
    since = await _since(counted)
    quick = counted.plays(say(text("x"), input_tokens=4))
    for _ in range(8):
        await counted_wire.create(model=quick)
    held = counted.plays(
        Script(replies.stream(text("a", "b", "c", "d"))[:6], Hold(asyncio.Event()))
    )
    async with counted_wire.open(model=held) as stream:
        await stream.until("response.output_text.delta")
        await eventually(lambda: _gauge_is(counted, 1, "holdfast_runs", kind="foreground"))
        running = await counted.running_by_worker(held)
        victim = running.index(1)
        pid = counted.worker(victim)
        os.kill(pid, signal.SIGKILL)
        await counted.replaced(victim, pid)
    await since.counts(1, "holdfast_worker_restarts_total", reason="ended")
    await since.counts(0, "holdfast_runs")
    await since.counts(8, "holdfast_requests_total", **OK)
    await since.counts(1, "holdfast_recoveries_total")
    # Its client got no end from the worker that died; the one that took it over ended it.
    await since.counts(1, "holdfast_responses_total", status="failed", mode="stream")
    await since.counts(8, "holdfast_responses_total", status="completed")
    await since.counts(32, "holdfast_tokens_total", type="input", **{MODEL: quick})
    for _ in range(8):
        await counted_wire.create(model=quick)
    await since.counts(16, "holdfast_requests_total", **OK)
    await since.counts(64, "holdfast_tokens_total", type="input", **{MODEL: quick})
    assert since.now.value("holdfast_workers", state="running") == 2


async def test_the_background_and_its_queue(counted: Stack, counted_wire: Wire) -> None:
    """What is queued, waits and is taken is counted once, in whichever worker."""
    since = await _since(counted)
    model = counted.plays(say(text("a", "b"), input_tokens=3))
    for _ in range(3):
        seen = await counted_wire.create(model=model, background=True, stream=False)
        assert seen.json["status"] == "queued"
    await since.counts(3, "holdfast_responses_total", status="completed", mode="background")
    await since.counts(3, "holdfast_queued_total")
    await since.counts(3, "holdfast_queue_wait_seconds_count")
    await since.counts(6, "holdfast_tokens_total", type="output", **{MODEL: model})
    assert since.of("holdfast_recoveries_total") == 0
    assert since.of("gen_ai_server_time_to_first_token_seconds_count") == 0


async def test_quirks_and_failures_are_told_apart(counted: Stack, counted_wire: Wire) -> None:
    """R8: what had to be put right is counted by its kind, and a turn that failed by its error."""
    since = await _since(counted)
    said = '<tool_call>\n{"name": "look", "arguments": {"at": "it"}}\n</tool_call>'
    marked = counted.plays(say(text(said)))
    look = {"type": "function", "name": "look", "parameters": {"type": "object"}}
    seen = await counted_wire.create(model=marked, tools=[look])
    assert [item["type"] for item in seen.response["output"]] == ["function_call"]
    await since.counts(1, "holdfast_backend_quirks_total", kind="markup_in_text")

    cut = counted.plays(Script(replies.stream(text("a", "b"))[:5]))
    seen = await counted_wire.create(model=cut)
    assert seen.response["status"] == "failed"
    await since.counts(1, "holdfast_backend_quirks_total", kind="stream_unfinished")
    await since.counts(1, "holdfast_responses_total", status="failed", mode="stream")
    name = "gen_ai_client_operation_duration_seconds_count"
    await since.counts(1, name, error_type="UpstreamFailed")


async def test_files_searches_and_embeddings(
    postgres_server: EmbeddedPostgres, stage: ScriptedModel
) -> None:
    """A file that is ingested and one that cannot be, and one search."""
    async with (
        EmbeddingsServer(dimensions=64) as server,
        retrieving_stack(stage, await create_database(postgres_server), server) as stack,
        openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key=CLIENT_KEY, max_retries=0) as sdk,
    ):
        since = await _since(stack)
        made = await sdk.vector_stores.create(name="v")
        ends = []
        for name, content in (("good.txt", b"Some words."), ("bad.pdf", b"%PDF-1.7 cut")):
            file = await sdk.files.create(file=(name, content), purpose="assistants")
            done = await sdk.vector_stores.files.create_and_poll(
                file.id, vector_store_id=made.id, poll_interval_ms=100
            )
            ends.append(done.status)
        assert ends == ["completed", "failed"]
        await sdk.vector_stores.search(made.id, query="words")

        await since.counts(1, "holdfast_ingestion_files_total", outcome="completed")
        await since.counts(1, "holdfast_ingestion_files_total", outcome="failed")
        await since.counts(1, "holdfast_searches_total", outcome="ok")
        await since.counts(1, "holdfast_ingestion_chunks_total")
        await since.counts(2, "holdfast_ingestion_duration_seconds_count")
        await since.counts(2, "holdfast_embeddings_total", outcome="ok")


async def test_the_endpoint_says_what_is_declared(counted: Stack, counted_wire: Wire) -> None:
    """Each family that is served is declared: its type, its meaning, its labels; nothing has an id."""
    await counted_wire.create(model=counted.plays(say(text("x"))))
    scraped = await scrape(counted.settings)
    families = {metric.family: metric for metric in METRICS}
    served = {family.name: family for family in scraped.families}
    assert set(served) <= set(families)
    for name, family in served.items():
        metric = families[name]
        assert (family.type, family.documentation) == (metric.kind, metric.meaning)
        for sample in family.samples:
            assert sample.name in metric.samples
            given = {key: value for key, value in sample.labels.items() if key != "le"}
            assert set(given) == set(metric.labels)
            for key, value in given.items():
                allowed = metric.labels[key]
                assert value in allowed if allowed is not None else "resp_" not in value
    never = {metric.name for metric in METRICS if metric.family not in served}
    assert all(None in BY_NAME[name].labels.values() for name in never), never


async def test_envoys_own_metrics_are_at_hand(counted: Stack, counted_wire: Wire) -> None:
    """What the dashboard shows of Envoy is what this Envoy says, under the names that it uses."""
    cut = counted.plays(Script(Cut()), say(text("x")))
    await counted_wire.create(model=cut)
    scraped = await scrape(counted.settings, "/metrics/envoy")
    # The parser gives counters the suffix that Envoy's do not have.
    samples = [sample for family in scraped.families for sample in family.samples]
    said = {sample.name.removesuffix("_total") for sample in samples}
    shown = set(re.findall(r"\benvoy_(?:http|cluster)_\w+(?=[{\[]|\)\"|\)\n)", BOARD))
    assert shown - said <= {"envoy_http_ext_proc_streams_failed"}
    assert len(shown) == 6
    assert scraped.total("envoy_cluster_membership_healthy", envoy_cluster_name="sidecar") == 2


async def _gauge_is(stack: Stack, wanted: float, name: str, **labels: str) -> bool:
    return (await scrape(stack.settings)).total(name, **labels) == wanted


async def _nothing_runs(stack: Stack) -> None:
    await eventually(lambda: _gauge_is(stack, 0, "holdfast_runs"))
