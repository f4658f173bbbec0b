"""docs/metrics.md says what is declared, and the dashboard shows nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from extproc.metrics.declared import METRICS, REPAIRS
from extproc.metrics.docs import DOCUMENT, with_table
from tests.support.metric_use import undeclared
from tests.support.promql import Selector, parse, parts

DASHBOARD = Path(__file__).parents[3] / "deploy" / "dashboards" / "holdfast.json"
ENVOY = ("envoy_",)
# In the place of Grafana's variables.
_FILLED = {"$__rate_interval": "5m", "$namespace": "prod", "$job": "holdfast"}


def test_the_table_is_made_from_the_declarations() -> None:
    """H3: `make docs` was run after the last change."""
    document = DOCUMENT.read_text(encoding="utf-8")
    assert document == with_table(document)
    told = re.findall(r"^\| `(\w+)` \| (?!counter|gauge|histogram)", document, re.MULTILINE)
    assert tuple(told) == REPAIRS


def _panels() -> list[dict[str, Any]]:
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def _expressions() -> list[str]:
    found = [target["expr"] for panel in _panels() for target in panel["targets"]]
    for name, value in _FILLED.items():
        found = [expression.replace(name, value) for expression in found]
    return found


def test_the_dashboard_names_declared_metrics_with_declared_labels() -> None:
    """A metric that is renamed leaves no empty panel behind."""
    for expression in _expressions():
        assert undeclared(expression, ENVOY) == [], expression


def test_the_dashboard_shows_every_metric() -> None:
    """What is counted can be seen."""
    shown = {
        part.name
        for expression in _expressions()
        for part in parts(parse(expression))
        if isinstance(part, Selector)
    }
    assert [metric.name for metric in METRICS if not shown & set(metric.samples)] == []


def test_panels_fit_together() -> None:
    """Every panel has a title, a unit, a place of its own and the dashboard's source of data."""
    places = set()
    for panel in _panels():
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "$datasource"}
        place = panel["gridPos"]
        places.add((place["x"], place["y"]))
        assert place["x"] + place["w"] <= 24
    assert len(places) == len(_panels())
