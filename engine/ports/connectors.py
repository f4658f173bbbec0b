"""Connectors, as a port: MCP servers that a tenant has registered."""

from __future__ import annotations

from typing import Protocol

import msgspec

from engine.ports.records import Order


class StoredConnector(msgspec.Struct, frozen=True):
    """A connector of one tenant.

    `fields` is the JSON that the API shows; `sealed` what only the gateway may read, sealed (None: it has no
    secrets). `revision` is another after each change.
    """

    id: str
    label: str
    fields: bytes
    sealed: str | None
    revision: str


class ConnectorPage(msgspec.Struct, frozen=True):
    """One page of connectors, in the order asked for."""

    connectors: list[StoredConnector]
    has_more: bool


class ConnectorStore(Protocol):
    """The connectors of all tenants; every method raises `StorageUnavailable` like the others."""

    async def add_connector(self, tenant: str, new: StoredConnector) -> None:
        """Keep a new connector; raises `InvalidRequest` (param `server_label`) if its label is taken."""
        ...

    async def get_connector(self, tenant: str, connector_id: str) -> StoredConnector | None:
        """Return the connector, or None."""
        ...

    async def find_connector(self, tenant: str, label: str) -> StoredConnector | None:
        """Return the connector that has this label, or None."""
        ...

    async def list_connectors(
        self, tenant: str, *, limit: int, after: str | None, order: Order
    ) -> ConnectorPage:
        """Return a page by creation; `InvalidRequest` (param `after`) for an unknown cursor."""
        ...

    async def replace_connector(self, tenant: str, changed: StoredConnector, before: str) -> bool:
        """Write a connector whose revision was `before`; False if it was changed meanwhile, or is gone.

        Raises `InvalidRequest` (param `server_label`) if its label is another's.
        """
        ...

    async def delete_connector(self, tenant: str, connector_id: str) -> bool:
        """Remove the connector; True if there was one."""
        ...
