"""ARCHITECTURE.md tells what the code does."""

from __future__ import annotations

from tests.support.machine_drawing import DOCUMENT, with_drawing


def test_the_drawn_machine_is_the_table() -> None:
    """H3: the drawing is made from TRANSITIONS; `make docs` brings it up to date."""
    text = DOCUMENT.read_text()
    assert "stateDiagram-v2" in text
    assert with_drawing(text) == text
