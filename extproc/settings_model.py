"""The settings of the model server: where it is and how it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator

from extproc.envoy.endpoint import parse_model_urls
from extproc.settings_section import Seconds, Section, shown


class Model(Section):
    """The model server and how it is called."""

    url: str | None = None
    """Base URL of the model server, with or without a final `/v1`: `http://…`, `https://…` or
    `unix:PATH`; `holdfast up` runs a demo model if unset. Several servers of the same models are separated by
    commas (docs/routing.md)."""

    via: Literal["envoy", "url"] = "envoy"
    """How calls of the model travel: through Envoy's private listener, or without Envoy straight to
    `url`, where nothing is balanced or tried again."""

    socket: Path = Field(
        default=Path(".data/run/model.sock"), json_schema_extra=shown("`<run_dir>/model.sock`")
    )
    """Unix socket of Envoy's private listener, through which every call of the model goes."""

    ca_file: Path | None = None
    """Certificates to trust for an `https` model server (PEM); unset trusts those of the system."""

    api_key: SecretStr | None = None
    """Sent to the model server as a bearer token."""

    forward_authorization: bool = False
    """Send the client's own Authorization header to the model server."""

    connect_seconds: Seconds = 5.0
    """Time to connect to the model server."""

    silence_seconds: Seconds = 600.0
    """A model call that sends no byte for so long has failed."""

    # Envoy holds a request that is not streamed for 3600 s at the most.
    turn_seconds: Annotated[float, Field(gt=0, le=3500, allow_inf_nan=False)] = 3500.0
    """Longest duration of one model call."""

    @field_validator("url")
    @classmethod
    def _is_a_base_url(cls, url: str | None) -> str | None:
        if url is not None:
            parse_model_urls(url)
        return url
