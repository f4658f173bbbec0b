"""What scripts do to bytes."""

from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from tests.support import frames
from tests.support.transcripts import event_of

EVENTS = [{"n": 1, "text": "é", "type": "a"}, {"n": 2, "type": "b"}]
BODY = [frames.sse(event) for event in EVENTS]


@given(size=st.integers(1, 80))
def test_splitting_every_n_bytes_keeps_the_bytes(size: int) -> None:
    """All writes but the last have that size, and nothing is lost."""
    writes = list(frames.split_every(BODY, size))
    assert b"".join(writes) == b"".join(BODY)
    assert {len(write) for write in writes[:-1]} <= {size}


@given(st.lists(st.integers(0, 200), unique=True))
def test_splitting_at_offsets_keeps_the_bytes(offsets: list[int]) -> None:
    """Offsets beyond the end change nothing."""
    assert b"".join(frames.split_at(BODY, *offsets)) == b"".join(BODY)


def test_a_split_falls_on_the_given_offset() -> None:
    """Also inside a character."""
    at = b"".join(BODY).index("é".encode()) + 1
    first, second = frames.split_at(BODY, at)
    assert (len(first), second[:1]) == (at, "é".encode()[1:])


def test_events_survive_every_spelling() -> None:
    """The same JSON, whatever the line ends and data lines."""
    for change in (frames.crlf, frames.mixed_line_ends, frames.multi_line_data):
        assert [event_of(frame) for frame in change(BODY)] == EVENTS
    assert [event_of(frame) for frame in frames.without_space(BODY)] == EVENTS
    assert b"event:" not in b"".join(frames.without_event_lines(BODY))


def test_joined_puts_several_events_into_one_write() -> None:
    """Two, or all."""
    assert list(frames.joined(BODY * 2, 2)) == [b"".join(BODY)] * 2
    assert list(frames.joined(BODY * 2, None)) == [b"".join(BODY * 2)]


def test_first_bytes_stops_in_the_middle_of_a_write() -> None:
    """Exactly so many, from the front."""
    assert b"".join(frames.first_bytes(BODY, 10)) == BODY[0][:10]
    assert b"".join(frames.first_bytes(BODY, len(BODY[0]) + 3)) == BODY[0] + BODY[1][:3]


def test_an_edit_changes_drops_and_doubles_events() -> None:
    """None drops, a list multiplies, comments pass."""
    doubled = list(frames.edited([b": hi\n\n", *BODY], lambda e: [e, e] if e["n"] == 1 else None))
    assert doubled == [b": hi\n\n", BODY[0], BODY[0]]


def test_gzip_can_be_read_along() -> None:
    """Each write can be unpacked as it comes."""
    unpack = zlib.decompressobj(wbits=31)
    pieces = [unpack.decompress(write) for write in frames.gzipped(BODY)]
    assert pieces[:2] == BODY
    assert unpack.eof


def test_noise_is_the_same_every_time() -> None:
    """Random to a parser, not to a test."""
    assert frames.noise(64) == frames.noise(64)
    assert len(frames.noise(64)) == 64
