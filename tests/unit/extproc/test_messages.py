"""`extproc.messages`: what we send to Envoy, and what is read of its headers."""

from __future__ import annotations

from engine.answers import Answer
from extproc import messages
from extproc.messages import read_head
from extproc.pb.ext_proc_pb2 import HeaderValueOption, HttpHeaders
from tests.support.fake_envoy import head


def test_a_head_is_read_by_lower_case_names() -> None:
    """From `raw_value`, which is what Envoy fills."""
    read = read_head(head("GET", "/v1/responses?x=1", {"X-Foo": "é"}, end=True).request_headers)
    assert (read.method, read.target, read.ended) == ("GET", "/v1/responses?x=1", True)
    assert read.headers["x-foo"] == "é"


def test_repeated_headers_are_joined_and_odd_ones_do_not_break() -> None:
    """Bytes that are no UTF-8; a value in the older field; no method at all."""
    message = HttpHeaders()
    for key, raw, value in (
        ("content-encoding", b"gzip", ""),
        ("content-encoding", b"br", ""),
        ("x-odd", b"\xff", ""),
        ("x-old", b"", "text"),
    ):
        header = message.headers.headers.add()
        header.key, header.raw_value, header.value = key, raw, value
    read = read_head(message)
    assert read.headers == {"content-encoding": "gzip,br", "x-odd": "�", "x-old": "text"}
    assert (read.method, read.target, read.ended) == ("", "", False)


def test_a_whole_answer_is_one_message() -> None:
    """Status, content type, headers, body."""
    answer = messages.immediate(Answer(503, b"{}", {"retry-after": "1"})).immediate_response
    assert (answer.status.code, answer.body, answer.details) == (503, b"{}", "holdfast")
    headers = {o.header.key: o.header.raw_value for o in answer.headers.set_headers}
    assert headers == {"content-type": b"application/json", "retry-after": b"1"}
    assert {o.append_action for o in answer.headers.set_headers} == {
        HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    }


def test_a_streamed_answer_is_a_head_pieces_and_an_end() -> None:
    """The status is a header, as Envoy wants it."""
    first = messages.stream_head([("content-type", "text/event-stream")])
    headers = first.streamed_immediate_response.headers_response.headers.headers
    assert [(h.key, h.raw_value) for h in headers] == [
        (":status", b"200"),
        ("content-type", b"text/event-stream"),
    ]
    piece = messages.stream_body(b"x").streamed_immediate_response.body_response
    assert (piece.body, piece.end_of_stream) == (b"x", False)
    end = messages.stream_end().streamed_immediate_response.body_response
    assert (end.body, end.end_of_stream) == (b"", True)


def test_a_message_can_be_passed_on_unchanged() -> None:
    """An empty answer of the same kind."""
    assert messages.pass_on("response_headers").WhichOneof("response") == "response_headers"
