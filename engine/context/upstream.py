"""The request that a model server is sent: the client's, with history before its input (rules M2, M9).

Everything that stays the same from turn to turn stands first and in a fixed order, the input last, so
that the bytes of a longer conversation begin with the bytes of the shorter one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.api.json import encode
from engine.api.request import FIELDS, LOGPROBS, CreateRequest
from engine.context.sent_tools import sent_include, sent_tools

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

    `owned` are the tools that the gateway runs, as the model is shown them; `first` and `forced` as for
    `engine.context.sent_tools`.
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
    sent: dict[str, object] = {"model": request.model}
    if isinstance(values.get("instructions"), str):
        sent["instructions"] = values["instructions"]
    sent.update(_tools(request, owned, first=first, forced=forced))
    for name, field in FIELDS.items():
        if field.forward and name in values and name not in _FIRST:
            sent[name] = values[name]
    include = [*([LOGPROBS] if request.logprobs else ()), *sent_include(request)]
    if include:
        sent["include"] = include
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
    tools = sent_tools(request, owned, first=first, forced=forced)
    sent: dict[str, object] = {}
    if tools.declared:
        sent["tools"] = tools.declared
        if not request.parallel_tool_calls:
            sent["parallel_tool_calls"] = False
    if tools.choice is not None:
        sent["tool_choice"] = tools.choice
    return sent
