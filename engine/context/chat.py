"""The request that a server with nothing but `/v1/chat/completions` is sent (rules M2, M4, M9).

As in `engine.context.upstream`, what stays the same from turn to turn stands first, the messages last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from engine.api.json import encode
from engine.api.request import FIELDS, CreateRequest
from engine.api.tools import FunctionTool
from engine.context.chat_messages import chat_messages

Fields = dict[str, object]

# Servers read an assistant's reasoning from `reasoning_content` (vLLM, SGLang, llama.cpp, DeepSeek), some
# from `reasoning` (Ollama, OpenRouter); what they do not know they pass over.
REASONING_KEY = "reasoning_content"


def chat_request(
    request: CreateRequest, items: Iterable[bytes], *, reasoning_key: str | None = REASONING_KEY
) -> bytes:
    """Return the JSON body of a model turn; `items` are replayed items.

    `reasoning_key`: where a server reads an assistant's reasoning; None: it is not sent.
    """
    instructions = request.values.get("instructions")
    text = instructions if isinstance(instructions, str) else None
    messages = chat_messages(text, items, reasoning_key=reasoning_key)
    head = encode(_parameters(request))
    return b'%b,"messages":[%b]}' % (head[:-1], b",".join(map(encode, messages)))


def _parameters(request: CreateRequest) -> Fields:
    sent: Fields = {"model": request.model, **_tools(request)}
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


def _tools(request: CreateRequest) -> Fields:
    choice = request.tool_choice
    tools = [
        _tool(tool)
        for tool in request.tools
        if choice.allowed is None or tool.name in choice.allowed
    ]
    sent: Fields = {}
    if tools:
        sent["tools"] = tools
        if not request.parallel_tool_calls:
            sent["parallel_tool_calls"] = False
    if isinstance(choice.sent, dict):
        sent["tool_choice"] = {"type": "function", "function": {"name": choice.sent["name"]}}
    elif choice.sent is not None:
        sent["tool_choice"] = choice.sent
    return sent


def _tool(tool: FunctionTool) -> Fields:
    function = tool.sent()
    return {"type": function.pop("type"), "function": function}


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
