"""`engine.sse`: the event-stream grammar, incrementally (R11)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sse import DONE, KEEP_ALIVE, Decoder, Event, LineTooLong

Events = list[tuple[str, str]]


def decoded(*chunks: bytes, max_line: int = 1 << 20) -> Events:
    decoder = Decoder(max_line)
    found = [event for chunk in chunks for event in decoder.feed(chunk)]
    return [(event.type.decode(), event.data.decode()) for event in found]


# The examples of https://html.spec.whatwg.org/multipage/server-sent-events.html
WHATWG: dict[str, tuple[str, Events]] = {
    "messages": (
        "data: This is the first message.\n\ndata: This is the second message, it\n"
        "data: has two lines.\n\ndata: This is the third message.\n\n",
        [
            ("", "This is the first message."),
            ("", "This is the second message, it\nhas two lines."),
            ("", "This is the third message."),
        ],
    ),
    "types": (
        "event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
        [("add", "73857293"), ("remove", "2153"), ("add", "113411")],
    ),
    "stock": ("data: YHOO\ndata: +2\ndata: 10\n\n", [("", "YHOO\n+2\n10")]),
    "four blocks": (
        ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        [("", "first event"), ("", "second event"), ("", " third event")],
    ),
    "empty data": ("data\n\ndata\ndata\n\ndata:", [("", ""), ("", "\n")]),
    "spaces": ("data:test\n\ndata: test\n\n", [("", "test"), ("", "test")]),
    "a type without data": ("event: x\n\ndata: a\n\n", [("", "a")]),
    "unknown fields": ("retry: 10\nfoo: bar\nfoo\ndata: a\n\n", [("", "a")]),
    "an unfinished event": ("data: a\n\ndata: b\n", [("", "a")]),
    "a byte order mark": ("\ufeffdata: a\n\n", [("", "a")]),
    "colons in data": ('data: {"a":":b"}\n\n', [("", '{"a":":b"}')]),
    "other line separators": ("data: a\u2028b\x0bc\x85d\n\n", [("", "a\u2028b\x0bc\x85d")]),
}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("name", WHATWG)
def test_the_examples_of_the_standard(name: str, end: str) -> None:
    """R11: with each of the line ends, whole and byte by byte."""
    text, expected = WHATWG[name]
    body = text.replace("\n", end).encode()

    assert decoded(body) == expected
    assert decoded(*(body[at : at + 1] for at in range(len(body)))) == expected


TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=3)), max_size=4),
    st.data(),
)
def test_any_chunking_and_any_line_ends_give_the_same_events(
    wanted: list[tuple[str, list[str]]], data: st.DataObject
) -> None:
    """R11: inside a character, inside CRLF, with empty chunks."""
    end = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    body = ""
    for kind, lines in wanted:
        for line in (f"event:{kind}", ": noise", *(f"data:{text}" for text in lines), ""):
            body += line + end
    raw = body.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=10)))
    chunks = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]

    assert decoded(*chunks) == [
        (kind.removeprefix(" "), "\n".join(line.removeprefix(" ") for line in lines))
        for kind, lines in wanted
    ]


def test_our_own_frames_can_be_read() -> None:
    """A comment is no event; [DONE] is one."""
    assert decoded(KEEP_ALIVE + DONE + KEEP_ALIVE) == [("", "[DONE]")]


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
@pytest.mark.parametrize(
    "body", [b"data: " + b"x" * 200, b": " + b"x" * 200, b"data: xxxxxxxxx\n" * 20, b"x" * 200]
)
def test_what_grows_past_the_bound_is_refused(body: bytes, size: int) -> None:
    """X5: a line without end, an event without end; whatever the chunks."""
    with pytest.raises(LineTooLong):
        decoded(*(body[at : at + size] for at in range(0, len(body), size)), b"\n", max_line=100)


def test_the_bound_is_for_each_event_anew() -> None:
    """X5: many events are no long one."""
    frame = b"data: " + b"x" * 90 + b"\n\n"
    assert len(decoded(*[frame] * 50, max_line=100)) == 50


def test_events_before_the_chunk_that_is_too_long_are_not_lost() -> None:
    """They were returned by the feeds before."""
    decoder = Decoder(100)
    assert decoder.feed(b"data: a\n\n") == [Event(b"", b"a")]
    with pytest.raises(LineTooLong):
        decoder.feed(b"x" * 101)
