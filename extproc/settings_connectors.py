"""The settings of the operator's connectors: MCP servers that every tenant can use and none can change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from engine.api.mcp import LABEL, parse_url, read_headers
from engine.errors import InvalidRequest
from extproc.settings_section import Section
from extproc.settings_tenancy import Names


class SharedConnector(Section):
    """One connector of the operator's."""

    label: str
    url: str
    description: str | None = Field(default=None, max_length=16_384)
    headers: Mapping[str, SecretStr] = {}
    authorization: SecretStr | None = None
    networks: Names = ()
    allowed_tools: Names = ()
    require_approval: Literal["always", "never"] | None = None

    @field_validator("label")
    @classmethod
    def _is_a_label(cls, label: str) -> str:
        try:
            return str(LABEL(label, "label"))
        except InvalidRequest:
            raise ValueError("must be a letter, then up to 63 letters, digits, _ and -") from None

    @field_validator("url")
    @classmethod
    def _is_a_url(cls, url: str) -> str:
        try:
            return parse_url(url, "url")
        except InvalidRequest:
            raise ValueError(
                "must be http://HOST/PATH or https://HOST/PATH, without a user"
            ) from None

    @field_validator("networks")
    @classmethod
    def _are_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            ip_network(network)
        return networks

    @model_validator(mode="after")
    def _headers_can_be_sent(self) -> SharedConnector:
        try:
            headers = read_headers(self.sent_headers(), "headers")
        except InvalidRequest as error:
            raise ValueError(f"headers: {error.message}") from None
        if self.authorization is not None and "authorization" in map(str.lower, headers):
            raise ValueError("authorization and an Authorization header are both given; use one")
        return self

    def sent_headers(self) -> dict[str, str]:
        """Return the headers in clear text."""
        return {name: text.get_secret_value() for name, text in self.headers.items()}


def _decoded(value: object) -> object:
    """Take JSON for what it says: the environment has no tables."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return ()
    try:
        return json.loads(value)
    except ValueError:
        # The text holds secrets, so the parser's words are not repeated.
        raise ValueError("must be a JSON array of objects") from None


class Connectors(Section):
    """MCP servers of the operator's, which requests name by label. All tenants can use them, none can change
    them or see where they are ([docs/api.md](api.md#connectors))."""

    shared: Annotated[tuple[SharedConnector, ...], NoDecode, BeforeValidator(_decoded)] = ()
    """In a file, a table `[[connectors.shared]]` for each; in the environment a JSON array. Keys: `label`
    and `url`; if wanted `description`, `authorization` and `headers` (what the server is sent with every
    request), `allowed_tools` (no other is offered), `require_approval` (`always` or `never`, for requests
    that do not say), and `networks`: those that the server may be in although they are not public, such as
    `10.1.0.0/16`."""

    @field_validator("shared")
    @classmethod
    def _have_labels_of_their_own(
        cls, shared: tuple[SharedConnector, ...]
    ) -> tuple[SharedConnector, ...]:
        labels = [each.label for each in shared]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"two connectors have the label {label}")
        return shared


def clear_text(shared: SharedConnector) -> dict[str, Any]:
    """Return a connector as a settings file has it, with its secrets."""
    values = shared.model_dump(mode="python", exclude_unset=True)
    secret = shared.authorization
    return {
        **values,
        **({} if secret is None else {"authorization": secret.get_secret_value()}),
        **({"headers": shared.sent_headers()} if shared.headers else {}),
    }
