"""Tool declarations: what the client declared, checked; whose each is says `engine.api.ownership`."""

from __future__ import annotations

import msgspec

from engine.api import checks
from engine.api.file_search import FILE_SEARCH, FileSearchTool, parse_file_search
from engine.api.mcp import McpTool, check_labels, parse_mcp_tool
from engine.api.ownership import (
    NO_POLICY,
    ProvidedTool,
    ToolPolicy,
    UpstreamTool,
    declared_label,
    parse_provided,
    parse_upstream,
)
from engine.errors import InvalidRequest

_FUNCTION_NAME = checks.matching(r"[a-zA-Z0-9_.-]{1,64}")
_FUNCTION_KEYS = ("type", "name", "description", "parameters", "strict")
_OWNED_LATER = (
    "web_search", "web_search_2025_08_26", "web_search_preview",
    "web_search_preview_2025_03_11", "code_interpreter",
)  # fmt: skip


class FunctionTool(msgspec.Struct, frozen=True):
    """A function of the client's, as declared; `strict` None means that the client did not say."""

    name: str
    description: str | None
    parameters: dict[str, object] | None
    strict: bool | None

    def shown(self) -> dict[str, object]:
        """Return the echo in the response object; all keys present (Open Responses wants them)."""
        return {
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
            "strict": self.strict,
        }

    def sent(self) -> dict[str, object]:
        """Return what the model server is sent: no nulls, and always a schema."""
        tool: dict[str, object] = {"type": "function", "name": self.name}
        if self.description is not None:
            tool["description"] = self.description
        tool["parameters"] = self.parameters or {"type": "object", "properties": {}}
        if self.strict is not None:
            tool["strict"] = self.strict
        return tool


OwnedTool = McpTool | ProvidedTool | FileSearchTool
"""Whatever the gateway runs."""

Tool = FunctionTool | OwnedTool | UpstreamTool


def parse_tools(
    value: object, param: str, *, most: int, policy: ToolPolicy = NO_POLICY
) -> tuple[Tool, ...]:
    """Check `tools`; raises InvalidRequest for a type that is nobody's."""
    declared = checks.array(value, param)
    if len(declared) > most:
        raise checks.wrong_value(len(declared), param, f"at most {most} tools")
    tools = tuple(_parse_tool(tool, f"{param}[{i}]", policy) for i, tool in enumerate(declared))
    check_labels([(f"{param}[{i}]", label) for i, t in enumerate(tools) if (label := _label(t))])
    seen: set[str] = set()
    for index, tool in enumerate(tools):
        if not isinstance(tool, FunctionTool):
            continue
        if tool.name in seen:
            raise checks.wrong_value(
                tool.name, f"{param}[{index}].name", "each function to be declared once"
            )
        seen.add(tool.name)
    return tools


def _label(tool: Tool) -> str | None:
    """Return what the calls of a tool are shown under, which no two may share."""
    match tool:
        case McpTool() | ProvidedTool() | FileSearchTool():
            return tool.server_label
        case UpstreamTool():
            return tool.label
        case FunctionTool():
            return None


def _parse_tool(value: object, param: str, policy: ToolPolicy) -> Tool:
    tool = checks.mapping(value, param)
    kind = checks.string(checks.required(tool, "type", param), f"{param}.type")
    match policy.owner(kind, declared_label(tool, param)):
        case "client":
            return _parse_function(tool, param)
        case "upstream":
            return parse_upstream(tool, param)
        case "owned":
            return _parse_owned(kind, tool, param)
        case None:
            pass
    if kind == FILE_SEARCH:
        raise checks.unsupported(
            f"{param}.type",
            "files cannot be searched here: that needs embeddings and an index (settings "
            "embeddings.source and index.kind).",
        )
    if kind in _OWNED_LATER:
        raise checks.unsupported(f"{param}.type", f"tools of type '{kind}' cannot be run here.")
    raise checks.unsupported(
        f"{param}.type", f"tools of type '{kind}' are not known; use 'function' or 'mcp'."
    )


def _parse_owned(kind: str, tool: dict[str, object], param: str) -> OwnedTool:
    if kind == "mcp":
        return parse_mcp_tool(tool, param)
    return parse_file_search(tool, param) if kind == FILE_SEARCH else parse_provided(tool, param)


def _parse_function(tool: dict[str, object], param: str) -> FunctionTool:
    if "function" in tool:
        raise InvalidRequest(
            f"'{param}' has the form of Chat Completions; the Responses API has the keys of "
            f"'{param}.function' beside 'type'.",
            param=f"{param}.function",
            code="unknown_parameter",
        )
    checks.only_keys(tool, _FUNCTION_KEYS, param)
    description = tool.get("description")
    parameters = tool.get("parameters")
    strict = tool.get("strict")
    return FunctionTool(
        name=str(_FUNCTION_NAME(checks.required(tool, "name", param), f"{param}.name")),
        description=None
        if description is None
        else checks.string(description, f"{param}.description"),
        parameters=None
        if parameters is None
        else checks.any_object(parameters, f"{param}.parameters"),
        strict=None if strict is None else checks.boolean(strict, f"{param}.strict"),
    )
