"""The bodies of operations on the context of a response: `/v1/responses/compact` and `/input_tokens`."""

from __future__ import annotations

import msgspec

from engine.api import checks
from engine.api.items import Entry, parse_input
from engine.api.json import read_object
from engine.api.ownership import NO_POLICY, ToolPolicy
from engine.api.request import CreateRequest, parse_again
from engine.context.seals import Unseal
from engine.errors import InvalidRequest
from engine.ids import ItemIds
from engine.limits import Limits

_COMPACT = (
    "image", "input", "instructions", "model", "previous_response_id", "prompt_cache_key",
    "prompt_cache_options", "prompt_cache_retention", "service_tier",
)  # fmt: skip
_COUNT = (
    "conversation", "input", "instructions", "model", "parallel_tool_calls", "previous_response_id",
    "reasoning", "text", "tool_choice", "tools", "truncation",
)  # fmt: skip
_NULL = b"null"


def parse_compact(body: bytes, ids: ItemIds, limits: Limits, unseal: Unseal) -> CreateRequest:
    """Check the body of `POST /v1/responses/compact`; raises InvalidRequest with `param`."""
    return _parse(body, _COMPACT, ids, limits, NO_POLICY, unseal)


def parse_count(
    body: bytes, ids: ItemIds, limits: Limits, policy: ToolPolicy, unseal: Unseal
) -> CreateRequest:
    """Check the body of `POST /v1/responses/input_tokens`; raises InvalidRequest with `param`."""
    return _parse(body, _COUNT, ids, limits, policy, unseal)


def _parse(
    body: bytes,
    known: tuple[str, ...],
    ids: ItemIds,
    limits: Limits,
    policy: ToolPolicy,
    unseal: Unseal,
) -> CreateRequest:
    raw = read_object(body)
    for name, value in raw.items():
        if name not in known and bytes(value) != _NULL:
            raise InvalidRequest(
                f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter"
            )
    request = parse_again(raw, limits, policy)
    given = raw.get("input")
    items: list[Entry] = []
    if given is not None and bytes(given) != _NULL:
        items = parse_input(given, ids, most=limits.input_items, unseal=unseal)
    elif request.previous_response_id is None and request.conversation is None:
        raise checks.missing("input")
    return msgspec.structs.replace(request, input=items)
