"""The settings of the model that makes vectors of texts, for vector stores and searches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from extproc.envoy.endpoint import parse_model_url
from extproc.settings_section import Seconds, Section, shown

# What a server is told; the local model has none of it.
_OF_SERVERS = (
    "model",
    "dimensions",
    "url",
    "ca_file",
    "api_key",
    "query_prefix",
    "passage_prefix",
)


class Embeddings(Section):
    """What makes vectors of texts, for vector stores and searches (docs/embeddings.md). Vectors of one model
    cannot be compared with those of another: after a change, all have to be made again."""

    source: Literal["upstream", "local"] | None = None
    """`upstream`: a server with OpenAI's `/v1/embeddings`; `local`: the small model all-MiniLM-L6-v2 in each
    worker. Unset: none, and no vector stores; `holdfast up` takes `local` if its packages are there."""

    model: str | None = Field(default=None, min_length=1)
    """The server's name of the model; needed for `upstream`."""

    dimensions: Annotated[int, Field(ge=1, le=16_384)] | None = None
    """Length of the vectors, for models that can be asked for it; unset: the model's own."""

    url: str | None = None
    """Base URL of the server of the embedding model, as `model.url`; through Envoy as well. Unset: it is one
    of the models of `model.url`."""

    ca_file: Path | None = None
    """Certificates to trust for an `https` server of `url` (PEM); unset trusts those of the system."""

    api_key: SecretStr | None = None
    """Sent to the server of `url` as a bearer token; without `url`, that of the model server is."""

    batch: int = Field(default=64, ge=1, le=2048)
    """Most texts of one request; it has a mebibyte of text at most."""

    timeout_seconds: Seconds = 60.0
    """Time for one request, with all its repetitions."""

    retries: int = Field(default=4, ge=0, le=20)
    """How often a request is sent again that failed for a reason that may pass: 429, 5xx, no connection."""

    query_prefix: str = Field(default="", max_length=2000)
    """Put in front of what is searched for, for models that want it: `query: ` for those of the e5 kind."""

    passage_prefix: str = Field(default="", max_length=2000)
    """Put in front of what is found: `passage: ` for those of the e5 kind."""

    threads: int = Field(default=2, ge=1, le=64)
    """Threads that each worker's local model computes with."""

    cache_dir: Path = Field(
        default=Path(".data/cache/embeddings"),
        json_schema_extra=shown("`<data_dir>/cache/embeddings`"),
    )
    """Directory of the local model's graph, which is made at its first use: 90 MB."""

    @field_validator("url")
    @classmethod
    def _is_a_base_url(cls, url: str | None) -> str | None:
        if url is not None:
            parse_model_url(url)
        return url

    @model_validator(mode="after")
    def _fit_the_source(self) -> Self:
        given = [name for name in _OF_SERVERS if getattr(self, name)]
        if self.source == "upstream":
            if self.model is None:
                raise ValueError("source = upstream needs model: which one is asked for?")
            if self.url is None and (self.api_key is not None or self.ca_file is not None):
                raise ValueError("api_key and ca_file are for a server of its own: there is no url")
        elif given:
            raise ValueError(f"{given[0]} is for source = upstream")
        return self
