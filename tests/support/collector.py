"""A collector of traces in the process: a real OTLP server over gRPC that keeps the spans it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
_KINDS = {1: "internal", 2: "server", 3: "client"}


@dataclass(frozen=True)
class Kept:
    """A span as it was sent; ids in hexadecimal digits, `parent` empty at the root of a trace of ours."""

    name: str
    kind: str
    trace_id: str
    id: str
    parent: str
    attributes: dict[str, Any]
    failed: bool
    resource: dict[str, Any]

    def shape(self) -> str:
        """Name and kind."""
        return f"{self.name} ({self.kind})"


class Collector:
    """Listens on 127.0.0.1; `metadata` are the headers of the requests that came."""

    def __init__(self) -> None:
        self.spans: list[Kept] = []
        self.metadata: list[dict[str, str]] = []
        self.raw: list[bytes] = []
        self._server = grpc.aio.server()
        self._port = 0

    @property
    def url(self) -> str:
        """Where spans are sent to."""
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        handler = grpc.unary_unary_rpc_method_handler(
            self._export,
            request_deserializer=ExportTraceServiceRequest.FromString,
            response_serializer=ExportTraceServiceResponse.SerializeToString,
        )
        handlers = grpc.method_handlers_generic_handler(_SERVICE, {"Export": handler})
        self._server.add_generic_rpc_handlers((handlers,))
        self._port = self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(0)

    def trace(self, trace_id: str) -> list[Kept]:
        """Return the spans of a trace."""
        return [span for span in self.spans if span.trace_id == trace_id]

    def edges(self, trace_id: str) -> list[str]:
        """Return each span of a trace behind its parent, by name and kind; sorted."""
        spans = {span.id: span for span in self.trace(trace_id)}
        return sorted(
            f"{spans[s.parent].name if s.parent in spans else '-'} > {s.shape()}"
            for s in spans.values()
        )

    async def _export(
        self, request: ExportTraceServiceRequest, context: Any
    ) -> ExportTraceServiceResponse:
        self.metadata.append({key: str(value) for key, value in context.invocation_metadata()})
        self.raw.append(request.SerializeToString())
        self.spans += _spans(request)
        return ExportTraceServiceResponse()


def _spans(request: ExportTraceServiceRequest) -> Iterator[Kept]:
    for group in request.resource_spans:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield Kept(
                    span.name,
                    _KINDS.get(span.kind, "other"),
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    _attributes(span.attributes),
                    failed=span.status.code == 2,
                    resource=resource,
                )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    return getattr(value, value.WhichOneof("value") or "string_value")
