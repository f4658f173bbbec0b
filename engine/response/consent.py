"""Consent to a call of an owned tool: what it is asked for, and what it holds for (rule T6, ADR 0010).

A request for consent holds for one server with one set of credentials, one tool, and one set of arguments.
Where the response that asks is stored, all of this is stored with it. Where it is not, the id of the request
carries a digest of it. Pure.
"""

from __future__ import annotations

import hashlib
import hmac

import msgspec

from engine.api.json import encode
from engine.api.mcp import McpTool
from engine.context.tool_names import ToolKey

_DIGEST = 22
_sorted = msgspec.json.Encoder(order="sorted").encode


class Consent(msgspec.Struct, frozen=True):
    """What a stored request is for; `shown` is the tool's name as the model called it.

    `holds_for` is the fingerprint of server and credentials, keyed with the id of the request.
    """

    label: str
    name: str
    arguments: str
    shown: str
    holds_for: str = ""

    def pack(self) -> bytes:
        """Return what is stored."""
        return encode(self)

    def concerns(self, label: str, name: str, arguments: str) -> bool:
        """True if that is the very call; arguments are compared as JSON."""
        same = canonical(self.arguments) == canonical(arguments)
        return (self.label, self.name) == (label, name) and same


unpack = msgspec.json.Decoder(Consent).decode
"""Return what `Consent.pack` made."""


class ApprovedCall(msgspec.Struct, frozen=True):
    """A call that was consented to, to be made before the model's first turn."""

    request_id: str
    label: str
    name: str
    arguments: str
    shown: str

    @property
    def key(self) -> ToolKey:
        """The tool."""
        return self.label, self.name


class Asking(msgspec.Struct, frozen=True):
    """How a response asks: `stored` with it, or with the digest in the id. `keys`: see `sealed_id`."""

    stored: bool = True
    keys: tuple[bytes, ...] = ()

    def ask(
        self, item_id: str, server: McpTool, name: str, arguments: str, shown: str
    ) -> tuple[str, Consent]:
        """Return the id of the request, and what it is for."""
        label = server.server_label
        if not self.stored:
            item_id = sealed_id(
                item_id, server, name, arguments, self.keys[0] if self.keys else b""
            )
        consent = Consent(label, name, arguments, shown, server.fingerprint(item_id.encode()))
        return item_id, consent


ASKING = Asking()


def sealed_id(stem: str, server: McpTool, name: str, arguments: str, key: bytes) -> str:
    """Return an id with a digest of what the request is for.

    With a `key`, of the gateway and for the tenant alone, nobody else can make one, and it covers the
    credentials. Without one it only shows that server, tool and arguments are those that were asked for: the
    credentials stay out of it, lest they be guessed from the id.
    """
    target = server.fingerprint(key) if key else [server.server_url, server.connector_id]
    holds_for = [stem, target, server.server_label, name, canonical(arguments).decode()]
    digest = hmac.new(key or b"-", encode(holds_for), hashlib.sha256).hexdigest()
    return f"{stem}_{digest[:_DIGEST]}"


def is_sealed(request_id: str) -> bool:
    """True if the id has the form of one with a digest."""
    stem, _, digest = request_id.rpartition("_")
    return "_" in stem and len(digest) == _DIGEST


def is_sealed_for(
    request_id: str, server: McpTool, name: str, arguments: str, keys: tuple[bytes, ...]
) -> bool:
    """True if one of the keys, or no key where there are none, has made this id for this very call."""
    stem = request_id.rpartition("_")[0]
    return any(
        hmac.compare_digest(request_id, sealed_id(stem, server, name, arguments, key))
        for key in keys or (b"",)
    )


def holds_for(consent: Consent, request_id: str, server: McpTool) -> bool:
    """True if a stored request was made for this server with these credentials."""
    return hmac.compare_digest(consent.holds_for, server.fingerprint(request_id.encode()))


def canonical(arguments: str) -> bytes:
    """Return arguments so that what is the same JSON is the same bytes."""
    try:
        return _sorted(msgspec.json.decode(arguments))
    except (msgspec.DecodeError, RecursionError):
        return arguments.encode("utf-8", "surrogatepass")
