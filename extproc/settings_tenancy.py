"""The settings of identity: whose a request is, and how Envoy knows (rule X2, docs/tenancy.md)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_settings import NoDecode

from extproc.settings_section import Section

JWT_NAMESPACE = "envoy.filters.http.jwt_authn"
"""Where Envoy's JWT filter puts what it verified."""
JWT_KEY = "holdfast"
"""Under which key our config makes it do so."""
STRIPPED_PREFIX = "x-holdfast-"
"""Envoy removes every header that begins so from what clients send."""

_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^`|~-]+")
# Envoy or HTTP itself gives these a meaning; none of them names a tenant.
_TAKEN = {"authorization", "connection", "content-length", "content-type", "cookie", "host", "te"}
_ATTRIBUTE = re.compile(r"[a-z_]+(\.[a-z0-9_]+)+")


def split(value: object) -> object:
    """Take `a,b` for `["a", "b"]`: the environment has no lists."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",")) if value.strip() else ()
    return value


Name = Annotated[str, Field(min_length=1, pattern=r"^[^,\s]+$")]
Names = Annotated[tuple[Name, ...], NoDecode, BeforeValidator(split)]


class Tenancy(Section):
    """Whose a request is. Identity comes from Envoy, never from the client's own words."""

    mode: Literal["off", "required"] = "off"
    """`off`: everything belongs to the tenant `default`; `required`: without identity a request is a 401."""

    source: Literal["jwt", "header", "metadata", "attribute"] | None = None
    """Where Envoy tells the tenant: a claim of a JWT that it verified (section `jwt`), a request header,
    dynamic metadata of one of its filters, or a request attribute."""

    header: str | None = None
    """Name of the header, in small letters; Envoy strips it from clients before its filters run."""

    header_from_gateway: bool = False
    """The header comes from a gateway in front of Envoy and is kept; nobody else may reach the listener."""

    metadata_namespace: str | None = Field(default=None, min_length=1)
    """Namespace of the metadata, as a rule the name of the filter that writes it."""

    metadata_path: Names = ()
    """Keys that lead to the tenant within the namespace, separated by commas."""

    attribute: str | None = None
    """Name of the attribute, such as `connection.uri_san_peer_certificate`."""

    @field_validator("header")
    @classmethod
    def _is_a_header(cls, name: str | None) -> str | None:
        if name is not None and (not _HEADER_NAME.fullmatch(name) or name in _TAKEN):
            raise ValueError("is no name of a header for this, in small letters and without '_'")
        return name

    @field_validator("attribute")
    @classmethod
    def _is_an_attribute(cls, name: str | None) -> str | None:
        if name is not None and not _ATTRIBUTE.fullmatch(name):
            raise ValueError(
                "is no name of an attribute, such as connection.subject_peer_certificate"
            )
        return name

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.mode == "required") != (self.source is not None):
            raise ValueError(
                "mode 'required' needs a source, one of: jwt, header, metadata, attribute"
                if self.source is None
                else "a source is set, but mode is 'off': set mode to 'required', or remove it"
            )
        self._has_what_its_source_needs()
        if self.header_from_gateway and (self.header or "").startswith(STRIPPED_PREFIX):
            raise ValueError(
                f"header must not begin with {STRIPPED_PREFIX} if it comes from a gateway: "
                "Envoy strips all of these from what it receives"
            )
        return self

    def _has_what_its_source_needs(self) -> None:
        given = {
            "header": ("header", self.header),
            "header_from_gateway": ("header", self.header_from_gateway),
            "metadata_namespace": ("metadata", self.metadata_namespace),
            "metadata_path": ("metadata", self.metadata_path),
            "attribute": ("attribute", self.attribute),
        }
        for name, (source, value) in given.items():
            if value and source != self.source:
                raise ValueError(f"{name} is set, but source is not '{source}'")
            if not value and source == self.source and name != "header_from_gateway":
                raise ValueError(f"source '{source}' needs {name}")

    def problem_over_http(self, *, alone: bool, port: bool) -> str | None:
        """Return why tenants cannot be told apart where workers serve HTTP; None where they can.

        `alone`: without any Envoy; `port`: on a port, which is open to more than Envoy.
        """
        if self.source is None:
            return None
        if self.source != "header":
            return (
                f"source '{self.source}' cannot be used with http.listen: only ext_proc tells the workers "
                "what Envoy knows of a request; over HTTP there are its headers alone (source 'header')"
            )
        if self.header_from_gateway or not (alone or port):
            return None
        where = "without Envoy" if alone else "on a port that others than Envoy can reach"
        return (
            f"nothing takes the header from what clients send where HTTP is served {where}: serve it at "
            "unix:PATH behind Envoy, or set header_from_gateway if a gateway replaces the header and "
            "nobody else can reach http.listen"
        )


class Jwt(Section):
    """The tokens that Envoy verifies where `tenancy.source` is `jwt`; expiry is always required."""

    issuer: str | None = Field(default=None, min_length=1)
    """The `iss` that a token must have."""

    audiences: Names = ()
    """A token must have one of these in `aud`; separated by commas."""

    jwks_file: Path | None = None
    """File with the issuer's public keys (JWKS), which Envoy reads at its start."""

    jwks_uri: str | None = None
    """URL of the issuer's public keys, which Envoy fetches and keeps for five minutes."""

    ca_file: Path | None = None
    """Certificates to trust for an `https` `jwks_uri` (PEM); unset trusts those of the system."""

    claim: Names = ("sub",)
    """The claim that is the tenant; a claim within a claim is written with commas: `org,id`."""

    @field_validator("jwks_uri")
    @classmethod
    def _is_a_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ValueError("must be http://HOST/PATH or https://HOST/PATH, without a user")
        return url

    def problem(self, *, wanted: bool) -> str | None:
        """Return what does not fit, given whether tenants come from tokens."""
        given = self.issuer or self.audiences or self.jwks_file or self.jwks_uri or self.ca_file
        if not wanted:
            return "is set, but tenancy.source is not 'jwt'" if given else None
        if self.issuer is None:
            return "issuer is needed"
        if not self.audiences:
            return "audiences are needed: a token for another service must not do here"
        if not self.claim:
            return "claim is needed"
        if (self.jwks_file is None) == (self.jwks_uri is None):
            return "one of jwks_file and jwks_uri is needed, for the issuer's keys"
        return None
