"""`engine.ports.Meters` over a worker's book, and what the adapters of the gateway tell beside it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from engine.api.response_object import Usage
from engine.ports.meters import BlobTrouble, IngestionEnd, Meters, StorageTrouble, ToolEnd
from extproc.metrics.book import Book
from extproc.metrics.declared import BY_NAME, METRICS, MODEL, TENANT
from extproc.metrics.names import Names, former_names

_CHAT = "chat"


class RequestMeters(Meters):
    """Meters that are told of requests, too; these count nothing."""

    def request(self, operation: str, status: str, tenant: str, seconds: float) -> None:
        """Tell of a request that is over; `status` is one of `declared.STATUSES`."""


class BookMeters(RequestMeters):
    """Writes into a book. `models` and `tenants` are how many names are told apart at most.

    `tenants` None: the label is not there.
    """

    def __init__(self, book: Book, *, models: int, tenants: int | None) -> None:
        keys = list(book.written())
        self._book = book
        self._models = Names(models, former_names(keys, MODEL))
        self._tenants = None if tenants is None else Names(tenants, former_names(keys, TENANT))
        for metric in METRICS:
            if metric.source == "worker":
                for values in metric.known_series(tenants=tenants is not None):
                    if metric.kind == "histogram":
                        book.observed(metric, values)
                    else:
                        book.cell(metric, values)

    def _count(self, name: str, *values: str, by: float = 1) -> None:
        self._book.cell(BY_NAME[name], values).add(by)

    def _observe(self, name: str, amount: float, *values: str) -> None:
        self._book.observed(BY_NAME[name], values).add(amount)

    def _whose(self, tenant: str) -> tuple[str, ...]:
        return () if self._tenants is None else (self._tenants.learn(tenant),)

    def gauge(self, name: str, value: float, *values: str) -> None:
        """Set a gauge."""
        self._book.cell(BY_NAME[name], values).set(value)

    def loop_delay(self, seconds: float) -> None:
        """Tell how late the event loop was."""
        self._observe("holdfast_loop_delay_seconds", seconds)

    def request(self, operation: str, status: str, tenant: str, seconds: float) -> None:
        """Count a request."""
        # Whose it is was settled by Envoy: nobody can make names up.
        self._count("holdfast_requests_total", operation, status, *self._whose(tenant))
        self._observe("holdfast_request_duration_seconds", seconds, operation)

    # -- responses --------------------------------------------------------------------------------

    def first_token(self, model: str, seconds: float) -> None:
        """Count a response that has its first output."""
        # A model that answers is a real one.
        shown = self._models.learn(model)
        self._observe("gen_ai_server_time_to_first_token_seconds", seconds, _CHAT, shown)

    def turn(
        self,
        model: str,
        tenant: str,
        error: str,
        seconds: float,
        usage: Usage | None,
        repairs: Iterable[str],
    ) -> None:
        """Count a call of the model."""
        shown = self._models.shown(model) if error else self._models.learn(model)
        self._observe("gen_ai_client_operation_duration_seconds", seconds, _CHAT, shown, error)
        if usage is not None:
            self._use(shown, tenant, usage)
        for kind in repairs:
            self._count("holdfast_backend_quirks_total", kind)

    def _use(self, model: str, tenant: str, usage: Usage) -> None:
        whose = self._whose(tenant)
        for kind, tokens in (
            ("input", usage.input_tokens),
            ("cached", usage.cached_tokens),
            ("output", usage.output_tokens),
            ("reasoning", usage.reasoning_tokens),
        ):
            self._count("holdfast_tokens_total", model, kind, *whose, by=tokens)
        self._observe("gen_ai_client_token_usage", usage.input_tokens, _CHAT, model, "input")
        self._observe("gen_ai_client_token_usage", usage.output_tokens, _CHAT, model, "output")

    def response(
        self, model: str, tenant: str, status: str, mode: str, turns: int, seconds: float
    ) -> None:
        """Count a response that has ended."""
        shown = self._models.shown(model)
        self._count("holdfast_responses_total", status, mode, *self._whose(tenant))
        self._observe("holdfast_response_turns", turns)
        self._observe("gen_ai_server_request_duration_seconds", seconds, _CHAT, shown)

    def pace(self, model: str, seconds: float) -> None:
        """Count how long a token took."""
        shown = self._models.shown(model)
        self._observe("gen_ai_server_time_per_output_token_seconds", seconds, _CHAT, shown)

    def retry(self, *, granted: bool) -> None:
        """Count a turn that was to be asked for again."""
        self._count("holdfast_turn_retries_total", "repeated" if granted else "refused")

    def tool_call(self, kind: str, end: ToolEnd, seconds: float) -> None:
        """Count a call of a tool."""
        self._count("holdfast_tool_calls_total", kind, end)
        if end != "refused":
            self._observe("holdfast_tool_call_duration_seconds", seconds, kind)

    def detached(self, seconds: float, tokens: int) -> None:
        """Count a response that ran on without its client."""
        self._count("holdfast_detached_runs_total")
        self._count("holdfast_detached_seconds_total", by=seconds)
        self._count("holdfast_detached_tokens_total", by=tokens)

    # -- streams ----------------------------------------------------------------------------------

    def streamed(self, size: int, *, spilled: bool) -> None:
        """Count a client's stream."""
        self._count("holdfast_streams_total")
        self._count("holdfast_stream_bytes_total", by=size)
        self._count("holdfast_streams_spilled_total", by=spilled)

    # -- runs -------------------------------------------------------------------------------------

    def lease_lost(self) -> None:
        """Count a lease that was lost."""
        self._count("holdfast_leases_lost_total")

    def recovered(self, how: Literal["inherited", "expired"], runs: int) -> None:
        """Count what a dead worker left."""
        self._count("holdfast_recoveries_total", how, by=runs)

    def takeover_failed(self) -> None:
        """Count a run that could not be taken over."""
        self._count("holdfast_takeovers_failed_total")

    def queued(self) -> None:
        """Count a response that waits for a worker."""
        self._count("holdfast_queued_total")

    def queue_lengths(self, responses: int, files: int) -> None:
        """Say how many wait."""
        self.gauge("holdfast_queue_length", responses)
        self.gauge("holdfast_ingestion_queue", files)

    def queue_wait(self, seconds: float) -> None:
        """Count a response that was taken from the queue."""
        self._observe("holdfast_queue_wait_seconds", seconds)

    # -- the store --------------------------------------------------------------------------------

    def logged(self, seconds: float, size: int) -> None:
        """Count a batch of events."""
        self._observe("holdfast_event_log_lag_seconds", seconds)
        self._count("holdfast_event_log_bytes_total", by=size)

    def commit(self, members: int, seconds: float) -> None:
        """Count a transaction."""
        self._observe("holdfast_commit_duration_seconds", seconds)
        self._observe("holdfast_commit_batch_size", members)

    def committed(self, seconds: float) -> None:
        """Count a write that is durable."""
        self._observe("holdfast_commit_wait_seconds", seconds)

    def storage_error(self, trouble: StorageTrouble) -> None:
        """Count what the store could not do."""
        self._count("holdfast_storage_errors_total", trouble)

    def storage_retry(self) -> None:
        """Count a statement that was repeated."""
        self._count("holdfast_storage_retries_total")

    def pool_wait(self, seconds: float) -> None:
        """Count a wait for a connection."""
        self._observe("holdfast_pool_wait_seconds", seconds)

    # -- files and retrieval ----------------------------------------------------------------------

    def file_bytes(self, direction: Literal["up", "down"], size: int) -> None:
        """Count bytes of files."""
        self._count("holdfast_file_bytes_total", direction, by=size)

    def blob_error(self, trouble: BlobTrouble) -> None:
        """Count what the file store could not do."""
        self._count("holdfast_file_store_errors_total", trouble)

    def ingested(self, end: IngestionEnd, chunks: int, seconds: float) -> None:
        """Count a file of a vector store."""
        self._count("holdfast_ingestion_files_total", end)
        self._count("holdfast_ingestion_chunks_total", by=chunks)
        self._observe("holdfast_ingestion_duration_seconds", seconds)

    def searched(self, *, ok: bool, seconds: float) -> None:
        """Count a search."""
        self._count("holdfast_searches_total", "ok" if ok else "error")
        self._observe("holdfast_search_duration_seconds", seconds)

    def embedded(self, *, ok: bool, texts: int, seconds: float) -> None:
        """Count a call of the embedding model."""
        self._count("holdfast_embeddings_total", "ok" if ok else "error")
        self._count("holdfast_embedded_texts_total", by=texts)
        self._observe("holdfast_embedding_duration_seconds", seconds)
