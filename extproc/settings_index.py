"""The settings of the vector index: which one, where it is, and how long it may take."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from extproc.settings_section import Seconds, Section

_MILVUS = ("http", "https", "tcp", "unix")


class Index(Section):
    """Where the vectors of vector stores are looked up (docs/vector-index.md). What is in it can be made
    again from the database: `holdfast reindex`."""

    kind: Literal["milvus", "pgvector", "off"] | None = None
    """`milvus`: a Milvus at `url`; `pgvector`: the extension `vector` of Postgres; `off`: none, and files can
    be neither put into vector stores nor searched. Unset: `holdfast up` runs a private Milvus Lite if its
    package is there, and `holdfast serve` has none."""

    url: SecretStr | None = None
    """Milvus: `http://HOST:19530`, `https://…`, or `unix:PATH` for a Milvus Lite. pgvector: connection string
    of another Postgres than that of `postgres.url`."""

    token: SecretStr | None = None
    """Token of Milvus: an API key, or `USER:PASSWORD`."""

    database: str | None = Field(default=None, min_length=1, max_length=255)
    """Database in Milvus; unset: its default."""

    prefix: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")] = "holdfast"
    """What the names of our collections in Milvus begin with: two installations with one database in Milvus
    need two of them."""

    timeout_seconds: Seconds = 10.0
    """Time for one operation before the index counts as unavailable."""

    pool_size: int = Field(default=4, ge=1, le=200)
    """Connections of each worker to Postgres for pgvector, beside those of `postgres.pool_size`."""

    @field_validator("url")
    @classmethod
    def _is_spelled_out(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not urlsplit(url.get_secret_value()).scheme:
            raise ValueError("is no URL: http://HOST:19530, unix:PATH or postgresql://…")
        return url

    @model_validator(mode="after")
    def _is_reachable(self) -> Self:
        if self.kind is None and (self.url is not None or self.token is not None):
            raise ValueError(
                "index.url and index.token are of no use without index.kind: which is it?"
            )
        if self.kind != "milvus":
            return self
        if self.url is None:
            raise ValueError("index.url is needed: where is Milvus?")
        if urlsplit(self.url.get_secret_value()).scheme not in _MILVUS:
            raise ValueError(f"index.url of Milvus begins with one of {', '.join(_MILVUS)}")
        return self
