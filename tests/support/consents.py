"""Consent asked for and answered, in an engine with fakes at all ports."""

from __future__ import annotations

import json
from typing import Any

from engine.ports import ToolOutcome
from tests.support import replies
from tests.support.engine_rig import Rig, final
from tests.support.fake_model import FakeModel, Step, frames_of
from tests.support.fake_tools import FakeProvider, FakeServers, server

DONE = frames_of(replies.stream(replies.text("done"), input_tokens=7))
WHY = "no such customer"
FAILED = ToolOutcome(
    text=WHY,
    error=b'{"type":"mcp_tool_execution_error","content":[{"type":"text","text":"%b"}]}'
    % WHY.encode(),
)
ARGUMENTS = '{"to": "bob", "n": 1}'


def turn(*parts: Any, **fields: Any) -> list[Step]:
    """Return what the model says in one turn."""
    return list(frames_of(replies.stream(*parts, **fields)))


def asks(label: str = "s", **fields: Any) -> dict[str, Any]:
    """A server whose calls need consent, as is the default."""
    return server(label, require_approval=None, **fields)


def rig_of(*turns: list[Step], provider: FakeProvider | None = None, **more: Any) -> Rig:
    """Return an engine whose model says these turns, then `done`."""
    servers = FakeServers(provider or FakeProvider("s", "send", "look"), FakeProvider("t", "send"))
    return Rig(FakeModel(*DONE, turns=turns), providers=servers, **more)


def sent(rig: Rig, number: int) -> list[Any]:
    """What the model was sent as input in a turn."""
    return list(json.loads(rig.model.bodies[number])["input"])


def kinds(response: Any) -> list[str]:
    """Return of which types the output is."""
    return [item["type"] for item in response["output"]]


def of(response: Any, kind: str) -> list[Any]:
    """Return the output items of a type."""
    return [item for item in response["output"] if item["type"] == kind]


def answer(request: Any, *, approve: bool = True, **fields: Any) -> dict[str, Any]:
    """Return the answer to a request for consent."""
    given = {"approval_request_id": request["id"], "approve": approve, **fields}
    return {"type": "mcp_approval_response", **given}


async def asked(rig: Rig, **fields: Any) -> tuple[Any, Any]:
    """Return a response that asks for one consent, and its request."""
    response = final(await rig.stream(**{"tools": [asks()], **fields}))
    [request] = of(response, "mcp_approval_request")
    return response, request


async def refused(rig: Rig, **fields: Any) -> tuple[int, str, str]:
    """Send what is refused; return status, param and code."""
    reply = await rig.create(**fields)
    assert reply.whole is not None
    error = reply.json["error"]
    return reply.whole.status, error["param"], error["code"]
