"""For each alert: series that make it fire, and series that do not; in the notation of `promtool test rules`.

`python -m tests.support.alert_cases > FILE` writes them as a test of promtool's, for those who have one.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import msgspec
import yaml

from tests.support.promql import Samples

RULES = Path(__file__).parents[2] / "deploy" / "alerts" / "holdfast.yaml"
STEP = 60.0
MINUTES = 45
"""When the alerts are looked at; series have a sample each minute."""

_JOB = {"namespace": "prod", "job": "holdfast"}
_NOTATION = re.compile(r"(-?\d+)(?:([+-]\d+))?x(\d+)")


class Row(msgspec.Struct, frozen=True):
    """A series, its values when the alert fires, and when it does not."""

    series: str
    labels: dict[str, str]
    firing: str
    quiet: str


class Case(msgspec.Struct, frozen=True):
    """An alert and its series; `instance`: it is one pod's; `absent`: labels of series that are not there."""

    alert: str
    rows: tuple[Row, ...]
    instance: bool = False
    absent: dict[str, str] | None = None

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the alert, beside its name and severity."""
        if self.absent is not None:
            return self.absent
        return {**_JOB, "instance": "pod-1"} if self.instance else _JOB


def _share(alert: str, name: str, label: str, bad: str, good: str, most: int) -> Case:
    """More than so many of 100 a minute are bad, or a few less."""
    over, under = most + 5, most - 4
    return Case(
        alert,
        (
            Row(name, {label: bad}, f"0+{over}x60", f"0+{under}x60"),
            Row(name, {label: good}, f"0+{100 - over}x60", f"0+{100 - under}x60"),
        ),
    )


def _late(alert: str, name: str, bounds: tuple[str, str, str]) -> Case:
    """All observations are between the last two bounds, or all below the first."""
    below, above, last = bounds
    rows = [Row(f"{name}_bucket", {"le": bound}, "0x60", "0+100x60") for bound in (below, above)]
    rows += [
        Row(f"{name}_bucket", {"le": bound}, "0+100x60", "0+100x60") for bound in (last, "+Inf")
    ]
    return Case(alert, tuple(rows))


def _stepped(alert: str, name: str, labels: dict[str, str], over: int, under: int) -> Case:
    """A counter has risen by so much, or by too little, within the last minutes."""
    return Case(alert, (Row(name, labels, f"0x40 {over}x20", f"0x40 {under}x20"),))


CASES = (
    _share("HoldfastErrorRate", "holdfast_requests_total", "status", "5xx", "2xx", 5),
    _share(
        "HoldfastResponsesFailing", "holdfast_responses_total", "status", "failed", "completed", 10
    ),
    _share("HoldfastToolsFailing", "holdfast_tool_calls_total", "outcome", "timeout", "ok", 30),
    _share("HoldfastSearchesFailing", "holdfast_searches_total", "outcome", "error", "ok", 5),
    _share(
        "HoldfastIngestionFailing",
        "holdfast_ingestion_files_total",
        "outcome",
        "failed",
        "completed",
        20,
    ),
    Case(
        "HoldfastQuirkSurge",
        (
            Row("holdfast_backend_quirks_total", {"kind": "markup_in_text"}, "0+35x60", "0+25x60"),
            Row("gen_ai_client_operation_duration_seconds_count", {}, "0+100x60", "0+100x60"),
        ),
    ),
    Case(
        "HoldfastStoreDown",
        (
            Row("holdfast_storage_errors_total", {"kind": "unavailable"}, "0+6x60", "0+1x60"),
            Row("holdfast_storage_errors_total", {"kind": "timeout"}, "0+9x60", "0+9x60"),
        ),
    ),
    Case(
        "HoldfastFileStoreDown",
        (
            Row("holdfast_file_store_errors_total", {"kind": "full"}, "0+2x60", "0+1x60"),
            Row("holdfast_file_store_errors_total", {"kind": "lost"}, "0+9x60", "0+9x60"),
        ),
    ),
    _late("HoldfastCommitSlow", "holdfast_commit_wait_seconds", ("0.25", "0.5", "1.0")),
    _late("HoldfastPoolExhausted", "holdfast_pool_wait_seconds", ("0.1", "0.25", "0.5")),
    _late("HoldfastEventLogLag", "holdfast_event_log_lag_seconds", ("2.5", "5.0", "10.0")),
    _late("HoldfastQueueWait", "holdfast_queue_wait_seconds", ("30.0", "60.0", "120.0")),
    _late("HoldfastLoopDelay", "holdfast_loop_delay_seconds", ("0.25", "0.5", "1.0")),
    Case(
        "HoldfastQueueStuck",
        (
            Row("holdfast_queue_length", {}, "3x60", "3x60"),
            Row("holdfast_queue_wait_seconds_count", {}, "7x60", "0+1x60"),
        ),
    ),
    Case(
        "HoldfastIngestionStuck",
        (
            Row("holdfast_ingestion_queue", {}, "3x60", "3x60"),
            Row("holdfast_ingestion_files_total", {"outcome": "completed"}, "7x60", "0+1x60"),
        ),
    ),
    Case(
        "HoldfastBackgroundFull",
        (
            Row("holdfast_background_room", {}, "0x60", "1x60"),
            Row("holdfast_runs", {"kind": "background"}, "32x60", "32x60"),
        ),
    ),
    _stepped("HoldfastRetriesSpent", "holdfast_turn_retries_total", {"outcome": "refused"}, 9, 3),
    _stepped("HoldfastRecoveries", "holdfast_recoveries_total", {"how": "expired"}, 12, 8),
    _stepped("HoldfastLeasesLost", "holdfast_leases_lost_total", {}, 1, 0),
    _stepped("HoldfastWorkerRestarts", "holdfast_worker_restarts_total", {"reason": "ended"}, 4, 2),
    _stepped(
        "HoldfastWorkerBlocked", "holdfast_worker_restarts_total", {"reason": "blocked"}, 1, 0
    ),
    Case(
        "HoldfastUnseen",
        # Two pods that went, and of which one came again.
        (
            Row("holdfast_workers", {"state": "running", "instance": "pod-1"}, "2x20", "2x20"),
            Row("holdfast_workers", {"state": "running", "instance": "pod-2"}, "2x30", "2x60"),
        ),
        absent={"state": "running"},
    ),
    Case(
        "HoldfastWorkersMissing",
        (
            Row("holdfast_workers", {"state": "running", "instance": "pod-1"}, "1x60", "2x60"),
            Row("holdfast_workers", {"state": "wanted", "instance": "pod-1"}, "2x60", "2x60"),
        ),
        instance=True,
    ),
    Case(
        "HoldfastDrainTooLong",
        (Row("holdfast_draining", {"instance": "pod-1"}, "0x30 1x30", "0x42 1x18"),),
        instance=True,
    ),
)


def rules() -> list[dict[str, Any]]:
    """Return all rules."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def samples(notation: str) -> Samples:
    """Return what a notation stands for: `0+2x3` is 0 2 4 6, `5x2` is 5 5 5, and a space joins."""
    values: list[float] = []
    for part in notation.split():
        found = _NOTATION.fullmatch(part)
        assert found is not None, part
        start, step, times = int(found[1]), int(found[2] or 0), int(found[3])
        values += [start + step * number for number in range(times + 1)]
    return [(STEP * number, value) for number, value in enumerate(values)]


def labels_of(row: Row) -> dict[str, str]:
    """Return all labels of a series."""
    return {**_JOB, **row.labels}


def for_promtool() -> str:
    """Return the cases as a test of promtool's."""
    document = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [_test(case, fires=fires) for case in CASES for fires in (True, False)],
    }
    return yaml.safe_dump(document, sort_keys=False)


def _test(case: Case, *, fires: bool) -> dict[str, Any]:
    [rule] = [rule for rule in rules() if rule["alert"] == case.alert]
    expected = {"exp_labels": {**case.labels, **rule["labels"]}}
    expected["exp_annotations"] = rule["annotations"]
    return {
        "interval": "1m",
        "input_series": [
            {
                "series": f"{row.series}{{{_spelled(labels_of(row))}}}",
                "values": row.firing if fires else row.quiet,
            }
            for row in case.rows
        ],
        "alert_rule_test": [
            {
                "eval_time": f"{MINUTES}m",
                "alertname": case.alert,
                "exp_alerts": [expected] if fires else [],
            }
        ],
    }


def _spelled(labels: dict[str, str]) -> str:
    return ",".join(f'{name}="{value}"' for name, value in labels.items())


if __name__ == "__main__":
    sys.stdout.write(for_promtool())
