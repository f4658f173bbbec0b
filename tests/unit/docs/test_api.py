"""docs/api.md tells how each request field is treated."""

from __future__ import annotations

import re
from pathlib import Path

from engine.api.request import FIELDS

_TEXT = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
_PARSED_APART = {"input", "tools", "tool_choice", "parallel_tool_calls"}


def _table() -> dict[str, str]:
    section = _TEXT.partition("## Fields of")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", section, re.MULTILINE))


def _listed_as_sent() -> set[str]:
    paragraph = _TEXT.partition("Sampling fields")[2].partition("\n\n")[0]
    return set(re.findall(r"`(\w+)`", paragraph))


def test_every_field_is_in_the_table_once() -> None:
    """H1: a reader finds every field of the API and what happens to it."""
    documented = set(_table()) | _listed_as_sent()
    assert documented == set(FIELDS) | _PARSED_APART


def test_fields_are_sent_to_the_model_as_the_table_says() -> None:
    """H1: `sent` in the docs is `forward` in the code."""
    sent = {name for name, how in _table().items() if how == "sent"} - _PARSED_APART
    forwarded = {name for name, field in FIELDS.items() if field.forward}
    assert sent | _listed_as_sent() == forwarded
