"""`extproc.identity`: whose a request is, from what Envoy says, or nobody's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from engine.errors import Unauthenticated
from extproc import identity
from extproc.identity import Identify, from_attribute, from_header, from_metadata
from extproc.messages import ATTRIBUTES
from extproc.pb.ext_proc_pb2 import ProcessingRequest
from extproc.settings import Settings
from extproc.values import identity_source
from storage.limits import MAX_NAME_BYTES, is_name
from tests.support.fake_envoy import head

LONG = "ü" * 256
TOKEN = {
    "HOLDFAST_TENANCY__MODE": "required",
    "HOLDFAST_TENANCY__SOURCE": "jwt",
    "HOLDFAST_JWT__ISSUER": "https://issuer",
    "HOLDFAST_JWT__AUDIENCES": "holdfast",
    "HOLDFAST_JWT__JWKS_FILE": "keys.json",
}


def with_headers(headers: Iterable[tuple[str, bytes]]) -> ProcessingRequest:
    message = head("GET", "/v1/responses", {}, end=True)
    for name, value in headers:
        header = message.request_headers.headers.headers.add()
        header.key, header.raw_value = name, value
    return message


def with_metadata(namespace: str, content: dict[str, Any]) -> ProcessingRequest:
    message = head("GET", "/v1/responses", {}, end=True)
    message.metadata_context.filter_metadata[namespace].update(content)
    return message


def with_attributes(content: dict[str, Any]) -> ProcessingRequest:
    message = head("GET", "/v1/responses", {}, end=True)
    message.attributes[ATTRIBUTES].update(content)
    return message


def refusal(identify: Identify, message: ProcessingRequest) -> str:
    before = message.SerializeToString(deterministic=True)
    with pytest.raises(Unauthenticated) as caught:
        identify(message)
    # Looking for what is not there leaves nothing behind.
    assert message.SerializeToString(deterministic=True) == before
    return caught.value.message


# -- a header ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["acme", " a b ", "ü", "O=Acme/CN=x", "default", LONG])
def test_a_header_is_the_tenant_byte_for_byte(value: str) -> None:
    """X2: no cutting, no folding of case: two names never become one."""
    message = with_headers([("X-Tenant", value.encode())])
    assert from_header("x-tenant")(message) == value


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("x-tenant", b"")],
        [("x-tenant", b"  \t")],
        [("x_tenant", b"acme")],
        [("x-tenant-id", b"acme")],
        [(":x-tenant", b"acme")],
        [("x-holdfast-tenant", b"acme"), ("authorization", b"acme"), ("cookie", b"x-tenant=acme")],
    ],
)
def test_without_the_header_nobody_asks(headers: list[tuple[str, bytes]]) -> None:
    """X2: missing, empty, blank, or under a similar name."""
    assert "an identity is required" in refusal(from_header("x-tenant"), with_headers(headers))


@pytest.mark.parametrize(
    "headers",
    [
        [("x-tenant", b"a"), ("x-tenant", b"b")],
        [("x-tenant", b"a"), ("x-tenant", b"a")],
        [("x-tenant", b""), ("x-tenant", b"a")],
        [("x-tenant", b"a"), ("X-Tenant", b"b")],
        [("x-tenant", b"a,b")],
        [("x-tenant", b"a, a")],
    ],
)
def test_a_header_that_came_twice_is_nobody(headers: list[tuple[str, bytes]]) -> None:
    """X2: also where a proxy on the way has joined both into one."""
    assert "twice" in refusal(from_header("x-tenant"), with_headers(headers))


@pytest.mark.parametrize("value", [b"\xff", b"a\xc3", b"a\0", LONG.encode() + b"x", b"x" * 513])
def test_a_header_that_cannot_be_kept_is_nobody(value: bytes) -> None:
    """X2: bytes that are no text would all become the same replacement character."""
    assert "cannot be used" in refusal(from_header("x-tenant"), with_headers([("x-tenant", value)]))


# -- metadata ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (["sub"], {"sub": "acme"}),
        (["payload", "org", "id"], {"payload": {"org": {"id": "acme"}, "id": "other"}}),
        (["https://acme.com/tenant"], {"https://acme.com/tenant": "acme"}),
    ],
)
def test_a_string_in_metadata_is_the_tenant(path: list[str], content: dict[str, Any]) -> None:
    """X2: claims may be within others, and have names with dots."""
    assert from_metadata("ns", path)(with_metadata("ns", content)) == "acme"


def test_a_comma_is_part_of_a_name_where_nothing_could_have_joined_it() -> None:
    """Unlike in a header."""
    assert from_metadata("ns", ["a"])(with_metadata("ns", {"a": "a,b"})) == "a,b"


@pytest.mark.parametrize(
    "message",
    [
        head("GET", "/v1/responses", {"ns": "acme", "sub": "acme"}, end=True),
        with_metadata("other", {"payload": {"sub": "acme"}}),
        with_metadata("ns", {"payload": {}}),
        with_metadata("ns", {"sub": "acme"}),
        with_metadata("ns", {"payload": "acme"}),
        with_metadata("ns", {"payload": {"sub": ""}}),
        with_metadata("ns", {"payload": {"sub": "\n"}}),
    ],
)
def test_without_the_metadata_nobody_asks(message: ProcessingRequest) -> None:
    """X2: missing, in another place, empty."""
    told = refusal(from_metadata("ns", ["payload", "sub"]), message)
    assert "an identity is required" in told


@pytest.mark.parametrize("value", [7, True, None, ["acme"], {"id": "acme"}, LONG + "x", "a\0"])
def test_metadata_that_is_no_name_is_nobody(value: Any) -> None:
    """X2: a number is not made a string: 1 and 1.0 are one number and two strings."""
    message = with_metadata("ns", {"sub": value})
    assert "cannot be used" in refusal(from_metadata("ns", ["sub"]), message)


# -- attributes --------------------------------------------------------------------------------------


def test_an_attribute_is_the_tenant() -> None:
    """X2: such as the name in a client's certificate."""
    name = "connection.uri_san_peer_certificate"
    message = with_attributes({name: "spiffe://acme/app", "source.address": "1.2.3.4:5"})
    assert from_attribute(name)(message) == "spiffe://acme/app"


@pytest.mark.parametrize(
    "message",
    [
        head("GET", "/v1/responses", {"connection.x": "acme"}, end=True),
        with_attributes({"connection.y": "acme"}),
        with_attributes({"connection.x": ""}),
    ],
)
def test_without_the_attribute_nobody_asks(message: ProcessingRequest) -> None:
    """X2: no certificate, or one without such a name."""
    assert "an identity is required" in refusal(from_attribute("connection.x"), message)


# -- the settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            TOKEN,
            with_metadata("envoy.filters.http.jwt_authn", {"holdfast": {"sub": "acme"}}),
        ),
        (
            {**TOKEN, "HOLDFAST_JWT__CLAIM": "org,id"},
            with_metadata("envoy.filters.http.jwt_authn", {"holdfast": {"org": {"id": "acme"}}}),
        ),
        (
            {
                "HOLDFAST_TENANCY__MODE": "required",
                "HOLDFAST_TENANCY__SOURCE": "header",
                "HOLDFAST_TENANCY__HEADER": "x-tenant",
            },
            with_headers([("x-tenant", b"acme")]),
        ),
        (
            {
                "HOLDFAST_TENANCY__MODE": "required",
                "HOLDFAST_TENANCY__SOURCE": "metadata",
                "HOLDFAST_TENANCY__METADATA_NAMESPACE": "envoy.filters.http.ext_authz",
                "HOLDFAST_TENANCY__METADATA_PATH": "tenant",
            },
            with_metadata("envoy.filters.http.ext_authz", {"tenant": "acme"}),
        ),
        (
            {
                "HOLDFAST_TENANCY__MODE": "required",
                "HOLDFAST_TENANCY__SOURCE": "attribute",
                "HOLDFAST_TENANCY__ATTRIBUTE": "connection.uri_san_peer_certificate",
            },
            with_attributes({"connection.uri_san_peer_certificate": "acme"}),
        ),
    ],
    ids=["jwt", "jwt, a claim in a claim", "header", "metadata", "attribute"],
)
def test_the_settings_name_the_place(environ: dict[str, str], message: ProcessingRequest) -> None:
    """X2: there and nowhere else; without it there is no default tenant."""
    identify = identity_source(Settings.load(None, environ))
    assert identify(message) == "acme"
    refusal(identify, head("GET", "/v1/responses", {"x-holdfast-tenant": "acme"}, end=True))


def test_without_tenancy_everything_belongs_to_one_tenant() -> None:
    """Whatever a request says."""
    identify = identity_source(Settings.load(None, {}))
    assert identify(with_headers([("x-holdfast-tenant", b"acme")])) == "default"


def test_what_is_a_tenant_here_is_a_name_for_every_store() -> None:
    """X5: a request is not accepted in the name of somebody who cannot have a row."""
    assert identity.LONGEST == MAX_NAME_BYTES
    assert is_name(LONG)
    assert is_name(identity.DEFAULT_TENANT)
