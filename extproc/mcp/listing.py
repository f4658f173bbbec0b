"""All tools of one server, over its pages (rule T5)."""

from __future__ import annotations

from collections.abc import Iterator

from mcp import Client
from mcp_types import PaginatedRequestParams, Tool

from engine.api.json import encode
from engine.ports import ToolDefinition
from extproc.mcp.failure import McpFailure
from extproc.mcp.target import McpLimits


async def list_tools(client: Client, limits: McpLimits) -> tuple[ToolDefinition, ...]:
    """Return what the server offers, in its order; raises McpFailure where it does not come to an end.

    Of two tools with one name the first counts: the other could not be called.
    """
    tools: dict[str, ToolDefinition] = {}
    seen: set[str] = set()
    cursor: str | None = None
    size = 0
    for _ in range(limits.pages):
        page = await client.session.list_tools(
            params=None if cursor is None else PaginatedRequestParams(cursor=cursor)
        )
        for definition in _definitions(page.tools):
            tools.setdefault(definition.name, definition)
            size += _size(definition)
        if len(tools) > limits.tools or size > limits.list_bytes:
            raise _unusable(
                f"it has more than {limits.tools} tools, or more than {limits.list_bytes} bytes of them"
            )
        cursor = page.next_cursor
        if not cursor:
            return tuple(tools.values())
        if cursor in seen:
            raise _unusable("its list of tools does not end: it gave the same cursor twice")
        seen.add(cursor)
    raise _unusable(f"its list of tools has more than {limits.pages} pages")


def _definitions(tools: list[Tool]) -> Iterator[ToolDefinition]:
    for tool in tools:
        annotations = tool.annotations
        yield ToolDefinition(
            name=tool.name,
            description=tool.description,
            parameters=encode(tool.input_schema),
            annotations=None
            if annotations is None
            else encode(annotations.model_dump(by_alias=True, mode="json", exclude_none=True)),
            read_only=annotations is not None and annotations.read_only_hint is True,
        )


def _size(definition: ToolDefinition) -> int:
    words = len(definition.name) + len(definition.description or "")
    return words + len(definition.parameters) + len(definition.annotations or b"")


def _unusable(why: str) -> McpFailure:
    return McpFailure(f"The MCP server cannot be used: {why}.")
