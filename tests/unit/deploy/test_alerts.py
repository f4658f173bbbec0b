"""The alerts: each fires when it should and not sooner, and has its page in the runbook."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from tests.support.alert_cases import CASES, MINUTES, STEP, Case, labels_of, rules, samples
from tests.support.metric_use import undeclared
from tests.support.promql import Expression, Series, parse

RUNBOOK = Path(__file__).parents[3] / "docs" / "runbook.md"
_UNITS = {"m": 60.0, "h": 3600.0}


def _seconds(text: str) -> float:
    return float(text[:-1]) * _UNITS[text[-1]]


def _series(case: Case, *, fires: bool) -> Series:
    series = Series()
    for row in case.rows:
        series.add(row.series, labels_of(row), samples(row.firing if fires else row.quiet))
    return series


def _fired(expression: Expression, held: float, series: Series) -> list[dict[str, str]]:
    """Return the labels of what has been true at every look of the time that it must be."""
    at = MINUTES * STEP
    looks = [at - STEP * number for number in range(int(held / STEP) + 1)]
    found = [series.value(expression, look) for look in looks]
    now, *before = [one for one in found if isinstance(one, dict)]
    return [dict(labels) for labels in now if all(labels in past for past in before)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_fires_when_it_should(case: Case) -> None:
    """One that is told of what it is for fires, with the labels that lead to the pod or the release."""
    [rule] = [rule for rule in rules() if rule["alert"] == case.alert]
    expression, held = parse(rule["expr"]), _seconds(rule.get("for", "0m"))
    assert _fired(expression, held, _series(case, fires=True)) == [case.labels]
    assert _fired(expression, held, _series(case, fires=False)) == []
    assert _fired(expression, held, Series()) == ([] if case.absent is None else [case.absent])


def test_every_alert_has_a_case_and_a_page() -> None:
    """Nobody is woken by an alert that is not tested, or that nobody explains."""
    names = [rule["alert"] for rule in rules()]
    assert sorted(names) == sorted(case.alert for case in CASES)
    headings = re.findall(r"^### (Holdfast\w+)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == names
    for rule in rules():
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"].endswith(".")


def test_alerts_name_declared_metrics_with_declared_labels() -> None:
    """A metric that is renamed takes no alert with it in silence."""
    for rule in rules():
        assert undeclared(rule["expr"]) == [], rule["alert"]


def test_the_evaluator_counts_as_prometheus_does() -> None:
    """Rates are extrapolated to the window's edges, not below zero, and survive a reset."""
    series = Series()
    series.add("c_total", {"a": "x"}, [(0, 0), (60, 60), (120, 120), (180, 0), (240, 60)])
    assert _values(series, "sum(increase(c_total[4m]))") == [180]
    # From 70 s on there are three samples, 120 to 240: the edge is less than a step away.
    [rate] = _values(series, 'rate(c_total{a=~"x|y"}[170s])')
    assert rate == pytest.approx(60 / 120)
    for bound, count in (("1", 5), ("2", 9), ("+Inf", 10)):
        series.add("h_bucket", {"le": bound}, [(0, count)])
    [half] = _values(series, "histogram_quantile(0.7, h_bucket)")
    assert half == pytest.approx(1.5)
    [none] = _values(series, "sum(c_total) - 60")
    assert none == 0
    series.add("empty", {}, [(0, 0)])
    [nothing] = _values(series, "empty / empty", at=0)
    assert math.isnan(nothing)


def test_the_evaluator_knows_what_is_absent() -> None:
    """One series is enough, and what is named by more than equality is no label."""
    series = Series()
    series.add("seen", {"a": "x", "b": "y"}, [(0, 0)])
    absent = parse('absent(seen{a="x",b!="z"})')
    assert series.value(absent, 0) == {}
    assert series.value(absent, 301) == {frozenset({("a", "x")}): 1.0}


def test_the_evaluator_refuses_what_it_does_not_know() -> None:
    """No expression passes because it was read as another one."""
    for text in ("predict_linear(a[5m], 60)", "a unless b", "a offset 5m", "sum without (x) (a)"):
        with pytest.raises(ValueError, match=r".+"):
            Series().value(parse(text), 0)


def _values(series: Series, text: str, at: float = 240) -> list[float]:
    value = series.value(parse(text), at)
    assert isinstance(value, dict)
    return list(value.values())
