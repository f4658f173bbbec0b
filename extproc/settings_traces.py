"""The settings of traces (docs/traces.md)."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, SecretStr, field_validator

from extproc.settings_section import Section

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+=[^,]*")


class Traces(Section):
    """Traces of responses over OTLP (docs/traces.md); off where there is no endpoint."""

    endpoint: str | None = None
    """Collector's OTLP/gRPC address, `http://HOST:4317`, or `https://…` for TLS; needs the extra
    `traces` (`pip install '.[traces]'` in a checkout)."""

    headers: SecretStr | None = None
    """Headers for the collector, `name=value,name=value`: credentials, as a rule."""

    sample_ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    """Share of the traces that begin here; those that begin at a caller are recorded if the caller's are."""

    content: bool = False
    """Put requests, tool arguments and outputs into the spans: what people said is then at the collector."""

    service_name: str = Field(default="holdfast", min_length=1, max_length=200)
    """`service.name` of the spans."""

    @field_validator("endpoint")
    @classmethod
    def _is_a_url(cls, endpoint: str | None) -> str | None:
        if endpoint is not None and not re.fullmatch(r"https?://[^/\s@]+/?", endpoint):
            raise ValueError("must be http://HOST:PORT or https://HOST:PORT")
        return endpoint

    @field_validator("headers")
    @classmethod
    def _are_pairs(cls, headers: SecretStr | None) -> SecretStr | None:
        if headers is not None:
            for part in headers.get_secret_value().split(","):
                if not _HEADER.fullmatch(part.strip()):
                    raise ValueError("must be name=value, separated by commas")
        return headers

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Return the headers, their names in small letters as gRPC wants them."""
        if self.headers is None:
            return ()
        parts = (part.strip().partition("=") for part in self.headers.get_secret_value().split(","))
        return tuple((name.lower(), value) for name, _, value in parts)
