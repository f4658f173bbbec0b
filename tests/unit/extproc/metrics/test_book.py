"""The files in which workers write their metrics down, and the endpoint that merges them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from engine.api.response_object import Usage
from engine.ports.meters import Meters
from extproc.metrics.book import Book
from extproc.metrics.declared import BY_NAME, METRICS
from extproc.metrics.endpoint import Attendance
from extproc.metrics.meters import BookMeters
from extproc.metrics.names import Names, former_names

_BOOKS: list[Book] = []


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "metrics"
    while _BOOKS:
        _BOOKS.pop().close()


def _book(directory: Path, index: int = 0, *, tenants: bool = False) -> Book:
    """Return a book that is closed behind the test alone: workers are killed."""
    _BOOKS.append(Book(directory, index, tenants=tenants))
    return _BOOKS[-1]


def _meters(directory: Path, index: int = 0, tenants: int | None = None) -> BookMeters:
    book = _book(directory, index, tenants=tenants is not None)
    return BookMeters(book, models=3, tenants=tenants)


def _value(directory: Path, sample: str, /, **labels: str) -> float | None:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(directory))
    return registry.get_sample_value(sample, labels)


def test_workers_add_up(directory: Path) -> None:
    """One endpoint for all workers of a pod: counters, histograms and gauges are sums."""
    for index, seconds in enumerate((0.004, 0.2, 20.0)):
        meters = _meters(directory, index)
        meters.storage_error("timeout")
        meters.commit(4, seconds)
        meters.gauge("holdfast_leases", index + 1)
    assert _value(directory, "holdfast_storage_errors_total", kind="timeout") == 3
    assert _value(directory, "holdfast_commit_duration_seconds_count") == 3
    assert _value(directory, "holdfast_commit_duration_seconds_sum") == pytest.approx(20.204)
    assert _value(directory, "holdfast_commit_duration_seconds_bucket", le="0.005") == 1
    assert _value(directory, "holdfast_commit_duration_seconds_bucket", le="0.25") == 2
    assert _value(directory, "holdfast_commit_batch_size_bucket", le="4.0") == 3
    assert _value(directory, "holdfast_leases") == 6


def test_a_new_life_counts_on_where_the_former_one_was_killed(directory: Path) -> None:
    """No counter goes backwards by a worker's death, and no file is left over by it."""
    _meters(directory).storage_retry()
    files = sorted(directory.iterdir())
    # Killed: nothing was closed, nothing was said.
    _meters(directory).storage_retry()
    assert _value(directory, "holdfast_storage_retries_total") == 2
    assert sorted(directory.iterdir()) == files


def test_a_dead_workers_gauges_go_with_it(directory: Path) -> None:
    """What a dead worker had open is not open; what it counted stays counted."""
    attendance = Attendance(directory, 2)
    for index in range(2):
        meters = _meters(directory, index)
        attendance.began(index)
        meters.gauge("holdfast_leases", 5)
        meters.storage_retry()
    attendance.ended(0, "blocked")
    assert _value(directory, "holdfast_leases") == 5
    assert _value(directory, "holdfast_storage_retries_total") == 2
    own = {
        (sample.name, *sample.labels.values()): sample.value
        for family in attendance.collect()
        for sample in family.samples
    }
    assert own == {
        ("holdfast_workers", "wanted"): 2,
        ("holdfast_workers", "running"): 1,
        ("holdfast_worker_restarts_total", "ended"): 0,
        ("holdfast_worker_restarts_total", "blocked"): 1,
    }


def test_what_every_worker_tells_alike_is_told_once(directory: Path) -> None:
    """A gauge of something that all workers share is not their sum."""
    for index, length in enumerate((7, 9)):
        _meters(directory, index).queue_lengths(0, length)
    assert _value(directory, "holdfast_ingestion_queue") == 9


def test_known_series_begin_at_zero(directory: Path) -> None:
    """A rare event is a step that a rate can see: the series was there before it."""
    _meters(directory)
    assert _value(directory, "holdfast_storage_errors_total", kind="pool") == 0
    assert _value(directory, "holdfast_commit_duration_seconds_count") == 0
    assert _value(directory, "holdfast_leases") == 0


def test_model_names_are_bounded_over_a_workers_lives(directory: Path) -> None:
    """Nobody can make series by making up names: the first ones that answer, then `other`."""
    used = Usage(input_tokens=1, output_tokens=1)
    for life in range(3):
        meters = _meters(directory)
        meters.turn(f"unknown-{life}", "t", "UpstreamRefused", 1.0, None, ())
        for name in ("a", f"b{life}", f"c{life}", "x" * 200):
            meters.turn(name, "t", "", 1.0, used, ())
    book = _book(directory)
    assert former_names(book.written(), "gen_ai_request_model") == {"a", "b0", "c0", "other"}
    assert (
        _value(directory, "holdfast_tokens_total", gen_ai_request_model="other", type="input") == 7
    )


def test_tenants_are_a_label_where_that_is_asked_for(directory: Path) -> None:
    """The tenant's label is off by default, and bounded where it is on."""
    meters = _meters(directory, tenants=2)
    for tenant in ("one", "two", "three", "four"):
        meters.request("create", "2xx", tenant, 0.1)
    values = {
        tenant: _value(
            directory,
            "holdfast_requests_total",
            operation="create",
            status="2xx",
            tenant=tenant,
        )
        for tenant in ("one", "two", "other")
    }
    assert values == {"one": 1, "two": 1, "other": 2}


def test_a_name_that_is_not_known_is_not_shown() -> None:
    """A model that never answered is `other`."""
    names = Names(1)
    assert names.shown("a") == "other"
    assert names.learn("a") == "a"
    assert names.shown("a") == "a"
    assert names.learn("b") == "other"
    assert names.learn("line\nbreak") == "other"


def test_what_is_told_behind_the_end_is_no_error(directory: Path) -> None:
    """The port's promise, that methods do not fail: a request that is cut ends behind its worker's book."""
    book = Book(directory, 0, tenants=False)
    meters = BookMeters(book, models=3, tenants=None)
    meters.storage_error("timeout")
    book.close()
    meters.storage_error("timeout")
    meters.first_token("a new one", 1.0)
    assert _value(directory, "holdfast_storage_errors_total", kind="timeout") == 1


def test_every_method_of_the_port_counts() -> None:
    """What the engine tells is written down: the adapter overrides each method of the port."""
    told = {name for name, _ in inspect.getmembers(Meters, inspect.isfunction)}
    assert told <= set(vars(BookMeters))


def test_declarations_are_complete() -> None:
    """Each metric has a unit, a meaning and a name that says its type, and no label that is an id."""
    assert len(BY_NAME) == len(METRICS)
    for metric in METRICS:
        assert metric.unit, metric.name
        assert metric.meaning.endswith("."), metric.name
        assert (metric.kind == "counter") == metric.name.endswith("_total"), metric.name
        assert (metric.kind == "histogram") == bool(metric.buckets), metric.name
        assert not any(label.endswith("id") for label in metric.labels), metric.name
        assert metric.unit != "seconds" or "seconds" in metric.name, metric.name
        assert metric.unit != "bytes" or "bytes" in metric.name, metric.name


def test_every_key_that_is_written_is_declared(directory: Path) -> None:
    """No series has labels or values beside those that are declared."""
    meters = _meters(directory)
    meters.request("create", "2xx", "t", 0.1)
    meters.tool_call("mcp", "ok", 0.1)
    for kind in ("markup_in_text", "stream_unfinished"):
        meters.turn("m", "t", "", 0.1, Usage(), (kind,))
    for key in _book(directory).written():
        family, sample, labels, _ = json.loads(key)
        metric = next(metric for metric in METRICS if metric.family == family)
        labels.pop("le", None)
        assert sample in metric.samples
        assert set(labels) == set(metric.labels)
        for name, value in labels.items():
            allowed = metric.labels[name]
            assert allowed is None or value in allowed
