"""A rate limit service in the process: Envoy's own protocol over gRPC, with a budget for each tenant.

Its messages are made here, by Envoy's field numbers: nobody but this service speaks them.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Self

import grpc
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    wrappers_pb2,
)

_SERVICE = "envoy.service.ratelimit.v3.RateLimitService"
_OK, _OVER_LIMIT = 1, 2
_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "holdfast.tests.rls"


class RateLimitService:
    """Listens on 127.0.0.1. Each tenant has `budget` tokens; who has used them up is over its limit."""

    def __init__(self, budget: int) -> None:
        self.used: defaultdict[str, int] = defaultdict(int)
        self.asked: list[tuple[str, str, int]] = []
        """Domain, tenant and hits of each descriptor."""
        self._budget = budget
        self._server = grpc.aio.server()
        self._port = 0

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        handler = grpc.unary_unary_rpc_method_handler(
            self._judge,
            request_deserializer=_REQUEST.FromString,
            response_serializer=_RESPONSE.SerializeToString,
        )
        handlers = grpc.method_handlers_generic_handler(_SERVICE, {"ShouldRateLimit": handler})
        self._server.add_generic_rpc_handlers((handlers,))
        self._port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(0)

    async def _judge(self, request: Any, _context: Any) -> Any:
        code = _OK
        for descriptor in request.descriptors:
            [tenant] = [entry.value for entry in descriptor.entries if entry.key == "tenant"]
            hits = descriptor.hits_addend.value
            self.asked.append((request.domain, tenant, hits))
            if self.used[tenant] >= self._budget:
                code = _OVER_LIMIT
            self.used[tenant] += hits
        return _RESPONSE(overall_code=code)


def _messages() -> tuple[Any, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="holdfast/tests/rls.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    _message(file, "Entry", ("key", 1, "", False), ("value", 2, "", False))
    _message(
        file,
        "Descriptor",
        ("entries", 1, f".{_PACKAGE}.Entry", True),
        ("hits_addend", 3, ".google.protobuf.UInt64Value", False),
    )
    _message(
        file,
        "Request",
        ("domain", 1, "", False),
        ("descriptors", 2, f".{_PACKAGE}.Descriptor", True),
    )
    response = file.message_type.add(name="Response")
    response.field.add(name="overall_code", number=1, type=_Field.TYPE_INT32, label=1)
    made = descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    types = made.message_types_by_name
    return tuple(message_factory.GetMessageClass(types[n]) for n in ("Request", "Response"))  # type: ignore[return-value]


def _message(
    file: descriptor_pb2.FileDescriptorProto, name: str, *fields: tuple[str, int, str, bool]
) -> None:
    """Add a message; a field is a string unless it has the name of a type."""
    message = file.message_type.add(name=name)
    for field, number, kind, repeated in fields:
        message.field.add(
            name=field,
            number=number,
            type=_Field.TYPE_MESSAGE if kind else _Field.TYPE_STRING,
            type_name=kind or None,
            label=3 if repeated else 1,
        )


_REQUEST, _RESPONSE = _messages()
