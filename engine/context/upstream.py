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
) -> bytes:
    """Return the JSON body of a model turn; `items` are replayed items, spliced in unparsed.

    `owned` are the tools that the gateway runs, as the model is shown them. A tool that was forced is
    forced in the `first` turn only (rule T4): the model could never end otherwise.
    """
    head = encode(_parameters(request, owned, first=first))
    return b'%b,"input":[%b]}' % (head[:-1], b",".join(items))


def _parameters(
    request: CreateRequest, owned: Sequence[dict[str, object]], *, first: bool
) -> dict[str, object]:
    values = request.values
    sent: dict[str, object] = {"model": request.model}
    if isinstance(values.get("instructions"), str):
        sent["instructions"] = values["instructions"]
    sent.update(_tools(request, owned, first=first))
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
    request: CreateRequest, owned: Sequence[dict[str, object]], *, first: bool
) -> dict[str, object]:
    allowed, choice = request.tool_choice.allowed, request.tool_choice.sent
    tools = [tool.sent() for tool in request.functions if allowed is None or tool.name in allowed]
    tools += owned
    sent: dict[str, object] = {}
    if tools:
        sent["tools"] = tools
        if not request.parallel_tool_calls:
            sent["parallel_tool_calls"] = False
        if choice is not None and (first or choice == "none"):
            sent["tool_choice"] = choice
    return sent
