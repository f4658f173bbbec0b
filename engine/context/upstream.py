"""The request that a model server is sent: the client's, with history before its input (rules M2, M9).

Everything that stays the same from turn to turn stands first and in a fixed order, the input last, so
that the bytes of a longer conversation begin with the bytes of the shorter one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.api.json import encode
from engine.api.request import FIELDS, LOGPROBS, CreateRequest

# Parameters that a prompt's prefix depends on come first; the rest in the order of the table.
_FIRST = ("model", "instructions")


def upstream_request(
    request: CreateRequest,
    items: Iterable[bytes],
    owned: Sequence[dict[str, object]] = (),
    *,
    first: bool = True,
    forced: object | None = None,
) -> bytes:
    """Return the JSON body of a model turn; `items` are replayed items, spliced in unparsed.

    `owned` are the tools that the gateway runs, as the model is shown them. A tool that was forced is
    forced in the `first` turn only (rule T4): the model could never end otherwise. `forced` is the choice of
    an owned tool, which has the name here that the model is shown. If the first turn is shown some of the
    owned tools only, no function of the client's may be what it calls either.
    """
    head = encode(_parameters(request, owned, first=first, forced=forced))
    return b'%b,"input":[%b]}' % (head[:-1], b",".join(items))


def _parameters(
    request: CreateRequest,
    owned: Sequence[dict[str, object]],
    *,
    first: bool,
    forced: object | None,
) -> dict[str, object]:
    values = request.values
    sent: dict[str, object] = {name: values[name] for name in _FIRST if name in values}
    sent.update(_tools(request, owned, first=first, forced=forced))
    for name, field in FIELDS.items():
        if field.forward and name in values and name not in _FIRST:
            sent[name] = values[name]
    if request.logprobs:
        sent["include"] = [LOGPROBS]
    # Turns are always streamed, and never stored twice: the server's own store is per process and unbounded.
    sent["stream"] = True
    sent["store"] = False
    return sent


def _tools(
    request: CreateRequest,
    owned: Sequence[dict[str, object]],
    *,
    first: bool,
    forced: object | None,
) -> dict[str, object]:
    choice = request.tool_choice.sent if forced is None else forced
    tools = [*owned] if forced == "required" else [*_others(request), *owned]
    sent: dict[str, object] = {}
    if tools:
        sent["tools"] = tools
        if not request.parallel_tool_calls:
            sent["parallel_tool_calls"] = False
        if choice is not None and (first or choice == "none"):
            sent["tool_choice"] = choice
    return sent


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
