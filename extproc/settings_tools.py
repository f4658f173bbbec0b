"""The settings of the tools that the gateway runs, and of where it goes for them (rules T2, T4, X3)."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated

from pydantic import Field, field_validator

from extproc.settings_section import Section
from extproc.settings_tenancy import Names

_HOST = re.compile(r"(\*\.)?[a-z0-9_.:-]+")

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class Tools(Section):
    """Tools that the gateway runs within a response: those of MCP servers."""

    turns: int = Field(default=32, ge=1, le=10_000)
    """Most model turns of one response; one that wants more ends incomplete, with the reason `max_turns`."""

    list_seconds: Seconds = 15.0
    """Time that a server has to tell its tools."""

    call_seconds: Seconds = 120.0
    """Time for one call of a tool; one that takes longer has failed, and the model is told so."""

    calls: int = Field(default=64, ge=1, le=10_000)
    """Calls that each worker makes at a time."""

    response_calls: int = Field(default=8, ge=1, le=10_000)
    """Calls that are made at a time for one response."""

    connections: int = Field(default=256, ge=1, le=100_000)
    """MCP servers that each worker keeps connected."""

    answer_bytes: Annotated[int, Field(ge=1024, le=1 << 31)] = 8 << 20
    """Largest message of an MCP server."""

    output_characters: int = Field(default=256 << 10, ge=1, le=1 << 31)
    """What of a call's answer is kept; the rest is cut, and the model is told so."""


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
