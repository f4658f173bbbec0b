"""What a model says in one turn that no client sees: a summary, a query in better words."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from engine.api.response_object import Usage
from engine.errors import UpstreamFailed
from engine.limits import Limits
from engine.model_turn import ModelTurn
from engine.ports import ModelClient
from engine.response.inputs import TextDelta
from engine.response.turn import TurnRequest
from engine.retries import RetryBudget


class Spoken:
    """Makes such turns, within the same limits as all others."""

    def __init__(self, model: ModelClient, limits: Limits, budget: RetryBudget) -> None:
        self._model = model
        self._limits = limits
        self._budget = budget

    async def text(self, turn: TurnRequest, run: str) -> tuple[str, Usage | None]:
        """Return the text of a turn of `run`, perhaps cut or empty, and what it took.

        Raises UpstreamRefused, UpstreamFailed.
        """
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
        return "".join(texts).strip(), None if outcome is None else outcome.usage


async def _read(call: ModelTurn, texts: list[str]) -> None:
    await call.open()
    async with aclosing(call.contents()) as chunks:
        async for contents in chunks:
            texts += [piece.text for piece in contents if isinstance(piece, TextDelta)]
    texts += [piece.text for piece in call.rest() if isinstance(piece, TextDelta)]
    await call.finish()
