"""Any sequence of operations does the same in memory and in Postgres, runs and logs included."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import AlreadyAccepted, EngineError
from engine.ports import (
    Answer,
    AskedApproval,
    Blob,
    Claim,
    ConversationPlace,
    EventBatch,
    Idempotency,
    Lease,
    NewFile,
    NewUpload,
    Order,
    Store,
    StoredConnector,
    ThreadPoint,
)
from storage.memory import MemoryStore
from storage.postgres.pool import open_pool
from storage.postgres.store import PostgresStore
from tests.support.fix_postgres import empty_tables, let_pass
from tests.support.retrieval_play import VectorStorePlay, told_of_vector_stores
from tests.support.stored import a_conversation, a_response, a_turn, an_end, an_item

_TENANTS = ("a", "b")
_ORDERS: tuple[Order, Order] = ("asc", "desc")
_OPERATIONS = (
    "accept", "accept", "accept", "queue", "queue", "keyed", "finish", "finish", "append", "append",
    "abandon", "delete", "renew", "answer", "answer", "take_over", "claim", "inherit", "release",
    "cancel", "wait", "remove_expired", "remove_tenant", "converse", "converse", "take_turn", "take_turn",
    "take_turn", "end_turn", "end_turn", "end_turn", "add", "add", "drop", "drop", "end_conversation",
    "connect", "connect", "reconnect", "disconnect", "store_file", "store_file", "let_go", "remove_file",
    "upload", "upload", "complete", "abort", "sweep", "collect", "collect", "uncollect", "label", "use",
    "store_file", "store_file", "begin", "attach", "attach", "attach", "detach", "cancel_batch", "ingest",
    "ingest", "ingest", "write", "write", "end_ingestion", "end_ingestion", "put_back", "renew_ingestion",
    "empty", "unindex", "drop_chunks",
)  # fmt: skip
_STEPS = st.lists(
    st.tuples(st.sampled_from(_OPERATIONS), st.integers(0, 15), st.integers(0, 3)),
    min_size=5,
    max_size=60,
)


class _Side:
    """One of the two stores, and what it calls the threads that the other calls otherwise."""

    def __init__(self, store: Store, wait: Callable[[float], Awaitable[None]]) -> None:
        self.store = store
        self.wait = wait
        self.number = 0

    async def point(self, tenant: str, name: str) -> ThreadPoint | None:
        found = await self.store.load_context(tenant, name)
        return None if found is None else found.end

    async def told(self, tenant: str, names: list[str]) -> list[Any]:
        """Return everything that can be seen of a tenant."""
        page = await self.store.list_responses(
            tenant, limit=99, after=None, order="asc", model=None
        )
        connectors = await self.store.list_connectors(tenant, limit=99, after=None, order="desc")
        seen: list[Any] = [page, connectors, await self.store.find_items(tenant, ["same", "in-0"])]
        seen.append(await self.store.find_approvals(tenant, ["ask-0", "ask-1", "ask-2"]))
        files = await self.store.list_files(tenant, limit=99, after=None, order="asc", purpose=None)
        seen.append([(file.id, file.size, file.filename) for file in files.files])
        for file in files.files:
            seen.append(await self.store.file_blobs(tenant, file.id))
        seen.append(await _dropped(self.store, tenant))
        seen.append(await told_of_vector_stores(self.store, tenant))
        for name in names:
            context = await self.store.load_context(tenant, name)
            seen.append(None if context is None else (context.status, context.items))
            seen.append(await self.store.read_events(tenant, name, after=1, limit=20))
        return seen

    async def told_of_conversations(self, tenant: str, names: list[str]) -> list[Any]:
        """Return everything that can be seen of a tenant's conversations."""
        page = await self.store.list_conversations(tenant, limit=99, after=None, order="desc")
        seen: list[Any] = [[(each.id, each.metadata) for each in page.conversations]]
        for name in names:
            context = await self.store.load_conversation(tenant, name)
            seen.append(None if context is None else (context.busy, context.items))
            for order in _ORDERS:
                seen.append(
                    await self.store.list_conversation_items(
                        tenant, name, limit=5, after=None, order=order
                    )
                )
            seen.append(await self.store.get_conversation_item(tenant, name, "same"))
        return seen


async def _dropped(store: Store, tenant: str) -> list[str]:
    return sorted(each.key for each in await store.dropped_blobs(limit=999, tenant=tenant))


class _Play(VectorStorePlay):
    """The same steps on one side; what they return is compared."""

    def __init__(self, side: _Side) -> None:
        super().__init__(side.store)
        self._side = side
        self.names: list[tuple[str, str]] = []
        self.leases: list[Lease] = []
        self.turns: list[Lease] = []
        self.conversations: list[tuple[str, str]] = []
        self._places: dict[tuple[str, str], ConversationPlace] = {}

    async def step(self, operation: str, which: int, count: int) -> Any:
        try:
            result = await getattr(self, f"_{operation}")(which, count)
        except AlreadyAccepted as error:
            return ("already", error.response_id, error.digest)
        except EngineError as error:
            return type(error).__name__
        if isinstance(result, list) and result and isinstance(result[0], Claim):
            self.leases += [claim.lease for claim in result]
        return result

    def _lease(self, which: int) -> Lease:
        return self.leases[-1 - which % len(self.leases)] if self.leases else Lease("a", "none", 1)

    def _name(self, which: int) -> tuple[str, str]:
        return self.names[-1 - which % len(self.names)] if self.names else ("a", "none")

    async def _accept(self, which: int, count: int, **more: Any) -> Lease:
        before = self._name(which)
        tenant = before[0] if count else _TENANTS[which % 2]
        name = f"r{len(self.names)}"
        self.names.append((tenant, name))
        point = await self._side.point(*before) if count else None
        items = [an_item(f"in-{number}") for number in range(count)]
        new = a_response(tenant, name, input=[*items, an_item("same")], after=point)
        kept = {"keep_seconds": (None, 50, 150)[which % 3], "worker": f"w/0#{which % 2}"}
        lease = await self._store.accept(msgspec.structs.replace(new, **kept, **more))
        self.leases.append(lease)
        return lease

    async def _queue(self, which: int, count: int) -> Lease:
        return await self._accept(which, count, queued=True, background=True, work=b"work")

    async def _keyed(self, which: int, count: int) -> Lease:
        key = Idempotency(f"key-{which % 3}", bytes([which]))
        return await self._accept(
            which, count, idempotency=key, streamed=True, events=EventBatch(0, 0, b"first")
        )

    async def _answer(self, which: int, count: int) -> Lease:
        answers = tuple(Answer(f"ask-{(which + n) % 3}", "input[0]") for n in range(1 + count % 2))
        return await self._accept(which, count, answers=answers)

    async def _finish(self, which: int, count: int) -> None:
        output = [an_item("same") for _ in range(count)]
        end = an_end(self._lease(which), output=output, events=EventBatch(9, 9, b"last"))
        asked = tuple(AskedApproval(f"ask-{(which + n) % 3}", b"for") for n in range(count))
        end = msgspec.structs.replace(end, asked=asked)
        await self._store.finish(end, again=which % 4 == 3)

    async def _append(self, which: int, count: int) -> None:
        await self._store.append(
            self._lease(which), EventBatch(1 + count, 1 + count, b"events" * 3)
        )

    async def _abandon(self, which: int, _count: int) -> None:
        await self._store.abandon(self._lease(which))

    async def _delete(self, which: int, _count: int) -> bool:
        return await self._store.delete(*self._name(which))

    async def _renew(self, which: int, count: int) -> list[Lease]:
        return await self._store.renew([self._lease(which + n) for n in range(count)], 70.0)

    async def _take_over(self, which: int, _count: int) -> list[Claim]:
        claims = await self._store.claim(f"w/1#{which}", 80.0, queued=0, expired=99)
        return sorted(claims, key=lambda claim: claim.lease.response_id)

    async def _claim(self, _which: int, count: int) -> list[Claim]:
        return await self._store.claim("w/2#1", 90.0, queued=count, expired=0)

    async def _inherit(self, which: int, _count: int) -> list[Claim]:
        claims = await self._store.inherit(f"w/0#{which % 2}", 60.0, limit=99)
        return sorted(claims, key=lambda claim: claim.lease.response_id)

    async def _release(self, which: int, _count: int) -> None:
        await self._store.release(self._lease(which))

    async def _cancel(self, which: int, _count: int) -> Any:
        asked = await self._store.ask_cancel(*self._name(which), "w/3#1", 60.0)
        told = [await self._store.cancelled(worker) for worker in ("w/0#0", "w/0#1", "w/2#1")]
        return asked, [sorted(leases, key=lambda lease: lease.response_id) for leases in told]

    async def _wait(self, _which: int, count: int) -> None:
        await self._side.wait(20.0 * (count + 1))

    async def _connect(self, which: int, count: int) -> None:
        new = StoredConnector(f"c{which}", f"label-{count}", b"{}", None, "1")
        if await self._store.get_connector(_TENANTS[which % 2], new.id) is None:
            await self._store.add_connector(_TENANTS[which % 2], new)

    async def _reconnect(self, which: int, count: int) -> bool:
        changed = StoredConnector(f"c{which}", f"label-{count}", b"[]", "sealed", str(count))
        return await self._store.replace_connector(_TENANTS[which % 2], changed, "1")

    async def _disconnect(self, which: int, _count: int) -> bool:
        return await self._store.delete_connector(_TENANTS[which % 2], f"c{which}")

    async def _announced(self, tenant: str, name: int) -> Blob:
        blob = Blob(f"{name:032x}", name, b"sha")
        await self._store.reserve_blob(tenant, blob.key, 400)
        return blob

    async def _store_file(self, which: int, count: int) -> bool:
        tenant, keep = _TENANTS[which % 2], (None, 50)[count % 2]
        new = NewFile(id=f"f{which}", purpose="p", filename="n", keep_seconds=keep)
        return (
            await self._store.add_file(tenant, new, await self._announced(tenant, which))
            is not None
        )

    async def _let_go(self, which: int, _count: int) -> None:
        await self._announced(_TENANTS[which % 2], which)
        await self._store.drop_blob(_TENANTS[which % 2], f"{which:032x}")

    async def _remove_file(self, which: int, _count: int) -> bool:
        return await self._store.delete_file(_TENANTS[which % 2], f"f{which}")

    async def _upload(self, which: int, count: int) -> bool:
        """Add a part to one of two uploads, which is made where it is not there."""
        tenant, name = _TENANTS[which % 2], f"up{count % 2}"
        if await self._store.get_upload(tenant, name) is None:
            new = NewUpload(
                id=name, size=9, purpose="p", filename="n", media_type="m", open_seconds=30
            )
            await self._store.add_upload(tenant, new)
        return await self._store.add_part(tenant, name, await self._announced(tenant, 100 + which))

    async def _complete(self, which: int, count: int) -> tuple[bool, str | None]:
        tenant, name = _TENANTS[which % 2], f"up{count % 2}"
        keys = [f"{number:032x}" for number in (106, 103, 100)]
        done = await self._store.complete_upload(tenant, name, f"file-of-{which}", keys)
        upload = await self._store.get_upload(tenant, name)
        return done, None if upload is None else upload.status

    async def _abort(self, which: int, count: int) -> bool:
        return await self._store.cancel_upload(_TENANTS[which % 2], f"up{count % 2}")

    async def _sweep(self, which: int, _count: int) -> int:
        tenant = _TENANTS[which % 2]
        await self._store.forget_blobs(tenant, await _dropped(self._store, tenant))
        return await self._store.remove_expired_files(limit=99)

    async def _remove_expired(self, _which: int, _count: int) -> int:
        return await self._store.remove_expired(limit=99)

    async def _remove_tenant(self, which: int, count: int) -> int:
        return await self._store.remove_tenant(_TENANTS[which % 2], limit=1 + 5 * count)

    def _conversation(self, which: int) -> tuple[str, str]:
        known = self.conversations
        return known[-1 - which % len(known)] if known else ("a", "none")

    async def _place(self, conversation: tuple[str, str], *, old: bool) -> ConversationPlace:
        """Return where a conversation stands, or stood when it was last asked for."""
        if not old or conversation not in self._places:
            found = await self._store.load_conversation(*conversation)
            nowhere = ConversationPlace("none", ThreadPoint("none", 0), "none")
            self._places[conversation] = nowhere if found is None else found.place
        return self._places[conversation]

    async def _converse(self, which: int, count: int) -> None:
        tenant, name = _TENANTS[which % 2], f"c{len(self.conversations)}"
        self.conversations.append((tenant, name))
        await a_conversation(self._store, tenant, name, "same", *(f"c-{n}" for n in range(count)))

    async def _take_turn(self, which: int, count: int) -> str:
        conversation = self._conversation(which)
        place = await self._place(conversation, old=count == 3)
        name = f"t{len(self.names)}"
        self.names.append((conversation[0], name))
        kept = (None, 50)[which % 2]
        new = a_turn(conversation[0], name, place, keep_seconds=kept)
        self.turns.append(await self._store.accept(new))
        self.leases.append(self.turns[-1])
        return name

    async def _end_turn(self, which: int, count: int) -> None:
        lease = self.turns[-1 - which % 2 % len(self.turns)] if self.turns else self._lease(which)
        output = [an_item("same") for _ in range(count)]
        end = an_end(lease, output=output)
        await self._store.finish(msgspec.structs.replace(end, joins=which % 3 > 0))

    async def _add(self, which: int, count: int) -> None:
        conversation = self._conversation(which)
        place = await self._place(conversation, old=count == 3)
        items = [an_item("same"), an_item(f"a-{which}")]
        await self._store.add_items(conversation[0], place, items)

    async def _drop(self, which: int, count: int) -> bool:
        item = ("same", "c-0", f"a-{which}", f"t{which}/in")[count]
        return await self._store.delete_conversation_item(*self._conversation(which), item)

    async def _end_conversation(self, which: int, _count: int) -> bool:
        return await self._store.delete_conversation(*self._conversation(which))


@pytest_asyncio.fixture
async def postgres(owned_database: str) -> AsyncIterator[_Side]:
    async def wait(seconds: float) -> None:
        await let_pass(owned_database, seconds)

    async with open_pool(owned_database, min_size=1, max_size=2) as pool:
        yield _Side(PostgresStore(pool), wait)


def _memory() -> _Side:
    now = 1_700_000_000.0

    async def wait(seconds: float) -> None:
        nonlocal now
        now += seconds

    return _Side(MemoryStore(lambda: now), wait)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
@given(steps=_STEPS)
async def test_both_stores_do_the_same(
    owned_database: str, postgres: _Side, steps: list[tuple[str, int, int]]
) -> None:
    """M2, M10, P4, P6, P7: every return, every error, and at the end everything that can be read."""
    await empty_tables(owned_database)
    memory = _memory()
    first, second = _Play(memory), _Play(postgres)
    for step in steps:
        assert await first.step(*step) == await second.step(*step), step
    for tenant in _TENANTS:
        names = [name for owner, name in first.names if owner == tenant]
        assert await memory.told(tenant, names) == await postgres.told(tenant, names)
        names = [name for owner, name in first.conversations if owner == tenant]
        of_memory = await memory.told_of_conversations(tenant, names)
        assert of_memory == await postgres.told_of_conversations(tenant, names)
