"""`engine.connectors` and `engine.registry`: the operations, and what requests find (X1, X4)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.answers import Answer
from engine.api.connectors import Connector, ConnectorFields, Secrets
from engine.api.mcp import McpTool
from engine.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    SealingUnavailable,
    StorageUnavailable,
    TargetRefused,
    ToolsUnavailable,
)
from engine.intake import Caller
from engine.ports import StoredConnector, ToolProvider
from extproc.sealing import AesSealing, NoSealing
from tests.support import replies
from tests.support.engine_rig import CALLER, Rig
from tests.support.fake_model import FakeModel, frames_of
from tests.support.fake_tools import FakeProvider
from tests.support.faulty_store import FaultyStore
from tests.support.replies import text

HELLO = frames_of(replies.stream(text("Hel", "lo")))
URL = "https://mcp.example.com/x"
SECRET = "sk-secret"
OTHER = Caller("other")


class Servers:
    """Opens providers and keeps what they were opened for."""

    def __init__(self, *tools: str, broken: str | None = None) -> None:
        self.opened: list[McpTool] = []
        self._tools, self._broken = tools, broken

    def __call__(self, tool: McpTool, param: str, _tenant: str) -> ToolProvider:
        if "inside" in str(tool.server_url):
            raise TargetRefused("inside", param=f"{param}.server_url")
        self.opened.append(tool)
        return FakeProvider(tool.server_label, *self._tools, broken=self._broken)


def a_shared(label: str) -> Connector:
    """Return a connector of the operator's."""
    fields = ConnectorFields(
        id=f"conn_settings_{label}", created_at=0, source="settings", server_label=label,
        server_url=None,
    )  # fmt: skip
    return Connector(fields, URL, Secrets())


def a_rig(servers: Servers | None = None, **given: Any) -> Rig:
    return Rig(FakeModel(*HELLO), providers=servers or Servers(), **given)


def body(label: str = "crm", **fields: Any) -> bytes:
    return json.dumps({"server_label": label, "server_url": URL, **fields}).encode()


def read(answer: Answer) -> Any:
    assert answer.status == 200
    return json.loads(answer.body)


async def make(rig: Rig, label: str = "crm", caller: Caller = CALLER, **fields: Any) -> Any:
    return read(await rig.connectors.create(caller, body(label, **fields), ""))


async def ask(rig: Rig, *, background: bool = False, **server: Any) -> Any:
    """Send a request with one server; return its answer."""
    tool = {"type": "mcp", "require_approval": "never", **server}
    return (await rig.create(model="m", input="hi", tools=[tool], background=background)).json


async def test_secrets_are_sealed_for_their_tenant_connector_and_url() -> None:
    """X4: a row that is changed by hand opens nothing; the answer says what to do."""
    rig = a_rig()
    made = await make(rig, authorization=SECRET)
    stored = await rig.store.get_connector("default", made["id"])
    assert stored is not None
    assert stored.sealed is not None
    assert SECRET not in str(stored)
    moved = stored.fields.replace(URL.encode(), b"https://evil.example.com/")
    changed = StoredConnector(stored.id, stored.label, moved, stored.sealed, "2")
    await rig.store.replace_connector("default", changed, stored.revision)
    answer = await ask(rig, server_label="crm")
    assert answer["error"]["code"] == "connector_unreadable"
    assert answer["error"]["param"] == "tools[0].server_label"


async def test_a_lost_key_can_be_got_over() -> None:
    """X4: giving all credentials anew opens nothing of the old ones."""
    store = FaultyStore()
    made = await make(a_rig(store=store), authorization=SECRET)
    rig = a_rig(store=store, sealing=AesSealing([b"n" * 32]))
    with pytest.raises(InvalidRequest) as refused:
        await rig.connectors.update(CALLER, made["id"], b'{"headers":{"a":"b"}}', "")
    assert refused.value.code == "connector_unreadable"
    await rig.connectors.update(CALLER, made["id"], b'{"authorization":"new"}', "")
    assert (await ask(rig, server_label="crm"))["status"] == "completed"


async def test_without_a_key_a_connector_has_no_secrets() -> None:
    """H1: new or changed; one that has none can be made, changed and used."""
    servers = Servers()
    rig = a_rig(servers, sealing=NoSealing())
    made = await make(rig)
    for secret in ({"authorization": SECRET}, {"headers": {"a": SECRET}}):
        [param] = secret
        with pytest.raises(SealingUnavailable) as refused:
            await make(rig, "b", **secret)
        assert refused.value.param == param
        with pytest.raises(SealingUnavailable):
            await rig.connectors.update(CALLER, made["id"], json.dumps(secret).encode(), "")
    await rig.connectors.update(CALLER, made["id"], b'{"description":"x"}', "")
    assert (await ask(rig, server_label="crm"))["status"] == "completed"
    assert servers.opened[-1].server_url == URL


async def test_a_change_on_top_of_anothers_is_a_conflict() -> None:
    """M7: nobody's change is lost without a word."""

    class Overtaken(FaultyStore):
        async def replace_connector(
            self, tenant: str, changed: StoredConnector, before: str
        ) -> bool:
            await super().replace_connector(tenant, revised(changed, "meanwhile"), before)
            return await super().replace_connector(tenant, changed, before)

    rig = a_rig(store=Overtaken())
    made = await make(rig)
    with pytest.raises(Conflict):
        await rig.connectors.update(CALLER, made["id"], b'{"description":"x"}', "")


def revised(stored: StoredConnector, revision: str) -> StoredConnector:
    return StoredConnector(stored.id, stored.label, stored.fields, stored.sealed, revision)


async def test_what_is_anothers_is_not_there() -> None:
    """X1: every operation, and use by label and by id."""
    servers = Servers()
    rig = a_rig(servers)
    wanted = (await make(rig, caller=OTHER))["id"]
    connectors = rig.connectors
    for asked in (
        connectors.retrieve(CALLER, wanted, ""),
        connectors.update(CALLER, wanted, b"{}", ""),
        connectors.delete(CALLER, wanted, ""),
        connectors.list_tools(CALLER, wanted, ""),
    ):
        with pytest.raises(NotFound):
            await asked
    for server in ({"server_label": "crm"}, {"server_label": "s", "connector_id": wanted}):
        assert (await ask(rig, **server))["error"]["code"] == "connector_not_found"
    assert [tool.server_label for tool in servers.opened] == ["crm"]


async def test_a_target_on_the_inside_is_refused_when_it_is_made() -> None:
    """X3: and when it is changed."""
    rig = a_rig()
    inside = "https://inside/"
    with pytest.raises(TargetRefused) as refused:
        await make(rig, server_url=inside)
    assert refused.value.param == "server_url"
    made = await make(rig)
    change = json.dumps({"server_url": inside}).encode()
    with pytest.raises(TargetRefused):
        await rig.connectors.update(CALLER, made["id"], change, "")


async def test_tools_are_those_that_requests_may_use() -> None:
    """T5: in the form of `mcp_list_tools`; a server that cannot be asked is an error."""
    rig = a_rig(Servers("a", "b"))
    made = await make(rig)
    listed = read(await rig.connectors.list_tools(CALLER, made["id"], ""))
    assert [tool["name"] for tool in listed["data"]] == ["a", "b"]
    assert listed["data"][0]["input_schema"] == {"type": "object"}
    assert (listed["first_id"], listed["last_id"], listed["has_more"]) == ("a", "b", False)
    broken = a_rig(Servers(broken="It is gone."), store=rig.store)
    with pytest.raises(ToolsUnavailable, match="It is gone"):
        await broken.connectors.list_tools(CALLER, made["id"], "")


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 9])
async def test_pages_go_over_the_operators_and_the_tenants(order: str, limit: int) -> None:
    """H2: each once, the operator's as the oldest, and a page is full while there is more."""
    rig = a_rig(shared=[a_shared("one"), a_shared("two")])
    made = [(await make(rig, f"l{number}"))["id"] for number in range(3)]
    expected = ["conn_settings_one", "conn_settings_two", *made]
    seen: list[str] = []
    while True:
        after = f"&after={seen[-1]}" if seen else ""
        page = read(await rig.connectors.list(CALLER, f"limit={limit}&order={order}{after}"))
        seen += [each["id"] for each in page["data"]]
        if not page["has_more"]:
            break
        assert len(page["data"]) == limit
    assert seen == (expected if order == "asc" else expected[::-1])
    with pytest.raises(InvalidRequest) as refused:
        await rig.connectors.list(CALLER, f"order={order}&after=conn_x")
    assert refused.value.param == "after"


async def test_the_operators_go_before_a_tenants_own() -> None:
    """T5: a label that the settings take later; by its id the tenant's is still there."""
    servers, store = Servers(), FaultyStore()
    own = await make(a_rig(store=store))
    rig = a_rig(servers, store=store, shared=[a_shared("crm")])
    await ask(rig, server_label="crm")
    await ask(rig, server_label="crm", connector_id=own["id"])
    assert [tool.connector for tool in servers.opened] == ["conn_settings_crm", own["id"]]


async def test_a_store_that_is_away_is_a_503() -> None:
    """P2: requests without connectors do not ask it."""

    class Away(FaultyStore):
        async def find_connector(self, tenant: str, label: str) -> StoredConnector | None:
            raise StorageUnavailable("away")

    rig = a_rig(store=Away())
    assert (await ask(rig, server_label="s", server_url=URL))["status"] == "completed"
    assert (await ask(rig, server_label="s"))["error"]["code"] == "storage_unavailable"


async def test_the_clients_own_credentials_cannot_wait() -> None:
    """X4: a connector's can be looked up again, those of a request are not stored."""
    rig = a_rig()
    await make(rig, authorization=SECRET)
    refused = await ask(rig, server_label="crm", authorization="own", background=True)
    assert refused["error"]["param"] == "tools[0].authorization"
    assert (await ask(rig, server_label="crm", background=True))["status"] == "queued"
    [(_, run)] = rig.store._tenants.runs()
    assert SECRET.encode() not in run.work
