"""`engine.api.mcp_items`: the items of MCP servers as input, checked with a place for what is wrong."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from engine.api.items import parse_input
from engine.errors import InvalidRequest
from engine.ids import ItemIds
from engine.ports import StoredItem

TOOL = {
    "name": "look",
    "input_schema": {"type": "object"},
    "description": None,
    "annotations": None,
}
LISTED = {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "s", "tools": [TOOL]}
CALL = {
    "type": "mcp_call", "id": "mcp_1", "server_label": "s", "name": "look", "arguments": "{}",
    "status": "completed", "output": "found", "error": None, "approval_request_id": None,
}  # fmt: skip
REQUEST = {
    "type": "mcp_approval_request", "id": "mcpr_1", "server_label": "s", "name": "look",
    "arguments": "{}",
}  # fmt: skip
RESPONSE = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}


def nested(levels: int) -> Any:
    """Return an object in an object, and so on."""
    value: Any = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def parsed(item: Any) -> StoredItem:
    raw = msgspec.Raw(json.dumps([item]).encode())
    [found] = parse_input(raw, ItemIds("resp_0"), most=9)
    assert isinstance(found, StoredItem)
    return found


@pytest.mark.parametrize("item", [LISTED, CALL, REQUEST, RESPONSE], ids=lambda item: item["type"])
def test_what_the_gateway_makes_it_takes_back(item: Any) -> None:
    """M4, H1: whole; ids are made where they may be left out."""
    found = parsed(item)
    assert found.type == item["type"]
    assert found.replay is None
    assert item.items() <= json.loads(found.item).items()


def test_what_pairs_them_is_kept_beside_them() -> None:
    """T5, T6: a request with its answer, and a list by its content, however it is spelled."""
    assert parsed(REQUEST).call_id == parsed(RESPONSE).call_id == "mcpr_1"
    key = parsed(LISTED).call_id
    assert key is not None
    assert key.startswith("s:")
    bare = {"input_schema": {"type": "object"}, "name": "look"}
    assert parsed({**LISTED, "id": "other", "tools": [bare]}).call_id == key
    changed = {**bare, "description": "Look."}
    assert parsed({**LISTED, "tools": [changed]}).call_id != key


@pytest.mark.parametrize(
    ("item", "change", "param"),
    [
        (LISTED, {"tools": {}}, "tools"),
        (LISTED, {"tools": [{"name": "x"}]}, "tools[0].input_schema"),
        (LISTED, {"tools": [{**TOOL, "name": 1}]}, "tools[0].name"),
        (LISTED, {"tools": [{**TOOL, "more": 1}]}, "tools[0].more"),
        (LISTED, {"server_label": None}, "server_label"),
        (CALL, {"arguments": None}, "arguments"),
        (CALL, {"status": "done"}, "status"),
        (CALL, {"output": 1}, "output"),
        (CALL, {"error": 1}, "error"),
        (CALL, {"approval_request_id": 1}, "approval_request_id"),
        (CALL, {"name": "x" * 300}, "name"),
        (REQUEST, {"id": None}, "id"),
        (REQUEST, {"id": ""}, "id"),
        (REQUEST, {"server_label": "1 2"}, "server_label"),
        (REQUEST, {"status": "completed"}, "status"),
        (RESPONSE, {"approve": "yes"}, "approve"),
        (RESPONSE, {"approve": None}, "approve"),
        (RESPONSE, {"approval_request_id": ""}, "approval_request_id"),
        (RESPONSE, {"reason": {}}, "reason"),
    ],
)
def test_what_is_wrong_has_a_place(item: Any, change: Any, param: str) -> None:
    """H1."""
    with pytest.raises(InvalidRequest) as caught:
        parsed({**item, **change})
    assert caught.value.param == f"input[0].{param}"


@pytest.mark.parametrize(
    ("item", "make", "param"),
    [
        (CALL, lambda value: {"error": value}, "error"),
        (LISTED, lambda value: {"error": value}, "error"),
        (
            LISTED,
            lambda value: {"tools": [{**TOOL, "input_schema": value}]},
            "tools[0].input_schema",
        ),
        (LISTED, lambda value: {"tools": [{**TOOL, "annotations": value}]}, "tools[0].annotations"),
    ],
)
def test_what_is_nested_too_deeply_is_refused(item: Any, make: Any, param: str) -> None:
    """X5, H1: a server may have made it, but not so; such an item would break each later turn."""
    parsed({**item, **make(nested(200))})
    with pytest.raises(InvalidRequest, match="nested too deeply") as caught:
        parsed({**item, **make(nested(201))})
    assert (caught.value.param, caught.value.code) == (f"input[0].{param}", "invalid_json")
