"""What a turn may do, and how it ended: what every reader of a model's stream is told and tells. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from engine.api.request import CreateRequest
from engine.api.response_object import Usage
from engine.api.tools import FunctionTool
from engine.errors import EngineError
from engine.response.turn import TurnRules


class Outcome(msgspec.Struct, frozen=True):
    """How a turn ended: by a terminal object (`error` None), or by a failure."""

    usage: Usage | None = None
    incomplete_reason: str | None = None
    error: EngineError | None = None


def turn_rules(
    request: CreateRequest,
    owned: Iterable[FunctionTool] = (),
    *,
    known: Iterable[str] = (),
    tells_cuts: bool = True,
) -> TurnRules:
    """Return the rules that follow from a request; with `tool_choice: none` no text can be a call.

    `owned`: the functions that the model is shown beside the client's, for tools that the gateway runs;
    `known`: the names of all of those, also the ones that must not be called: the model is told so then.
    `tells_cuts`: the server says so itself where its answer was cut by its limit.
    """
    choice = request.tool_choice
    functions = [tool for tool in request.functions if choice.allows_function(tool.name)]
    declared = [*functions, *owned]
    allowed = None
    if choice.allowed is not None:
        allowed = frozenset((*choice.allowed.functions, *known))
    most = request.values.get("max_output_tokens")
    return TurnRules(
        tools=(bool(request.functions) or bool(declared)) and choice.sent != "none",
        allowed=allowed,
        parallel=request.parallel_tool_calls,
        logprobs=request.logprobs,
        declared=tuple(declared),
        upstream=bool(request.upstream),
        format=_json_form(request.values.get("text")),
        max_tokens=most if isinstance(most, int) and not tells_cuts else None,
    )


def _json_form(text: object) -> dict[str, object] | None:
    chosen = text.get("format") if isinstance(text, dict) else None
    return chosen if isinstance(chosen, dict) and chosen.get("type") != "text" else None
