"""The settings of the model server: where it is and how it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator

from extproc.envoy.endpoint import parse_model_urls
from extproc.settings_dialect import ServerName, parse_dialects
from extproc.settings_section import Seconds, Section, shown
from extproc.settings_tenancy import Names


class Model(Section):
    """The model server and how it is called."""

    url: str | None = None
    """Base URL of the model server, with or without a final `/v1`: `http://…`, `https://…` or
    `unix:PATH`; `holdfast up` runs a demo model if unset. Several servers of the same models are separated by
    commas (docs/routing.md)."""

    via: Literal["envoy", "url", "request"] = "envoy"
    """How calls of the model travel: through Envoy's private listener; without Envoy straight to `url`,
    where nothing is balanced or tried again; or as the client's own request alone (`envoy.inline`), which is
    one call for each response: tools that the gateway runs and `background` are refused then."""

    socket: Path = Field(
        default=Path(".data/run/model.sock"), json_schema_extra=shown("`<run_dir>/model.sock`")
    )
    """Unix socket of Envoy's private listener, through which every call of the model goes."""

    ca_file: Path | None = None
    """Certificates to trust for an `https` model server (PEM); unset trusts those of the system."""

    api_key: SecretStr | None = None
    """Sent to the model server as a bearer token."""

    dialect: Literal["auto", "responses", "chat"] = "auto"
    """The API in which the model server is asked: `responses` (`/v1/responses`), `chat`
    (`/v1/chat/completions`), or the safer one of that server and release, once it is known."""

    dialects: Names = ()
    """The same for some models: `PATTERN=DIALECT` entries, separated by commas, of which the first that
    fits a model's name counts, such as `gpt-oss*=responses`."""

    server: ServerName = "auto"
    """The kind of server; `auto` asks it (`GET /version` and `/v1/models`)."""

    probe_seconds: Seconds = 60.0
    """How often the server is asked what it is."""

    cache_salt: bool = False
    """Send vLLM a `cache_salt` for each tenant, so that none can measure by the time to an answer what others
    have asked; they share no cached prefixes then."""

    check_output: Literal["off", "report", "retry"] = "off"
    """What is done with a text that is not the JSON that `text.format` asks for, where a server does not
    enforce it, or not always: the response fails, or, if it is not streamed, the model is first asked once
    more. Of a schema, `pattern`, `patternProperties` and the `unevaluated…` keywords are not looked at. What
    takes too long to judge passes: more than about a thousand objects, or alternatives that refer to
    themselves."""

    estimate_reasoning_tokens: bool = False
    """Where the server counts no `reasoning_tokens`, estimate them by the reasoning's share of the output's
    characters; otherwise they are 0."""

    forward_authorization: bool = False
    """Send the client's own Authorization header to the model server."""

    connect_seconds: Seconds = 5.0
    """Time to connect to the model server."""

    silence_seconds: Seconds = 600.0
    """A model call that sends no byte for so long has failed."""

    # Envoy holds a request that is not streamed for 3600 s at the most.
    turn_seconds: Annotated[float, Field(gt=0, le=3500, allow_inf_nan=False)] = 3500.0
    """Longest duration of one model call."""

    @field_validator("dialects")
    @classmethod
    def _are_pairs(cls, dialects: tuple[str, ...]) -> tuple[str, ...]:
        parse_dialects(dialects)
        return dialects

    @field_validator("url")
    @classmethod
    def _is_a_base_url(cls, url: str | None) -> str | None:
        if url is not None:
            parse_model_urls(url)
        return url
