"""Scripts by name, for tests that can choose only the model's name: `model="script/<name>"`."""

from __future__ import annotations

from tests.support import replies
from tests.support.replies import call, reasoning, say, stream, text
from tests.support.scripts import Cut, Script, Start

MEGABYTE = 1 << 20

_HELLO = stream(text("Hel", "lo"))
_PARIS = '{"city": "Paris"}'

NAMED: dict[str, Script] = {
    # ordinary answers
    "text": say(text("Hel", "lo")),
    "unicode": say(text("Grüße", " an 東京", " \U0001f44b\U0001f3fd")),
    "reasoning": say(reasoning("think", "ing"), text("Hel", "lo")),
    "call": say(call("get_weather", '{"city":', ' "Paris"}')),
    "empty": say(),
    "incomplete": say(text("Hel", "lo"), cut_short=True),
    # broken connections
    "cut-before-status": Script(Cut()),
    "cut-after-status": Script(Start(), Cut()),
    "cut-after-delta": Script(_HELLO[:5], Cut()),
    "cut-in-event": Script(_HELLO[:5], _HELLO[5:6].first_bytes(60), Cut()),
    "reset-after-delta": Script(_HELLO[:5], Cut(reset=True)),
    "no-terminal-event": Script(_HELLO[:-1]),
    "eof-after-delta": Script(_HELLO[:5]),
    "nothing": Script(Start()),
    # bytes
    "one-byte-writes": Script(_HELLO.split_every(1)),
    "crlf": Script(_HELLO.crlf()),
    "mixed-line-ends": Script(_HELLO.mixed_line_ends()),
    "one-write": Script(_HELLO.joined()),
    "comments": Script(_HELLO.commented()),
    "no-event-lines": Script(_HELLO.without_event_lines()),
    "multi-line-data": Script(_HELLO.multi_line_data()),
    "done-marker": Script(_HELLO.with_done()),
    "gzip": Script(_HELLO.gzipped()),
    "garbage": Script(replies.garbage()),
    "long-line": Script(_HELLO[:4], replies.long_line(17 * MEGABYTE), _HELLO[4:]),
    "endless": Script(replies.endless(10_000)),
    # contents
    "error-frame": Script(_HELLO[:5], replies.error_frame()),
    "usage-null": Script(_HELLO.usage_null()),
    "same-index": Script(stream(reasoning("think"), text("Hello")).same_output_index()),
    "same-id": Script(stream(reasoning("think"), text("Hello")).same_item_id()),
    "almost-a-call": say(text("Write <tool", "_call", "> to call; <tool_box> is prose", ".")),
    "call-as-text": say(text("<tool_call>\n", f'{{"name": "get_weather", "arguments": {_PARIS}}}')),
    "arguments-at-once": say(call("get_weather", _PARIS)),
    "arguments-by-character": say(call("get_weather", *_PARIS)),
    "no-arguments": say(call("ping")),
    "invalid-arguments": say(call("get_weather", '{"city": ', "Paris")),
    "unknown-tool": say(call("no_such_tool", "{}")),
    # refusals
    "400": Script(replies.bad_request()),
    "400-20mb": Script(replies.bad_request(20 * MEGABYTE)),
    "404": Script(replies.no_such_model()),
    "429": Script(replies.rate_limited()),
    "500": Script(replies.server_error()),
    "500-text": Script(replies.plain_server_error()),
    "503": Script(replies.unavailable()),
    "json-instead-of-stream": Script(replies.body(text("Hel", "lo"))),
}
