"""Conversations that must come out alike, in whichever dialect the model is asked: data for tests."""

from __future__ import annotations

from typing import Any

from tests.support import replies
from tests.support.conversations import Turn, turn
from tests.support.markup_forms import FORMS
from tests.support.replies import call, reasoning, stream, text

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "It knows.",
    "parameters": CITY,
}
TIME = {"type": "function", "name": "get_time"}
PING = {"type": "function", "name": "ping", "parameters": {"type": "object", "properties": {}}}
TOOLS: dict[str, Any] = {"tools": [WEATHER, TIME, PING]}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}, "s": {"type": "string"}}}
FORMAT = {"type": "json_schema", "name": "thing", "schema": SCHEMA, "strict": True}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AA"}
LOOK = [{"role": "user", "content": [{"type": "input_text", "text": "look"}, IMAGE]}]
LOGPROBS: dict[str, Any] = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
TOO_LONG = "This model's maximum context length is 10 tokens. However, you requested 11 tokens."

CONVERSATIONS: dict[str, list[Turn]] = {
    "a word": [turn("hi")],
    "three turns": [turn("one"), turn("two"), turn("three")],
    "instructions": [turn("hi", instructions="Be brief."), turn("again")],
    "a system message": [
        turn([{"role": "system", "content": "S"}, {"role": "user", "content": "u"}])
    ],
    "other letters": [turn('Grüße, 你好, 🦊 \u2028 \\ " <b>')],
    "a thought": [turn("please think"), turn("think again")],
    "effort": [turn("hi", reasoning={"effort": "high"}), turn("hi", reasoning={"effort": "none"})],
    "a call": [turn('get_weather {"city": "Paris"}', **TOOLS), turn(None, **TOOLS), turn("thanks")],
    "two calls": [turn("get_weather and get_time", **TOOLS), turn(None, **TOOLS)],
    "a call without arguments": [turn("ping", **TOOLS), turn(None, **TOOLS)],
    "a thought and a call": [turn("think, then get_time", **TOOLS), turn("go on", **TOOLS)],
    "serial calls": [turn("get_weather and get_time", parallel_tool_calls=False, **TOOLS)],
    "no calls": [turn("get_weather", tool_choice="none", **TOOLS)],
    "some call": [turn("hi", tool_choice="required", **TOOLS)],
    "this call": [turn("hi", tool_choice={"type": "function", "name": "get_time"}, **TOOLS)],
    "allowed calls": [
        turn(
            "get_weather and get_time",
            tool_choice={
                "type": "allowed_tools",
                "tools": [{"type": "function", "name": "get_time"}],
            },
            **TOOLS,
        )
    ],
    "a schema": [turn("make one", text={"format": FORMAT}), turn("and more")],
    "any object": [turn("make one", text={"format": {"type": "json_object"}})],
    "cut text": [turn("a long story of many words", max_output_tokens=4), turn("go on")],
    "a cut thought": [turn("please think", max_output_tokens=3), turn("go on")],
    "a cut call": [
        turn('get_weather {"city": "Rio de Janeiro"}', max_output_tokens=2, **TOOLS),
        turn("go on", **TOOLS),
    ],
    "an image": [turn(LOOK), turn("what was it")],
    "log probabilities": [turn("hi there", **LOGPROBS)],
    "everything": [
        turn(
            "x",
            stream(reasoning("a", "b"), text("c", " d"), call("get_time", "{", "}"), call("ping")),
            **TOOLS,
        ),
        turn(None, **TOOLS),
    ],
    "the same call twice": [turn("x", stream(call("ping", "{}"), call("ping", "{}")), **TOOLS)],
    "text behind a call": [
        turn("x", stream(call("ping", "{}"), text("so")), **TOOLS),
        turn("y", **TOOLS),
    ],
    "an empty answer": [turn("x", stream()), turn("y")],
    "an empty text": [turn("x", stream(text(""))), turn("y")],
    "an answer that is no stream": [turn("x", replies.body(reasoning("a"), text("b")))],
    "calls that are no stream": [
        turn("x", replies.body(call("ping"), call("get_time", "{}")), **TOOLS)
    ],
    "an unknown function": [turn("x", stream(call("nothing", "{}")), **TOOLS), turn("y", **TOOLS)],
    "prose like markup": [
        turn("x", stream(text("a <", "tool", "> [TOOL", "_C <function="))),
        turn("y"),
    ],
    "a call as text": [
        turn("x", stream(text("So. ", *FORMS["hermes"][0])), **TOOLS),
        turn(None, **TOOLS),
    ],
    "a call in a thought": [turn("x", stream(reasoning("So. ", *FORMS["hermes"][0])), **TOOLS)],
    "an error frame": [turn("x", stream(text("a"))[:0] + replies.error_frame())],
    "an error frame of a prompt": [turn("x", replies.error_frame(TOO_LONG, 400)), turn("y")],
    "an end too soon": [
        turn("x", stream(text("a", "b")), less={"responses": 1, "chat": 3}),
        turn("y"),
    ],
    "a bad request": [turn("x", replies.bad_request()), turn("y")],
    "a prompt too long": [turn("x", replies.refused(400, TOO_LONG)), turn("y")],
    "an unknown model": [turn("x", replies.no_such_model())],
    "too many requests": [turn("x", replies.rate_limited())],
    "a server that is away": [turn("x", replies.unavailable()), turn("y")],
}
