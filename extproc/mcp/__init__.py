"""MCP servers as providers of tools: connections that are kept, lists of tools, calls and their outcomes.

The `mcp` package takes half a second to import: only `extproc.mcp.connection` and what it imports know it,
and they are imported when the first server is named.
"""
