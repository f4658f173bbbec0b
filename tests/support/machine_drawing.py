"""Draws the response machine's table: what ARCHITECTURE.md and docs/concepts.md show, made by `make docs`."""

from __future__ import annotations

from pathlib import Path

from engine.response.transitions import TRANSITIONS

_ROOT = Path(__file__).parents[2]
DOCUMENTS = (_ROOT / "ARCHITECTURE.md", _ROOT / "docs" / "concepts.md")
_BEGIN = "<!-- machine: made from TRANSITIONS by `make docs` -->\n"
_END = "<!-- /machine -->"


def drawing() -> str:
    """Return the table as a Mermaid state diagram; inputs that lead to the same phases share an arrow."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for phase, rows in TRANSITIONS.items():
        for received, targets in rows.items():
            for target in sorted(targets, key=lambda t: t.value):
                arrows.setdefault((phase.value, target.value), []).append(received.__name__)
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> new"]
    lines += [f"    {a} --> {b}: {', '.join(names)}" for (a, b), names in arrows.items()]
    return "\n".join([*lines, "    closed --> [*]", "```", ""])


def with_drawing(text: str) -> str:
    """Return the document with the drawing in its place."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}{drawing()}{_END}{after}"


if __name__ == "__main__":
    for document in DOCUMENTS:
        document.write_text(with_drawing(document.read_text()))
