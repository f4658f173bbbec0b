"""docs/kubernetes.md is in step with the chart."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from extproc.settings import Settings
from tests.support.chart import SHAPES, render
from tests.support.values_table import DOCUMENT, VALUES, with_table


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


def _written() -> list[dict[str, Any]]:
    """Return the values that the document tells to write, by its order."""
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)
    return [yaml.safe_load(block) for block in blocks]


@pytest.mark.parametrize("given", _written(), ids=lambda given: ",".join(given))
def test_what_the_document_tells_to_write_can_be_installed(given: dict[str, Any]) -> None:
    """H3: each block of values beside the one for all shapes is all that its shape needs."""
    everywhere = _written()[0]

    assert render({**everywhere, **given})


def test_the_time_of_a_stream_is_that_of_the_values() -> None:
    """H3: what a stream has when its pod is told to go, in the shapes with a port."""
    values = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    times = values["settings"]["sidecar"]
    seconds = values["processor"]["lingerSeconds"] + times["drain_seconds"] + times["grace_seconds"]

    assert f"is told to go, {seconds} seconds" in " ".join(DOCUMENT.read_text().split())
