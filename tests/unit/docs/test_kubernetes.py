"""docs/kubernetes.md is in step with the chart."""

from __future__ import annotations

import re

from extproc.settings import Settings
from tests.support.chart import SHAPES
from tests.support.values_table import DOCUMENT, with_table


def test_the_table_of_values_is_up_to_date() -> None:
    """Every value, with its default and what values.yaml says of it."""
    text = DOCUMENT.read_text(encoding="utf-8")

    assert text == with_table(text), "run `make docs`"
    assert "| `gateway.drain.mostSeconds` | `60` |" in text


def test_every_shape_is_told_of() -> None:
    """A row in the table of shapes, and settings that there are."""
    text = DOCUMENT.read_text(encoding="utf-8")
    settings = {f"{path[0]}.{path[1]}" for path in Settings.paths().values() if len(path) == 2}
    sections = "|".join(Settings.SECTIONS)
    named = set(re.findall(rf"`((?:{sections})\.[a-z]+_[a-z_]+)`", text.partition("## Values")[0]))

    assert all(f"| `{shape}` |" in text for shape in SHAPES)
    assert named <= settings
