"""The items of MCP servers as request input: what a client replays that keeps the history itself."""

from __future__ import annotations

from engine.api import checks
from engine.ids import ItemIds

_TEXT = checks.string_up_to(10_485_760)
_REASON = checks.string_up_to(16_384)
_ID = checks.string_up_to(128)
_LABEL = checks.matching(r"[a-zA-Z][a-zA-Z0-9_-]{0,63}")
_TOOL_NAME = checks.string_up_to(256)
_CALL_STATUS = checks.one_of("in_progress", "completed", "incomplete", "calling", "failed")
_CALL_KEYS = (
    "type", "id", "status", "approval_request_id", "arguments", "error", "name", "output",
    "server_label",
)  # fmt: skip
_MOST_TOOLS = 10_000


def list_tools(entry: dict[str, object], param: str, ids: ItemIds) -> dict[str, object]:
    """Check an `mcp_list_tools` item."""
    checks.only_keys(entry, ("type", "id", "server_label", "tools", "error"), param)
    item = _head(entry, param, ids.mint("mcpl"))
    given = checks.array(checks.required(entry, "tools", param), f"{param}.tools")
    if len(given) > _MOST_TOOLS:
        raise checks.wrong_value(f"{len(given)} tools", f"{param}.tools", f"at most {_MOST_TOOLS}")
    item["tools"] = [_tool(tool, f"{param}.tools[{n}]") for n, tool in enumerate(given)]
    if entry.get("error") is not None:
        item["error"] = _error(entry["error"], f"{param}.error")
    return item


def call(entry: dict[str, object], param: str, ids: ItemIds) -> dict[str, object]:
    """Check an `mcp_call` item: a call that was made in an earlier response."""
    checks.only_keys(entry, _CALL_KEYS, param)
    item = _head(entry, param, ids.mint("mcp"))
    status, asked = entry.get("status"), entry.get("approval_request_id")
    output, error = entry.get("output"), entry.get("error")
    item["status"] = "completed" if status is None else _CALL_STATUS(status, f"{param}.status")
    item["approval_request_id"] = (
        None if asked is None else _ID(asked, f"{param}.approval_request_id")
    )
    item["arguments"] = _TEXT(checks.required(entry, "arguments", param), f"{param}.arguments")
    item["error"] = None if error is None else _error(error, f"{param}.error")
    item["name"] = _name(entry, param)
    item["output"] = None if output is None else _TEXT(output, f"{param}.output")
    return item


def approval_request(entry: dict[str, object], param: str, _ids: ItemIds) -> dict[str, object]:
    """Check an `mcp_approval_request` item, next to which its answer may stand."""
    checks.only_keys(entry, ("type", "id", "arguments", "name", "server_label"), param)
    item = _head(entry, param, checks.required(entry, "id", param))
    item["arguments"] = _TEXT(checks.required(entry, "arguments", param), f"{param}.arguments")
    item["name"] = _name(entry, param)
    return item


def approval_response(entry: dict[str, object], param: str, ids: ItemIds) -> dict[str, object]:
    """Check an `mcp_approval_response` item. Whether it answers anything is not decided here."""
    keys = ("type", "id", "approval_request_id", "approve", "reason")
    checks.only_keys(entry, keys, param)
    given, reason = entry.get("id"), entry.get("reason")
    where = f"{param}.approval_request_id"
    return {
        "id": _id(ids.mint("mcpa") if given is None else given, f"{param}.id"),
        "type": entry["type"],
        "approval_request_id": _id(checks.required(entry, "approval_request_id", param), where),
        "approve": checks.boolean(checks.required(entry, "approve", param), f"{param}.approve"),
        "reason": None if reason is None else _REASON(reason, f"{param}.reason"),
    }


def _head(entry: dict[str, object], param: str, minted: object) -> dict[str, object]:
    given = entry.get("id")
    label = checks.required(entry, "server_label", param)
    return {
        "id": _id(minted if given is None else given, f"{param}.id"),
        "type": entry["type"],
        "server_label": _LABEL(label, f"{param}.server_label"),
    }


def _id(value: object, param: str) -> object:
    return _ID(checks.name(value, param), param)


def _name(entry: dict[str, object], param: str) -> object:
    return _TOOL_NAME(checks.required(entry, "name", param), f"{param}.name")


def _tool(value: object, param: str) -> dict[str, object]:
    tool = checks.mapping(value, param)
    checks.only_keys(tool, ("name", "description", "input_schema", "annotations"), param)
    schema, annotations = checks.required(tool, "input_schema", param), tool.get("annotations")
    description = tool.get("description")
    return {
        "name": _name(tool, param),
        "description": None
        if description is None
        else checks.string(description, f"{param}.description"),
        "input_schema": checks.mapping(schema, f"{param}.input_schema"),
        "annotations": None
        if annotations is None
        else checks.mapping(annotations, f"{param}.annotations"),
    }


def _error(value: object, param: str) -> object:
    """Accept the error object that a call shows, or plain text as lists and older clients have it."""
    return value if isinstance(value, str) else checks.mapping(value, param)
