"""One call of the model as it is asked for: its request, and what its answer may do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from engine.api.request import CreateRequest
from engine.api.tools import FunctionTool
from engine.context.sources import NO_SOURCES, Sources


class TurnRules(msgspec.Struct, frozen=True):
    """What a turn may do: whether tools were declared, which may be called, whether in parallel.

    `declared`: the functions that a call in plain text may name; None where nobody said, then any. A text
    that has the form of a call, without any markup, is believed only if it names one of them, and only
    where no JSON was asked for: `format` is the form that was, if any. `upstream`: the server runs tools of
    its own, whose items are passed through. `max_tokens`: what it may write at most, where the
    server does not say that this has cut its answer. `sources`: what its text may cite.
    """

    tools: bool = False
    allowed: frozenset[str] | None = None
    parallel: bool = True
    logprobs: bool = False
    declared: tuple[FunctionTool, ...] | None = None
    format: Mapping[str, object] | None = None
    upstream: bool = False
    max_tokens: int | None = None
    sources: Sources = NO_SOURCES

    @property
    def structured(self) -> bool:
        """True if JSON was asked for."""
        return self.format is not None


class TurnRequest(msgspec.Struct, frozen=True):
    """What a model server is sent: a JSON body and headers; `rules` are for reading its answer.

    `dialect` is the name of the one that the body is written in (`engine.upstream.dialect`).
    """

    body: bytes
    headers: Mapping[str, str] = {}
    rules: TurnRules = TurnRules()
    dialect: str = "responses"


class Encoder(Protocol):
    """Writes the requests of a response's turns, all in one dialect."""

    @property
    def name(self) -> str:
        """The dialect's name."""

    @property
    def tells_cuts(self) -> bool:
        """Whether the server says so itself where an answer was cut by its limit."""

    def encode(
        self,
        request: CreateRequest,
        items: Iterable[bytes],
        owned: Sequence[dict[str, object]] = (),
        *,
        first: bool = True,
        forced: object | None = None,
    ) -> bytes:
        """Return the JSON body of a turn; `items` are replayed items (`engine.context.replay`).

        `owned` are functions that the gateway runs; `first` and `forced` as for
        `engine.context.sent_tools`.
        """
