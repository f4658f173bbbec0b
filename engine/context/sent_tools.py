"""The tools and the choice of them that a model turn is sent, in the Responses API's form (rules T4, M9)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.api.request import CreateRequest


class SentTools(msgspec.Struct, frozen=True):
    """`declared` in an order that stays the same; `choice` None: the server's default will do."""

    declared: list[dict[str, object]]
    choice: object | None


def sent_tools(
    request: CreateRequest,
    owned: Sequence[dict[str, object]],
    *,
    first: bool,
    forced: object | None,
) -> SentTools:
    """Return what a turn is sent.

    A tool that was forced is forced in the `first` turn only: the model could never end otherwise. `forced`
    is the choice of an owned tool, by the name that the model is shown. Where it is `required`, one of
    `owned` is meant, and nothing else is shown.
    """
    choice = request.tool_choice.sent if forced is None else forced
    declared = [*owned] if forced == "required" else [*_others(request), *owned]
    wanted = declared and choice is not None and (first or choice == "none")
    return SentTools(declared, choice if wanted else None)


def sent_include(request: CreateRequest) -> list[str]:
    """Return what is to be included that only the model server can: of the items of its own tools."""
    asked = request.values.get("include")
    kinds = [tool.kind for tool in request.upstream]
    return [
        name
        for name in (asked if isinstance(asked, list) else ())
        if any(kind.startswith(name.partition("_call.")[0]) for kind in kinds)
    ]


def _others(request: CreateRequest) -> list[dict[str, object]]:
    """Return the tools that are not owned, of which only those that are allowed are sent."""
    choice = request.tool_choice
    functions = [tool.sent() for tool in request.functions if choice.allows_function(tool.name)]
    upstream = [
        tool.sent()
        for tool in request.upstream
        if choice.allowed is None or choice.allowed.has_upstream(tool)
    ]
    return [*functions, *upstream]
