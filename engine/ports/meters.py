"""Meters as a port: what the parts of a worker tell whoever counts (docs/metrics.md).

Plain numbers and words, once a request, a turn, a batch or a commit, never once a delta: the token path has
no call of this. Words are of small closed sets, except the names of models and tenants, which the adapter
bounds; nothing here is ever an id. Methods do not wait and do not fail. Seconds are durations.

`Meters` itself counts nothing: it is what a part has that nobody gave any.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from engine.api.response_object import Usage

ToolEnd = Literal["ok", "error", "timeout", "refused"]
"""How a call of a tool ended; refused: it was not made at all."""

IngestionEnd = Literal["completed", "failed", "cancelled"]
"""How the work at a file ended; cancelled: by its batch, or it was detached, while it was done."""

StorageTrouble = Literal["unavailable", "timeout", "pool", "schema"]
"""What kept the store from its work: no server, no answer, no free connection, no tables of ours."""

BlobTrouble = Literal["unavailable", "timeout", "full", "lost"]
"""What kept the file store from its work; lost: bytes that should be there are not, or are others."""


class Meters:
    """Counts nothing; an adapter overrides every method."""

    # -- responses --------------------------------------------------------------------------------

    def first_token(self, model: str, seconds: float) -> None:
        """Tell that a response has its first output, so long after it was asked for."""

    def turn(
        self,
        model: str,
        tenant: str,
        error: str,
        seconds: float,
        usage: Usage | None,
        repairs: Iterable[str],
    ) -> None:
        """Tell of one call of the model. `error` is a class of errors, empty where it went well.

        `usage` as far as the model server told it; `repairs` are the kinds of quirks that were put right.
        """

    def response(
        self, model: str, tenant: str, status: str, mode: str, turns: int, seconds: float
    ) -> None:
        """Tell of a response's end. `mode`: `stream`, `whole` or `background`."""

    def pace(self, model: str, seconds: float) -> None:
        """Tell how long each token of a response took behind the first one."""

    def retry(self, *, granted: bool) -> None:
        """Tell that a turn was to be asked for again; not `granted`: the budget was spent."""

    def tool_call(self, kind: str, end: ToolEnd, seconds: float) -> None:
        """Tell of a call of a tool that the gateway runs; `kind` is the type of the tool."""

    def detached(self, seconds: float, tokens: int) -> None:
        """Tell of a response that ran on for so long without its client, and what it made meanwhile."""

    # -- streams ----------------------------------------------------------------------------------

    def streamed(self, size: int, *, spilled: bool) -> None:
        """Tell of a client's stream that is over: bytes, and whether it had to go on in the event log."""

    # -- runs -------------------------------------------------------------------------------------

    def lease_lost(self) -> None:
        """Tell that another worker has taken over what ran here."""

    def recovered(self, how: Literal["inherited", "expired"], runs: int) -> None:
        """Tell of runs that a dead worker left: our own former life, or any whose lease ran out."""

    def takeover_failed(self) -> None:
        """Tell that a claimed run could not be taken over; it is tried again when its lease has run out."""

    def queued(self) -> None:
        """Tell that a response was put into the queue of the background."""

    def queue_lengths(self, responses: int, files: int) -> None:
        """Tell how many responses of the background wait, and files are in progress, over all tenants."""

    def queue_wait(self, seconds: float) -> None:
        """Tell how long a response in the background waited until a worker took it."""

    # -- the store --------------------------------------------------------------------------------

    def logged(self, seconds: float, size: int) -> None:
        """Tell of a batch of events that is stored, so long after its first event was made."""

    def commit(self, members: int, seconds: float) -> None:
        """Tell of one transaction of so many writers."""

    def committed(self, seconds: float) -> None:
        """Tell how long one writer waited until its write was durable."""

    def storage_error(self, trouble: StorageTrouble) -> None:
        """Tell that the store could not do its work."""

    def storage_retry(self) -> None:
        """Tell that a statement was repeated: its connection was lost, or it met a deadlock."""

    def pool_wait(self, seconds: float) -> None:
        """Tell how long somebody waited for a connection."""

    # -- files and retrieval ----------------------------------------------------------------------

    def file_bytes(self, direction: Literal["up", "down"], size: int) -> None:
        """Tell of bytes of files that were taken or given."""

    def blob_error(self, trouble: BlobTrouble) -> None:
        """Tell that the file store could not do its work."""

    def ingested(self, end: IngestionEnd, chunks: int, seconds: float) -> None:
        """Tell of a file that was ingested into a vector store, or was not: so many chunks are in it."""

    def searched(self, *, ok: bool, seconds: float) -> None:
        """Tell of one search over vector stores, by the API or by the tool."""

    def embedded(self, *, ok: bool, texts: int, seconds: float) -> None:
        """Tell of one call of the embedding model."""


NO_METERS = Meters()
"""Counts nothing."""
