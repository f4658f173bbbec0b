"""Requests with MCP servers, and the model's turns that come of them."""

from __future__ import annotations

from typing import Any

from tests.support.scripted_model import Received
from tests.support.scripts import Script
from tests.support.stack import Stack


def declared(url: str, label: str = "s", **fields: Any) -> dict[str, Any]:
    """Return a server's declaration."""
    given = {"server_label": label, "server_url": url, "require_approval": "never"}
    return {"type": "mcp", **given, **fields}


class Turns:
    """Scripts for the turns of one test, chosen by how many outputs of tools the model was sent."""

    def __init__(self, stack: Stack, *scripts: Script) -> None:
        self._stack = stack
        self._seen = len(stack.model.requests)
        stack.model.script(*scripts)

    @property
    def asked(self) -> list[Received]:
        """The model calls since then."""
        return self._stack.model.requests[self._seen :]

    def outputs(self, number: int) -> list[str]:
        """The outputs of tools that a turn was sent."""
        items = self.asked[number].json["input"]
        return [i["output"] for i in items if i.get("type") == "function_call_output"]
