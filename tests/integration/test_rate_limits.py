"""A budget of tokens for each tenant, kept by Envoy and a rate limit service (docs/rate-limits.md)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml

from storage.postgres.embedded import EmbeddedPostgres
from tests.support.fix_postgres import create_database
from tests.support.mcp_server import McpServer
from tests.support.mcp_turns import Turns, declared
from tests.support.rate_limits import RateLimitService
from tests.support.replies import call, say, stream, text
from tests.support.scripted_model import ScriptedModel
from tests.support.scripts import Hold, Script
from tests.support.stack import eventually, running_stack
from tests.support.tenants import speaking

BUDGET = 2
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "ratelimit.yaml"
OTHER = {"x-tenant": "b"}
TENANCY = {
    "mode": "required",
    "source": "header",
    "header": "x-tenant",
    "header_from_gateway": True,
}


@pytest.mark.parametrize("inline", [False, True], ids=["relay", "inline"])
async def test_a_tenant_that_has_used_its_tokens_is_limited_and_another_is_not(
    postgres_server: EmbeddedPostgres, stage: ScriptedModel, *, inline: bool
) -> None:
    """What the sidecar counted of a stream is charged to its tenant, and to nobody else (X6)."""
    async with (
        RateLimitService(BUDGET) as service,
        running_stack(
            stage,
            await create_database(postgres_server),
            headers=OTHER,
            tenancy=TENANCY,
            envoy={"rate_limit_url": service.url, "inline": inline},
        ) as stack,
        speaking(stack, {"x-tenant": "a"}) as mine,
        speaking(stack, OTHER) as others,
    ):
        first = await mine.create(model=stack.plays(say(text("one two three"))), stream=True)
        took = first.response["usage"]["total_tokens"]
        assert took >= BUDGET
        # The charge follows the end of the exchange, which the client does not wait for.
        await eventually(lambda: service.used["a"] == took)

        refused = await mine.create(model="demo", stream=True)
        compact = await mine.ask("POST", "/v1/responses/compact", json={"model": "demo"})
        theirs = await others.create(model=stack.plays(say(text("four"))), stream=False)
        read = await mine.ask("GET", f"/v1/responses/{first.response['id']}")
        cancelled = await mine.ask("POST", f"/v1/responses/{first.response['id']}/cancel")
        counted = await mine.ask("POST", "/v1/responses/input_tokens", json={"input": "x"})

        assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
        assert compact.error["code"] == "rate_limit_exceeded"
        assert theirs.status == 200
        # What costs no tokens is not refused; these two have other reasons.
        assert read.status == 200
        assert cancelled.error["code"] == "response_not_in_background"
        assert counted.error["param"] == "model"
        await eventually(lambda: service.used["b"] == theirs.json["usage"]["total_tokens"])
        assert service.used["a"] == took
        # The example for the service that people run is for what Envoy asks.
        example = yaml.safe_load(EXAMPLE.read_text())
        assert {domain for domain, _, _ in service.asked} == {example["domain"]}
        assert {limit["key"] for limit in example["descriptors"]} == {"tenant"}


@pytest.mark.parametrize("inline", [False, True], ids=["relay", "inline"])
async def test_leaving_early_and_the_background_are_not_free(
    postgres_server: EmbeddedPostgres, stage: ScriptedModel, *, inline: bool
) -> None:
    """X6: each request costs something in advance; who leaves a stream pays for the turns before."""
    advance = 5
    async with (
        RateLimitService(1_000_000) as service,
        running_stack(
            stage,
            await create_database(postgres_server),
            headers=OTHER,
            tenancy=TENANCY,
            envoy={
                "rate_limit_url": service.url,
                "rate_limit_request_tokens": advance,
                "inline": inline,
            },
            outbound={"allow_http": True, "networks": "127.0.0.0/8"},
        ) as stack,
        speaking(stack, OTHER) as client,
        McpServer() as server,
    ):
        gate = asyncio.Event()
        answer = stream(text("a", "b", "c", "d"))
        turns = Turns(
            stack,
            say(call("add", '{"a": 1, "b": 2}'), input_tokens=700),
            Script(answer[:6], Hold(gate), answer[6:]),
        )
        async with client.open(model="m", tools=[declared(server.url)]) as reading:
            await reading.until("response.output_text.delta")
        await eventually(lambda: service.used["b"] >= advance + 700)
        gate.set()
        assert len(turns.asked) == 2
        left = service.used["b"]
        # The first turn with what it made, and no more: the second had not told its tokens.
        assert advance + 700 < left < advance + 720

        model = stack.plays(say(text("later"), input_tokens=700))
        queued = await client.create(model=model, background=True, stream=False)
        assert queued.json["status"] == "queued"
        assert service.used["b"] == left + advance

        summed = stack.plays(say(text("summary"), input_tokens=300))
        compacted = await client.ask(
            "POST", "/v1/responses/compact", json={"model": summed, "input": "x"}
        )
        took = compacted.json["usage"]["total_tokens"]
        assert took > 300
        await eventually(lambda: service.used["b"] == left + advance + advance + took)
