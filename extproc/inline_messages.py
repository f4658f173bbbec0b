"""What we send to Envoy where the held request itself is a model turn (docs/adr/0015).

The first half rewrites the request, the second half the answer that comes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from extproc.messages import Head, set_header
from extproc.pb.ext_proc_pb2 import HttpHeaders, ProcessingResponse

# One message to Envoy holds so much of the rewritten body.
_PIECE = 256 * 2**10

# What Envoy and the hop to the model server need. All other headers are the client's, and go (rule X4).
_OF_THE_HOP = frozenset({"host", "x-forwarded-proto", "x-request-id"})


def turn_head(came: Head, path: str, headers: Mapping[str, str]) -> ProcessingResponse:
    """Return the rewritten head: another path, and these headers in the place of the client's."""
    message = ProcessingResponse()
    mutation = message.request_headers.response.header_mutation
    for name in came.headers:
        if not name.startswith((":", "x-envoy-")) and name not in {*_OF_THE_HOP, *headers}:
            mutation.remove_headers.append(name)
    set_header(mutation.set_headers.add(), ":path", path)
    for name, value in headers.items():
        set_header(mutation.set_headers.add(), name, value)
    return message


def turn_body(body: bytes) -> Iterator[ProcessingResponse]:
    """Return the rewritten body in pieces, the last of which says so."""
    for at in range(0, len(body), _PIECE):
        message = ProcessingResponse()
        piece = message.request_body.response.body_mutation.streamed_response
        piece.body = body[at : at + _PIECE]
        piece.end_of_stream = at + _PIECE >= len(body)
        yield message


def answer_head(came: HttpHeaders, headers: Iterable[tuple[str, str]]) -> ProcessingResponse:
    """Return the head of a 200 with these headers alone in the place of the model server's."""
    message = ProcessingResponse()
    mutation = message.response_headers.response.header_mutation
    given = dict(headers)
    for header in came.headers.headers:
        name = header.key.lower()
        if not name.startswith(":") and name not in given:
            mutation.remove_headers.append(name)
    set_header(mutation.set_headers.add(), ":status", "200")
    for name, value in given.items():
        set_header(mutation.set_headers.add(), name, value)
    return message


def answer_body(data: bytes, *, end: bool = False) -> ProcessingResponse:
    """Return a piece of the answer in the place of what the model server sent."""
    message = ProcessingResponse()
    piece = message.response_body.response.body_mutation.streamed_response
    piece.body = data
    piece.end_of_stream = end
    return message


def whole_stream(headers: Iterable[tuple[str, str]], body: bytes) -> ProcessingResponse:
    """Return an event stream as one whole answer."""
    message = ProcessingResponse()
    response = message.immediate_response
    response.status.code = 200
    for name, value in headers:
        set_header(response.headers.set_headers.add(), name, value)
    response.body = body
    response.details = "holdfast"
    return message
