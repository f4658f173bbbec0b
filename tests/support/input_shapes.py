"""64 shapes of input items and what four vLLM releases did with each, measured. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """One input item, and the status it gets; `old` holds the releases that differ from 0.32."""

    name: str
    item: Item
    status: int = 200
    old: tuple[tuple[str, int], ...] = ()

    def status_in(self, release: str) -> int:
        return dict(self.old).get(release, self.status)


TEXT = {"type": "input_text", "text": "hi"}
PART = {"type": "output_text", "text": "yo", "annotations": []}
CALL = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "42"}
THOUGHT = {"type": "reasoning_text", "text": "think"}
CITATION = {"type": "file_citation", "file_id": "file-1", "filename": "a.txt", "index": 0}
IMAGE = {"type": "input_image", "image_url": "http://x/y.png"}

_MESSAGE = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
_REASONING = {"type": "reasoning", "id": "rs_1", "summary": []}
_MCP = {"id": "mcp_1", "server_label": "s", "name": "t", "arguments": "{}"}


def _user(*content: Item) -> Item:
    return {"type": "message", "role": "user", "content": list(content)}


def _answer(*content: Item, **fields: Any) -> Item:
    return {**_MESSAGE, "content": list(content), **fields}


def _without(item: Item, *keys: str) -> Item:
    return {key: value for key, value in item.items() if key not in keys}


# Until 0.29 these reach the chat parser (KeyError 'role'); from 0.30 on they are a clean 400.
_LEAKS = (("0.16.0", 500), ("0.21.0", 500), ("0.28.0", 500))
_BAD_UNTIL_20 = (("0.16.0", 400),)
_GARBAGE_UNTIL_20 = (("0.16.0", 500),)
_BAD_UNTIL_30 = (("0.16.0", 400), ("0.21.0", 400), ("0.28.0", 400))

MESSAGES = (
    Shape("easy_user", {"role": "user", "content": "hi"}),
    Shape("msg_user_input_text", _user(TEXT)),
    Shape("msg_user_output_text", _user(PART), 400),
    Shape("msg_system", {"type": "message", "role": "system", "content": "s"}),
    Shape("msg_developer", {"type": "message", "role": "developer", "content": [TEXT]}),
    Shape("easy_assistant_str", {"role": "assistant", "content": "yo"}),
    Shape("asst_no_type_output_text", {"role": "assistant", "content": [PART]}, 400),
    Shape("asst_msg_output_text_full", _answer(PART)),
    Shape("asst_msg_no_id", _without(_answer(PART), "id"), old=_BAD_UNTIL_20),
    Shape(
        "asst_msg_no_annotations", _answer(_without(PART, "annotations")), 200, _GARBAGE_UNTIL_20
    ),
    Shape("asst_msg_id_null", _answer(PART, id=None), 400),
    Shape("asst_msg_status_null", _answer(PART, status=None), 400),
    Shape("asst_msg_two_parts", _answer(PART, PART)),
    Shape("asst_msg_refusal", _answer({"type": "refusal", "refusal": "no"}), 500),
    Shape("asst_msg_empty_content", _answer(), 500),
    Shape("asst_msg_phase", _answer(PART, phase="final_answer")),
    Shape("asst_msg_annot_file_citation", _answer({**PART, "annotations": [CITATION]})),
)
CALLS = (
    Shape("function_call_full", {**CALL, "id": "fc_1", "status": "completed"}),
    Shape("function_call_min", CALL),
    Shape("function_call_status_null", {**CALL, "status": None}),
    Shape("function_call_id_null", {**CALL, "id": None}),
    Shape("function_call_args_empty", {**CALL, "arguments": ""}),
    Shape("function_call_output_str", OUTPUT),
    Shape("function_call_output_full", {**OUTPUT, "id": "fco_1", "status": "completed"}),
    Shape("function_call_output_list", {**OUTPUT, "output": [TEXT]}),
    Shape("function_call_output_image", {**OUTPUT, "output": [{**IMAGE, "detail": "auto"}]}),
    Shape("function_call_output_id_null", {**OUTPUT, "id": None}),
    Shape("function_call_output_dict", {**OUTPUT, "output": {"a": 1}}, 400),
)
REASONING = (
    Shape("reasoning_content", {**_REASONING, "content": [THOUGHT]}),
    Shape(
        "reasoning_no_id",
        _without({**_REASONING, "content": [THOUGHT]}, "id"),
        old=_BAD_UNTIL_20,
    ),
    Shape("reasoning_no_summary", _without({**_REASONING, "content": [THOUGHT]}, "summary"), 400),
    Shape(
        "reasoning_summary_only",
        {**_REASONING, "summary": [{"type": "summary_text", "text": "sum"}]},
    ),
    Shape("reasoning_content_null", {**_REASONING, "content": None}),
    Shape("reasoning_encrypted", {**_REASONING, "encrypted_content": "x"}, 400, _GARBAGE_UNTIL_20),
)
TOOL_ITEMS = (
    Shape("mcp_call", {"type": "mcp_call", **_MCP}, 400, _LEAKS),
    Shape(
        "mcp_list_tools",
        {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "s", "tools": []},
        400,
        _LEAKS,
    ),
    Shape("mcp_approval_request", {"type": "mcp_approval_request", **_MCP}, 400, _LEAKS),
    Shape(
        "mcp_approval_response",
        {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True},
        400,
        _LEAKS,
    ),
    Shape(
        "file_search_call",
        {"type": "file_search_call", "id": "fs_1", "queries": ["q"], "status": "completed"},
        400,
        _LEAKS,
    ),
    Shape(
        "file_search_call_null",
        {
            "type": "file_search_call",
            "id": "fs_1",
            "queries": ["q"],
            "status": "completed",
            "results": None,
        },
        400,
        _LEAKS,
    ),
    Shape(
        "web_search_call",
        {"type": "web_search_call", "id": "ws_1", "action": {"type": "search", "query": "q"}},
        400,
        _LEAKS,
    ),
    Shape("web_search_call_noaction", {"type": "web_search_call", "id": "ws_1"}, 400),
    Shape("code_interpreter_call", {"type": "code_interpreter_call", "code": "1"}, 400, _LEAKS),
    Shape("image_generation_call", {"type": "image_generation_call", "id": "ig"}, 400, _LEAKS),
    Shape("computer_call", {"type": "computer_call", "call_id": "c"}, 400, _LEAKS),
    Shape("local_shell_call", {"type": "local_shell_call", "call_id": "c"}, 400, _LEAKS),
    Shape(
        "custom_tool_call",
        {"type": "custom_tool_call", "call_id": "c", "name": "apply_patch", "input": "x"},
        200,
        _BAD_UNTIL_30,
    ),
    Shape(
        "custom_tool_call_output",
        {"type": "custom_tool_call_output", "call_id": "c", "output": "x"},
        200,
        _BAD_UNTIL_30,
    ),
    Shape("item_reference", {"type": "item_reference", "id": "msg_1"}, 400, _LEAKS),
    Shape("item_reference_notype", {"id": "msg_1"}, 400, _LEAKS),
    Shape("compaction", {"type": "compaction", "encrypted_content": "x"}, 400, _LEAKS),
    Shape("apply_patch_call", {"type": "apply_patch_call", "call_id": "c"}, 400, _LEAKS),
    Shape("shell_call", {"type": "shell_call", "call_id": "c"}, 400, _LEAKS),
    Shape("unknown_type", {"type": "no_such_item"}, 400),
)
MEDIA = (
    Shape("input_image", _user({**IMAGE, "detail": "auto"})),
    Shape("input_image_nodetail", _user(IMAGE), 200, _BAD_UNTIL_30),
    Shape("input_image_fileid", _user({"type": "input_image", "detail": "auto", "file_id": "f"})),
    Shape("input_file", _user({"type": "input_file", "file_id": "file-1"})),
    Shape("input_file_data", _user({"type": "input_file", "file_data": "data:x;base64,YQ"})),
    Shape("input_audio", _user({"type": "input_audio", "input_audio": {"data": "AA"}}), 400),
    Shape("input_video", _user({"type": "input_video", "video_url": "http://x"}), 400),
    Shape("video_url", _user({"type": "video_url", "video_url": {"url": "http://x"}}), 400),
    Shape("chat_text_part", _user({"type": "text", "text": "hi"}), 400),
    Shape("chat_tool_msg", {"role": "tool", "content": "42", "tool_call_id": "call_1"}, 400),
)

SHAPES = (*MESSAGES, *CALLS, *REASONING, *TOOL_ITEMS, *MEDIA)
