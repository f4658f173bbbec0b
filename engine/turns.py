"""The part of a run that the model's turns take: each is asked, read, and fed to the machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from engine.anew import Anew
from engine.careful_call import CarefulCall, give_up
from engine.custody import Custody
from engine.delivery import Delivery
from engine.errors import EngineError, UpstreamFailed
from engine.measured import Measured
from engine.model_turn import ModelTurn
from engine.news import News
from engine.response.inputs import Ending, Failed, ModelAnswered, TurnEnded, WaitedLong
from engine.response.turn import TurnRequest
from engine.run import Means, Run
from engine.tool_rounds import came


class Turns:
    """Takes the turns of one run; `partings` are ends of answers that are still being read."""

    def __init__(
        self,
        run: Run,
        means: Means,
        custody: Custody,
        delivery: Delivery,
        news: News,
        anew: Anew,
        measured: Measured,
    ) -> None:
        self.partings: list[asyncio.Task[None]] = []
        self._run = run
        self._account = run.account
        self._machine = run.machine
        self._means = means
        self._limits = means.limits
        self._custody = custody
        self._delivery = delivery
        self._news = news
        self._anew = anew
        self._measured = measured
        self._call: CarefulCall | None = None

    async def take(self, turn: TurnRequest) -> tuple[CarefulCall, Ending]:
        """Call the model, feed its answer to the machine and return how that ended."""
        with self._account.turn(turn) as step:
            call = self._call_of(step.request)
            ending = await self._read_turn(call)
            self._measured.turn_ended(step, call, ending)
            step.over(ending, call.outcome)
        return call, ending

    async def rest(self) -> None:
        """Let go of prose that was held back, where the stream broke off (rule R8)."""
        if self._call is not None:
            await self._delivery.feed(self._call.rest())

    def hang_up(self) -> None:
        """End the call that runs, if one does."""
        if self._call is not None:
            self._call.hang_up()
            self._call = None

    def _call_of(self, turn: TurnRequest) -> CarefulCall:
        again, self._anew.pending = self._anew.pending, False

        def made(held: Callable[[], int]) -> ModelTurn:
            return ModelTurn(
                turn,
                self._run.model or self._means.model,
                self._limits,
                held,
                budget=self._means.retries,
                run=self._run.id,
                again=again,
            )

        return CarefulCall(
            made,
            turn.rules,
            lambda: self._machine.held,
            self._means.choice.care,
            unseen=not (self._run.stream or self._run.streamed),
        )

    async def _read_turn(self, call: CarefulCall) -> Ending:
        self._call = call
        broken: Ending | None = None
        try:
            async with self._news.step(self._limits.turn):
                await self._open(call)
                await self._read(call)
        except TimeoutError:
            late = UpstreamFailed("The model's turn took too long.")
            broken = self._news.ending or self._failed(late)
        except EngineError as error:
            broken = self._failed(error)
        if broken is not None:
            call.hang_up()
        await self.rest()
        self._call = None
        if broken is not None:
            return broken
        # Beside the saving: what follows the terminal event is waited for, so that the connection is kept.
        self.partings.append(asyncio.get_running_loop().create_task(call.finish()))
        return self._ending(call)

    async def _open(self, call: CarefulCall) -> None:
        """Return when the model answered and the accepted row is written: the first event waits for both."""
        new = self._run.new
        if new is not None and (new.idempotency is not None or new.conversation is not None):
            # Whoever comes second, with a key or to a conversation, must not call the model at all.
            await self._custody.accepted()
        opening = asyncio.ensure_future(call.open())
        try:
            await self._custody.accepted()
            if not await came(self._run, opening, self._limits.open_after):
                await self._delivery.feed([WaitedLong()])
            await opening
        except BaseException:
            await give_up(opening)
            raise
        await self._delivery.feed([ModelAnswered()])

    async def _read(self, call: CarefulCall) -> None:
        # What tools and turns before have made is held, too.
        held = self._machine.held
        async with aclosing(call.contents()) as chunks:
            async for contents in chunks:
                await self._delivery.feed(contents)
                if self._account.received(output=self._machine.held > held):
                    self._measured.first_output()
                await self._delivery.keep_up()

    def _ending(self, call: CarefulCall) -> TurnEnded | Failed:
        outcome = call.outcome
        assert outcome is not None
        if outcome.error is not None:
            return self._failed(outcome.error)
        return TurnEnded(self._means.clock(), outcome.usage, outcome.incomplete_reason)

    def _failed(self, error: EngineError) -> Failed:
        return Failed(self._means.clock(), error)
