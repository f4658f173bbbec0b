"""Connectors, registered MCP servers: as the API shows them, and how a declared server is reached by one.

An extension of ours, in the form of OpenAI's objects. What is secret of a connector is in `Secrets` alone,
which no object and no error shows (rule X4). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from engine.api import checks
from engine.api.json import encode, read_object, read_value
from engine.api.mcp import (
    DESCRIPTION,
    LABEL,
    McpTool,
    parse_url,
    read_allowed,
    read_approval,
    read_authorization,
    read_headers,
)
from engine.errors import InvalidRequest

Values = dict[str, object]


class ConnectorFields(msgspec.Struct, frozen=True, kw_only=True):
    """The object as it is shown and stored. `server_url` is None where it is the operator's affair."""

    id: str
    kind: Literal["connector"] = msgspec.field(default="connector", name="object")
    created_at: int
    source: Literal["tenant", "settings"] = "tenant"
    server_label: str
    server_url: str | None
    description: str | None = None
    allowed_tools: object = None
    require_approval: object = None
    has_authorization: bool = False
    header_names: list[str] = []
    metadata: dict[str, str] = {}

    def encoded(self) -> bytes:
        """Return the JSON of the object."""
        return encode(self)


class Secrets(msgspec.Struct, frozen=True):
    """The credentials of a connector; header names in the client's case. Not in `repr()`."""

    authorization: str | None = None
    headers: dict[str, str] = {}

    def __repr__(self) -> str:
        """Return nothing of them."""
        return "Secrets(…)"

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return self.authorization is not None or bool(self.headers)


class Connector(msgspec.Struct, frozen=True):
    """A connector with all that it takes to reach its server."""

    fields: ConnectorFields
    url: str
    secrets: Secrets

    def __repr__(self) -> str:
        """Return the label only."""
        return f"Connector({self.fields.server_label!r})"

    @property
    def fixed(self) -> bool:
        """True if it is the operator's, and nobody else may change what is sent to its server."""
        return self.fields.source == "settings"


read_fields = msgspec.json.Decoder(ConnectorFields).decode
read_secrets = msgspec.json.Decoder(Secrets).decode


def _metadata(value: object, param: str) -> dict[str, str]:
    return {name: str(text) for name, text in checks.metadata(value, param).items()}


def _filter(value: object, param: str) -> object:
    read_allowed(value, param)
    return value


def _approval(value: object, param: str) -> object:
    read_approval(value, param)
    return value


_SHOWN: Mapping[str, Callable[[object, str], object]] = {
    "server_label": LABEL,
    "server_url": parse_url,
    "description": DESCRIPTION,
    "allowed_tools": _filter,
    "require_approval": _approval,
    "metadata": _metadata,
}
_SECRET: Mapping[str, Callable[[object, str], object]] = {
    "authorization": read_authorization,
    "headers": read_headers,
}
_NEEDED = ("server_label", "server_url")


def parse_connector(body: bytes, connector_id: str, created_at: int) -> Connector:
    """Check the body of a create request; raises InvalidRequest with `param`."""
    given = {name: value for name, value in _values(body).items() if value is not None}
    for name in _NEEDED:
        if name not in given:
            raise checks.missing(name)
    empty = ConnectorFields(id=connector_id, created_at=created_at, server_label="", server_url="")
    return _with(empty, Secrets(), given)


def parse_change(
    body: bytes, fields: ConnectorFields, secrets: Callable[[], Secrets]
) -> tuple[Connector, bool]:
    """Apply the body of an update: what is left out stays, null removes.

    `secrets` opens what is sealed, and is only called where some of it stays. Returns the connector as it is
    then, and whether its secrets have to be sealed again. Raises InvalidRequest with `param`.
    """
    given = _values(body)
    for name in _NEEDED:
        if name in given and given[name] is None:
            raise checks.wrong_type(None, name, "a string")
    held = {
        name
        for name, there in (
            ("authorization", fields.has_authorization),
            ("headers", bool(fields.header_names)),
        )
        if there
    }
    kept = held - given.keys()
    moved = given.get("server_url", fields.server_url) != fields.server_url
    if moved and kept:
        raise InvalidRequest(
            "The credentials of a connector are not sent to another URL: with 'server_url' give "
            f"{' and '.join(repr(name) for name in sorted(kept))} anew, or null.",
            param="server_url",
            code="credentials_required",
        )
    changed = moved or bool(given.keys() & _SECRET.keys())
    before = secrets() if changed and kept else Secrets()
    made = _with(fields, before, given)
    if changed:
        return made, True
    shown = msgspec.structs.replace(
        made.fields, has_authorization=fields.has_authorization, header_names=fields.header_names
    )
    return msgspec.structs.replace(made, fields=shown), False


def reached(tool: McpTool, connector: Connector, param: str) -> McpTool:
    """Return a declared server as it is reached by a connector; `param` is the declaration's path.

    Both filters of tools hold. The client's own credentials and headers go before those of its connector;
    of an operator's connector they can be added to, and not replaced (InvalidRequest).
    """
    fields, secrets = connector.fields, connector.secrets
    headers = {name.lower(): text for name, text in secrets.headers.items()}
    own = "authorization" in tool.headers or tool.authorization is not None
    if connector.fixed:
        _check_fixed(tool, headers, secrets, param)
    if own:
        headers.pop("authorization", None)
    asked = tool.asked_approval is not None or fields.require_approval is None
    return msgspec.structs.replace(
        tool,
        server_url=connector.url,
        connector=fields.id,
        server_description=tool.server_description or fields.description,
        headers={**headers, **tool.headers},
        authorization=tool.authorization if own else secrets.authorization,
        approval=tool.approval if asked else read_approval(fields.require_approval, param),
        asked_approval=tool.asked_approval if asked else fields.require_approval,
        allowed=tool.allowed.both(read_allowed(fields.allowed_tools, param)),
    )


def _check_fixed(tool: McpTool, headers: Mapping[str, str], secrets: Secrets, param: str) -> None:
    taken = set(headers)
    if secrets.authorization is not None:
        taken.add("authorization")
    if tool.authorization is not None and "authorization" in taken:
        raise _is_fixed(f"{param}.authorization")
    for name in tool.headers:
        if name in taken:
            raise _is_fixed(f"{param}.headers.{name}")


def _is_fixed(param: str) -> InvalidRequest:
    return InvalidRequest(
        f"'{param}' is set by the connector, which belongs to the gateway's operator; leave it out.",
        param=param,
        code="connector_read_only",
    )


def _values(body: bytes) -> Values:
    """Return what a body says, decoded; raises InvalidRequest for what a connector does not have."""
    raw = read_object(body)
    for name, value in raw.items():
        if name not in _SHOWN and name not in _SECRET and bytes(value) != b"null":
            raise checks.unknown(name, (*_SHOWN, *_SECRET))
    return {name: read_value(raw[name], name) for name in (*_SHOWN, *_SECRET) if name in raw}


def _with(fields: ConnectorFields, secrets: Secrets, given: Values) -> Connector:
    """Return a connector with what is given; null stands for the default."""
    defaults: Values = {"metadata": {}}
    shown = {
        name: defaults.get(name) if given[name] is None else check(given[name], name)
        for name, check in _SHOWN.items()
        if name in given
    }
    secret = {name: check(given[name], name) for name, check in _SECRET.items() if name in given}
    held = msgspec.structs.replace(secrets, **secret)
    if held.authorization is not None and "authorization" in map(str.lower, held.headers):
        raise InvalidRequest(
            "'authorization' and an Authorization header were both given; use one.",
            param="authorization",
            code="invalid_value",
        )
    made = msgspec.structs.replace(
        fields,
        **shown,
        has_authorization=held.authorization is not None,
        header_names=list(held.headers),
    )
    return Connector(made, made.server_url or "", held)
