"""Which MCP server, and how much of what it sends is taken."""

from __future__ import annotations

import msgspec

from extproc.outbound.policy import OutboundPolicy


class McpTarget(msgspec.Struct, frozen=True):
    """A server, what it is sent with every request, and how far its connections may reach.

    `headers` are secrets and stay out of `repr()`.
    """

    url: str
    headers: tuple[tuple[str, str], ...] = ()
    policy: OutboundPolicy = OutboundPolicy()

    def __repr__(self) -> str:
        """Return nothing that could be a secret: there are URLs with keys in them."""
        return "McpTarget(…)"


class McpLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes (of text: characters), times in seconds (rule X5)."""

    connections: int = 256
    """How many servers are kept connected, over all tenants; three quarters of them for one."""
    connect: float = 10.0
    """From the first packet to the end of the handshake."""
    idle: float = 300.0
    """How long a connection without calls is kept."""
    silence: float = 900.0
    """How long a request may stay without a byte of an answer; longer than any call's deadline."""
    abandoned: int = 16
    """Calls given up on one connection, after which it is replaced: a server may keep each of them open."""
    streams: int = 20
    """Event streams that one connection opens in a minute without waiting: servers may end them at will."""
    stream_pause: float = 5.0
    """Before each further one."""
    tools_ttl: float = 300.0
    """How long a list of tools is believed."""
    pages: int = 64
    tools: int = 1024
    list_bytes: int = 4 * 2**20
    """All that one server says of its tools."""
    answer_bytes: int = 8 * 2**20
    """One message of a server; longer ones are an error."""
    output_text: int = 256 * 2**10
    """What of an answer's text is kept; the rest is cut, and the model is told so."""
    images: int = 8
