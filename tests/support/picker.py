"""A small endpoint picker: the server's side of the Gateway API Inference Extension, for tests.

It answers a request's headers once it has the whole body, as real ones do that read the model's name, and
names the server in `x-gateway-destination-endpoint` and in the metadata `envoy.lb`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc

from extproc.grpc_server import SERVICE
from extproc.pb.ext_proc_pb2 import HeaderValueOption, ProcessingRequest, ProcessingResponse

DESTINATION = "x-gateway-destination-endpoint"
# Envoy takes at most so much of a body in one answer.
_CHUNK = 60_000


@dataclass(frozen=True)
class Picked:
    """What a picker was asked, and what it said."""

    headers: Mapping[str, str]
    body: bytes
    destination: str


class Picker:
    """Sends each request where `choose` says (`HOST:PORT`, several with commas), on a free port."""

    def __init__(self, choose: Callable[[Mapping[str, str], bytes], str]) -> None:
        self.choose = choose
        self.picked: list[Picked] = []
        self.firsts: list[str] = []
        """The kind of the first message of each stream."""
        self.url = ""
        self._server = grpc.aio.server()

    async def __aenter__(self) -> Self:
        process = grpc.stream_stream_rpc_method_handler(
            self._process,
            request_deserializer=ProcessingRequest.FromString,
            response_serializer=ProcessingResponse.SerializeToString,
        )
        methods = grpc.method_handlers_generic_handler(SERVICE, {"Process": process})
        self._server.add_generic_rpc_handlers((methods,))
        self.url = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._server.stop(None)

    async def _process(
        self, requests: AsyncIterator[ProcessingRequest], _call: Any
    ) -> AsyncIterator[ProcessingResponse]:
        headers: dict[str, str] = {}
        body = b""
        async for request in requests:
            kind = request.WhichOneof("request") or ""
            if not headers:
                self.firsts.append(kind)
            if kind == "request_headers":
                for header in request.request_headers.headers.headers:
                    headers[header.key] = header.raw_value.decode()
                ended = request.request_headers.end_of_stream
            else:
                assert kind == "request_body", kind
                body += request.request_body.body
                ended = request.request_body.end_of_stream
            if ended:
                destination = self.choose(headers, body)
                self.picked.append(Picked(headers, body, destination))
                yield _named(destination)
                if kind == "request_body":
                    for answer in _whole(body):
                        yield answer


def _named(destination: str) -> ProcessingResponse:
    answer = ProcessingResponse()
    option = answer.request_headers.response.header_mutation.set_headers.add()
    option.header.key, option.header.raw_value = DESTINATION, destination.encode()
    option.append_action = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    answer.dynamic_metadata.update({"envoy.lb": {DESTINATION: destination}})
    return answer


def _whole(body: bytes) -> list[ProcessingResponse]:
    """Return the body as it came, in pieces."""
    answers = []
    for start in range(0, max(1, len(body)), _CHUNK):
        answer = ProcessingResponse()
        piece = answer.request_body.response.body_mutation.streamed_response
        piece.body = body[start : start + _CHUNK]
        piece.end_of_stream = start + _CHUNK >= len(body)
        answers.append(answer)
    return answers
