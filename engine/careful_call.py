"""A call of the model with the care that the settings ask for: its ending judged, and asked once more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing

import msgspec

from engine.errors import EngineError
from engine.model_turn import ModelTurn
from engine.response.inputs import (
    ArgumentsDelta,
    Content,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
)
from engine.response.turn import TurnRules
from engine.upstream.care import Care, Made
from engine.upstream.rules import Outcome

_DELTAS = (TextDelta, RefusalDelta, ArgumentsDelta, ReasoningDelta, SummaryDelta)


class CarefulCall:
    """One turn of a model, asked for twice where the first answer is not what was asked for.

    `make` makes a call; it is told how to ask what is held besides (rule X5), as is this by `held`. `unseen`:
    nobody sees content before the turn has ended, so that an answer can be thrown away.
    """

    def __init__(
        self,
        make: Callable[[Callable[[], int]], ModelTurn],
        rules: TurnRules,
        held: Callable[[], int],
        care: Care,
        *,
        unseen: bool,
    ) -> None:
        self._make = make
        self._rules = rules
        self._held = held
        self._care = care
        self._call = self._new_call()
        self._again = (
            unseen and self._call.repeatable and care.ask_again and rules.format is not None
        )
        self._kept: list[Content] = []
        self._size = 0
        self._rejected: Outcome | None = None
        self.asked = False
        """True once the model was asked."""

    @property
    def begun(self) -> bool:
        """True once the model has generated something, shown or not."""
        return self._call.begun

    @property
    def repeatable(self) -> bool:
        """False where the server runs tools of its own: none of them is to be run twice."""
        return self._call.repeatable

    @property
    def outcome(self) -> Outcome | None:
        """How the turn ended, as it is to be told; None where it has not ended."""
        outcome = self._call.outcome
        if outcome is None:
            return None
        judged = self._care.judged(outcome, self._rules, self._call.made)
        first = self._rejected.usage if self._rejected is not None else None
        if first is None or judged.usage is None:
            return judged
        return msgspec.structs.replace(judged, usage=first + judged.usage)

    @property
    def made(self) -> Made:
        """What was let through."""
        return self._call.made

    async def open(self) -> None:
        """Send the request and wait for a 200; raises UpstreamRefused, UpstreamFailed."""
        self.asked = True
        await self._call.open()

    def contents(self) -> AsyncGenerator[Iterable[Content], None]:
        """Yield content as it comes, or all at the end where it may be thrown away; raises UpstreamFailed."""
        return self._judged_contents() if self._again else self._call.contents()

    async def _judged_contents(self) -> AsyncGenerator[Iterable[Content], None]:
        await self._gather()
        outcome = self._call.outcome
        if outcome is not None and self._care.rejects(outcome, self._rules, self._call.made):
            await self._ask_again(outcome)
        kept, self._kept = self._kept, []
        yield kept

    def rest(self) -> list[Content]:
        """Return what was held back when the stream broke off: it was prose (rule R8)."""
        kept, self._kept = self._kept, []
        return [*kept, *self._call.rest()]

    def hang_up(self) -> None:
        """Abort the call, if it has not ended."""
        self._call.hang_up()

    async def finish(self) -> None:
        """Let go of an answer that was read to its terminal event, so that its connection is kept."""
        await self._call.finish()

    def _new_call(self) -> ModelTurn:
        return self._make(lambda: self._held() + self._size)

    async def _ask_again(self, outcome: Outcome) -> None:
        """Ask a second time; where that cannot be read either, the first answer stays."""
        first, kept = self._call, self._kept
        await first.finish()
        self._call, self._kept, self._size = self._new_call(), [], 0
        try:
            await self._call.open()
            await self._gather()
        except EngineError:
            self._call.hang_up()
        second = self._call.outcome
        if second is None or second.error is not None:
            self._call, self._kept = first, kept
        else:
            self._rejected = outcome

    async def _gather(self) -> None:
        async with aclosing(self._call.contents()) as chunks:
            async for contents in chunks:
                for piece in contents:
                    self._kept.append(piece)
                    self._size += len(piece.text) if isinstance(piece, _DELTAS) else 0


async def give_up(opening: asyncio.Future[None]) -> None:
    """Cancel a call whose answer nobody waits for; an answer that came just now is closed by its caller."""
    opening.cancel()
    try:
        await opening
    except (asyncio.CancelledError, EngineError):
        return
