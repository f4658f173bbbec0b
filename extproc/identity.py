"""Whose a request is: read from what Envoy says of it, before anything else of it is (rules X1, X2).

Three places, one of which the settings name: a header that only Envoy or a gateway in front of it can set,
dynamic metadata of a filter (jwt_authn, ext_authz), or an attribute of the connection (the name in a client's
certificate). Nothing that could stand for two tenants is taken for one: no value that came twice, no bytes
that are not text, no cutting, no default.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from google.protobuf.struct_pb2 import Struct, Value

from engine.errors import Unauthenticated
from extproc.messages import ATTRIBUTES, header_values
from extproc.pb.ext_proc_pb2 import ProcessingRequest

DEFAULT_TENANT = "default"
LONGEST = 512
"""In bytes; no store keeps a longer name."""

Identify = Callable[[ProcessingRequest], str]
"""Returns the tenant of a request from the first message of its stream; raises Unauthenticated."""


def nobody_in_particular(_first: ProcessingRequest) -> str:
    """Everything belongs to one tenant: tenancy is off."""
    return DEFAULT_TENANT


def from_header(name: str) -> Identify:
    """The value of a header; `name` in small letters."""
    return partial(_header, name)


def from_metadata(namespace: str, path: Sequence[str]) -> Identify:
    """The string in dynamic metadata to which the keys of `path` lead."""
    return partial(_metadata, namespace, path)


def from_attribute(name: str) -> Identify:
    """The value of a request attribute."""
    return partial(_attribute, name)


def _header(name: str, first: ProcessingRequest) -> str:
    values = header_values(first.request_headers, name)
    if len(values) > 1:
        raise Unauthenticated("The request says twice whose it is.")
    if not values:
        raise _missing()
    try:
        tenant = values[0].decode()
    except UnicodeDecodeError:
        raise _unusable() from None
    if "," in tenant:
        # Two headers that a proxy made one: HTTP allows it to.
        raise Unauthenticated("The request says twice whose it is.")
    return _checked(tenant)


def _metadata(namespace: str, path: Sequence[str], first: ProcessingRequest) -> str:
    filters = first.metadata_context.filter_metadata
    # Looked up only where it is: reading a key of a protobuf map creates it.
    return _checked(_within(filters[namespace], path) if namespace in filters else None)


def _attribute(name: str, first: ProcessingRequest) -> str:
    given = first.attributes
    return _checked(_within(given[ATTRIBUTES], [name]) if ATTRIBUTES in given else None)


def _within(struct: Struct, path: Sequence[str]) -> str | None:
    """Return the string to which `path` leads; None if there is nothing; raises for another type."""
    found = Value(struct_value=struct)
    for key in path:
        if found.WhichOneof("kind") != "struct_value" or key not in found.struct_value.fields:
            return None
        found = found.struct_value.fields[key]
    if found.WhichOneof("kind") != "string_value":
        raise _unusable()
    return found.string_value


def _checked(tenant: str | None) -> str:
    if tenant is None or not tenant.strip():
        raise _missing()
    if len(tenant.encode()) > LONGEST or "\0" in tenant:
        raise _unusable()
    return tenant


def _missing() -> Unauthenticated:
    return Unauthenticated("The request does not say whose it is: an identity is required here.")


def _unusable() -> Unauthenticated:
    return Unauthenticated(
        f"The request's identity cannot be used: it must be text of at most {LONGEST} bytes."
    )
