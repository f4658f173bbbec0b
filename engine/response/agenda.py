"""The turns of a response for which the gateway runs tools: what each of them is asked.

Made from the checked request, so that another worker makes the same one. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from engine.api.request import CreateRequest
from engine.api.tools import FunctionTool
from engine.context.tool_names import ToolKey, shown_names
from engine.ports import ToolDefinition
from engine.response.turn import Encoder, TurnRequest
from engine.upstream.rules import turn_rules


class Listing(msgspec.Struct, frozen=True):
    """What one provider offers; `error` says why nothing could be learnt of it."""

    label: str
    tools: Sequence[ToolDefinition] = ()
    error: str | None = None


class OwnedTools(msgspec.Struct, frozen=True):
    """The tools that the gateway runs, once they are listed.

    `names` leads from a tool to the name that the model is shown, `keys` back; `sent` are declarations, and
    `functions` the same as functions that a call may name.
    """

    names: Mapping[ToolKey, str] = {}
    keys: Mapping[str, ToolKey] = {}
    sent: Sequence[dict[str, object]] = ()
    functions: Sequence[FunctionTool] = ()


class Agenda(msgspec.Struct, frozen=True, kw_only=True):
    """`replay` is what the model is sent of history and input; `most_turns` caps the turns (rule T4)."""

    request: CreateRequest
    encoder: Encoder
    replay: list[bytes]
    headers: Mapping[str, str]
    most_turns: int

    @property
    def labels(self) -> list[str]:
        """The providers, in the order of their declarations."""
        return [server.server_label for _, server in self.request.servers]

    def tools(self, listings: Iterable[Listing]) -> OwnedTools:
        """Return the owned tools; none where `tool_choice` allows only functions of the client's."""
        if self.request.tool_choice.allowed is not None:
            return OwnedTools()
        offered = {(one.label, tool.name): tool for one in listings for tool in one.tools}
        taken = {function.name for function in self.request.functions}
        names = shown_names(list(offered), taken)
        return OwnedTools(
            names=names,
            keys={name: key for key, name in names.items()},
            sent=[_declared(names[key], tool) for key, tool in offered.items()],
            functions=[_function(names[key], tool) for key, tool in offered.items()],
        )

    def turn(self, tools: OwnedTools, made: Iterable[bytes], *, first: bool) -> TurnRequest:
        """Return the next turn: the first one's input, and behind it what was `made` since (rule M9)."""
        request = self.request
        body = self.encoder.encode(request, [*self.replay, *made], tools.sent, first=first)
        rules = turn_rules(request, tools.functions)
        return TurnRequest(body, self.headers, rules, self.encoder.name)


def _declared(name: str, tool: ToolDefinition) -> dict[str, object]:
    declared: dict[str, object] = {"type": "function", "name": name}
    if tool.description is not None:
        declared["description"] = tool.description
    declared["parameters"] = msgspec.Raw(tool.parameters)
    return declared


def _function(name: str, tool: ToolDefinition) -> FunctionTool:
    parameters = msgspec.json.decode(tool.parameters)
    return FunctionTool(
        name=name,
        description=tool.description,
        parameters=parameters if isinstance(parameters, dict) else None,
        strict=None,
    )
