"""The settings of the database: where it is, and what it keeps for how long."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, field_validator

from extproc.settings_section import Seconds, SecondsOrZero, Section


class Postgres(Section):
    """The database that holds every response."""

    url: SecretStr | None = None
    """Connection string of Postgres; `holdfast up` runs a private Postgres if unset."""

    pool_size: int = Field(default=8, ge=1, le=200)
    """Connections of each worker."""

    timeout_seconds: Seconds = 5.0
    """Time for a connection or a statement before the store counts as unavailable."""

    outage_seconds: SecondsOrZero = 30.0
    """How long a finished response, or a client that follows a stream, waits for a database that is away."""

    lease_seconds: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] = 30.0
    """How long a running response belongs to a worker that gives no sign of life; after that another one
    takes it over. Longest time, but for a quarter of it, that a response of a dead worker is unfinished."""

    log_bytes: Annotated[int, Field(ge=1024, le=4 << 20)] = 64 << 10
    """So many bytes of a stream's events are written to its log at once."""

    log_seconds: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = 0.2
    """Events are written to the log of their stream after so long, be they ever so few. A client that
    resumes at another worker is so much behind; a worker that dies loses so much of its streams."""

    retention_days: Annotated[float, Field(ge=0, le=36_500, allow_inf_nan=False)] = 30.0
    """How long a stored response is kept after its creation; 0 keeps it for ever. Counts for responses
    that are accepted from then on."""

    @field_validator("url")
    @classmethod
    def _is_a_connection_string(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            # Imported where it is needed: most commands reach no database.
            from psycopg import ProgrammingError
            from psycopg.conninfo import conninfo_to_dict

            try:
                conninfo_to_dict(url.get_secret_value())
            except ProgrammingError:
                # The driver's message repeats the string, with its password.
                raise ValueError(
                    "is no connection string: postgresql://user:password@host:5432/database"
                ) from None
        return url
