"""The turns of a response for which the gateway runs tools: what each of them is asked.

Made from the checked request, so that another worker makes the same one. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from engine.api.file_search import CALL, DEFINITION, FileSearchTool
from engine.api.json import encode
from engine.api.mcp import McpTool
from engine.api.request import CreateRequest
from engine.api.tool_choice import Selection
from engine.api.tools import FunctionTool
from engine.context.listed import Shown, listing_key_of
from engine.context.sources import NO_SOURCES, Sources
from engine.context.tool_names import ToolKey, shown_names
from engine.errors import InvalidRequest
from engine.ports import StoredItem, ToolDefinition
from engine.response.call_terms import CallTerms, Numbering
from engine.response.consent import ApprovedCall, Asking
from engine.response.turn import Encoder, TurnRequest
from engine.upstream.rules import turn_rules


class Listing(msgspec.Struct, frozen=True):
    """What one provider offers; `error` says why nothing could be learnt of it."""

    label: str
    tools: Sequence[ToolDefinition] = ()
    error: str | None = None

    def items(self) -> list[dict[str, object]]:
        """Return the tools as the item `mcp_list_tools` shows them."""
        return [shown_tool(tool) for tool in self.tools]

    @property
    def key(self) -> str:
        """What tells the list from others (`engine.context.listed`)."""
        return listing_key_of(self.label, encode({"tools": self.items()}))


def shown_tool(tool: ToolDefinition) -> dict[str, object]:
    """Return a tool as a list of a server's tools shows it."""
    return {
        "name": tool.name,
        "description": tool.description,
        "input_schema": msgspec.Raw(tool.parameters),
        "annotations": None if tool.annotations is None else msgspec.Raw(tool.annotations),
    }


class OwnedTools(msgspec.Struct, frozen=True):
    """The tools that the gateway runs, once they are listed.

    `names` leads from a tool to the name that the model is shown, `keys` back; also of tools that must not be
    called, so that a call of one is known for what it is. `sent` are the declarations of the others, and
    `functions` the same as functions that a call may name. `kinds` are the types of the items that show a
    provider's calls, by label, where those are not an MCP server's, and `terms` what they are shown by.
    `forced` is a choice for the first turn, which is shown `first` then; `problem` is why there can be no
    turn at all. `guarded` are the tools whose calls need consent, by server, and `asking` how that is asked
    for.
    """

    names: Mapping[ToolKey, str] = {}
    keys: Mapping[str, ToolKey] = {}
    sent: Sequence[dict[str, object]] = ()
    functions: Sequence[FunctionTool] = ()
    guarded: Mapping[ToolKey, McpTool] = {}
    asking: Asking = Asking()
    kinds: Mapping[str, str] = {}
    terms: CallTerms = msgspec.field(default_factory=CallTerms)
    forced: object | None = None
    first: Sequence[dict[str, object]] = ()
    problem: InvalidRequest | None = None


class Agenda(msgspec.Struct, frozen=True, kw_only=True):
    """`replay` is what the model is sent of history and input; `most_turns` caps the turns (rule T4).

    `approved` are calls to be made before the first turn. `shown` are the lists of tools that the thread has
    shown already. `asking` is how consent is asked for. `sources` is what history and input have found.
    """

    request: CreateRequest
    encoder: Encoder
    replay: list[bytes]
    headers: Mapping[str, str]
    most_turns: int
    approved: tuple[ApprovedCall, ...] = ()
    shown: Shown = Shown()
    asking: Asking = Asking()
    sources: Sources = NO_SOURCES

    @property
    def labels(self) -> list[str]:
        """The providers, in the order of their declarations."""
        return [tool.server_label for _, tool in self.request.owned]

    @property
    def built_in(self) -> Mapping[str, Listing]:
        """The providers whose tools everybody knows, by label: no list of them is shown."""
        tools = [tool for _, tool in self.request.owned if isinstance(tool, FileSearchTool)]
        return {tool.server_label: Listing(tool.server_label, [DEFINITION]) for tool in tools}

    def tools(self, listings: Iterable[Listing]) -> OwnedTools:
        """Return the owned tools, those that `tool_choice` rules out without a declaration (rule T4)."""
        choice = self.request.tool_choice
        offered = {(one.label, tool.name): tool for one in listings for tool in one.tools}
        taken = {function.name for function in self.request.functions}
        names = shown_names(list(offered), taken)
        # With `none` the tools are declared all the same: the prompt begins with them.
        shown = [key for key in offered if choice.allowed is None or choice.allowed.has(key)]
        sent = {key: _declared(names[key], offered[key]) for key in shown}
        owned = OwnedTools(
            names=names,
            keys={name: key for key, name in names.items()},
            sent=list(sent.values()),
            functions=[_function(names[key], offered[key]) for key in shown],
            guarded=self._guarded(offered),
            asking=self.asking,
            kinds=dict.fromkeys(self.built_in, CALL),
            terms=CallTerms(self.request.included, Numbering(self.sources.next)),
        )
        return owned if choice.forced is None else _forced(owned, choice.forced, sent)

    def unshown(self, listings: Iterable[Listing]) -> tuple[Listing, ...]:
        """Return the lists that the client has to be shown: the others were, in this thread (rule T5)."""
        built_in = self.built_in
        return tuple(
            one for one in listings if one.label not in built_in and not self.is_shown(one)
        )

    def is_shown(self, listing: Listing) -> bool:
        """True if the thread has shown this very list; a failure is told each time."""
        known = self.shown.keys.get(listing.label)
        return listing.error is None and known is not None and known == listing.key

    def _guarded(self, offered: Mapping[ToolKey, ToolDefinition]) -> Mapping[ToolKey, McpTool]:
        servers = {server.server_label: server for _, server in self.request.servers}
        return {
            key: servers[key[0]]
            for key, tool in offered.items()
            if key[0] in servers
            and servers[key[0]].approval.needed(tool.name, read_only=tool.read_only)
        }

    def turn(self, tools: OwnedTools, made: Sequence[StoredItem], *, first: bool) -> TurnRequest:
        """Return the next turn: the first one's input, and behind it what was `made` since (rule M9)."""
        replayed = (item.replay for item in made if item.replay is not None)
        request, forced = self.request, tools.forced if first else None
        body = self.encoder.encode(
            request,
            [*self.replay, *replayed],
            tools.first if forced is not None else tools.sent,
            first=first,
            forced=forced,
        )
        rules = turn_rules(
            request, tools.functions, known=tools.keys, tells_cuts=self.encoder.tells_cuts
        )
        rules = msgspec.structs.replace(rules, sources=self.sources + Sources.of(made))
        return TurnRequest(body, self.headers, rules, self.encoder.name)


def _forced(
    owned: OwnedTools, forced: Selection, sent: Mapping[ToolKey, dict[str, object]]
) -> OwnedTools:
    """Return the tools with the choice of some of them: by its name one, of several any."""
    chosen = {key: tool for key, tool in sent.items() if forced.has(key)}
    if not chosen:
        problem = InvalidRequest(
            "'tool_choice' wants a tool that its server does not offer.",
            param="tool_choice",
            code="invalid_value",
        )
        return msgspec.structs.replace(owned, problem=problem)
    if len(chosen) == 1:
        [key] = chosen
        choice: object = {"type": "function", "name": owned.names[key]}
        return msgspec.structs.replace(owned, forced=choice, first=owned.sent)
    return msgspec.structs.replace(owned, forced="required", first=list(chosen.values()))


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
