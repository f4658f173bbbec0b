"""The settings of the workers: how many, where they listen, and what they do with time."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from extproc.http_address import TcpAddress, parse_http_address
from extproc.settings_section import Seconds, SecondsOrZero, Section, shown


class Sidecar(Section):
    """The worker processes that Envoy calls."""

    workers: int = Field(default=1, ge=1, le=64)
    """Number of worker processes; each uses one core and has a socket of its own."""

    run_dir: Path = Field(default=Path(".data/run"), json_schema_extra=shown("`<data_dir>/run`"))
    """Directory of the unix sockets; the path of each must stay below 100 bytes."""

    grace_seconds: Seconds = 25.0
    """Time that running responses have to end after SIGTERM. What has no client waiting goes to another
    worker then, and the rest fails."""

    drain_seconds: SecondsOrZero = 2.0
    """Time between reporting NOT_SERVING and refusing new requests, for Envoy to turn elsewhere."""

    blocked_seconds: Seconds = 20.0
    """A worker that answers no health check for so long is killed and replaced."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged."""

    log_format: Literal["console", "json"] = "console"
    """Log lines for people or for a collector."""

    heartbeat_seconds: Seconds = 5.0
    """A comment is sent to the client when a stream was silent for so long."""

    open_after_seconds: SecondsOrZero = 10.0
    """A stream starts after so long, even if the model has not answered with a status yet."""

    on_disconnect: Literal["continue", "cancel"] = "continue"
    """What a client's leaving does to its stored response: it goes on without the client, or it ends at once
    and what was made is kept. A request chooses for itself by the header `holdfast-on-disconnect`. What is
    not stored always ends."""

    on_disconnect_header: bool = True
    """Let requests choose by that header; without it, one that asks for anything else is refused."""

    detached_seconds: Seconds = 300.0
    """How long a response goes on without its client."""

    listen: str | None = None
    """`HOST:PORT` or `:PORT` (this machine alone) where ext_proc is served too, for an Envoy in another pod;
    of several workers, the second has the next port. Whoever reaches it is believed about whose a request is:
    let nobody but Envoy reach it."""

    content_listen: str | None = None
    """`HOST:PORT` or `:PORT` where that Envoy fetches the content of files, by HTTP; of several workers, the
    second has the next port. Needs `sealing.keys`, by which workers know what went through ext_proc."""

    name: str = Field(
        default_factory=socket.gethostname,
        min_length=1,
        max_length=200,
        json_schema_extra=shown("the host's name"),
    )
    """Name of this replica, the prefix of its workers' names; must differ between replicas."""

    @field_validator("listen", "content_listen")
    @classmethod
    def _is_a_port(cls, listen: str | None) -> str | None:
        if listen is not None and not isinstance(parse_http_address(listen), TcpAddress):
            raise ValueError("must be HOST:PORT or :PORT; a socket is there anyway")
        return listen

    @model_validator(mode="after")
    def _ports_fit_together(self) -> Self:
        if self.content_listen is None:
            return self
        if self.listen is None:
            raise ValueError("content_listen is for an Envoy that listen is for: set both")
        ports = [_port(address) for address in (self.listen, self.content_listen)]
        if abs(ports[0] - ports[1]) < self.workers:
            raise ValueError(
                "listen and content_listen are too close: each worker has the next port of both"
            )
        return self


def _port(listen: str) -> int:
    address = parse_http_address(listen)
    assert isinstance(address, TcpAddress)
    return address.port
