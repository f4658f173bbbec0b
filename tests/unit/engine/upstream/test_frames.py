"""`engine.upstream.frames`: what is read of a server's events."""

from __future__ import annotations

import msgspec
import pytest

from engine.upstream.frames import read_frame, read_response, read_type


def test_unknown_fields_are_passed_over_and_missing_ones_have_defaults() -> None:
    """Servers differ."""
    frame = read_frame(b'{"type":"t","delta":"d","new":{"deep":[1,{"x":null}]}}')
    assert (frame.type, frame.delta, frame.item, frame.output_index) == ("t", "d", None, None)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"7", b'{"delta":1}', b'{"a":' + b"[" * 100_000, b'{"type":"\xff"}', b'{"a":\\}'],
)
def test_what_cannot_be_read_raises_one_kind_of_error(data: bytes) -> None:
    """Also where it nests without end."""
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        read_frame(data)
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        read_response(data.replace(b"delta", b"status").replace(b"type", b"status"))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"{}", "no response object"),
        (b'{"error":{"message":"Out of memory."}}', "Out of memory."),
        (b'{"object":"chat.completion","choices":[]}', "no response object"),
    ],
)
def test_an_object_that_is_no_response_is_not_read_as_an_empty_one(data: bytes, told: str) -> None:
    """A 200 is not yet an answer: neither status nor output says that it is something else."""
    with pytest.raises(msgspec.DecodeError, match=told):
        read_response(data)


def test_lone_surrogates_are_replaced() -> None:
    """Also a pair that is spelt as one is kept."""
    assert read_frame(rb'{"delta":"\ud83d\ude00 \ud83d"}').delta == "😀 �"


def test_the_type_of_an_odd_event_can_be_read() -> None:
    """To tell an event that matters from one that does not."""
    assert read_type(b'{"type":"x","delta":{}}') == "x"
    assert read_type(b"{}") == ""
    for data in (b"{", b"7", b'{"type":7}', b"[" * 100_000):
        assert read_type(data) is None
