"""The request that a server with nothing but `/v1/chat/completions` is sent (rules M2, M4, M9).

As in `engine.context.upstream`, what stays the same from turn to turn stands first, the messages last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from engine.api import checks
from engine.api.json import encode
from engine.api.request import FIELDS, CreateRequest
from engine.context.chat_messages import chat_messages
from engine.context.sent_tools import SentTools, sent_tools
from engine.upstream.servers import UNKNOWN, Server

Fields = dict[str, object]

# What is asked of a server for our own sake: where it is not taken, the answer is as good without.
_OURS = frozenset({"stream_options", "parallel_tool_calls"})
# Of chat fields that have another name in a client's request.
_PARAMS = {
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
    "reasoning_effort": "reasoning.effort",
    "logprobs": "include",
}


def chat_request(
    request: CreateRequest,
    items: Iterable[bytes],
    owned: Sequence[Fields] = (),
    *,
    first: bool = True,
    forced: object | None = None,
    server: Server = UNKNOWN,
) -> bytes:
    """Return the JSON body of a model turn; `items` are replayed items.

    `owned` are the tools that the gateway runs; `first` and `forced` as for `engine.context.sent_tools`.
    Fields that the `server` does not take are left out; `check_fields` says which may be.
    """
    instructions = request.values.get("instructions")
    text = instructions if isinstance(instructions, str) else None
    messages = chat_messages(text, items, reasoning_key=server.reasoning_key)
    head = encode(_taken(_parameters(request, owned, first=first, forced=forced), server))
    return b'%b,"messages":[%b]}' % (head[:-1], b",".join(map(encode, messages)))


def check_fields(request: CreateRequest, server: Server) -> None:
    """Refuse what the server does not honour; raises InvalidRequest with the client's name of it."""
    if request.upstream:
        raise checks.unsupported("tools", "chat completions have no tools that the server runs.")
    sent = _parameters(request)
    # Not to call any tool is a wish that needs no server's help.
    unasked = {"tool_choice", "tools"} if sent.get("tool_choice") == "none" else set()
    for name in sorted(sent.keys() - _taken(sent, server).keys() - _OURS - unasked):
        raise checks.unsupported(
            _PARAMS.get(name, name), f"the model server ({server.name}) does not honour it."
        )


def _taken(sent: Fields, server: Server) -> Fields:
    """Return the fields that a server takes; without any `tool_choice`, none means no tools."""
    takes = server.takes
    if takes is None:
        return sent
    without = {"tools"} if sent.get("tool_choice") == "none" and "tool_choice" not in takes else ()
    return {name: value for name, value in sent.items() if name in takes and name not in without}


def _parameters(
    request: CreateRequest,
    owned: Sequence[Fields] = (),
    *,
    first: bool = True,
    forced: object | None = None,
) -> Fields:
    tools = sent_tools(request, owned, first=first, forced=forced)
    sent: Fields = {"model": request.model, **_tools(request, tools)}
    for name, field in FIELDS.items():
        value = request.values.get(name)
        if not field.forward or value is None:
            continue
        translate = _TRANSLATED.get(name)
        sent.update({name: value} if translate is None else translate(value))
    if request.logprobs:
        sent["logprobs"] = True
        sent["top_logprobs"] = request.values.get("top_logprobs", 0)
    # Turns are always streamed; only this makes a server count its tokens then.
    sent["stream"] = True
    sent["stream_options"] = {"include_usage": True}
    return sent


def _tools(request: CreateRequest, tools: SentTools) -> Fields:
    sent: Fields = {}
    if tools.declared:
        sent["tools"] = list(map(_tool, tools.declared))
        if not request.parallel_tool_calls:
            sent["parallel_tool_calls"] = False
    if tools.choice is not None:
        sent["tool_choice"] = _choice(tools.choice)
    return sent


def _tool(declared: Fields) -> Fields:
    function = {key: value for key, value in declared.items() if key != "type"}
    return {"type": "function", "function": function}


def _choice(choice: object) -> object:
    if isinstance(choice, dict):
        return {"type": "function", "function": {"name": choice["name"]}}
    return choice


# -- fields that have another name or form in chat -----------------------------------------------------


def _nothing(_value: object) -> Fields:
    """For what stands elsewhere in the request."""
    return {}


def _max_tokens(value: object) -> Fields:
    # Ollama and LM Studio know only the older name.
    return {"max_tokens": value}


def _reasoning(value: object) -> Fields:
    effort = value.get("effort") if isinstance(value, dict) else None
    return {} if effort is None else {"reasoning_effort": effort}


def _text(value: object) -> Fields:
    given: Mapping[str, object] = value if isinstance(value, dict) else {}
    sent: Fields = {}
    if given.get("verbosity") is not None:
        sent["verbosity"] = given["verbosity"]
    chosen = given.get("format")
    if not isinstance(chosen, dict) or chosen["type"] == "text":
        return sent
    if chosen["type"] == "json_object":
        return {**sent, "response_format": {"type": "json_object"}}
    schema = {key: entry for key, entry in chosen.items() if key != "type"}
    return {**sent, "response_format": {"type": "json_schema", "json_schema": schema}}


_TRANSLATED: Mapping[str, Callable[[object], Fields]] = {
    "model": _nothing,
    "instructions": _nothing,
    "top_logprobs": _nothing,
    "max_output_tokens": _max_tokens,
    "reasoning": _reasoning,
    "text": _text,
}
