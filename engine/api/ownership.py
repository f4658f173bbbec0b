"""Whose a declared tool is: one table, and what a request declares of tools that are not functions (rule T3).

    function                                    client: its calls are returned to the caller
    a type or a server_label that the settings call upstream
                                                upstream: the model server runs it in a loop of its own
    mcp                                         owned: the gateway lists and calls its tools
    file_search, where there are embeddings     owned
    a type that the settings give a provider    owned
    anything else                               nobody's: the request is refused

docs/tools.md has the whole table of cases; a test compares it with `ToolPolicy.owner`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from engine.api import checks
from engine.api.file_search import FILE_SEARCH
from engine.api.mcp import LABEL, parse_url, shown_url

Owner = Literal["owned", "client", "upstream"]

# Types whose calls the caller answers: no server may take them.
CLIENT_TYPES = frozenset(
    (
        "function", "custom", "computer", "computer_use", "computer_use_preview", "shell", "local_shell",
        "apply_patch", "tool_search", "namespace", "programmatic_tool_calling",
    )
)  # fmt: skip
_SECRETS = ("authorization", "headers")


class ToolPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator decided: `provided` are the types that providers of his own stand for.

    `file_search`: files can be searched here.
    """

    upstream_types: frozenset[str] = frozenset()
    upstream_labels: frozenset[str] = frozenset()
    provided: frozenset[str] = frozenset()
    file_search: bool = False

    def owner(self, kind: str, label: str | None = None) -> Owner | None:
        """Return whose a tool of this type is (`label`: an mcp server's); None if it is nobody's."""
        if kind == "function":
            return "client"
        if kind in self.upstream_types or (kind == "mcp" and label in self.upstream_labels):
            return "upstream"
        if kind == "mcp" or kind in self.provided or (kind == FILE_SEARCH and self.file_search):
            return "owned"
        return None


NO_POLICY = ToolPolicy()
"""Without settings: nothing is upstream, and there are no providers."""


class UpstreamTool(msgspec.Struct, frozen=True):
    """A tool that the model server runs; `declared` is sent as it came. `label` is an mcp server's."""

    kind: str
    label: str | None
    declared: Mapping[str, object]

    def shown(self) -> dict[str, object]:
        """Return the echo in the response object: of a URL only the origin, as for every server."""
        url = self.declared.get("server_url")
        return {**self.declared, "server_url": shown_url(url)} if url else dict(self.declared)

    def sent(self) -> dict[str, object]:
        """Return what the model server is sent: no nulls."""
        return {key: value for key, value in self.declared.items() if value is not None}


class ProvidedTool(msgspec.Struct, frozen=True):
    """A tool of a provider that the operator has added; `fields` is all but the type."""

    kind: str
    fields: Mapping[str, object]

    @property
    def server_label(self) -> str:
        """What its calls are shown under."""
        return self.kind

    def shown(self) -> dict[str, object]:
        """Return the echo in the response object."""
        return {"type": self.kind, **self.fields}


def parse_upstream(tool: Mapping[str, object], param: str) -> UpstreamTool:
    """Check a declaration that is the model server's to judge; raises InvalidRequest for credentials."""
    checks.anything(tool, param)
    _refuse_secrets(tool, param)
    url = tool.get("server_url")
    if url is not None:
        parse_url(url, f"{param}.server_url")
    return UpstreamTool(str(tool["type"]), declared_label(tool, param), tool)


def parse_provided(tool: Mapping[str, object], param: str) -> ProvidedTool:
    """Check a declaration that is the provider's to judge; raises InvalidRequest for credentials."""
    checks.anything(tool, param)
    _refuse_secrets(tool, param)
    fields = {key: value for key, value in tool.items() if key != "type" and value is not None}
    return ProvidedTool(str(tool["type"]), fields)


def declared_label(tool: Mapping[str, object], param: str) -> str | None:
    """Return the label of an mcp server; raises InvalidRequest if it has none."""
    if tool["type"] != "mcp":
        return None
    return str(LABEL(checks.required(tool, "server_label", param), f"{param}.server_label"))


def _refuse_secrets(tool: Mapping[str, object], param: str) -> None:
    """Model servers echo and log what they are sent, and a declaration is stored (rule X4)."""
    for name in _SECRETS:
        if tool.get(name):
            raise checks.unsupported(
                f"{param}.{name}", "credentials are taken for servers that the gateway calls only."
            )
