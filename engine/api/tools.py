"""Tool declarations and `tool_choice`: what the client declared, and what the model is told.

A `function` is the client's: its calls are returned to the caller. An `mcp` server's tools are owned: the
gateway lists and calls them (engine.api.mcp).
"""

from __future__ import annotations

import msgspec

from engine.api import checks
from engine.api.mcp import McpTool, check_labels, parse_mcp_tool
from engine.errors import InvalidRequest

_FUNCTION_NAME = checks.matching(r"[a-zA-Z0-9_.-]{1,64}")
_FUNCTION_KEYS = ("type", "name", "description", "parameters", "strict")
_CHOICE_WORDS = ("none", "auto", "required")
_OWNED_LATER = (
    "file_search", "web_search", "web_search_2025_08_26", "web_search_preview",
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


Tool = FunctionTool | McpTool


class ToolChoice(msgspec.Struct, frozen=True):
    """`tool_choice` as asked (`shown`), and what follows from it for the model call.

    `sent` is None where the server's default will do. `allowed` holds the names that the model may
    call, None for all.
    """

    shown: object = "auto"
    sent: object | None = None
    allowed: frozenset[str] | None = None


def parse_tools(value: object, param: str, *, most: int) -> tuple[Tool, ...]:
    """Check `tools`; raises InvalidRequest for a type that we cannot run or return."""
    declared = checks.array(value, param)
    if len(declared) > most:
        raise checks.wrong_value(len(declared), param, f"at most {most} tools")
    tools = tuple(_parse_tool(tool, f"{param}[{i}]") for i, tool in enumerate(declared))
    check_labels([(f"{param}[{i}]", t) for i, t in enumerate(tools) if isinstance(t, McpTool)])
    seen: set[str] = set()
    for index, tool in enumerate(tools):
        if isinstance(tool, McpTool):
            continue
        if tool.name in seen:
            raise checks.wrong_value(
                tool.name, f"{param}[{index}].name", "each function to be declared once"
            )
        seen.add(tool.name)
    return tools


def _parse_tool(value: object, param: str) -> Tool:
    tool = checks.mapping(value, param)
    kind = checks.string(checks.required(tool, "type", param), f"{param}.type")
    if kind == "mcp":
        return _parse_server(value, param)
    if kind in _OWNED_LATER:
        raise checks.unsupported(f"{param}.type", f"tools of type '{kind}' cannot be run here.")
    if kind != "function":
        raise checks.unsupported(
            f"{param}.type", f"tools of type '{kind}' are not known; use 'function' or 'mcp'."
        )
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
        else checks.mapping(parameters, f"{param}.parameters"),
        strict=None if strict is None else checks.boolean(strict, f"{param}.strict"),
    )


def _parse_server(value: object, param: str) -> McpTool:
    server = parse_mcp_tool(value, param)
    if server.connector_id is not None:
        raise checks.unsupported(
            f"{param}.connector_id", "there are no connectors here; give a 'server_url'."
        )
    return server


def parse_tool_choice(value: object, param: str, tools: tuple[Tool, ...]) -> ToolChoice:
    """Check `tool_choice` in all its forms against the declared tools."""
    if isinstance(value, str):
        word = str(checks.one_of(*_CHOICE_WORDS)(value, param))
        if word == "required" and not tools:
            raise checks.wrong_value(word, param, "'tools' to be given with it")
        # A server that gets `none` without tools, or `auto`, is told nothing that it would not do.
        return ToolChoice(shown=word, sent=word if tools and word != "auto" else None)
    choice = checks.mapping(value, param)
    kind = checks.string(checks.required(choice, "type", param), f"{param}.type")
    names = {tool.name for tool in tools if isinstance(tool, FunctionTool)}
    if kind == "function":
        checks.only_keys(choice, ("type", "name"), param)
        named = _declared(choice, param, names)
        return ToolChoice(shown=choice, sent={"type": "function", "name": named})
    if kind == "allowed_tools":
        return _allowed_tools(choice, param, names)
    raise checks.unsupported(f"{param}.type", f"'{kind}' names no tool that can be declared here.")


def _allowed_tools(choice: dict[str, object], param: str, names: set[str]) -> ToolChoice:
    checks.only_keys(choice, ("type", "mode", "tools"), param)
    asked = "auto" if choice.get("mode") is None else choice["mode"]
    mode = str(checks.one_of("auto", "required")(asked, f"{param}.mode"))
    listed = checks.array(checks.required(choice, "tools", param), f"{param}.tools")
    allowed = set()
    for index, entry in enumerate(listed):
        path = f"{param}.tools[{index}]"
        tool = checks.mapping(entry, path)
        checks.one_of("function")(checks.required(tool, "type", path), f"{path}.type")
        allowed.add(_declared(tool, path, names))
    if not allowed:
        raise checks.wrong_value("[]", f"{param}.tools", "at least one tool")
    # The model is shown the allowed tools only: the one way to make `required` mean one of them.
    return ToolChoice(
        shown={**choice, "mode": mode},
        sent=mode if mode == "required" else None,
        allowed=frozenset(allowed),
    )


def _declared(choice: dict[str, object], param: str, names: set[str]) -> str:
    named = checks.string(checks.required(choice, "name", param), f"{param}.name")
    if named not in names:
        raise checks.wrong_value(named, f"{param}.name", "the name of a tool in 'tools'")
    return named
