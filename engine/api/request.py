"""`POST /v1/responses`: the body checked, field by field (rule H1).

Each field has one row in `FIELDS`: its check, and whether the model server is sent it. A field without a
row is refused; null means absent and is never forwarded (backends.md: nulls break servers).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from engine.api import checks
from engine.api.checks import Check
from engine.api.conversations import conversation_of
from engine.api.file_search import RESULTS
from engine.api.items import Entry, nothing_opens, parse_input, parse_messages
from engine.api.json import read_value
from engine.api.mcp import McpTool
from engine.api.ownership import NO_POLICY, ToolPolicy, UpstreamTool
from engine.api.tool_choice import ToolChoice, parse_tool_choice
from engine.api.tools import FunctionTool, OwnedTool, Tool, parse_tools
from engine.context.replay import replay
from engine.context.seals import Unseal
from engine.errors import InvalidRequest
from engine.ids import ItemIds
from engine.limits import Limits

LOGPROBS = "message.output_text.logprobs"
SEALED_REASONING = "reasoning.encrypted_content"
INCLUDABLE = (
    RESULTS, "web_search_call.results", "web_search_call.action.sources",
    "message.input_image.image_url", "computer_call_output.output.image_url",
    "code_interpreter_call.outputs", SEALED_REASONING, LOGPROBS,
)  # fmt: skip


class CreateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A checked request. `values` holds the simple fields that were given, by name."""

    model: str
    input: list[Entry]
    stream: bool
    store: bool
    background: bool
    previous_response_id: str | None
    conversation: str | None
    tools: tuple[Tool, ...]
    tool_choice: ToolChoice
    parallel_tool_calls: bool
    logprobs: bool
    values: Mapping[str, object]

    @property
    def functions(self) -> list[FunctionTool]:
        """The client's own tools."""
        return [tool for tool in self.tools if isinstance(tool, FunctionTool)]

    @property
    def servers(self) -> list[tuple[str, McpTool]]:
        """The MCP servers, each with the path of its declaration."""
        return [(f"tools[{i}]", t) for i, t in enumerate(self.tools) if isinstance(t, McpTool)]

    @property
    def included(self) -> frozenset[str]:
        """What is to be shown that is not without being asked for."""
        included = self.values.get("include")
        return frozenset(map(str, included)) if isinstance(included, list) else frozenset()

    @property
    def seals(self) -> bool:
        """True if reasoning is given to the client sealed too."""
        return SEALED_REASONING in self.included

    @property
    def compacts(self) -> bool:
        """True if a context that is too long is to be summarised."""
        return bool(self.values.get("context_management"))

    @property
    def compact_threshold(self) -> int | None:
        """How many tokens are too many; None: a share of the model's own context."""
        wanted = self.values.get("context_management")
        threshold = wanted[0].get("compact_threshold") if isinstance(wanted, list) else None
        return threshold if isinstance(threshold, int) else None

    @property
    def preface(self) -> list[bytes]:
        """What the model is sent before history and input: messages that were given as instructions."""
        given = self.values.get("instructions")
        sent = map(replay, given if isinstance(given, list) else ())
        return [message for message in sent if message is not None]

    @property
    def owned(self) -> list[tuple[str, OwnedTool]]:
        """Everything that the gateway runs, each with the path of its declaration."""
        return [
            (f"tools[{i}]", tool)
            for i, tool in enumerate(self.tools)
            if isinstance(tool, OwnedTool)
        ]

    @property
    def upstream(self) -> list[UpstreamTool]:
        """The tools that the model server runs itself."""
        return [tool for tool in self.tools if isinstance(tool, UpstreamTool)]

    @property
    def max_tool_calls(self) -> int | None:
        """How many calls of owned tools may be made, None for any number (rule T4)."""
        given = self.values.get("max_tool_calls")
        return given if isinstance(given, int) else None


class Field(msgspec.Struct, frozen=True):
    """How one request field is treated; `forward`: the model server is sent the value as it came."""

    check: Check
    forward: bool = False


def _not_here(why: str) -> Field:
    """Return the row of a field of the API that no value of can be honoured."""

    def check(_value: object, param: str) -> object:
        raise checks.unsupported(param, why)

    return Field(check)


def _only(value: object, why: str) -> Field:
    """Return the row of a field of which one value, the default, can be honoured."""

    def check(given: object, param: str) -> object:
        if given != value:
            raise checks.unsupported(param, why)
        return given

    return Field(check)


def _include(value: object, param: str) -> list[str]:
    names = []
    for index, entry in enumerate(checks.array(value, param)):
        path = f"{param}[{index}]"
        names.append(str(checks.one_of(*INCLUDABLE)(entry, path)))
    return names


def _text(value: object, param: str) -> dict[str, object]:
    text = checks.mapping(value, param)
    checks.only_keys(text, ("format", "verbosity"), param)
    if text.get("verbosity") is not None:
        checks.one_of("low", "medium", "high")(text["verbosity"], f"{param}.verbosity")
    if text.get("format") is not None:
        text = {**text, "format": _format(text["format"], f"{param}.format")}
    return {key: entry for key, entry in text.items() if entry is not None}


def _format(value: object, param: str) -> dict[str, object]:
    chosen = checks.mapping(value, param)
    kind = checks.required(chosen, "type", param)
    checks.one_of("text", "json_object", "json_schema")(kind, f"{param}.type")
    if kind != "json_schema":
        checks.only_keys(chosen, ("type",), param)
        return {"type": kind}
    checks.only_keys(chosen, ("type", "name", "schema", "strict", "description"), param)
    _SCHEMA_NAME(checks.required(chosen, "name", param), f"{param}.name")
    checks.any_object(checks.required(chosen, "schema", param), f"{param}.schema")
    if chosen.get("strict") is not None:
        checks.boolean(chosen["strict"], f"{param}.strict")
    if chosen.get("description") is not None:
        checks.string(chosen["description"], f"{param}.description")
    return {key: entry for key, entry in chosen.items() if entry is not None}


_SCHEMA_NAME = checks.matching(r"[a-zA-Z0-9_-]{1,64}")


def _reasoning(value: object, param: str) -> dict[str, object]:
    reasoning = checks.mapping(value, param)
    checks.only_keys(reasoning, ("effort", "summary"), param)
    if reasoning.get("effort") is not None:
        efforts = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
        checks.one_of(*efforts)(reasoning["effort"], f"{param}.effort")
    if reasoning.get("summary") is not None:
        checks.one_of("auto", "concise", "detailed")(reasoning["summary"], f"{param}.summary")
    return {key: entry for key, entry in reasoning.items() if entry is not None}


def _instructions(value: object, param: str) -> object:
    """Return a string, or messages as a prompt template has them (an extension: the API takes a string)."""
    return value if isinstance(value, str) else parse_messages(value, param)


def _stream_options(value: object, param: str) -> object:
    options = checks.mapping(value, param)
    checks.only_keys(options, ("include_obfuscation",), param)
    where = f"{param}.include_obfuscation"
    asked = options.get("include_obfuscation")
    if asked is not None and checks.boolean(asked, where):
        raise checks.unsupported(where, "streams carry no obfuscation; leave it out or false.")
    return options


def _context_management(value: object, param: str) -> object:
    entries = checks.array(value, param)
    if len(entries) > 1:
        raise checks.wrong_value(f"{len(entries)} entries", param, "at most one")
    for entry in entries:
        path = f"{param}[0]"
        wanted = checks.mapping(entry, path)
        checks.only_keys(wanted, ("type", "compact_threshold"), path)
        checks.one_of("compaction")(checks.required(wanted, "type", path), f"{path}.type")
        if wanted.get("compact_threshold") is not None:
            checks.integer(1)(wanted["compact_threshold"], f"{path}.compact_threshold")
    return value


_SENT = Field(checks.anything, forward=True)
# What the store keeps as a name, refused before the model is called.
_NAME = checks.matching(r"[^\x00-\x1f]{1,256}")

# Fields of the Responses API, then those that model servers add to it (sent as they came: the server
# that knows them judges them).
FIELDS: Mapping[str, Field] = {
    "background": Field(checks.boolean),
    "context_management": Field(_context_management),
    "conversation": Field(conversation_of),
    "frequency_penalty": Field(checks.number(-2, 2), forward=True),
    "include": Field(_include),
    "instructions": Field(_instructions, forward=True),
    "max_output_tokens": Field(checks.integer(1), forward=True),
    # Counts the calls of tools that the gateway runs.
    "max_tool_calls": Field(checks.integer(1)),
    "metadata": Field(checks.metadata),
    "model": Field(_NAME, forward=True),
    "parallel_tool_calls": Field(checks.boolean),
    "presence_penalty": Field(checks.number(-2, 2), forward=True),
    "previous_response_id": Field(checks.name),
    # The template is in the request already (engine.prompts): this names it.
    "prompt": Field(checks.any_object),
    "prompt_cache_key": Field(checks.string_up_to(1024)),
    "reasoning": Field(_reasoning, forward=True),
    "safety_identifier": Field(checks.string_up_to(128)),
    "service_tier": Field(checks.one_of("auto", "default")),
    "store": Field(checks.boolean),
    "stream": Field(checks.boolean),
    "stream_options": Field(_stream_options),
    "temperature": Field(checks.number(0, 2), forward=True),
    "text": Field(_text, forward=True),
    "top_logprobs": Field(checks.integer(0, 20), forward=True),
    "top_p": Field(checks.number(0, 1), forward=True),
    "truncation": Field(checks.one_of("auto", "disabled")),
    "user": Field(checks.string_up_to(1024)),
    "access_programs": _not_here("the gateway has no access programs."),
    "image": _not_here("images are not compressed here."),
    "moderation": _not_here("the gateway does not moderate."),
    "prompt_cache_options": _not_here("the model server caches by prefix on its own."),
    "prompt_cache_retention": _not_here("the model server caches by prefix on its own."),
    # What a client notes for itself (Codex); it has no effect on the answer.
    "client_metadata": Field(checks.any_object),
} | dict.fromkeys(
    (
        "cache_salt", "chat_template_kwargs", "ignore_eos", "include_reasoning",
        "include_stop_str_in_output", "logit_bias", "min_p", "min_tokens", "mm_processor_kwargs",
        "priority", "repetition_penalty", "seed", "skip_special_tokens",
        "spaces_between_special_tokens", "stop", "stop_token_ids", "structured_outputs", "top_k",
        "vllm_xargs",
    ),
    _SENT,
)  # fmt: skip
_PARSED_APART = ("input", "tools", "tool_choice")


Fields = Mapping[str, msgspec.Raw]
"""The top level of a request's body (`engine.api.json.read_object`), its values unparsed."""


def parse_create(
    raw: Fields,
    ids: ItemIds,
    limits: Limits,
    policy: ToolPolicy = NO_POLICY,
    unseal: Unseal = nothing_opens,
) -> CreateRequest:
    """Check the fields of a create request; raises InvalidRequest with `param`."""
    values = _simple_fields(raw)
    if "model" not in values:
        raise checks.missing("model")
    request = _request(raw, values, limits, policy)
    if bytes(raw.get("input", b"null")) != b"null":
        items = parse_input(raw["input"], ids, most=limits.input_items, unseal=unseal)
        return msgspec.structs.replace(request, input=items)
    if not request.preface:
        raise checks.missing("input")
    return request


def parse_again(raw: Fields, limits: Limits, policy: ToolPolicy = NO_POLICY) -> CreateRequest:
    """Check a request that was stored without its input; raises InvalidRequest with `param`."""
    values = _simple_fields(raw)
    if "model" not in values:
        raise checks.missing("model")
    return _request(raw, values, limits, policy)


def _request(
    raw: Mapping[str, msgspec.Raw],
    values: Mapping[str, object],
    limits: Limits,
    policy: ToolPolicy,
) -> CreateRequest:
    """Return the request, its input empty."""
    tools = _optional(raw, "tools")
    declared: tuple[Tool, ...] = ()
    if tools is not None:
        declared = parse_tools(tools, "tools", most=limits.tools, policy=policy)
    functions = frozenset(tool.name for tool in declared if isinstance(tool, FunctionTool))
    choice = _optional(raw, "tool_choice")
    include = values.get("include")
    return CreateRequest(
        model=str(values["model"]),
        input=[],
        stream=values.get("stream") is True,
        store=values.get("store") is not False,
        background=_background(values),
        previous_response_id=_text_or_none(values.get("previous_response_id")),
        conversation=_conversation(values),
        tools=declared,
        tool_choice=ToolChoice()
        if choice is None
        else parse_tool_choice(choice, "tool_choice", declared, functions),
        parallel_tool_calls=values.get("parallel_tool_calls") is not False,
        logprobs=isinstance(include, list) and LOGPROBS in include,
        values=values,
    )


def _simple_fields(raw: Mapping[str, msgspec.Raw]) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, field in raw.items():
        if name in _PARSED_APART:
            continue
        row = FIELDS.get(name)
        if row is None:
            if bytes(field) == b"null":
                continue
            hint = " The Responses API has 'input' instead." if name == "messages" else ""
            raise InvalidRequest(
                f"Unknown parameter: '{name}'.{hint}", param=name, code="unknown_parameter"
            )
        value = read_value(field, name)
        if value is not None:
            values[name] = row.check(value, name)
    return values


def _background(values: Mapping[str, object]) -> bool:
    """Return whether it runs in the background, which only what is stored can (nobody could read it)."""
    if values.get("background") is not True:
        return False
    if values.get("store") is False:
        raise checks.unsupported("background", "a response in the background needs 'store'.")
    return True


def _conversation(values: Mapping[str, object]) -> str | None:
    """Return the conversation's id; one thing at a time can be continued (rule M3)."""
    if values.get("conversation") is not None and values.get("previous_response_id") is not None:
        raise InvalidRequest(
            "Mutually exclusive parameters: 'previous_response_id' and 'conversation'. Give one of them.",
            param="previous_response_id",
            code="mutually_exclusive_parameters",
        )
    given = values.get("conversation")
    return _text_or_none(given["id"] if isinstance(given, dict) else given)


def _optional(raw: Mapping[str, msgspec.Raw], name: str) -> object | None:
    return read_value(raw[name], name) if name in raw else None


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)
