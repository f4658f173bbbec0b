"""Calls of owned tools as the model is sent them: a function call and its output (rule M4).

The model never sees that a call needed consent: one that was approved is a call like others, one that was
refused has the refusal as its output, and one that nobody has answered is not there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from engine.context.replay import replay
from engine.context.tool_names import ToolKey, shown_names
from engine.ports import StoredItem

_REFUSED = "The user refused this call of the tool; it was not made."


class _Item(msgspec.Struct, frozen=True):
    """What there is to know of any item of an MCP server."""

    id: str
    server_label: str = ""
    name: str = ""
    arguments: str = ""
    status: str = ""
    output: str | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")
    tools: list[_Tool] = []
    approval_request_id: str | None = None
    approve: bool = True
    reason: str | None = None


class _Tool(msgspec.Struct, frozen=True):
    name: str


class _Call(msgspec.Struct, frozen=True):
    approval_request_id: str | None = None


class _Failure(msgspec.Struct, frozen=True):
    message: str = ""
    content: list[_Said] = []


class _Said(msgspec.Struct, frozen=True):
    text: str = ""


def call_and_output(
    item_id: str, shown: str, arguments: str, text: str, images: Sequence[str] = ()
) -> bytes:
    """Return both, joined by a comma; what pairs them comes from the id of the item."""
    output: object = text
    if images:
        parts = [{"type": "input_text", "text": text}] if text else []
        output = parts + [{"type": "input_image", "image_url": url} for url in images]
    call_id = f"call_{item_id.partition('_')[2] or item_id}"
    call = {"type": "function_call", "call_id": call_id, "name": shown, "arguments": arguments}
    answer = {"type": "function_call_output", "call_id": call_id, "output": output}
    return b",".join(part for part in (replay(call), replay(answer)) if part is not None)


def refused(request_id: str, shown: str, arguments: str, reason: str | None) -> bytes:
    """Return a call that was refused, with the reason as its output."""
    said = f"{_REFUSED} The reason given: {reason}" if reason else _REFUSED
    return call_and_output(request_id, shown, arguments, said)


def said_by(error: bytes) -> str:
    """Return what the model is told of a call's error, as the item shows it."""
    try:
        failure = msgspec.json.decode(error, type=str | _Failure)
    except msgspec.DecodeError:
        return "The tool call failed."
    if isinstance(failure, str):
        return failure or "The tool call failed."
    text = failure.message or "\n".join(part.text for part in failure.content)
    return text or "The tool call failed."


def with_calls(
    items: Sequence[StoredItem], *, labels: Collection[str] | None, taken: Collection[str] = ()
) -> list[StoredItem]:
    """Return input items with their replay, where that takes more than the item itself.

    The names that the model is shown are not in the items. They are found as those of a run are
    (`shown_names`), from the lists in the input of the servers that are declared (`labels`; None where
    nothing is, as in a conversation: of all) and from the calls; `taken` are the client's functions.
    """
    read = {place: found for place, item in enumerate(items) if (found := _read(item)) is not None}
    if not read:
        return list(items)
    names = shown_names(_keys(items, read, labels), taken)
    requests = {item.id: item for at, item in read.items() if items[at].type == _REQUEST}
    return [
        msgspec.structs.replace(item, replay=_replay(item.type, read[place], requests, names))
        if place in read
        else item
        for place, item in enumerate(items)
    ]


_REQUEST = "mcp_approval_request"
_decode = msgspec.json.Decoder(_Item).decode


def _read(item: StoredItem) -> _Item | None:
    if not item.type.startswith("mcp_") or item.replay is not None:
        return None
    try:
        return _decode(item.item)
    except msgspec.ValidationError:
        # A reference to what a model server has made of it.
        return None


def _keys(
    items: Sequence[StoredItem], read: Mapping[int, _Item], labels: Collection[str] | None
) -> list[ToolKey]:
    keys: dict[ToolKey, None] = {}
    for place, item in read.items():
        kind = items[place].type
        if kind == "mcp_list_tools" and (labels is None or item.server_label in labels):
            keys |= dict.fromkeys((item.server_label, tool.name) for tool in item.tools)
        elif kind in ("mcp_call", _REQUEST):
            keys[item.server_label, item.name] = None
    return list(keys)


def _replay(
    kind: str, item: _Item, requests: Mapping[str, _Item], names: Mapping[ToolKey, str]
) -> bytes | None:
    if kind == "mcp_call":
        return _made(item, names[item.server_label, item.name])
    request = requests.get(item.approval_request_id or "")
    if kind != "mcp_approval_response" or item.approve or request is None:
        return None
    shown = names[request.server_label, request.name]
    return refused(request.id, shown, request.arguments, item.reason)


def _made(item: _Item, shown: str) -> bytes | None:
    """Return a call whose outcome is known."""
    if bytes(item.error) != b"null":
        return call_and_output(item.id, shown, item.arguments, said_by(item.error))
    if item.output is None and item.status != "completed":
        return None
    return call_and_output(item.id, shown, item.arguments, item.output or "")


def answered_requests(items: Iterable[StoredItem]) -> set[str]:
    """Return the ids of the requests for consent that a call among the items was made for."""
    calls = (_decode_call(item.item) for item in items if item.type == "mcp_call")
    return {call.approval_request_id for call in calls if call.approval_request_id is not None}


_decode_call = msgspec.json.Decoder(_Call).decode
