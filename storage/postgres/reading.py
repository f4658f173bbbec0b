"""What is read of responses: each operation is one statement and one round trip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg.types.numeric import Int8

from engine.ports import (
    Context,
    Order,
    Page,
    ReplayItem,
    ResponsePage,
    StoredItem,
    StoredResponse,
    ThreadPoint,
)
from storage.limits import Reads, too_long, unknown_cursor, wanted
from storage.postgres import queries
from storage.postgres.pool import Connection, Pool
from storage.postgres.scope import Row, Statement, key, rows_of

_SQL = queries.load("reading.sql")


class Reading:
    """The reading part of `engine.ports.ResponseStore`."""

    def __init__(self, pool: Pool, reads: Reads) -> None:
        self._pool = pool
        self._reads = reads

    async def load_context(self, tenant: str, response_id: str) -> Context | None:
        """Return the history that ends with the response; None if the tenant has no such id."""
        values = {**key(tenant, response_id), "most": Int8(self._reads.context)}
        rows = await self._rows("load_context", values)
        if not rows:
            return None
        status, thread_id, position, root_id, *_ = rows[0]
        return Context(
            status=status,
            end=ThreadPoint(thread_id, position),
            root_id=root_id,
            items=[ReplayItem(*row[4:]) for row in rows if row[4] is not None],
        )

    async def get(self, tenant: str, response_id: str) -> StoredResponse | None:
        """Return the response, or None."""
        rows = await self._rows("get", key(tenant, response_id))
        return StoredResponse(*rows[0]) if rows else None

    async def list_responses(
        self, tenant: str, *, limit: int, after: str | None, order: Order, model: str | None
    ) -> ResponsePage:
        """Return a page by creation; `InvalidRequest` (param `after`) for an unknown cursor."""
        values = {
            "tenant": wanted(tenant),
            "model": None if model is None else wanted(model),
            "most": Int8(self._reads.page),
            **window(limit, after),
        }
        rows = await self._page(f"list_responses_{order}", values, after) or []
        page, has_more = whole(rows, limit)
        return ResponsePage([StoredResponse(*row) for row in page], has_more)

    async def list_input_items(
        self, tenant: str, response_id: str, *, limit: int, after: str | None, order: Order
    ) -> Page | None:
        """Return a page of the response's own input, or None if there is no such response.

        Raises `InvalidRequest` (param `after`) for an unknown cursor.
        """
        most = Int8(self._reads.page)
        values = {**key(tenant, response_id), "most": most, **window(limit, after)}
        rows = await self._page(f"list_input_items_{order}", values, after)
        return None if rows is None else items_of(rows, limit)

    async def find_items(self, tenant: str, item_ids: list[str]) -> dict[str, StoredItem]:
        """Return the newest stored item for each id that the tenant has (for `item_reference`)."""
        names = [wanted(item_id) for item_id in item_ids]
        most = Int8(self._reads.context)
        values = {"tenant": wanted(tenant), "item_ids": names, "most": most}
        rows = await self._rows("find_items", values) if item_ids else []
        return {row[0]: StoredItem(*row[:-1]) for row in self._bounded(rows)}

    async def read_items(
        self, tenant: str, end: ThreadPoint, positions: list[int]
    ) -> dict[int, StoredItem]:
        """Return those items of the history that ends at a point, by `ReplayItem.position`."""
        values = {
            "tenant": wanted(tenant),
            "thread": end.thread_id,
            "until": Int8(end.position),
            "positions": [Int8(position) for position in positions],
            "most": Int8(self._reads.context),
        }
        rows = await self._rows("read_items", values) if positions else []
        return {row[0]: StoredItem(*row[1:-1]) for row in self._bounded(rows)}

    def _bounded(self, rows: list[Row]) -> list[Row]:
        """Return rows that end with the size of all of them; raises InvalidRequest where it is too large."""
        if rows and rows[0][-1] > self._reads.context:
            raise too_long(int(rows[0][-1]), self._reads.context)
        return rows

    async def _rows(self, name: str, values: Mapping[str, Any]) -> list[Row]:
        statement = Statement(_SQL[name], values)

        async def work(connection: Connection, _attempt: int) -> list[Row]:
            [rows] = await rows_of(connection, statement)
            return rows

        return await self._pool.run(work)

    async def _page(
        self, name: str, values: Mapping[str, Any], after: str | None
    ) -> list[Row] | None:
        """Return the rows of a page without the column that says whether `after` is known."""
        return page_of(await self._rows(name, values), after)


def page_of(rows: list[Row], after: str | None) -> list[Row] | None:
    """Return rows without their first column, which says whether `after` is known; None if there are none."""
    if not rows:
        return None
    if after is not None and not rows[0][0]:
        raise unknown_cursor(after)
    return [row[1:] for row in rows if row[1] is not None]


def whole(rows: list[Row], limit: int) -> tuple[list[Row], bool]:
    """Return a page, and if there is more; the last column says how many rows were found, read or not."""
    page = [row[:-1] for row in rows[:limit]]
    return page, bool(rows) and rows[0][-1] > len(page)


def items_of(rows: list[Row], limit: int) -> Page:
    """Return the page that rows of ids and items are."""
    page, has_more = whole(rows, limit)
    return Page([item for _, item in page], [item_id for item_id, _ in page], has_more)


def window(limit: int, after: str | None) -> dict[str, Any]:
    """Ask for one more than the limit: it tells whether there is more."""
    return {"limit": Int8(limit + 1), "after": None if after is None else wanted(after)}
