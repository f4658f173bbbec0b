"""What each kind of model server turns down in a chat request, as its source does. Pure.

All: null, and messages that chat templates fail on. Ollama: content and arguments that it cannot take apart,
a `tool_choice` that it would ignore. transformers serve: any field that it does not implement.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from extproc.demo.rejection import Rejected

Message = Mapping[str, Any]

_TRANSFORMERS_UNUSED = {
    "audio", "function_call", "functions", "logprobs", "max_completion_tokens", "metadata",
    "modalities", "n", "parallel_tool_calls", "prediction", "presence_penalty", "reasoning_effort",
    "response_format", "service_tier", "store", "stream_options", "tool_choice", "top_logprobs",
    "user", "web_search_options",
}  # fmt: skip
_TRANSFORMERS_KNOWN = {
    "frequency_penalty", "generation_config", "logit_bias", "max_tokens", "messages", "model", "seed",
    "stop", "stream", "temperature", "tools", "top_p",
}  # fmt: skip
_OLLAMA_KNOWN = {
    "frequency_penalty", "logprobs", "max_tokens", "messages", "model", "presence_penalty", "reasoning",
    "reasoning_effort", "response_format", "seed", "stop", "stream", "stream_options", "temperature",
    "tools", "top_logprobs", "top_p",
}  # fmt: skip
_PARTS = {"text", "image_url"}


def not_found() -> Rejected:
    """A server without the route."""
    return Rejected("Not Found", status=404, kind="NotFoundError")


def check(server: str, body: Mapping[str, Any]) -> None:
    """Raises Rejected as that server does."""
    _check_nulls(body)
    _check_order(body["messages"])
    for message in body["messages"]:
        _check_message(message)
    _OWN.get(server, _nothing)(body)


def _check_nulls(value: object) -> None:
    for inner in value.values() if isinstance(value, dict) else ():
        if inner is None:
            raise Rejected("null is not a value")
        _check_nulls(inner)


def _check_order(messages: list[Message]) -> None:
    """Templates want the system first, and each tool's output behind the call that it answers."""
    waiting: list[str] = []
    for place, message in enumerate(messages):
        role = message["role"]
        if role == "system" and place:
            raise Rejected("System message must be at the beginning.")
        if role == "tool":
            if message["tool_call_id"] not in waiting:
                raise Rejected("Message has tool role, but there was no previous assistant message")
            waiting.remove(message["tool_call_id"])
        elif waiting:
            raise Rejected(f"tool_calls {waiting} have no output")
        waiting += [call["id"] for call in message.get("tool_calls") or ()]
    if waiting:
        raise Rejected(f"tool_calls {waiting} have no output")


def _check_message(message: Message) -> None:
    if message["role"] not in ("system", "user", "assistant", "tool"):
        raise Rejected(f"Unexpected message role {message['role']}.")
    content = message["content"]
    for part in content if isinstance(content, list) else ():
        if part.get("type") not in _PARTS:
            raise Rejected(f"unsupported content[].type: {part.get('type')}")
    for call in message.get("tool_calls") or ():
        if call["type"] != "function" or not isinstance(
            json.loads(call["function"]["arguments"]), dict
        ):
            raise Rejected("invalid tool call arguments")


def _nothing(_body: Mapping[str, Any]) -> None:
    """For servers that pass over what they do not know."""


def _ollama(body: Mapping[str, Any]) -> None:
    if ignored := sorted(body.keys() - _OLLAMA_KNOWN):
        raise Rejected(f"would be ignored: {ignored}")
    for message in body["messages"]:
        for part in message["content"] if isinstance(message["content"], list) else ():
            url = (part.get("image_url") or {}).get("url", "data:;base64,")
            if not url.startswith(("data:;base64,", "data:image/")):
                raise Rejected("invalid image input")


def _transformers(body: Mapping[str, Any]) -> None:
    if unknown := sorted(body.keys() - _TRANSFORMERS_KNOWN - _TRANSFORMERS_UNUSED):
        raise Rejected(f"Unexpected keys in the request: {unknown}", status=422)
    if unused := sorted(body.keys() & _TRANSFORMERS_UNUSED):
        raise Rejected(f"Unsupported fields in the request: {unused}", status=422)


_OWN: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
    "ollama": _ollama,
    "transformers": _transformers,
}


def check_llamacpp_input(items: list[Mapping[str, Any]]) -> None:
    """Raises Rejected as llama.cpp's `/v1/responses` does for input items."""
    for item in items:
        if item.get("role") in ("user", "system", "developer") and item.get("content"):
            continue
        kind = "assistant" if item.get("role") == "assistant" else str(item.get("type"))
        if not _LLAMACPP.get(kind, _unknown)(item):
            raise Rejected("Cannot determine type of 'item'")


def _unknown(_item: Message) -> bool:
    return False


def _assistant(item: Message) -> bool:
    parts = item["content"]
    return (
        item.get("type") == "message"
        and isinstance(parts, list)
        and all(part["type"] == "output_text" for part in parts)
    )


_LLAMACPP: Mapping[str, Callable[[Message], bool]] = {
    "assistant": _assistant,
    "function_call": lambda item: {"arguments", "call_id", "name"} <= item.keys(),
    "function_call_output": lambda item: {"call_id", "output"} <= item.keys(),
    "reasoning": lambda item: bool("summary" in item and item["content"][0]["text"]),
}
