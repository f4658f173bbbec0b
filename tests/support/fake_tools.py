"""Providers of tools in the process: `engine.ports.ToolProvider` without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from engine.api.mcp import McpTool
from engine.errors import ToolsUnavailable
from engine.ports import ToolDefinition, ToolOutcome, ToolProvider


class FakeProvider:
    """Offers `tools`; answers by `outcomes`, or with the tool's name and arguments.

    `gate` is awaited in the middle of each call; `broken` is why nothing can be listed.
    """

    def __init__(
        self,
        label: str,
        *tools: str,
        outcomes: Mapping[str, ToolOutcome] | None = None,
        gate: asyncio.Event | None = None,
        broken: str | None = None,
    ) -> None:
        self.label = label
        self.calls: list[tuple[str, bytes]] = []
        self.under_way = 0
        self.most = 0
        self.given_up = 0
        self._tools = tools
        self._outcomes = outcomes or {}
        self._gate = gate
        self._broken = broken

    async def definitions(self, *, timeout: float) -> Sequence[ToolDefinition]:
        if self._broken is not None:
            raise ToolsUnavailable(self._broken)
        return [ToolDefinition(name=name, parameters=b'{"type":"object"}') for name in self._tools]

    async def call(self, name: str, arguments: bytes, *, timeout: float) -> ToolOutcome:
        self.calls.append((name, arguments))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if self._gate is not None:
                await self._gate.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        finally:
            self.under_way -= 1
        said = f"{name} {arguments.decode()}"
        return self._outcomes.get(name, ToolOutcome(text=said))


class FakeServers:
    """What opens them by their labels."""

    def __init__(self, *providers: FakeProvider) -> None:
        self._providers = {provider.label: provider for provider in providers}

    def __call__(self, tool: McpTool, _param: str, _tenant: str) -> ToolProvider:
        return self._providers[tool.server_label]

    def forget(self, label: str) -> None:
        """Have none of this label any more: to ask for it is a bug."""
        del self._providers[label]


def server(label: str, **fields: Any) -> dict[str, Any]:
    """Return the declaration of a server."""
    declared = {"type": "mcp", "server_label": label, "server_url": "https://mcp.example.com/x"}
    return {**declared, "require_approval": "never", **fields}
