"""One turn of a model: a call, and another where it failed before its first delta (`engine.retries`)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing

from engine.errors import EngineError
from engine.limits import Limits
from engine.model_call import ModelCall
from engine.ports import ModelClient
from engine.response.inputs import Content
from engine.response.turn import TurnRequest
from engine.retries import RetryBudget, once, passes
from engine.upstream.care import Made
from engine.upstream.rules import Outcome


class ModelTurn:
    """Reads like a `ModelCall`, and is one until it fails.

    `held` is as for the call, `run` is for the log. `again`: the turn was asked for before and failed in its
    middle; this time it is brought to one server, once, as is a turn that must not be repeated.
    """

    def __init__(
        self,
        turn: TurnRequest,
        model: ModelClient,
        limits: Limits,
        held: Callable[[], int],
        *,
        budget: RetryBudget,
        run: str,
        again: bool = False,
    ) -> None:
        self.begun = False
        """True once the model has generated something, shown or not."""
        self.repeatable = not turn.rules.upstream
        """False where the server runs tools of its own: none of them is to be run twice."""
        single = again or not self.repeatable
        self._turn = once(turn) if single else turn
        self._model = model
        self._limits = limits
        self._held = held
        self._budget = budget
        self._run = run
        self._left = 0 if single else limits.stream_retries
        self._call = self._made()

    @property
    def outcome(self) -> Outcome | None:
        """How the turn ended, by the model's own word; None where it has not ended."""
        return self._call.outcome

    @property
    def made(self) -> Made:
        """What was let through."""
        return self._call.made

    async def open(self) -> None:
        """Send the request and wait for a 200; raises UpstreamRefused, UpstreamFailed."""
        await self._call.open()

    async def contents(self) -> AsyncGenerator[Iterable[Content], None]:
        """Yield content as it comes, everything of one chunk together; raises UpstreamFailed.

        Raises UpstreamRefused, too, where a call that is made in place of another is refused.
        """
        while True:
            try:
                async with aclosing(self._call.contents()) as chunks:
                    async for contents in chunks:
                        yield contents if self.begun else self._first(contents)
            except EngineError as error:
                if not self._is_asked_again(error):
                    raise
            else:
                failure = self._failure()
                if failure is None:
                    self._budget.earn()
                if failure is None or not self._is_asked_again(failure):
                    return
            self._call.hang_up()
            self._turn = once(self._turn)
            self._call = self._made()
            await self._call.open()

    def rest(self) -> list[Content]:
        """Return what was held back when the stream broke off: it was prose (rule R8)."""
        return self._call.rest()

    def hang_up(self) -> None:
        """Abort the call, if it has not ended."""
        self._call.hang_up()

    async def finish(self) -> None:
        """Let go of an answer that was read to its terminal event, so that its connection is kept."""
        await self._call.finish()

    def _made(self) -> ModelCall:
        return ModelCall(self._turn, self._model, self._limits, self._held)

    def _first(self, contents: Iterable[Content]) -> list[Content]:
        """Return the same, having seen whether it is the beginning."""
        seen = list(contents)
        self.begun = bool(seen) or self._call.held_back > 0
        return seen

    def _failure(self) -> EngineError | None:
        """Return how the call failed that was read to its end."""
        if self._call.outcome is None and not self.begun:
            # There is nothing to be let go of: it fails for want of a terminal event.
            self._call.rest()
        outcome = self._call.outcome
        return None if outcome is None else outcome.error

    def _is_asked_again(self, error: EngineError) -> bool:
        if self.begun or self._left == 0 or not passes(error):
            return False
        self._left -= 1
        return self._budget.spend(self._run, error)
