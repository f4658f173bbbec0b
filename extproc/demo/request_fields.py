"""Which request fields vLLM 0.32 turns down, and how; unknown ones it ignores. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from extproc.demo.ask import Ask
from extproc.demo.input_items import check_input
from extproc.demo.rejection import Rejected, crashed, invalid, matches_nothing, unknown_response
from extproc.demo.responses_wire import MAX_MODEL_LEN

Body = Mapping[str, Any]

INCLUDES = (
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
)
_SERVICE_TIERS = ("auto", "default", "flex", "scale", "priority")
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_HOSTED_TOOLS = (
    "file_search",
    "web_search",
    "web_search_2025_08_26",
    "web_search_preview",
    "web_search_preview_2025_03_11",
    "code_interpreter",
    "image_generation",
    "local_shell",
    "shell",
    "apply_patch",
    "namespace",
    "tool_search",
    "computer",
    "computer_use_preview",
)


def check_responses(body: Body) -> None:
    """Raises Rejected as vLLM 0.32 does, its response store off."""
    if "input" not in body:
        raise invalid("input", "Field required", dict(body))
    for field, check in _FIELDS.items():
        if field in body:
            check(body[field])
    _check_background(body)
    _check_tool_choice(body)
    check_input(body["input"])


def check_chat(body: Body) -> None:
    """Raises Rejected for a chat request whose messages or tools cannot be read."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise invalid("messages", "Field required", dict(body))
    for message in messages:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise matches_nothing("messages", message)
    for tool in body.get("tools") or ():
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise matches_nothing("tools", tool)


def check_length(ask: Ask) -> None:
    """Raises Rejected for a prompt that is longer than the model's window."""
    if ask.input_tokens > MAX_MODEL_LEN:
        message = (
            f"The engine prompt length {ask.input_tokens} exceeds the max_model_len "
            f"{MAX_MODEL_LEN}. Please reduce prompt."
        )
        raise Rejected(message, kind="invalid_request_error", param="input")


def _instructions(given: object) -> None:
    if not isinstance(given, str | None):
        raise invalid("instructions", "Input should be a valid string", given)


def _include(given: object) -> None:
    for name in given if isinstance(given, list) else ():
        if name not in INCLUDES:
            raise invalid("include", f"Input should be {' or '.join(INCLUDES)}", name)


def _metadata(given: object) -> None:
    if isinstance(given, Mapping) and not all(isinstance(v, str) for v in given.values()):
        raise invalid("metadata", "Input should be a valid string", given)


def _object(given: object) -> None:
    if not isinstance(given, Mapping | None):
        raise matches_nothing("body", given)


def _choice(given: object) -> None:
    if not isinstance(given, str | Mapping | None):
        raise matches_nothing("tool_choice", given)


def _service_tier(given: object) -> None:
    if given not in _SERVICE_TIERS:
        raise invalid("service_tier", f"Input should be {' or '.join(_SERVICE_TIERS)}", given)


def _reasoning(given: object) -> None:
    _object(given)
    effort = given.get("effort") if isinstance(given, Mapping) else None
    if effort is not None and effort not in _EFFORTS:
        raise invalid("reasoning", f"Input should be {' or '.join(_EFFORTS)}", given)


def _prompt(given: object) -> None:
    if given is not None:
        raise invalid("prompt", "Value error, prompt template is not supported", given)


def _max_output_tokens(given: object) -> None:
    if given is None:
        return
    if not isinstance(given, int):
        raise invalid("max_output_tokens", "Input should be a valid integer", given)
    if given < 1:
        raise Rejected(f"max_tokens must be at least 1, got {given}.")


def _previous_response_id(given: object) -> None:
    if given is not None:
        raise unknown_response(str(given))


def _not_null(given: object) -> None:
    # vLLM throws while it builds its response object: a plain request gets this, a stream is cut
    # before its first event. One answer for both is enough here.
    if given is None:
        raise crashed("1 validation error for ResponsesResponse: Input should not be null")


def _tools(given: object) -> None:
    if not isinstance(given, list):
        raise invalid("tools", "Input should be a valid list", given)
    for tool in given:
        if not isinstance(tool, Mapping) or not _is_tool(tool):
            raise matches_nothing("tools", tool)
        format = tool.get("format") if tool["type"] == "custom" else None
        if isinstance(format, Mapping) and format.get("type") == "grammar":
            why = "Value error, Custom tools with a grammar format are not supported"
            raise invalid("tools", why, dict(tool))


def _is_tool(tool: Body) -> bool:
    match tool.get("type"):
        case "function" | "custom":
            return isinstance(tool.get("name"), str)
        case "mcp":
            return isinstance(tool.get("server_label"), str)
        case kind:
            return kind in _HOSTED_TOOLS


def _check_background(body: Body) -> None:
    if not body.get("background"):
        return
    if body.get("store") is False:
        why = "Value error, background can only be used when `store` is true"
        raise invalid("background", why, dict(body))
    raise Rejected(
        "This vLLM engine does not support `store=True` and therefore does not support the "
        "background mode.",
        kind="invalid_request_error",
        param="background",
    )


def _check_tool_choice(body: Body) -> None:
    choice, tools = body.get("tool_choice"), body.get("tools") or ()
    if choice == "required" and not tools:
        why = "Value error, Tool choice 'required' must be specified with 'tools' parameter."
        raise invalid("tool_choice", why, choice)
    if not isinstance(choice, Mapping) or choice.get("type") != "function":
        return
    if not any(tool.get("name") == choice.get("name") for tool in tools):
        why = "Value error, Tool choice 'function' not found in 'tools' parameter."
        raise invalid("tool_choice", why, dict(choice))


_FIELDS: Mapping[str, Callable[[object], None]] = {
    "background": _not_null,
    "truncation": _not_null,
    "include": _include,
    "instructions": _instructions,
    "max_output_tokens": _max_output_tokens,
    "metadata": _metadata,
    "previous_response_id": _previous_response_id,
    "prompt": _prompt,
    "reasoning": _reasoning,
    "service_tier": _service_tier,
    "text": _object,
    "tool_choice": _choice,
    "tools": _tools,
}
