"""What is stored with a response so that another worker can run it again: the request without its input.

Input and history are in the store already. Credentials are not in here (rule X4): a request that came with
them cannot be run again, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from engine.api.json import encode, read_object
from engine.api.ownership import NO_POLICY, ToolPolicy
from engine.api.request import CreateRequest, Fields, parse_again
from engine.limits import Limits
from engine.response.consent import ApprovedCall

# Carried on to the model server by the next run too, so that logs and traces can be joined.
_KEPT_HEADERS = ("x-request-id", "traceparent", "tracestate")
# Of an `mcp` tool.
_SECRETS = ("authorization", "headers")


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """`fields` is the request as it came, `minted` how many ids its input took, `approved` the calls that its
    input consents to.

    `credentials` says that more is needed than is here: the model, or an MCP server, was called with the
    client's own.
    """

    fields: msgspec.Raw
    headers: dict[str, str]
    minted: int
    credentials: bool
    approved: tuple[ApprovedCall, ...] = ()

    def request(self, limits: Limits, policy: ToolPolicy = NO_POLICY) -> CreateRequest:
        """Return the request, its input empty; raises InvalidRequest if this release refuses it."""
        return parse_again(read_object(bytes(self.fields)), limits, policy)


def pack(
    request: Fields,
    headers: Mapping[str, str],
    minted: int,
    approved: tuple[ApprovedCall, ...] = (),
) -> bytes:
    """Return what is stored of an accepted request."""
    fields = {name: value for name, value in request.items() if name != "input"}
    tools, secret = _without_secrets(fields.get("tools", msgspec.Raw(b"null")))
    if secret:
        fields["tools"] = tools
    work = Work(
        fields=msgspec.Raw(encode(fields)),
        headers={name: headers[name] for name in _KEPT_HEADERS if name in headers},
        minted=minted,
        credentials=secret or "authorization" in headers,
        approved=approved,
    )
    return encode(work)


def _without_secrets(raw: msgspec.Raw) -> tuple[msgspec.Raw, bool]:
    """Return the declared tools without credentials of MCP servers, and whether there were any."""
    tools = msgspec.json.decode(raw)
    secret = False
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict) and tool.get("type") == "mcp":
            given = [tool.pop(name, None) for name in _SECRETS]
            secret = secret or any(given)
    return msgspec.Raw(encode(tools)), secret


def unpack(stored: bytes) -> Work:
    """Return what `pack` made; of anything else, a row of an older release, nothing that can be run again."""
    try:
        return _decode(stored)
    except msgspec.DecodeError:
        return Work(fields=msgspec.Raw(b"{}"), headers={}, minted=0, credentials=True)


_decode = msgspec.json.Decoder(Work).decode
