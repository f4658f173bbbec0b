"""Every metric of ours: name, type, labels, unit, meaning. The one place that says so.

docs/metrics.md is made from this; the endpoint, the dashboard and the alerts are tested against it. Names and
labels of OpenTelemetry's conventions for generative AI are used where there are any, spelled as Prometheus
spells them. The rule: no label holds an id, and every label's values are few. They are listed here, or they
are the names of models or tenants, which `extproc.metrics.names` bounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Literal

import msgspec

from extproc.routes import Operation

Kind = Literal["counter", "gauge", "histogram"]

TENANT = "tenant"
MODEL = "gen_ai_request_model"
UNKNOWN = "unknown"
"""The operation of a request that asked for none that there is."""

STATUSES = ("2xx", "3xx", "4xx", "5xx", "left")
"""Classes of answers; `left`: the client had gone before there was one."""

REPAIRS = (
    "arguments_completed",
    "arguments_joined",
    "call_not_allowed",
    "calls_unstreamed",
    "cut_untold",
    "event_invalid",
    "markup_beside_calls",
    "markup_in_reasoning",
    "markup_in_text",
    "not_streamed",
    "output_unstreamed",
    "stream_unfinished",
)
"""Kinds of quirks of model servers that `engine.upstream` puts right, or has to tell as a failure."""

# Of the conventions: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/
_TOKENS = tuple(float(4**power) for power in range(14))
_OPERATION_SECONDS = tuple(0.01 * 2**power for power in range(14))
_FIRST_TOKEN_SECONDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1),
    *(0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
# Ours.
_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_BATCH = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_TURNS = (1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0, 64.0)


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One metric. `labels` are names with all their values, None where those are names of models or types.

    `tenant`: it has the label `tenant`, too, where the settings ask for that. `merged` is what becomes of a
    gauge that several workers have. `source`: who tells it, the workers or their supervisor.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str
    labels: Mapping[str, tuple[str, ...] | None] = {}
    tenant: bool = False
    buckets: tuple[float, ...] = ()
    merged: Literal["sum", "max"] = "sum"
    source: Literal["worker", "supervisor"] = "worker"

    @property
    def family(self) -> str:
        """The name without a counter's suffix, as the exposition has it."""
        return self.name.removesuffix("_total") if self.kind == "counter" else self.name

    def label_names(self, *, tenants: bool) -> tuple[str, ...]:
        """Return the names of its labels, in their order."""
        return (*self.labels, TENANT) if self.tenant and tenants else tuple(self.labels)

    @property
    def samples(self) -> tuple[str, ...]:
        """The names of its samples."""
        if self.kind == "histogram":
            return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.name,)

    def known_series(self, *, tenants: bool) -> Iterator[tuple[str, ...]]:
        """Yield the values of labels that are known beforehand: these series begin at 0.

        A series that appeared with its first event would hide it: no rate sees a step that has no before.
        """
        values = list(self.labels.values())
        if None not in values and not (self.tenant and tenants):
            yield from product(*(value for value in values if value is not None))


_OPERATIONS = (*sorted(operation.value for operation in Operation), UNKNOWN)
_ASKED: Mapping[str, tuple[str, ...] | None] = {"gen_ai_operation_name": ("chat",), MODEL: None}

METRICS: tuple[Metric, ...] = (
    # -- traffic
    Metric(
        name="holdfast_requests_total",
        kind="counter",
        unit="requests",
        labels={"operation": _OPERATIONS, "status": STATUSES},
        tenant=True,
        meaning="Requests that were answered, by operation and class of status.",
    ),
    Metric(
        name="holdfast_request_duration_seconds",
        kind="histogram",
        unit="seconds",
        labels={"operation": _OPERATIONS},
        buckets=_LONG,
        meaning="From a request's head to the end of its answer; a stream's to its last byte.",
    ),
    Metric(
        name="holdfast_exchanges_open",
        kind="gauge",
        unit="exchanges",
        labels={"transport": ("ext_proc", "http")},
        meaning="Exchanges that are open now, over ext_proc and over HTTP.",
    ),
    Metric(
        name="holdfast_streams_total",
        kind="counter",
        unit="streams",
        meaning="Event streams of running responses that were sent to clients and are over.",
    ),
    Metric(
        name="holdfast_stream_bytes_total",
        kind="counter",
        unit="bytes",
        meaning="What these streams carried.",
    ),
    Metric(
        name="holdfast_streams_spilled_total",
        kind="counter",
        unit="streams",
        meaning="Streams whose client read so slowly that it was sent on to read from the event log.",
    ),
    Metric(
        name="holdfast_pipe_bytes",
        kind="gauge",
        unit="bytes",
        meaning="What waits in workers for clients to read.",
    ),
    # -- responses and turns
    Metric(
        name="holdfast_responses_total",
        kind="counter",
        unit="responses",
        labels={
            "status": ("completed", "incomplete", "failed", "cancelled", "refused", "left"),
            "mode": ("stream", "whole", "background"),
        },
        tenant=True,
        meaning="Responses that ended here. `refused`: answered by an error status, nothing stays of it. "
        "`left`: another worker goes on with it.",
    ),
    Metric(
        name="holdfast_response_turns",
        kind="histogram",
        unit="turns",
        buckets=_TURNS,
        meaning="Calls of the model that one response took.",
    ),
    Metric(
        name="gen_ai_server_request_duration_seconds",
        kind="histogram",
        unit="seconds",
        labels=_ASKED,
        buckets=_OPERATION_SECONDS,
        meaning="From a request for a response to its end; in the background, from when a worker took it.",
    ),
    Metric(
        name="gen_ai_server_time_to_first_token_seconds",
        kind="histogram",
        unit="seconds",
        labels=_ASKED,
        buckets=_FIRST_TOKEN_SECONDS,
        meaning="From a request for a response to the first output of its first turn, with all that "
        "happens before it.",
    ),
    Metric(
        name="gen_ai_server_time_per_output_token_seconds",
        kind="histogram",
        unit="seconds",
        labels=_ASKED,
        buckets=_TOKEN_SECONDS,
        meaning="Time per token behind the first one, in the first turn of a response.",
    ),
    Metric(
        name="gen_ai_client_operation_duration_seconds",
        kind="histogram",
        unit="seconds",
        labels={**_ASKED, "error_type": None},
        buckets=_OPERATION_SECONDS,
        meaning="One turn: a call of the model, its repetitions with it. `error_type` is empty where it went "
        "well, else the class of the error, or what ended it.",
    ),
    Metric(
        name="gen_ai_client_token_usage",
        kind="histogram",
        unit="tokens",
        labels={**_ASKED, "gen_ai_token_type": ("input", "output")},
        buckets=_TOKENS,
        meaning="Tokens of one turn, as the model server counts them.",
    ),
    Metric(
        name="holdfast_tokens_total",
        kind="counter",
        unit="tokens",
        labels={MODEL: None, "type": ("input", "cached", "output", "reasoning")},
        tenant=True,
        meaning="Tokens as the model server counts them; `cached` are among the input, `reasoning` among "
        "the output.",
    ),
    Metric(
        name="holdfast_turn_retries_total",
        kind="counter",
        unit="turns",
        labels={"outcome": ("repeated", "refused")},
        meaning="Turns that failed and were asked for again; `refused`: the budget of retries was spent.",
    ),
    Metric(
        name="holdfast_backend_quirks_total",
        kind="counter",
        unit="turns",
        labels={"kind": REPAIRS},
        meaning="Turns in which the model server's stream had to be put right, by what was wrong "
        "(docs/backends.md).",
    ),
    # -- tools
    Metric(
        name="holdfast_tool_calls_total",
        kind="counter",
        unit="calls",
        labels={"kind": None, "outcome": ("ok", "error", "timeout", "refused")},
        meaning="Calls of tools that the gateway runs, by type of tool. `refused`: not allowed, not made.",
    ),
    Metric(
        name="holdfast_tool_call_duration_seconds",
        kind="histogram",
        unit="seconds",
        labels={"kind": None},
        buckets=_LONG,
        meaning="One call of a tool, without the wait for its turn.",
    ),
    # -- persistence
    Metric(
        name="holdfast_commit_wait_seconds",
        kind="histogram",
        unit="seconds",
        buckets=_SHORT,
        meaning="How long a writer waited until its write was durable.",
    ),
    Metric(
        name="holdfast_commit_duration_seconds",
        kind="histogram",
        unit="seconds",
        buckets=_SHORT,
        meaning="One transaction of writers, from the wait for a connection to the commit.",
    ),
    Metric(
        name="holdfast_commit_batch_size",
        kind="histogram",
        unit="writers",
        buckets=_BATCH,
        meaning="Writers that shared one transaction.",
    ),
    Metric(
        name="holdfast_storage_errors_total",
        kind="counter",
        unit="errors",
        labels={"kind": ("unavailable", "timeout", "pool", "schema")},
        meaning="What the database could not do: no server, no answer in time, no free connection, tables "
        "that are missing.",
    ),
    Metric(
        name="holdfast_storage_retries_total",
        kind="counter",
        unit="attempts",
        meaning="Statements that were repeated behind a lost connection or a deadlock.",
    ),
    Metric(
        name="holdfast_pool_connections",
        kind="gauge",
        unit="connections",
        labels={"state": ("used", "idle")},
        meaning="Connections to the database.",
    ),
    Metric(
        name="holdfast_pool_limit",
        kind="gauge",
        unit="connections",
        meaning="Connections that the pools of all workers may have (`postgres.pool_size`, each).",
    ),
    Metric(
        name="holdfast_pool_waiting",
        kind="gauge",
        unit="waiters",
        meaning="Who waits for a connection now.",
    ),
    Metric(
        name="holdfast_pool_wait_seconds",
        kind="histogram",
        unit="seconds",
        buckets=_SHORT,
        meaning="How long a statement waited for a connection.",
    ),
    Metric(
        name="holdfast_event_log_lag_seconds",
        kind="histogram",
        unit="seconds",
        buckets=_SHORT,
        meaning="Age of the oldest event of a batch when the batch was stored: how far logs are behind "
        "their streams.",
    ),
    Metric(
        name="holdfast_event_log_bytes_total",
        kind="counter",
        unit="bytes",
        meaning="Events that were written to logs while responses ran.",
    ),
    Metric(
        name="holdfast_event_log_waiting_bytes",
        kind="gauge",
        unit="bytes",
        meaning="Events of running responses that are not stored yet.",
    ),
    # -- runs, background, recovery
    Metric(
        name="holdfast_runs",
        kind="gauge",
        unit="responses",
        labels={"kind": ("foreground", "detached", "background", "unstored")},
        meaning="Responses that run now. `detached`: their client has left; `unstored`: `store: false`.",
    ),
    Metric(
        name="holdfast_leases",
        kind="gauge",
        unit="leases",
        meaning="Leases that workers hold: stored responses that they run.",
    ),
    Metric(
        name="holdfast_leases_lost_total",
        kind="counter",
        unit="leases",
        meaning="Leases that ran out while their worker lived.",
    ),
    Metric(
        name="holdfast_recoveries_total",
        kind="counter",
        unit="responses",
        labels={"how": ("inherited", "expired")},
        meaning="Responses taken over from dead workers: from a worker's former life, or when a lease "
        "ran out.",
    ),
    Metric(
        name="holdfast_takeovers_failed_total",
        kind="counter",
        unit="responses",
        meaning="Claimed responses that could not be taken over; they are tried again.",
    ),
    Metric(
        name="holdfast_queued_total",
        kind="counter",
        unit="responses",
        meaning="Responses in the background that were accepted: what comes into the queue. What leaves it "
        "is the count of `holdfast_queue_wait_seconds`.",
    ),
    Metric(
        name="holdfast_queue_length",
        kind="gauge",
        unit="responses",
        merged="max",
        meaning="Responses in the background that wait, over all pods: every worker tells the same.",
    ),
    Metric(
        name="holdfast_queue_wait_seconds",
        kind="histogram",
        unit="seconds",
        buckets=_LONG,
        meaning="How long a response in the background waited for a worker; whole seconds.",
    ),
    Metric(
        name="holdfast_background_room",
        kind="gauge",
        unit="responses",
        meaning="How many more responses in the background the workers would take.",
    ),
    Metric(
        name="holdfast_detached_runs_total",
        kind="counter",
        unit="responses",
        meaning="Responses that ran on without their client, and have ended.",
    ),
    Metric(
        name="holdfast_detached_seconds_total",
        kind="counter",
        unit="seconds",
        meaning="How long they did.",
    ),
    Metric(
        name="holdfast_detached_tokens_total",
        kind="counter",
        unit="tokens",
        meaning="Output tokens that nobody waited for.",
    ),
    # -- files and retrieval
    Metric(
        name="holdfast_file_bytes_total",
        kind="counter",
        unit="bytes",
        labels={"direction": ("up", "down")},
        meaning="Bytes of files that clients sent, and that they fetched.",
    ),
    Metric(
        name="holdfast_file_store_errors_total",
        kind="counter",
        unit="errors",
        labels={"kind": ("unavailable", "timeout", "full", "lost")},
        meaning="What the directory or the object store of the files could not do: it refused or was away, "
        "it hung, it had no room, it had not the bytes that it should have.",
    ),
    Metric(
        name="holdfast_ingestion_files_total",
        kind="counter",
        unit="files",
        labels={"outcome": ("completed", "failed", "cancelled")},
        meaning="Files that were ingested into vector stores, or were not. `cancelled`: by their batch, or "
        "detached, while a worker was at them.",
    ),
    Metric(
        name="holdfast_ingestion_chunks_total",
        kind="counter",
        unit="chunks",
        meaning="Chunks that were made of them.",
    ),
    Metric(
        name="holdfast_ingestion_duration_seconds",
        kind="histogram",
        unit="seconds",
        buckets=_LONG,
        meaning="One file's ingestion, from being taken in hand.",
    ),
    Metric(
        name="holdfast_ingestion_queue",
        kind="gauge",
        unit="files",
        merged="max",
        meaning="Files that are not ingested yet, over all pods: every worker tells the same.",
    ),
    Metric(
        name="holdfast_searches_total",
        kind="counter",
        unit="searches",
        labels={"outcome": ("ok", "error")},
        meaning="Searches over vector stores, by the API and by the tool.",
    ),
    Metric(
        name="holdfast_search_duration_seconds",
        kind="histogram",
        unit="seconds",
        buckets=_SHORT,
        meaning="One search, the question's embedding with it.",
    ),
    Metric(
        name="holdfast_embeddings_total",
        kind="counter",
        unit="calls",
        labels={"outcome": ("ok", "error")},
        meaning="Calls of the embedding model.",
    ),
    Metric(
        name="holdfast_embedded_texts_total",
        kind="counter",
        unit="texts",
        meaning="Texts that were embedded.",
    ),
    Metric(
        name="holdfast_embedding_duration_seconds",
        kind="histogram",
        unit="seconds",
        buckets=_SHORT,
        meaning="One call of the embedding model.",
    ),
    # -- processes
    Metric(
        name="holdfast_loop_delay_seconds",
        kind="histogram",
        unit="seconds",
        buckets=_SHORT,
        meaning="How late a worker's event loop was, looked at once a second: what every stream of it waits.",
    ),
    Metric(
        name="holdfast_draining",
        kind="gauge",
        unit="workers",
        meaning="Workers that were told to stop and still run.",
    ),
    Metric(
        name="holdfast_workers",
        kind="gauge",
        unit="workers",
        labels={"state": ("wanted", "running")},
        source="supervisor",
        meaning="Worker processes of this pod.",
    ),
    Metric(
        name="holdfast_worker_restarts_total",
        kind="counter",
        unit="restarts",
        labels={"reason": ("ended", "blocked")},
        source="supervisor",
        meaning="Workers that were started again: their process had ended, or their event loop was blocked.",
    ),
)

BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in METRICS}
