"""Connectors through the real Envoy, two workers, real MCP servers and the official SDK (rules T5, X1-X4)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import openai
import pytest
import pytest_asyncio

from storage.postgres.embedded import EmbeddedPostgres
from tests.support.fix_postgres import create_database
from tests.support.fix_stack import open_session
from tests.support.mcp_server import McpServer
from tests.support.replies import call, say, text
from tests.support.scripted_model import ScriptedModel
from tests.support.scripts import Hold, Script
from tests.support.stack import CLIENT_KEY, Stack, eventually, running_stack, standalone_stack
from tests.support.trap import trap
from tests.support.wire import CONNECTORS, Wire

SECRET = "sk-of-a-tenants-connector"
HEADER = "value-of-a-tenants-header"
OPERATORS = "sk-of-the-operators-connector"
CALLS = say(call("echo", '{"text": "hey"}'))
DONE = say(text("done"))


@dataclass
class Bench:
    """A stack with a connector `shared` of the operator's, whose server is on this machine."""

    stack: Stack
    wire: Wire
    sdk: openai.AsyncOpenAI
    shared: McpServer

    def script(self, *scripts: Script) -> None:
        """Say what the next turns of the model are."""
        self.stack.model.script(*scripts)

    async def make(self, server: McpServer | str, **fields: Any) -> dict[str, Any]:
        """Register a connector by the SDK; a server is reached by a name that may be private."""
        url = server if isinstance(server, str) else named(server)
        body = {"server_label": f"l{uuid4().hex}", "server_url": url, **fields}
        made: Any = await self.sdk.post("/connectors", cast_to=object, body=body)
        return dict(made)

    async def stored(self) -> str:
        """Return all that the database has of connectors, runs and responses."""
        rows: list[Any] = []
        for table in ("connectors", "runs", "responses", "items", "events"):
            rows += await self.stack.sql(f"SELECT * FROM {table}")
        return "".join(v.decode() if isinstance(v, bytes) else str(v) for row in rows for v in row)


def named(server: McpServer) -> str:
    """Return a server's URL with a name for this machine, which the settings allow to be private."""
    return server.url.replace("127.0.0.1", "localhost")


def by_label(label: str, **fields: Any) -> Any:
    return [{"type": "mcp", "server_label": label, "require_approval": "never", **fields}]


@pytest_asyncio.fixture(scope="module")
async def bench(postgres_server: EmbeddedPostgres, stage: ScriptedModel) -> AsyncIterator[Bench]:
    async with McpServer() as shared:
        operators = {
            "label": "shared",
            "url": shared.url,
            "authorization": OPERATORS,
            "headers": {"x-team": "readers"},
            "networks": ["127.0.0.0/8"],
            "allowed_tools": ["echo", "add"],
        }
        async with (
            running_stack(
                stage,
                await create_database(postgres_server),
                tools={"list_seconds": 10.0},
                # By name alone: the address itself stays out of reach.
                outbound={"allow_http": True, "private_hosts": "localhost"},
                postgres={"lease_seconds": 2.0},
                connectors={"shared": json.dumps([operators])},
            ) as stack,
            open_session(stack.url) as session,
            openai.AsyncOpenAI(
                base_url=f"{stack.url}/v1", api_key=CLIENT_KEY, max_retries=0, timeout=30
            ) as sdk,
        ):
            yield Bench(stack, Wire(session), sdk, shared)


# -- the API -------------------------------------------------------------------------------------------


async def test_a_connector_is_made_changed_listed_and_removed(bench: Bench) -> None:
    """H2, P1: through whichever worker; what it shows is what was given, but for its secrets."""
    async with McpServer() as server:
        made = await bench.make(
            server,
            description="Customers",
            authorization=SECRET,
            headers={"X-Key": HEADER},
            allowed_tools=["echo"],
            require_approval="never",
            metadata={"team": "a"},
        )
        path = f"/connectors/{made['id']}"
        for _ in range(4):
            assert await bench.sdk.get(path, cast_to=object) == made
        assert {**made, "id": "", "created_at": 0, "server_label": ""} == {
            "id": "",
            "object": "connector",
            "created_at": 0,
            "source": "tenant",
            "server_label": "",
            "server_url": named(server),
            "description": "Customers",
            "allowed_tools": ["echo"],
            "require_approval": "never",
            "has_authorization": True,
            "header_names": ["X-Key"],
            "metadata": {"team": "a"},
        }
        changed: Any = await bench.sdk.post(
            path, cast_to=object, body={"description": None, "headers": {"x-other": HEADER}}
        )
        assert changed == {**made, "description": None, "header_names": ["x-other"]}
        listed: Any = await bench.sdk.get("/connectors", cast_to=object)
        assert listed["data"][0] == changed
        assert listed["data"][-1]["server_label"] == "shared"
        gone: Any = await bench.sdk.delete(path, cast_to=object)
        assert gone == {"id": made["id"], "object": "connector", "deleted": True}
        with pytest.raises(openai.NotFoundError):
            await bench.sdk.get(path, cast_to=object)


async def test_pages_hold_every_connector_once(bench: Bench) -> None:
    """H2: the operator's among them, in both orders."""
    made = [(await bench.make("https://mcp.example.com/"))["id"] for _ in range(3)]
    for order in ("asc", "desc"):
        seen: list[str] = []
        while True:
            after = f"&after={seen[-1]}" if seen else ""
            page = (await bench.wire.ask("GET", f"{CONNECTORS}?limit=2&order={order}{after}")).json
            seen += [each["id"] for each in page["data"]]
            assert (page["first_id"], page["last_id"]) == (seen[-len(page["data"])], seen[-1])
            if not page["has_more"]:
                break
        assert len(seen) == len(set(seen))
        assert seen[0 if order == "asc" else -1] == "conn_settings_shared"
        mine = [each for each in seen if each in made]
        assert mine == (made if order == "asc" else made[::-1])


async def test_the_tools_of_a_connector_are_listed_as_they_are_now(bench: Bench) -> None:
    """T5: those that requests may use; not from what was listed before."""
    async with McpServer() as server:
        made = await bench.make(server)
        path = f"/connectors/{made['id']}/tools"
        before: Any = await bench.sdk.get(path, cast_to=object)
        bench.script(say(call("grow", "{}")), DONE)
        await bench.sdk.responses.create(
            model="m", input="hi", tools=by_label(made["server_label"])
        )
        after: Any = await bench.sdk.get(path, cast_to=object)
    names = [{tool["name"] for tool in listed["data"]} for listed in (before, after)]
    assert names[1] - names[0] == {"grown"}
    assert {"name", "description", "input_schema", "annotations"} == before["data"][0].keys()
    shared: Any = await bench.sdk.get("/connectors/conn_settings_shared/tools", cast_to=object)
    assert {tool["name"] for tool in shared["data"]} == {"echo", "add"}


async def test_a_server_that_is_gone_is_told(bench: Bench) -> None:
    """R15: listing its tools is a 424; the connector stays."""
    async with McpServer() as server:
        made = await bench.make(server)
    answer = await bench.wire.ask("GET", f"{CONNECTORS}/{made['id']}/tools")
    assert (answer.status, answer.error["code"]) == (424, "tools_unavailable")


# -- in requests ---------------------------------------------------------------------------------------


# The SDK's type of `connector_id` knows OpenAI's own only; its stream warns of others.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("how", ["label", "id"])
async def test_a_response_uses_a_connector(bench: Bench, how: str) -> None:
    """T1, X4: its credentials reach its server and nothing else; the request is echoed as it was sent."""
    bench.script(CALLS, DONE)
    before = len(bench.stack.model.requests)
    async with McpServer() as server:
        made = await bench.make(server, authorization=SECRET, headers={"x-key": HEADER})
        label = made["server_label"] if how == "label" else "mine"
        tools = by_label(label, **({"connector_id": made["id"]} if how == "id" else {}))
        async with bench.sdk.responses.stream(model="m", input="hi", tools=tools) as stream:
            kinds = [event.type async for event in stream]
            response = await stream.get_final_response()
        sent = server.headers[-1]
        assert (sent["authorization"], sent["x-key"]) == (f"Bearer {SECRET}", HEADER)
    assert "response.mcp_call.completed" in kinds
    assert [item.type for item in response.output] == ["mcp_list_tools", "mcp_call", "message"]
    shown: Any = response.tools[0]
    assert (shown.server_label, shown.server_url) == (label, None)
    assert shown.connector_id == (made["id"] if how == "id" else None)
    seen = b"".join(each.body for each in bench.stack.model.requests[before:]).decode()
    everywhere = seen + response.model_dump_json() + await bench.stored()
    for secret in (SECRET, HEADER):
        assert secret not in everywhere
        assert not [line for line in bench.stack.said if secret in line]


async def test_the_clients_own_credentials_go_before_its_connectors(bench: Bench) -> None:
    """T5: as documented; what it does not name stays."""
    bench.script(DONE)
    async with McpServer() as server:
        made = await bench.make(server, authorization=SECRET, headers={"x-key": HEADER})
        tools = by_label(made["server_label"], authorization="own", headers={"X-More": "more"})
        await bench.sdk.responses.create(model="m", input="hi", tools=tools)
        sent = server.headers[-1]
    assert (sent["authorization"], sent["x-key"], sent["x-more"]) == ("Bearer own", HEADER, "more")


async def test_a_changed_connector_is_used_as_it_is_now(bench: Bench) -> None:
    """M1: by whichever worker."""
    async with McpServer() as one, McpServer() as two:
        made = await bench.make(one, authorization=SECRET)
        path, tools = f"{CONNECTORS}/{made['id']}", by_label(made["server_label"])
        stays = await bench.wire.ask("POST", path, json={"server_url": named(two)})
        assert (stays.status, stays.error["param"]) == (400, "server_url")
        moved = {"server_url": named(two), "authorization": "another"}
        assert (await bench.wire.ask("POST", path, json=moved)).status == 200
        for _ in range(3):
            bench.script(DONE)
            await bench.sdk.responses.create(model="m", input="hi", tools=tools)
        assert one.headers == []
        assert two.headers[-1]["authorization"] == "Bearer another"


async def test_what_is_no_connector_is_refused(bench: Bench) -> None:
    """H1: by label, by id, and one of OpenAI's own; no model is asked."""
    before = len(bench.stack.model.requests)
    for fields, param, code in (
        ({}, "tools[0].server_label", "connector_not_found"),
        ({"connector_id": "conn_x"}, "tools[0].connector_id", "connector_not_found"),
        ({"connector_id": "connector_gmail"}, "tools[0].connector_id", "unsupported_value"),
    ):
        for background in (False, True):
            seen = await bench.wire.create(
                model="m", background=background, tools=by_label("nobodys", **fields)
            )
            assert (seen.status, seen.error["param"], seen.error["code"]) == (400, param, code)
    assert len(bench.stack.model.requests) == before


# -- the operator's ------------------------------------------------------------------------------------


async def test_the_operators_connector_may_be_on_the_inside(bench: Bench) -> None:
    """X3, X4: by its label and by its id; its credentials are the gateway's affair."""
    for fields in ({}, {"connector_id": "conn_settings_shared"}, {"connector_id": "shared"}):
        bench.script(CALLS, DONE)
        tools = by_label("shared", headers={"x-more": "more"}, **fields)
        response = await bench.sdk.responses.create(model="m", input="hi", tools=tools)
        listed: Any = response.output[0]
        assert {tool.name for tool in listed.tools} == {"echo", "add"}
        sent = bench.shared.headers[-1]
        assert (sent["authorization"], sent["x-team"]) == (f"Bearer {OPERATORS}", "readers")
        assert sent["x-more"] == "more"
    shown = (await bench.wire.ask("GET", f"{CONNECTORS}/conn_settings_shared")).json
    assert (shown["source"], shown["server_url"]) == ("settings", None)
    assert OPERATORS not in json.dumps(shown) + "".join(bench.stack.said) + await bench.stored()
    assert bench.shared.url not in await bench.stored()


async def test_the_operators_connector_cannot_be_changed(bench: Bench) -> None:
    """X1, X4: not removed, not taken by its label, and what it sends is not replaced."""
    path = f"{CONNECTORS}/conn_settings_shared"
    for method, body in (("POST", {"description": "x"}), ("DELETE", None)):
        refused = await bench.wire.ask(method, path, json=body)
        assert (refused.status, refused.error["code"]) == (400, "connector_read_only")
    with pytest.raises(openai.BadRequestError) as taken:
        await bench.make("https://mcp.example.com/", server_label="shared")
    assert taken.value.param == "server_label"
    for fields, param in (
        ({"authorization": "own"}, "tools[0].authorization"),
        ({"headers": {"X-Team": "writers"}}, "tools[0].headers.x-team"),
        ({"headers": {"Authorization": "own"}}, "tools[0].headers.authorization"),
    ):
        seen = await bench.wire.create(model="m", tools=by_label("shared", **fields))
        assert (seen.status, seen.error["param"]) == (400, param)


async def test_a_tenants_connector_goes_through_the_whole_guard(bench: Bench) -> None:
    """X3: the operator's network is not the tenant's; when it is made, and when a name leads inside."""
    async with trap() as trapped:
        for host in ("127.0.0.1", "169.254.169.254", "2130706433", "[::ffff:127.0.0.1]"):
            url = f"https://{host}:{trapped.port}/mcp"
            body = {"server_label": "inside", "server_url": url}
            refused = await bench.wire.ask("POST", CONNECTORS, json=body)
            assert (refused.status, refused.error["code"]) == (400, "target_refused")
            assert refused.error["param"] == "server_url"
        direct = await bench.wire.create(
            model="m", tools=by_label("shared2", server_url=bench.shared.url)
        )
        assert (direct.status, direct.error["code"]) == (400, "target_refused")
        await trapped.assert_works_and_saw_nothing()


# -- another worker ------------------------------------------------------------------------------------


async def test_a_taken_over_run_has_its_credentials_again(bench: Bench) -> None:
    """P4, X4: kill -9; they are looked up, and no stored request ever held them."""
    never = Script(Hold(asyncio.Event()))
    before = len(bench.stack.model.requests)
    bench.script(CALLS, never, CALLS, DONE)
    model = "killed-with-connector"
    async with McpServer() as server:
        made = await bench.make(server, authorization=SECRET, headers={"x-key": HEADER})
        queued = await bench.wire.create(
            model=model, background=True, stream=False, tools=by_label(made["server_label"])
        )
        await eventually(lambda: len(bench.stack.model.requests) == before + 2)
        assert SECRET not in await bench.stored()
        known = len(server.headers)
        index = (await bench.stack.running_by_worker(model)).index(1)
        old = bench.stack.worker(index)
        os.kill(old, signal.SIGKILL)
        response = await ended(bench, queued.json["id"])
        await bench.stack.replaced(index, old)
        later = server.headers[known:]
        assert server.calls == ["echo", "echo"]
    assert response["status"] == "completed", response["error"]
    assert later
    assert {headers["authorization"] for headers in later} == {f"Bearer {SECRET}"}
    assert {headers["x-key"] for headers in later} == {HEADER}


async def test_a_run_whose_connector_is_removed_meanwhile_fails(bench: Bench) -> None:
    """P4: taken over, it says why; nothing is sent to its server any more."""
    never = Script(Hold(asyncio.Event()))
    before = len(bench.stack.model.requests)
    bench.script(CALLS, never, DONE)
    model = "killed-without-connector"
    async with McpServer() as server:
        made = await bench.make(server, authorization=SECRET)
        queued = await bench.wire.create(
            model=model, background=True, stream=False, tools=by_label(made["server_label"])
        )
        await eventually(lambda: len(bench.stack.model.requests) == before + 2)
        gone = await bench.wire.ask("DELETE", f"{CONNECTORS}/{made['id']}")
        assert gone.status == 200
        index = (await bench.stack.running_by_worker(model)).index(1)
        old = bench.stack.worker(index)
        os.kill(old, signal.SIGKILL)
        response = await ended(bench, queued.json["id"])
        await bench.stack.replaced(index, old)
    assert response["status"] == "failed"
    assert made["server_label"] in response["error"]["message"]


async def ended(bench: Bench, response_id: str) -> dict[str, Any]:
    """Wait for the end of a response in the background, whichever worker brings it about."""
    seen: list[Any] = []

    async def over() -> bool:
        answer = await bench.wire.get(response_id)
        if answer.status != 200 or not answer.clean:
            return False
        seen[:] = [answer.json]
        return seen[0]["status"] not in ("queued", "in_progress")

    await eventually(over, 60)
    return dict(seen[0])


# -- without a key -------------------------------------------------------------------------------------


async def test_without_a_key_no_secret_is_taken(
    postgres_server: EmbeddedPostgres, stage: ScriptedModel
) -> None:
    """H1, X4: workers alone, over HTTP: the error names the setting; without secrets it works."""
    async with (
        standalone_stack(stage, await create_database(postgres_server)) as stack,
        open_session(stack.url) as session,
    ):
        wire = Wire(session)
        body = {"server_label": "a", "server_url": "https://mcp.example.com/"}
        for param, secret in (("authorization", SECRET), ("headers", {"x-key": HEADER})):
            refused = await wire.ask("POST", CONNECTORS, json={**body, param: secret})
            assert (refused.status, refused.error["param"]) == (400, param)
            assert refused.error["code"] == "sealing_not_configured"
            assert "HOLDFAST_SEALING__KEYS" in refused.error["message"]
        assert (await wire.ask("POST", CONNECTORS, json=body)).status == 200
        assert SECRET not in "".join(stack.said)
