"""What can be told to the meters is told to them by somebody."""

from __future__ import annotations

import ast
from pathlib import Path

import engine
from engine.ports.meters import Meters

_ROOT = Path(engine.__file__).parents[1]
_PORT = "engine/ports/meters.py"
_ADAPTER = "extproc/metrics"


def test_each_method_of_the_meters_has_a_caller() -> None:
    """A metric that nobody feeds stays 0, and its alert is silent for ever."""
    told = {name for name, value in vars(Meters).items() if callable(value) and name[0] != "_"}
    called: set[str] = set()
    for part in ("engine", "extproc", "storage"):
        for file in (_ROOT / part).rglob("*.py"):
            place = file.relative_to(_ROOT).as_posix()
            if place != _PORT and not place.startswith(_ADAPTER):
                called |= _calls_of_meters(ast.parse(file.read_text(encoding="utf-8")))
    assert told - called == set()


def _calls_of_meters(tree: ast.Module) -> set[str]:
    """Return the names that are called on something named `meters`."""
    found = set()
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner = node.func.value
        name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
        if name.lstrip("_") == "meters":
            found.add(node.func.attr)
    return found
