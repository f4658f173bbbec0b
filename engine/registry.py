"""Which connectors there are for a tenant: those of the operator, and its own; and servers reached by them.

Asked whenever a request names a connector, and again by a worker that takes a run over: credentials are
never in what is stored of a request, and so are looked up again (rule X4).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from engine.api import checks
from engine.api.connectors import (
    Connector,
    ConnectorFields,
    Secrets,
    reached,
    read_fields,
    read_secrets,
)
from engine.api.mcp import McpTool
from engine.api.request import CreateRequest
from engine.api.tools import Tool
from engine.errors import InvalidRequest, SealingUnavailable
from engine.ports import ConnectorStore, SealBroken, Sealing, StoredConnector

_log = logging.getLogger(__name__)

_OF_OPENAI = frozenset(
    (
        "connector_dropbox", "connector_gmail", "connector_googlecalendar", "connector_googledrive",
        "connector_microsoftteams", "connector_outlookcalendar", "connector_outlookemail",
        "connector_sharepoint",
    )
)  # fmt: skip


class Registry:
    """The connectors of all tenants; `shared` are the operator's, which go before a tenant's own."""

    def __init__(
        self, store: ConnectorStore, sealing: Sealing, shared: Sequence[Connector] = ()
    ) -> None:
        self._store = store
        self._sealing = sealing
        self.shared = tuple(shared)

    def shared_by(self, wanted: str) -> Connector | None:
        """Return the operator's connector that has this id or label."""
        return next(
            (each for each in self.shared if wanted in (each.fields.id, each.fields.server_label)),
            None,
        )

    async def resolved(self, request: CreateRequest, tenant: str) -> CreateRequest:
        """Return the request with every server that names a connector as it is reached by that.

        Raises InvalidRequest with `param` for a connector that there is not, StorageUnavailable.
        """
        if all(tool.server_url is not None for _, tool in request.servers):
            return request
        tools: list[Tool] = list(request.tools)
        for place, tool in enumerate(tools):
            if isinstance(tool, McpTool) and tool.server_url is None:
                tools[place] = await self._reached(tool, f"tools[{place}]", tenant)
        return msgspec.structs.replace(request, tools=tuple(tools))

    def opened(self, tenant: str, stored: StoredConnector, param: str) -> Connector:
        """Return a stored connector with its secrets; raises InvalidRequest where they do not open."""
        fields = read_fields(stored.fields)
        return Connector(
            fields, fields.server_url or "", self.unseal(tenant, fields, stored, param)
        )

    def seal(self, tenant: str, connector: Connector) -> str | None:
        """Return the secrets sealed, None if there are none; raises SealingUnavailable with `param`."""
        if not connector.secrets:
            return None
        try:
            return self._sealing.seal(
                tenant, _purpose(connector.fields), msgspec.json.encode(connector.secrets)
            )
        except SealingUnavailable as error:
            param = "authorization" if connector.secrets.authorization is not None else "headers"
            raise SealingUnavailable(error.message, param=param) from error

    def unseal(
        self, tenant: str, fields: ConnectorFields, stored: StoredConnector, param: str
    ) -> Secrets:
        """Return the secrets of a stored connector; raises InvalidRequest where they do not open."""
        if stored.sealed is None:
            return Secrets()
        try:
            return read_secrets(self._sealing.unseal(tenant, _purpose(fields), stored.sealed))
        except (SealBroken, SealingUnavailable) as error:
            _log.error("the credentials of %s do not open: %s", fields.id, error)
            raise InvalidRequest(
                f"The credentials of connector '{fields.server_label}' cannot be read any more: the "
                "gateway's key is another. Give them anew by an update of the connector.",
                param=param,
                code="connector_unreadable",
            ) from error

    async def _reached(self, tool: McpTool, param: str, tenant: str) -> McpTool:
        named = tool.connector_id
        found = self.shared_by(tool.server_label if named is None else named)
        if found is None:
            if named is None:
                stored = await self._store.find_connector(tenant, tool.server_label)
            else:
                stored = await self._store.get_connector(tenant, named)
            if stored is None:
                raise _unknown(tool, param)
            where = f"{param}.server_label" if named is None else f"{param}.connector_id"
            found = self.opened(tenant, stored, where)
        return reached(tool, found, param)


def _purpose(fields: ConnectorFields) -> str:
    """Bind credentials to their connector and URL: whoever can write rows cannot have them sent elsewhere."""
    return f"connector {fields.id} {fields.server_url}"


def _unknown(tool: McpTool, param: str) -> InvalidRequest:
    if tool.connector_id in _OF_OPENAI:
        return checks.unsupported(
            f"{param}.connector_id",
            f"'{tool.connector_id}' is run by OpenAI. Register an MCP server of your own at "
            "/v1/connectors, or give a 'server_url'.",
        )
    if tool.connector_id is not None:
        return InvalidRequest(
            f"There is no connector '{tool.connector_id}' here.",
            param=f"{param}.connector_id",
            code="connector_not_found",
        )
    return InvalidRequest(
        f"There is no connector with the label '{tool.server_label}' here, so '{param}.server_url' or "
        f"'{param}.connector_id' is needed.",
        param=f"{param}.server_label",
        code="connector_not_found",
    )
