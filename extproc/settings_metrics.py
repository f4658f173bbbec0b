"""The settings of metrics: where they are served, and how many names they tell apart."""

from __future__ import annotations

from pydantic import Field, field_validator

from extproc.http_address import parse_http_address
from extproc.settings_section import Section


class Metrics(Section):
    """Metrics for Prometheus: one endpoint, `/metrics`, for all workers (docs/metrics.md)."""

    enabled: bool = True
    """Whether anything is counted and served."""

    listen: str = ":9464"
    """`HOST:PORT`, `:PORT` for this machine alone, or `unix:PATH`. Whoever reaches it may read it. Where
    this is not set and the port is taken, nothing is served, and a line of the log says so."""

    models: int = Field(default=32, ge=0, le=1000)
    """Most names of models that each worker tells apart; the others are `other`, as is a model that has
    never answered."""

    tenant_label: bool = False
    """Whether requests, responses and tokens are told apart by tenant."""

    tenants: int = Field(default=100, ge=1, le=10_000)
    """Most tenants that each worker tells apart then; the others are `other`."""

    @field_validator("listen")
    @classmethod
    def _is_an_address(cls, listen: str) -> str:
        parse_http_address(listen)
        return listen
