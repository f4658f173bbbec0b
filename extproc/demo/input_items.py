"""Which input items vLLM 0.32 takes, and how it turns the others down. Pure.

Measured over 64 item shapes. The demo is as strict as the real server: what works here works there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extproc.demo.rejection import Rejected, crashed, invalid, matches_nothing

Item = Mapping[str, Any]

# Known to its schema, unknown to its chat renderer.
UNSUPPORTED = frozenset(
    {
        "apply_patch_call",
        "apply_patch_call_output",
        "code_interpreter_call",
        "compaction",
        "computer_call",
        "computer_call_output",
        "file_search_call",
        "image_generation_call",
        "item_reference",
        "local_shell_call",
        "local_shell_call_output",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "mcp_list_tools",
        "shell_call",
        "shell_call_output",
        "web_search_call",
    }
)
_ROLES = ("user", "system", "developer", "assistant")
_PARTS = ("input_text", "input_image", "input_file")
_OUTPUT_PARTS = ("output_text", "refusal")


def check_input(given: object) -> None:
    """Raises Rejected as vLLM 0.32 does for the `input` of a request."""
    if isinstance(given, str):
        return
    if not isinstance(given, list):
        raise matches_nothing("input", given)
    for item in given:
        check_item(item)


def check_item(item: object) -> None:
    """Raises Rejected for one item of the input."""
    if not isinstance(item, Mapping):
        raise matches_nothing("input", item)
    kind = item.get("type")
    if kind in _CHECKS:
        _CHECKS[kind](item)
    elif kind in UNSUPPORTED or (kind is None and "role" not in item and "id" in item):
        _unsupported(item)
    elif kind is None and "role" in item:
        _message(item)
    else:
        raise matches_nothing("input", item)


def _unsupported(item: Item) -> None:
    # This one member of the union has a required field that others are forgiven for lacking.
    if item.get("type") == "web_search_call" and not item.get("action"):
        raise matches_nothing("input", item)
    message = f"Unsupported input item type: {item.get('type')}"
    raise Rejected(message, kind="invalid_request_error", param="input")


def _message(item: Item) -> None:
    content = item.get("content")
    if item.get("role") not in _ROLES:
        raise matches_nothing("input", item)
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise matches_nothing("input", item)
    kinds = [part.get("type") if isinstance(part, Mapping) else None for part in content]
    is_output = item["role"] == "assistant" and item.get("type") == "message"
    if is_output and all(kind in _OUTPUT_PARTS for kind in kinds):
        _output_message(item, kinds)
    elif not all(kind in _PARTS for kind in kinds):
        raise matches_nothing("input", item)


def _output_message(item: Item, kinds: list[Any]) -> None:
    if any(key in item and item[key] is None for key in ("id", "status")):
        raise matches_nothing("input", item)
    # Both pass validation, and break the renderer, which reads content[0].text.
    if not kinds:
        raise crashed("list index out of range")
    if kinds[0] == "refusal":
        raise crashed("'ResponseOutputRefusal' object has no attribute 'text'")


def _function_call(item: Item) -> None:
    _need_strings(item, "call_id", "name", "arguments")


def _custom_tool_call(item: Item) -> None:
    _need_strings(item, "call_id", "name", "input")


def _call_output(item: Item) -> None:
    _need_strings(item, "call_id")
    output = item.get("output")
    if isinstance(output, list):
        if all(isinstance(part, Mapping) and part.get("type") in _PARTS for part in output):
            return
    elif isinstance(output, str):
        return
    raise matches_nothing("input", item)


def _reasoning(item: Item) -> None:
    has_null_id = "id" in item and item["id"] is None
    if not isinstance(item.get("summary"), list) or has_null_id:
        raise matches_nothing("input", item)
    if item.get("encrypted_content") is not None:
        raise Rejected(
            "Encrypted content is not supported.", kind="invalid_request_error", param="input"
        )


def _need_strings(item: Item, *keys: str) -> None:
    if not all(isinstance(item.get(key), str) for key in keys):
        raise invalid("input", "Field required", dict(item))


_CHECKS = {
    "message": _message,
    "function_call": _function_call,
    "function_call_output": _call_output,
    "custom_tool_call": _custom_tool_call,
    "custom_tool_call_output": _call_output,
    "reasoning": _reasoning,
}
