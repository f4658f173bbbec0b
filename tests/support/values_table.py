"""The table of the chart's values in docs/kubernetes.md, made from values.yaml (`make docs`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.support.chart_files import CHART

VALUES = CHART / "values.yaml"
DOCUMENT = Path(__file__).parents[2] / "docs" / "kubernetes.md"
_BEGIN = "<!-- values: made from deploy/helm/holdfast/values.yaml by `make docs` -->\n"
_END = "<!-- /values -->"


def table() -> str:
    """Return a row for each value; a group has a row if there is something to say about it."""
    rows = [f"| `{path}` | {default} | {meaning} |" for path, default, meaning in _values()]
    return "\n".join(["| value | default | |", "|---|---|---|", *rows, ""])


def with_table(text: str) -> str:
    """Return the document with the table in its place."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}{table()}{_END}{after}"


def _values() -> Iterator[tuple[str, str, str]]:
    """Give path, default and comment of each value, by line: a key stands on one, its comment above it."""
    path: list[str] = []
    comment: list[str] = []
    for line in VALUES.read_text(encoding="utf-8").splitlines():
        depth, text = (len(line) - len(line.lstrip())) // 2, line.strip()
        if not text:
            comment = []
        elif text.startswith("#"):
            comment.append(text.removeprefix("#").strip())
        else:
            key, _, default = text.partition(":")
            path[depth:] = [key]
            meaning = " ".join(comment).replace("|", "\\|")
            comment = []
            if default or meaning:
                yield ".".join(path), f"`{default.strip()}`" if default else "", meaning


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
