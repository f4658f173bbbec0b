"""Which metrics and labels an expression of PromQL uses, held against what is declared."""

from __future__ import annotations

from collections.abc import Iterator

from extproc.metrics.declared import METRICS
from tests.support.promql import Call, Gathered, Selector, parse, parts

# What Prometheus and the chart's PodMonitor add to every series.
ADDED = frozenset(("namespace", "job", "instance", "pod"))
_BY_SAMPLE = {sample: metric for metric in METRICS for sample in metric.samples}


def undeclared(text: str, others: tuple[str, ...] = ()) -> list[str]:
    """Return what an expression names that is not declared; `others` begin names of others' metrics."""
    expression = parse(text)
    selectors = [part for part in parts(expression) if isinstance(part, Selector)]
    wrong = []
    known: set[str] = set(ADDED)
    for selector in selectors:
        if selector.name.startswith(others or ("\0",)):
            return []
        wrong += list(_wrong(selector))
        metric = _BY_SAMPLE.get(selector.name)
        if metric is not None:
            known |= set(metric.labels) | ({"le"} if metric.kind == "histogram" else set())
    for part in parts(expression):
        if isinstance(part, Gathered):
            wrong += [f"by {label}" for label in part.by if label not in known]
        if isinstance(part, Call) and part.function in ("rate", "increase"):
            wrong += [f"{part.function} of a gauge" for of in part.arguments if _is_gauge(of)]
    return wrong


def _wrong(selector: Selector) -> Iterator[str]:
    metric = _BY_SAMPLE.get(selector.name)
    if metric is None:
        yield selector.name
        return
    for label, sign, text in selector.matchers:
        if label in ADDED:
            continue
        values = metric.labels.get(label, ())
        if label not in metric.labels:
            yield f"{selector.name}: {label}"
        elif values is not None and not text.startswith("$"):
            said = text.split("|") if sign in ("=~", "!~") else [text]
            yield from (f"{selector.name}: {label}={one}" for one in said if one not in values)


def _is_gauge(part: object) -> bool:
    metric = _BY_SAMPLE.get(part.name) if isinstance(part, Selector) else None
    return metric is not None and metric.kind == "gauge"
