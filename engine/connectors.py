"""Connectors as the API's operations on them: create, list, retrieve, update, delete, list their tools.

An extension of ours. The operator's connectors are in the lists, as the oldest, and cannot be changed.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.answers import Answer
from engine.api.connectors import Connector, parse_change, parse_connector, reached, read_fields
from engine.api.json import encode
from engine.api.lists import ListQuery, list_object, no_parameters, parse_list
from engine.api.mcp import Approval, McpTool, ToolFilter
from engine.errors import Conflict, InvalidRequest, NotFound, TargetRefused, ToolsUnavailable
from engine.ids import RANDOM_BYTES, connector_id
from engine.intake import Caller
from engine.ports import Clock, ConnectorStore, StoredConnector
from engine.registry import Registry
from engine.response.agenda import shown_tool
from engine.toolbox import OpenProvider, Toolbox

_REVISION_BYTES = 8

_Shown = list[tuple[str, bytes]]
"""Connectors: their ids and objects."""


class Connectors:
    """The operations on connectors.

    Providers of `open_anew` ask their servers, whatever was listed before; `tools` bounds how long they take.
    """

    def __init__(
        self,
        store: ConnectorStore,
        registry: Registry,
        *,
        open_provider: OpenProvider,
        open_anew: OpenProvider,
        tools: Toolbox,
        clock: Clock,
        randomness: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._registry = registry
        self._open_provider = open_provider
        self._open_anew = open_anew
        self._tools = tools
        self._clock = clock
        self._randomness = randomness

    async def create(self, caller: Caller, body: bytes, query: str) -> Answer:
        """`POST /v1/connectors`; SealingUnavailable where there are secrets and no key."""
        no_parameters(query)
        new_id = connector_id(self._randomness(RANDOM_BYTES))
        connector = parse_connector(body, new_id, self._clock())
        self._check(caller.tenant, connector)
        sealed = self._registry.seal(caller.tenant, connector)
        stored = self._stored(connector, sealed)
        await self._store.add_connector(caller.tenant, stored)
        return Answer(200, stored.fields)

    async def retrieve(self, caller: Caller, wanted: str, query: str) -> Answer:
        """`GET /v1/connectors/{id}`."""
        no_parameters(query)
        if (shared := self._registry.shared_by(wanted)) is not None:
            return Answer(200, shared.fields.encoded())
        return Answer(200, (await self._found(caller.tenant, wanted)).fields)

    async def update(self, caller: Caller, wanted: str, body: bytes, query: str) -> Answer:
        """`POST /v1/connectors/{id}`: what is left out stays, null removes."""
        no_parameters(query)
        self._check_own(wanted)
        tenant = caller.tenant
        before = await self._found(tenant, wanted)
        fields = read_fields(before.fields)
        connector, changed = parse_change(
            body,
            fields,
            lambda: self._registry.unseal(tenant, fields, before, "authorization"),
        )
        self._check(tenant, connector)
        sealed = self._registry.seal(tenant, connector) if changed else before.sealed
        stored = self._stored(connector, sealed)
        if not await self._store.replace_connector(tenant, stored, before.revision):
            raise Conflict("The connector was changed by somebody else meanwhile; try again.")
        return Answer(200, stored.fields)

    async def delete(self, caller: Caller, wanted: str, query: str) -> Answer:
        """`DELETE /v1/connectors/{id}`."""
        no_parameters(query)
        self._check_own(wanted)
        if not await self._store.delete_connector(caller.tenant, wanted):
            raise _not_found(wanted)
        return Answer(200, encode({"id": wanted, "object": "connector", "deleted": True}))

    async def list(self, caller: Caller, query: str) -> Answer:
        """`GET /v1/connectors`: by creation, newest first by default."""
        asked = parse_list(query, ("limit", "after", "order"))
        shown, has_more = await self._page(caller.tenant, asked)
        shown, has_more = shown[: asked.limit], has_more or len(shown) > asked.limit
        bodies, ids = [body for _, body in shown], [each for each, _ in shown]
        return Answer(200, list_object(bodies, ids, has_more=has_more))

    async def list_tools(self, caller: Caller, wanted: str, query: str) -> Answer:
        """`GET /v1/connectors/{id}/tools`: what its server offers now; TargetRefused, ToolsUnavailable."""
        no_parameters(query)
        connector = self._registry.shared_by(wanted)
        if connector is None:
            stored = await self._found(caller.tenant, wanted)
            connector = self._registry.opened(caller.tenant, stored, "id")
        provider = self._open_anew(_declared(connector), "connector", caller.tenant)
        [listing] = (await self._tools.list([provider])).listings
        if listing.error is not None:
            raise ToolsUnavailable(listing.error)
        names = [tool.name for tool in listing.tools]
        bodies = [encode(shown_tool(tool)) for tool in listing.tools]
        return Answer(200, list_object(bodies, names, has_more=False))

    async def _page(self, tenant: str, asked: ListQuery) -> tuple[_Shown, bool]:
        """Return a page, or more, and whether the store has more than is in it."""
        shared = [(c.fields.id, c.fields.encoded()) for c in self._registry.shared]
        places = {each: place for place, (each, _) in enumerate(shared)}
        if asked.order == "asc":
            if asked.after not in places and asked.after is not None:
                return await self._own(tenant, asked, asked.after)
            first = shared[places.get(asked.after or "", -1) + 1 :]
            own, more = await self._own(tenant, asked, None)
            return first + own, more
        if asked.after in places:
            return shared[: places[asked.after]][::-1], False
        own, more = await self._own(tenant, asked, asked.after)
        return (own, True) if more else (own + shared[::-1], False)

    async def _own(self, tenant: str, asked: ListQuery, after: str | None) -> tuple[_Shown, bool]:
        page = await self._store.list_connectors(
            tenant, limit=asked.limit, after=after, order=asked.order
        )
        return [(each.id, each.fields) for each in page.connectors], page.has_more

    async def _found(self, tenant: str, wanted: str) -> StoredConnector:
        stored = await self._store.get_connector(tenant, wanted)
        if stored is None:
            raise _not_found(wanted)
        return stored

    def _check(self, tenant: str, connector: Connector) -> None:
        """Refuse an operator's label, and a target that can be seen to lead inside (rule X3)."""
        label = connector.fields.server_label
        if self._registry.shared_by(label) is not None:
            raise InvalidRequest(
                f"The label '{label}' is that of a connector of the gateway's operator.",
                param="server_label",
                code="label_taken",
            )
        try:
            self._open_provider(_declared(connector), "connector", tenant)
        except TargetRefused as error:
            raise TargetRefused(error.message, param="server_url") from error

    def _check_own(self, wanted: str) -> None:
        if self._registry.shared_by(wanted) is not None:
            raise InvalidRequest(
                f"Connector '{wanted}' belongs to the gateway's operator and cannot be changed here.",
                param="id",
                code="connector_read_only",
            )

    def _stored(self, connector: Connector, sealed: str | None) -> StoredConnector:
        fields = connector.fields
        revision = self._randomness(_REVISION_BYTES).hex()
        return StoredConnector(fields.id, fields.server_label, fields.encoded(), sealed, revision)


def _declared(connector: Connector) -> McpTool:
    """Return the server of a connector as a request would declare it that says nothing else."""
    tool = McpTool(
        server_label=connector.fields.server_label,
        headers={},
        approval=Approval("never"),
        allowed=ToolFilter(),
    )
    return reached(tool, connector, "connector")


def _not_found(wanted: str) -> NotFound:
    return NotFound(f"Connector with id '{wanted}' not found.")
