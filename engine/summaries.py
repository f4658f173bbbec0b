"""Summaries of conversations: one turn of a model each, made and read like any other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing

import msgspec

from engine.api.request import CreateRequest
from engine.api.response_object import Usage
from engine.context.summaries import PROMPT, asking, summary_request
from engine.errors import EngineError, UpstreamFailed
from engine.limits import Limits
from engine.model_turn import ModelTurn
from engine.ports import ModelClient
from engine.ports.meters import NO_METERS, Meters
from engine.response.inputs import TextDelta
from engine.response.turn import TurnRequest, TurnRules
from engine.retries import RetryBudget
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
        self._meters = meters
        self._model = model
        self._limits = limits
        self._choice = choice
        self._budget = budget
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
            summary = await self._asked(turn, run)
            error, usage = "", summary.usage
            return summary
        except EngineError as failure:
            error = type(failure).__name__
            raise
        finally:
            self._meters.turn(model, tenant, error, clock() - began, usage, ())

    async def _asked(self, turn: TurnRequest, run: str) -> Summary:
        texts: list[str] = []
        call = ModelTurn(
            turn,
            self._model,
            self._limits,
            lambda: sum(map(len, texts)),
            budget=self._budget,
            run=run,
        )
        try:
            async with asyncio.timeout(self._limits.turn):
                await _read(call, texts)
        except TimeoutError:
            raise UpstreamFailed("The model's turn took too long.") from None
        finally:
            call.hang_up()
        outcome = call.outcome
        if outcome is not None and outcome.error is not None:
            raise outcome.error
        text = "".join(texts).strip()
        if not text:
            raise UpstreamFailed("The model has written no summary of the conversation.")
        return Summary(text, None if outcome is None else outcome.usage)


async def _read(call: ModelTurn, texts: list[str]) -> None:
    await call.open()
    async with aclosing(call.contents()) as chunks:
        async for contents in chunks:
            texts += [piece.text for piece in contents if isinstance(piece, TextDelta)]
    texts += [piece.text for piece in call.rest() if isinstance(piece, TextDelta)]
    await call.finish()
