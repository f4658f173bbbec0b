"""A tool of one's own in one file: dice. docs/tools.md tells how it is plugged in; a test runs it."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from engine.errors import InvalidRequest
from engine.ports import ToolDeclaration, ToolDefinition, ToolOutcome, ToolProvider

_SCHEMA = {
    "type": "object",
    "properties": {"dice": {"type": "integer", "minimum": 1, "maximum": 100}},
    "required": ["dice"],
}


class Dice:
    """Rolls dice with as many sides as the request declared."""

    def __init__(self, label: str, sides: int) -> None:
        self.label = label
        self._sides = sides

    async def definitions(self, *, timeout: float) -> Sequence[ToolDefinition]:
        """Return the tools: asked once, before the model's first turn."""
        return [
            ToolDefinition(
                name="roll",
                description=f"Rolls dice with {self._sides} sides and returns what they show.",
                parameters=json.dumps(_SCHEMA).encode(),
                read_only=True,
            )
        ]

    async def call(self, name: str, arguments: bytes, *, timeout: float) -> ToolOutcome:
        """Return what becomes of a call; what the model did wrong is an outcome, not an exception."""
        try:
            dice = json.loads(arguments)["dice"]
            assert isinstance(dice, int)
            assert 1 <= dice <= 100
        except (ValueError, KeyError, TypeError, AssertionError):
            return _failure("'dice' has to be a number from 1 to 100.")
        shown = [random.randint(1, self._sides) for _ in range(dice)]
        return ToolOutcome(text=json.dumps(shown))


def _failure(why: str) -> ToolOutcome:
    error = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": why}]}
    return ToolOutcome(text=why, error=json.dumps(error).encode())


def open_dice(declared: ToolDeclaration) -> ToolProvider:
    """Return the provider for one request: `{"type": "dice", "sides": 20}`."""
    sides = declared.fields.get("sides", 6)
    unknown = set(declared.fields) - {"sides"}
    if unknown or not isinstance(sides, int) or sides < 2:
        raise InvalidRequest(
            "Dice have 'sides', a number from 2 on, and nothing else.",
            param=declared.param,
            code="invalid_value",
        )
    return Dice(declared.label, sides)
