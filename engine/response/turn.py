"""One call of the model as it is asked for: its request, and what its answer may do."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from engine.api.tools import FunctionTool


class TurnRules(msgspec.Struct, frozen=True):
    """What a turn may do: whether tools were declared, which may be called, whether in parallel.

    `declared`: the functions that a call in plain text may name; None where nobody said, then any. A text
    that has the form of a call, without any markup, is believed only if it names one of them, and only
    where no JSON was asked for (`structured`). `upstream`: the server runs tools of its own, whose items are
    passed through.
    """

    tools: bool = False
    allowed: frozenset[str] | None = None
    parallel: bool = True
    logprobs: bool = False
    declared: tuple[FunctionTool, ...] | None = None
    structured: bool = False
    upstream: bool = False


class TurnRequest(msgspec.Struct, frozen=True):
    """What a model server is sent: a JSON body and headers; `rules` are for reading its answer."""

    body: bytes
    headers: Mapping[str, str] = {}
    rules: TurnRules = TurnRules()
