"""The tools that the gateway runs itself, as ports: an MCP server, file search, anything a newcomer adds.

A *provider* is one source of tools within one run: it tells its definitions once, when the run starts, and
is then called. The run decides everything else: which tools the model sees and under which names, how many
calls go at once, what the client's stream shows. One class with two methods is a whole provider.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import msgspec


class ToolDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """One tool, in the provider's own words.

    `name` is unique within the provider and may hold anything: the model is shown another one where it is
    no function name, or where two providers share it (`engine.context.tool_names`). `parameters` is a JSON
    Schema of type object, as JSON. `annotations` is a JSON object for the client, None where there is none.
    `read_only`: the provider says that a call changes nothing; approvals and filters may rely on it.
    """

    name: str
    parameters: bytes
    description: str | None = None
    annotations: bytes | None = None
    read_only: bool = False


class ToolOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a call. A failure is an outcome too: an output that the model can react to (rule T2).

    `text` is what the model is told; never empty where the call failed. `images` are `data:` URLs that
    follow the text. `error` is None where the call succeeded, else the error object of the item, as JSON.
    `fields` are further fields of the item, as JSON by name (`results` of a file search, say).
    """

    text: str
    images: tuple[str, ...] = ()
    error: bytes | None = None
    fields: tuple[tuple[str, bytes], ...] = ()

    @property
    def failed(self) -> bool:
        """True if the item ends as `failed`."""
        return self.error is not None


class ToolDeclaration(msgspec.Struct, frozen=True, kw_only=True):
    """A tool of a request whose type the settings have given a provider.

    `label` is that type; the provider takes it for its own. `fields` is everything else that was declared,
    unchecked; `param` is the declaration's path in the request, for InvalidRequest. It has no credentials.
    """

    label: str
    fields: Mapping[str, object]
    param: str
    tenant: str


class ToolProvider(Protocol):
    """One source of tools, for one tenant and one run."""

    label: str
    """What the client calls it: the `server_label` of an MCP server. Unique within a request."""

    async def definitions(self, *, timeout: float) -> Sequence[ToolDefinition]:
        """Return all tools, in an order that does not change without need (prompts begin with it).

        Asked once per run, before the first turn; may answer from a cache. Within `timeout` seconds, or
        raises ToolsUnavailable, whose message is shown to the client.
        """
        ...

    async def call(self, name: str, arguments: bytes, *, timeout: float) -> ToolOutcome:
        """Call the tool `name` (its own name, not the one shown) with a JSON object of arguments.

        Several calls may run at once. Takes at most `timeout` seconds. Never raises, except
        CancelledError: then the call is given up, the other end is told where it can be, and the provider
        stays usable. A call that may have had its effect is never repeated.
        """
        ...


@runtime_checkable
class TracedProvider(Protocol):
    """A provider that tells its servers which trace a call belongs to."""

    def within(self, trace: Mapping[str, str]) -> ToolProvider:
        """Return the same provider, whose calls carry these headers (`traceparent`, `tracestate`)."""
        ...


OpenProvided = Callable[[ToolDeclaration], ToolProvider]
"""Gives the provider of one run. Does no I/O; raises InvalidRequest for fields that it cannot honour."""
