"""The settings of how much there may be: of responses without a client, and in every buffer."""

from __future__ import annotations

from pydantic import Field

from extproc.settings_section import Bytes, Section


class Background(Section):
    """Responses that run without a client."""

    concurrency: int = Field(default=32, ge=0, le=10_000)
    """Responses in the background that each worker runs at a time; 0 leaves them to other workers."""

    allowed: bool = True
    """Take requests with `background: true`; where they are not allowed, they are refused."""


class Limits(Section):
    """Bounds of every buffer."""

    body_bytes: Bytes = 32 << 20
    """Largest request body, after decoding."""

    line_bytes: Bytes = 16 << 20
    """Longest line of a model's event stream."""

    response_bytes: Bytes = 64 << 20
    """Most output that is kept for one response."""

    input_items: int = Field(default=2000, ge=1, le=1_000_000)
    """Most input items of one request."""

    error_bytes: Bytes = 64 << 10
    """Most bytes that are read of a model server's error."""

    tools: int = Field(default=512, ge=0, le=100_000)
    """Most tools of one request."""
