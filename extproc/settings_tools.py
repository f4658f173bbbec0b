"""The settings of the tools that the gateway runs, and of where it goes for them (rules T2, T4, X3)."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from engine.api.ownership import CLIENT_TYPES
from extproc.settings_section import Section
from extproc.settings_tenancy import Names

_HOST = re.compile(r"(\*\.)?[a-z0-9_.:-]+")

_PROVIDER = re.compile(r"[a-z][a-z0-9_]{0,63}=[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_TAKEN_TYPES = CLIENT_TYPES | {
    "mcp", "file_search", "web_search", "web_search_preview", "code_interpreter", "image_generation",
    "allowed_tools", "none", "auto", "required",
}  # fmt: skip

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class Tools(Section):
    """Tools that the gateway runs within a response: those of MCP servers, and searches of files."""

    turns: int = Field(default=32, ge=1, le=10_000)
    """Most model turns of one response; one that wants more ends incomplete, with the reason `max_turns`."""

    response_seconds: Seconds = 7200.0
    """Time for one response, all its turns and calls together; one that needs more ends incomplete, with
    what was made and the reason `max_seconds`. A worker that takes it over counts anew."""

    list_seconds: Seconds = 15.0
    """Time that a server has to tell its tools."""

    call_seconds: Seconds = 120.0
    """Time for one call of a tool; one that takes longer has failed, and the model is told so."""

    calls: int = Field(default=64, ge=1, le=10_000)
    """Calls that each worker makes at a time; the next one is that of the tenant that has the fewest."""

    response_calls: int = Field(default=8, ge=1, le=10_000)
    """Calls that are made at a time for one response."""

    connections: int = Field(default=256, ge=1, le=100_000)
    """MCP servers that each worker keeps connected; at most three quarters of them for one tenant."""

    answer_bytes: Annotated[int, Field(ge=1024, le=1 << 31)] = 8 << 20
    """Largest message of an MCP server."""

    output_characters: int = Field(default=256 << 10, ge=1, le=1 << 31)
    """What of a call's answer is kept, or of a server's error; the rest is cut, and the model is told so."""

    search_results: Annotated[int, Field(ge=1, le=50)] = 10
    """Passages that a `file_search` finds whose declaration has no `max_num_results`."""

    search_bytes: Annotated[int, Field(ge=1024, le=16 << 20)] = 48 << 10
    """Text of one `file_search` that the model is given; of what is more, the passages that fit worst are
    left out."""

    upstream_types: Names = ()
    """Types of tools that the model server runs itself, such as `web_search,code_interpreter`: their
    declarations are sent to it as they came, and what it tells of them goes to the client. With `mcp`, all
    MCP servers are its."""

    upstream_labels: Names = ()
    """The same for MCP servers of these labels (`server_label`)."""

    providers: Names = ()
    """Tools of your own: `TYPE=MODULE:FUNCTION`, separated by commas (docs/tools.md)."""

    @field_validator("upstream_types")
    @classmethod
    def _can_be_upstream(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        if taken := CLIENT_TYPES.intersection(types):
            raise ValueError(f"'{min(taken)}' is a type whose calls the client answers")
        return types

    @field_validator("providers")
    @classmethod
    def _name_providers(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        types = [entry.partition("=")[0] for entry in entries]
        if not all(_PROVIDER.fullmatch(entry) for entry in entries):
            raise ValueError("must be TYPE=MODULE:FUNCTION, the type in small letters")
        if len({*types}) < len(types):
            raise ValueError("must name each type once")
        if taken := _TAKEN_TYPES.intersection(types):
            raise ValueError(f"'{min(taken)}' is a type of the API")
        return entries

    @model_validator(mode="after")
    def _have_one_owner(self) -> Self:
        for entry in self.providers:
            if entry.partition("=")[0] in self.upstream_types:
                raise ValueError(f"'{entry}' is in upstream_types too")
        return self


class Outbound(Section):
    """Which targets a request may name; without any of these: `https` to public addresses."""

    allow_http: bool = False
    """Allow `http` beside `https`."""

    only_hosts: Names = ()
    """If given, no other host may be named; separated by commas, `*.example.com` is all below it."""

    private_hosts: Names = ()
    """Hosts that may have private and loopback addresses, written as for `only_hosts`."""

    networks: Names = ()
    """Networks that may be reached although they are not public, such as `10.1.0.0/16`."""

    @field_validator("only_hosts", "private_hosts")
    @classmethod
    def _are_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_HOST.fullmatch(host) for host in hosts):
            raise ValueError("must be names of hosts in small letters, or *.NAME")
        return hosts

    @field_validator("networks")
    @classmethod
    def _are_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            ip_network(network)
        return networks
