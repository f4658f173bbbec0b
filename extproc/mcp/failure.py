"""What can go wrong with an MCP server, as the API's error object shows it.

The error of an `mcp_call` is one of three objects: of the tool, of the protocol, of HTTP.
"""

from __future__ import annotations

import msgspec

from engine.api.json import encode
from engine.ports import ToolOutcome


class McpFailure(Exception):
    """A request to a server failed; `message` is for the client and the model.

    `code` is an HTTP status (`protocol` False; 502 and 504 stand for servers that cannot be reached or
    are too slow), or a JSON-RPC code of the server's own. `unsent`: the server has not acted on the
    request, so it may be sent again.
    """

    def __init__(
        self, message: str, *, code: int = 502, protocol: bool = False, unsent: bool = False
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.protocol = protocol
        self.unsent = unsent

    def outcome(self) -> ToolOutcome:
        """Return the outcome of a call that ended so."""
        kind = "mcp_protocol_error" if self.protocol else "http_error"
        error = {"type": kind, "code": self.code, "message": self.message}
        return ToolOutcome(text=f"The tool call failed. {self.message}", error=encode(error))


class FailureData(msgspec.Struct, frozen=True):
    """How `McpTransport` tells what failed through the SDK: in the `data` of a JSON-RPC error."""

    http_status: int
    unsent: bool


FAILURE_CODE = -32098
"""The JSON-RPC code of such an error; from the range that servers are free to use."""
