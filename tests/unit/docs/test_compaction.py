"""docs/compaction.md shows what the model is asked."""

from __future__ import annotations

from pathlib import Path

from engine.context.summaries import PROMPT

_TEXT = (Path(__file__).parents[3] / "docs" / "compaction.md").read_text()


def test_the_prompt_is_the_one_that_is_sent() -> None:
    """H3: who replaces it knows what it says."""
    quoted = [line[2:] for line in _TEXT.splitlines() if line.startswith("> ")]
    assert " ".join(quoted) == PROMPT
