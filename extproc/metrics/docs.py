"""Makes the table of docs/metrics.md: `python -m extproc.metrics.docs` (`make docs`)."""

from __future__ import annotations

from pathlib import Path

from extproc.metrics.declared import METRICS, TENANT, Metric

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
_BEGIN = "<!-- metrics: made from extproc/metrics/declared.py by `make docs` -->\n"
_END = "<!-- /metrics -->\n"
# Longer lists are told of in the text.
_MOST_VALUES = 12


def table() -> str:
    """Return the table of all metrics."""
    lines = ["| metric | type, unit | labels | meaning |", "|---|---|---|---|"]
    lines += [
        f"| `{metric.name}` | {metric.kind}, {metric.unit} | {_labels(metric)} | {metric.meaning} |"
        for metric in METRICS
    ]
    return "\n".join(lines) + "\n"


def with_table(document: str) -> str:
    """Return the document with today's table in it."""
    before, _, rest = document.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}{table()}{_END}{after}"


def _labels(metric: Metric) -> str:
    told = []
    for name, values in metric.labels.items():
        if values is None or len(values) > _MOST_VALUES:
            told.append(f"`{name}`")
        else:
            told.append(f"`{name}`: {', '.join(values)}")
    if metric.tenant:
        told.append(f"(`{TENANT}`)")
    return "; ".join(told)


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
