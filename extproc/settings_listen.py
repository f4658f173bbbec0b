"""The settings of where clients connect."""

from __future__ import annotations

from pydantic import Field, field_validator

from extproc.http_address import parse_http_address
from extproc.settings_section import Section


class Listen(Section):
    """Envoy's public listener."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address to listen on; `0.0.0.0` makes it reachable from other machines."""

    port: int = Field(default=8080, ge=0, le=65_535)
    """Port to listen on; 0 lets the system choose a free one."""


class Http(Section):
    """The workers' own HTTP listener: for an Envoy older than 1.37, or for no Envoy at all."""

    listen: str | None = None
    """`HOST:PORT`, `:PORT` for this machine alone, or `unix:PATH` (of several workers, the second
    has `PATH-1`, the third `PATH-2` …); unset: workers serve ext_proc alone."""

    @field_validator("listen")
    @classmethod
    def _is_an_address(cls, listen: str | None) -> str | None:
        if listen is not None:
            parse_http_address(listen)
        return listen
