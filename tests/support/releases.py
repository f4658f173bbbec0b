"""Which inputs older vLLM releases turn down that 0.32 takes, or takes worse. Pure.

Only what is stricter: what an old release accepts and 0.32 rejects is rejected here all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from extproc.demo.input_items import UNSUPPORTED
from extproc.demo.rejection import Rejected, crashed, matches_nothing
from extproc.demo.request_fields import check_responses

Item = Mapping[str, Any]
Release = tuple[int, int]

# A pydantic ValidatorIterator reaches the chat template as if it were text.
_GARBAGE = "Object of type ValidatorIterator is not JSON serializable"


def release_of(version: str) -> Release:
    """`0.18.1` as (0, 18)."""
    major, minor, *_ = version.split(".")
    return int(major), int(minor)


def check_release(body: Mapping[str, Any], release: Release) -> None:
    """Raises Rejected as that release does for a `/v1/responses` body."""
    given = body.get("input")
    for item in given if isinstance(given, list) else ():
        if isinstance(item, Mapping):
            _check_item(item, release)
    _check_format(body, release)
    check_responses(body)


def _check_item(item: Item, release: Release) -> None:
    for until, check in _OLD_CHECKS:
        if release < until:
            check(item)


def _without_ids(item: Item) -> None:
    """Until 0.20 an item that the server could have made needs the id that the server gave it."""
    is_output = item.get("type") == "message" and bool(_parts(item, "output_text", "refusal"))
    if (is_output or item.get("type") == "reasoning") and "id" not in item:
        raise matches_nothing("input", item)


def _lazily_validated(item: Item) -> None:
    """Until 0.20 some items pass validation as an iterator and then break the template."""
    if item.get("encrypted_content") is not None and item.get("type") == "reasoning":
        raise crashed(_GARBAGE)
    if item.get("type") != "message" or item.get("role") != "assistant":
        return
    bare = [part for part in _parts(item, "output_text") if "annotations" not in part]
    if item.get("content") == [] or bare:
        raise crashed(_GARBAGE)


def _leaks_into_chat(item: Item) -> None:
    """Until 0.29 an item type that is not for chat reaches the chat parser, which wants a role."""
    kind = item.get("type")
    if kind == "web_search_call" and not item.get("action"):
        raise matches_nothing("input", item)
    if kind in UNSUPPORTED or (kind is None and "role" not in item):
        raise crashed("'role'")


def _image_without_detail(item: Item) -> None:
    if any("detail" not in part for part in _parts(item, "input_image")):
        raise matches_nothing("input", item)


def _custom_call(item: Item) -> None:
    if item.get("type") in ("custom_tool_call", "custom_tool_call_output"):
        raise Rejected(f"Unsupported input item type: {item['type']}", param="input")


def _check_format(body: Mapping[str, Any], release: Release) -> None:
    format = (body.get("text") or {}).get("format") or {}
    if release < (0, 17) and format.get("type") == "json_object":
        raise Rejected("json_object is not supported", kind="NotImplementedError")


def _parts(item: Item, *kinds: str) -> Iterable[Item]:
    content = item.get("content")
    parts = content if isinstance(content, list) else []
    return [part for part in parts if isinstance(part, Mapping) and part.get("type") in kinds]


# The first release that no longer does it, and what it did.
_OLD_CHECKS: list[tuple[Release, Callable[[Item], None]]] = [
    ((0, 21), _without_ids),
    ((0, 21), _lazily_validated),
    ((0, 30), _leaks_into_chat),
    ((0, 31), _image_without_detail),
    ((0, 32), _custom_call),
]
