"""Summaries of conversations: one turn of a model each, made and read like any other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from engine.api.request import CreateRequest
from engine.api.response_object import Usage
from engine.context.summaries import PROMPT, asking, summary_request
from engine.errors import EngineError, UpstreamFailed
from engine.limits import Limits
from engine.ports import ModelClient
from engine.ports.meters import NO_METERS, Meters
from engine.response.turn import TurnRequest, TurnRules
from engine.retries import RetryBudget
from engine.spoken import Spoken
from engine.upstream.choice import Choice


class Summary(msgspec.Struct, frozen=True):
    """What the model wrote, never empty."""

    text: str
    usage: Usage | None


class Summaries:
    """Asks for summaries with `prompt`, of at most `most_tokens` where that is set."""

    def __init__(
        self,
        model: ModelClient,
        limits: Limits,
        choice: Choice,
        *,
        budget: RetryBudget,
        prompt: str = PROMPT,
        most_tokens: int | None = None,
        meters: Meters = NO_METERS,
    ) -> None:
        self._spoken = Spoken(model, limits, budget)
        self._meters = meters
        self._choice = choice
        self._prompt = prompt
        self._most_tokens = most_tokens

    def turn(
        self, request: CreateRequest, replay: Sequence[bytes], headers: Mapping[str, str]
    ) -> TurnRequest:
        """Return the turn that sums up the items, for a request as the model is asked (`Choice.asking`)."""
        dialect = self._choice.dialect(request.model)
        summing = summary_request(request, self._most_tokens)
        body = dialect.encode(summing, asking(request, replay, self._prompt))
        return TurnRequest(body, headers, TurnRules(declared=()), dialect.name)

    async def summed_up(
        self, turn: TurnRequest, run: str, *, model: str = "", tenant: str = ""
    ) -> Summary:
        """Make the turn of `run`; a text that is cut is used as it is.

        `model` and `tenant` are for the meters.
        Raises UpstreamRefused, UpstreamFailed.
        """
        clock = asyncio.get_running_loop().time
        began, error = clock(), "cancelled"
        usage: Usage | None = None
        try:
            text, usage = await self._spoken.text(turn, run)
            error = ""
        except EngineError as failure:
            error = type(failure).__name__
            raise
        finally:
            self._meters.turn(model, tenant, error, clock() - began, usage, ())
        if not text:
            raise UpstreamFailed("The model has written no summary of the conversation.")
        return Summary(text, usage)
