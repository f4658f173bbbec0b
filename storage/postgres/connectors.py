"""Connectors in Postgres: each operation is one round trip, and can be repeated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.types.numeric import Int8

from engine.ports import ConnectorPage, Order, StoredConnector
from storage.limits import check_connector, label_taken, unknown_cursor, wanted
from storage.postgres import queries
from storage.postgres.pool import Connection, Pool
from storage.postgres.scope import Row, Statement, key, rows_of

_SQL = queries.load("connectors.sql")


class Connectors:
    """`engine.ports.ConnectorStore` over the table `connectors`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add_connector(self, tenant: str, new: StoredConnector) -> None:
        """Keep a new connector; raises `InvalidRequest` if its label is taken."""
        check_connector(tenant, new)
        values = _values(tenant, new)
        _, found = await self._connectors_do("add_connector", "find_connector", values=values)
        # It is ours too where an attempt whose answer was lost has added it.
        if not found or found[0][0] != new.id:
            raise label_taken(new.label)

    async def get_connector(self, tenant: str, connector_id: str) -> StoredConnector | None:
        """Return the connector, or None."""
        return await self._connector("get_connector", key(tenant, connector_id))

    async def find_connector(self, tenant: str, label: str) -> StoredConnector | None:
        """Return the connector that has this label, or None."""
        values = {"tenant": wanted(tenant), "label": wanted(label)}
        return await self._connector("find_connector", values)

    async def list_connectors(
        self, tenant: str, *, limit: int, after: str | None, order: Order
    ) -> ConnectorPage:
        """Return a page by creation; `InvalidRequest` (param `after`) for an unknown cursor."""
        values = {
            "tenant": wanted(tenant),
            "limit": Int8(limit + 1),
            "after": None if after is None else wanted(after),
        }
        [rows] = await self._connectors_do(f"list_connectors_{order}", values=values)
        if after is not None and not rows[0][0]:
            raise unknown_cursor(after)
        found = [StoredConnector(*row[1:]) for row in rows if row[1] is not None]
        return ConnectorPage(found[:limit], has_more=len(found) > limit)

    async def replace_connector(self, tenant: str, changed: StoredConnector, before: str) -> bool:
        """Write a connector whose revision was `before`; False if it was changed meanwhile, or is gone."""
        check_connector(tenant, changed)
        values = {**_values(tenant, changed), "before": before}
        try:
            [rows] = await self._connectors_do("replace_connector", values=values)
        except psycopg.errors.UniqueViolation:
            raise label_taken(changed.label) from None
        return bool(rows)

    async def delete_connector(self, tenant: str, connector_id: str) -> bool:
        """Remove the connector; True if there was one."""
        [rows] = await self._connectors_do("delete_connector", values=key(tenant, connector_id))
        return bool(rows)

    async def _connector(self, name: str, values: Mapping[str, Any]) -> StoredConnector | None:
        [rows] = await self._connectors_do(name, values=values)
        return StoredConnector(*rows[0]) if rows else None

    async def _connectors_do(self, *names: str, values: Mapping[str, Any]) -> list[list[Row]]:
        statements = [Statement(_SQL[name], values) for name in names]

        async def work(connection: Connection, _attempt: int) -> list[list[Row]]:
            return await rows_of(connection, *statements)

        return await self._pool.run(work)


def _values(tenant: str, connector: StoredConnector) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "id": connector.id,
        "label": connector.label,
        "fields": connector.fields,
        "sealed": connector.sealed,
        "revision": connector.revision,
    }
