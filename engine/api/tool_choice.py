"""`tool_choice` in all its forms, checked against the declared tools (rule T4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from engine.api import checks
from engine.api.file_search import FileSearchTool
from engine.api.mcp import McpTool
from engine.api.ownership import ProvidedTool, UpstreamTool

_WORDS = ("none", "auto", "required")


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the tools of a request.

    `servers` are labels of owned tools, all tools of which are meant, `tools` some of theirs, (label, own
    name) each; `upstream` holds types of the model server's own tools, and labels of its servers.
    """

    functions: frozenset[str] = frozenset()
    servers: frozenset[str] = frozenset()
    tools: frozenset[tuple[str, str]] = frozenset()
    upstream: frozenset[str] = frozenset()

    def __or__(self, other: Selection) -> Selection:
        """Return what is in one or the other."""
        return Selection(
            functions=self.functions | other.functions,
            servers=self.servers | other.servers,
            tools=self.tools | other.tools,
            upstream=self.upstream | other.upstream,
        )

    def has(self, key: tuple[str, str]) -> bool:
        """True if an owned tool is in it."""
        return key[0] in self.servers or key in self.tools

    def has_upstream(self, tool: UpstreamTool) -> bool:
        """True if a tool of the model server's is in it."""
        return (tool.kind if tool.label is None else tool.label) in self.upstream


class ToolChoice(msgspec.Struct, frozen=True):
    """`tool_choice` as asked (`shown`), and what follows from it for the model call.

    `sent` is None where the server's default will do. `allowed` are the tools that may be called, None for
    all. `forced` are owned tools of which the first turn has to call one: what is sent then depends on
    their list.
    """

    shown: object = "auto"
    sent: object | None = None
    allowed: Selection | None = None
    forced: Selection | None = None

    def allows_function(self, name: str) -> bool:
        """True if a function of the client's may be called."""
        return self.allowed is None or name in self.allowed.functions

    def allows_owned(self, key: tuple[str, str]) -> bool:
        """True if an owned tool, (label, own name), may be called."""
        if self.sent == "none":
            return False
        return self.allowed is None or self.allowed.has(key)


class Declared(msgspec.Struct, frozen=True):
    """The names by which a choice can mean the declared tools."""

    functions: frozenset[str]
    servers: frozenset[str]
    provided: frozenset[str]
    upstream_types: frozenset[str]
    upstream_labels: frozenset[str]

    @classmethod
    def of(cls, tools: Sequence[object], functions: frozenset[str]) -> Declared:
        """Return those of the tools of a request."""
        upstream = [tool for tool in tools if isinstance(tool, UpstreamTool)]
        return cls(
            functions,
            frozenset(t.server_label for t in tools if isinstance(t, McpTool | ProvidedTool)),
            frozenset(
                t.server_label for t in tools if isinstance(t, ProvidedTool | FileSearchTool)
            ),
            frozenset(t.kind for t in upstream if t.label is None),
            frozenset(t.label for t in upstream if t.label is not None),
        )


def parse_tool_choice(
    value: object, param: str, tools: Sequence[object], functions: frozenset[str]
) -> ToolChoice:
    """Check `tool_choice`; `functions` are the names of the client's own tools."""
    if isinstance(value, str):
        word = str(checks.one_of(*_WORDS)(value, param))
        if word == "required" and not tools:
            raise checks.wrong_value(word, param, "'tools' to be given with it")
        # A server that gets `none` without tools, or `auto`, is told nothing that it would not do.
        return ToolChoice(shown=word, sent=word if tools and word != "auto" else None)
    choice = checks.mapping(value, param)
    declared = Declared.of(tools, functions)
    if checks.required(choice, "type", param) == "allowed_tools":
        return _allowed_tools(choice, param, declared)
    selected = _selected(choice, param, declared)
    if selected.servers or selected.tools:
        return ToolChoice(shown=choice, forced=selected)
    return ToolChoice(shown=choice, sent=choice)


def _allowed_tools(choice: dict[str, object], param: str, declared: Declared) -> ToolChoice:
    checks.only_keys(choice, ("type", "mode", "tools"), param)
    asked = "auto" if choice.get("mode") is None else choice["mode"]
    mode = str(checks.one_of("auto", "required")(asked, f"{param}.mode"))
    listed = checks.array(checks.required(choice, "tools", param), f"{param}.tools")
    if not listed:
        raise checks.wrong_value("[]", f"{param}.tools", "at least one tool")
    allowed = Selection()
    for index, entry in enumerate(listed):
        path = f"{param}.tools[{index}]"
        allowed |= _selected(checks.mapping(entry, path), path, declared)
    # The model is shown the allowed tools only: the one way to make `required` mean one of them.
    return ToolChoice(
        shown={**choice, "mode": mode},
        sent=mode if mode == "required" else None,
        allowed=allowed,
    )


def _selected(choice: Mapping[str, object], param: str, declared: Declared) -> Selection:
    """Return what one entry means; raises InvalidRequest for what is not declared."""
    kind = checks.string(checks.required(choice, "type", param), f"{param}.type")
    if kind == "function":
        return _function(choice, param, declared)
    if kind == "mcp" and (declared.servers or declared.upstream_labels):
        return _server(choice, param, declared)
    if kind in declared.provided:
        checks.only_keys(choice, ("type", "name"), param)
        return _owned(kind, choice, param)
    if kind in declared.upstream_types:
        checks.only_keys(choice, ("type",), param)
        return Selection(upstream=frozenset((kind,)))
    raise checks.unsupported(f"{param}.type", f"'{kind}' names no tool that is declared.")


def _function(choice: Mapping[str, object], param: str, declared: Declared) -> Selection:
    checks.only_keys(choice, ("type", "name"), param)
    named = checks.string(checks.required(choice, "name", param), f"{param}.name")
    if named not in declared.functions:
        raise checks.wrong_value(named, f"{param}.name", "the name of a tool in 'tools'")
    return Selection(functions=frozenset((named,)))


def _server(choice: Mapping[str, object], param: str, declared: Declared) -> Selection:
    checks.only_keys(choice, ("type", "server_label", "name"), param)
    where = f"{param}.server_label"
    label = checks.string(checks.required(choice, "server_label", param), where)
    if label in declared.servers:
        return _owned(label, choice, param)
    if label not in declared.upstream_labels:
        raise checks.wrong_value(label, where, "the label of a server in 'tools'")
    if choice.get("name") is not None:
        raise checks.unsupported(
            f"{param}.name", "the tools of a server that the model server runs are not known here."
        )
    return Selection(upstream=frozenset((label,)))


def _owned(label: str, choice: Mapping[str, object], param: str) -> Selection:
    name = choice.get("name")
    if name is None:
        return Selection(servers=frozenset((label,)))
    return Selection(tools=frozenset(((label, checks.string(name, f"{param}.name")),)))
