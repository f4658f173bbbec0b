"""Input items: checked, completed to the form that the API shows, and encoded for the model.

The form shown is the one of `GET /v1/responses/{id}/input_items`: typed, with id and status, message
content always a list. References to stored items are left as `Reference` for the loop to resolve.
"""

from __future__ import annotations

import msgspec

from engine.api import checks, mcp_items, search_items
from engine.api.attachments import file_part, holds_files, places_of_files
from engine.api.file_search import CALL as FILE_SEARCH_CALL
from engine.api.json import encode, read_value
from engine.context.compacted import COMPACTION, COVERS, unpack
from engine.context.listed import listing_key_of
from engine.context.replay import replay
from engine.context.seals import REASONING, Unseal
from engine.errors import InvalidRequest
from engine.ids import ItemIds
from engine.ports import StoredItem

TEXT_LIMIT = 10_485_760
IMAGE_LIMIT = 20_971_520
SEALED_LIMIT = 1 << 26

_ID = checks.string_up_to(128)
_TEXT = checks.string_up_to(TEXT_LIMIT)
_IMAGE_URL = checks.matching(r"(?s)(https?://|data:image/).+")
_SEALED = checks.string_up_to(SEALED_LIMIT)
_CALL_ID = checks.matching(r"[^\x00-\x1f]{1,128}")
_FUNCTION_NAME = checks.matching(r"[a-zA-Z0-9_.:/-]{1,128}")
_STATUS = checks.one_of("in_progress", "completed", "incomplete")
_DETAIL = checks.one_of("low", "high", "auto", "original")
_ROLE = checks.one_of("user", "assistant", "system", "developer")
_PHASE = checks.one_of("commentary", "final_answer")
_INPUT_PARTS = ("input_text", "input_image", "input_file")
_OUTPUT_PARTS = ("output_text", "refusal")
# `prompt_cache_breakpoint` is a hint to a cache that we do not have; it changes no answer.
_TEXT_KEYS = ("type", "text", "annotations", "logprobs", "prompt_cache_breakpoint")


class Reference(msgspec.Struct, frozen=True):
    """An `item_reference`: stands for a stored item; `param` is its place in the request."""

    id: str
    param: str


class WithFiles(msgspec.Struct, frozen=True):
    """An item with files that have to be read first (`engine.attachments`); `param` is its place."""

    item: dict[str, object]
    kind: str
    param: str


Entry = StoredItem | Reference | WithFiles
"""What a list of input items has, checked."""


def nothing_opens(_sealed: str, param: str, _purpose: str) -> str:
    """Refuse all encrypted content: `Unseal` where there are no seals."""
    raise checks.unsupported(param, "encrypted content cannot be read here.")


def parse_input(
    raw: msgspec.Raw, ids: ItemIds, *, most: int, unseal: Unseal = nothing_opens
) -> list[Entry]:
    """Check `input`, a string or a list of items; raises InvalidRequest that names the bad place."""
    value = read_value(raw, "input")
    if isinstance(value, str):
        _TEXT(value, "input")
        return [
            _stored({"type": "message", "role": "user", "content": value}, "input", ids, unseal)
        ]
    if not isinstance(value, list):
        raise checks.wrong_type(value, "input", "a string or an array")
    if not value:
        raise checks.wrong_value("[]", "input", "at least one item")
    return _entries(value, "input", ids, most, unseal)


def parse_items(
    raw: msgspec.Raw, param: str, ids: ItemIds, *, most: int, unseal: Unseal
) -> list[Entry]:
    """Check a list of items, which may be empty; raises InvalidRequest that names the bad place."""
    return _entries(checks.array(read_value(raw, param), param), param, ids, most, unseal)


def _entries(
    entries: list[object], param: str, ids: ItemIds, most: int, unseal: Unseal
) -> list[Entry]:
    if len(entries) > most:
        raise checks.wrong_value(f"{len(entries)} items", param, f"at most {most}")
    return [_entry(entry, f"{param}[{i}]", ids, unseal) for i, entry in enumerate(entries)]


def parse_messages(value: object, param: str) -> list[dict[str, object]]:
    """Check a list of messages that are no items of a thread; they are shown without ids."""
    messages = []
    for index, entry in enumerate(checks.array(value, param)):
        path = f"{param}[{index}]"
        message = checks.mapping(entry, path)
        if message.get("type") is not None:
            checks.one_of("message")(message["type"], f"{path}.type")
        item = _message(message, path, ItemIds(""))
        for name, place, _ in places_of_files(item):
            raise checks.unsupported(
                f"{path}.{name}[{place}]", "files can be used in 'input' alone."
            )
        messages.append({name: item[name] for name in ("type", "role", "content")})
    return messages


def _entry(value: object, param: str, ids: ItemIds, unseal: Unseal) -> Entry:
    entry = checks.mapping(value, param)
    kind = entry.get("type")
    if kind == "item_reference" or (kind is None and set(entry) - {"type"} == {"id"}):
        checks.only_keys(entry, ("type", "id"), param)
        return Reference(checks.name(checks.required(entry, "id", param), f"{param}.id"), param)
    return _stored(entry, param, ids, unseal)


def _stored(
    entry: dict[str, object], param: str, ids: ItemIds, unseal: Unseal
) -> StoredItem | WithFiles:
    given = entry.get("type")
    kind = "message" if given is None else checks.string(given, f"{param}.type")
    parse = _PARSERS.get(kind)
    if parse is None:
        raise checks.unsupported(
            f"{param}.type",
            f"input items of type '{kind}' cannot be used here; known are "
            f"{', '.join(_PARSERS)}, item_reference.",
        )
    item = parse(entry, param, ids)
    if holds_files(item):
        return WithFiles(item, kind, param)
    if kind == COMPACTION:
        return _compacted(item, param, unseal)
    return stored_item(item, kind, _opened(item, param, unseal))


def stored_item(item: dict[str, object], kind: str, sent: dict[str, object]) -> StoredItem:
    """Return an item as it is stored; `sent` is what of it the model is to be sent."""
    encoded = encode(item)
    if kind == "mcp_list_tools":
        call_id: object = listing_key_of(str(item["server_label"]), encoded)
    else:
        call_id = item.get(_PAIRED_BY.get(kind, "call_id"))
    return StoredItem(
        id=str(item["id"]),
        type=kind,
        item=encoded,
        replay=replay(sent),
        call_id=None if call_id is None else str(call_id),
    )


def _compacted(item: dict[str, object], param: str, unseal: Unseal) -> StoredItem:
    sealed = str(item["encrypted_content"])
    found = unpack(unseal(sealed, f"{param}.encrypted_content", COMPACTION))
    return StoredItem(
        id=str(item["id"]),
        type=COMPACTION,
        item=encode(item),
        replay=found.replay.encode(),
        call_id=COVERS if found.covers else None,
    )


def _opened(item: dict[str, object], param: str, unseal: Unseal) -> dict[str, object]:
    """Return an item with what it says sealed in the clear, for the model."""
    sealed = item.get("encrypted_content")
    if sealed is None:
        return item
    text = unseal(str(sealed), f"{param}.encrypted_content", REASONING)
    return {**item, "content": [{"type": "reasoning_text", "text": text}]}


def _head(entry: dict[str, object], param: str, kind: str, minted: str) -> dict[str, object]:
    """Return id, type and status, checked or filled in."""
    given, status = entry.get("id"), entry.get("status")
    return {
        "id": minted if given is None else _ID(checks.name(given, f"{param}.id"), f"{param}.id"),
        "type": kind,
        "status": "completed" if status is None else _STATUS(status, f"{param}.status"),
    }


def _message(entry: dict[str, object], param: str, ids: ItemIds) -> dict[str, object]:
    checks.only_keys(entry, ("type", "id", "status", "role", "content", "phase"), param)
    role = str(_ROLE(checks.required(entry, "role", param), f"{param}.role"))
    item = _head(entry, param, "message", ids.mint("msg"))
    item["role"] = role
    item["content"] = _content(
        checks.required(entry, "content", param), f"{param}.content", assistant=role == "assistant"
    )
    if entry.get("phase") is not None:
        item["phase"] = _PHASE(entry["phase"], f"{param}.phase")
    return item


def _content(value: object, param: str, *, assistant: bool) -> list[dict[str, object]]:
    if isinstance(value, str):
        return [_text_part({"text": value}, param, "output_text" if assistant else "input_text")]
    parts = checks.array(value, param)
    known = (*_OUTPUT_PARTS, "input_text") if assistant else _INPUT_PARTS
    return [_part(part, f"{param}[{i}]", known) for i, part in enumerate(parts)]


def _part(value: object, param: str, known: tuple[str, ...]) -> dict[str, object]:
    part = checks.mapping(value, param)
    kind = checks.string(checks.required(part, "type", param), f"{param}.type")
    if kind not in known:
        raise checks.unsupported(
            f"{param}.type",
            f"content of type '{kind}' cannot be used here; use {', '.join(known)}.",
        )
    if kind == "input_image":
        return _image(part, param)
    if kind == "input_file":
        return file_part(part, param)
    if kind == "refusal":
        checks.only_keys(part, ("type", "refusal"), param)
        refusal = _TEXT(checks.required(part, "refusal", param), f"{param}.refusal")
        return {"type": "refusal", "refusal": refusal}
    checks.only_keys(part, _TEXT_KEYS, param)
    return _text_part(part, param, "output_text" if "output_text" in known else kind)


def _text_part(part: dict[str, object], param: str, kind: str) -> dict[str, object]:
    text = _TEXT(checks.required(part, "text", param), f"{param}.text")
    if kind == "input_text":
        return {"type": kind, "text": text}
    annotations = _array_or_none(part, "annotations", param)
    logprobs = _array_or_none(part, "logprobs", param)
    return {"type": kind, "text": text, "annotations": annotations, "logprobs": logprobs}


def _image(part: dict[str, object], param: str) -> dict[str, object]:
    checks.only_keys(
        part, ("type", "image_url", "detail", "file_id", "prompt_cache_breakpoint"), param
    )
    if part.get("file_id") is not None:
        return _image_file(part, param)
    url = checks.string_up_to(IMAGE_LIMIT)(
        checks.required(part, "image_url", param), f"{param}.image_url"
    )
    detail = part.get("detail")
    return {
        "type": "input_image",
        "image_url": _IMAGE_URL(url, f"{param}.image_url"),
        "detail": "auto" if detail is None else _DETAIL(detail, f"{param}.detail"),
    }


def _image_file(part: dict[str, object], param: str) -> dict[str, object]:
    if part.get("image_url") is not None:
        raise checks.wrong_value("both", param, "one of 'image_url' and 'file_id'")
    detail = part.get("detail")
    return {
        "type": "input_image",
        "file_id": checks.name(part["file_id"], f"{param}.file_id"),
        "detail": "auto" if detail is None else _DETAIL(detail, f"{param}.detail"),
    }


def _function_call(entry: dict[str, object], param: str, ids: ItemIds) -> dict[str, object]:
    checks.only_keys(
        entry, ("type", "id", "status", "call_id", "name", "arguments", "caller"), param
    )
    item = _head(entry, param, "function_call", ids.mint("fc"))
    item["call_id"] = _CALL_ID(checks.required(entry, "call_id", param), f"{param}.call_id")
    item["name"] = _FUNCTION_NAME(checks.required(entry, "name", param), f"{param}.name")
    item["arguments"] = _TEXT(checks.required(entry, "arguments", param), f"{param}.arguments")
    return item


def _function_call_output(entry: dict[str, object], param: str, ids: ItemIds) -> dict[str, object]:
    checks.only_keys(entry, ("type", "id", "status", "call_id", "output", "caller", "name"), param)
    item = _head(entry, param, "function_call_output", ids.mint("fco"))
    item["call_id"] = _CALL_ID(checks.required(entry, "call_id", param), f"{param}.call_id")
    output = checks.required(entry, "output", param)
    where = f"{param}.output"
    item["output"] = (
        _TEXT(output, where)
        if isinstance(output, str)
        else _content(output, where, assistant=False)
    )
    return item


def _reasoning(entry: dict[str, object], param: str, ids: ItemIds) -> dict[str, object]:
    checks.only_keys(
        entry, ("type", "id", "status", "summary", "content", "encrypted_content"), param
    )
    item = _head(entry, param, "reasoning", ids.mint("rs"))
    item["summary"] = _texts(entry, "summary", param, "summary_text")
    content = _texts(entry, "content", param, "reasoning_text")
    if content:
        item["content"] = content
    sealed = entry.get("encrypted_content")
    if sealed is not None and sealed != "":
        item["encrypted_content"] = _TEXT(sealed, f"{param}.encrypted_content")
    return item


def _compaction(entry: dict[str, object], param: str, ids: ItemIds) -> dict[str, object]:
    checks.only_keys(entry, ("type", "id", "encrypted_content", "status", "created_by"), param)
    head = _head(entry, param, COMPACTION, ids.mint("cmp"))
    sealed, where = entry.get("encrypted_content"), f"{param}.encrypted_content"
    if sealed is None:
        raise checks.missing(where)
    _SEALED(sealed, where)
    return {"id": head["id"], "type": COMPACTION, "encrypted_content": sealed}


def _array_or_none(source: dict[str, object], key: str, param: str) -> list[object]:
    value = source.get(key)
    return [] if value is None else checks.array(value, f"{param}.{key}")


def _texts(source: dict[str, object], key: str, param: str, kind: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for index, entry in enumerate(_array_or_none(source, key, param)):
        path = f"{param}.{key}[{index}]"
        part = checks.mapping(entry, path)
        checks.one_of(kind)(checks.required(part, "type", path), f"{path}.type")
        text = _TEXT(checks.required(part, "text", path), f"{path}.text")
        found.append({"type": kind, "text": text})
    return found


_PARSERS = {
    "message": _message,
    "function_call": _function_call,
    "function_call_output": _function_call_output,
    "reasoning": _reasoning,
    COMPACTION: _compaction,
    FILE_SEARCH_CALL: search_items.file_search_call,
    "mcp_list_tools": mcp_items.list_tools,
    "mcp_call": mcp_items.call,
    "mcp_approval_request": mcp_items.approval_request,
    "mcp_approval_response": mcp_items.approval_response,
}
# Where what pairs an item with another is not its `call_id`.
_PAIRED_BY = {"mcp_approval_request": "id", "mcp_approval_response": "approval_request_id"}


def require_pairs(pending: frozenset[str], new: list[StoredItem]) -> None:
    """Check that calls and outputs pair up (rule M6); raises InvalidRequest.

    `pending` are the calls of the history that wait for their output. A call must come before its
    output, and every call must get exactly one.
    """
    open_calls = set(pending)
    for index, item in enumerate(new):
        call_id = str(item.call_id)
        if item.type == "function_call" and item.replay is not None:
            if call_id in open_calls:
                raise InvalidRequest(
                    f"Function call {call_id} already waits for its output.",
                    param=f"input[{index}].call_id",
                    code="duplicate_call_id",
                )
            open_calls.add(call_id)
        elif item.type == "function_call_output":
            if call_id not in open_calls:
                raise InvalidRequest(
                    f"No tool call found for function call output with call_id {call_id}.",
                    param=f"input[{index}].call_id",
                    code="unknown_call_id",
                )
            open_calls.discard(call_id)
    if open_calls:
        raise InvalidRequest(
            f"No tool output found for function call {min(open_calls)}.",
            param="input",
            code="missing_tool_output",
        )
