"""What a turn may do, and how it ended: what every reader of a model's stream is told and tells. Pure."""

from __future__ import annotations

import msgspec

from engine.api.request import CreateRequest
from engine.api.response_object import Usage
from engine.errors import EngineError
from engine.response.turn import TurnRules


class Outcome(msgspec.Struct, frozen=True):
    """How a turn ended: by a terminal object (`error` None), or by a failure."""

    usage: Usage | None = None
    incomplete_reason: str | None = None
    error: EngineError | None = None


def turn_rules(request: CreateRequest) -> TurnRules:
    """Return the rules that follow from a request; with `tool_choice: none` no text can be a call."""
    choice = request.tool_choice
    may_call = bool(request.tools) and choice.sent != "none"
    return TurnRules(
        tools=may_call,
        allowed=choice.allowed,
        parallel=request.parallel_tool_calls,
        logprobs=request.logprobs,
        declared=tuple(
            tool for tool in request.tools if choice.allowed is None or tool.name in choice.allowed
        ),
        structured=_asks_for_json(request.values.get("text")),
    )


def _asks_for_json(text: object) -> bool:
    chosen = text.get("format") if isinstance(text, dict) else None
    return isinstance(chosen, dict) and chosen.get("type") != "text"
