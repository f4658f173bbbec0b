"""The `mcp` tool as declared in a request: checked, echoed without its secrets, matched against tools.

Whether the gateway may reach `server_url` is not decided here: that is policy, and needs addresses.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from engine.api import checks
from engine.api.json import encode
from engine.errors import InvalidRequest

_KEYS = (
    "type", "server_label", "server_url", "connector_id", "server_description", "headers",
    "authorization", "require_approval", "allowed_tools", "allowed_callers", "defer_loading",
    "tunnel_id",
)  # fmt: skip
LABEL = checks.matching(r"[a-zA-Z][a-zA-Z0-9_-]{0,63}")
_CONNECTOR = checks.matching(r"[a-zA-Z0-9_-]{1,128}")
_URL = checks.matching(r"https?://[\x21-\x5b\x5d-\x7e]{1,2000}")
_HEADER_NAME = checks.matching(r"[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,128}")
_SECRET_PATTERN = r"[\x20-\x7e]{1,8192}"
DESCRIPTION = checks.string_up_to(16_384)
_TOOL_NAME = checks.string_up_to(256)
_MOST_HEADERS = 64
_MOST_NAMES = 1024
# What frames the message, names its target, or belongs to the protocol: never the client's to set.
_RESERVED_HEADERS = frozenset(
    (
        "accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type",
        "expect", "host", "keep-alive", "last-event-id", "te", "trailer", "transfer-encoding", "upgrade",
    )
)  # fmt: skip
_RESERVED_PREFIXES = ("mcp-", "proxy-")
REDACTED = "<redacted>"


class ToolFilter(msgspec.Struct, frozen=True):
    """Some of a server's tools: those that meet every criterion that is set.

    `read_only` compares with the server's own `annotations.readOnlyHint`; a tool without it is not
    read-only.
    """

    names: frozenset[str] | None = None
    read_only: bool | None = None

    def matches(self, name: str, *, read_only: bool) -> bool:
        """True if the tool `name` is one of them."""
        if self.names is not None and name not in self.names:
            return False
        return self.read_only is None or self.read_only is read_only

    def both(self, other: ToolFilter) -> ToolFilter:
        """Return the filter of what meets this one and the other."""
        if None not in (self.read_only, other.read_only) and self.read_only is not other.read_only:
            return ToolFilter(names=frozenset())
        named = [names for names in (self.names, other.names) if names is not None]
        return ToolFilter(
            names=frozenset.intersection(*named) if named else None,
            read_only=other.read_only if self.read_only is None else self.read_only,
        )


class Approval(msgspec.Struct, frozen=True):
    """Which calls wait for the client's consent. `always` wins over `never`; the rest is `otherwise`."""

    otherwise: Literal["always", "never"] = "always"
    always: ToolFilter | None = None
    never: ToolFilter | None = None

    def needed(self, name: str, *, read_only: bool) -> bool:
        """True if a call of the tool `name` needs consent."""
        if self.always is not None and self.always.matches(name, read_only=read_only):
            return True
        if self.never is not None and self.never.matches(name, read_only=read_only):
            return False
        return self.otherwise == "always"


class McpTool(msgspec.Struct, frozen=True, kw_only=True):
    """A declared MCP server.

    It has a `server_url`, or names a connector, by `connector_id` or else by its label. `connector` is the
    id of the one that was found (`engine.api.connectors.reached`); `server_url` is then that connector's.
    `headers` and `authorization` are secrets (rule X4): not in `shown()`, not in `repr()`. `headers` holds
    what is sent to the server, names in lower case. `asked_*` are the client's own words, for the echo.
    """

    server_label: str
    server_url: str | None = None
    connector_id: str | None = None
    server_description: str | None = None
    headers: Mapping[str, str]
    authorization: str | None = None
    approval: Approval
    allowed: ToolFilter
    connector: str | None = None
    asked_headers: tuple[str, ...] = ()
    asked_approval: object = None
    asked_allowed: object = None

    def __repr__(self) -> str:
        """Return the label only."""
        return f"McpTool({self.server_label!r})"

    def shown(self) -> dict[str, object]:
        """Return the echo in the response object (rules R10, X4); of the URL only the origin."""
        shown: dict[str, object] = {
            "type": "mcp",
            "server_label": self.server_label,
            "server_description": self.server_description,
            "allowed_tools": self.asked_allowed,
            "require_approval": "always" if self.asked_approval is None else self.asked_approval,
            "headers": dict.fromkeys(self.asked_headers, REDACTED) or None,
        }
        if self.connector_id is not None:
            shown["connector_id"] = self.connector_id
        elif self.server_url is not None and self.connector is None:
            shown["server_url"] = shown_url(self.server_url)
        return shown

    def sent_headers(self) -> dict[str, str]:
        """Return the headers of every request to the server, `authorization` among them."""
        if self.authorization is None:
            return dict(self.headers)
        return {**self.headers, "authorization": f"Bearer {self.authorization}"}

    def fingerprint(self, key: bytes) -> str:
        """Return a keyed digest of the server and the credentials, in hex (rule T6).

        An approval holds for the fingerprint it was asked under. Keyed, so that what is stored beside
        an approval cannot be used to try out guessed credentials.
        """
        identity = [
            self.server_url,
            self.connector_id,
            self.authorization,
            sorted(self.headers.items()),
        ]
        return hmac.new(key, encode(identity), hashlib.sha256).hexdigest()


def shown_url(url: object) -> str:
    """Return what of a server's URL may be shown: there are servers that are reached by a secret path."""
    parts = urlsplit(str(url))
    return f"{parts.scheme}://{parts.netloc}/{REDACTED}"


def parse_mcp_tool(value: object, param: str) -> McpTool:
    """Check one entry of `tools` whose type is `mcp`; raises InvalidRequest with the path."""
    tool = checks.mapping(value, param)
    checks.only_keys(tool, _KEYS, param)
    _refuse_what_is_not_here(tool, param)
    label = str(LABEL(checks.required(tool, "server_label", param), f"{param}.server_label"))
    url, connector = _target(tool, param)
    asked = read_headers(tool.get("headers"), f"{param}.headers")
    authorization = read_authorization(tool.get("authorization"), f"{param}.authorization")
    headers = {name.lower(): text for name, text in asked.items()}
    if authorization is not None and "authorization" in headers:
        raise InvalidRequest(
            f"'{param}.authorization' and an Authorization header were both given; use one.",
            param=f"{param}.authorization",
            code="invalid_value",
        )
    description = tool.get("server_description")
    approval = tool.get("require_approval")
    allowed = tool.get("allowed_tools")
    return McpTool(
        server_label=label,
        server_url=url,
        connector_id=connector,
        server_description=None
        if description is None
        else str(DESCRIPTION(description, f"{param}.server_description")),
        headers=headers,
        authorization=authorization,
        approval=read_approval(approval, f"{param}.require_approval"),
        allowed=read_allowed(allowed, f"{param}.allowed_tools"),
        asked_headers=tuple(asked),
        asked_approval=approval,
        asked_allowed=allowed,
    )


def check_labels(labels: Sequence[tuple[str, str]]) -> None:
    """Refuse a label that two servers share (rule T5); `labels` are pairs of path and label."""
    seen: set[str] = set()
    for param, label in labels:
        if label in seen:
            raise InvalidRequest(
                f"Duplicate server_label '{label}' found: each MCP server of a request "
                "needs a label of its own.",
                param=f"{param}.server_label",
                code="invalid_value",
            )
        seen.add(label)


def _refuse_what_is_not_here(tool: Mapping[str, object], param: str) -> None:
    if tool.get("tunnel_id") is not None:
        raise checks.unsupported(f"{param}.tunnel_id", "servers are reached by 'server_url'.")
    deferred, callers = tool.get("defer_loading"), tool.get("allowed_callers")
    if deferred is not None and checks.boolean(deferred, f"{param}.defer_loading"):
        raise checks.unsupported(f"{param}.defer_loading", "tools are loaded when the run starts.")
    if callers is not None and checks.array(callers, f"{param}.allowed_callers") != ["direct"]:
        raise checks.unsupported(f"{param}.allowed_callers", "only the model calls tools here.")


def _target(tool: Mapping[str, object], param: str) -> tuple[str | None, str | None]:
    url, connector = tool.get("server_url"), tool.get("connector_id")
    if url is None and connector is None:
        return None, None
    if url is None:
        return None, str(_CONNECTOR(connector, f"{param}.connector_id"))
    if connector is not None:
        raise InvalidRequest(
            f"'{param}.server_url' and '{param}.connector_id' exclude each other.",
            param=f"{param}.connector_id",
            code="invalid_value",
        )
    return parse_url(url, f"{param}.server_url"), None


def parse_url(value: object, param: str) -> str:
    """Check the URL of a server; no message repeats it, since it may hold a secret."""
    expected = "an http or https URL with a host, without credentials and without spaces"
    text = checks.string(value, param)
    try:
        url = str(_URL(text, param))
        netloc = urlsplit(url).netloc
    except (InvalidRequest, ValueError):
        # The URL may hold a secret, so it is not repeated.
        raise checks.wrong_value(REDACTED, param, expected) from None
    if not netloc or "@" in netloc:
        raise checks.wrong_value(REDACTED, param, expected)
    return url


def read_headers(value: object, param: str) -> dict[str, str]:
    """Check headers for a server, names as they came; no error repeats a value."""
    if value is None:
        return {}
    given = checks.mapping(value, param)
    if len(given) > _MOST_HEADERS:
        raise checks.wrong_value(f"{len(given)} headers", param, f"at most {_MOST_HEADERS}")
    seen: set[str] = set()
    for name, text in given.items():
        _header_name(name, param, seen)
        _secret(text, f"{param}.{name}")
    return {name: str(text) for name, text in given.items()}


def _header_name(name: str, param: str, seen: set[str]) -> None:
    _HEADER_NAME(name, param)
    low = name.lower()
    if low in _RESERVED_HEADERS or low.startswith(_RESERVED_PREFIXES):
        raise checks.unsupported(f"{param}.{name}", "the gateway sets this header itself.")
    if low in seen:
        raise checks.wrong_value(name, param, "each header once, whatever its case")
    seen.add(low)


def read_authorization(value: object, param: str) -> str | None:
    """Return the token; the error does not repeat it."""
    if value is None:
        return None
    text = _secret(value, param)
    scheme, _, token = text.partition(" ")
    # Some clients send the whole header.
    return token.strip() if scheme.lower() == "bearer" and token.strip() else text


_MATCHES_SECRET = checks.matching(_SECRET_PATTERN)


def _secret(value: object, param: str) -> str:
    text = checks.string(value, param)
    try:
        return str(_MATCHES_SECRET(text, param))
    except InvalidRequest:
        raise checks.wrong_value(REDACTED, param, "1 to 8192 printable ASCII characters") from None


def read_approval(value: object, param: str) -> Approval:
    """Check `require_approval`."""
    if value is None or value == "always":
        return Approval("always")
    if value == "never":
        return Approval("never")
    if isinstance(value, str):
        raise checks.wrong_value(value, param, "'always', 'never' or an object with these keys")
    filters = checks.mapping(value, param)
    checks.only_keys(filters, ("always", "never"), param)
    always, never = filters.get("always"), filters.get("never")
    return Approval(
        always=None if always is None else _filter(always, f"{param}.always"),
        never=None if never is None else _filter(never, f"{param}.never"),
    )


def read_allowed(value: object, param: str) -> ToolFilter:
    """Check `allowed_tools`."""
    if value is None:
        return ToolFilter()
    if isinstance(value, list):
        return ToolFilter(names=_names(value, param))
    return _filter(value, param)


def _filter(value: object, param: str) -> ToolFilter:
    criteria = checks.mapping(value, param)
    checks.only_keys(criteria, ("tool_names", "read_only"), param)
    names, read_only = criteria.get("tool_names"), criteria.get("read_only")
    if names is None and read_only is None:
        # An empty filter could mean every tool or none: with consent at stake, nobody guesses.
        raise checks.wrong_value("{}", param, "'tool_names', 'read_only' or both")
    return ToolFilter(
        names=None if names is None else _names(names, f"{param}.tool_names"),
        read_only=None if read_only is None else checks.boolean(read_only, f"{param}.read_only"),
    )


def _names(value: object, param: str) -> frozenset[str]:
    listed = checks.array(value, param)
    if len(listed) > _MOST_NAMES:
        raise checks.wrong_value(f"{len(listed)} names", param, f"at most {_MOST_NAMES}")
    return frozenset(str(_TOOL_NAME(name, f"{param}[{i}]")) for i, name in enumerate(listed))
