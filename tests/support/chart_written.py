"""Writes what the chart renders to, one file for each shape: `python -m tests.support.chart_written DIR`."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from tests.support.chart import SHAPES, manifests


def write(directory: Path) -> None:
    """Write every shape with all that it can have."""
    directory.mkdir(parents=True, exist_ok=True)
    for shape in SHAPES:
        text = yaml.safe_dump_all(manifests(shape, autoscaling={"enabled": True}))
        (directory / f"{shape}.yaml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
