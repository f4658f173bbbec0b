"""Runs as a port: who runs what, the event logs, and what is removed when its time has come."""

from __future__ import annotations

from typing import Protocol

import msgspec

from engine.ports.records import CancelAsked, Claim, EventBatch, Lease, LoggedEvents


class Waiting(msgspec.Struct, frozen=True):
    """Responses in the background that nobody has taken yet; files of vector stores that are in progress."""

    responses: int
    files: int


class RunStore(Protocol):
    """Unfinished responses, each run by the worker that has its lease, or waiting in the queue.

    A worker's name is `<replica>/<index>#<life>`: what follows the `#` differs each time the worker is
    started, so that a new life can tell what its predecessor left. Times are the store's own. Every
    method raises `StorageUnavailable` when the store cannot do its work now.
    """

    # -- leases -----------------------------------------------------------------------------------

    async def renew(self, leases: list[Lease], lease_seconds: float) -> list[Lease]:
        """Prolong leases from now on; return those that are lost (taken over, finished or deleted)."""
        ...

    async def claim(
        self, worker: str, lease_seconds: float, *, queued: int, expired: int
    ) -> list[Claim]:
        """Take up to so many queued runs, and up to so many whose lease ran out.

        Queued runs are taken from the tenant that has the fewest running ones, the oldest first.
        Concurrent claims never take the same run and never wait for each other.
        """
        ...

    async def inherit(self, worker: str, lease_seconds: float, *, limit: int) -> list[Claim]:
        """Take runs, expired or not, that an earlier life of this very worker left."""
        ...

    async def release(self, lease: Lease) -> None:
        """Put a run back into the queue, for another worker; no-op if the lease is lost.

        The attempt that ends with this does not count.
        """
        ...

    async def waiting(self) -> Waiting:
        """Return how long the queues are, over all tenants."""
        ...

    # -- cancelling -------------------------------------------------------------------------------

    async def ask_cancel(
        self, tenant: str, response_id: str, worker: str, lease_seconds: float
    ) -> CancelAsked | None:
        """Note that a response shall end; None if there is no such response.

        A queued one is handed to `worker`, which ends it.
        """
        ...

    async def cancelled(self, worker: str) -> list[Lease]:
        """Return the leases of this worker whose cancel was asked for. Cheap: asked twice a second."""
        ...

    # -- event logs -------------------------------------------------------------------------------

    async def append(self, lease: Lease, batch: EventBatch) -> None:
        """Add events to the log; raises `LeaseLost`. A batch that is already there is not added twice."""
        ...

    async def read_events(
        self, tenant: str, response_id: str, *, after: int, limit: int
    ) -> LoggedEvents | None:
        """Return the events numbered above `after` (-1: all) in about `limit` bytes, at least one batch.

        None if there is no such response.
        """
        ...

    # -- retention --------------------------------------------------------------------------------

    async def remove_expired(self, *, limit: int) -> int:
        """Remove up to `limit` finished responses whose time has come, as `delete` does.

        Removes empty threads with them. Returns how many responses were removed.
        """
        ...

    async def remove_tenant(self, tenant: str, *, limit: int) -> int:
        """Remove all that a tenant has registered, and up to `limit` responses, running ones too.

        And as many conversations. Returns how many responses and conversations there were.
        """
        ...
