"""Connectors in memory."""

from __future__ import annotations

from engine.ports import ConnectorPage, Order, StoredConnector
from storage.limits import check_connector, label_taken
from storage.memory.pages import ordered, past


class MemoryConnectors:
    """`engine.ports.ConnectorStore` in memory."""

    def __init__(self) -> None:
        # By tenant and id, in order of creation.
        self._connectors: dict[str, dict[str, StoredConnector]] = {}

    async def add_connector(self, tenant: str, new: StoredConnector) -> None:
        """Keep a new connector; raises `InvalidRequest` if its label is taken."""
        check_connector(tenant, new)
        if await self.find_connector(tenant, new.label) is not None:
            raise label_taken(new.label)
        self._connectors.setdefault(tenant, {})[new.id] = new

    async def get_connector(self, tenant: str, connector_id: str) -> StoredConnector | None:
        """Return the connector, or None."""
        return self._connectors.get(tenant, {}).get(connector_id)

    async def find_connector(self, tenant: str, label: str) -> StoredConnector | None:
        """Return the connector that has this label, or None."""
        mine = self._connectors.get(tenant, {}).values()
        return next((each for each in mine if each.label == label), None)

    async def list_connectors(
        self, tenant: str, *, limit: int, after: str | None, order: Order
    ) -> ConnectorPage:
        """Return a page by creation; `InvalidRequest` (param `after`) for an unknown cursor."""
        found = ordered(list(self._connectors.get(tenant, {}).values()), order)
        found = past(found, [each.id for each in found], after)
        return ConnectorPage(found[:limit], has_more=len(found) > limit)

    async def replace_connector(self, tenant: str, changed: StoredConnector, before: str) -> bool:
        """Write a connector whose revision was `before`; False if it was changed meanwhile, or is gone."""
        check_connector(tenant, changed)
        mine = self._connectors.get(tenant, {})
        found = mine.get(changed.id)
        if found is None or found.revision not in (before, changed.revision):
            return False
        labelled = await self.find_connector(tenant, changed.label)
        if labelled is not None and labelled.id != changed.id:
            raise label_taken(changed.label)
        mine[changed.id] = changed
        return True

    async def delete_connector(self, tenant: str, connector_id: str) -> bool:
        """Remove the connector; True if there was one."""
        return self._connectors.get(tenant, {}).pop(connector_id, None) is not None

    def forget_connectors(self, tenant: str) -> None:
        """Remove all connectors of a tenant."""
        self._connectors.pop(tenant, None)
