"""ARCHITECTURE.md and docs/concepts.md tell what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.machine_drawing import DOCUMENTS, with_drawing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_drawn_machine_is_the_table(document: Path) -> None:
    """H3: the drawing is made from TRANSITIONS; `make docs` brings it up to date."""
    text = document.read_text()
    assert "stateDiagram-v2" in text
    assert with_drawing(text) == text
