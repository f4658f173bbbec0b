"""`engine.api.events`: frames from templates, numbered as they are written (R4, R11)."""

from __future__ import annotations

from engine.api.events import EventWriter, field


def test_a_frame_names_its_type_twice_and_is_numbered() -> None:
    """R11: `event:` equals the body's type; R4: 0, 1, 2 over all kinds."""
    events = EventWriter()
    assert events.event(b"x.y", field("a", "é\n")) == (
        'event: x.y\ndata: {"type":"x.y","sequence_number":0,"a":"é\\n"}\n\n'.encode()
    )
    assert events.lifecycle("created", b"{}") == (
        b"event: response.created\n"
        b'data: {"type":"response.created","sequence_number":1,"response":{}}\n\n'
    )
    assert events.item("added", 3, b"{}") == (
        b"event: response.output_item.added\n"
        b'data: {"type":"response.output_item.added","sequence_number":2,"output_index":3,"item":{}}\n\n'
    )
    assert events.sequence == 3


def test_no_line_end_of_a_text_breaks_a_frame() -> None:
    """R11: JSON escapes what SSE would split at."""
    frame = EventWriter().event(b"x", field("a", "\r\n\u2028\x85\x0b"))
    assert b"\r" not in frame
    assert frame.count(b"\n") == 3
