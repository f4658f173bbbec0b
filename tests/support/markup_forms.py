"""Calls as models write them, family by family: for the tests of what holds and reads them. Pure."""

from __future__ import annotations

from typing import Any

from engine.api.tools import FunctionTool
from engine.upstream.shapes import SHAPES, Agreement, agreement

WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "where": {"type": ["number", "null"]},
    },
}
TOOLS = (
    FunctionTool("get_weather", None, WEATHER, None),
    FunctionTool("get_time", None, None, None),
    FunctionTool("ping", None, {}, None),
)

Calls = list[tuple[str, dict[str, Any]]]
PARIS: Calls = [("get_weather", {"city": "Paris"})]
BOTH: Calls = [*PARIS, ("get_time", {"tz": "CET"})]
PING: Calls = [("ping", {})]

_W = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
_T = '{"name": "get_time", "arguments": {"tz": "CET"}}'
_WL, _TL = _W.replace("arguments", "parameters"), _T.replace("arguments", "parameters")
_CITY, _ZONE = '{"city": "Paris"}', '{"tz": "CET"}'

FORMS: dict[str, tuple[str, Calls]] = {
    "hermes": (f"<tool_call>\n{_W}\n</tool_call>", PARIS),
    "hermes, two": (f"<tool_call>\n{_W}\n</tool_call>\n<tool_call>\n{_T}\n</tool_call>", BOTH),
    "hermes, not closed": (f"<tool_call>\n{_W}\n<tool_call>\n{_T}", BOTH),
    "hermes, no arguments": ('<tool_call>{"name": "ping"}</tool_call>', PING),
    "hermes, null arguments": ('<tool_call>{"name": "ping", "arguments": null}</tool_call>', PING),
    "hermes, arguments as text": (
        '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}</tool_call>',
        PARIS,
    ),
    "hermes, arguments first": (
        '<tool_call>{"arguments": {"city": "Paris"}, "name": "get_weather"}</tool_call>',
        PARIS,
    ),
    "granite": (f"<tool_call>[{_W}, {_T}]</tool_call>", BOTH),
    "granite, its token": (f"<|tool_call|>[{_W}]", PARIS),
    "qwen coder": (
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n"
        "<parameter=days>\n3\n</parameter>\n<parameter=where>\nnull\n</parameter>\n"
        "</function>\n</tool_call>",
        [("get_weather", {"city": "Paris", "days": 3, "where": None})],
    ),
    "qwen coder, no arguments": ("<tool_call><function=ping>\n</function></tool_call>", PING),
    "qwen coder, no outer tag": (
        "<function=get_time>\n<parameter=tz>\nCET\n</parameter>\n</function>",
        BOTH[1:],
    ),
    "function tag": (f"<function=get_weather>{_CITY}</function>", PARIS),
    "function tag, two": (
        f"<function=get_weather>{_CITY}</function><function=get_time>{_ZONE}</function>",
        BOTH,
    ),
    "glm": (
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
        [("get_weather", {"city": "Paris", "days": 3})],
    ),
    "glm, no arguments": ("<tool_call>ping\n</tool_call>", PING),
    "llama, its token": (f"<|python_tag|>{_WL}", PARIS),
    "llama, two": (f"<|python_tag|>{_WL}; {_TL}<|eom_id|>", BOTH),
    "mistral": (f"[TOOL_CALLS] [{_W}, {_T}]", BOTH),
    "mistral, names": (f"[TOOL_CALLS]get_weather{_CITY}[TOOL_CALLS]get_time{_ZONE}", BOTH),
    "mistral, ids": (f"[TOOL_CALLS]get_weather[CALL_ID]a1B2c3D4e[ARGS]{_CITY}", PARIS),
    "mistral, args": (f"[TOOL_CALLS]get_weather[ARGS]{_CITY}", PARIS),
    "functionary": (f">>>get_weather\n{_CITY}\n>>>get_time\n{_ZONE}", BOTH),
    "function_call": (f"<function_call>{_W}</function_call>", PARIS),
    "tool_calls": (f"<tool_calls>[{_W}]</tool_calls>", PARIS),
    "kimi": (
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0"
        f"<|tool_call_argument_begin|>{_CITY}<|tool_call_end|><|tool_call_begin|>"
        f"functions.get_time:1<|tool_call_argument_begin|>{_ZONE}<|tool_call_end|>"
        "<|tool_calls_section_end|>",
        BOTH,
    ),
    "deepseek 3": (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
        f"```json\n{_CITY}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        PARIS,
    ),
    "deepseek 3.1": (
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{_CITY}"
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        PARIS,
    ),
}
"""Markup that may stand anywhere."""

BARE_FORMS: dict[str, tuple[str, Calls]] = {
    "llama, bare": (_WL, PARIS),
    "llama, bare, two": (f"{_WL}; {_TL}", BOTH),
    "llama, bare, typed": ('{"type": "function", ' + _WL[1:], PARIS),
    "llama, bare, spread": (
        '\n{\n  "name" : "get_weather",\n  "parameters": {"city": "Paris"}\n}',
        PARIS,
    ),
    "a bare list": (f"[{_W}, {_T}]", BOTH),
    "functionary, first": (f"get_weather\n{_CITY}\n>>>get_time\n{_ZONE}", BOTH),
}
"""Calls without markup: only a whole message can be one."""


def _is_call(text: str) -> bool:
    return any(
        agreement(shape, text, place) is Agreement.WHOLE
        for place in range(len(text))
        for shape in SHAPES
    )


def is_prose(text: str) -> bool:
    """True if no call begins anywhere in the text, markup or not."""
    begins_bare = text.lstrip().startswith(("{", "[{", *(f"{t.name}\n" for t in TOOLS)))
    return not _is_call(text) and not begins_bare


BEGINNINGS = sorted(
    {
        text[:size]
        for text, _ in [*FORMS.values(), *BARE_FORMS.values()]
        for size in range(1, len(text))
        if not _is_call(text[:size])
    },
    key=lambda text: (len(text), text),
)
"""Every beginning of every form that is none yet."""
