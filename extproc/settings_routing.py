"""The settings of which model server a turn goes to, and how often it is asked for again (promise 5)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from extproc.envoy.endpoint import parse_model_url
from extproc.settings_section import Section

Percent = Annotated[int, Field(ge=100, le=10_000)]
Times = Annotated[int, Field(ge=0, le=10)]


class Routing(Section):
    """Which model server a turn goes to, and how often it is asked for again (docs/routing.md)."""

    load_percent: Percent = 150
    """Most load of a model server, in percent of the mean: beyond it, conversations that belong to it go to
    another. Less spreads better, more keeps caches warmer."""

    health_path: str | None = None
    """Path that Envoy asks each model server for every few seconds, such as `/health` of vLLM; one that does
    not answer 200 gets no turns. Unset: a server is left out only while it cannot be connected to."""

    picker_url: str | None = None
    """Endpoint picker of the Gateway API Inference Extension that chooses the server of each turn, by gRPC:
    `http://…`, `https://…` or `unix:PATH`. Unset: turns are spread by conversation."""

    picker_ca_file: Path | None = None
    """Certificates to trust for an `https` picker (PEM); unset trusts those of the system."""

    retries: Times = 2
    """How often Envoy sends a turn again that no server has begun to answer, or that was answered with a 503
    without a `Retry-After` above 5 seconds."""

    stream_retries: Times = 1
    """How often a turn is asked for again whose stream broke off, or told of a failure, before its first
    delta."""

    background_retries: Times = 2
    """How often a response in the background asks again for a turn whose stream failed later than that."""

    retry_budget: int = Field(default=10, ge=0, le=1_000_000)
    """Turns that each worker asks for again in a row, for one of the two reasons above; five that go well
    allow one more."""

    @field_validator("health_path")
    @classmethod
    def _is_a_path(cls, path: str | None) -> str | None:
        if path is not None and not path.startswith("/"):
            raise ValueError("must begin with a /")
        return path

    @field_validator("picker_url")
    @classmethod
    def _is_a_server(cls, url: str | None) -> str | None:
        if url is not None and parse_model_url(url).base:
            raise ValueError("must have no path")
        return url
