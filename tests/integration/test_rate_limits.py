"""A budget of tokens for each tenant, kept by Envoy and a rate limit service (docs/rate-limits.md)."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from storage.postgres.embedded import EmbeddedPostgres
from tests.support.fix_postgres import create_database
from tests.support.rate_limits import RateLimitService
from tests.support.replies import say, text
from tests.support.scripted_model import ScriptedModel
from tests.support.stack import eventually, running_stack
from tests.support.tenants import speaking

BUDGET = 2
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "ratelimit.yaml"
OTHER = {"x-tenant": "b"}


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
            tenancy={
                "mode": "required",
                "source": "header",
                "header": "x-tenant",
                "header_from_gateway": True,
            },
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
        theirs = await others.create(model=stack.plays(say(text("four"))), stream=False)
        read = await mine.ask("GET", f"/v1/responses/{first.response['id']}")

        assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
        assert theirs.status == 200
        # What costs no tokens is not refused.
        assert read.status == 200
        await eventually(lambda: service.used["b"] == theirs.json["usage"]["total_tokens"])
        assert service.used["a"] == took
        # The example for the service that people run is for what Envoy asks.
        example = yaml.safe_load(EXAMPLE.read_text())
        assert {domain for domain, _, _ in service.asked} == {example["domain"]}
        assert {limit["key"] for limit in example["descriptors"]} == {"tenant"}
