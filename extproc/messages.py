"""Every message that we send to Envoy, and what is read of Envoy's headers.

Messages are filled by assignment: nested constructors cost three times as much (measured).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from engine.account import Fact
from engine.answers import Answer
from extproc.pb.ext_proc_pb2 import (
    HeaderMap,
    HeaderValueOption,
    HttpHeaders,
    ProcessingRequest,
    ProcessingResponse,
)

_SET = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
JSON = "application/json"
NAMESPACE = "holdfast"
"""Of the dynamic metadata by which Envoy is told of an exchange."""
ATTRIBUTES = "envoy.filters.http.ext_proc"
"""Under which name a message carries the attributes that the filter's config asks for."""


class Head(msgspec.Struct, frozen=True):
    """The head of a request: method, target (path and query), and headers by lower-case name."""

    method: str
    target: str
    headers: Mapping[str, str]
    ended: bool
    """True if there is no body."""


def read_head(message: HttpHeaders) -> Head:
    """Return what Envoy says of a request; of a repeated header the values are joined by a comma."""
    headers: dict[str, str] = {}
    for header in message.headers.headers:
        value = (header.raw_value or header.value.encode()).decode("utf-8", "replace")
        name = header.key.lower()
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return Head(
        headers.get(":method", ""), headers.get(":path", ""), headers, message.end_of_stream
    )


def header_values(message: HttpHeaders, name: str) -> list[bytes]:
    """Return each value of a header as it came, in order; `name` in small letters."""
    return [
        header.raw_value or header.value.encode()
        for header in message.headers.headers
        if header.key.lower() == name
    ]


def request_head(
    method: str, target: str, headers: Iterable[tuple[bytes, bytes]], *, ended: bool
) -> ProcessingRequest:
    """Return what Envoy would say of a request that did not come through it.

    What reads heads (`read_head`, and who asks whose a request is) so has one form to read.
    """
    message = ProcessingRequest()
    head = message.request_headers
    head.end_of_stream = ended
    _add(head.headers, ":method", method)
    _add(head.headers, ":path", target)
    for name, value in headers:
        header = head.headers.headers.add()
        header.key = name.decode("latin-1").lower()
        header.raw_value = value
    return message


def immediate(answer: Answer) -> ProcessingResponse:
    """Return a whole answer; Envoy sets its length."""
    message = ProcessingResponse()
    response = message.immediate_response
    response.status.code = answer.status
    set_header(response.headers.set_headers.add(), "content-type", JSON)
    for name, value in answer.headers.items():
        set_header(response.headers.set_headers.add(), name, value)
    response.body = answer.body
    # Envoy's access log shows it, and the JSON mapper of local errors leaves it alone.
    response.details = "holdfast"
    return message


def stream_head(headers: Iterable[tuple[str, str]]) -> ProcessingResponse:
    """Return the head of a streamed answer with status 200 (Envoy 1.37 and later)."""
    message = ProcessingResponse()
    header_map = message.streamed_immediate_response.headers_response.headers
    _add(header_map, ":status", "200")
    for name, value in headers:
        _add(header_map, name, value)
    return message


def stream_body(data: bytes) -> ProcessingResponse:
    """Return a piece of a streamed answer's body."""
    message = ProcessingResponse()
    message.streamed_immediate_response.body_response.body = data
    return message


def stream_end() -> ProcessingResponse:
    """Return the end of a streamed answer."""
    message = ProcessingResponse()
    message.streamed_immediate_response.body_response.end_of_stream = True
    return message


def with_facts(message: ProcessingResponse, facts: Mapping[str, Fact]) -> ProcessingResponse:
    """Return the message with what Envoy may know of the exchange: its dynamic metadata `holdfast`.

    Envoy takes it of every kind of message and adds it to what came before (measured with 1.40), so
    that access logs and rate limits have it when the exchange ends.
    """
    if facts:
        message.dynamic_metadata.get_or_create_struct(NAMESPACE).update(facts)
    return message


def pass_on(kind: str) -> ProcessingResponse:
    """Return the answer that lets a message of Envoy's pass unchanged; `kind` is its field's name."""
    message = ProcessingResponse()
    getattr(message, kind).SetInParent()
    return message


def set_header(option: HeaderValueOption, name: str, value: str) -> None:
    """Fill an entry of a mutation: the header has this value alone."""
    option.header.key = name
    option.header.raw_value = value.encode()
    option.append_action = _SET


def _add(header_map: HeaderMap, name: str, value: str) -> None:
    header = header_map.headers.add()
    header.key = name
    header.raw_value = value.encode()
